//! The macro that declares messages.
//!
//! ```text
//! message! {
//!     /// What the whole is for.
//!     pub struct ExampleRequest[4..=18, flexible 12] {
//!         always: i32,
//!         up_to: Str [..=12],                         // not from version 13 on: left out, read as the default
//!         from: i64 [5..] = -1,                       // what a version without the field reads
//!         some: Option<Str>,                          // nullable
//!         later: Option<Vec<Part>> [.., null 7..],    // nullable from version 7 on
//!         tagged: Uuid [17.., tag 0],                 // among the tagged fields, unless it is the default
//!         parts: Vec<Part>,
//!     }
//!     pub struct Part { index: i32 }                  // without versions: lives inside others
//! }
//! ```
//!
//! Fields stand in wire order, tagged ones in the order of their tags.

use std::ops::RangeBounds;

use super::fault::DecodeError;
use super::field::{Field, Layout, Nullable};
use super::reader::Reader;
use super::writer::Writer;

/// Declares messages and the structs inside them; see the [module](self).
macro_rules! message {
    ($($(#[$meta:meta])* pub struct $name:ident $([$($versions:tt)*])? {
        $($(#[$doc:meta])* $field:ident: $ty:ty $([$($spec:tt)*])? $(= $default:expr)?),* $(,)?
    })*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $($(#[$doc])* pub $field: $ty,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $crate::kafka::codec::schema::default!($($default)?),)* }
            }
        }

        const _: () = {
            use $crate::kafka::codec::{DecodeError, Field, Layout, Nullable, Reader, Writer, schema};

            impl Field for $name {
                fn min_size(layout: Layout) -> usize {
                    usize::from(layout.flexible) $(+ schema::field!(min $field: $ty, layout, [$($($spec)*)?]))*
                }

                fn decode(reader: &mut Reader, layout: Layout) -> Result<Self, DecodeError> {
                    let mut out = Self::default();
                    $(schema::field!(decode out.$field, reader, layout, [$($($spec)*)?]);)*
                    if layout.flexible {
                        reader.tagged_fields(|_tag, _reader| {
                            $(schema::field!(decode_tagged out.$field, _tag, _reader, layout, [$($($spec)*)?]);)*
                            Ok(false)
                        })?;
                    }
                    Ok(out)
                }

                fn encode(&self, writer: &mut Writer, layout: Layout) {
                    $(schema::field!(encode self.$field, writer, layout, [$($($spec)*)?]);)*
                    if layout.flexible {
                        let _default = Self::default();
                        writer.uvarint(0 $(+ schema::field!(tags self.$field, _default, layout, [$($($spec)*)?]))*);
                        $(schema::field!(encode_tagged self.$field, _default, writer, layout, [$($($spec)*)?]);)*
                    }
                }
            }

            impl Nullable for $name {
                fn decode_nullable(reader: &mut Reader, layout: Layout) -> Result<Option<Self>, DecodeError> {
                    if i8::decode(reader, layout)? < 0 { Ok(None) } else { Self::decode(reader, layout).map(Some) }
                }

                fn encode_null(writer: &mut Writer, _: Layout) {
                    writer.slice(&[0xff]);
                }

                fn encode_present(&self, writer: &mut Writer, layout: Layout) {
                    writer.slice(&[1]);
                    self.encode(writer, layout);
                }
            }

            #[cfg(test)]
            impl $crate::kafka::codec::random::Random for $name {
                fn random(rng: &mut $crate::kafka::codec::random::Rng, layout: Layout) -> Self {
                    let mut out = Self::default();
                    $(schema::field!(random out.$field, rng, layout, [$($($spec)*)?]);)*
                    out
                }
            }
        };

        $($crate::kafka::codec::schema::versions!($name, $($versions)*);)?
    )* };
}

macro_rules! default {
    () => {
        Default::default()
    };
    ($default:expr) => {
        $default
    };
}

macro_rules! versions {
    ($name:ident, $min:literal..=$max:literal $(, flexible $flexible:literal)?) => {
        impl $crate::kafka::codec::Message for $name {
            const NAME: &'static str = stringify!($name);
            const VERSIONS: (i16, i16) = ($min, $max);
            const FIRST_FLEXIBLE: Option<i16> = [$($flexible,)?].first().copied();
        }

        impl $name {
            /// Reads the message; bytes behind it stay in the reader.
            ///
            /// # Errors
            /// Message, version, field and what was wrong.
            pub fn read(
                reader: &mut $crate::kafka::codec::Reader,
                version: i16,
            ) -> Result<Self, $crate::kafka::codec::DecodeError> {
                $crate::kafka::codec::Message::read_message(reader, version)
            }

            /// Writes the message; fields that this version lacks are left out.
            pub fn write(&self, writer: &mut $crate::kafka::codec::Writer, version: i16) {
                $crate::kafka::codec::Message::write_message(self, writer, version);
            }
        }
    };
}

/// What one field of a struct does in one of its functions, by its versions.
#[rustfmt::skip]
macro_rules! field {
    (min $field:ident: $ty:ty, $layout:ident, []) => { <$ty as Field>::min_size($layout) };
    (min $field:ident: $ty:ty, $layout:ident, [$range:expr, tag $tag:literal]) => { 0 };
    (min $field:ident: $ty:ty, $layout:ident, [$range:expr $(, null $null:expr)?]) => {
        if schema::has($layout, $range) { <$ty as Field>::min_size($layout) } else { 0 }
    };

    (decode $out:ident.$field:ident, $reader:ident, $layout:ident, []) => {
        $out.$field = Field::decode($reader, $layout).map_err(|error| error.under(stringify!($field)))?;
    };
    (decode $out:ident.$field:ident, $reader:ident, $layout:ident, [$range:expr, tag $tag:literal]) => {};
    (decode $out:ident.$field:ident, $reader:ident, $layout:ident, [$range:expr, null $null:expr]) => {
        if schema::has($layout, $range) {
            $out.$field = schema::decode_null_if(schema::has($layout, $null), $reader, $layout)
                .map_err(|error| error.under(stringify!($field)))?;
        }
    };
    (decode $out:ident.$field:ident, $reader:ident, $layout:ident, [$range:expr]) => {
        if schema::has($layout, $range) {
            schema::field!(decode $out.$field, $reader, $layout, []);
        }
    };

    (decode_tagged $out:ident.$field:ident, $tag:ident, $reader:ident, $layout:ident, [$range:expr, tag $own:literal]) => {
        if $tag == $own && schema::has($layout, $range) {
            schema::field!(decode $out.$field, $reader, $layout, []);
            return Ok(true);
        }
    };
    (decode_tagged $($other:tt)*) => {};

    (encode $this:ident.$field:ident, $writer:ident, $layout:ident, []) => { $this.$field.encode($writer, $layout); };
    (encode $this:ident.$field:ident, $writer:ident, $layout:ident, [$range:expr, tag $tag:literal]) => {};
    (encode $this:ident.$field:ident, $writer:ident, $layout:ident, [$range:expr, null $null:expr]) => {
        if schema::has($layout, $range) {
            schema::encode_null_if(schema::has($layout, $null), &$this.$field, $writer, $layout);
        }
    };
    (encode $this:ident.$field:ident, $writer:ident, $layout:ident, [$range:expr]) => {
        if schema::has($layout, $range) { $this.$field.encode($writer, $layout); }
    };

    (tags $this:ident.$field:ident, $default:ident, $layout:ident, [$range:expr, tag $tag:literal]) => {
        u32::from(schema::has($layout, $range) && $this.$field != $default.$field)
    };
    (tags $($other:tt)*) => { 0 };

    (encode_tagged $this:ident.$field:ident, $default:ident, $writer:ident, $layout:ident, [$range:expr, tag $tag:literal]) => {
        if schema::has($layout, $range) && $this.$field != $default.$field {
            $writer.tagged($tag, |writer| $this.$field.encode(writer, $layout));
        }
    };
    (encode_tagged $($other:tt)*) => {};

    (random $out:ident.$field:ident, $rng:ident, $layout:ident, []) => {
        $out.$field = $crate::kafka::codec::random::Random::random($rng, $layout);
    };
    (random $out:ident.$field:ident, $rng:ident, $layout:ident, [$range:expr, tag $tag:literal]) => {
        if schema::has($layout, $range) && $rng.one_in(2) { schema::field!(random $out.$field, $rng, $layout, []); }
    };
    (random $out:ident.$field:ident, $rng:ident, $layout:ident, [$range:expr, null $null:expr]) => {
        if schema::has($layout, $range) {
            $out.$field = (!schema::has($layout, $null) || !$rng.one_in(4))
                .then(|| $crate::kafka::codec::random::Random::random($rng, $layout));
        }
    };
    (random $out:ident.$field:ident, $rng:ident, $layout:ident, [$range:expr]) => {
        if schema::has($layout, $range) { schema::field!(random $out.$field, $rng, $layout, []); }
    };
}

pub(super) use {default, field, message, versions};

pub(super) fn has(layout: Layout, range: impl RangeBounds<i16>) -> bool {
    range.contains(&layout.version)
}

pub(super) fn decode_null_if<T: Nullable>(
    nullable: bool,
    reader: &mut Reader,
    layout: Layout,
) -> Result<Option<T>, DecodeError> {
    if nullable { T::decode_nullable(reader, layout) } else { T::decode(reader, layout).map(Some) }
}

pub(super) fn encode_null_if<T: Nullable>(nullable: bool, value: &Option<T>, writer: &mut Writer, layout: Layout) {
    match value {
        Some(value) if !nullable => value.encode(writer, layout),
        None if !nullable => T::default().encode(writer, layout),
        value => value.encode(writer, layout),
    }
}
