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

use super::frame::{
    ANSWER_LEN, AnswerHeader, Greeting, SETUP, TIDY, answer_header, renumber, request, shared_place, value,
};
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

/// More of it is kept for as long as a larger body comes this often: to get the memory anew takes as long as to copy it.
pub(super) const TIDY_AFTER: Duration = Duration::from_secs(2);

/// What the C library goes by: memory that a request needs is there for the next one, but no more than that.
const MEMORY: [(&str, &str); 2] = [("MALLOC_MMAP_THRESHOLD_", "1048576"), ("MALLOC_TRIM_THRESHOLD_", "8388608")];

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
    pub(super) wire: Arc<Wire>,
    greeted: bool,
    /// What it has still to be told.
    setup: Option<Arc<Vec<u8>>>,
    /// Number of the last request.
    pub(super) number: u64,
    /// What was read of the answer to the next request.
    unread: Vec<u8>,
    /// When there was the last body for which more than usual is kept.
    large: Option<Instant>,
    /// Time that calls have taken, at least the child's processor time.
    pub(super) busy: Duration,
}

/// What requests go through. Also of use to a call that does not have the child yet.
#[derive(Debug)]
pub(super) struct Wire {
    socket: UnixStream,
    /// The child's standard output, which it only reads; where large bodies are left.
    shared: Option<File>,
}

/// The bytes that a request is about.
pub(super) enum Body<'a> {
    Held(&'a [u8]),
    /// So many are read.
    Read(&'a mut dyn Read, u64),
}

/// Whether a body of this size goes through shared memory, if there is some.
pub(super) fn is_shared(body_bytes: u64) -> bool {
    body_bytes >= SHARED_FROM
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
            .envs(MEMORY)
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(output.map_or_else(Stdio::null, Stdio::from))
            .stderr(Stdio::piped())
            // Ctrl-C is for the parent, which still has answers to wait for.
            .process_group(0)
            .spawn()?;
        let (wire, busy) = (Arc::new(Wire { socket, shared }), Duration::ZERO);
        Ok(Self { child, wire, greeted: false, setup, number: 0, unread: Vec::new(), large: None, busy })
    }

    /// Whether it has not ended.
    pub(super) fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a request, which gets the next number, to a child that has nothing to do.
    pub(super) fn begin(&mut self, request: Vec<u8>, body: Body<'_>, patience: Patience) -> Result<(), CallError> {
        self.prepare()?;
        self.number += 1;
        if body.len() > SHARED_KEPT {
            self.large = Some(Instant::now());
        } else {
            self.tidy(Instant::now())?;
        }
        let sent = self.wire.send(self.number, request, body, Deadline::new(patience));
        sent.map_err(|error| self.explained(error))
    }

    /// The value of the answer to the last request; `piece` gets the values before it.
    pub(super) fn finish(
        &mut self,
        patience: Patience,
        piece: &mut dyn FnMut(&[u8]) -> Result<(), CallError>,
    ) -> Result<Vec<u8>, CallError> {
        let begun = Instant::now();
        let answer = self.receive_all(self.number, Deadline::new(patience), piece);
        self.busy += begun.elapsed();
        answer.map_err(|error| self.explained(error))
    }

    /// Whether something came that belongs to no request that was made.
    pub(super) fn babbles(&self) -> bool {
        !self.unread.is_empty()
    }

    /// It was sent the request with this number, and a body of this size, while another call had it.
    pub(super) fn was_sent(&mut self, number: u64, body_bytes: u64) {
        self.number = number;
        if body_bytes > SHARED_KEPT {
            self.large = Some(Instant::now());
        }
    }

    /// Whether it keeps memory for large bodies.
    pub(super) fn is_large(&self) -> bool {
        self.large.is_some()
    }

    /// Gives memory back if there was no large body for a while. Only when it has nothing to do.
    pub(super) fn tidy(&mut self, now: Instant) -> Result<(), CallError> {
        if self.large.is_none_or(|last| now.saturating_duration_since(last) < TIDY_AFTER) {
            return Ok(());
        }
        self.large = None;
        if let Some(shared) = &self.wire.shared {
            shared.set_len(SHARED_KEPT).map_err(CallError::Source)?;
        }
        let request = request(TIDY, &(), 0, false).ok_or(CallError::Died)?;
        self.wire.write(&request, Deadline::new(START_LIMIT.into()))
    }

    /// Waits until it is ready and tells it what it is told first.
    pub(super) fn prepare(&mut self) -> Result<(), CallError> {
        if !self.greeted {
            self.greet().map_err(|error| self.explained(error))?;
        }
        let Some(setup) = self.setup.take() else { return Ok(()) };
        let body = Body::Held(&setup);
        let shared = self.wire.shared.is_some() && is_shared(body.len());
        let framed = request(SETUP, &(), body.len(), shared).ok_or(CallError::Garbled("the setup is too long"))?;
        self.large = Some(Instant::now());
        let deadline = Deadline::new(SETUP_LIMIT.into());
        let sent = self.wire.send(SETUP, framed, body, deadline);
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

    /// The value of the answer with this number; `piece` gets those before it.
    fn receive_all(
        &mut self,
        number: u64,
        mut deadline: Deadline,
        piece: &mut dyn FnMut(&[u8]) -> Result<(), CallError>,
    ) -> Result<Vec<u8>, CallError> {
        let mut bytes = std::mem::take(&mut self.unread);
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
            } else {
                self.unread = bytes.split_off(wanted);
                bytes.drain(..ANSWER_LEN);
                return Ok(bytes);
            }
        }
    }

    /// Reads at least a byte of the `wanted` ones; an empty value does not occur.
    fn read_some(&mut self, bytes: &mut Vec<u8>, wanted: usize, deadline: Deadline) -> Result<(), CallError> {
        self.wire.socket.set_read_timeout(Some(deadline.left()?)).map_err(|_| CallError::Died)?;
        let held = bytes.len();
        bytes.resize(wanted.max(ANSWER_PIECE).max(held + 1), 0);
        let read = (&self.wire.socket).read(bytes.get_mut(held..).unwrap_or_default());
        bytes.truncate(held + read.as_ref().map_or(0, |read| *read));
        match read {
            Ok(0) => Err(CallError::Died),
            Ok(_) => Ok(()),
            Err(error) => retried(&error, deadline),
        }
    }
}

