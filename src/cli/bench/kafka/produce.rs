//! How fast records are taken in.

use std::time::{Duration, Instant};

use super::super::Bounds;
use super::Throughput;
use super::cluster::Cluster;

/// Records sent between two looks for acknowledgements.
const POLL_EVERY: u32 = 32;

/// Sends as fast as the server acknowledges, with librdkafka's usual batching. Acknowledgements within the measured time
/// count.
pub(super) fn run(cluster: &Cluster, topic: &str, bounds: Bounds) -> anyhow::Result<Throughput> {
    let producer = cluster.producer(None)?;
    let mut values = cluster.values();
    let size = cluster.options().size_bytes;
    let begun = Instant::now();
    let (mut sent, mut since_poll) = (0, 0);
    let mut window = None;
    while begun.elapsed() < bounds.warm_up + bounds.measured && sent + size <= bounds.bytes {
        let value = values.next();
        while !producer.send(topic, None, value)? {
            cluster.go_on()?;
        }
        sent += size;
        since_poll += 1;
        if since_poll >= POLL_EVERY {
            since_poll = 0;
            cluster.go_on()?;
            producer.poll(Duration::ZERO)?;
        }
        if window.is_none() && begun.elapsed() >= bounds.warm_up {
            window = Some((Instant::now(), producer.acked()));
        }
    }
    let (since, before) = window.unwrap_or((begun, Default::default()));
    let (mb_s, rec_s) = (producer.acked() - before).rates(since.elapsed());
    producer.flush()?;
    Ok(Throughput { mb_s, rec_s, all: producer.acked() })
}
