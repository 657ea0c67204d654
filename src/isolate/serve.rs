//! The child's side: ready and confined first, then one request after another until the parent closes the socket.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{Greeting, REQUEST_LEN, RequestHeader, SETUP, TIDY, answer, encoded, piece, shared_place, value};
use super::{Limits, confine};

/// What a child can do.
pub trait Service {
    /// What is asked.
    type Request: DeserializeOwned;
    /// What is answered.
    type Answer: Serialize;

    /// Answers one request about `body`; `pieces` takes what comes before the answer.
    fn answer(&mut self, request: Self::Request, body: &[u8], pieces: &mut dyn Pieces) -> Self::Answer;

    /// Takes what all requests have in common, before the first of them.
    ///
    /// # Errors
    /// It is of no use, and why.
    fn prepare(&mut self, _setup: &[u8]) -> Result<(), String> {
        Err("this service is told nothing".into())
    }
}

/// Takes values that belong to an answer and come before it.
pub trait Pieces {
    /// Sends one, which is encoded already.
    ///
    /// # Errors
    /// The parent is gone.
    fn put(&mut self, piece: &[u8]) -> io::Result<()>;
}

impl dyn Pieces + '_ {
    /// Sends one.
    ///
    /// # Errors
    /// It is larger than an answer may be, or the parent is gone.
    pub fn send(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.put(&encoded(value).ok_or(ErrorKind::InvalidData)?)
    }
}

/// Body bytes whose memory is kept for the next request. Of shared bodies the parent says when more is given back.
const KEPT: usize = 32 << 20;

/// Starts the service, which may still read what it needs, confines this process for good, and answers what comes in
/// through standard input, which is a socket.
///
/// Returns when the parent has closed its end.
///
/// # Errors
/// Standard input is no such socket, or what comes is no request. What could not be given up, or `start`'s failure, the
/// parent is told.
pub fn serve<S: Service>(limits: &Limits, start: impl FnOnce() -> Result<S, String>) -> io::Result<()> {
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let shared = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let service = start().and_then(|service| confine::confine(limits).map(|()| service));
    let greeting: Greeting = service.as_ref().map(|_| ()).map_err(Clone::clone);
    socket.write_all(&answer(0, &greeting).ok_or(ErrorKind::InvalidData)?)?;
    match service {
        Ok(service) => answer_all(service, limits, &socket, &shared),
        Err(_) => Ok(()),
    }
}

struct Output<'a> {
    socket: &'a UnixStream,
    number: u64,
}

impl Pieces for Output<'_> {
    fn put(&mut self, value: &[u8]) -> io::Result<()> {
        self.socket.write_all(&piece(self.number, value).ok_or(ErrorKind::InvalidData)?)
    }
}

fn answer_all<S: Service>(mut service: S, limits: &Limits, socket: &UnixStream, shared: &File) -> io::Result<()> {
    let mut input = BufReader::with_capacity(64 << 10, socket);
    let mut output = socket;
    let mut fixed = [0; REQUEST_LEN];
    let mut held = Vec::new();
    loop {
        match input.read_exact(&mut fixed) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let header = RequestHeader::decode(&fixed).ok_or(ErrorKind::InvalidData)?;
        if header.number == TIDY {
            tidy(&mut held);
            continue;
        }
        let most = if header.number == SETUP { limits.setup_bytes } else { limits.body_bytes };
        let size = usize::try_from(header.body_bytes).ok().filter(|_| header.body_bytes <= most);
        let size = size.ok_or(ErrorKind::InvalidData)?;
        let mut request = vec![0; header.value_len];
        input.read_exact(&mut request)?;
        if held.len() < size {
            held.resize(size, 0);
        }
        let body = held.get_mut(..size).ok_or(ErrorKind::InvalidData)?;
        if header.shared {
            shared.read_exact_at(body, shared_place(header.number))?;
        } else {
            input.read_exact(body)?;
        }
        let framed = if header.number == SETUP {
            answer(SETUP, &service.prepare(body))
        } else {
            let request = value(&request).ok_or(ErrorKind::InvalidData)?;
            let mut pieces = Output { socket, number: header.number };
            answer(header.number, &service.answer(request, body, &mut pieces))
        };
        output.write_all(&framed.ok_or(ErrorKind::InvalidData)?)?;
        if !header.shared && size > KEPT {
            tidy(&mut held);
        }
    }
}

fn tidy(held: &mut Vec<u8>) {
    if held.len() > KEPT {
        held.truncate(KEPT);
        held.shrink_to_fit();
    }
}
