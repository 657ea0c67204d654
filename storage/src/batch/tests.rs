use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::header::CRC_FROM;
use super::*;

fn batch() -> CheckedBatch {
    let mut builder = BatchBuilder::default();
    builder.push(1000, Some(b"k"), Some(b"value"));
    builder.push(990, None, None);
    builder.build().unwrap()
}

/// A small batch of an idempotent producer, with headers.
fn produced(codec: Codec) -> Bytes {
    let mut builder = BatchBuilder::default()
        .codec(codec)
        .producer(Producer { id: 4711, epoch: 2, base_sequence: 7 })
        .transactional();
    builder.push_with_headers(1000, Some(b"k"), Some(&[7; 100]), &[(b"h", Some(b"x")), (b"h", None)]);
    builder.push(990, Some(b""), None);
    builder.push(995, None, Some(b""));
    builder.build().unwrap().place(0, 0)
}

fn record(offset: Offset, timestamp: i64, key: Option<&'static str>, value: Option<&'static str>) -> Record {
    Record { offset, timestamp, key: key.map(Into::into), value: value.map(Into::into), headers: Vec::new() }
}

fn records(batch: &Bytes) -> Vec<Record> {
    Records::of(batch).unwrap().map(Result::unwrap).collect()
}

/// `batch` with one field changed and the CRC made right again.
fn with(batch: &Bytes, at: usize, field: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::from(&batch[..]);
    bytes[at..at + field.len()].copy_from_slice(field);
    let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
    bytes[17..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// A batch of the given records' bytes, header made to fit.
fn raw(count: i32, codec: Codec, body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::from(&produced(Codec::None)[..BATCH_HEADER_LEN]);
    bytes.extend_from_slice(body);
    let mut header = BatchHeader::read(&produced(Codec::None)).unwrap();
    (header.count, header.last_offset_delta) = (count, count - 1);
    header.set_codec(codec);
    header.seal(&mut bytes).unwrap();
    bytes.freeze()
}

fn check(bytes: impl AsRef<[u8]>) -> Result<CheckedBatch, BatchError> {
    CheckedBatch::check(BytesMut::from(bytes.as_ref()))
}

fn fixtures() -> impl Iterator<Item = (&'static str, Codec, Bytes)> {
    include_str!("fixtures.txt").lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut words = line.split(' ');
        let (client, codec, hex) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let codec = Codec::ALL.into_iter().find(|c| c.name() == codec).unwrap();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        (client, codec, hex.as_bytes().chunks(2).map(byte).collect())
    })
}

#[test]
fn golden_bytes_of_a_batch() {
    let bytes = batch().place(5, 3);
    let mut golden = vec![0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 71, 0, 0, 0, 3, 2];
    let mut covered = vec![0, 0, 0, 0, 0, 1];
    covered.extend(1000_i64.to_be_bytes());
    covered.extend(1000_i64.to_be_bytes());
    covered.extend([0xff; 8 + 2 + 4]);
    covered.extend([0, 0, 0, 2]);
    covered.extend([24, 0, 0, 0, 2, b'k', 10, b'v', b'a', b'l', b'u', b'e', 0]);
    covered.extend([12, 0, 19, 2, 1, 1, 0]);
    golden.extend(crc32c::crc32c(&covered).to_be_bytes());
    golden.extend(&covered);
    let length = u32::try_from(golden.len() - 12).unwrap();
    golden[8..12].copy_from_slice(&length.to_be_bytes());
    assert_eq!(bytes, golden);
}

