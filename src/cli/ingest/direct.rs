//! Straight into the data directory, with the parts that the server is made of.

use std::io::Cursor;
use std::sync::Arc;

use azulite_storage::ids::Sha256;

use super::content::Content;
use super::gate::Pass;
use super::sink::{Published, Sink, StoreFault, body, changed};
use super::submission::AUTHOR;
use crate::admin::{Announcement, Flow};
use crate::cli::exit::Exit;
use crate::cli::output::Refusal;
use crate::cli::target::Opened;
use crate::config::Config;
use crate::dispatcher::hub::{Hub, PostError, PostRequest};
use crate::dispatcher::{Dispatcher, SharedDispatcher};
use crate::identify::{Digester, Digests, IDENTIFY_VERSION, Identifier, Mode, content};
use crate::metrics::Metrics;
use crate::serve::{dispatcher_options, identifications};
use crate::streams::{BlobRecord, BlobStore, Copier, Place, Staged, StoreError};

/// See the module.
pub(super) struct Direct {
    dispatcher: SharedDispatcher,
    runtime: tokio::runtime::Runtime,
    identifier: Identifier,
    place: Place,
    opened: Opened,
}

fn refused(what: &str, error: &dyn std::fmt::Display) -> Refusal {
    Refusal::failed(format!("{what}: {error}"))
}

impl Direct {
    /// Over an open data directory; makes the topics that are missing.
    ///
    /// # Errors
    /// The topics cannot be made, or the identification rules not be loaded.
    pub(super) fn new(config: &Config, opened: Opened, place: Place) -> Result<Self, Refusal> {
        let metrics = Arc::new(Metrics::new());
        let options = dispatcher_options(config).map_err(|error| Refusal::usage(error.to_string()))?;
        let dispatcher = Dispatcher::start(
            options,
            opened.broker.clone(),
            metrics.clone(),
            Arc::new(Copier::new(opened.admin.blobs().clone(), metrics)),
        );
        let dispatcher = dispatcher.map_err(|error| refused("the dispatcher cannot be started", &error))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| refused("the runtime cannot be started", &error))?;
        let scanner = content::scanner(identifications(config), config.identify.content_max_bytes);
        let identifier = scanner.and_then(Identifier::load);
        let identifier = identifier.map_err(|error| refused("the rules cannot be loaded", &error))?;
        Ok(Self { dispatcher: SharedDispatcher(Arc::new(dispatcher)), runtime, identifier, place, opened })
    }

    fn blobs(&self) -> &Arc<dyn BlobStore> {
        self.opened.admin.blobs()
    }

    fn fault(&self, error: StoreError) -> StoreFault {
        match error {
            StoreError::Full => StoreFault::Fatal(disk_full()),
            StoreError::Poisoned => StoreFault::Fatal(self.stopped()),
            error @ (StoreError::Damaged(_) | StoreError::Io(_)) => StoreFault::File(error.to_string()),
        }
    }

    fn stopped(&self) -> Refusal {
        let reason = self.opened.fatal().unwrap_or_else(|| "it is closing".to_owned());
        Refusal::new(Exit::Stopped, format!("the store has stopped itself: {reason}"))
    }

    /// What an earlier upload of the same bytes found out by today's rules.
    fn known(&self, hash: &Sha256) -> Result<Option<BlobRecord>, StoreFault> {
        let record = self.blobs().known(hash).map_err(|error| self.fault(error))?;
        Ok(record.filter(|record| record.is_by_rules(IDENTIFY_VERSION)))
    }

    fn staged(&self, content: &Content, mode: Mode) -> Result<(Box<dyn Staged>, Digests), StoreFault> {
        let mut staged = self.blobs().stage().map_err(|error| self.fault(error))?;
        let mut digester = Digester::new(mode);
        content.pieces(|piece| {
            staged.write(&piece).map_err(|error| self.fault(error))?;
            digester.update(piece);
            Ok::<(), StoreFault>(())
        })?;
        let digests = digester.finish().map_err(|error| StoreFault::File(error.to_string()))?;
        Ok((staged, digests))
    }

    fn identify(&self, content: &Content, staged: &mut dyn Staged, digests: Digests) -> Result<BlobRecord, StoreFault> {
        let found = match content.whole() {
            Some(bytes) => self.identifier.identify(Cursor::new(bytes)),
            None => self.identifier.identify(staged.reader().map_err(|error| self.fault(error))?),
        }?;
        Ok(BlobRecord {
            identify_version: IDENTIFY_VERSION,
            size: digests.size,
            sha512: digests.sha512,
            sha256: digests.sha256,
            sha1: digests.sha1,
            md5: digests.md5,
            ssdeep: digests.ssdeep.unwrap_or_default(),
            tlsh: digests.tlsh.unwrap_or_default(),
            mime: found.mime,
            magic: found.magic,
            file_format: found.file_format,
            file_extension: found.file_extension.unwrap_or_default(),
        })
    }
}

