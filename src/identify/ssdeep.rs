//! The classic ssdeep digest, flags 0: `block:part1:part2` (streams.md 7).
//!
//! Called by `digest`. Written here because the permissively licensed crate fails beyond 3 GiB and takes about three times
//! as long; it is the oracle of the tests.
//!
//! How it works: a rolling sum over the last seven bytes triggers at positions that depend on the content alone. For
//! every block size 3, 6, 12, ... a running hash over the bytes since the last trigger gives one character per trigger.
//! Of each hash only the low six bits are ever printed, and they depend on nothing but themselves and the input:
//! so a state is one byte, and eight block sizes advance at once in one `u64`.

/// Smallest block size.
const MIN_BLOCK: u32 = 3;
/// Number of block sizes: 3 << 0 to 3 << 30.
const LEVELS: usize = 31;
/// Longest part of a digest.
const PART_LEN: usize = 64;
/// Longest second part of a digest.
const HALF_LEN: usize = PART_LEN / 2;
/// Low six bits of the hash's start value 0x28021967.
const HASH_INIT: u8 = 0x27;
/// Inputs above this have no digest: 192 GiB.
pub(super) const MAX_SIZE: u64 = (3 << 30) * 64;

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Streaming state; about 3 KiB.
#[derive(Clone)]
pub(super) struct Ssdeep {
    size: u64,
    roll: Roll,
    /// Smallest block size still of interest, as a level.
    first: usize,
    /// One past the largest block size that has seen a trigger below it.
    end: usize,
    /// Running hashes of the levels from `first` on, one byte each.
    hashes: [Lanes; 4],
    levels: [Level; LEVELS],
    /// Hash since the last trigger of the largest level, needed once a 32nd level would be.
    beyond: Option<u8>,
}

/// Running hashes of eight levels.
#[derive(Clone, Copy)]
struct Lanes {
    /// Since the last trigger.
    whole: u64,
    /// The same, but no longer started anew once the part is half full: for the second part.
    half: u64,
}

#[derive(Clone, Copy)]
struct Level {
    /// Characters so far. The one at `len` is set by a trigger that found the part full.
    text: [u8; PART_LEN],
    len: usize,
    /// The character of the last trigger, for the second part; 0 before it matters.
    half: u8,
}

const EMPTY_LEVEL: Level = Level { text: [0; PART_LEN], len: 0, half: 0 };

/// Rolling sum over the last seven bytes.
#[derive(Clone, Copy, Default)]
struct Roll {
    sum: u32,
    weighted: u32,
    shifted: u32,
    /// The last eight bytes, newest lowest.
    window: u64,
}

impl Roll {
    #[inline(always)]
    fn push(&mut self, byte: u8) {
        let new = u32::from(byte);
        let old = u32::from(self.window.to_be_bytes()[1]);
        self.weighted = self.weighted.wrapping_sub(self.sum).wrapping_add(7 * new);
        self.sum = self.sum.wrapping_add(new).wrapping_sub(old);
        self.window = self.window << 8 | u64::from(byte);
        self.shifted = self.shifted << 5 ^ new;
    }

    #[inline(always)]
    fn value(self) -> u32 {
        self.sum.wrapping_add(self.weighted).wrapping_add(self.shifted)
    }
}

