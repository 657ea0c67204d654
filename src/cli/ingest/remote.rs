//! Through a running server, with the API that every client uses.

use super::content::Content;
use super::gate::Pass;
use super::sink::{Published, Sink, StoreFault, body};
use super::submission::AUTHOR;
use crate::admin::Announcement;
use crate::cli::output::Refusal;
use crate::client::{Client, Payload, RequestError, Uploaded};
use crate::streams::{BlobRecord, Place};

/// See the module.
pub(super) struct Remote {
    client: Client,
    place: Place,
}

impl Remote {
    /// Through `client`.
    pub(super) fn new(client: Client, place: Place) -> Self {
        Self { client, place }
    }

    fn path(&self) -> String {
        format!("/api/v3/stream/{}/{}", self.place.source, self.place.label)
    }
}

/// A server that is gone, full or too busy refuses every other file too; anything else is about this one.
fn fault(error: RequestError) -> StoreFault {
    match error {
        RequestError::NotOk(answer) if !matches!(answer.status.as_u16(), 401 | 403 | 404 | 503 | 507) => {
            StoreFault::File(answer.message())
        }
        error @ (RequestError::NotOk(_) | RequestError::Transport(_)) => StoreFault::Fatal(error.into()),
    }
}

impl Sink for Remote {
    fn announced(&self, take: &mut dyn FnMut(Announcement)) -> Result<(), Refusal> {
        let path = format!("/api/azulite/v1/sources/{}/announced?author={AUTHOR}", self.place.source);
        let read = self.client.get_lines(&path, |announcement| {
            take(announcement);
            true
        })?;
        read.ok_or_else(|| Refusal::failed("the server cannot tell what was ingested before: is it azulite?"))
    }

    fn has(&self, sha256: &str) -> Result<bool, StoreFault> {
        self.client.exists(&format!("{}/{sha256}", self.path())).map_err(fault)
    }

    fn store(&self, content: Content, sha256: Option<&str>, pass: Pass<'_>) -> Result<BlobRecord, StoreFault> {
        drop(pass);
        let expected = sha256.map(|hash| format!("?expected-sha256={hash}")).unwrap_or_default();
        let path = self.path() + &expected;
        let octets = "application/octet-stream";
        let uploaded: Uploaded = match content.whole() {
            Some(bytes) => self.client.post(&path, octets, &Payload::Bytes(&bytes)),
            None => self.client.post(&path, octets, &Payload::Reader(&|| Box::new(content.reader()))),
        }
        .map_err(fault)?;
        Ok(uploaded.into())
    }

    fn publish(&self, events: &[Vec<u8>]) -> Result<Published, Refusal> {
        let path = "/api/v2/event?model=binary&sync=true";
        Ok(self.client.post(path, "application/json", &Payload::Bytes(&body(events)))?)
    }
}
