//! Where a command works: a running server, or the data directory itself when none runs.
//!
//! The lock decides. A data directory that is free is opened; one that a server holds is reached through the address that
//! the server has written into its lock file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use azulite_storage::format::{holder, read_format};
use azulite_storage::fs::RealFs;
use azulite_storage::{OpenError, Store};

use super::exit::Exit;
use super::output::Refusal;
use crate::admin::Admin;
use crate::broker::Broker;
use crate::client::Client;
use crate::config::Config;
use crate::dispatcher::{self, Dispatcher};
use crate::metrics::Metrics;
use crate::serve::{blob_store, dispatcher_options, fixed_config, store_options};
use crate::streams::Copier;

/// Where a command works.
#[derive(Debug)]
pub(super) enum Target {
    /// Through a server.
    Server(Client),
    /// On the data directory, which is ours until this is dropped.
    Store(Opened),
}

/// An open data directory.
#[derive(Debug)]
pub(super) struct Opened {
    /// The one door to the log.
    pub(super) broker: Broker,
    /// Questions about it.
    pub(super) admin: Admin,
    store: Store,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.store.close();
    }
}

impl Opened {
    /// The rules of events over it, as a server would follow them. Makes topics that the configuration names and that are
    /// missing.
    ///
    /// # Errors
    /// Exit code 2 when the configuration does not fit, else 1.
    pub(super) fn dispatcher(&self, config: &Config) -> Result<Arc<Dispatcher>, Refusal> {
        let options = dispatcher_options(config).map_err(|error| Refusal::usage(error.to_string()))?;
        // Nothing is handed out, so nothing is saved.
        let options = dispatcher::Options { caches: dispatcher::caches::Options::default(), ..options };
        let metrics = Arc::new(Metrics::new());
        let copier = Arc::new(Copier::new(self.admin.blobs().clone(), metrics.clone()));
        let dispatcher = Dispatcher::start(options, self.broker.clone(), metrics, copier);
        let dispatcher = dispatcher.map_err(|error| Refusal::failed(format!("the store cannot be read: {error}")))?;
        Ok(Arc::new(dispatcher))
    }

    /// Why the store stopped itself, if it did.
    pub(super) fn fatal(&self) -> Option<String> {
        self.store.fatal()
    }
}

impl Target {
    /// The server at `url`; else whatever holds the data directory; else the data directory, made if there is none.
    ///
    /// # Errors
    /// Exit code 3 when another process than a server holds it, 4 when it is damaged, 2 when it has another format.
    pub(super) fn for_writing(config: &Config, url: Option<&str>) -> Result<Self, Refusal> {
        if let Some(url) = url {
            return Ok(Self::Server(Client::new(url)?));
        }
        match Store::open(Arc::new(RealFs), store_options(config)) {
            Ok(store) => opened(config, store).map(Self::Store),
            Err(OpenError::Locked { .. }) => server_of(config).map(Self::Server),
            Err(error) => Err(Refusal::new(super::open_exit(&error), error.to_string())),
        }
    }

    /// As [`Target::for_writing`], but never makes a data directory.
    ///
    /// # Errors
    /// Also exit code 1 when there is no data directory.
    pub(super) fn for_reading(config: &Config) -> Result<Self, Refusal> {
        let root = &config.storage.data_dir;
        match read_format(&RealFs, root) {
            Ok(Some(_)) => Self::for_writing(config, None),
            Ok(None) => {
                Err(Refusal::failed(format!("there is no store at {}; --data-dir says where it is", root.display())))
            }
            Err(error) => {
                let error = OpenError::Stamp(error);
                Err(Refusal::new(super::open_exit(&error), error.to_string()))
            }
        }
    }
}

fn opened(config: &Config, store: Store) -> Result<Opened, Refusal> {
    let broker = Broker::new(Arc::new(store.clone()));
    broker.set_fixed_config(fixed_config(config));
    let blobs = blob_store(config, &store).map_err(|error| Refusal::usage(error.to_string()))?;
    let admin = Admin::new(broker.clone(), blobs, config.events.topic_prefix.clone());
    Ok(Opened { broker, admin, store })
}

/// The server that holds the data directory.
fn server_of(config: &Config) -> Result<Client, Refusal> {
    let root = &config.storage.data_dir;
    let found = holder(&RealFs, root);
    let pid = found.pid.map_or("unknown".to_owned(), |pid| pid.to_string());
    let Some(http) = found.http else {
        let message = format!("{} is in use by process {pid}, which serves no HTTP address (yet)", root.display());
        return Err(Refusal::new(Exit::Locked, message));
    };
    let address = http.parse().ok().and_then(|address| reachable(address, config.http.listen.ip()));
    let Some(address) = address else {
        let message = format!(
            "{} is in use by process {pid}, whose address {http} is not on this machine's loopback",
            root.display()
        );
        return Err(Refusal::new(Exit::Locked, message));
    };
    Ok(Client::new(&format!("http://{address}"))?)
}

/// Where a server that listens on `address` is reached from its own machine. No command speaks to any other machine
/// unless it is told to, so an address beyond loopback has to be the configured one.
fn reachable(address: SocketAddr, configured: IpAddr) -> Option<SocketAddr> {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    (ip.is_loopback() || ip == configured).then_some(SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(root: &std::path::Path) -> Config {
        let mut config = Config::default();
        config.storage.data_dir = root.to_owned();
        config
    }

    #[test]
    fn servers_are_reached_on_loopback_or_where_they_are_configured() {
        let loopback: IpAddr = [127, 0, 0, 1].into();
        for (address, want) in [
            ("127.0.0.1:1", Some("127.0.0.1:1")),
            ("0.0.0.0:8111", Some("127.0.0.1:8111")),
            ("[::]:8111", Some("[::1]:8111")),
            ("10.0.0.7:8111", None),
        ] {
            let got = reachable(address.parse().unwrap(), loopback);
            assert_eq!(got, want.map(|want| want.parse().unwrap()), "{address}");
        }
        let own = "10.0.0.7:8111".parse().unwrap();
        assert_eq!(reachable(own, [10, 0, 0, 7].into()), Some(own));
    }

    #[test]
    fn reading_makes_no_data_directory() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("none");
        let refused = Target::for_reading(&config(&root)).unwrap_err();
        assert!(refused.message().contains("there is no store"), "{}", refused.message());
        assert!(!root.exists());
    }

    #[test]
    fn a_directory_held_by_no_server_names_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder.path().join("data"));
        let first = Target::for_writing(&config, None).unwrap();
        let refused = Target::for_reading(&config).unwrap_err();
        assert!(refused.message().contains(&std::process::id().to_string()), "{}", refused.message());
        assert_eq!(super::super::output::finish(Err(refused)), Exit::Locked);
        drop(first);
        assert!(matches!(Target::for_reading(&config), Ok(Target::Store(_))));
    }
}