#[test]
fn batches_of_real_clients_check_and_read() {
    let mut seen = 0;
    for (client, codec, bytes) in fixtures() {
        let checked = check(&bytes).unwrap();
        assert_eq!(checked.codec(), codec, "{client}");
        let rules = RecordRules { timestamps: 1_700_000_001_000..=1_700_000_001_005, ..RecordRules::default() };
        checked.validate(&rules).unwrap();
        let got = checked.validate(&RecordRules { keys: true, ..rules });
        assert_eq!(got, Err(BatchError::NoKey { index: 1 }), "{client} {codec}");
        let producer = checked.header().producer().unwrap();
        if client != "librdkafka" {
            assert_eq!(producer, Producer { id: 4711, epoch: 2, base_sequence: 7 });
        }
        let repeats = if client == "java" { 1 } else { 3 };
        let value = "value one value one value one value one".repeat(repeats);
        let headers = vec![
            RecordHeader { key: "h".into(), value: Some("x".into()) },
            RecordHeader { key: "n".into(), value: None },
        ];
        let first = Record {
            offset: 70,
            timestamp: 1_700_000_001_000,
            key: Some("k1".into()),
            value: Some(value.into()),
            headers,
        };
        let wanted =
            [first, record(71, 1_700_000_001_005, None, Some("")), record(72, 1_700_000_001_003, Some("k2"), None)];
        assert_eq!(records(&checked.place(70, 0)), wanted, "{client} {codec}");
        seen += 1;
    }
    assert_eq!(seen, 15);
}

