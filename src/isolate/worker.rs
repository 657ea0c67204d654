//! One child as its parent sees it.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};

use super::frame::{ANSWER_LEN, AnswerHeader, Greeting, SETUP, answer_header, request, value};
use super::{CallError, Patience, Program};

/// How long a child may take to be ready.
const START_LIMIT: Duration = Duration::from_secs(10);

/// How long a child may take for what it is told first.
const SETUP_LIMIT: Duration = Duration::from_secs(60);

/// Bytes of a body that are sent at once; with the request before them, if they are all.
const PIECE: u64 = 128 << 10;

/// Smallest body that goes through shared memory.
const SHARED_FROM: u64 = 64 << 10;

/// Shared memory that is kept between requests.
const SHARED_KEPT: u64 = 32 << 20;

/// How much of a child's last words is read.
const LAST_WORDS: u64 = 4 << 10;

/// What the library says before it ends a process that gets no memory.
const NO_MEMORY: &str = "memory allocation of";

/// Bytes of an answer that are asked for at once: nearly always all of it.
const ANSWER_PIECE: usize = 4 << 10;

/// A running child. It ends with this value.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    socket: UnixStream,
    /// The child's standard output, which it only reads; where large bodies are left.
    shared: Option<File>,
    greeted: bool,
    /// What it has still to be told.
    setup: Option<Arc<Vec<u8>>>,
    /// Number of the last request.
    pub(super) number: u64,
    /// Time that calls have taken, at least the child's processor time.
    pub(super) busy: Duration,
}

impl Worker {
    /// Starts a child, which is ready some time later.
    pub(super) fn start(program: &Program, setup: Option<Arc<Vec<u8>>>, shared: bool) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let shared =
            shared.then(|| memfd_create(c"azulite-scanner", MemfdFlags::CLOEXEC).map(File::from)).transpose()?;
        let output = shared.as_ref().map(File::try_clone).transpose()?;
        let child = Command::new(&program.path)
            .arg0("azulite")
            .args(&program.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(output.map_or_else(Stdio::null, Stdio::from))
            .stderr(Stdio::piped())
            // Ctrl-C is for the parent, which still has answers to wait for.
            .process_group(0)
            .spawn()?;
        Ok(Self { child, socket, shared, greeted: false, setup, number: 0, busy: Duration::ZERO })
    }

    /// Whether it has not ended.
    pub(super) fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Whether a body of this size goes through shared memory.
    pub(super) fn shares(&self, body_bytes: u64) -> bool {
        self.shared.is_some() && body_bytes >= SHARED_FROM
    }

    /// Sends one request and reads the value of the answer; `piece` gets the values before it.
    pub(super) fn exchange(
        &mut self,
        request: Vec<u8>,
        body: &mut dyn Read,
        body_bytes: u64,
        patience: Patience,
        piece: &mut dyn FnMut(&[u8]) -> Result<(), CallError>,
    ) -> Result<Vec<u8>, CallError> {
        self.prepare()?;
        let begun = Instant::now();
        let deadline = Deadline::new(patience);
        let answer = self.shared_send(request, body, body_bytes, deadline);
        let answer = answer.and_then(|()| self.receive_all(self.number, deadline, piece));
        self.busy += begun.elapsed();
        answer.map_err(|error| self.explained(error))
    }

    /// Waits until it is ready and tells it what it is told first.
    pub(super) fn prepare(&mut self) -> Result<(), CallError> {
        if !self.greeted {
            self.greet().map_err(|error| self.explained(error))?;
        }
        let Some(setup) = self.setup.take() else { return Ok(()) };
        let size = u64::try_from(setup.len()).unwrap_or(u64::MAX);
        let framed = request(SETUP, &(), size, self.shares(size)).ok_or(CallError::Garbled("the setup is too long"))?;
        let deadline = Deadline::new(SETUP_LIMIT.into());
        let sent = self.shared_send(framed, &mut setup.as_slice(), size, deadline);
        let answer = sent.and_then(|()| self.receive_all(SETUP, deadline, &mut |_| Ok(())));
        match value::<Greeting>(&answer.map_err(|error| self.explained(error))?) {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(CallError::Start(error)),
            None => Err(CallError::Start("it does not say whether it took what it was told".into())),
        }
    }

