//! The CaRT container: bytes that cannot run and that no scanner takes for what they are.
//!
//! Layout (version 1, little-endian): `CART`, version, reserved, RC4 key, length of the optional header; then the data as
//! a zlib stream under RC4; then an optional footer (JSON under RC4) and `TRAC`, reserved, position and length of that
//! footer. The key is the public default one: CaRT neutralises, it does not encrypt. The zlib stream holds stored blocks,
//! which every reader takes: malware is mostly packed already.

use std::io::{self, Write};

/// The default key: the first eight digits of pi, twice.
const KEY: [u8; 16] = [3, 1, 4, 1, 5, 9, 2, 6, 3, 1, 4, 1, 5, 9, 2, 6];
/// Longest stored block of a deflate stream.
const BLOCK_BYTES: usize = 0xffff;
const ADLER_MODULUS: u32 = 65_521;

/// Wraps what is written. [`Cart::finish`] must be called, or the container is cut off.
pub(super) struct Cart<W> {
    out: W,
    position: u64,
    cipher: Rc4,
    block: Vec<u8>,
    adler: (u32, u32),
    length: u64,
}

impl<W: Write> Cart<W> {
    /// Begins a container.
    ///
    /// # Errors
    /// Those of `out`.
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        let head = [&b"CART"[..], &1_u16.to_le_bytes(), &[0; 8], &KEY, &[0; 8]].concat();
        out.write_all(&head)?;
        let position = u64::try_from(head.len()).unwrap_or(0);
        let mut cart = Self { out, position, cipher: Rc4::new(&KEY), block: Vec::new(), adler: (1, 0), length: 0 };
        // zlib: deflate with a 32 KiB window, no compression.
        cart.put(&[0x78, 0x01])?;
        Ok(cart)
    }

    /// Writes bytes of the zlib stream.
    fn put(&mut self, plain: &[u8]) -> io::Result<()> {
        let masked = self.cipher.masked(plain);
        self.position += u64::try_from(masked.len()).unwrap_or(0);
        self.out.write_all(&masked)
    }

    fn end_block(&mut self, last: bool) -> io::Result<()> {
        let block = std::mem::take(&mut self.block);
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        self.put(&[&[u8::from(last)][..], &length.to_le_bytes(), &(!length).to_le_bytes(), &block].concat())
    }

    /// Ends the container; `sha256` is the hash of everything written. Returns what it was written to.
    ///
    /// # Errors
    /// Those of the output.
    pub(super) fn finish(mut self, sha256: &str) -> io::Result<W> {
        self.end_block(true)?;
        let (low, high) = self.adler;
        self.put(&(high << 16 | low).to_be_bytes())?;
        let footer = serde_json::json!({ "length": self.length.to_string(), "sha256": sha256 }).to_string();
        let footer = Rc4::new(&KEY).masked(footer.as_bytes());
        self.out.write_all(&footer)?;
        let length = u64::try_from(footer.len()).unwrap_or(0);
        self.out.write_all(&[&b"TRAC"[..], &[0; 8], &self.position.to_le_bytes(), &length.to_le_bytes()].concat())?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Cart<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.get(..BLOCK_BYTES - self.block.len()).unwrap_or(bytes);
        self.block.extend_from_slice(taken);
        self.length += u64::try_from(taken.len()).unwrap_or(0);
        let (mut low, mut high) = self.adler;
        for byte in taken {
            low = (low + u32::from(*byte)) % ADLER_MODULUS;
            high = (high + low) % ADLER_MODULUS;
        }
        self.adler = (low, high);
        if self.block.len() == BLOCK_BYTES {
            self.end_block(false)?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// RC4, kept for this format alone.
struct Rc4 {
    state: [u8; 256],
    i: u8,
    j: u8,
}

impl Rc4 {
    fn new(key: &[u8]) -> Self {
        let mut state = std::array::from_fn(|index| u8::try_from(index).unwrap_or(0));
        let mut j = 0_u8;
        for (i, key) in (0..=255_u8).zip(key.iter().cycle()) {
            j = j.wrapping_add(at(&state, i)).wrapping_add(*key);
            state.swap(usize::from(i), usize::from(j));
        }
        Self { state, i: 0, j: 0 }
    }

    fn masked(&mut self, plain: &[u8]) -> Vec<u8> {
        plain.iter().map(|byte| byte ^ self.next()).collect()
    }

    fn next(&mut self) -> u8 {
        self.i = self.i.wrapping_add(1);
        self.j = self.j.wrapping_add(at(&self.state, self.i));
        self.state.swap(usize::from(self.i), usize::from(self.j));
        at(&self.state, at(&self.state, self.i).wrapping_add(at(&self.state, self.j)))
    }
}

fn at(state: &[u8; 256], index: u8) -> u8 {
    state.get(usize::from(index)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identify::{Identifier, content};

    /// Takes a container apart again.
    fn unwrapped(cart: &[u8]) -> Vec<u8> {
        let foot = &cart[cart.len() - 28..];
        assert_eq!((&cart[..4], &foot[..4]), (&b"CART"[..], &b"TRAC"[..]));
        let number = |bytes: &[u8]| usize::try_from(u64::from_le_bytes(bytes.try_into().unwrap())).unwrap();
        let (end, footer_len) = (number(&foot[12..20]), number(&foot[20..28]));
        assert_eq!(end + footer_len + 28, cart.len());
        let footer = Rc4::new(&KEY).masked(&cart[end..end + footer_len]);
        let footer: serde_json::Value = serde_json::from_slice(&footer).unwrap();
        let zlib = Rc4::new(&KEY).masked(&cart[38..end]);
        let (mut rest, mut plain) = (&zlib[2..], Vec::new());
        loop {
            let length = u16::from_le_bytes([rest[1], rest[2]]);
            assert_eq!(u16::from_le_bytes([rest[3], rest[4]]), !length);
            plain.extend_from_slice(&rest[5..5 + usize::from(length)]);
            let last = rest[0] == 1;
            rest = &rest[5 + usize::from(length)..];
            if last {
                break;
            }
        }
        assert_eq!(rest.len(), 4, "the checksum");
        assert_eq!(footer["length"], plain.len().to_string());
        plain
    }

    fn wrapped(plain: &[u8]) -> Vec<u8> {
        let mut cart = Cart::new(Vec::new()).unwrap();
        cart.write_all(plain).unwrap();
        cart.finish("ab").unwrap()
    }

    #[test]
    fn rc4_gives_the_published_key_stream() {
        let masked = Rc4::new(b"Key").masked(b"Plaintext");
        assert_eq!(masked, [0xbb, 0xf3, 0x16, 0xe8, 0xd9, 0x40, 0xaf, 0x0a, 0xd3]);
    }

    #[test]
    fn what_goes_in_comes_out_whatever_its_length() {
        for length in [0, 1, 65_534, 65_535, 65_536, 200_000] {
            let plain: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
            assert_eq!(unwrapped(&wrapped(&plain)), plain, "{length}");
        }
    }

    #[test]
    fn it_is_known_as_a_container_and_shows_nothing_of_its_content() {
        let cart = wrapped(b"azulite sample line one\n");
        assert!(!cart.windows(7).any(|window| window == b"azulite"));
        let identifier = content::scanner(1, content::CONTENT_MAX_BYTES).and_then(Identifier::load).unwrap();
        assert_eq!(identifier.identify_bytes(&cart).file_format, "archive/cart");
    }
}
