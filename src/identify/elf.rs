//! Is a shared object really a program?
//!
//! Called by `magic`: libmagic calls an ELF file of type DYN an executable when it is one; the engine calls it a shared
//! object. The PIE flag says so; without it, a named interpreter does, unless the file also has the name of a library
//! (libc itself names an interpreter).

const TYPE_DYN: u16 = 3;
const SEGMENT_DYNAMIC: u32 = 2;
const SEGMENT_INTERPRETER: u32 = 3;
const TAG_SONAME: u64 = 14;
const TAG_FLAGS_1: u64 = 0x6fff_fffb;
const FLAG_PIE: u64 = 0x0800_0000;

/// Reads the program headers within `head`; anything malformed or out of reach is `false`.
pub(super) fn is_position_independent_executable(head: &[u8]) -> bool {
    Elf::of(head).is_some_and(|elf| elf.is_program())
}

#[derive(Default)]
struct Dynamic {
    pie: bool,
    soname: bool,
}

struct Elf<'a> {
    bytes: &'a [u8],
    wide: bool,
    little: bool,
}

impl<'a> Elf<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let [0x7f, b'E', b'L', b'F', class, order, ..] = bytes else { return None };
        let elf = Self { bytes, wide: *class == 2, little: *order == 1 };
        let known = matches!(class, 1 | 2) && matches!(order, 1 | 2);
        (known && elf.half(16)? == TYPE_DYN).then_some(elf)
    }

    fn is_program(&self) -> bool {
        let Some((table, size, count)) = self.program_headers() else { return false };
        let mut interpreter = false;
        let mut dynamic = Dynamic::default();
        for at in 0..u64::from(count) {
            let header = table.saturating_add(at * u64::from(size));
            match self.word(header) {
                Some(SEGMENT_INTERPRETER) => interpreter = true,
                Some(SEGMENT_DYNAMIC) => dynamic = self.dynamic(header).unwrap_or_default(),
                Some(_) => {}
                None => break,
            }
        }
        dynamic.pie || (interpreter && !dynamic.soname)
    }

    fn program_headers(&self) -> Option<(u64, u16, u16)> {
        if self.wide {
            Some((self.long(32)?, self.half(54)?, self.half(56)?))
        } else {
            Some((self.word(28)?.into(), self.half(42)?, self.half(44)?))
        }
    }

    /// What the dynamic table of this program header says, as far as it lies within the head.
    fn dynamic(&self, header: u64) -> Option<Dynamic> {
        let (mut at, size) = if self.wide {
            (self.long(header.checked_add(8)?)?, self.long(header.checked_add(32)?)?)
        } else {
            (self.word(header.checked_add(4)?)?.into(), self.word(header.checked_add(16)?)?.into())
        };
        let step = if self.wide { 16 } else { 8 };
        let mut dynamic = Dynamic::default();
        for _ in 0..size / step {
            let Some((tag, value)) = self.entry(at) else { break };
            match tag {
                0 => break,
                TAG_SONAME => dynamic.soname = true,
                TAG_FLAGS_1 => dynamic.pie = value & FLAG_PIE != 0,
                _ => {}
            }
            at = at.checked_add(step)?;
        }
        Some(dynamic)
    }

    fn entry(&self, at: u64) -> Option<(u64, u64)> {
        if self.wide {
            Some((self.long(at)?, self.long(at.checked_add(8)?)?))
        } else {
            Some((self.word(at)?.into(), self.word(at.checked_add(4)?)?.into()))
        }
    }

    fn array<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        self.bytes.get(usize::try_from(at).ok()?..)?.first_chunk::<N>().copied()
    }

    fn half(&self, at: u64) -> Option<u16> {
        self.array(at).map(if self.little { u16::from_le_bytes } else { u16::from_be_bytes })
    }

    fn word(&self, at: u64) -> Option<u32> {
        self.array(at).map(if self.little { u32::from_le_bytes } else { u32::from_be_bytes })
    }

    fn long(&self, at: u64) -> Option<u64> {
        self.array(at).map(if self.little { u64::from_le_bytes } else { u64::from_be_bytes })
    }
}

#[cfg(test)]
#[expect(clippy::as_conversions, reason = "sizes in tests are small")]
mod tests {
    use super::*;

    /// A 64-bit little-endian DYN file with two program headers, the second for a dynamic table.
    fn file(segment: u32, dynamic: &[(u64, u64)]) -> Vec<u8> {
        let mut bytes = vec![0_u8; 176];
        bytes[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        bytes[16] = 3;
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 2;
        bytes[64..68].copy_from_slice(&segment.to_le_bytes());
        bytes[120] = 2;
        bytes[128] = 176;
        bytes[152..160].copy_from_slice(&(dynamic.len() as u64 * 16).to_le_bytes());
        for (tag, value) in dynamic {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        bytes
    }

    fn program(segment: u32, dynamic: &[(u64, u64)]) -> bool {
        is_position_independent_executable(&file(segment, dynamic))
    }

    #[test]
    fn the_pie_flag_or_an_interpreter_without_library_name_makes_a_program() {
        assert!(program(1, &[(1, 2), (TAG_FLAGS_1, FLAG_PIE)]));
        assert!(program(SEGMENT_INTERPRETER, &[]));
        assert!(program(SEGMENT_INTERPRETER, &[(TAG_SONAME, 1), (TAG_FLAGS_1, FLAG_PIE)]));
        assert!(!program(SEGMENT_INTERPRETER, &[(TAG_SONAME, 1)]));
        assert!(!program(1, &[(TAG_FLAGS_1, 1)]));
        assert!(!program(1, &[(0, 0), (TAG_FLAGS_1, FLAG_PIE)]));
        assert!(!program(1, &[]));
    }

    #[test]
    fn broken_headers_are_no_program() {
        let mut whole = file(1, &[(TAG_FLAGS_1, FLAG_PIE)]);
        for cut in 0..whole.len() {
            assert!(!is_position_independent_executable(&whole[..cut]), "{cut}");
        }
        whole[128..136].fill(0xff);
        assert!(!is_position_independent_executable(&whole));
        whole[32..40].fill(0xff);
        whole[56..58].fill(0xff);
        assert!(!is_position_independent_executable(&whole));
    }
}
