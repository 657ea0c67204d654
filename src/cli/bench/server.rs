//! The server's process, when it runs on this machine: CPU time and resident memory from `/proc`.

use std::collections::HashSet;
use std::fs;
use std::net::{SocketAddr, ToSocketAddrs as _};

use anyhow::{Context as _, bail};

use super::report::float;

/// A process on this machine.
#[derive(Debug)]
pub(super) struct Server {
    pid: u32,
    name: String,
}

/// What it has used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Usage {
    /// CPU time of all its threads since its start, seconds.
    pub(super) cpu_s: f64,
    /// Resident memory now, MiB.
    pub(super) resident_mib: f64,
    /// The most resident memory it ever had, MiB.
    pub(super) peak_mib: f64,
}

impl Server {
    /// The process given, else the one that listens at the first of `addresses` (`host:port`, commas between), if that is
    /// on this machine and ours to see.
    ///
    /// # Errors
    /// There is no process of the number given.
    pub(super) fn find(addresses: &str, pid: Option<u32>) -> anyhow::Result<Option<Self>> {
        if let Some(pid) = pid {
            let server = Self::of(pid).with_context(|| format!("--server-pid {pid}: there is no such process"))?;
            return Ok(Some(server));
        }
        Ok(listener(addresses).and_then(|pid| Self::of(pid).ok()))
    }

    fn of(pid: u32) -> anyhow::Result<Self> {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"))?.trim().to_owned();
        Ok(Self { pid, name })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// # Errors
    /// The process has ended.
    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        let pid = self.pid;
        let read = |file: &str| {
            fs::read_to_string(format!("/proc/{pid}/{file}"))
                .with_context(|| format!("the server's process {pid} has gone"))
        };
        let (stat, status) = (read("stat")?, read("status")?);
        match usage_of(&stat, &status, rustix::param::clock_ticks_per_second()) {
            Some(usage) => Ok(usage),
            None => bail!("/proc/{pid}/stat and status cannot be read: has the server ended?"),
        }
    }
}

/// What the server has used, if there is one to look at.
///
/// # Errors
/// The process has ended.
pub(super) fn usage(server: Option<&Server>) -> anyhow::Result<Option<Usage>> {
    server.map(Server::usage).transpose()
}

fn usage_of(stat: &str, status: &str, ticks_per_second: u64) -> Option<Usage> {
    // The name may hold anything, parentheses too; behind the last one come numbers.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let mut ticks = || times.next()?.parse::<u64>().ok();
    let ticks = ticks()? + ticks()?;
    let mib = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(float(value.split_whitespace().next()?.parse().ok()?) / 1024.0)
    };
    Some(Usage {
        cpu_s: float(ticks) / float(ticks_per_second.max(1)),
        resident_mib: mib("VmRSS")?,
        peak_mib: mib("VmHWM")?,
    })
}

/// The process that listens on the port of the first address, when that address is on loopback.
fn listener(addresses: &str) -> Option<u32> {
    let first = addresses.split(',').next()?.trim();
    let address = first.to_socket_addrs().ok()?.find(|address| address.ip().is_loopback())?;
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let sockets: HashSet<String> =
        tables.iter().flat_map(|table| listening(table, address)).map(|inode| format!("socket:[{inode}]")).collect();
    if sockets.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|pid| holds(*pid, &sockets))
}

/// Inodes of sockets that listen on the port of `address`.
fn listening(table: &str, address: SocketAddr) -> impl Iterator<Item = u64> {
    table.lines().skip(1).filter_map(move |line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let (_, port) = local.rsplit_once(':')?;
        let fits = *state == "0A" && u16::from_str_radix(port, 16).ok()? == address.port();
        inode.parse().ok().filter(|_| fits)
    })
}

fn holds(pid: u32, sockets: &HashSet<String>) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| target.to_str().is_some_and(|target| sockets.contains(target)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_and_memory_are_read_whatever_the_name_holds() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 99 1000 25";
        let status = "Name:\ta\nVmHWM:\t    4096 kB\nVmRSS:\t    2048 kB\n";
        let usage = usage_of(stat, status, 100).unwrap();
        assert_eq!(usage, Usage { cpu_s: 3.0, resident_mib: 2.0, peak_mib: 4.0 });
        assert_eq!(usage_of(stat, "", 100), None, "a process that has ended has no memory");
        assert_eq!(usage_of("", status, 100), None);
    }

    #[test]
    fn this_process_is_found_by_its_port() {
        let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listening.local_addr().unwrap().port();
        assert_eq!(listener(&format!("127.0.0.1:{port},10.0.0.1:9")), Some(std::process::id()));
        drop(listening);
        for none in [format!("127.0.0.1:{port}"), "10.0.0.1:9092".to_owned(), "nonsense".to_owned()] {
            assert_eq!(listener(&none), None, "{none}");
        }
        let usage = Server::of(std::process::id()).unwrap().usage().unwrap();
        assert!(usage.resident_mib > 0.0 && usage.peak_mib >= usage.resident_mib, "{usage:?}");
    }
}
