//! What the texts of an event may be held in.

use std::borrow::Cow;
use std::fmt;
use std::hash::Hash;
use std::ops::Deref;

use super::avro_wire::Wire;

/// Holds a text: a [`String`], or a [`Cow`] that borrows it from the bytes it was read from.
pub trait Text: Deref<Target = str> + Wire + Clone + Default + Eq + Ord + Hash + fmt::Debug + fmt::Display {
    /// Holds bytes in the same way.
    type Bytes: Deref<Target = [u8]> + Clone + Default + Eq + fmt::Debug;
}

impl Text for String {
    type Bytes = Vec<u8>;
}

impl<'a> Text for Cow<'a, str> {
    type Bytes = Cow<'a, [u8]>;
}
