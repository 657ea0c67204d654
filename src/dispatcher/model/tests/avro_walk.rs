//! A second reader of Avro, led by the `.avsc` files themselves, so that the field order in the code is checked against
//! the authoritative one.

use serde_json::{Map, Value, json};

use super::fixture_json;

/// A schema file of the contract, such as `v6` and `binary.bulk`.
pub(super) fn schema(version: &str, name: &str) -> Value {
    fixture_json(&format!("avro/{version}/{name}.avsc"))
}

/// All fields of the one datum in `bytes`; times and numbers as they stand there, bytes as the JSON
/// they hold, else as a list.
pub(super) fn walk(schema: &Value, bytes: &[u8]) -> Value {
    let mut walker = Walker { bytes, named: Map::new() };
    let value = walker.value(schema);
    assert!(walker.bytes.is_empty(), "{} bytes left over", walker.bytes.len());
    value
}

struct Walker<'a> {
    bytes: &'a [u8],
    named: Map<String, Value>,
}

impl Walker<'_> {
    fn take(&mut self, length: usize) -> Vec<u8> {
        let (head, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        head.to_vec()
    }

    fn long(&mut self) -> i64 {
        let (mut number, mut shift) = (0_u64, 0);
        loop {
            let byte = self.take(1)[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return (number >> 1).cast_signed() ^ -(number & 1).cast_signed();
            }
            shift += 7;
        }
    }

    fn length(&mut self) -> usize {
        usize::try_from(self.long()).unwrap()
    }

    fn text(&mut self) -> String {
        let length = self.length();
        String::from_utf8(self.take(length)).unwrap()
    }

    fn blocks(&mut self, mut item: impl FnMut(&mut Self)) {
        loop {
            let count = self.long();
            if count == 0 {
                return;
            }
            if count < 0 {
                self.long();
            }
            (0..count.unsigned_abs()).for_each(|_| item(self));
        }
    }

    fn value(&mut self, schema: &Value) -> Value {
        match schema {
            Value::String(name) => self.named_value(name),
            Value::Object(schema) => match schema["type"].as_str() {
                Some("record") => self.record(schema),
                Some("array") => {
                    let mut items = Vec::new();
                    self.blocks(|walker| items.push(walker.value(&schema["items"])));
                    items.into()
                }
                Some("map") => {
                    let mut entries = Map::new();
                    self.blocks(|walker| {
                        let key = walker.text();
                        entries.insert(key, walker.value(&schema["values"]));
                    });
                    entries.into()
                }
                Some("fixed") => {
                    self.named.insert(schema["name"].as_str().unwrap().to_owned(), Value::Object(schema.clone()));
                    let size = schema["size"].as_u64().unwrap();
                    json!(self.take(usize::try_from(size).unwrap()))
                }
                _ => self.value(&schema["type"]),
            },
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => panic!("schema {schema}"),
        }
    }

    fn named_value(&mut self, name: &str) -> Value {
        match name {
            "string" => json!(self.text()),
            "bytes" => {
                let length = self.length();
                let bytes = self.take(length);
                serde_json::from_slice(&bytes).unwrap_or(json!(bytes))
            }
            "long" => json!(self.long()),
            "boolean" => json!(self.take(1)[0] == 1),
            "double" => json!(self.take(8)),
            name => {
                let name = name.rsplit('.').next().unwrap();
                let schema = self.named.get(name).unwrap_or_else(|| panic!("schema {name}")).clone();
                self.value(&schema)
            }
        }
    }

    fn record(&mut self, schema: &Map<String, Value>) -> Value {
        self.named.insert(schema["name"].as_str().unwrap().to_owned(), Value::Object(schema.clone()));
        let mut fields = Map::new();
        for field in schema["fields"].as_array().unwrap() {
            let value = self.value(&field["type"]);
            fields.insert(field["name"].as_str().unwrap().to_owned(), value);
        }
        fields.into()
    }
}
