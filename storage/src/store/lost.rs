//! Records that the index knows and the log has no longer: what a power cut took from a log that was not synced.
//! Called by [`Store::open`](super::Store::open) around a rebuild of the index.

use std::collections::HashMap;

use crate::ids::{Offset, PartitionNumber, SegmentNumber, TopicPartition};
use crate::index::{Index, IndexError, StateKeyspace};
use crate::keys::log::{BatchKey, BatchRow};
use crate::keys::marker::Marker;
use crate::recover::Recovered;
use crate::segments::Segments;
use crate::state::{DamageRecord, StateKey, TopicRecord, value};

/// A range of offsets that was acknowledged and is gone.
#[derive(Clone, Debug)]
pub(super) struct LostRange {
    pub(super) partition: PartitionNumber,
    /// What the index called the partition: its topic may be gone as well.
    pub(super) name: Option<TopicPartition>,
    pub(super) from: Offset,
    pub(super) record: DamageRecord,
}

/// What an index that is about to be deleted knows of places that may be gone or be cut off.
#[derive(Debug, Default)]
pub(super) struct AtRisk {
    rows: Vec<(BatchKey, BatchRow)>,
    names: HashMap<PartitionNumber, TopicPartition>,
}

impl AtRisk {
    /// Everything from the marker's segment on, because a torn tail may be cut there, and what lies past the end of an
    /// earlier segment.
    pub(super) fn of(index: &Index, segments: &Segments, marker: Marker) -> Result<Self, IndexError> {
        let mut at_risk = Self::default();
        let mut lengths: HashMap<SegmentNumber, u64> = HashMap::new();
        for row in index.all_batches() {
            let (key, row) = row?;
            let number = row.segment();
            let open = || segments.open(number).and_then(|file| file.len()).unwrap_or(0);
            let len = *lengths.entry(number).or_insert_with(open);
            let end = row.position + crate::frame::frame_len(row.payload_len);
            if number >= marker.segment() || end > len {
                at_risk.rows.push((key, row));
            }
        }
        for row in index.state_prefix(StateKeyspace::State, &StateKey::topics()) {
            let (key, bytes) = row?;
            let record = value::<TopicRecord>(&bytes).zip(StateKey::decode(&key));
            let Some((record, StateKey::Topic(topic))) = record else { continue };
            let named = |(partition, number)| (number, TopicPartition { topic: topic.clone(), partition });
            at_risk.names.extend((0..).zip(record.partitions()).map(named));
        }
        Ok(at_risk)
    }

    /// What of it the index, brought to the end of the log again, does not have, and recovery has not named itself.
    pub(super) fn lost(
        self,
        index: &Index,
        segments: &Segments,
        recovered: &Recovered,
    ) -> Result<Vec<LostRange>, IndexError> {
        let named = |key: &BatchKey| {
            let mut ranges = recovered.damage.iter().filter_map(|bad| bad.lost);
            ranges.any(|(partition, from, end)| partition == key.partition && (from..end).contains(&key.base_offset))
        };
        let mut lost: Vec<LostRange> = Vec::new();
        for (key, row) in self.rows {
            let found = index.batch_at_or_before(key.partition, key.base_offset)?;
            let place = |row: &BatchRow| (row.segment(), row.position);
            let there = found.is_some_and(|(base, now)| {
                base == key.base_offset && (place(&now) == place(&row) || segments.is_cleaned(now.segment()))
            });
            if there || named(&key) {
                continue;
            }
            let end = key.base_offset + i64::from(row.last_offset_delta) + 1;
            match lost.last_mut() {
                // One range from the first place on, not one for each batch.
                Some(last)
                    if (last.partition, last.record.end, last.record.segment())
                        == (key.partition, key.base_offset, row.segment()) =>
                {
                    last.record.end = end;
                }
                Some(_) | None => lost.push(LostRange {
                    partition: key.partition,
                    name: self.names.get(&key.partition).cloned(),
                    from: key.base_offset,
                    record: DamageRecord::new(end, row.segment(), row.position),
                }),
            }
        }
        Ok(lost)
    }
}
