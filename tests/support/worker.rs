//! `azulite worker` in a process of its own, against a server of the test.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::JoinHandle;

use super::logs::Logs;
use super::process;

/// A worker process, over all its restarts. Dropping it kills it and fails the test if it panicked.
#[derive(Debug)]
pub(crate) struct WorkerProcess {
    arguments: Vec<OsString>,
    running: Option<(Child, [JoinHandle<()>; 2])>,
    logs: Logs,
}

impl WorkerProcess {
    /// Starts `azulite worker <words>` for the server at `address`; its state lies in `data`.
    pub(crate) fn start(words: &[&str], config: &Path, data: &Path, address: SocketAddr) -> WorkerProcess {
        let mut arguments: Vec<OsString> = vec!["worker".into()];
        arguments.extend(words.iter().map(OsString::from));
        arguments.extend(["--url".into(), format!("http://{address}").into()]);
        arguments.extend(["--config".into(), config.into(), "--data-dir".into(), data.into()]);
        let mut worker = WorkerProcess { arguments, running: None, logs: Logs::default() };
        worker.launch();
        worker
    }

    /// Starts the process again.
    pub(crate) fn launch(&mut self) {
        assert!(self.running.is_none(), "the worker runs already");
        let mut command = process::azulite();
        command.args(&self.arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start the worker");
        let followers = [
            self.logs.follow(child.stdout.take().expect("stdout is piped")),
            self.logs.follow(child.stderr.take().expect("stderr is piped")),
        ];
        self.running = Some((child, followers));
    }

    /// SIGKILL; returns once it and everything that holds its output is gone.
    pub(crate) fn kill(&mut self) {
        if let Some((mut child, followers)) = self.running.take() {
            child.kill().expect("kill the worker");
            child.wait().expect("wait for the worker");
            for follower in followers {
                follower.join().expect("read the worker's log");
            }
        }
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        self.kill();
        let log = self.logs.text();
        if std::thread::panicking() {
            eprintln!("--- log of a worker of the failed test ---\n{log}");
            return;
        }
        assert!(!log.contains("panicked at"), "{log}");
    }
}
