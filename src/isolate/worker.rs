//! One child as its parent sees it.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::frame::{ANSWER_LEN, Greeting, answer_header, value};
use super::{CallError, Program};

/// How long a child may take to be ready.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Bytes of a body that are sent at once; with the request before them, if they are all.
const PIECE: u64 = 128 << 10;

/// Bytes of an answer that are asked for at once: nearly always all of it.
const ANSWER_PIECE: usize = 4 << 10;

/// A running child. It ends with this value.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    socket: UnixStream,
    greeted: bool,
    /// Number of the last request.
    pub(super) number: u64,
    /// Time that calls have taken, at least the child's processor time.
    pub(super) busy: Duration,
}

impl Worker {
    /// Starts a child, which is ready some time later.
    pub(super) fn start(program: &Program) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let child = Command::new(&program.path)
            .arg0("azulite")
            .args(&program.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is for the parent, which still has answers to wait for.
            .process_group(0)
            .spawn()?;
        Ok(Self { child, socket, greeted: false, number: 0, busy: Duration::ZERO })
    }

    /// Whether it has not ended.
    pub(super) fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends one request and reads the value of the answer.
    pub(super) fn exchange(
        &mut self,
        request: Vec<u8>,
        body: &mut dyn Read,
        body_bytes: u64,
        limit: Duration,
    ) -> Result<Vec<u8>, CallError> {
        if !self.greeted {
            self.greet()?;
        }
        let begun = Instant::now();
        let deadline = Deadline { until: begun + limit, limit };
        self.send(request, body, body_bytes, deadline)?;
        let answer = self.receive(self.number, deadline)?;
        self.busy += begun.elapsed();
        Ok(answer)
    }

    fn greet(&mut self) -> Result<(), CallError> {
        let deadline = Deadline { until: Instant::now() + START_LIMIT, limit: START_LIMIT };
        let greeting = self.receive(0, deadline).map_err(|error| CallError::Start(error.to_string()))?;
        match value::<Greeting>(&greeting) {
            Some(Ok(())) => self.greeted = true,
            Some(Err(error)) => return Err(CallError::Start(error)),
            None => return Err(CallError::Start("it says something else than a child does".into())),
        }
        Ok(())
    }

    fn send(
        &mut self,
        mut piece: Vec<u8>,
        body: &mut dyn Read,
        body_bytes: u64,
        deadline: Deadline,
    ) -> Result<(), CallError> {
        let mut left = body_bytes;
        loop {
            let read = (&mut *body).take(left.min(PIECE)).read_to_end(&mut piece).map_err(CallError::Source)?;
            left -= u64::try_from(read).unwrap_or(left).min(left);
            self.write(&piece, deadline)?;
            if left == 0 {
                return Ok(());
            }
            if read == 0 {
                return Err(CallError::Source(ErrorKind::UnexpectedEof.into()));
            }
            piece.clear();
        }
    }

    fn write(&mut self, mut bytes: &[u8], deadline: Deadline) -> Result<(), CallError> {
        while !bytes.is_empty() {
            self.socket.set_write_timeout(Some(deadline.left()?)).map_err(|_| CallError::Died)?;
            match self.socket.write(bytes) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) => retried(&error, deadline)?,
            }
        }
        Ok(())
    }

    /// The value of the answer with this number.
    fn receive(&mut self, number: u64, deadline: Deadline) -> Result<Vec<u8>, CallError> {
        let mut bytes = Vec::new();
        loop {
            let wanted = match bytes.first_chunk::<ANSWER_LEN>().map(answer_header) {
                None => ANSWER_LEN,
                Some(None) => return Err(CallError::Garbled("it is too long")),
                Some(Some((found, _))) if found != number => {
                    return Err(CallError::Garbled("it is of another request"));
                }
                Some(Some((_, 0))) => return Err(CallError::Garbled("it is empty")),
                Some(Some((_, length))) => ANSWER_LEN + length,
            };
            if wanted > ANSWER_LEN && bytes.len() >= wanted {
                if bytes.len() > wanted {
                    return Err(CallError::Garbled("something follows it"));
                }
                bytes.drain(..ANSWER_LEN);
                return Ok(bytes);
            }
            self.read_some(&mut bytes, wanted, deadline)?;
        }
    }

    /// Reads at least a byte of the `wanted` ones; an empty value does not occur.
    fn read_some(&mut self, bytes: &mut Vec<u8>, wanted: usize, deadline: Deadline) -> Result<(), CallError> {
        self.socket.set_read_timeout(Some(deadline.left()?)).map_err(|_| CallError::Died)?;
        let held = bytes.len();
        bytes.resize(wanted.max(ANSWER_PIECE).max(held + 1), 0);
        let read = self.socket.read(bytes.get_mut(held..).unwrap_or_default());
        bytes.truncate(held + read.as_ref().map_or(0, |read| *read));
        match read {
            Ok(0) => Err(CallError::Died),
            Ok(_) => Ok(()),
            Err(error) => retried(&error, deadline),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Either may find that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// When a call has to be over.
#[derive(Clone, Copy)]
struct Deadline {
    until: Instant,
    limit: Duration,
}

impl Deadline {
    fn left(self) -> Result<Duration, CallError> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(CallError::TimedOut(self.limit)) } else { Ok(left) }
    }
}

/// Whether to try again after this error of the socket.
fn retried(error: &io::Error, deadline: Deadline) -> Result<(), CallError> {
    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut) {
        deadline.left().map(|_| ())
    } else {
        Err(CallError::Died)
    }
}
