//! The codecs of Kafka record batches: bounded decompression, and compression as the Java client does it.
//!
//! Called by [`crate::batch`] only. Decompression never keeps more than the caller's limit, beside a working buffer of
//! the codec (at most 16 MiB, touched only as far as data comes; zstd's window, at most 128 MiB, is touched only as far
//! as it decompresses, so never beyond the limit).

use std::io::{self, Read, Write};

use bytes::{BufMut, BytesMut};
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

/// How the records of a batch are compressed: attribute bits 0 to 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Not at all.
    #[default]
    None,
    /// 1.
    Gzip,
    /// 2: raw, or in the blocks of xerial's Java library.
    Snappy,
    /// 3: the LZ4 frame format.
    Lz4,
    /// 4.
    Zstd,
}

impl Codec {
    /// All of them, by number.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec with this number; `None` above 4.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Its number in the attributes.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Kafka's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Why compressed bytes could not be read.
#[derive(Debug)]
pub(crate) enum DecompressError {
    /// They hold more than the limit.
    TooLarge,
    /// They are not what the codec writes.
    Malformed(String),
}

impl From<io::Error> for DecompressError {
    fn from(error: io::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<snap::Error> for DecompressError {
    fn from(error: snap::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// First bytes of xerial's snappy stream.
const XERIAL_MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
/// Version and oldest compatible version behind the magic.
const XERIAL_VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
/// Plain bytes in one block of a xerial stream, as the Java client has it.
const XERIAL_BLOCK: usize = 32 << 10;
/// Output buffers grow from this.
const FIRST_BYTES: usize = 16 << 10;

/// The plain bytes of `input`, at most `limit` of them.
pub(crate) fn decompress(codec: Codec, input: &[u8], limit: usize) -> Result<Vec<u8>, DecompressError> {
    let mut rest = input;
    let plain = match codec {
        Codec::None => drain(&mut rest, limit)?,
        Codec::Gzip => drain(flate2::bufread::MultiGzDecoder::new(&mut rest), limit)?,
        Codec::Snappy => snappy(std::mem::take(&mut rest), limit)?,
        Codec::Lz4 => drain(FrameDecoder::new(&mut rest), limit)?,
        Codec::Zstd => drain(zstd::stream::read::Decoder::with_buffer(&mut rest)?, limit)?,
    };
    match rest.len() {
        0 => Ok(plain),
        more => Err(DecompressError::Malformed(format!("{more} bytes follow the compressed data"))),
    }
}

/// Reads to the end. The buffer doubles, but never past the limit.
fn drain(mut from: impl Read, limit: usize) -> Result<Vec<u8>, DecompressError> {
    let mut out = Vec::new();
    let mut filled = 0_usize;
    loop {
        if filled == out.len() {
            if filled >= limit {
                return match from.read(&mut [0])? {
                    0 => Ok(out),
                    _ => Err(DecompressError::TooLarge),
                };
            }
            let len = filled.saturating_mul(2).max(FIRST_BYTES).min(limit);
            out.reserve_exact(len - filled);
            out.resize(len, 0);
        }
        match from.read(out.get_mut(filled..).unwrap_or_default())? {
            0 => {
                out.truncate(filled);
                return Ok(out);
            }
            more => filled += more,
        }
    }
}

/// Raw snappy, or a xerial stream of raw blocks with their lengths.
fn snappy(input: &[u8], limit: usize) -> Result<Vec<u8>, DecompressError> {
    let mut out = Vec::new();
    let Some(stream) = input.strip_prefix(&XERIAL_MAGIC) else {
        raw_snappy(input, &mut out, limit)?;
        return Ok(out);
    };
    let cut = || DecompressError::Malformed("snappy stream ends early".to_owned());
    let (_, mut rest) = stream.split_first_chunk::<8>().ok_or_else(cut)?;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        // A stream that was flushed and opened again carries its head once more.
        if length.as_slice() == XERIAL_MAGIC.first_chunk::<4>().map_or(&[][..], |m| &m[..]) {
            rest = rest.strip_prefix(&XERIAL_MAGIC).and_then(|r| r.get(8..)).ok_or_else(cut)?;
            continue;
        }
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| cut())?;
        let (block, after) = after.split_at_checked(length).ok_or_else(cut)?;
        raw_snappy(block, &mut out, limit)?;
        rest = after;
    }
    Ok(out)
}

/// Appends one raw block. What it says of its length is believed only as far as the limit goes.
fn raw_snappy(block: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), DecompressError> {
    let (start, len) = (out.len(), snap::raw::decompress_len(block)?);
    if len > limit.saturating_sub(start) {
        return Err(DecompressError::TooLarge);
    }
    // Snappy gives at most 64 bytes for three: a longer length is a lie, and would cost its memory.
    if len > block.len().saturating_mul(32) {
        return Err(DecompressError::Malformed(format!("snappy block of {} bytes claims {len}", block.len())));
    }
    out.resize(start + len, 0);
    snap::raw::Decoder::new().decompress(block, out.get_mut(start..).unwrap_or_default())?;
    Ok(())
}

/// Appends `plain`, compressed, to `out`.
///
/// # Errors
/// The codec's own failures; writing to memory has none.
pub(crate) fn compress(codec: Codec, plain: &[u8], out: &mut BytesMut) -> io::Result<()> {
    match codec {
        Codec::None => out.put_slice(plain),
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(out.writer(), flate2::Compression::default());
            encoder.write_all(plain)?;
            encoder.finish()?;
        }
        Codec::Snappy => {
            out.put_slice(&XERIAL_MAGIC);
            out.put_slice(&XERIAL_VERSIONS);
            let mut encoder = snap::raw::Encoder::new();
            for block in plain.chunks(XERIAL_BLOCK) {
                let block = encoder.compress_vec(block)?;
                out.put_u32(u32::try_from(block.len()).map_err(io::Error::other)?);
                out.put_slice(&block);
            }
        }
        Codec::Lz4 => {
            // The Java client reads independent blocks only.
            let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
            let mut encoder = FrameEncoder::with_frame_info(info, out.writer());
            encoder.write_all(plain)?;
            encoder.finish().map_err(io::Error::other)?;
        }
        Codec::Zstd => zstd::stream::copy_encode(plain, out.writer(), zstd::DEFAULT_COMPRESSION_LEVEL)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packed(codec: Codec, plain: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        compress(codec, plain, &mut out).unwrap();
        out.to_vec()
    }

    #[test]
    fn numbers_are_kafkas() {
        for (number, name) in (0..).zip(["none", "gzip", "snappy", "lz4", "zstd"]) {
            let codec = Codec::from_number(number).unwrap();
            assert_eq!((codec.number(), codec.name()), (number, name));
        }
        assert_eq!(Codec::from_number(5), None);
    }

    #[test]
    fn the_limit_is_exact_and_a_bomb_is_refused() {
        let plain = vec![7; 3 << 20];
        for codec in Codec::ALL {
            let packed = packed(codec, &plain);
            assert_eq!(decompress(codec, &packed, plain.len()).unwrap(), plain, "{codec}");
            for limit in [0, 1, 1 << 20, plain.len() - 1] {
                let got = decompress(codec, &packed, limit);
                assert!(matches!(got, Err(DecompressError::TooLarge)), "{codec} {limit}: got {got:?}");
            }
        }
    }

    #[test]
    fn a_snappy_length_that_its_block_cannot_hold_costs_nothing() {
        let liar = b"\xff\xff\xff\xff\x07\0a";
        let got = decompress(Codec::Snappy, liar, 1 << 30);
        assert!(matches!(got, Err(DecompressError::TooLarge)), "got {got:?}");
        let liar = b"\xff\xff\xff\x7f\0a";
        let got = decompress(Codec::Snappy, liar, 1 << 30);
        assert!(matches!(&got, Err(DecompressError::Malformed(why)) if why.contains("claims")), "got {got:?}");
    }

    #[test]
    fn bytes_behind_the_compressed_data_are_refused() {
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let longer = [&packed(codec, b"plain text")[..], b"more"].concat();
            let got = decompress(codec, &longer, 1000);
            assert!(matches!(got, Err(DecompressError::Malformed(_))), "{codec}: got {got:?}");
        }
    }

    #[test]
    fn parts_written_one_after_another_are_read_together() {
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Zstd] {
            let twice = [packed(codec, b"one "), packed(codec, b"two")].concat();
            assert_eq!(&decompress(codec, &twice, 7).unwrap()[..], b"one two", "{codec}");
        }
    }

    proptest! {
        #[test]
        fn what_is_compressed_comes_back_and_cut_or_foreign_bytes_never_panic(
            plain in proptest::collection::vec(0_u8..4, 0..100_000), noise in proptest::collection::vec(any::<u8>(), 0..200),
            cut in any::<prop::sample::Index>()) {
            for codec in Codec::ALL {
                let packed = packed(codec, &plain);
                prop_assert_eq!(&decompress(codec, &packed, plain.len()).unwrap()[..], &plain[..]);
                let cut = &packed[..cut.index(packed.len() + 1)];
                if let Ok(got) = decompress(codec, cut, plain.len()) {
                    prop_assert!(plain.starts_with(&got));
                }
                for prefix in [&[][..], &packed[..packed.len().min(8)], &packed[..packed.len().min(16)]] {
                    let bytes = [prefix, &noise].concat();
                    if let Ok(got) = decompress(codec, &bytes, 1 << 16) {
                        prop_assert!(got.len() <= 1 << 16);
                    }
                }
            }
        }
    }
}