#[test]
fn an_uncompressed_batch_is_built_as_the_java_client_builds_it() {
    let (_, _, golden) = fixtures().next().unwrap();
    let mut builder = BatchBuilder::default().producer(Producer { id: 4711, epoch: 2, base_sequence: 7 });
    let headers: [HeaderRef<'_>; 2] = [(b"h", Some(b"x")), (b"n", None)];
    let value = b"value one value one value one value one";
    builder.push_with_headers(1_700_000_001_000, Some(b"k1"), Some(value), &headers);
    builder.push(1_700_000_001_005, None, Some(b""));
    builder.push(1_700_000_001_003, Some(b"k2"), None);
    assert_eq!(builder.build().unwrap().place(0, -1), golden);
}

#[test]
fn records_come_back_with_offsets_and_times() {
    let wanted = [record(5, 1000, Some("k"), Some("value")), record(6, 990, None, None)];
    assert_eq!(records(&batch().place(5, 0)), wanted);
}

#[test]
fn checks_come_in_the_order_of_the_contract() {
    let good = produced(Codec::None);
    let refused = |bytes: &[u8]| check(bytes).map(|_| ()).unwrap_err();
    assert_eq!(refused(b""), BatchError::Empty);
    assert_eq!(refused(&good[..16]), BatchError::Length { found: 61, expected: 16 });
    let all = i64::try_from(good.len()).unwrap();
    assert_eq!(refused(&good[..60]), BatchError::Length { found: all, expected: 60 });
    for length in [-1_i32, i32::MIN, 0, 4, i32::MAX] {
        let got = refused(&with(&good, 8, &length.to_be_bytes()));
        assert_eq!(got, BatchError::Length { found: i64::from(length) + 12, expected: all });
    }
    assert_eq!(refused(&with(&good, 8, &48_i32.to_be_bytes())), BatchError::Length { found: 60, expected: all });
    let old = [&[0; 8][..], &[0, 0, 0, 22], &[0; 4], &[1, 0], &[0xff; 16]].concat();
    assert_eq!(refused(&old), BatchError::Magic(1), "a message of the format before, shorter than our header");
    let twice = [&good[..], &good].concat();
    assert_eq!(refused(&twice), BatchError::Several { first: good.len(), all: good.len() * 2 });
    let mut everything = with(&good, 21, &[0, 0x25]);
    everything[53..61].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    assert!(matches!(refused(&everything), BatchError::Crc { .. }));
    let mut everything = with(&everything.freeze(), 57, &[0; 4]);
    assert_eq!(refused(&everything), BatchError::Count { count: 0, last_offset_delta: 2 });
    for (count, last_offset_delta) in [(1, 2), (4, 2), (-1, -2), (0, -1), (i32::MIN, i32::MAX)] {
        let fields = [&good[21..23], &last_offset_delta.to_be_bytes(), &good[27..57], &count.to_be_bytes()].concat();
        assert_eq!(refused(&with(&good, 21, &fields)), BatchError::Count { count, last_offset_delta });
    }
    everything = with(&everything.freeze(), 57, &[0, 0, 0, 3]);
    let sequence = BatchError::Sequence { producer_id: 4711, producer_epoch: 2, base_sequence: -1 };
    assert_eq!(refused(&everything), sequence);
    everything = with(&everything.freeze(), 53, &[0; 4]);
    assert_eq!(refused(&everything), BatchError::Control);
    assert_eq!(refused(&with(&good, 21, &[0, 5])), BatchError::Codec(5));
    assert_eq!(refused(&with(&good, 21, &[0, 7])), BatchError::Codec(7));
    let none = with(&good, 43, &[0xff; 14]);
    assert_eq!(check(&none).unwrap().header().producer(), None, "no producer needs no sequence");
}

#[test]
fn every_flipped_bit_is_found_or_harmless() {
    for codec in Codec::ALL {
        let good = produced(codec);
        let wanted = records(&good);
        for bit in 0..good.len() * 8 {
            let mut bad = BytesMut::from(&good[..]);
            bad[bit / 8] ^= 1 << (bit % 8);
            match check(&bad) {
                Err(BatchError::Crc { .. }) => assert!(bit >= 17 * 8, "{codec} bit {bit}"),
                Err(BatchError::Length { .. } | BatchError::Several { .. }) => assert!((64..96).contains(&bit)),
                Err(BatchError::Magic(_)) => assert!((128..136).contains(&bit)),
                Ok(checked) => {
                    assert!(bit < 64 || (96..128).contains(&bit), "{codec} bit {bit}: base offset and leader epoch");
                    assert_eq!(records(&checked.place(0, 0)), wanted);
                }
                Err(other) => panic!("{codec} bit {bit}: {other:?}"),
            }
        }
    }
}

#[test]
fn flips_behind_a_right_crc_never_panic_and_never_get_past_the_deep_check_with_other_counts() {
    for codec in Codec::ALL {
        let good = produced(codec);
        for bit in CRC_FROM * 8..good.len() * 8 {
            let flipped = good[bit / 8] ^ 1 << (bit % 8);
            let Ok(checked) = check(with(&good, bit / 8, &[flipped])) else { continue };
            let deep = checked.validate(&RecordRules { limit_bytes: 1 << 20, ..RecordRules::default() });
            let read: Result<Vec<_>, _> =
                Records::with_limit(&checked.place(0, 0), 1 << 20).and_then(Iterator::collect);
            if deep.is_ok() {
                assert_eq!(read.map(|r| r.len()), Ok(3), "{codec} bit {bit}");
            }
        }
    }
}

#[test]
fn every_cut_is_refused() {
    for codec in Codec::ALL {
        let good = produced(codec);
        for len in 0..good.len() {
            let got = check(&good[..len]).map(|_| ()).unwrap_err();
            assert!(matches!(got, BatchError::Empty | BatchError::Length { .. }), "{codec} {len}: got {got:?}");
            // The same with lengths and CRC that fit: only the records tell.
            if len >= BATCH_HEADER_LEN && codec == Codec::None {
                let checked = check(raw(3, codec, &good[BATCH_HEADER_LEN..len])).unwrap();
                let got = checked.validate(&RecordRules::default());
                assert!(matches!(got, Err(BatchError::Record { .. })), "{len}: got {got:?}");
            }
        }
    }
}

#[test]
fn the_deep_check_names_the_first_offender() {
    let good = &produced(Codec::None)[BATCH_HEADER_LEN..];
    let validate = |count, body: &[u8]| check(raw(count, Codec::None, body)).unwrap().validate(&RecordRules::default());
    assert_eq!(validate(3, good), Ok(()));
    assert_eq!(validate(2, good), Err(BatchError::Trailing { bytes: 7 }));
    assert_eq!(validate(4, good), Err(BatchError::Record { index: 3, what: "length" }));
    assert_eq!(validate(3, &[good, b"x"].concat()), Err(BatchError::Trailing { bytes: 1 }));
    let cases: [(&[u8], &str); 10] = [
        (&[12, 0, 0, 2, 1, 1, 0], "offset delta"),
        (&[14, 0, 0, 0, 1, 1, 0, 0], "bytes behind the headers"),
        (&[12, 0, 0, 0, 3, 1, 0], "key"),
        (&[12, 0, 0, 0, 1, 8, 0], "value"),
        (&[12, 0, 0, 0, 1, 1, 1], "header count"),
        (&[12, 0, 0, 0, 1, 1, 2], "header key"),
        (&[14, 0, 0, 0, 1, 1, 2, 1], "header key"),
        (&[14, 0, 0, 0, 1, 1, 2, 0], "header value"),
        (&[0], "attributes"),
        (&[1], "length"),
    ];
    for (body, what) in cases {
        assert_eq!(validate(1, body), Err(BatchError::Record { index: 0, what }), "{body:?}");
    }
    let endless = [&[22_u8, 0][..], &[0xff; 10]].concat();
    assert_eq!(validate(1, &endless), Err(BatchError::Record { index: 0, what: "timestamp delta" }));
    let rules = RecordRules { timestamps: 991..=1000, ..RecordRules::default() };
    let got = check(produced(Codec::Zstd)).unwrap().validate(&rules);
    assert_eq!(got, Err(BatchError::Timestamp { index: 1, timestamp: 990, earliest: 991, latest: 1000 }));
    let mut builder = BatchBuilder::default();
    builder.push(-1, None, None);
    assert_eq!(builder.build().unwrap().validate(&rules), Ok(()), "a record without a time is taken");
}

#[test]
fn a_bomb_is_refused_with_codec_bound_and_batch() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut builder = BatchBuilder::default().codec(codec);
        builder.push(0, None, Some(&vec![0; 4 << 20]));
        let bomb = builder.build().unwrap();
        assert!(bomb.len() < 300_000, "{codec}: {}", bomb.len());
        let wanted = BatchError::TooLarge { base_offset: 0, codec, limit_bytes: 1 << 20 };
        let rules = RecordRules { limit_bytes: 1 << 20, ..RecordRules::default() };
        assert_eq!(bomb.validate(&rules), Err(wanted));
        let text = Records::with_limit(&bomb.place(12, 0), 1 << 20).map(|_| ()).unwrap_err().to_string();
        assert!(text.contains("offset 12") && text.contains(codec.name()) && text.contains("1048576"), "{text}");
    }
    let got = Records::of(&raw(1, Codec::Gzip, b"not gzip")).map(|_| ()).unwrap_err();
    assert!(matches!(got, BatchError::Compression { codec: Codec::Gzip, .. }), "got {got:?}");
}