fn disk_full() -> Refusal {
    Refusal::failed("the disk is full: free some space and go on with --resume")
}

fn parsed(sha256: &str) -> Result<Sha256, StoreFault> {
    Sha256::parse(sha256).ok_or_else(|| StoreFault::File(format!("{sha256:?} is no SHA-256")))
}

impl Sink for Direct {
    fn announced(&self, take: &mut dyn FnMut(Announcement)) -> Result<(), Refusal> {
        let mut all = |announcement| {
            take(announcement);
            Flow::Continue(())
        };
        let scanned = self.opened.admin.announced(&self.place.source, AUTHOR, &mut all);
        scanned.map_err(|error| refused("the log cannot be read", &error))
    }

    fn has(&self, sha256: &str) -> Result<bool, StoreFault> {
        let stat = self.blobs().stat(&self.place, &parsed(sha256)?).map_err(|error| self.fault(error))?;
        Ok(stat.is_some_and(|stat| stat.size > 0))
    }

    fn store(&self, content: Content, sha256: Option<&str>, pass: Pass<'_>) -> Result<BlobRecord, StoreFault> {
        let expected = match sha256 {
            Some(text) => self.known(&parsed(text)?)?,
            None => None,
        };
        if let Some(record) = &expected
            && self.has(&record.sha256)?
        {
            return Ok(record.clone());
        }
        let mode = if expected.is_some() { Mode::Sha256Only } else { Mode::Full };
        let (mut staged, digests) = self.staged(&content, mode)?;
        if sha256.is_some_and(|sha256| sha256 != digests.sha256) {
            return Err(changed());
        }
        let hash = parsed(&digests.sha256)?;
        let record = match expected {
            Some(record) => record,
            None => match self.known(&hash)? {
                Some(record) => record,
                None => self.identify(&content, staged.as_mut(), digests)?,
            },
        };
        drop((content, pass));
        staged.publish(&hash, &self.place, &record).map_err(|error| self.fault(error))?;
        Ok(record)
    }

    fn publish(&self, events: &[Vec<u8>]) -> Result<Published, Refusal> {
        let query = vec![("model".to_owned(), "binary".to_owned()), ("sync".to_owned(), "true".to_owned())];
        let request = PostRequest { query, body: body(events).into(), user_agent: AUTHOR.to_owned() };
        let answer = self.runtime.block_on(self.dispatcher.post(request)).map_err(|error| self.post_refusal(&error))?;
        serde_json::from_slice(&answer.body).map_err(|error| refused("the answer of the dispatcher", &error))
    }
}

impl Direct {
    fn post_refusal(&self, error: &PostError) -> Refusal {
        match error {
            PostError::AgedOff => Refusal::failed(format!(
                "the source {} does not keep events as old as --timestamp says these are",
                self.place.source
            )),
            PostError::NothingLeft { errors, .. } | PostError::Publish { errors, .. } => {
                Refusal::failed(format!("no event could be published: {}", errors.join("; ")))
            }
            PostError::DiskFull => disk_full(),
            PostError::Poisoned | PostError::Stopping => self.stopped(),
            PostError::Decode(detail) | PostError::Encode(detail) | PostError::UnknownModel(detail) => {
                Refusal::failed(format!("the events were not understood: {detail}"))
            }
            PostError::EmptyBody => Refusal::failed("there was nothing to publish"),
            PostError::TooLarge { limit } => Refusal::failed(format!("the events are over the limit of {limit} bytes")),
            PostError::Overloaded { .. } => Refusal::failed("too much is waiting to be written already"),
        }
    }
}
