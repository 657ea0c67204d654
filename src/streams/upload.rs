//! The steps of an upload: receive, hash, check, identify, publish.
//!
//! The body goes through a short channel to one blocking thread that stages and hashes it, so that memory stays bounded
//! whatever the size. Whatever ends the upload early drops the staged bytes with it. Spec: streams.md 1.2.

use std::future::Future;
use std::sync::Arc;

use azulite_storage::ids::Sha256;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::Streams;
use super::analyze::{DigestMode, Digests, Identified};
use super::store::{BlobRecord, Place, Staged, StoreError};

/// Pieces of a body on their way to the thread that stages them. A piece is at most what hyper reads at once.
const PIECES_IN_FLIGHT: usize = 4;

/// What the caller of an upload wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadRequest {
    /// SHA-256 only; needs `expected_sha256`.
    pub skip_identify: bool,
    /// Hash the caller computed, compared as text.
    pub expected_sha256: Option<String>,
}

/// Why an upload was refused or failed. Nothing is stored in any of these cases.
#[derive(Debug, thiserror::Error)]
pub enum UploadError<E> {
    /// Identification is to be skipped, and no hash was given to compare with.
    #[error("no hash to compare with")]
    HashNeeded,
    /// Too many uploads are under way.
    #[error("too many uploads are under way")]
    Overloaded,
    /// The staging file could not be made.
    #[error("cannot make a staging file: {0}")]
    Stage(#[source] StoreError),
    /// The body could not be read.
    #[error("cannot read the body")]
    Receive(E),
    /// The staging file could not be written.
    #[error("cannot write the staging file: {0}")]
    Write(#[source] StoreError),
    /// A digest failed.
    #[error("cannot compute digests: {0}")]
    Digest(String),
    /// The body has no bytes.
    #[error("the body is empty")]
    Empty,
    /// The hash is not the one expected.
    #[error("sha256 mismatch - supplied: {supplied} vs calc: {computed}")]
    Mismatch {
        /// As the caller gave it.
        supplied: String,
        /// As it is.
        computed: String,
    },
    /// Identification failed.
    #[error("cannot identify: {0}")]
    Identify(String),
    /// The store refused.
    #[error("cannot store: {0}")]
    Publish(#[source] StoreError),
}

/// A failure on the blocking thread.
enum Fault {
    Stage(StoreError),
    Write(StoreError),
    Digest(String),
    Empty,
    Mismatch {
        supplied: String,
        computed: String,
    },
    Identify(String),
    Publish(StoreError),
    /// Nobody waits for the answer any more.
    Abandoned,
}

impl Fault {
    fn into_error<E>(self) -> UploadError<E> {
        match self {
            Self::Stage(e) => UploadError::Stage(e),
            Self::Write(e) => UploadError::Write(e),
            Self::Digest(e) => UploadError::Digest(e),
            Self::Empty => UploadError::Empty,
            Self::Mismatch { supplied, computed } => UploadError::Mismatch { supplied, computed },
            Self::Identify(e) => UploadError::Identify(e),
            Self::Publish(e) => UploadError::Publish(e),
            Self::Abandoned => UploadError::Identify("the upload was abandoned".to_owned()),
        }
    }
}

enum Piece {
    Data(Bytes),
    /// The body ended as it should; without this the rest is missing.
    End,
}

type Answer = Result<BlobRecord, Fault>;

impl Streams {
    /// Stores one blob and tells what it is.
    ///
    /// # Durability
    /// Durable on `Ok`; nothing is stored on `Err`.
    /// # Errors
    /// [`UploadError`], in the order of its variants.
    /// # Cancel safety
    /// Dropping the future abandons the upload: nothing is left behind, unless publishing had begun.
    pub async fn upload<E>(
        &self,
        place: Place,
        request: UploadRequest,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<BlobRecord, UploadError<E>> {
        self.metrics.data_upload_requests.inc();
        if request.skip_identify && request.expected_sha256.is_none() {
            return Err(UploadError::HashNeeded);
        }
        let slot = self.upload_slot().await.ok_or(UploadError::Overloaded)?;
        let (pieces, received) = mpsc::channel(PIECES_IN_FLIGHT);
        let (answer, answered) = oneshot::channel();
        let work = Work { streams: self.clone(), place, request };
        tokio::task::spawn_blocking(move || {
            let result = work.run(received, &answer);
            drop(slot);
            // When nobody waits any more there is nobody to tell.
            answer.send(result).ok();
        });
        send_pieces(body, &pieces).await?;
        drop(pieces);
        match answered.await {
            Ok(Ok(record)) => {
                self.metrics.data_uploaded_bytes.add(record.size);
                Ok(record)
            }
            Ok(Err(fault)) => Err(fault.into_error()),
            Err(_) => Err(UploadError::Identify("the thread that did the work stopped".to_owned())),
        }
    }

    fn upload_slot(&self) -> impl Future<Output = Option<OwnedSemaphorePermit>> + use<> {
        let slot = tokio::time::timeout(self.options.upload_wait, Arc::clone(&self.uploads).acquire_owned());
        async { slot.await.ok()?.ok() }
    }
}

/// Hands the body on, piece by piece. Stops early, without an error, when the other side has failed: its answer says why.
async fn send_pieces<E>(
    body: impl Stream<Item = Result<Bytes, E>>,
    pieces: &mpsc::Sender<Piece>,
) -> Result<(), UploadError<E>> {
    tokio::pin!(body);
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(UploadError::Receive)?;
        if pieces.send(Piece::Data(piece)).await.is_err() {
            return Ok(());
        }
    }
    pieces.send(Piece::End).await.ok();
    Ok(())
}

/// One upload on its blocking thread.
struct Work {
    streams: Streams,
    place: Place,
    request: UploadRequest,
}

impl Work {
    fn run(&self, received: mpsc::Receiver<Piece>, answer: &oneshot::Sender<Answer>) -> Answer {
        let staged = self.streams.store.stage().map_err(Fault::Stage)?;
        let earlier = self.expected_record();
        let mode =
            if self.request.skip_identify || earlier.is_some() { DigestMode::Sha256Only } else { DigestMode::Full };
        let (mut staged, digests) = self.receive(staged, mode, received)?;
        self.check(staged.len(), &digests.sha256)?;
        let hash = Sha256::parse(&digests.sha256).ok_or_else(|| Fault::Digest("no SHA-256".to_owned()))?;
        let known = match earlier {
            Some(record) => Some(record),
            None => self.known(&hash),
        };
        let (answered, kept) = match known {
            Some(record) if self.request.skip_identify => (sparse(staged.len(), digests), record),
            Some(record) => (record.clone(), record),
            None if self.request.skip_identify => {
                let record = sparse(staged.len(), digests);
                (record.clone(), record)
            }
            None => {
                let record = self.identify(staged.as_mut(), digests, answer)?;
                (record.clone(), record)
            }
        };
        if answer.is_closed() {
            return Err(Fault::Abandoned);
        }
        let publish = || staged.publish(&hash, &self.place, &kept);
        self.streams.timed("put", publish).map_err(Fault::Publish)?;
        Ok(answered)
    }

    /// The record of an earlier upload of the bytes that the caller says these are, when it is as good as a new one.
    fn expected_record(&self) -> Option<BlobRecord> {
        let expected = self.request.expected_sha256.as_deref()?;
        self.known(&Sha256::parse(expected)?)
    }

    /// What an earlier upload of the same bytes found out by today's rules. A failing look-up is no reason to fail the
    /// upload: the work is done again.
    fn known(&self, hash: &Sha256) -> Option<BlobRecord> {
        let version = self.streams.analyzer.version();
        match self.streams.store.known(hash) {
            Ok(record) => record.filter(|record| record.is_by_rules(version)),
            Err(error) => {
                tracing::warn!(%hash, %error, "the record of an earlier upload cannot be read");
                None
            }
        }
    }

    fn receive(
        &self,
        mut staged: Box<dyn Staged>,
        mode: DigestMode,
        mut received: mpsc::Receiver<Piece>,
    ) -> Result<(Box<dyn Staged>, Digests), Fault> {
        let mut digester = self.streams.analyzer.digester(mode);
        loop {
            match received.blocking_recv() {
                Some(Piece::Data(bytes)) => {
                    staged.write(&bytes).map_err(Fault::Write)?;
                    digester.update(bytes);
                }
                Some(Piece::End) => break,
                None => return Err(Fault::Abandoned),
            }
        }
        let digests = digester.finish().map_err(Fault::Digest)?;
        Ok((staged, digests))
    }

    fn check(&self, size: u64, computed: &str) -> Result<(), Fault> {
        if size == 0 {
            return Err(Fault::Empty);
        }
        match &self.request.expected_sha256 {
            Some(supplied) if supplied != computed => {
                Err(Fault::Mismatch { supplied: supplied.clone(), computed: computed.to_owned() })
            }
            _ => Ok(()),
        }
    }

    fn identify(
        &self,
        staged: &mut dyn Staged,
        digests: Digests,
        answer: &oneshot::Sender<Answer>,
    ) -> Result<BlobRecord, Fault> {
        let turn = Handle::current().block_on(Arc::clone(&self.streams.identifications).acquire_owned());
        if answer.is_closed() {
            return Err(Fault::Abandoned);
        }
        let input = staged.reader().map_err(|error| Fault::Identify(error.to_string()))?;
        let found = self.streams.analyzer.identify(input).map_err(Fault::Identify)?;
        drop(turn);
        if found.file_format == "unknown" {
            self.streams.metrics.identify_fail.inc([&found.mime, &found.magic]);
        }
        let version = self.streams.analyzer.version();
        Ok(full(version, staged.len(), digests, found))
    }
}

pub(super) fn full(identify_version: u32, size: u64, digests: Digests, found: Identified) -> BlobRecord {
    let Digests { sha512, sha256, sha1, md5, ssdeep, tlsh } = digests;
    let Identified { mime, magic, file_format, file_extension } = found;
    BlobRecord {
        identify_version,
        size,
        sha512,
        sha256,
        sha1,
        md5,
        ssdeep,
        tlsh,
        mime,
        magic,
        file_format,
        file_extension,
    }
}

/// What is known when identification was skipped.
fn sparse(size: u64, digests: Digests) -> BlobRecord {
    BlobRecord { size, sha256: digests.sha256, ..BlobRecord::default() }
}