#[test]
fn an_append_time_goes_into_header_and_records() {
    for codec in Codec::ALL {
        let mut checked = check(produced(codec)).unwrap();
        checked.stamp(5000);
        assert_eq!(&checked.bytes(), &produced(codec), "only where it is asked for");
        checked.use_append_time();
        checked.stamp(5000);
        assert_eq!(checked.header().max_timestamp, 5000);
        let again = check(checked.place(3, 1)).unwrap();
        assert!(again.header().has_append_time() && again.header().is_transactional());
        let times: Vec<_> = records(&again.place(0, 0)).iter().map(|r| r.timestamp).collect();
        assert_eq!(times, [5000; 3]);
    }
}

#[test]
fn offsets_that_jump_are_not_followed() {
    let body = [14, 0, 0, 4, 1, 1, 0, 0];
    let got: Vec<_> = Records::of(&raw(1, Codec::None, &[&[12], &body[1..7]].concat())).unwrap().collect();
    assert_eq!(got, [Err(BatchError::Record { index: 0, what: "offset delta" })]);
    let twice = [[12, 0, 0, 0, 1, 1, 0], [12, 0, 0, 0, 1, 1, 0]].concat();
    let got: Vec<_> = Records::of(&raw(2, Codec::None, &twice)).unwrap().collect();
    assert_eq!(got[1], Err(BatchError::Record { index: 1, what: "offset delta" }));
}

