//! What the codec promises beside agreeing with the oracle: exact bytes, and manners in the face of hostile ones.

mod golden;
#[expect(unreachable_pub, reason = "the macro declares for others, and here nobody else is there")]
mod group_metadata;
mod hostile;
mod parts;
mod table;

use bytes::Bytes;

use super::{Message, Reader, Writer};

/// Bytes from hexadecimal text with blanks in between.
fn hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn encoded<M: Message>(message: &M, version: i16) -> Bytes {
    let mut writer = Writer::new();
    message.write_message(&mut writer, version);
    writer.finish().unwrap().into_bytes()
}

fn decoded<M: Message>(bytes: Bytes, version: i16) -> M {
    let mut reader = Reader::new(bytes);
    let message = M::read_message(&mut reader, version).unwrap();
    reader.finish().unwrap();
    message
}
