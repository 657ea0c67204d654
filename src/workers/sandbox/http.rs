//! Requests to one sandbox: bounded in time, tries and size, within its rate limits, without proxy or redirects.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ureq::http::{Response, StatusCode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, SendBody};

use super::multipart::Multipart;
use super::options::Options;
use super::rate::{Call, Rates};
use super::stop::Stop;
use super::token::Token;

/// Largest answer that is read into memory.
const ANSWER_MAX_BYTES: u64 = 16 << 20;
/// A body may take so many times as long as an answer may.
const BODY_TIMES: u32 = 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const BETWEEN_TRIES: Duration = Duration::from_millis(500);
/// How often in a row a server may say that it is asked too often.
const THROTTLED_MAX: u32 = 30;
const THROTTLED_WAIT: Duration = Duration::from_secs(10);
const THROTTLED_WAIT_MAX: Duration = Duration::from_secs(600);
/// Bytes of an answer that are kept to be shown.
pub(super) const SHOWN_BYTES: usize = 4096;
/// Where systems keep the certificates they trust, as one file.
const SYSTEM_STORES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const STORE_MAX_BYTES: u64 = 16 << 20;

/// Why a request brought no answer that means anything.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nobody answers, or somebody in front of the sandbox does, or it lets nobody in.
    Unreachable(String),
    /// Nobody listens where it should be.
    Refused(String),
    /// The connection broke after the request was sent: it may have been carried out.
    Unsure(String),
    /// It asks to be left alone for so long.
    Throttled(Duration),
    /// The answer is longer than this many bytes.
    TooLarge(u64),
    /// Something on this side failed: a disk, the dispatcher.
    Local(String),
    /// The worker stops.
    Stopped,
}

/// An answer of any status but those that [`Trouble`] stands for.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Reply {
    /// The beginning of the body, to be shown.
    pub(super) fn shown(&self) -> String {
        shown(&self.body)
    }
}

/// The first 4 KiB of an answer as text.
pub(super) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..SHOWN_BYTES).unwrap_or(bytes));
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

/// What a download brought.
#[derive(Debug)]
pub(super) enum Download {
    /// Status 200.
    File(TempFile),
    Other(Reply),
}

/// A file that goes away with this value.
#[derive(Debug)]
pub(super) struct TempFile {
    path: PathBuf,
}

impl TempFile {
    /// An empty file in `folder`, and where it is.
    pub(super) fn create(folder: &Path) -> io::Result<(Self, File)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = folder.join(format!("{}.tmp", NEXT.fetch_add(1, Ordering::Relaxed)));
        let file = File::create(&path)?;
        Ok((Self { path }, file))
    }

    /// Opens it for reading.
    pub(super) fn open(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// Reads it whole when it has at most `limit` bytes.
    pub(super) fn bytes(&self, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let file = self.open()?;
        if file.metadata()?.len() > limit {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("{}: {error}", self.path.display());
        }
    }
}

/// The client of one sandbox. Shared by its stages.
pub(super) struct Http {
    agent: Agent,
    base: String,
    /// Header name and value.
    headers: Vec<(&'static str, String)>,
    tries: u32,
    rates: Rates,
    stop: Arc<Stop>,
    temporary: PathBuf,
}

impl Http {
    /// A client of the sandbox of `options`, with `authorization` as that header's word before the token. Files that are
    /// downloaded go to `temporary`.
    ///
    /// # Errors
    /// Text for people: a token or certificate file that cannot be used, a mistake in `rate_limits`.
    pub(super) fn new(
        options: &Options,
        base: String,
        authorization: &str,
        temporary: PathBuf,
        stop: Arc<Stop>,
    ) -> Result<Self, String> {
        let token = options.token_file.as_deref().map(Token::read).transpose()?;
        let headers =
            token.map(|token| ("authorization", format!("{authorization} {}", token.expose()))).into_iter().collect();
        Ok(Self {
            agent: agent(&base, options.request_timeout, options.verify_tls, options.ca_file.as_deref())?,
            base,
            headers,
            tries: options.request_tries.max(1),
            rates: Rates::new(options.kind, &options.rate_limits)?,
            stop,
            temporary,
        })
    }

    /// Where downloads go.
    pub(super) fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// GET of a small answer.
    pub(super) fn get(&self, call: Call, path: &str) -> Result<Reply, Trouble> {
        self.again(call, || {
            let response = self.ask(path)?;
            read_reply(response)
        })
    }

