use super::*;
use crate::batch::{BatchBuilder, Producer};

fn header(epoch: i16, first: i32, count: i32) -> BatchHeader {
    let producer = Producer { id: 1, epoch, base_sequence: first };
    let mut builder = BatchBuilder::default().producer(producer);
    (0..count).for_each(|_| builder.push(0, None, None));
    *builder.build().unwrap().header()
}

fn marker(epoch: i16) -> BatchHeader {
    let mut builder = BatchBuilder::default().producer(Producer { id: 1, epoch, base_sequence: -1 }).control();
    builder.push(0, Some(&[0; 4]), None);
    *builder.build().unwrap().header()
}

/// A row behind these batches, given as first sequence and count, at offsets 0, 100, 200 and so on.
fn row(epoch: i16, batches: &[(i32, i32)]) -> ProducerRow {
    let step = |row, (offset, (first, count)): (Offset, &(i32, i32))| {
        Some(advance(row, &header(epoch, *first, *count), offset * 100, offset))
    };
    (0..).zip(batches).fold(None, step).unwrap()
}

fn duplicate(first_sequence: i32, last_sequence: i32, expected: i32) -> SequenceError {
    SequenceError::Duplicate { first_sequence, last_sequence, expected }
}

fn out_of_order(first_sequence: i32, expected: i32) -> SequenceError {
    SequenceError::OutOfOrder { first_sequence, expected }
}

#[test]
fn the_rules_of_one_epoch() {
    const LAST: i32 = i32::MAX;
    let seven: &[(i32, i32)] = &[(0, 2), (2, 1), (3, 4), (7, 1), (8, 2), (10, 1), (11, 3)];
    let wraps: &[(i32, i32)] = &[(LAST - 5, 4), (LAST - 1, 4), (2, 1)];
    // What was written; first sequence and count that come; what becomes of them: the offset of the duplicate, or none.
    type Case<'a> = (&'a [(i32, i32)], i32, i32, Result<Option<Offset>, SequenceError>);
    let cases: [Case<'_>; 27] = [
        (&[(0, 1)], 1, 1, Ok(None)),
        (&[(0, 1)], 0, 1, Ok(Some(0))),
        (&[(0, 1)], 2, 1, Err(out_of_order(2, 1))),
        (&[(0, 1)], LAST, 1, Err(out_of_order(LAST, 1))),
        (&[(0, 5)], 0, 4, Err(duplicate(0, 3, 5))),
        (&[(0, 5)], 1, 4, Err(duplicate(1, 4, 5))),
        (&[(0, 5)], 0, 6, Err(out_of_order(0, 5))),
        (&[(0, 5)], 4, 2, Err(out_of_order(4, 5))),
        (seven, 14, 9, Ok(None)),
        (seven, 11, 3, Ok(Some(600))),
        (seven, 10, 1, Ok(Some(500))),
        (seven, 8, 2, Ok(Some(400))),
        (seven, 7, 1, Ok(Some(300))),
        (seven, 3, 4, Ok(Some(200))),
        (seven, 2, 1, Err(duplicate(2, 2, 14))),
        (seven, 0, 2, Err(duplicate(0, 1, 14))),
        (seven, 0, 14, Err(duplicate(0, 13, 14))),
        (seven, 15, 1, Err(out_of_order(15, 14))),
        (seven, LAST, 1, Err(out_of_order(LAST, 14))),
        (wraps, 3, 1, Ok(None)),
        (wraps, LAST - 1, 4, Ok(Some(100))),
        (wraps, LAST - 5, 4, Ok(Some(0))),
        (wraps, LAST, 2, Err(duplicate(LAST, 0, 3))),
        (wraps, LAST - 6, 2, Err(out_of_order(LAST - 6, 3))),
        (wraps, 4, 1, Err(out_of_order(4, 3))),
        // What came before the first that was ever seen is not known to be stored.
        (&[(100, 10)], 90, 10, Err(out_of_order(90, 110))),
        (&[(100, 10)], 99, 2, Err(out_of_order(99, 110))),
    ];
    for (written, first, count, wanted) in cases {
        let row = row(3, written);
        let got = check(&row, &header(3, first, count)).map(|found| found.map(|batch| batch.base_offset));
        assert_eq!(got, wanted, "{written:?}, then {first} x {count}");
        assert!(row.batches.len() <= REMEMBERED);
    }
}

#[test]
fn a_lower_epoch_is_fenced_and_a_higher_one_begins_at_zero() {
    let row = row(3, &[(0, 2), (2, 2)]);
    assert_eq!(check(&row, &header(2, 4, 1)), Err(SequenceError::Epoch { epoch: 2, current: 3 }));
    assert_eq!(check(&row, &header(2, 0, 2)), Err(SequenceError::Epoch { epoch: 2, current: 3 }));
    assert_eq!(check(&row, &header(4, 4, 1)), Err(out_of_order(4, 0)));
    assert_eq!(check(&row, &header(4, 0, 1)), Ok(None));
    let higher = advance(Some(row), &header(4, 0, 1), 50, 9);
    let batch = WrittenBatch { first_sequence: 0, last_sequence: 0, base_offset: 50, append_time_ms: 9 };
    assert_eq!(higher, ProducerRow { epoch: 4, batches: vec![batch], run: 1, last_write_ms: 9 });
    assert_eq!(check(&higher, &header(4, 2, 2)), Err(out_of_order(2, 1)), "the old epoch's batches are forgotten");
}

#[test]
fn a_marker_has_no_sequence_but_an_epoch() {
    let row = row(3, &[(0, 2)]);
    assert_eq!(check(&row, &marker(3)), Ok(None));
    let same = advance(Some(row.clone()), &marker(3), 2, 8);
    assert_eq!(same, ProducerRow { last_write_ms: 8, ..row.clone() });
    let bumped = advance(Some(row.clone()), &marker(4), 2, 8);
    assert_eq!(bumped, ProducerRow { epoch: 4, batches: Vec::new(), run: 0, last_write_ms: 8 });
    assert_eq!(check(&bumped, &header(4, 0, 1)), Ok(None));
    assert_eq!(check(&bumped, &header(4, 2, 1)), Err(out_of_order(2, 0)));
    assert_eq!(check(&bumped, &header(3, 2, 1)), Err(SequenceError::Epoch { epoch: 3, current: 4 }));
    assert_eq!(check(&bumped, &marker(3)), Err(SequenceError::Epoch { epoch: 3, current: 4 }));
}

#[test]
fn what_does_not_follow_begins_anew() {
    let old = row(3, &[(0, 2), (2, 2)]);
    let new = advance(Some(old), &header(3, 7, 2), 70, 9);
    let batch = WrittenBatch { first_sequence: 7, last_sequence: 8, base_offset: 70, append_time_ms: 9 };
    assert_eq!(new, ProducerRow { epoch: 3, batches: vec![batch], run: 2, last_write_ms: 9 });
}

#[test]
fn expiry_counts_from_the_last_write() {
    let row = ProducerRow { last_write_ms: 1000, ..row(0, &[(0, 1)]) };
    assert!(!has_expired(&row, 1500, 500) && has_expired(&row, 1501, 500));
    assert!(!has_expired(&row, i64::MAX, i64::MAX));
}
