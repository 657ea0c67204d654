//! How fast records are given out.

use std::time::{Duration, Instant};

use anyhow::bail;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;

use super::super::Bounds;
use super::cluster::{Cluster, Ear, complaint};
use super::{Amount, Throughput};

/// How long nothing may come.
const SILENCE: Duration = Duration::from_secs(30);
/// A reading that takes this many times as long as it is to be measured is ended.
const PATIENCE: u32 = 4;

/// Reads the topic from its beginning to its end. Time counts from the first record.
pub(super) fn run(cluster: &Cluster, topic: &str, records: u64, bounds: Bounds) -> anyhow::Result<Throughput> {
    let consumer = cluster.consumer(topic)?;
    let mut all = Amount::default();
    let mut first: Option<Instant> = None;
    let limit = bounds.measured * PATIENCE + Duration::from_secs(10);
    while all.records < records {
        let Some(bytes) = next(cluster, &consumer)? else {
            bail!("{} of {records} records came back, then none for {SILENCE:?}{}", all.records, complaint(&consumer));
        };
        let first = *first.get_or_insert_with(Instant::now);
        all.records += 1;
        all.bytes += bytes;
        if all.records.is_multiple_of(1024) && first.elapsed() > limit {
            break;
        }
    }
    let (mb_s, rec_s) = all.rates(first.map(|first| first.elapsed()).unwrap_or_default());
    Ok(Throughput { mb_s, rec_s, all })
}

/// Bytes of the next value; `None` after a long silence.
fn next(cluster: &Cluster, consumer: &BaseConsumer<Ear>) -> anyhow::Result<Option<u64>> {
    let begun = Instant::now();
    loop {
        cluster.go_on()?;
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(record)) => {
                return Ok(Some(record.payload().map_or(0, |value| u64::try_from(value.len()).unwrap_or(0))));
            }
            Some(Err(error)) => check(&error)?,
            None => {}
        }
        if begun.elapsed() > SILENCE {
            return Ok(None);
        }
    }
}

/// Errors that do not pass by themselves; librdkafka tries again after all others.
///
/// # Errors
/// It is one of those.
pub(super) fn check(error: &KafkaError) -> anyhow::Result<()> {
    if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
        bail!("records cannot be consumed: {error}");
    }
    tracing::debug!("librdkafka: {error}");
    Ok(())
}
