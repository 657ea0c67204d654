//! Files made to harm whoever looks at them: each is answered, in bounded time and memory.

use std::fs::{self, File};
use std::io::{Cursor, Read, Seek, Write};
use std::time::{Duration, Instant};

use azulite::identify::Identifier;
use azulite::identify::content::Scan;
use serde_json::Value;

use super::identifier;

/// What one file may cost, on a busy machine and without optimisation.
const PATIENCE: Duration = Duration::from_secs(60);

/// What all of them together may take of this process: the rules, and what a few files hold at once.
const MEMORY_KIB: u64 = 700 << 10;

/// Beginnings of the formats that parsers look into.
const BEGINNINGS: [&[u8]; 38] = [
    b"PK\x03\x04\x14\0\0\0\x08\0",
    b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff",
    b"\x1f\x8b\x08\x08\0\0\0\0\0\x03name",
    b"BZh91AY&SY",
    b"\xfd7zXZ\0\0\x04",
    b"7z\xbc\xaf\x27\x1c\0\x04",
    b"Rar!\x1a\x07\x01\0",
    b"MSCF\0\0\0\0\xff\xff\xff\xff",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    b"%PDF-1.7\n1 0 obj<<",
    b"\x7fELF\x02\x01\x01\0",
    b"\x7fELF\x01\x02\x01\0",
    b"MZ\x90\0\x03",
    b"\xca\xfe\xba\xbe\0\0\xff\xff",
    b"\xcf\xfa\xed\xfe\x07\0\0\x01",
    b"dex\n035\0",
    b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR",
    b"GIF89a\xff\xff\xff\xff",
    b"\xff\xd8\xff\xe0\xff\xffJFIF",
    b"II*\0\x08\0\0\0\xff\xff",
    b"RIFF\xff\xff\xff\xffAVI ",
    b"OggS\0\x02",
    b"ID3\x04\0\0\x7f\x7f\x7f\x7f",
    b"\0\0\0\x20ftypisom",
    b"\xd4\xc3\xb2\xa1\x02\0\x04\0",
    b"SQLite format 3\0",
    b"ElfFile\0\xff\xff\xff\xff\xff\xff\xff\xff",
    b"MDMP\x93\xa7",
    b"{\\rtf1\\ansi",
    b"<?xml version=\"1.0\"?><",
    b"{\"a\":[",
    b"\xff\xfe<\0h\0t\0m\0l\0",
    b"#!/bin/sh\n",
    b"%!PS-Adobe-3.0\n",
    b"From: a\nTo: b\nSubject: c\n",
    b"BM\xff\xff\xff\xff",
    b"hsqs\xff\xff\xff\xff",
    b"L\0\0\0\x01\x14\x02\0\0\0\0\0\xc0\0\0\0\0\0\0F",
];

/// Repeatable numbers below a bound.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| u8::try_from(self.below(256)).unwrap()).collect()
    }

    /// A few bits flipped, and perhaps the end cut off.
    fn broken(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(8) {
            let at = self.below(bytes.len());
            bytes[at] ^= 1 << self.below(8);
        }
        if self.below(2) == 0 {
            bytes.truncate(1 + self.below(bytes.len()));
        }
        bytes
    }
}

fn examples() -> Vec<Vec<u8>> {
    let all: Vec<Value> = serde_json::from_str(include_str!("../fixtures/identify/examples.json")).unwrap();
    let bytes = |example: &Value| {
        let digits = example["hex"].as_str().unwrap();
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        let once: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
        once.repeat(usize::try_from(example["repeat"].as_u64().unwrap()).unwrap())
    };
    all.iter().map(bytes).collect()
}

/// Identifies, checks what it cost and that the answer is one; tells what came of the content rules.
fn survived(identifier: &Identifier, name: &str, source: impl Read + Seek) -> Option<Scan> {
    let begun = Instant::now();
    let (found, notes) = identifier.identify_noting(source).unwrap();
    assert!(begun.elapsed() < PATIENCE, "{name} took {:?}", begun.elapsed());
    assert!(identifier.types().get(&found.file_format).is_some(), "{name}: {found:?}");
    assert!(found.mime.is_ascii() && found.magic.is_ascii(), "{name}: {found:?}");
    notes.content
}

fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn five_hundred_broken_files_are_survived() {
    let identifier = identifier();
    let mut random = Random(0x5eed_1dea);
    let mut count = 0;
    for (number, example) in examples().iter().enumerate() {
        for _ in 0..6 {
            let broken = random.broken(example);
            let content = survived(&identifier, &format!("example {number}"), Cursor::new(&broken));
            assert!(!matches!(content, Some(Scan::Failed(_))), "{content:?} {broken:x?}");
            count += 1;
        }
    }
    for beginning in BEGINNINGS {
        for size in [0, 1, 30, 200, 5_000, 70_000] {
            let whole = [beginning, &random.bytes(size)].concat();
            let content = survived(&identifier, &format!("{beginning:x?} and {size}"), Cursor::new(&whole));
            assert!(!matches!(content, Some(Scan::Failed(_))), "{content:?} {beginning:x?} {size}");
            count += 1;
        }
    }
    // Real ones of this machine: programs, libraries, archives, whatever there is.
    let own = fs::read(env!("CARGO_BIN_EXE_azulite")).unwrap();
    for end in [64, 1_000, 100_000, 3_000_000] {
        survived(&identifier, "a program", Cursor::new(random.broken(&own[..end.min(own.len())])));
        count += 1;
    }
    assert!(count >= 490, "{count}");
}

#[test]
fn bombs_are_not_unpacked() {
    let identifier = identifier();
    let before = peak_kib();
    survived(&identifier, "gzip", Cursor::new(gzip_bomb()));
    // Sixty thousand entries that are all the same one, and a directory that claims more than there is.
    let entry = b"PK\x01\x02\x14\0\x14\0\0\0\x08\0\0\0\0\0\0\0\0\0\x10\0\0\0\xff\xff\xff\xfe\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0a";
    let mut zip = [&b"PK\x03\x04\x14\0\0\0\x08\0"[..], &[0; 40]].concat();
    let start = u32::try_from(zip.len()).unwrap();
    zip.extend(entry.repeat(60_000));
    let size = u32::try_from(zip.len()).unwrap() - start;
    let counts = 60_000_u16.to_le_bytes();
    zip.extend(
        [&b"PK\x05\x06\0\0\0\0"[..], &counts, &counts, &size.to_le_bytes(), &start.to_le_bytes(), &[0; 2]].concat(),
    );
    survived(&identifier, "zip", Cursor::new(&zip));
    let end = zip.len();
    zip[end - 10..end - 2].fill(0xff);
    survived(&identifier, "zip with a false end", Cursor::new(&zip));
    survived(&identifier, "many ends", Cursor::new(b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff".repeat(100_000)));
    assert!(peak_kib() < before.max(MEMORY_KIB), "{} KiB", peak_kib());
}

/// 128 MiB of zeros in half a megabyte: one literal, then copies of 258 bytes at distance 1, in the fixed code.
fn gzip_bomb() -> Vec<u8> {
    let mut bits: Vec<u8> = Vec::new();
    let mut push = |code: u32, length: u32| bits.extend((0..length).rev().map(|at| u8::from(code >> at & 1 == 1)));
    push(1, 1);
    push(0b10, 2);
    push(0b0011_0000, 8);
    for _ in 0..520_000 {
        push(0b1100_0101, 8);
        push(0, 5);
    }
    push(0, 7);
    let packed = bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |value, bit| value << 1 | bit));
    [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3].into_iter().chain(packed).collect()
}

#[test]
fn a_sparse_file_of_4_gib_is_looked_at_where_it_has_to_be() {
    let identifier = identifier();
    let folder = tempfile::tempdir().unwrap();
    for (name, beginning) in [
        ("zeros", &b""[..]),
        ("text", b"hello\n"),
        ("zip", b"PK\x03\x04\x14\0"),
        ("pdf", b"%PDF-1.4\n"),
        ("xml", b"<?xml "),
    ] {
        let path = folder.path().join(name);
        let mut file = File::create(&path).unwrap();
        file.write_all(beginning).unwrap();
        file.set_len(4 << 30).unwrap();
        let content = survived(&identifier, name, File::open(&path).unwrap());
        assert!(matches!(content, None | Some(Scan::Skipped)), "{name}: {content:?}");
    }
    assert!(peak_kib() < MEMORY_KIB, "{} KiB", peak_kib());
}

#[test]
fn deep_nesting_ends_somewhere() {
    let identifier = identifier();
    let nested = |open: &str, close: &str| [open.repeat(1_000_000), close.repeat(1_000_000)].concat();
    for (name, text) in [
        ("json", nested("[", "]")),
        ("objects", nested("{\"a\":", "}")),
        ("xml", nested("<a>", "</a>")),
        ("rtf", format!("{{\\rtf1{}", "{".repeat(1_000_000))),
        ("parentheses", nested("(", ")")),
        ("functions", "function(){".repeat(500_000)),
        ("definitions", "\ndef f(".repeat(500_000)),
        ("variables", "%a%".repeat(2_000_000)),
        ("lines", "echo a\r\n".repeat(1_000_000)),
        ("mail", format!("From: a\n{}", "To: b\nMIME-Version: 1.0\n".repeat(200_000))),
    ] {
        let content = survived(&identifier, name, Cursor::new(text));
        // Failing for lack of time is an answer too.
        if let Some(Scan::Failed(why)) = content {
            assert!(why.contains("imeout") || why.contains("no answer"), "{name}: {why}");
        }
    }
}
