//! Runs the binary and waits for it, never longer than twice [`super::PATIENCE`].

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// The program under test with none of the caller's settings in its environment.
pub(crate) fn azulite() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_azulite"));
    let ours = |name: &OsStr| {
        let name = name.to_string_lossy();
        ["AZULITE_", "DP__", "DP.", "DISPATCHER_", "BED_", "BED."].iter().any(|prefix| name.starts_with(prefix))
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| ours(name)) {
        command.env_remove(name);
    }
    command.env_remove("NOTIFY_SOCKET").env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// What a finished command said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// The standard output as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("stdout is not one JSON value ({e}): {self:?}"))
    }

    /// Fails unless the command ended with `code`.
    pub(crate) fn expect_code(self, code: i32) -> Ran {
        assert_eq!(self.code, Some(code), "exit code of {self:?}");
        assert!(!self.stderr.contains("panicked at"), "{self:?}");
        self
    }
}

/// Runs the binary with `arguments` to its end.
pub(crate) fn run<I, S>(arguments: I) -> Ran
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    run_with_input(arguments, &[])
}

/// Runs the binary with `arguments` and `input` on its standard input.
pub(crate) fn run_with_input<I, S>(arguments: I, input: &[u8]) -> Ran
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let arguments: Vec<OsString> = arguments.into_iter().map(|a| a.as_ref().to_owned()).collect();
    let mut command = azulite();
    command.args(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("start the binary under test");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // A command that does not read its input closes the pipe early; that is no failure of the test.
    drop(stdin.write_all(input));
    drop(stdin);
    let pid = child.id();
    let (done, waited) = std::sync::mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        if waited.recv_timeout(PATIENCE * 2).is_err() {
            signal(pid, "KILL");
        }
    });
    let Output { status, stdout, stderr } = child.wait_with_output().expect("wait for the binary under test");
    done.send(()).ok();
    guard.join().unwrap();
    Ran {
        code: status.code(),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// Sends a signal by name (`TERM`, `KILL`, `STOP`) to a process this test started.
pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -s {name} {pid}")]).status().expect("run sh");
    assert!(status.success(), "cannot send SIG{name} to {pid}");
}

/// Waits for the end of `child`; `None` when `limit` ran out first.
pub(crate) fn wait_for_exit(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("wait for a child of this test") {
            return Some(status);
        }
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}
