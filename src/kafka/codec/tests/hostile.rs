//! Truncated, inflated and random bytes: always an error or a message, never a panic or a large allocation.

use bytes::{Bytes, BytesMut};

use super::{encoded, hex};
use crate::kafka::codec::messages::{fetch::*, metadata::*, produce::*};
use crate::kafka::codec::random::Rng;
use crate::kafka::codec::{ApiKey, Fault, Reader, Request, RequestHeader, Response, Writer};

/// Every message of every version with its bytes, `rounds` times.
fn every_message(rounds: u64, mut check: impl FnMut(ApiKey, i16, bool, Bytes)) {
    for &key in ApiKey::ALL {
        for version in key.versions().0..=key.versions().1 {
            for round in 0..rounds {
                let rng = &mut Rng(round << 16 | u64::from(key.code().cast_unsigned()));
                let (mut request, mut response) = (Writer::new(), Writer::new());
                Request::random(key, rng, version).write(&mut request, version);
                Response::random(key, rng, version).write(&mut response, version);
                check(key, version, true, request.finish().unwrap().into_bytes());
                check(key, version, false, response.finish().unwrap().into_bytes());
            }
        }
    }
}

/// Reads a message and says whether it was one; then it can be written, and read again as the same.
fn reads(key: ApiKey, version: i16, is_request: bool, bytes: Bytes) -> bool {
    let Some(written) = rewritten(key, version, is_request, bytes) else { return false };
    assert_eq!(rewritten(key, version, is_request, written.clone()), Some(written), "{} {version}", key.name());
    true
}

fn rewritten(key: ApiKey, version: i16, is_request: bool, bytes: Bytes) -> Option<Bytes> {
    let (mut reader, mut writer) = (Reader::with_budget(bytes, 1 << 20), Writer::new());
    if is_request {
        Request::read(key, &mut reader, version).ok()?.write(&mut writer, version);
    } else {
        Response::read(key, &mut reader, version).ok()?.write(&mut writer, version);
    }
    Some(writer.finish().unwrap().into_bytes())
}

#[test]
fn every_prefix_of_every_message_is_refused() {
    every_message(4, |key, version, is_request, bytes| {
        for len in 0..bytes.len().min(2000) {
            let prefix = bytes.slice(..len);
            assert!(!reads(key, version, is_request, prefix), "{} {version}: {len} of {}", key.name(), bytes.len());
        }
    });
}

#[test]
fn hostile_lengths_anywhere_are_survived() {
    let hostile: [&[u8]; 6] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x80, 0, 0, 0],
        &[0xff; 5],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x7f, 0xff],
        &[0xff, 0x7f],
    ];
    every_message(2, |key, version, is_request, bytes| {
        for at in 0..bytes.len().min(400) {
            for replacement in hostile {
                let mut changed = BytesMut::from(&bytes[..]);
                changed.iter_mut().skip(at).zip(replacement).for_each(|(byte, new)| *byte = *new);
                reads(key, version, is_request, changed.freeze());
            }
        }
    });
}

#[test]
fn random_bytes_are_survived() {
    let rng = &mut Rng(7);
    for &key in ApiKey::ALL {
        for version in key.versions().0..=key.versions().1 {
            for _ in 0..300 {
                let length = rng.below(60);
                let mut bytes = rng.bytes(length);
                if rng.one_in(2) {
                    bytes.iter_mut().for_each(|byte| *byte %= 3);
                }
                reads(key, version, true, bytes.clone().into());
                reads(key, version, false, bytes.into());
            }
        }
    }
    for _ in 0..20_000 {
        let length = rng.below(40);
        let mut bytes = vec![0, u8::try_from(rng.below(80)).unwrap(), 0, u8::try_from(rng.below(15)).unwrap()];
        bytes.extend(rng.bytes(length));
        let mut reader = Reader::new(bytes.into());
        if let Ok(header) = RequestHeader::read(&mut reader) {
            let _seen = Request::read(header.api_key, &mut reader, header.api_version);
        }
    }
}

