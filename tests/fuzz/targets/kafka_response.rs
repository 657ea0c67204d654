//! Anything that arrives as an answer: read without a panic, and what could be read can be written and read again.
//! The first two bytes are API key and version.
#![no_main]

use azulite::kafka::codec::{ApiKey, Reader, Response, ResponseHeader, Writer};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [key, version, frame @ ..] = bytes else { return };
    let (Some(key), version) = (ApiKey::from_code(i16::from(*key)), i16::from(*version)) else { return };
    let mut reader = Reader::new(Bytes::copy_from_slice(frame));
    let Ok(_header) = ResponseHeader::read(&mut reader, key, version) else { return };
    let Ok(response) = Response::read(key, &mut reader, version) else { return };
    let written = write(&response, version);
    let again = Response::read(key, &mut Reader::new(written.clone()), version).expect("an answer we wrote");
    assert_eq!(write(&again, version), written);
});

fn write(response: &Response, version: i16) -> Bytes {
    let mut writer = Writer::new();
    response.write(&mut writer, version);
    writer.finish().expect("what was read can be written").into_bytes()
}
