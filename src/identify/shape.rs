//! What a magic rule looks like from outside: its first test, the named rules it uses, whether it starts over elsewhere.
//!
//! `pure-magic` keeps all that private, but its rules can be serialized, with their names. [`Shape::of`] lets a rule be
//! written into a serializer that keeps what [`super::gates`] and [`super::engine`] need and forgets the rest. It goes
//! by names only: a test that a later version writes in another way is one that nobody knows, which costs time and no
//! match.

use serde::de::IgnoredAny;
use serde::de::value::Error;
use serde::ser::{self, Serialize};
use serde::{Deserialize, Serializer};
use serde_json::Value;

/// What is seen of one rule.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// The rule's first test, if it is of a kind that is known here.
    pub(super) root: Option<Root>,
    /// Named rules that it uses anywhere.
    pub(super) uses: Vec<String>,
    /// It evaluates all rules again at another place of the file.
    pub(super) indirect: bool,
}

/// The first test of a rule.
#[derive(Debug, Deserialize)]
pub(super) struct Root {
    pub(super) offset: Offset,
    pub(super) test: Test,
    #[serde(default)]
    pub(super) stream_gate: StreamGate,
}

#[derive(Debug, Deserialize)]
pub(super) enum Offset {
    Direct(Direct),
    Indirect(IgnoredAny),
}

#[derive(Debug, Deserialize)]
pub(super) enum Direct {
    Start(u64),
    LastUpper(IgnoredAny),
    End(IgnoredAny),
}

/// In which kind of file the rule is not looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) enum StreamGate {
    SkipOnText,
    SkipOnBinary,
    #[default]
    Never,
}

#[derive(Debug, Deserialize)]
pub(super) enum Test {
    Scalar(Scalar),
    String(Text),
    Search(Search),
    Regex(Regex),
}

#[derive(Debug, Deserialize)]
pub(super) struct Scalar {
    pub(super) ty: String,
    pub(super) transform: Option<Transform>,
    pub(super) cmp_op: String,
    pub(super) test_val: Wanted<Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Transform {
    pub(super) op: String,
    pub(super) num: Value,
}

#[derive(Debug, Deserialize)]
pub(super) enum Wanted<T> {
    Value(T),
    Any,
}

#[derive(Debug, Deserialize)]
pub(super) struct Text {
    pub(super) test_val: Wanted<Vec<u8>>,
    pub(super) cmp_op: String,
    pub(super) mods: u8,
}

#[derive(Debug, Deserialize)]
pub(super) struct Search {
    pub(super) str: Vec<u8>,
    pub(super) n_pos: Option<u64>,
    pub(super) str_mods: u8,
    pub(super) cmp_op: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Regex {
    pub(super) re: Pattern,
    pub(super) length: Option<u64>,
    pub(super) mods: u8,
    pub(super) cmp_op: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Pattern {
    pub(super) s: String,
}

impl Shape {
    /// Looks at one rule.
    ///
    /// # Errors
    ///
    /// Those of the rule's own serialization; there are none today.
    pub(super) fn of(rule: &impl Serialize) -> Result<Self, Error> {
        let mut walk = Walk::default();
        rule.serialize(&mut walk)?;
        let root = walk.root.and_then(|fields| serde_json::from_value(Value::Object(fields)).ok());
        Ok(Self { root, uses: walk.uses, indirect: walk.indirect })
    }
}

/// A serializer that writes nothing.
#[derive(Default)]
struct Walk {
    /// The fields of the first `Match`, which is the rule's first test.
    root: Option<serde_json::Map<String, Value>>,
    uses: Vec<String>,
    indirect: bool,
    /// The name of a used rule comes next.
    names_rule: bool,
}

/// A value with parts.
struct Parts<'a> {
    walk: &'a mut Walk,
    /// This is the rule's first test, and these are its fields.
    root: Option<serde_json::Map<String, Value>>,
    is_use: bool,
}

impl<'a> Parts<'a> {
    fn of(walk: &'a mut Walk) -> Result<Self, Error> {
        Ok(Self { walk, root: None, is_use: false })
    }

    fn part<T: Serialize + ?Sized>(&mut self, part: &T) -> Result<(), Error> {
        self.walk.names_rule = self.is_use;
        part.serialize(&mut *self.walk)?;
        self.walk.names_rule = false;
        Ok(())
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, field: &T) -> Result<(), Error> {
        if let Some(fields) = &mut self.root
            && matches!(name, "offset" | "test" | "stream_gate")
            && let Ok(value) = serde_json::to_value(field)
        {
            fields.insert(name.into(), value);
        }
        self.part(field)
    }

    fn done(self) -> Result<(), Error> {
        if self.root.is_some() {
            self.walk.root = self.root;
        }
        Ok(())
    }
}

macro_rules! forget {
    ($($name:ident($kind:ty),)*) => {
        $(fn $name(self, _: $kind) -> Result<(), Error> {
            Ok(())
        })*
    };
}

impl<'a> Serializer for &'a mut Walk {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Parts<'a>;
    type SerializeTuple = Parts<'a>;
    type SerializeTupleStruct = Parts<'a>;
    type SerializeTupleVariant = Parts<'a>;
    type SerializeMap = Parts<'a>;
    type SerializeStruct = Parts<'a>;
    type SerializeStructVariant = Parts<'a>;

    forget! {
        serialize_bool(bool), serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64),
        serialize_i128(i128), serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64),
        serialize_u128(u128), serialize_f32(f32), serialize_f64(f64), serialize_char(char), serialize_bytes(&[u8]),
        serialize_unit_struct(&'static str),
    }

    fn serialize_str(self, text: &str) -> Result<(), Error> {
        if self.names_rule {
            self.uses.push(text.into());
        }
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Error> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        Ok(())
    }

    fn serialize_unit_variant(self, name: &'static str, _: u32, variant: &'static str) -> Result<(), Error> {
        self.indirect |= is_indirect(name, variant);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.indirect |= is_indirect(name, variant);
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts<'a>, Error> {
        Parts::of(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts<'a>, Error> {
        Parts::of(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts<'a>, Error> {
        Parts::of(self)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts<'a>, Error> {
        Ok(Parts { is_use: name == "Test" && variant == "Use", ..Parts::of(self)? })
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Parts<'a>, Error> {
        Parts::of(self)
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Parts<'a>, Error> {
        let is_root = name == "Match" && self.root.is_none();
        Ok(Parts { root: is_root.then(serde_json::Map::new), ..Parts::of(self)? })
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts<'a>, Error> {
        self.indirect |= is_indirect(name, variant);
        Parts::of(self)
    }
}

fn is_indirect(name: &str, variant: &str) -> bool {
    name == "Test" && variant == "Indirect"
}

macro_rules! parts {
    ($($kind:ident::$method:ident,)*) => {
        $(impl ser::$kind for Parts<'_> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.part(value)
            }

            fn end(self) -> Result<(), Error> {
                self.done()
            }
        })*
    };
}

parts! {
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
}

macro_rules! named_parts {
    ($($kind:ident,)*) => {
        $(impl ser::$kind for Parts<'_> {
            type Ok = ();
            type Error = Error;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
                self.field(name, value)
            }

            fn end(self) -> Result<(), Error> {
                self.done()
            }
        })*
    };
}

named_parts! { SerializeStruct, SerializeStructVariant, }

impl ser::SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.part(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.part(value)
    }

    fn end(self) -> Result<(), Error> {
        self.done()
    }
}
