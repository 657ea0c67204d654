//! One block of a tar archive that describes what follows it.

pub(crate) const BLOCK: usize = 512;

pub(crate) type Block = [u8; BLOCK];

/// The fields that matter here.
pub(super) struct Header<'a> {
    block: &'a Block,
}

impl<'a> Header<'a> {
    /// `None` when the checksum differs: no header.
    ///
    /// Old writers summed signed bytes; both sums are good.
    pub(super) fn parse(block: &'a Block) -> Option<Self> {
        let header = Self { block };
        let wanted = octal(header.field(148, 8)).ok()?;
        let (mut plain, mut signed) = (0_i64, 0_i64);
        for (at, byte) in block.iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { *byte };
            plain += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        let wanted = i64::try_from(wanted).ok()?;
        (wanted == plain || wanted == signed).then_some(header)
    }

    fn field(&self, at: usize, len: usize) -> &'a [u8] {
        self.block.get(at..).and_then(|rest| rest.get(..len)).unwrap_or_default()
    }

    pub(super) fn kind(&self) -> u8 {
        self.field(156, 1).first().copied().unwrap_or_default()
    }

    /// ustar and pax have a prefix; GNU keeps other things there.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = until_nul(self.field(0, 100));
        let prefix = until_nul(self.field(345, 155));
        if self.field(257, 6) == b"ustar\0" && !prefix.is_empty() {
            [prefix, b"/", name].concat()
        } else {
            name.to_vec()
        }
    }

    /// # Errors
    ///
    /// Not a number, negative, or beyond what a file can have.
    pub(super) fn size(&self) -> Result<u64, String> {
        number(self.field(124, 12))
    }

    /// The length of an old GNU sparse file with its holes.
    pub(super) fn real_size(&self) -> Result<u64, String> {
        number(self.field(483, 12))
    }

    /// The first pairs (place, length) of an old GNU sparse file, and whether more blocks of them follow.
    pub(super) fn sparse(&self) -> Result<(Vec<(u64, u64)>, bool), String> {
        Ok((pairs(self.field(386, 96))?, self.field(482, 1) != [0]))
    }

    /// Whether this is the head of a file in an archive, not only a block whose sum fits.
    pub(super) fn is_plausible(&self) -> bool {
        self.field(257, 5) == b"ustar"
            || (self.field(0, 1) != [0] && octal(self.field(100, 8)).is_ok() && self.size().is_ok())
    }
}

/// The pairs in a block that extends an old GNU sparse header, and whether another follows.
pub(super) fn more_pairs(block: &Block) -> Result<(Vec<(u64, u64)>, bool), String> {
    Ok((pairs(block.get(..504).unwrap_or_default())?, block.get(504).is_some_and(|more| *more != 0)))
}

fn pairs(bytes: &[u8]) -> Result<Vec<(u64, u64)>, String> {
    let mut pairs = Vec::new();
    for pair in bytes.chunks_exact(24) {
        let Some((place, len)) = pair.split_at_checked(12) else { break };
        if place.first() == Some(&0) {
            break;
        }
        pairs.push((number(place)?, number(len)?));
    }
    Ok(pairs)
}

/// Octal digits, or with the first bit set a big-endian number.
fn number(field: &[u8]) -> Result<u64, String> {
    let refused = || "tar header: size is no length of a file".to_owned();
    let Some((first, rest)) = field.split_first().filter(|(first, _)| *first & 0x80 != 0) else {
        return octal(field).ok().filter(|size| i64::try_from(*size).is_ok()).ok_or_else(refused);
    };
    // The second bit is the sign.
    if first & 0x40 != 0 {
        return Err(refused());
    }
    let high = u64::from(first & 0x3f);
    let value = rest.iter().try_fold(high, |value, byte| Some(value.checked_mul(256)? + u64::from(*byte)));
    value.filter(|size| i64::try_from(*size).is_ok()).ok_or_else(refused)
}

/// Octal digits between blanks; nothing is 0.
fn octal(field: &[u8]) -> Result<u64, ()> {
    let blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let digits = field.iter().skip_while(|byte| blank(byte));
    let mut value = 0_u64;
    for byte in digits {
        match byte {
            b'0'..=b'7' => value = value.checked_mul(8).ok_or(())? + u64::from(byte - b'0'),
            b' ' | 0 => break,
            _ => return Err(()),
        }
    }
    Ok(value)
}

pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary_and_never_negative() {
        assert_eq!(number(b"00000000017\0"), Ok(15));
        assert_eq!(number(b"    17 \0\0\0\0\0"), Ok(15));
        assert_eq!(number(&[0; 12]), Ok(0));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]), Ok(256));
        for bad in [&[0xff; 12][..], &[0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], b"0000000008x\0"] {
            assert!(number(bad).is_err(), "{bad:?}");
        }
        assert!(number(&[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(number(&[0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
