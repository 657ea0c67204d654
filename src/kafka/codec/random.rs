//! Random messages for tests: whatever a version can say, and nothing it cannot.

use bytes::Bytes;

use super::{Field, Layout, Nullable, Records, Str, Uuid};
use crate::kafka::error::ErrorCode;

/// A small generator (splitmix64) with a seed that a failing test can name.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(len).collect()
    }

    /// Mostly short; sometimes past the sizes where a length or the writer changes its ways.
    fn length(&mut self) -> usize {
        match self.below(60) {
            0 => self.below(200),
            1 => self.below(3000),
            _ => self.below(12),
        }
    }
}

/// A random value that survives a round trip at the layout's version.
pub(crate) trait Random {
    fn random(rng: &mut Rng, layout: Layout) -> Self;
}

macro_rules! numbers {
    ($($ty:ty),*) => { $(
        impl Random for $ty {
            fn random(rng: &mut Rng, _: Layout) -> Self {
                match rng.below(8) {
                    0 => <$ty>::MAX,
                    1 => <$ty>::MIN,
                    2 => Self::from(rng.one_in(2)),
                    3 => <$ty>::MIN.wrapping_add(<$ty>::MAX), // -1, the default of many fields
                    _ => Self::from_le_bytes(rng.bytes(size_of::<$ty>()).try_into().unwrap()),
                }
            }
        }
    )* };
}

numbers!(i8, i16, u16, i32, u32, i64);

impl Random for bool {
    fn random(rng: &mut Rng, _: Layout) -> Self {
        rng.one_in(2)
    }
}

impl Random for f64 {
    fn random(rng: &mut Rng, layout: Layout) -> Self {
        f64::from(i32::random(rng, layout)) / 7.0
    }
}

impl Random for ErrorCode {
    fn random(rng: &mut Rng, layout: Layout) -> Self {
        Self::from(i16::random(rng, layout) % 140)
    }
}

impl Random for Uuid {
    fn random(rng: &mut Rng, _: Layout) -> Self {
        Self(rng.bytes(16).try_into().unwrap())
    }
}

impl Random for Str {
    fn random(rng: &mut Rng, _: Layout) -> Self {
        let length = rng.length();
        (0..length).map(|_| ['a', 'Z', '.', '-', '0', 'é', '語', '🦀'][rng.below(8)]).collect::<String>().into()
    }
}

impl Random for Bytes {
    fn random(rng: &mut Rng, _: Layout) -> Self {
        let length = rng.length();
        rng.bytes(length).into()
    }
}

impl Random for Records {
    fn random(rng: &mut Rng, layout: Layout) -> Self {
        Self((0..rng.below(4)).map(|_| Bytes::random(rng, layout)).collect())
    }
}

impl<T: Random + Field> Random for Vec<T> {
    fn random(rng: &mut Rng, layout: Layout) -> Self {
        (0..rng.below(4)).map(|_| T::random(rng, layout)).collect()
    }
}

impl<T: Random + Nullable> Random for Option<T> {
    fn random(rng: &mut Rng, layout: Layout) -> Self {
        (!rng.one_in(4)).then(|| T::random(rng, layout))
    }
}
