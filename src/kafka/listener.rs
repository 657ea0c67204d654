//! The accept loop of the Kafka port. Called by `serve.rs`, which decides when to stop.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::api::{Api, Peer};
use super::complaints::Complaints;
use super::connection::Connection;
use super::frame::{Budget, Limits};

/// How the listener behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address to listen on; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Name or address and port that clients are told to use; the bound address when `None`.
    pub advertised: Option<(String, u16)>,
    /// Connections served at once; further ones wait in the listener's queue.
    pub max_connections: usize,
    /// Longest request, bytes.
    pub max_request_bytes: usize,
    /// Memory for requests being read or worked on, of all connections together, bytes; one request at a time may go past
    /// it.
    pub request_memory: usize,
    /// How long a connection may be silent.
    pub idle_timeout: Duration,
    /// How long a client may stop within a request, and how long a request may wait for memory.
    pub stalled_timeout: Duration,
    /// How long a client may take no bytes of an answer.
    pub write_timeout: Duration,
    /// How long answers under way may go on after the stop.
    pub drain_time: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9092),
            advertised: None,
            max_connections: 4096,
            max_request_bytes: 100 << 20,
            request_memory: 48 << 20,
            idle_timeout: Duration::from_secs(600),
            stalled_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            drain_time: Duration::from_secs(8),
        }
    }
}

/// The address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for Kafka: {source}")]
pub struct BindError {
    /// The address as configured.
    pub address: SocketAddr,
    /// What the operating system said.
    pub source: io::Error,
}

/// A bound listener that does not serve yet.
#[derive(Debug)]
pub struct Listener {
    listeners: Vec<TcpListener>,
    local: SocketAddr,
    advertised: (String, u16),
    options: Options,
}

impl Listener {
    /// Binds the listener, and the other loopback address too when clients are told `localhost`, because some try `::1`
    /// first.
    ///
    /// # Errors
    /// [`BindError`] when the address is taken or not ours.
    pub async fn bind(options: Options) -> Result<Self, BindError> {
        let failed = |source| BindError { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        let advertised = advertised(&options, local);
        let mut listeners = vec![listener];
        if advertised.0 == "localhost" && local.ip().is_loopback() {
            let other = match local.ip() {
                IpAddr::V4(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            };
            match TcpListener::bind(SocketAddr::new(other, local.port())).await {
                Ok(second) => listeners.push(second),
                Err(error) => tracing::warn!(%error, %other, "Kafka clients that try this address first will be slow"),
            }
        }
        Ok(Self { listeners, local, advertised, options })
    }

    /// The address that was bound, with the port that was picked.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Host and port that clients are told to use.
    #[must_use]
    pub fn advertised(&self) -> (&str, u16) {
        (&self.advertised.0, self.advertised.1)
    }

    /// Serves until `stop`, then lets answers under way leave within the drain time; returns how many connections had
    /// to be cut.
    pub async fn serve(self, api: Arc<Api>, stop: CancellationToken) -> usize {
        let slots = Arc::new(Semaphore::new(self.options.max_connections));
        let budget = Budget::new(self.options.request_memory);
        let serving = Serving { budget, api, options: self.options, stop, complaints: Arc::default() };
        let mut accepting = JoinSet::new();
        for listener in self.listeners {
            accepting.spawn(serving.clone().accept(listener, slots.clone()));
        }
        let mut cut = 0;
        while let Some(ended) = accepting.join_next().await {
            cut += ended.unwrap_or_default();
        }
        cut
    }
}

/// The address clients are told: what is configured, else the bound one, never a wildcard.
fn advertised(options: &Options, local: SocketAddr) -> (String, u16) {
    if let Some((host, port)) = &options.advertised {
        return (host.clone(), if *port == 0 { local.port() } else { *port });
    }
    if !local.ip().is_unspecified() {
        return (local.ip().to_string(), local.port());
    }
    // The check of the configuration has warned of it.
    ("127.0.0.1".to_owned(), local.port())
}

#[derive(Clone)]
struct Serving {
    api: Arc<Api>,
    budget: Budget,
    options: Options,
    stop: CancellationToken,
    complaints: Arc<Complaints<(IpAddr, &'static str)>>,
}

impl Serving {
    async fn accept(self, listener: TcpListener, slots: Arc<Semaphore>) -> usize {
        let mut connections = JoinSet::new();
        loop {
            if slots.available_permits() == 0
                && let Some(more) = self.complaints.due((self.options.listen.ip(), "slots"))
            {
                let limit = self.options.max_connections;
                tracing::warn!(limit, more, "kafka.max_connections are open: further clients wait until one ends");
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(ended) = connections.join_next(), if !connections.is_empty() => note_end(&ended),
                (accepted, slot) = accept(&listener, &slots) => match accepted {
                    Ok((stream, address)) => drop(connections.spawn(self.clone().serve(stream, address, slot))),
                    Err(error) => self.wait_out(&listener, &error).await,
                },
            }
        }
        drop(listener);
        drain(connections, self.options.drain_time).await
    }

    async fn serve(self, stream: TcpStream, address: SocketAddr, slot: Option<OwnedSemaphorePermit>) {
        if let Err(error) = stream.set_nodelay(true).and_then(|()| Ok(keep_alive(&stream)?)) {
            tracing::debug!(%error, "a socket option was refused");
        }
        let limits = Limits {
            frame_bytes: self.options.max_request_bytes,
            idle: self.options.idle_timeout,
            stalled: self.options.stalled_timeout,
        };
        let times = (self.options.write_timeout, self.stop.clone());
        let peer = Peer::new(address, self.api.new_lane());
        let ended = Connection::new(stream, peer, self.api, self.budget, limits, times).run().await;
        let due = match ended.is_ordinary() {
            true => None,
            false => self.complaints.due((address.ip(), ended.kind())),
        };
        match due {
            Some(0) => tracing::warn!(peer = %address, reason = %ended, "a Kafka connection was closed"),
            Some(more) => tracing::warn!(
                peer = %address, reason = %ended, more,
                "a Kafka connection was closed, and more from the same address for the same reason since the last line"
            ),
            None => tracing::debug!(peer = %address, reason = %ended, "a Kafka connection ended"),
        }
        drop(slot);
    }

    /// Failures to accept, as when no file can be opened, are waited out.
    async fn wait_out(&self, listener: &TcpListener, error: &io::Error) {
        let address = listener.local_addr().map_or(self.options.listen.ip(), |address| address.ip());
        if let Some(more) = self.complaints.due((address, "accept")) {
            tracing::error!(%error, more, "cannot accept Kafka connections, trying again until it works");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Finds out within two minutes that a peer is gone without a word.
fn keep_alive(stream: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10))?;
    sockopt::set_tcp_keepcnt(stream, 6)
}

/// Waits for a free slot and then for a client.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (io::Result<(TcpStream, SocketAddr)>, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed; without a permit the connection is simply not counted.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
            accepted => return (accepted, slot),
        }
    }
}

fn note_end(ended: &Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a Kafka connection panicked");
    }
}

async fn drain(mut connections: JoinSet<()>, limit: Duration) -> usize {
    let all_done = async {
        while let Some(ended) = connections.join_next().await {
            note_end(&ended);
        }
    };
    let finished = tokio::time::timeout(limit, all_done).await.is_ok();
    let cut = if finished { 0 } else { connections.len() };
    connections.shutdown().await;
    cut
}