#[test]
fn what_stays_keeps_offsets_times_headers_codec_and_producer() {
    for codec in Codec::ALL {
        let old = check(produced(codec)).unwrap().place(50, 4);
        let wanted: Vec<_> = records(&old).into_iter().filter(|r| r.offset != 50).collect();
        let Retained::Some(new) = retain(&old, 1 << 20, Horizon::Unchanged, |r| r.offset != 50).unwrap() else {
            panic!("{codec}: some stay")
        };
        assert_eq!(records(&new), wanted);
        let (was, is) = (BatchHeader::read(&old).unwrap(), BatchHeader::read(&new).unwrap());
        let expected =
            BatchHeader { count: 2, max_timestamp: 995, total_len: is.total_len, crc: header::crc_of(&new), ..was };
        assert_eq!(is, expected);
        assert_eq!(retain(&old, 1 << 20, Horizon::Unchanged, |_| true), Ok(Retained::All));
    }
}

#[test]
fn a_batch_whose_last_record_goes_keeps_its_place_and_its_sequence() {
    let old = check(produced(Codec::Lz4)).unwrap().place(50, 4);
    let Retained::None(empty) = retain(&old, 1 << 20, Horizon::Always(7), |_| false).unwrap() else {
        panic!("nothing stays")
    };
    let header = BatchHeader::read(&empty).unwrap();
    assert_eq!((header.base_offset, header.last_offset(), header.count, header.total_len), (50, 52, 0, 61));
    assert_eq!(header.producer(), Some(Producer { id: 4711, epoch: 2, base_sequence: 7 }));
    assert_eq!((header.codec(), header.leader_epoch, header.max_timestamp), (Ok(Codec::None), 4, 1000));
    assert_eq!(header.crc, header::crc_of(&empty));
    assert_eq!(records(&empty), []);
    assert_eq!(retain(&empty, 10, Horizon::Unchanged, |_| true), Ok(Retained::None(empty.clone())));
}

#[test]
fn a_delete_horizon_moves_the_base_timestamp_and_no_record() {
    for codec in Codec::ALL {
        let old = check(produced(codec)).unwrap().place(50, 4);
        let with_horizon = |batch: &Bytes, horizon| retain(batch, 1 << 20, horizon, |_| true).unwrap();
        let Retained::Some(new) = with_horizon(&old, Horizon::WithTombstones(123_456)) else { panic!("{codec}") };
        let header = BatchHeader::read(&new).unwrap();
        assert_eq!((header.delete_horizon(), header.base_timestamp), (Some(123_456), 123_456));
        assert_eq!(records(&new), records(&old));
        assert_eq!(with_horizon(&new, Horizon::WithTombstones(9)), Retained::All, "the first one counts");
        assert_eq!(with_horizon(&new, Horizon::Always(9)), Retained::All);
        let data_only = |horizon| retain(&old, 1 << 20, horizon, |r| r.value.is_some()).unwrap();
        let Retained::Some(data) = data_only(Horizon::WithTombstones(9)) else { panic!("{codec}") };
        assert_eq!(BatchHeader::read(&data).unwrap().delete_horizon(), None, "no tombstone stays");
        let Retained::Some(data) = data_only(Horizon::Always(9)) else { panic!("{codec}") };
        assert_eq!(BatchHeader::read(&data).unwrap().delete_horizon(), Some(9));
    }
}

type Plain = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn plain_records() -> impl Strategy<Value = Vec<Plain>> {
    let bytes = |len| proptest::collection::vec(any::<u8>(), 0..len);
    let header = (bytes(8), proptest::option::of(bytes(20)));
    let record = (
        any::<i64>(),
        proptest::option::of(bytes(40)),
        proptest::option::of(bytes(200)),
        proptest::collection::vec(header, 0..4),
    );
    proptest::collection::vec(record, 1..20)
}

