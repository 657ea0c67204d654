//! Digests and identification as the upload sees them, so that tests and other engines can stand in for the real one.

use bytes::Bytes;

use super::store::ReadSeek;

/// What to compute of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestMode {
    /// Every digest of the upload answer.
    Full,
    /// Size and SHA-256 only.
    Sha256Only,
}

/// Digests of an upload; those that were not computed are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// Lower-case hex.
    pub sha512: String,
    /// Lower-case hex; never empty.
    pub sha256: String,
    /// Lower-case hex.
    pub sha1: String,
    /// Lower-case hex.
    pub md5: String,
    /// Empty for small input.
    pub ssdeep: String,
    /// Empty for small or monotonous input.
    pub tlsh: String,
}

/// What the content looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identified {
    /// Media type.
    pub mime: String,
    /// Descriptive text.
    pub magic: String,
    /// Azul type.
    pub file_format: String,
    /// Without a dot; may be empty.
    pub file_extension: String,
}

impl Identified {
    /// Whether a part of it could not be found out, for no fault of the content's; `magic` says why.
    #[must_use]
    pub fn had_trouble(&self) -> bool {
        super::store::is_trouble(&self.magic)
    }
}

/// Computes digests and recognises content.
pub trait Analyzer: Send + Sync + 'static {
    /// Version of the identification rules.
    fn version(&self) -> u32;

    /// Begins the digests of one input.
    fn digester(&self, mode: DigestMode) -> Box<dyn DigestSink>;

    /// Recognises the content of `input`, which stands at its beginning.
    ///
    /// # Errors
    /// A text for people: the input could not be read, or the engine failed on it.
    fn identify(&self, input: Box<dyn ReadSeek>) -> Result<Identified, String>;
}

/// Digests under way.
pub trait DigestSink: Send {
    /// Takes the next bytes.
    fn update(&mut self, bytes: Bytes);

    /// Ends the input.
    ///
    /// # Errors
    /// A text for people; none of it is the input's doing.
    fn finish(self: Box<Self>) -> Result<Digests, String>;
}
