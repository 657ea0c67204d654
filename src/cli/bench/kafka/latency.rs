//! How long a record takes from the moment it is to be sent to the moment a consumer has it.

use std::time::{Duration, Instant};

use anyhow::bail;
use rdkafka::consumer::BaseConsumer;
use rdkafka::message::Message as _;

use super::super::Bounds;
use super::cluster::{Cluster, Ear, Producer, complaint};
use super::consume::check;

/// How long records that are on the way may take to come.
const SILENCE: Duration = Duration::from_secs(20);
/// The time within a value, nanoseconds since the beginning.
const STAMP_LEN: usize = 8;

/// What was seen.
#[derive(Debug)]
pub(super) struct Latency {
    /// Of records sent in the measured time, in order.
    pub(super) sorted: Vec<Duration>,
    /// How long records were sent, with the ramp.
    pub(super) took: Duration,
}

/// Stands where the time would be, in records that only show that the consumer is there.
const NO_TIME: u64 = u64::MAX;

/// Sends at a fixed rate, without waiting for batches to fill, while a consumer reads. The time of a record is the one it
/// was due at: a producer that is held up does not hide what it waited. The clock starts once a record of each partition
/// has come through.
pub(super) fn run(cluster: &Cluster, topic: &str, bounds: Bounds) -> anyhow::Result<Latency> {
    let consumer = cluster.consumer(topic)?;
    let producer = cluster.producer(Some(Duration::ZERO))?;
    let options = cluster.options();
    let partitions = i32::from(options.partitions);
    for partition in 0..partitions {
        let value = stamped(cluster.values().next(), NO_TIME);
        while !producer.send(topic, Some(partition), &value)? {}
    }
    producer.flush()?;
    let begun = Instant::now();
    receive(cluster, &consumer, begun, (Duration::ZERO, u64::from(options.partitions)), &|| true)?;

    let begun = Instant::now();
    let every = Duration::from_secs(1) / options.rate.max(1);
    let time = bounds.warm_up + bounds.measured;
    let count = u64::try_from(time.as_nanos() / every.as_nanos().max(1))?.max(1);
    let count = count.min((bounds.bytes / options.size_bytes).max(1));
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| send(cluster, &producer, topic, begun, every, count));
        let received = receive(cluster, &consumer, begun, (bounds.warm_up, count), &|| sending.is_finished());
        let sent = sending.join().unwrap_or_else(|_| bail!("the sending thread stopped"));
        // Why nothing was sent says more than that nothing came.
        sent?;
        let mut sorted = received?;
        sorted.sort_unstable();
        Ok(Latency { sorted, took: begun.elapsed() })
    })
}

/// A value with a time in it.
fn stamped(value: &[u8], nanoseconds: u64) -> Vec<u8> {
    let mut value = value.to_vec();
    if let Some(stamp) = value.first_chunk_mut::<STAMP_LEN>() {
        *stamp = nanoseconds.to_be_bytes();
    }
    value
}

fn send(
    cluster: &Cluster,
    producer: &Producer,
    topic: &str,
    begun: Instant,
    every: Duration,
    count: u64,
) -> anyhow::Result<()> {
    let mut values = cluster.values();
    let mut due = begun.elapsed();
    for _ in 0..count {
        cluster.go_on()?;
        due += every;
        if let Some(early) = due.checked_sub(begun.elapsed()) {
            std::thread::sleep(early);
        }
        let value = stamped(values.next(), u64::try_from(due.as_nanos())?);
        while !producer.send(topic, None, &value)? {}
        producer.poll(Duration::ZERO)?;
    }
    producer.flush()
}

/// Takes `count` records; those that were due before `warm_up` had passed, or have no time, do not count.
fn receive(
    cluster: &Cluster,
    consumer: &BaseConsumer<Ear>,
    begun: Instant,
    (warm_up, count): (Duration, u64),
    sent: &dyn Fn() -> bool,
) -> anyhow::Result<Vec<Duration>> {
    let mut seen = Vec::new();
    let mut last = Instant::now();
    let mut records = 0;
    while records < count {
        cluster.go_on()?;
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => {
                let now = begun.elapsed();
                last = Instant::now();
                records += 1;
                let stamp = record.payload().and_then(|value| value.first_chunk::<STAMP_LEN>());
                let Some(stamp) = stamp else { bail!("a record came back without its time") };
                let stamp = u64::from_be_bytes(*stamp);
                let due = Duration::from_nanos(stamp);
                if stamp != NO_TIME && due >= warm_up {
                    seen.push(now.saturating_sub(due));
                }
            }
            Some(Err(error)) => check(&error)?,
            None => {}
        }
        if sent() && last.elapsed() > SILENCE {
            bail!("{records} of {count} records came back, then none for {SILENCE:?}{}", complaint(consumer));
        }
    }
    Ok(seen)
}
