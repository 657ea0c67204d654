//! Reading a blob, whole or one range, in pieces that are read only as fast as they are taken.

use std::sync::Arc;

use azulite_storage::ids::Sha256;
use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::task::JoinHandle;

use super::Streams;
use super::range::{AfterEnd, Range};
use super::store::{BlobReader, Place, StoreError};

/// Bytes read at once. Two pieces of a download are in memory at most: one being sent, one read ahead.
const PIECE_BYTES: u64 = 128 << 10;

/// Why there is nothing to download.
#[derive(Debug)]
pub enum FetchError {
    /// Neither the place nor the empty one has the blob.
    NotFound,
    /// The range starts after the end of the blob.
    AfterEnd(AfterEnd),
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for FetchError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A blob that is open; its first piece has been read already.
pub struct Download {
    /// Size of the whole blob.
    pub size: u64,
    /// First byte of the part.
    pub first: u64,
    /// Bytes of the part.
    pub length: u64,
    piece: Bytes,
    reader: Arc<dyn BlobReader>,
}

impl Streams {
    /// Opens a blob and reads the first piece of the part asked for.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch(&self, place: Place, hash: Sha256, range: Option<Range>) -> Result<Download, FetchError> {
        self.metrics.data_download_requests.inc();
        let this = self.clone();
        let fetching = tokio::task::spawn_blocking(move || this.timed("fetch", || this.open(&place, &hash, range)));
        let download = match fetching.await {
            Ok(result) => result?,
            Err(stopped) => return Err(FetchError::Store(StoreError::Io(std::io::Error::other(stopped)))),
        };
        let download = download.ok_or(FetchError::NotFound)?.map_err(FetchError::AfterEnd)?;
        self.metrics.data_downloaded_bytes.add(download.length);
        Ok(download)
    }

    /// Opens a blob for a caller that may block; `None` when neither the place nor the empty one has it.
    ///
    /// # Errors
    /// The store failed.
    pub fn reader(&self, place: &Place, hash: &Sha256) -> Result<Option<Arc<dyn BlobReader>>, StoreError> {
        self.metrics.data_download_requests.inc();
        let reader = self.timed("fetch", || self.reader_of(place, hash))?;
        self.metrics.data_downloaded_bytes.add(reader.as_ref().map_or(0, |reader| reader.len()));
        Ok(reader)
    }

    fn reader_of(&self, place: &Place, hash: &Sha256) -> Result<Option<Arc<dyn BlobReader>>, StoreError> {
        let Some((found, _)) = self.find(place, hash)? else { return Ok(None) };
        Ok(self.store.open_at(&found, hash)?.filter(|reader| !reader.is_empty()))
    }

    /// `Ok(None)`: not found. The range's own error is no error of the store.
    fn open(
        &self,
        place: &Place,
        hash: &Sha256,
        range: Option<Range>,
    ) -> Result<Option<Result<Download, AfterEnd>>, StoreError> {
        let Some(reader) = self.reader_of(place, hash)? else { return Ok(None) };
        let size = reader.len();
        let (first, length) = match range.map_or(Ok((0, size)), |range| range.within(size)) {
            Ok(part) => part,
            Err(after_end) => return Ok(Some(Err(after_end))),
        };
        let piece = read_piece(reader.as_ref(), first, length)?;
        Ok(Some(Ok(Download { size, first, length, piece, reader })))
    }
}

impl Download {
    /// The part in one piece, when it is that short.
    ///
    /// # Errors
    /// The download itself, when it is longer.
    pub fn into_whole(self) -> Result<Bytes, Self> {
        if u64::try_from(self.piece.len()).is_ok_and(|read| read == self.length) { Ok(self.piece) } else { Err(self) }
    }

    /// The part in pieces; the next one is read while one is being sent, and no further.
    pub fn into_pieces(self) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + Sync + 'static {
        let Self { first, length, piece, reader, .. } = self;
        let ahead = Ahead { reader, position: first, left: length, next: Some(Next::Read(piece)) };
        stream::unfold(ahead, Ahead::step)
    }
}

enum Next {
    Read(Bytes),
    Reading(JoinHandle<Result<Bytes, StoreError>>),
}

struct Ahead {
    reader: Arc<dyn BlobReader>,
    /// Where `next` begins, and how many bytes of the part there are from there.
    position: u64,
    left: u64,
    next: Option<Next>,
}

impl Ahead {
    async fn step(mut self) -> Option<(Result<Bytes, StoreError>, Self)> {
        let piece = match self.next.take()? {
            Next::Read(piece) => Ok(piece),
            Next::Reading(task) => match task.await {
                Ok(result) => result,
                Err(stopped) => Err(StoreError::Io(std::io::Error::other(stopped))),
            },
        };
        match &piece {
            Ok(bytes) => self.read_on(u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
            Err(error) => tracing::error!(%error, "a download broke off"),
        }
        Some((piece, self))
    }

    fn read_on(&mut self, taken: u64) {
        self.position = self.position.saturating_add(taken);
        self.left = self.left.saturating_sub(taken);
        if self.left > 0 {
            let (reader, position, left) = (Arc::clone(&self.reader), self.position, self.left);
            let reading = tokio::task::spawn_blocking(move || read_piece(reader.as_ref(), position, left));
            self.next = Some(Next::Reading(reading));
        }
    }
}

fn read_piece(reader: &dyn BlobReader, position: u64, left: u64) -> Result<Bytes, StoreError> {
    let mut piece = vec![0; usize::try_from(left.min(PIECE_BYTES)).unwrap_or_default()];
    reader.read_exact_at(&mut piece, position)?;
    Ok(Bytes::from(piece))
}
