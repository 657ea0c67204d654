//! The accept loop: sockets in, answered requests out.
//!
//! Our own, because warp's has no limit on connections, no time limit on request heads and panics on a bind error.
//! Called by `serve.rs`, which decides when to stop.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use warp::Filter;

use super::Services;
use super::connection::{Connection, Limits, TrackedBody, TrackedIo};
use super::router;
use crate::dispatcher::hub::DeliveryGuard;

/// How the listener behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port` to listen on; port 0 picks a free one.
    pub listen: String,
    /// Connections served at once; further ones wait in the listener's queue.
    pub max_connections: usize,
    /// Largest request head, in bytes. Larger ones are answered with 431.
    pub max_header_bytes: usize,
    /// How long the head of a request may take once it has begun.
    pub header_timeout: Duration,
    /// How long a kept-alive connection may wait for its next request.
    pub idle_timeout: Duration,
    /// How long a client may take no bytes of its answer.
    pub write_timeout: Duration,
    /// How long requests under way may go on after the stop.
    pub drain_time: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8111".to_owned(),
            max_connections: 1024,
            max_header_bytes: 64 << 10,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            write_timeout: Duration::from_secs(60),
            drain_time: Duration::from_secs(8),
        }
    }
}

/// The address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for HTTP: {source}")]
pub struct BindError {
    /// The address as configured.
    pub address: String,
    /// What the operating system said.
    pub source: io::Error,
}

/// How the server came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that had to be cut because they were still busy after the drain time.
    pub cut: usize,
}

/// A bound listener that does not serve yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    local_addr: SocketAddr,
    options: Options,
}

impl Server {
    /// Binds the listener.
    ///
    /// # Errors
    /// [`BindError`] when the address does not resolve or is taken.
    pub async fn bind(options: Options) -> Result<Self, BindError> {
        let bound = async {
            let listener = TcpListener::bind(&options.listen).await?;
            let local_addr = listener.local_addr()?;
            Ok((listener, local_addr))
        };
        match bound.await {
            Ok((listener, local_addr)) => Ok(Self { listener, local_addr, options }),
            Err(source) => Err(BindError { address: options.listen, source }),
        }
    }

    /// The address that was bound, with the port that was picked.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `stop` is done, then lets requests under way finish within the drain time.
    ///
    /// Idle connections are closed at once. The hub has to end its long polls by itself when the process stops.
    pub async fn serve(self, services: Arc<Services>, stop: impl Future<Output = ()>) -> Drained {
        let slots = Arc::new(Semaphore::new(self.options.max_connections));
        let (stopping, _) = watch::channel(false);
        let edge = Edge::new(&self.options, services);
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(ended) = connections.join_next(), if !connections.is_empty() => note_end(&ended),
                (stream, slot) = accept(&self.listener, &slots) => {
                    let serving = edge.clone().serve(stream, stopping.subscribe());
                    connections.spawn(async move {
                        serving.await;
                        drop(slot);
                    });
                }
            }
        }
        drop(self.listener);
        stopping.send_replace(true);
        drain(connections, self.options.drain_time).await
    }
}

/// Waits for a free slot and then for a client. Failures to accept are waited out.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed; without a permit the connection is simply not counted.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    let mut failures = 0_u32;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, slot),
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if failures == 0 {
                    tracing::error!(%error, "cannot accept HTTP connections, trying again until it works");
                }
                failures = failures.saturating_add(1);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn note_end(ended: &Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a request handler panicked");
    }
}

async fn drain(mut connections: JoinSet<()>, limit: Duration) -> Drained {
    let all_done = async {
        while let Some(ended) = connections.join_next().await {
            note_end(&ended);
        }
    };
    let finished = tokio::time::timeout(limit, all_done).await.is_ok();
    let cut = if finished { 0 } else { connections.len() };
    connections.shutdown().await;
    Drained { cut }
}

/// The routes and how connections are served; cheap to clone.
#[derive(Clone)]
struct Edge {
    routes: warp::filters::BoxedFilter<(warp::reply::Response,)>,
    builder: http1::Builder,
    limits: Limits,
}

impl Edge {
    fn new(options: &Options, services: Arc<Services>) -> Self {
        let limits = Limits {
            idle: options.idle_timeout,
            header: options.header_timeout,
            write: options.write_timeout,
            linger: Duration::from_secs(2),
        };
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new());
        builder.max_header_size(options.max_header_bytes);
        // hyper's limit runs from the end of the last answer, so it covers the idle time too; the tighter ones are ours.
        builder.header_read_timeout(limits.idle + limits.header);
        Self { routes: router::routes(services).boxed(), builder, limits }
    }

    async fn serve(self, stream: TcpStream, mut stopping: watch::Receiver<bool>) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
        let connection = Arc::new(Connection::with(stream.peer_addr().ok().map(|peer| peer.ip())));
        let io = TokioIo::new(TrackedIo::new(stream, Arc::clone(&connection), self.limits));
        let service = TrackedService { inner: TowerToHyperService::new(warp::service(self.routes)), connection };
        let serving = self.builder.serve_connection(io, service);
        tokio::pin!(serving);
        let stop = async { stopping.wait_for(|stop| *stop).await.is_ok() };
        let result = tokio::select! {
            result = &mut serving => result,
            _ = stop => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "an HTTP connection ended early");
        }
    }
}

/// Travels in a response's extensions from the handler to the connection.
#[derive(Clone, Debug)]
pub(super) struct Delivery(Arc<Mutex<Option<DeliveryGuard>>>);

impl Delivery {
    pub(super) fn new(guard: DeliveryGuard) -> Self {
        Self(Arc::new(Mutex::new(Some(guard))))
    }

    fn take(self) -> Option<DeliveryGuard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Tells the connection of each request and answer, and the request of its connection.
#[derive(Clone)]
struct TrackedService<S> {
    inner: S,
    connection: Arc<Connection>,
}

impl<S> hyper::service::Service<Request<Incoming>> for TrackedService<S>
where
    S: hyper::service::Service<Request<Incoming>, Response = warp::reply::Response>,
    S::Future: Send + 'static,
{
    type Response = Response<TrackedBody<BodyOf<S::Response>>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let in_flight = self.connection.begin();
        request.extensions_mut().insert(Arc::clone(&self.connection));
        let answering = self.inner.call(request);
        Box::pin(async move {
            let mut response = answering.await?;
            let delivery = response.extensions_mut().remove::<Delivery>().and_then(Delivery::take);
            let length = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
            Ok(response.map(|body| TrackedBody::new(body, length, in_flight, delivery)))
        })
    }
}

/// Names the body type of a response: warp's has no public name.
trait Answer {
    type Body;
}

impl<B> Answer for Response<B> {
    type Body = B;
}

type BodyOf<R> = <R as Answer>::Body;
