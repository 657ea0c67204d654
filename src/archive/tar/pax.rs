//! Records of a pax extended header: `length key=value` lines.

use super::sparse::Map;

/// What an extended header says about the next entry.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) sparse: Sparse,
}

/// `GNU.sparse.*`.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    pub(super) major: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    pub(super) map: Map,
    /// A place of format 0.0 that waits for its length.
    place: Option<u64>,
}

impl Pax {
    /// # Errors
    ///
    /// The records cannot be told apart, or a number is none.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let refused = || "pax header is corrupt".to_owned();
        let mut pax = Self::default();
        let mut rest = bytes;
        while !rest.is_empty() && rest.first() != Some(&0) {
            let blank = memchr::memchr(b' ', rest).filter(|at| *at < 20).ok_or_else(refused)?;
            let len =
                rest.get(..blank).and_then(decimal).and_then(|len| usize::try_from(len).ok()).ok_or_else(refused)?;
            let (record, after) = rest.split_at_checked(len).ok_or_else(refused)?;
            let record = record.get(blank.saturating_add(1)..).and_then(|text| text.strip_suffix(b"\n"));
            let record = record.ok_or_else(refused)?;
            let equals = memchr::memchr(b'=', record).ok_or_else(refused)?;
            let (key, value) = record.split_at_checked(equals).ok_or_else(refused)?;
            pax.note(key, value.get(1..).unwrap_or_default()).ok_or_else(refused)?;
            rest = after;
        }
        Ok(pax)
    }

    fn note(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.path = Some(value.to_vec()).filter(|path| !path.is_empty()),
            b"size" => self.size = Some(decimal(value)?),
            b"GNU.sparse.major" => self.sparse.major = Some(decimal(value)?),
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = Some(decimal(value)?),
            b"GNU.sparse.offset" => self.sparse.place = Some(decimal(value)?),
            b"GNU.sparse.numbytes" => {
                let place = self.sparse.place.take()?;
                self.sparse.map.push(place, decimal(value)?)?;
            }
            b"GNU.sparse.map" => {
                let mut numbers = value.split(|byte| *byte == b',');
                while let Some(place) = numbers.next() {
                    self.sparse.map.push(decimal(place)?, decimal(numbers.next()?)?)?;
                }
            }
            _ => {}
        }
        Some(())
    }
}

/// A decimal number that a file can have as its length.
pub(super) fn decimal(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|value| digits && i64::try_from(*value).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read() {
        let pax = Pax::parse(b"14 path=a/b/c\n12 size=123\n21 comment=some=text\n").unwrap();
        assert_eq!((pax.path.as_deref(), pax.size), (Some(&b"a/b/c"[..]), Some(123)));
    }

    #[test]
    fn records_that_lie_are_refused() {
        for bad in
            [&b"99 path=a\n"[..], b"x path=a\n", b"9 path=ab", b"11 size=-1\n", b"3 \n", b"0 path=a\n", b"path=a\n"]
        {
            assert!(Pax::parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }
}
