//! Anything that calls itself a record batch: checked, looked into, read and cleaned without a panic, and never beyond
//! the limit. Seeds: the batches in `storage/src/batch/fixtures.txt`.
#![no_main]

use azulite_storage::batch::{CheckedBatch, Horizon, RecordRules, Records, retain};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    look(bytes);
    // Most changes only break lengths and CRC: the same again with those made right.
    let mut fitting = BytesMut::from(bytes);
    let Ok(length) = i32::try_from(bytes.len().saturating_sub(12)) else { return };
    if bytes.len() >= 61 {
        fitting[8..12].copy_from_slice(&length.to_be_bytes());
        fitting[16] = 2;
        let crc = crc32c::crc32c(&fitting[21..]);
        fitting[17..21].copy_from_slice(&crc.to_be_bytes());
        look(&fitting);
    }
});

fn look(bytes: &[u8]) {
    let checked = CheckedBatch::check(BytesMut::from(bytes));
    let rules = RecordRules { limit_bytes: LIMIT, ..RecordRules::default() };
    let deep = checked.as_ref().is_ok_and(|checked| checked.validate(&rules).is_ok());
    let batch = bytes::Bytes::copy_from_slice(bytes);
    let read = Records::with_limit(&batch, LIMIT).map(|records| records.filter(Result::is_ok).count());
    if let (true, Ok(checked)) = (deep, checked) {
        assert_eq!(read.ok(), usize::try_from(checked.header().count).ok());
    }
    drop(retain(&batch, LIMIT, Horizon::WithTombstones(1), |record| record.offset % 2 == 0));
}