    /// GET into a file of at most `limit` bytes.
    pub(super) fn download(&self, call: Call, path: &str, limit: u64) -> Result<Download, Trouble> {
        self.again(call, || {
            let response = self.ask(path)?;
            if response.status() != StatusCode::OK {
                return read_reply(response).map(Download::Other);
            }
            let (temporary, mut file) = TempFile::create(&self.temporary).map_err(|error| local(&error))?;
            let mut body = response.into_body().into_reader().take(limit.saturating_add(1));
            let length = copy(&mut body, &mut file)?;
            if length > limit { Err(Trouble::TooLarge(limit)) } else { Ok(Download::File(temporary)) }
        })
    }

    /// POST of a form with a file, once: what breaks off is [`Trouble::Unsure`].
    pub(super) fn post(&self, call: Call, path: &str, form: &mut Multipart<'_>) -> Result<Reply, Trouble> {
        if !self.rates.acquire(call, &self.stop) {
            return Err(Trouble::Stopped);
        }
        let (content_type, length) = (form.content_type(), form.length().to_string());
        let mut request = self.agent.post(self.url(path));
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let request = request.header("content-type", content_type).header("content-length", length);
        match request.send(SendBody::from_reader(form)) {
            Ok(response) => match passed(response) {
                Passed::Yes(response) => read_reply(response).map_err(unsure),
                Passed::No(trouble) => Err(trouble),
            },
            Err(_) if form.failed().is_some() => Err(Trouble::Local(form.failed().unwrap_or_default().to_owned())),
            Err(error) if is_refused(&error) => Err(Trouble::Refused(error.to_string())),
            Err(error) if never_sent(&error) => Err(Trouble::Unreachable(error.to_string())),
            Err(error) => Err(Trouble::Unsure(error.to_string())),
        }
    }

    fn ask(&self, path: &str) -> Result<Response<Body>, Trouble> {
        let mut request = self.agent.get(self.url(path));
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let failed = |error: ureq::Error| match is_refused(&error) {
            true => Trouble::Refused(error.to_string()),
            false => Trouble::Unreachable(error.to_string()),
        };
        request.call().map_err(failed).and_then(|response| match passed(response) {
            Passed::Yes(response) => Ok(response),
            Passed::No(trouble) => Err(trouble),
        })
    }

