//! Two gigabytes up and down: whatever the size, memory stays where it is.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use sha2::{Digest, Sha256};

use crate::support::random::Random;
use crate::support::{Config, PATIENCE, Server};

const SIZE: u64 = 2_000_000_000;
const PIECE: usize = 1_000_000;
/// What both ways may take in buffers.
const BUFFERS_KIB: u64 = 64 << 10;

/// A field of `/proc/PID/status`, KiB.
fn memory(server: &Server, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// Each piece of the blob in turn; each is different.
fn pieces(mut each: impl FnMut(&[u8])) {
    let mut piece = Random::new(3).bytes(PIECE);
    for number in 0..SIZE / u64::try_from(PIECE).unwrap() {
        piece[..8].copy_from_slice(&number.to_le_bytes());
        each(&piece);
    }
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    // The disk may be slow to take two gigabytes.
    stream.set_read_timeout(Some(PATIENCE * 10)).unwrap();
    stream
}

/// Status and headers of an answer, in lower case.
fn head(reader: &mut impl BufRead) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    head.to_ascii_lowercase()
}

#[test]
fn two_gigabytes_pass_both_ways_in_bounded_memory() {
    let server = Server::with(&Config::examples());
    let mut hash = Sha256::new();
    pieces(|piece| hash.update(piece));
    let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let before = memory(&server, "VmRSS");

    let mut up = connect(&server);
    let path = "/api/v3/stream/testing/content";
    let query = format!("?skip-identify=true&expected-sha256={hash}");
    write!(up, "POST {path}{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\n").unwrap();
    pieces(|piece| up.write_all(piece).unwrap());
    let mut up = BufReader::new(up);
    assert!(head(&mut up).starts_with("http/1.1 200 "), "the upload");

    let mut down = connect(&server);
    write!(down, "GET {path}/{hash} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut down = BufReader::with_capacity(1 << 20, down);
    let answer = head(&mut down);
    assert!(answer.starts_with("http/1.1 200 ") && answer.contains(&format!("content-length: {SIZE}\r\n")), "{answer}");
    let mut got = vec![0; PIECE];
    pieces(|piece| {
        down.read_exact(&mut got).unwrap();
        assert!(got == piece, "another byte came back");
    });
    assert_eq!(down.read(&mut got).unwrap(), 0, "nothing behind it");

    let grown = memory(&server, "VmHWM").saturating_sub(before);
    assert!(grown <= BUFFERS_KIB, "{grown} KiB more than before");
}
