//! Reader and writer by themselves.

use std::io::IoSlice;

use bytes::{Buf, Bytes};

use super::{decoded, encoded, hex};
use crate::kafka::codec::messages::{fetch::*, heartbeat::*};
use crate::kafka::codec::{EncodeError, Fault, PIECE_BYTES, Reader, Str, Writer};

fn written(write: impl FnOnce(&mut Writer)) -> Bytes {
    let mut writer = Writer::new();
    write(&mut writer);
    writer.finish().unwrap().into_bytes()
}

#[test]
fn varints_of_all_lengths_come_back() {
    for value in [0, 1, -1, 63, -64, 64, i32::MAX, i32::MIN] {
        assert_eq!(Reader::new(written(|writer| writer.varint(value))).varint().unwrap(), value);
    }
    for value in [0, 1, -1, 1 << 40, i64::MAX, i64::MIN] {
        assert_eq!(Reader::new(written(|writer| writer.varlong(value))).varlong().unwrap(), value);
    }
    assert_eq!(written(|writer| writer.uvarint(300)), hex("ac02"));
    assert_eq!(written(|writer| writer.varint(-1)), hex("01"));
}

#[test]
fn varints_longer_than_their_type_are_refused() {
    assert_eq!(Reader::new(hex("ffffffff0f")).uvarint().unwrap(), u32::MAX);
    for text in ["ffffffff1f", "808080808001"] {
        assert_eq!(Reader::new(hex(text)).uvarint().unwrap_err().fault(), Fault::VarintTooLong, "{text}");
    }
    assert!(Reader::new(hex("ffffffffffffffffff01")).varlong().is_ok());
    for text in ["ffffffffffffffffff02", "ffffffffffffffffffff01"] {
        assert_eq!(Reader::new(hex(text)).varlong().unwrap_err().fault(), Fault::VarintTooLong, "{text}");
    }
}

#[test]
fn strings_are_slices_of_the_frame() {
    let frame = encoded(&HeartbeatRequest { group_id: "group".into(), ..Default::default() }, 0);
    let start = frame.as_ptr();
    let read: HeartbeatRequest = decoded(frame, 0);
    assert_eq!(read.group_id.as_ptr(), start.wrapping_add(2));
}

fn fetch_response(runs: Vec<Bytes>) -> FetchResponse {
    let data = PartitionData { records: Some(runs.into()), ..Default::default() };
    let topic =
        FetchableTopicResponse { topic: "t".into(), partitions: vec![data.clone(), data], ..Default::default() };
    FetchResponse { responses: vec![topic], ..Default::default() }
}

#[test]
fn batches_leave_without_being_copied() {
    let runs: Vec<Bytes> = vec![vec![1; PIECE_BYTES].into(), vec![2; 5].into(), vec![3; PIECE_BYTES * 3].into()];
    let mut writer = Writer::new();
    fetch_response(runs.clone()).write(&mut writer, 12);
    let len = writer.len();
    let frame = writer.finish_frame().unwrap();
    assert_eq!(frame.remaining(), len + 4);
    for run in [&runs[0], &runs[2]] {
        assert_eq!(frame.pieces().filter(|piece| piece.as_ptr() == run.as_ptr()).count(), 2);
    }
    let bytes = frame.into_bytes();
    assert_eq!(bytes[..4], u32::try_from(len).unwrap().to_be_bytes());
    assert_eq!(decoded::<FetchResponse>(bytes.slice(4..), 12), fetch_response(runs));
}

#[test]
fn a_frame_is_a_buffer_of_many_slices() {
    let mut writer = Writer::new();
    fetch_response(vec![vec![1; PIECE_BYTES].into()]).write(&mut writer, 4);
    let mut frame = writer.finish_frame().unwrap();
    let whole = frame.clone().into_bytes();
    let mut slices = [IoSlice::new(&[]); 16];
    let used = frame.chunks_vectored(&mut slices);
    let joined: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect();
    assert_eq!((used, joined.as_slice()), (frame.pieces().count(), &whole[..]));
    frame.advance(7 + PIECE_BYTES);
    assert_eq!(frame.into_bytes(), whole.slice(7 + PIECE_BYTES..));
}

#[test]
fn large_pieces_inside_of_tagged_fields_keep_their_place() {
    let long = Str::from("x".repeat(PIECE_BYTES + 1));
    let request = FetchRequest { cluster_id: Some(long.clone()), rack_id: long, ..Default::default() };
    assert_eq!(decoded::<FetchRequest>(encoded(&request, 12), 12), request);
}

#[test]
fn what_no_length_field_can_say_is_an_error_of_the_writer() {
    let request = HeartbeatRequest { group_id: "x".repeat(40_000).into(), ..Default::default() };
    let mut writer = Writer::new();
    request.write(&mut writer, 3);
    assert_eq!(writer.finish().unwrap_err(), EncodeError::TooLong { len: 40_000, width: 2 });
    assert_eq!(decoded::<HeartbeatRequest>(encoded(&request, 4), 4), request);
    let mut writer = Writer::new();
    request.write(&mut writer, 5);
    let error = EncodeError::Version { message: "HeartbeatRequest", version: 5 };
    assert_eq!(writer.finish_frame().unwrap_err(), error);
}

#[test]
fn a_field_that_the_version_lacks_reads_as_its_default() {
    let request = FetchRequest { session_epoch: 3, rack_id: "r".into(), max_bytes: 5, ..Default::default() };
    let read: FetchRequest = decoded(encoded(&request, 4), 4);
    assert_eq!((read.session_epoch, read.rack_id.as_str(), read.max_bytes), (-1, "", 5));
    assert_eq!(FetchRequest::default().max_bytes, i32::MAX);
}

#[test]
fn text_compares_and_prints_as_text() {
    let text = Str::from_utf8(Bytes::from_static("aé".as_bytes())).unwrap();
    assert_eq!(text, "aé");
    assert_eq!((format!("{text:>4}"), format!("{text:?}")), ("  aé".into(), "\"aé\"".into()));
    assert_eq!(Str::from_utf8(Bytes::from_static(b"\xff")), None);
}
