//! How an existing store of the upstream service keeps its bytes: the fixed XOR mask and AES-256 in counter mode.
//!
//! Nothing is written this way, only read. Spec: streams.md 5.3 and 5.4.

use aes_gcm::aes::Aes256;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};

/// The key of the mask, the same in every installation.
const XOR_KEY: &[u8; 16] = b"iloveazul1234567";
/// Bytes in front of what is encrypted: salt and first counter.
pub const AES_HEADER: usize = 24;

/// Masks or unmasks bytes that begin at `position` of the blob.
pub fn xor(bytes: &mut [u8], position: u64) {
    // Below 16, so it fits.
    let skip = usize::try_from(position % 16).unwrap_or(0);
    bytes.iter_mut().zip(XOR_KEY.iter().cycle().skip(skip)).for_each(|(byte, key)| *byte ^= key);
}

/// The key stream of one encrypted blob.
#[derive(Clone)]
pub struct AesStream {
    key: [u8; 32],
    counter: [u8; 16],
}

impl std::fmt::Debug for AesStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AesStream")
    }
}

impl AesStream {
    /// The stream of a blob whose first [`AES_HEADER`] bytes are `header`. Nothing tells whether the key is the right one.
    #[must_use]
    pub fn new(key: &[u8; 24], header: &[u8; AES_HEADER]) -> Self {
        let (salt, counter) = header.split_at(8);
        let mut stream = Self { key: [0; 32], counter: [0; 16] };
        stream.key.iter_mut().zip(key.iter().chain(salt)).for_each(|(to, from)| *to = *from);
        stream.counter.copy_from_slice(counter);
        stream
    }

    /// Decrypts bytes that begin at `position` of the blob, without its header.
    pub fn apply(&self, bytes: &mut [u8], position: u64) {
        // The counter wraps at 128 bits, as upstream's does.
        let counter = u128::from_be_bytes(self.counter).wrapping_add(u128::from(position / 16));
        let mut cipher = Ctr128BE::<Aes256>::new(&self.key.into(), &counter.to_be_bytes().into());
        cipher.seek(position % 16);
        cipher.apply_keystream(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &[u8] = b"attack at dawn!\n";

    fn hex(text: &str) -> Vec<u8> {
        text.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn stream(counter: &str) -> AesStream {
        let header: [u8; AES_HEADER] = hex(&format!("0001020304050607{counter}")).try_into().unwrap();
        AesStream::new(b"abcdefghijklmnopqrstuvwx", &header)
    }

    #[test]
    fn the_published_vectors() {
        let mut bytes = PLAIN.to_vec();
        xor(&mut bytes, 0);
        assert_eq!(bytes, hex("08181b17060a5a1418115652435b173d"));
        let mut bytes = PLAIN.to_vec();
        stream("101112131415161718191a1b1c1d1e1f").apply(&mut bytes, 0);
        assert_eq!(bytes, hex("fda2c0660ccef9febfe6f3f342c229d8"));
    }

    #[test]
    fn any_part_decodes_as_it_does_in_the_whole() {
        let plain: Vec<u8> = (0..=255).collect();
        for counter in ["101112131415161718191a1b1c1d1e1f", "ffffffffffffffffffffffffffffffff"] {
            let (mut masked, mut encrypted) = (plain.clone(), plain.clone());
            xor(&mut masked, 0);
            stream(counter).apply(&mut encrypted, 0);
            for from in 0..plain.len() {
                let to = plain.len().min(from + 37);
                let (mut a, mut b) = (masked[from..to].to_vec(), encrypted[from..to].to_vec());
                xor(&mut a, u64::try_from(from).unwrap());
                stream(counter).apply(&mut b, u64::try_from(from).unwrap());
                assert_eq!((a.as_slice(), b.as_slice()), (&plain[from..to], &plain[from..to]), "{counter} from {from}");
            }
        }
    }
}
