//! The `Range` header: exactly one range of bytes. Spec: streams.md 2.

/// A range as asked for, before the size of the blob is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// From a byte to another one, inclusive.
    FromTo(u64, u64),
    /// From a byte to the end.
    From(u64),
    /// The last bytes; never 0.
    Last(u64),
}

/// Why a header was not understood; the texts are those clients see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Another unit, or none.
    #[error("invalid range (no bytes= prefix)")]
    NoPrefix,
    /// More than one range.
    #[error("invalid range (multiple not supported)")]
    Multiple,
    /// More than one minus sign.
    #[error("invalid range (relative with range not supported)")]
    RelativeWithRange,
    /// No minus sign, nothing but one, or the last 0 bytes.
    #[error("invalid range (no range)")]
    NoRange,
    /// The start is not a number.
    #[error("invalid range (non numeric)")]
    NonNumeric,
    /// The end is not a number, or lies before the start.
    #[error("invalid range (invalid end)")]
    InvalidEnd,
}

/// The range starts at or after the end of the blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AfterEnd {
    /// Size of the blob.
    pub size: u64,
}

impl Range {
    /// Reads a header value; the empty one asks for everything.
    ///
    /// # Errors
    /// [`RangeError`].
    pub fn parse(header: &str) -> Result<Option<Self>, RangeError> {
        if header.is_empty() {
            return Ok(None);
        }
        let range = header.strip_prefix("bytes=").ok_or(RangeError::NoPrefix)?;
        if range.contains(',') {
            return Err(RangeError::Multiple);
        }
        let (start, end) = range.split_once('-').ok_or(RangeError::NoRange)?;
        if end.contains('-') {
            return Err(RangeError::RelativeWithRange);
        }
        let (start, end) = (start.trim(), end.trim());
        let end_number = || number(end).ok_or(RangeError::InvalidEnd);
        let range = match (start.is_empty(), end.is_empty()) {
            (true, true) => return Err(RangeError::NoRange),
            (true, false) => match end_number()? {
                0 => return Err(RangeError::NoRange),
                last => Self::Last(last),
            },
            (false, true) => Self::From(number(start).ok_or(RangeError::NonNumeric)?),
            (false, false) => {
                let start = number(start).ok_or(RangeError::NonNumeric)?;
                let end = end_number()?;
                if start > end {
                    return Err(RangeError::InvalidEnd);
                }
                Self::FromTo(start, end)
            }
        };
        Ok(Some(range))
    }

    /// First byte and number of bytes in a blob of `size` bytes, cut to its end.
    ///
    /// # Errors
    /// [`AfterEnd`].
    pub fn within(self, size: u64) -> Result<(u64, u64), AfterEnd> {
        let (first, end) = match self {
            Self::FromTo(first, last) => (first, last.saturating_add(1).min(size)),
            Self::From(first) => (first, size),
            Self::Last(count) => (size.saturating_sub(count), size),
        };
        if first >= size && first > 0 {
            return Err(AfterEnd { size });
        }
        Ok((first, end - first))
    }
}

fn number(text: &str) -> Option<u64> {
    u64::try_from(text.parse::<i64>().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_contract_reads_as_it_says() {
        for (header, first, length) in [
            ("bytes=0-6", 0, 7),
            ("bytes=5-", 5, 7),
            ("bytes=-3", 9, 3),
            ("bytes=-50", 0, 12),
            ("bytes=10-99", 10, 2),
            ("bytes= 2 - 4 ", 2, 3),
            ("bytes=0-", 0, 12),
            ("bytes=11-11", 11, 1),
        ] {
            let range = Range::parse(header).unwrap().unwrap();
            assert_eq!(range.within(12), Ok((first, length)), "{header}");
        }
        assert_eq!(Range::parse(""), Ok(None));
    }

    #[test]
    fn every_refusal_has_its_own_text() {
        use RangeError::{InvalidEnd, Multiple, NoPrefix, NoRange, NonNumeric, RelativeWithRange};
        for (header, want) in [
            ("0-6", NoPrefix),
            ("Bytes=0-6", NoPrefix),
            ("bytes 0-6", NoPrefix),
            (" bytes=0-6", NoPrefix),
            ("bytes=0-1,3-4", Multiple),
            ("bytes=-1-4", RelativeWithRange),
            ("bytes=1--4", RelativeWithRange),
            ("bytes=", NoRange),
            ("bytes=5", NoRange),
            ("bytes=-", NoRange),
            ("bytes= - ", NoRange),
            ("bytes=-0", NoRange),
            ("bytes=a-5", NonNumeric),
            ("bytes=a-", NonNumeric),
            ("bytes=99999999999999999999-", NonNumeric),
            ("bytes=1-b", InvalidEnd),
            ("bytes=-b", InvalidEnd),
            ("bytes=5-4", InvalidEnd),
            ("bytes=0-99999999999999999999", InvalidEnd),
        ] {
            assert_eq!(Range::parse(header), Err(want), "{header}");
        }
    }

    #[test]
    fn a_start_at_or_after_the_end_is_refused() {
        for header in ["bytes=12-", "bytes=13-", "bytes=12-12", "bytes=9223372036854775807-"] {
            assert_eq!(Range::parse(header).unwrap().unwrap().within(12), Err(AfterEnd { size: 12 }), "{header}");
        }
    }
}