    /// Makes a request that may be made again until it brings something, at most `request_tries` times; being told to wait
    /// is no try, and where nobody listens nothing is tried again.
    fn again<T>(&self, call: Call, mut once: impl FnMut() -> Result<T, Trouble>) -> Result<T, Trouble> {
        let (mut tries, mut throttled) = (0, 0);
        loop {
            if !self.rates.acquire(call, &self.stop) {
                return Err(Trouble::Stopped);
            }
            let wait = match once() {
                Err(Trouble::Throttled(wait)) if throttled < THROTTLED_MAX => {
                    throttled += 1;
                    wait
                }
                Err(Trouble::Unreachable(reason)) => {
                    tries += 1;
                    if tries >= self.tries {
                        return Err(Trouble::Unreachable(reason));
                    }
                    BETWEEN_TRIES
                }
                done => return done,
            };
            if self.stop.wait(wait) {
                return Err(Trouble::Stopped);
            }
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

/// Whether a response says anything about what was asked.
enum Passed {
    Yes(Response<Body>),
    No(Trouble),
}

fn passed(response: Response<Body>) -> Passed {
    let status = response.status();
    let unreachable = |text: &str| Passed::No(Trouble::Unreachable(format!("answered {status}{text}")));
    match status.as_u16() {
        429 => {
            let seconds =
                response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
            let wait = seconds.map_or(THROTTLED_WAIT, Duration::from_secs).min(THROTTLED_WAIT_MAX);
            Passed::No(Trouble::Throttled(wait))
        }
        300..=399 => unreachable(": redirects are not followed"),
        401 | 403 | 407 => unreachable(": it does not let this worker in"),
        502..=504 => unreachable(""),
        _ => Passed::Yes(response),
    }
}

fn read_reply(response: Response<Body>) -> Result<Reply, Trouble> {
    let status = response.status().as_u16();
    let mut body = Vec::new();
    let mut reader = response.into_body().into_reader().take(ANSWER_MAX_BYTES + 1);
    reader.read_to_end(&mut body).map_err(|error| Trouble::Unreachable(format!("the answer broke off: {error}")))?;
    if u64::try_from(body.len()).is_ok_and(|length| length > ANSWER_MAX_BYTES) {
        return Err(Trouble::TooLarge(ANSWER_MAX_BYTES));
    }
    Ok(Reply { status, body })
}

fn copy(from: &mut impl Read, to: &mut File) -> Result<u64, Trouble> {
    let mut buffer = vec![0; 128 << 10];
    let mut length = 0_u64;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(length),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Trouble::Unreachable(format!("the answer broke off: {error}"))),
        };
        to.write_all(buffer.get(..count).unwrap_or_default()).map_err(|error| local(&error))?;
        length = length.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }
}

/// Text of a failure on this side.
pub(super) fn local(error: &io::Error) -> Trouble {
    Trouble::Local(error.to_string())
}

fn unsure(trouble: Trouble) -> Trouble {
    if let Trouble::Unreachable(reason) = trouble { Trouble::Unsure(reason) } else { trouble }
}

/// True when nobody listens at the address.
fn is_refused(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::ConnectionFailed)
        || matches!(error, ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

/// True when a request cannot have arrived.
fn never_sent(error: &ureq::Error) -> bool {
    use ureq::Error;
    matches!(
        error,
        Error::HostNotFound
            | Error::ConnectionFailed
            | Error::Tls(_)
            | Error::Rustls(_)
            | Error::Pem(_)
            | Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve)
    ) || matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Says why `url` is no address of a sandbox.
pub(super) fn check_url(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let host = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
    if host.is_empty() || !url.bytes().all(|byte| byte.is_ascii_graphic()) || url.contains(['?', '#', '@', '\\']) {
        return Err(format!("{url:?} is not http://HOST:PORT or https://HOST:PORT, with or without a path"));
    }
    url.parse::<ureq::http::Uri>().map(|_| ()).map_err(|error| format!("{url:?}: {error}"))
}

/// An agent that talks to nobody but the address it is given.
///
/// # Errors
/// Text for people: certificates that cannot be read.
pub(super) fn agent(url: &str, timeout: Duration, verify_tls: bool, ca_file: Option<&Path>) -> Result<Agent, String> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .max_idle_connections(8)
        .max_idle_connections_per_host(4)
        .max_response_header_size(64 << 10)
        .timeout_resolve(Some(timeout.min(CONNECT_TIMEOUT)))
        .timeout_connect(Some(timeout.min(CONNECT_TIMEOUT)))
        .timeout_recv_response(Some(timeout))
        .timeout_per_read(Some(timeout))
        .timeout_per_write(Some(timeout))
        .timeout_send_body(Some(timeout.saturating_mul(BODY_TIMES)))
        .timeout_recv_body(Some(timeout.saturating_mul(BODY_TIMES)))
        .user_agent(concat!("azulite/", env!("CARGO_PKG_VERSION")));
    if url.starts_with("https://") {
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .disable_verification(!verify_tls);
        let roots = if verify_tls { trusted(ca_file)? } else { Vec::new() };
        config = config.tls_config(tls.root_certs(RootCerts::from(roots)).build());
    }
    Ok(config.build().into())
}

fn trusted(ca_file: Option<&Path>) -> Result<Vec<Certificate<'static>>, String> {
    if let Some(path) = ca_file {
        return certificates(path).map_err(|reason| format!("{}: {reason}", path.display()));
    }
    let found = SYSTEM_STORES.iter().map(Path::new).find(|path| path.is_file());
    let path = found.ok_or_else(|| format!("no certificates of the system in {}", SYSTEM_STORES.join(", ")))?;
    certificates(path).map_err(|reason| format!("{}: {reason}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut pem = Vec::new();
    file.take(STORE_MAX_BYTES).read_to_end(&mut pem).map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| error.to_string())? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err("holds no certificate".to_owned()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_without_secrets_are_taken() {
        for good in ["http://127.0.0.1:8090", "https://cape.lab/apiv2/", "http://[::1]:1"] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in ["", "cape", "ftp://cape", "http://", "http:///x", "http://u:p@cape", "http://a b", "http://a?x=1"] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn certificates_come_from_the_file_that_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "no pem").unwrap();
        let refused = agent("https://x", Duration::from_secs(1), true, Some(&path)).unwrap_err();
        assert!(refused.contains("holds no certificate"), "{refused}");
        assert!(
            agent("https://x", Duration::from_secs(1), false, Some(&path)).is_ok(),
            "not read when nothing is checked"
        );
    }

    #[test]
    fn answers_are_shown_in_part_and_without_control_characters() {
        assert_eq!(shown(b"a\x1b[31m\nb\xff"), "a [31m\nb\u{fffd}");
        assert_eq!(shown(&[b'x'; 9000]).len(), SHOWN_BYTES);
    }
}
