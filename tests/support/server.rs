//! One server process with a folder, a port and a log of its own.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::logs::Logs;
use super::process::{self, Ran, wait_for_exit};
use super::{Batch, Client, Config, PATIENCE, Response, await_that};

/// How long a server may take to drain and stop after SIGTERM.
const DRAIN: Duration = Duration::from_secs(10);

/// A running (or stopped) `azulite serve`. Dropping it ends the process and fails the test on an ERROR or WARN line
/// that was not announced.
#[derive(Debug)]
pub(crate) struct Server {
    folder: TempDir,
    data: PathBuf,
    running: Option<Running>,
    address: SocketAddr,
    logs: Logs,
    announced: Vec<String>,
    environment: Vec<(OsString, OsString)>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    followers: Vec<JoinHandle<()>>,
}

impl Server {
    /// A server with the setup of the worked examples on an empty store.
    pub(crate) fn start() -> Server {
        Server::with(&Config::examples())
    }

    /// A server with `config` on an empty store.
    pub(crate) fn with(config: &Config) -> Server {
        Server::prepared(config).started()
    }

    /// Folder and configuration file without a process.
    pub(crate) fn prepared(config: &Config) -> Server {
        let folder = tempfile::Builder::new().prefix("azulite-test-").tempdir().expect("make a folder");
        let data = folder.path().join("data");
        Server::over(folder, data, config)
    }

    /// As [`Server::prepared`] with the data directory somewhere else.
    pub(crate) fn over(folder: TempDir, data: PathBuf, config: &Config) -> Server {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server {
            folder,
            data,
            running: None,
            address,
            logs: Logs::default(),
            announced: Vec::new(),
            environment: Vec::new(),
        };
        server.configure(config);
        server
    }

    /// Writes the configuration file that the next start will read.
    pub(crate) fn configure(&self, config: &Config) {
        std::fs::write(self.config_path(), config.text()).expect("write the configuration");
    }

    /// Sets a variable in the environment of every later start.
    pub(crate) fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Server {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Starts the process of a prepared server.
    pub(crate) fn started(mut self) -> Server {
        self.launch();
        self
    }

    /// Starts the process and waits until it is ready.
    pub(crate) fn launch(&mut self) {
        assert!(self.running.is_none(), "the server runs already");
        let mut command = process::azulite();
        command.args(["serve", "--config"]).arg(self.config_path()).arg("--data-dir").arg(&self.data);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start the server");
        let followers = vec![
            self.logs.follow(child.stdout.take().expect("stdout is piped")),
            self.logs.follow(child.stderr.take().expect("stderr is piped")),
        ];
        self.running = Some(Running { child, followers });
        self.await_ready();
    }

    /// Bounded retries: first the lock file tells the address, then `/readyz` says 200.
    fn await_ready(&mut self) {
        let start = Instant::now();
        loop {
            let Running { child, .. } = self.running.as_mut().expect("just launched");
            let pid = child.id();
            if let Some(status) = child.try_wait().expect("wait for the server") {
                self.reap();
                panic!("the server ended with {status} instead of becoming ready:\n{}", self.logs.text());
            }
            if let Some(address) = address_in_lock(&self.data, pid) {
                self.address = address;
                if Client::new(address).try_get("/readyz").is_ok_and(|answer| answer.status == 200) {
                    return;
                }
            }
            assert!(start.elapsed() < PATIENCE, "the server did not become ready:\n{}", self.logs.text());
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Tells that WARN and ERROR lines containing `text` are expected from now on and before.
    pub(crate) fn announce(&mut self, text: &str) {
        self.announced.push(text.to_owned());
    }

    /// A new client of this server.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Where the server listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder the server keeps its data in.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data
    }

    /// A folder for this test that goes away with the server.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration file.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.folder.path().join("azulite.toml")
    }

    /// Everything the server said, over all restarts.
    pub(crate) fn log_text(&self) -> String {
        self.logs.text()
    }

    /// Where the server listens for Kafka clients since its last start.
    pub(crate) fn kafka_address(&self) -> SocketAddr {
        let http = format!("listening on http://{}\n", self.address);
        let find = || {
            // The line behind the one of this start; lines may come late.
            let log = self.logs.text();
            let (_, this_start) = log.rsplit_once(&http)?;
            let (_, rest) = this_start.split_once("listening for Kafka clients on ")?;
            rest.split_once(',')?.0.parse().ok()
        };
        await_that("the Kafka port", || find().is_some());
        find().expect("just found")
    }

    /// The value of a metric without labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let page = self.client().get("/metrics").expect_status(200).text();
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no metric {name} in {page}"))
    }

