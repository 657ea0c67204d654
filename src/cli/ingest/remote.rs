//! Through a running server, with the API that every client uses.

use serde::Deserialize;

use super::content::Content;
use super::gate::Pass;
use super::sink::{Published, Sink, StoreFault, body};
use super::submission::AUTHOR;
use crate::admin::Announcement;
use crate::cli::client::{Client, Payload, RequestError};
use crate::cli::output::Refusal;
use crate::streams::{BlobRecord, Place};

/// See the module.
pub(super) struct Remote {
    client: Client,
    place: Place,
}

#[derive(Deserialize)]
struct Uploaded {
    data: Metadata,
}

/// The object under `data` of the answer to an upload (streams.md 3).
#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    identify_version: u32,
    size: u64,
    sha512: String,
    sha256: String,
    sha1: String,
    md5: String,
    ssdeep: String,
    tlsh: String,
    mime: String,
    magic: String,
    file_format: String,
    file_extension: String,
}

impl From<Metadata> for BlobRecord {
    fn from(data: Metadata) -> Self {
        Self {
            identify_version: data.identify_version,
            size: data.size,
            sha512: data.sha512,
            sha256: data.sha256,
            sha1: data.sha1,
            md5: data.md5,
            ssdeep: data.ssdeep,
            tlsh: data.tlsh,
            mime: data.mime,
            magic: data.magic,
            file_format: data.file_format,
            file_extension: data.file_extension,
        }
    }
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
        Ok(uploaded.data.into())
    }

    fn publish(&self, events: &[Vec<u8>]) -> Result<Published, Refusal> {
        let path = "/api/v2/event?model=binary&sync=true";
        Ok(self.client.post(path, "application/json", &Payload::Bytes(&body(events)))?)
    }
}