fn build(codec: Codec, records: &[Plain]) -> CheckedBatch {
    let mut builder = BatchBuilder::default().codec(codec);
    for (time, key, value, headers) in records {
        let headers: Vec<HeaderRef<'_>> = headers.iter().map(|(k, v)| (&k[..], v.as_deref())).collect();
        builder.push_with_headers(*time, key.as_deref(), value.as_deref(), &headers);
    }
    builder.build().unwrap()
}

fn as_record(offset: Offset, (timestamp, key, value, headers): &Plain) -> Record {
    let bytes = |b: &Option<Vec<u8>>| b.clone().map(Bytes::from);
    let headers = headers.iter().map(|(k, v)| RecordHeader { key: k.clone().into(), value: bytes(v) });
    Record { offset, timestamp: *timestamp, key: bytes(key), value: bytes(value), headers: headers.collect() }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300), count in any::<i32>(), number in 0_u8..5) {
        let mut framed = BytesMut::from(&raw(3, Codec::from_number(number).unwrap(), &bytes)[..]);
        framed[57..61].copy_from_slice(&count.to_be_bytes());
        for batch in [Bytes::from(bytes.clone()), framed.freeze(), raw(2, Codec::from_number(number).unwrap(), &bytes)] {
            if let Ok(records) = Records::with_limit(&batch, 1 << 16) {
                prop_assert!(records.count() <= 1 << 16);
            }
            if let Ok(checked) = check(&batch) {
                drop(checked.validate(&RecordRules { limit_bytes: 1 << 16, ..RecordRules::default() }));
            }
            drop(retain(&batch, 1 << 16, Horizon::Always(3), |r| r.offset % 2 == 0));
        }
    }

    #[test]
    fn what_is_pushed_comes_back(records in plain_records()) {
        for codec in Codec::ALL {
            let batch = check(build(codec, &records).place(0, 0)).unwrap();
            prop_assert_eq!(batch.validate(&RecordRules::default()), Ok(()));
            let back: Vec<_> = Records::of(&batch.place(7, 0)).unwrap().map(Result::unwrap).collect();
            let wanted: Vec<_> = (7..).zip(&records).map(|(offset, plain)| as_record(offset, plain)).collect();
            prop_assert_eq!(back, wanted);
        }
    }

    #[test]
    fn what_is_retained_is_what_a_plain_list_retains(
        plain in plain_records(), passes in proptest::collection::vec((any::<u64>(), proptest::option::of(any::<i64>())), 1..4)) {
        for codec in Codec::ALL {
            let mut batch = build(codec, &plain).place(7, 0);
            let mut model: Vec<_> = (7..).zip(&plain).map(|(offset, plain)| as_record(offset, plain)).collect();
            let (mut horizon, mut max) = (None, model.iter().map(|r| r.timestamp).max().unwrap().max(-1));
            for (bits, at) in &passes {
                let keeps = |r: &Record| bits & 1 << (r.offset % 64) != 0;
                let before = model.len();
                model.retain(keeps);
                let set = at.filter(|_| horizon.is_none() && model.iter().any(|r| r.value.is_none()));
                let changed = before != model.len() || set.is_some();
                horizon = if model.is_empty() { None } else { set.or(horizon) };
                let got = retain(&batch, 1 << 20, at.map_or(Horizon::Unchanged, Horizon::WithTombstones), keeps).unwrap();
                match got {
                    Retained::All => prop_assert!(!changed && !model.is_empty()),
                    Retained::Some(new) => {
                        prop_assert!(changed && !model.is_empty());
                        max = model.iter().map(|r| r.timestamp).max().unwrap().max(-1);
                        batch = new;
                    }
                    Retained::None(new) => {
                        prop_assert!(model.is_empty());
                        batch = new;
                    }
                }
                let header = BatchHeader::read(&batch).unwrap();
                prop_assert_eq!(header.crc, header::crc_of(&batch));
                prop_assert_eq!((header.delete_horizon(), header.max_timestamp), (horizon, max));
                prop_assert_eq!((header.base_offset, header.last_offset()), (7, 6 + i64::try_from(plain.len()).unwrap()));
                prop_assert_eq!(&records(&batch), &model);
            }
        }
    }
}
