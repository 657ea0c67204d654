//! The two encryptions of zip: ZipCrypto (APPNOTE 6.1) and WinZip's AES (AE-1, AE-2).

use std::io::{self, BufReader, Read};
use std::sync::LazyLock;

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use hmac::{Hmac, Mac};
use sha1::Sha1;

use super::directory::Entry;
use super::fields::u16_at;

const PIECE: usize = 64 << 10;
const ROUNDS: u32 = 1000;
const VERIFIER: usize = 2;
const CODE: usize = 10;

static CRC_TABLE: LazyLock<[u32; 256]> = LazyLock::new(|| {
    std::array::from_fn(|at| {
        let shift = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        (0..8).fold(u32::try_from(at).unwrap_or_default(), shift)
    })
});

fn crc_step(crc: u32, byte: u8) -> u32 {
    let [low, ..] = crc.to_le_bytes();
    (crc >> 8) ^ CRC_TABLE.get(usize::from(low ^ byte)).copied().unwrap_or_default()
}

/// The three keys of ZipCrypto.
#[derive(Clone)]
struct Keys(u32, u32, u32);

impl Keys {
    fn new(password: &[u8]) -> Self {
        let mut keys = Self(0x1234_5678, 0x2345_6789, 0x3456_7890);
        password.iter().for_each(|byte| keys.update(*byte));
        keys
    }

    fn update(&mut self, byte: u8) {
        self.0 = crc_step(self.0, byte);
        self.1 = self.1.wrapping_add(self.0 & 0xff).wrapping_mul(134_775_813).wrapping_add(1);
        self.2 = crc_step(self.2, self.1.to_be_bytes()[0]);
    }

    fn decrypt(&mut self, byte: u8) -> u8 {
        let temp = (self.2 | 2) & 0xffff;
        let [_, mask, ..] = temp.wrapping_mul(temp ^ 1).to_le_bytes();
        let plain = byte ^ mask;
        self.update(plain);
        plain
    }
}

struct ZipCryptoReader<'z> {
    rest: &'z [u8],
    keys: Keys,
}

impl Read for ZipCryptoReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.rest.read(out)?;
        for byte in out.iter_mut().take(got) {
            *byte = self.keys.decrypt(*byte);
        }
        Ok(got)
    }
}

/// The plain bytes of `data` when the password's one check byte fits, as 1 of 256 wrong ones does.
pub(super) fn zipcrypto<'z>(
    data: &'z [u8],
    entry: &Entry<'_>,
    password: &[u8],
) -> Option<BufReader<impl Read + use<'z>>> {
    let (head, rest) = data.split_first_chunk::<12>()?;
    let mut keys = Keys::new(password);
    let last = head.iter().fold(0, |_, byte| keys.decrypt(*byte));
    let [.., by_crc] = entry.crc.to_le_bytes();
    let [_, by_time] = entry.time.to_le_bytes();
    // With sizes behind the data the checksum was not known yet; some writers take it all the same.
    let fits = last == by_crc || (entry.flags & 8 != 0 && last == by_time);
    fits.then(|| BufReader::with_capacity(PIECE, ZipCryptoReader { rest, keys }))
}

/// What an entry of method 99 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AesField {
    /// AE-2 has no checksum.
    pub(super) has_crc: bool,
    /// 16, 24 or 32.
    key_len: usize,
    pub(super) method: u16,
}

impl AesField {
    pub(super) fn of(entry: &Entry<'_>) -> Option<Self> {
        let field = entry.extra(0x9901)?;
        let key_len = match field.get(4)? {
            1 => 16,
            2 => 24,
            3 => 32,
            _ => return None,
        };
        Some(Self { has_crc: u16_at(field, 0)? == 1, key_len, method: u16_at(field, 5)? })
    }
}

/// Bytes that a password opens.
pub(super) struct AesOpened<'z> {
    pub(super) plain: BufReader<AesReader<'z>>,
    /// The authentication code is right: neither the password nor the bytes are wrong.
    pub(super) authentic: bool,
}

/// The plain bytes of `data` when the password's two check bytes fit, as 1 of 65536 wrong ones does.
///
/// `cut`: the end is missing, and with it the authentication code.
pub(super) fn aes<'z>(data: &'z [u8], field: AesField, cut: bool, password: &[u8]) -> Option<AesOpened<'z>> {
    let (salt, rest) = data.split_at_checked(field.key_len / 2)?;
    let (verifier, rest) = rest.split_first_chunk::<VERIFIER>()?;
    let mut derived = [0; 2 * 32 + VERIFIER];
    let derived = derived.get_mut(..2 * field.key_len + VERIFIER)?;
    pbkdf2::pbkdf2_hmac::<Sha1>(password, salt, ROUNDS, derived);
    let (key, rest_of_keys) = derived.split_at_checked(field.key_len)?;
    let (mac_key, wanted) = rest_of_keys.split_at_checked(field.key_len)?;
    if wanted != verifier {
        return None;
    }
    let packed_len = if cut { rest.len() } else { rest.len().checked_sub(CODE)? };
    let (packed, code) = rest.split_at_checked(packed_len)?;
    let mut mac = <Hmac<Sha1> as KeyInit>::new_from_slice(mac_key).ok()?;
    mac.update(packed);
    let authentic = !cut && mac.verify_truncated_left(code).is_ok();
    let reader = AesReader { rest: packed, cipher: Cipher::new(key)?, counter: 0 };
    Some(AesOpened { plain: BufReader::with_capacity(PIECE, reader), authentic })
}

enum Cipher {
    Aes128(Box<aes::Aes128>),
    Aes192(Box<aes::Aes192>),
    Aes256(Box<aes::Aes256>),
}

impl Cipher {
    fn new(key: &[u8]) -> Option<Self> {
        match key.len() {
            16 => Some(Self::Aes128(Box::new(aes::Aes128::new_from_slice(key).ok()?))),
            24 => Some(Self::Aes192(Box::new(aes::Aes192::new_from_slice(key).ok()?))),
            _ => Some(Self::Aes256(Box::new(aes::Aes256::new_from_slice(key).ok()?))),
        }
    }

    fn mask(&self, counter: u128) -> aes::Block {
        let mut block = aes::Block::from(counter.to_le_bytes());
        match self {
            Self::Aes128(cipher) => cipher.encrypt_block(&mut block),
            Self::Aes192(cipher) => cipher.encrypt_block(&mut block),
            Self::Aes256(cipher) => cipher.encrypt_block(&mut block),
        }
        block
    }
}

/// Counter mode with a little-endian counter that begins at 1.
pub(super) struct AesReader<'z> {
    rest: &'z [u8],
    cipher: Cipher,
    counter: u128,
}

impl Read for AesReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        // Whole blocks only, but for the last one; the buffer around this reader asks for 64 KiB.
        let whole = if out.len() >= 16 { out.len() & !15 } else { return Err(io::ErrorKind::InvalidInput.into()) };
        let out = out.get_mut(..whole).unwrap_or_default();
        let got = self.rest.read(out)?;
        for block in out.get_mut(..got).unwrap_or_default().chunks_mut(16) {
            self.counter += 1;
            let mask = self.cipher.mask(self.counter);
            block.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
        }
        Ok(got)
    }
}