    /// Why it died, if that can be told from its last words.
    fn explained(&mut self, error: CallError) -> CallError {
        if !matches!(error, CallError::Died) {
            return error;
        }
        self.child.kill().ok();
        self.child.wait().ok();
        let mut words = Vec::new();
        if let Some(said) = self.child.stderr.take() {
            said.take(LAST_WORDS).read_to_end(&mut words).ok();
        }
        if String::from_utf8_lossy(&words).contains(NO_MEMORY) { CallError::OutOfMemory } else { error }
    }

    fn greet(&mut self) -> Result<(), CallError> {
        let deadline = Deadline::new(START_LIMIT.into());
        let greeting = self.receive_all(0, deadline, &mut |_| Ok(()));
        let greeting = greeting.map_err(|error| CallError::Start(error.to_string()))?;
        match value::<Greeting>(&greeting) {
            Some(Ok(())) => self.greeted = true,
            Some(Err(error)) => return Err(CallError::Start(error)),
            None => return Err(CallError::Start("it says something else than a child does".into())),
        }
        Ok(())
    }

    /// Sends the request, and the body where this one's goes.
    fn shared_send(
        &mut self,
        request: Vec<u8>,
        body: &mut dyn Read,
        body_bytes: u64,
        deadline: Deadline,
    ) -> Result<(), CallError> {
        let Some(shared) = self.shared.as_ref().filter(|_| self.shares(body_bytes)) else {
            return self.send(request, body, body_bytes, deadline);
        };
        let held = shared.metadata().map_err(CallError::Source)?.len();
        if held > SHARED_KEPT.max(body_bytes) {
            shared.set_len(SHARED_KEPT.max(body_bytes)).map_err(CallError::Source)?;
        }
        let (mut place, mut buffer) = (0, Vec::new());
        while place < body_bytes {
            buffer.clear();
            (&mut *body).take((body_bytes - place).min(PIECE)).read_to_end(&mut buffer).map_err(CallError::Source)?;
            let read = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
            if read == 0 {
                return Err(CallError::Source(ErrorKind::UnexpectedEof.into()));
            }
            shared.write_all_at(&buffer, place).map_err(CallError::Source)?;
            place += read;
            deadline.left()?;
        }
        self.write(&request, deadline)
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

    /// The value of the answer with this number; `piece` gets those before it.
    fn receive_all(
        &mut self,
        number: u64,
        mut deadline: Deadline,
        piece: &mut dyn FnMut(&[u8]) -> Result<(), CallError>,
    ) -> Result<Vec<u8>, CallError> {
        let mut bytes = Vec::new();
        loop {
            let header = match bytes.first_chunk::<ANSWER_LEN>().map(answer_header) {
                None => None,
                Some(None) => return Err(CallError::Garbled("it is too long")),
                Some(Some(header)) if header.number != number => {
                    return Err(CallError::Garbled("it is of another request"));
                }
                Some(Some(AnswerHeader { length: 0, piece: false, .. })) => {
                    return Err(CallError::Garbled("it is empty"));
                }
                Some(Some(header)) => Some(header),
            };
            let wanted = header.map_or(ANSWER_LEN, |header| ANSWER_LEN + header.length);
            let Some(header) = header.filter(|_| bytes.len() >= wanted) else {
                self.read_some(&mut bytes, wanted, deadline)?;
                continue;
            };
            let held = bytes.get(ANSWER_LEN..wanted).unwrap_or_default();
            if header.piece {
                piece(held)?;
                deadline.heard();
                bytes.drain(..wanted);
            } else if bytes.len() > wanted {
                return Err(CallError::Garbled("something follows it"));
            } else {
                bytes.drain(..ANSWER_LEN);
                return Ok(bytes);
            }
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

/// When a call has to be over, and when something must have been heard.
#[derive(Clone, Copy)]
struct Deadline {
    until: Instant,
    silent: Option<Instant>,
    patience: Patience,
}

impl Deadline {
    fn new(patience: Patience) -> Self {
        let now = Instant::now();
        Self { until: now + patience.limit, silent: patience.quiet.map(|quiet| now + quiet), patience }
    }

    fn heard(&mut self) {
        self.silent = self.patience.quiet.map(|quiet| Instant::now() + quiet);
    }

    fn left(self) -> Result<Duration, CallError> {
        let now = Instant::now();
        let left = self.until.saturating_duration_since(now);
        if left.is_zero() {
            return Err(CallError::TimedOut(self.patience.limit));
        }
        match self.silent.map(|silent| silent.saturating_duration_since(now)) {
            Some(quiet) if quiet.is_zero() => Err(CallError::Silent(self.patience.quiet.unwrap_or_default())),
            Some(quiet) => Ok(left.min(quiet)),
            None => Ok(left),
        }
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
