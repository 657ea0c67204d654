//! Anything that arrives as a frame: header and request are read without a panic, and what could be read can be written
//! and read again. Seeds: the frames of `src/kafka/codec/tests/golden.rs`, without their length.
#![no_main]

use azulite::kafka::codec::{Reader, Request, RequestHeader, Writer};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
    let Ok(header) = RequestHeader::read(&mut reader) else { return };
    let Ok(request) = Request::read(header.api_key, &mut reader, header.api_version) else { return };
    let written = write(&header, &request);
    let mut reader = Reader::new(written.clone());
    let again = RequestHeader::read(&mut reader).expect("a header we wrote");
    assert_eq!(again, header);
    let request = Request::read(again.api_key, &mut reader, again.api_version).expect("a request we wrote");
    assert_eq!(write(&again, &request), written);
});

fn write(header: &RequestHeader, request: &Request) -> Bytes {
    let mut writer = Writer::new();
    header.write(&mut writer);
    request.write(&mut writer, header.api_version);
    writer.finish().expect("what was read can be written").into_bytes()
}
