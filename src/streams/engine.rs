//! The real analyzer: `identify` behind the trait the upload speaks to.

use std::sync::Arc;

use bytes::Bytes;

use super::analyze::{Analyzer, DigestMode, DigestSink, Digests, Identified};
use super::store::ReadSeek;
use crate::identify::content::Scan;
use crate::identify::{Digester, IDENTIFY_VERSION, Identifier, Mode, Notes};
use crate::metrics::Metrics;

/// Digests in this process, identification in this process and its children.
#[derive(Clone)]
pub struct Engine {
    identifier: Arc<Identifier>,
    metrics: Arc<Metrics>,
}

impl Engine {
    /// An analyzer over the loaded rules, which counts what it notices.
    #[must_use]
    pub fn new(identifier: Arc<Identifier>, metrics: Arc<Metrics>) -> Self {
        Self { identifier, metrics }
    }

    fn count(&self, notes: &Notes) {
        if notes.disputed {
            self.metrics.identify_disputed.inc();
        }
        let result = match &notes.content {
            None => return,
            Some(Scan::Type(_)) => "type",
            Some(Scan::Nothing) => "nothing",
            Some(Scan::Skipped) => "skipped",
            Some(Scan::Failed(error)) => {
                tracing::warn!(%error, "the content rules could not be evaluated for a file");
                "failed"
            }
        };
        self.metrics.identify_content.inc([result]);
    }
}

impl Analyzer for Engine {
    fn version(&self) -> u32 {
        IDENTIFY_VERSION
    }

    fn digester(&self, mode: DigestMode) -> Box<dyn DigestSink> {
        let mode = match mode {
            DigestMode::Full => Mode::Full,
            DigestMode::Sha256Only => Mode::Sha256Only,
        };
        Box::new(Sink(Digester::new(mode)))
    }

    fn identify(&self, input: Box<dyn ReadSeek>) -> Result<Identified, String> {
        let (found, notes) = self.identifier.identify_noting(input).map_err(|error| error.to_string())?;
        self.count(&notes);
        Ok(Identified {
            mime: found.mime,
            magic: found.magic,
            file_format: found.file_format,
            file_extension: found.file_extension.unwrap_or_default(),
        })
    }
}

struct Sink(Digester);

impl DigestSink for Sink {
    fn update(&mut self, bytes: Bytes) {
        self.0.update(bytes);
    }

    fn finish(self: Box<Self>) -> Result<Digests, String> {
        let found = self.0.finish().map_err(|error| error.to_string())?;
        Ok(Digests {
            sha512: found.sha512,
            sha256: found.sha256,
            sha1: found.sha1,
            md5: found.md5,
            ssdeep: found.ssdeep.unwrap_or_default(),
            tlsh: found.tlsh.unwrap_or_default(),
        })
    }
}
