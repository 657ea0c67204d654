//! Where the stored bytes of a sparse file belong.

/// Pieces of one file.
const PIECES_MAX: usize = 1 << 16;

/// Places and lengths, in order and apart.
#[derive(Debug, Default)]
pub(super) struct Map {
    pieces: Vec<(u64, u64)>,
    end: u64,
    stored: u64,
}

impl Map {
    /// `None` when it goes back, is too long for a file, or is one too many.
    pub(super) fn push(&mut self, place: u64, len: u64) -> Option<()> {
        if place < self.end || self.pieces.len() >= PIECES_MAX {
            return None;
        }
        self.end = place.checked_add(len)?;
        self.stored = self.stored.checked_add(len)?;
        self.pieces.push((place, len));
        Some(())
    }

    pub(super) fn pieces(&self) -> &[(u64, u64)] {
        &self.pieces
    }

    /// Bytes that stand in the archive.
    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    /// Where the last piece ends.
    pub(super) fn end(&self) -> u64 {
        self.end
    }
}
