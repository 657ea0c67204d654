//! The child's side: ready and confined first, then one request after another until the parent closes the socket.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{Greeting, REQUEST_LEN, RequestHeader, answer, value};
use super::{Limits, confine};

/// What a child can do.
pub trait Service {
    /// What is asked.
    type Request: DeserializeOwned;
    /// What is answered.
    type Answer: Serialize;

    /// Answers one request about `body`.
    fn answer(&mut self, request: Self::Request, body: &[u8]) -> Self::Answer;
}

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
    let service = start().and_then(|service| confine::confine(limits).map(|()| service));
    let greeting: Greeting = service.as_ref().map(|_| ()).map_err(Clone::clone);
    socket.write_all(&answer(0, &greeting).ok_or(ErrorKind::InvalidData)?)?;
    match service {
        Ok(service) => answer_all(service, limits, &socket),
        Err(_) => Ok(()),
    }
}

fn answer_all<S: Service>(mut service: S, limits: &Limits, socket: &UnixStream) -> io::Result<()> {
    let mut input = BufReader::with_capacity(64 << 10, socket);
    let mut output = socket;
    let mut fixed = [0; REQUEST_LEN];
    loop {
        match input.read_exact(&mut fixed) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let header = RequestHeader::decode(&fixed).filter(|header| header.body_bytes <= limits.body_bytes);
        let RequestHeader { number, value_len, body_bytes } = header.ok_or(ErrorKind::InvalidData)?;
        let mut request = vec![0; value_len];
        input.read_exact(&mut request)?;
        let request = value(&request).ok_or(ErrorKind::InvalidData)?;
        let mut body = vec![0; usize::try_from(body_bytes).map_err(|_| ErrorKind::InvalidData)?];
        input.read_exact(&mut body)?;
        let said = service.answer(request, &body);
        output.write_all(&answer(number, &said).ok_or(ErrorKind::InvalidData)?)?;
    }
}