    /// Waits until so many requests wait for something to read.
    pub(crate) fn await_readers(&self, count: u64) {
        await_that("readers that wait", || self.metric("azulite_waiting_readers") == count);
    }

    /// The process id of the running server.
    pub(crate) fn pid(&self) -> u32 {
        self.running.as_ref().expect("the server runs").child.id()
    }

    /// Asks the server to stop (SIGTERM); it has ten seconds and must end with code 0.
    pub(crate) fn stop(&mut self) {
        process::signal(self.pid(), "TERM");
        let running = self.running.as_mut().expect("the server runs");
        let status = wait_for_exit(&mut running.child, DRAIN);
        let Some(status) = status else {
            self.kill();
            panic!("the server did not stop within {DRAIN:?} of SIGTERM:\n{}", self.logs.text());
        };
        self.reap();
        assert_eq!(status.code(), Some(0), "exit code after SIGTERM; log:\n{}", self.logs.text());
    }

    /// Kills the server (SIGKILL) and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(running) = self.running.as_mut() {
            running.child.kill().expect("kill the server");
        }
        self.reap();
    }

    /// SIGTERM, then a new process on the same data.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.launch();
    }

    /// SIGKILL, then a new process on the same data.
    pub(crate) fn crash(&mut self) {
        self.kill();
        self.launch();
    }

    /// How the process ended, if it did within `limit`.
    pub(crate) fn exited(&mut self, limit: Duration) -> Option<ExitStatus> {
        let status = wait_for_exit(&mut self.running.as_mut()?.child, limit)?;
        self.reap();
        Some(status)
    }

    fn reap(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.child.wait().expect("wait for the server");
            for follower in running.followers {
                follower.join().expect("read the server's log");
            }
        }
    }

    /// Runs another command of the binary with this server's configuration and data directory.
    pub(crate) fn cli<S: Into<OsString>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        let mut all: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        all.extend(["--config".into(), self.config_path().into(), "--data-dir".into(), self.data.clone().into()]);
        process::run(all)
    }

    /// Publishes `body` (one event or a list); `query` is appended after the model.
    pub(crate) fn publish(&self, model: &str, query: &str, body: &Value) -> Response {
        self.client().post(&format!("/api/v2/event?model={model}{query}"), body.to_string().as_bytes())
    }

    /// Publishes and fails the test unless every event was taken; the events in their final form.
    pub(crate) fn publish_ok(&self, model: &str, body: &Value) -> Vec<Value> {
        let count = body.as_array().map_or(1, Vec::len);
        let answer = self.publish(model, "&sync=true&include_ok=true", body).expect_status(200).json();
        assert_eq!(answer["total_ok"], count, "{answer}");
        assert_eq!(answer["total_failures"], 0, "{answer}");
        assert_eq!(answer["failures"], serde_json::json!([]), "{answer}");
        answer["ok"].as_array().expect("include_ok gives the events").clone()
    }

    /// How many GETs for binary events of the consumer `name` have reached their reader so far.
    pub(crate) fn fetches_of(&self, name: &str) -> u64 {
        let page = self.client().get("/metrics").expect_status(200).text();
        let series = format!("dispatcher_event_fetch_requests_total{{plugin=\"{name}\",entity=\"binary\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or(0)
    }

    /// One GET of events, read strictly.
    pub(crate) fn fetch(&self, model_and_kind: &str, query: &str) -> Batch {
        Batch::read(&self.client().get(&format!("/api/v2/event/{model_and_kind}?{query}")))
    }
}

/// The address in `LOCK`, if that file is of process `pid`.
fn address_in_lock(data: &Path, pid: u32) -> Option<SocketAddr> {
    let text = std::fs::read_to_string(data.join("LOCK")).ok()?;
    let mut words = text.split_whitespace();
    let owner = words.next()?.strip_prefix("pid=")?;
    let address = words.next()?.strip_prefix("http=")?;
    (owner == pid.to_string()).then(|| address.parse().ok()).flatten()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of the server of the failed test ---\n{}", self.logs.text());
            return;
        }
        let alarms = self.logs.alarms(&self.announced);
        assert!(alarms.is_empty(), "unannounced lines in the log:\n{}", alarms.join("\n"));
    }
}