#[test]
fn a_count_beyond_the_frame_is_refused_before_memory_is_asked_for() {
    let error = MetadataRequest::read(&mut Reader::new(hex("7fffffff")), 1).unwrap_err();
    assert_eq!(error.fault(), Fault::TooManyElements { count: 0x7fff_ffff, left: 0 });
    let error = MetadataRequest::read(&mut Reader::new(hex("ffffffff 0f 000000")), 9).unwrap_err();
    assert_eq!(error.fault(), Fault::TooManyElements { count: 0xffff_fffe, left: 3 });
    assert_eq!(
        error.to_string(),
        "MetadataRequest version 9, field topics, byte 5: 4294967294 elements claimed, the 3 bytes left cannot hold them"
    );
}

#[test]
fn arrays_that_fit_the_frame_still_keep_to_the_budget() {
    let topics = vec![MetadataRequestTopic { name: Some("a".into()), ..Default::default() }; 10_000];
    let bytes = encoded(&MetadataRequest { topics: Some(topics), ..Default::default() }, 9);
    let error = MetadataRequest::read(&mut Reader::with_budget(bytes.clone(), 100_000), 9).unwrap_err();
    let wanted = 10_000 * size_of::<MetadataRequestTopic>();
    assert_eq!(error.fault(), Fault::OverBudget { wanted, left: 100_000 });
    assert!(MetadataRequest::read(&mut Reader::with_budget(bytes, wanted), 9).is_ok());
}

#[test]
fn errors_name_message_field_and_place() {
    let bytes = hex("00 ffff 00007530 02 0274 02 00000001 06 6261");
    let error = ProduceRequest::read(&mut Reader::new(bytes), 9).unwrap_err();
    assert_eq!((error.message(), error.field().as_str()), ("ProduceRequest", "topic_data.partition_data.records"));
    assert_eq!(error.fault(), Fault::Short { wanted: 5, left: 2 });
    let error = ProduceRequest::read(&mut Reader::new(Bytes::new()), 2).unwrap_err();
    assert_eq!(error.fault(), Fault::Version { min: 3, max: 13 });
    let error = MetadataRequest::read(&mut Reader::new(hex("00000001 0002 c328")), 1).unwrap_err();
    assert_eq!((error.field().as_str(), error.fault()), ("topics.name", Fault::NotUtf8));
    let error = MetadataRequest::read(&mut Reader::new(hex("ffffffff")), 0).unwrap_err();
    assert_eq!(error.fault(), Fault::UnexpectedNull);
    let error = RequestHeader::read(&mut Reader::new(hex("0047 0000 00000001 ffff"))).unwrap_err();
    assert_eq!(error.fault(), Fault::UnknownApiKey(71));
}

#[test]
fn unknown_tagged_fields_are_skipped_and_known_ones_must_fit() {
    let plain = encoded(&FetchRequest::default(), 12);
    let with_tags = |tags: &str| {
        let mut bytes = BytesMut::from(&plain[..plain.len() - 1]);
        bytes.extend_from_slice(&hex(tags));
        FetchRequest::read(&mut Reader::new(bytes.freeze()), 12)
    };
    assert_eq!(with_tags("01 63 03 010203").unwrap(), FetchRequest::default());
    let named = FetchRequest { cluster_id: Some("c".into()), ..Default::default() };
    assert_eq!(with_tags("02 00 02 0263 63 00").unwrap(), named);
    assert_eq!(with_tags("01 01 01 00").unwrap(), FetchRequest::default(), "tag 1 belongs to version 15");
    assert_eq!(with_tags("01 00 03 0263 00").unwrap_err().fault(), Fault::Trailing(1));
    assert_eq!(with_tags("01 00 01 0263").unwrap_err().fault(), Fault::Short { wanted: 1, left: 0 });
    assert_eq!(with_tags("01 63 05 0102").unwrap_err().fault(), Fault::Short { wanted: 5, left: 2 });
}
