//! Telling systemd how far the service is: `READY=1`, `STATUS=`, watchdog, over `NOTIFY_SOCKET` (sd_notify(3)).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

/// A line to systemd, or nothing when the process was not started by it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notify {
    socket: Option<Arc<(UnixDatagram, SocketAddr)>>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// The line that `NOTIFY_SOCKET` and `WATCHDOG_USEC` describe.
    #[must_use]
    pub(crate) fn from_environment() -> Self {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let address = match path.as_bytes().split_first() {
            Some((b'@', name)) => SocketAddr::from_abstract_name(name),
            _ => SocketAddr::from_pathname(&path),
        };
        let socket = address.and_then(|address| Ok(Arc::new((UnixDatagram::unbound()?, address))));
        let watchdog =
            std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok()).map(Duration::from_micros);
        match socket {
            Ok(socket) => Self { socket: Some(socket), watchdog },
            Err(error) => {
                tracing::warn!(%error, "NOTIFY_SOCKET cannot be used");
                Self::default()
            }
        }
    }

    fn send(&self, text: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.0.send_to_addr(text.as_bytes(), &socket.1) {
            tracing::warn!(%error, "systemd could not be told: {text}");
        }
    }

    /// The service can be used.
    pub(crate) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// What the service is doing.
    pub(crate) fn status(&self, status: &str) {
        self.send(&format!("STATUS={status}"));
    }

    /// The service has begun to stop.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The service is alive.
    pub(crate) fn watchdog(&self) {
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1");
        }
    }

    /// How often to say so: twice as often as asked for.
    #[must_use]
    pub(crate) fn watchdog_interval(&self) -> Duration {
        self.watchdog.map_or(Duration::from_secs(3600), |limit| (limit / 2).max(Duration::from_millis(100)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_reach_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let address = SocketAddr::from_pathname(&path).unwrap();
        let socket = Some(Arc::new((UnixDatagram::unbound().unwrap(), address)));
        let notify = Notify { socket, watchdog: Some(Duration::from_secs(10)) };
        notify.ready("x");
        notify.watchdog();
        let mut bytes = [0; 100];
        let len = systemd.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..len], b"READY=1\nSTATUS=x");
        let len = systemd.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..len], b"WATCHDOG=1");
        assert_eq!(notify.watchdog_interval(), Duration::from_secs(5));
    }
}