/// One byte in all eight lanes.
const fn spread(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Each lane: times 0x01000193, xor the byte, modulo 64. 0x01000193 is 19 modulo 64; the lanes stay below 256.
#[inline(always)]
fn advance(lanes: u64, byte: u64) -> u64 {
    let times_16 = (lanes & spread(0x03)) << 4;
    let times_19 = times_16 + (lanes << 1) + lanes;
    (times_19 ^ byte) & spread(0x3f)
}

impl Ssdeep {
    pub(super) fn new() -> Self {
        let start = Lanes { whole: spread(HASH_INIT), half: spread(HASH_INIT) };
        Self {
            size: 0,
            roll: Roll::default(),
            first: 0,
            end: 1,
            hashes: [start; 4],
            levels: [EMPTY_LEVEL; LEVELS],
            beyond: None,
        }
    }

    pub(super) fn update(&mut self, mut data: &[u8]) {
        self.size = self.size.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        while !data.is_empty() {
            // The number of words changes only at a trigger that adds or drops a level.
            let done = match (self.end - self.first).div_ceil(8) {
                _ if self.beyond.is_some() => self.run::<4>(data),
                0 | 1 => self.run::<1>(data),
                2 => self.run::<2>(data),
                _ => self.run::<4>(data),
            };
            data = data.get(done..).unwrap_or_default();
        }
    }

    /// Hashes with `WORDS` words of lanes until a trigger changed the set of levels; how many bytes that took.
    fn run<const WORDS: usize>(&mut self, data: &[u8]) -> usize {
        let mut roll = self.roll;
        let [a, b, c, d] = self.hashes;
        let mut lanes = [a, b, c, d];
        let mut mask = (1_u32 << self.first) - 1;
        let mut levels = self.shape();
        for (at, &byte) in data.iter().enumerate() {
            roll.push(byte);
            let wide = spread(0x01) * u64::from(byte & 0x3f);
            for word in lanes.iter_mut().take(WORDS) {
                word.whole = advance(word.whole, wide);
                word.half = advance(word.half, wide);
            }
            if WORDS == 4
                && let Some(hash) = &mut self.beyond
            {
                *hash = (hash.wrapping_mul(19) ^ byte) & 0x3f;
            }
            // A trigger of level n: 3 << n divides the sum plus one.
            let sum = roll.value().wrapping_add(1);
            if sum & mask != 0 || !sum.is_multiple_of(MIN_BLOCK) || sum == 0 {
                continue;
            }
            self.hashes = lanes;
            self.trigger(sum / MIN_BLOCK);
            lanes = self.hashes;
            if levels != self.shape() {
                levels = self.shape();
                mask = (1_u32 << self.first) - 1;
                if (self.end - self.first).div_ceil(8) != WORDS || self.beyond.is_some() {
                    self.roll = roll;
                    return at + 1;
                }
            }
        }
        self.roll = roll;
        self.hashes = lanes;
        data.len()
    }

    /// What the inner loop is specialised for.
    fn shape(&self) -> (usize, usize, bool) {
        (self.first, self.end, self.beyond.is_some())
    }

    /// Notes one character in every level whose block size divides; `thirds` is the sum plus one, divided by three.
    #[cold]
    fn trigger(&mut self, thirds: u32) {
        let last = usize::try_from(thirds.trailing_zeros()).unwrap_or(0);
        let mut at = self.first;
        while at < self.end && at <= last {
            if self.levels.get(at).is_some_and(|level| level.len == 0) {
                self.fork();
            }
            let (whole, half) = (self.lane(at).0, self.lane(at).1);
            let Some(level) = self.levels.get_mut(at) else { return };
            if let Some(place) = level.text.get_mut(level.len) {
                *place = printed(whole);
            }
            level.half = printed(half);
            if level.len < PART_LEN - 1 {
                level.len += 1;
                let restart_half = level.len < HALF_LEN;
                if restart_half {
                    level.half = 0;
                }
                self.set_lane(at, HASH_INIT, if restart_half { HASH_INIT } else { half });
            } else {
                self.reduce();
            }
            at += 1;
        }
    }

    /// The next larger block size begins with what the largest one has seen.
    fn fork(&mut self) {
        let (whole, half) = self.lane(self.end - 1);
        if self.end < LEVELS {
            self.set_lane(self.end, whole, half);
            self.end += 1;
        } else if self.beyond.is_none() {
            self.beyond = Some(whole);
        }
    }

    /// Gives up the smallest block size when it can no longer be the one that is printed.
    fn reduce(&mut self) {
        if self.end - self.first < 2 || block(self.first) * 64 >= self.size {
            return;
        }
        if self.levels.get(self.first + 1).is_none_or(|next| next.len < HALF_LEN) {
            return;
        }
        self.first += 1;
        let [a, b, c, d] = self.hashes;
        let shifted = |low: Lanes, high: Lanes| Lanes {
            whole: low.whole >> 8 | high.whole << 56,
            half: low.half >> 8 | high.half << 56,
        };
        self.hashes = [shifted(a, b), shifted(b, c), shifted(c, d), shifted(d, a)];
    }

    /// Both hashes of a level. Lane 0 is the level `first`.
    fn lane(&self, level: usize) -> (u8, u8) {
        let lane = level.saturating_sub(self.first);
        let byte = |word: u64| word.to_le_bytes().get(lane % 8).copied().unwrap_or(HASH_INIT);
        self.hashes.get(lane / 8).map_or((HASH_INIT, HASH_INIT), |word| (byte(word.whole), byte(word.half)))
    }

    fn set_lane(&mut self, level: usize, whole: u8, half: u8) {
        let Some(lane) = level.checked_sub(self.first) else { return };
        let put = |word: &mut u64, value: u8| {
            let mut bytes = word.to_le_bytes();
            if let Some(byte) = bytes.get_mut(lane % 8) {
                *byte = value;
            }
            *word = u64::from_le_bytes(bytes);
        };
        if let Some(word) = self.hashes.get_mut(lane / 8) {
            put(&mut word.whole, whole);
            put(&mut word.half, half);
        }
    }

    /// The digest, or `None` for an input larger than ssdeep can describe (192 GiB).
    pub(super) fn finish(&self) -> Option<String> {
        if self.size > MAX_SIZE {
            return None;
        }
        let mut chosen = self.first;
        while block(chosen) * 64 < self.size {
            chosen += 1;
        }
        chosen = chosen.min(self.end - 1);
        while chosen > self.first && self.levels.get(chosen).is_some_and(|level| level.len < HALF_LEN) {
            chosen -= 1;
        }
        let level = self.levels.get(chosen)?;
        let open = self.roll.value() != 0;
        let mut out = format!("{}:", block(chosen)).into_bytes();
        out.extend(level.text.get(..level.len)?);
        let at_end = level.text.get(level.len).copied().unwrap_or(0);
        out.extend(last_character(open, self.lane(chosen).0, at_end));
        out.push(b':');
        if chosen + 1 < self.end {
            let next = self.levels.get(chosen + 1)?;
            out.extend(next.text.get(..next.len.min(HALF_LEN - 1))?);
            out.extend(last_character(open, self.lane(chosen + 1).1, next.half));
        } else if open {
            out.push(printed(if chosen == 0 { self.lane(chosen).0 } else { self.beyond? }));
        }
        String::from_utf8(out).ok()
    }
}

/// What closes a part: the bytes since the last trigger, or, right at a trigger, what that one left behind.
fn last_character(open: bool, hash: u8, left_behind: u8) -> Option<u8> {
    if open { Some(printed(hash)) } else { (left_behind != 0).then_some(left_behind) }
}

fn printed(hash: u8) -> u8 {
    BASE64.get(usize::from(hash & 0x3f)).copied().unwrap_or(b'A')
}

/// Block size of a level.
fn block(level: usize) -> u64 {
    u64::from(MIN_BLOCK) << level
}