/// Takes a piece, and where in the body it begins.
type Put<'a> = dyn FnMut(&[u8], u64) -> Result<(), CallError> + 'a;

/// A body in shared memory.
pub(super) struct Left {
    wire: Arc<Wire>,
    place: u64,
}

impl Read for Left {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let shared = self.wire.shared.as_ref().ok_or(ErrorKind::NotFound)?;
        let read = shared.read_at(buffer, self.place)?;
        self.place += u64::try_from(read).unwrap_or_default();
        Ok(read)
    }
}

impl Body<'_> {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Held(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Self::Read(_, size) => *size,
        }
    }
}

impl Wire {
    /// Sends the request with this number, and the body where this one's goes. Nothing is sent if the body cannot be read,
    /// unless it goes through the socket in more than one piece.
    pub(super) fn send(
        &self,
        number: u64,
        mut request: Vec<u8>,
        mut body: Body<'_>,
        deadline: Deadline,
    ) -> Result<(), CallError> {
        renumber(&mut request, number);
        let size = body.len();
        if let Some(shared) = self.shared.as_ref().filter(|_| is_shared(size)) {
            let start = shared_place(number);
            body.in_pieces(Vec::new(), &mut |piece, place| {
                deadline.left()?;
                shared.write_all_at(piece, start + place).map_err(CallError::Source)
            })?;
            return self.write(&request, deadline);
        }
        body.in_pieces(request, &mut |piece, _| self.write(piece, deadline))
    }

    /// The body of the request with this number, which was left in shared memory.
    pub(super) fn left(self: &Arc<Self>, number: u64) -> Left {
        Left { wire: Arc::clone(self), place: shared_place(number) }
    }

    fn write(&self, mut bytes: &[u8], deadline: Deadline) -> Result<(), CallError> {
        while !bytes.is_empty() {
            self.socket.set_write_timeout(Some(deadline.left()?)).map_err(|_| CallError::Died)?;
            match (&self.socket).write(bytes) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) => retried(&error, deadline)?,
            }
        }
        Ok(())
    }
}

impl Body<'_> {
    /// Hands over `first` with all bytes in pieces, and where in the body each begins.
    fn in_pieces(&mut self, mut first: Vec<u8>, put: &mut Put<'_>) -> Result<(), CallError> {
        let (body, size) = match self {
            Self::Held(bytes) if first.is_empty() => return put(bytes, 0),
            Self::Held(bytes) => {
                first.extend_from_slice(bytes);
                return put(&first, 0);
            }
            Self::Read(body, size) => (body, *size),
        };
        let (mut place, mut held, mut piece) = (0, first.len(), first);
        loop {
            let most = usize::try_from((size - place).min(PIECE)).unwrap_or(usize::MAX);
            piece.resize(held + most, 0);
            body.read_exact(piece.get_mut(held..).unwrap_or_default()).map_err(CallError::Source)?;
            put(&piece, place)?;
            place += u64::try_from(most).unwrap_or(u64::MAX);
            if place >= size {
                return Ok(());
            }
            held = 0;
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
pub(super) struct Deadline {
    until: Instant,
    silent: Option<Instant>,
    patience: Patience,
}

impl Deadline {
    pub(super) fn new(patience: Patience) -> Self {
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
