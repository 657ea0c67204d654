//! The steps of opening a data directory, in the order [`Store::open`](super::Store::open) takes them.

use std::collections::HashMap;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use super::lost::{AtRisk, LostRange};
use super::{Core, OpenError, Options, ThreadBody, Threads};
use crate::apply::{Expiry, Pending};
use crate::batch::Records;
use crate::blob::BlobFiles;
use crate::cache::BatchCache;
use crate::catalogue::{Catalogue, Replay};
use crate::cleaner::Cleaner;
use crate::commit::Committer;
use crate::encoding::{Codecs, Encoding};
use crate::format::{self, DirLock};
use crate::fs::Fs;
use crate::ids::{Offset, PartitionNumber, SegmentNumber, TopicPartition};
use crate::index::{Index, IndexError, StateKeyspace};
use crate::keeper::Keeper;
use crate::keys::cleaned::Claims;
use crate::log::ReadError;
use crate::maintenance::Maintenance;
use crate::partition::{LeaderEpoch, Partition};
use crate::producers::ProducerIds;
use crate::publish::Publishing;
use crate::queue::Queue;
use crate::recover::cleaned::{Fit, fit};
use crate::recover::{Recovered, Recovery, damage_record, log_start};
use crate::secret::{self, KeyCheck};
use crate::segments::Segments;
use crate::state::{
    Change, DamageRecord, EpochsRecord, FIRST_PARTITION, OFFSETS_PARTITION, OFFSETS_TOPIC, STATE_PARTITION,
    STATE_TOPIC, StateKey, TopicRecord, value,
};
use crate::topics::{Topic, TopicSettings, Topics};

/// A name found here may have been made by a process that was killed before the name was durable.
pub(super) fn settle_names(fs: &dyn Fs, root: &Path) -> Result<(), OpenError> {
    let io_error = |path: &Path, error| OpenError::Io { path: path.to_owned(), error };
    for folder in root.ancestors().filter(|path| !path.as_os_str().is_empty()) {
        match fs.sync_dir(folder) {
            // A folder above that is not ours to open or write was not made by us either.
            Err(error) if folder != root && is_refused(error.kind()) => {}
            Err(error) => return Err(io_error(folder, error)),
            Ok(()) => {}
        }
    }
    Ok(())
}

fn is_refused(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(kind, PermissionDenied | ReadOnlyFilesystem | InvalidInput | Unsupported)
}

pub(super) fn take_lock(fs: &dyn Fs, options: &Options) -> Result<DirLock, OpenError> {
    let root = &options.root;
    DirLock::take(fs, root).map_err(|error| {
        if error.kind() != io::ErrorKind::WouldBlock {
            return OpenError::Io { path: root.clone(), error };
        }
        let pid = format::holder(fs, root).pid.map_or("unknown".to_owned(), |pid| pid.to_string());
        OpenError::Locked { path: root.clone(), holder: format!("process {pid}") }
    })
}

/// Opens the index and brings it to the end of the log; one that does not open or does not belong is built anew.
pub(super) fn recover(
    fs: &Arc<dyn Fs>,
    segments: &Segments,
    options: &Options,
) -> Result<(Index, Recovered, Vec<LostRange>), OpenError> {
    let path = options.index_dir.clone().unwrap_or_else(|| options.root.join("index"));
    let io_error = |error| OpenError::Io { path: path.clone(), error };
    let mut at_risk = AtRisk::default();
    let mut synced = 0;
    let numbers = segments.list().map_err(io_error)?;
    let opened = std::panic::catch_unwind(AssertUnwindSafe(|| {
        Index::open(&path).and_then(|index| index.marker().map(|marker| (index, marker)))
    }));
    let index = match opened {
        Ok(Ok((index, None))) if index.is_empty()? => index,
        // Half-built.
        Ok(Ok((index, None))) => {
            drop(index);
            fresh_index(&path).map_err(io_error)??
        }
        Ok(Ok((index, Some(marker)))) => match fit(&index, segments, &numbers, marker)? {
            Fit::Yes => index,
            Fit::IndexBehind => {
                synced = marker.synced;
                tracing::info!("the index does not know what was removed from the log since, and is built anew");
                drop(index);
                fresh_index(&path).map_err(io_error)??
            }
            Fit::IndexAhead => {
                synced = marker.synced;
                tracing::error!("the index is ahead of the log: acknowledged records are missing; it is built anew");
                at_risk = AtRisk::of(&index, segments, marker)?;
                drop(index);
                fresh_index(&path).map_err(io_error)??
            }
        },
        // Never deleted under somebody who uses it.
        Ok(Err(error)) if error.is_locked() => return Err(error.into()),
        Ok(Err(error)) => {
            tracing::info!(%error, "the index does not open and is built anew from the log");
            fresh_index(&path).map_err(io_error)??
        }
        Err(_) => fresh_index(&path).map_err(io_error)??,
    };
    let lost_and_found = options.root.join("lost+found");
    let recovery = Recovery::new(fs, segments, &index, &lost_and_found, synced);
    let recovered = recovery.expiring_producers(options.producer_expiration_ms).run()?;
    let lost = at_risk.lost(&index, segments, &recovered)?;
    Ok((index, recovered, lost))
}

fn fresh_index(path: &std::path::Path) -> io::Result<Result<Index, OpenError>> {
    crate::fs::remove_tree(path)?;
    Ok(Index::open(path).map_err(OpenError::Index))
}

fn internal(number: PartitionNumber, topic: &str) -> Arc<Partition> {
    Arc::new(Partition::new(number, TopicPartition { topic: topic.to_owned(), partition: 0 }))
}

pub(super) fn build_core(
    fs: Arc<dyn Fs>,
    options: Options,
    (segments, index, catalogue, lock): (Arc<Segments>, Index, Catalogue, DirLock),
    recovered: &Recovered,
) -> Result<Core, OpenError> {
    let state_partition = internal(STATE_PARTITION, STATE_TOPIC);
    let offsets_partition = internal(OFFSETS_PARTITION, OFFSETS_TOPIC);
    let topics = Topics::default();
    let mut partitions = HashMap::new();
    for (partition, id) in [(&state_partition, 1), (&offsets_partition, 2)] {
        restore(&index, partition)?;
        partitions.insert(partition.number(), partition.clone());
        topics.insert(Topic::internal(partition.clone(), id));
    }
    for row in index.state_prefix(StateKeyspace::State, &StateKey::topics()) {
        let (key, bytes) = row?;
        let record = value::<TopicRecord>(&bytes).zip(StateKey::decode(&key));
        let Some((record, StateKey::Topic(name))) = record else {
            return Err(IndexError::Row { keyspace: "state", key: format!("{key:?}") }.into());
        };
        let topic = Topic::from_record(&name, &record, &TopicSettings::default());
        for partition in &topic.partitions {
            restore(&index, partition)?;
            partitions.insert(partition.number(), partition.clone());
        }
        topics.insert(topic);
    }
    let keeper = Keeper::new(
        fs.clone(),
        segments.clone(),
        options.root.clone(),
        (options.segment_bytes, options.reserve_bytes),
        SegmentNumber(recovered.next_segment.max(1)),
    );
    let producer_ids = ProducerIds::read(&index)?;
    let check = key_check(&index)?;
    let key = secret::open(fs.as_ref(), &options.root, check, options.encoding != Encoding::Plain)?;
    let codecs = Codecs::new(options.encoding, key);
    let core = Core {
        opened: Instant::now(),
        maintenance: Maintenance::new(options.maintenance),
        newest_append_ms: recovered.append_ms,
        clock_guard: Mutex::default(),
        read_bytes: AtomicU64::new(0),
        clock_held: AtomicBool::new(index.state(StateKeyspace::State, &StateKey::ClockHold.encode())?.is_some()),
        blobs: BlobFiles::open(fs.clone(), &options.root, options.inline_bytes, codecs)?,
        publishing: Publishing::default(),
        pending: Pending::default(),
        cache: BatchCache::new(options.cache_bytes),
        queue: Queue::new(options.queue_bytes),
        partitions: RwLock::new(partitions),
        synced: AtomicU64::new(recovered.last_commit),
        listener: OnceLock::new(),
        sync_listener: OnceLock::new(),
        fs,
        fatal: Mutex::new(None),
        options,
        segments,
        index,
        keeper,
        cleaner: Cleaner::default(),
        catalogue,
        state_partition,
        offsets_partition,
        topics,
        producer_ids,
        lock,
    };
    for (partition, from, record) in stored_damage(&core.index)? {
        let partitions = core.partitions.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(partition) = partitions.get(&partition) {
            note_damage(partition, from, record);
        }
    }
    Ok(core)
}

fn key_check(index: &Index) -> Result<Option<KeyCheck>, OpenError> {
    let Some(bytes) = index.state(StateKeyspace::State, &StateKey::KeyCheck.encode())? else { return Ok(None) };
    let damaged = || IndexError::Row { keyspace: "state", key: "key check".to_owned() };
    Ok(Some(value(&bytes).ok_or_else(damaged)?))
}

/// Records what a new key is known by, before anything is stored with it.
pub(super) fn note_key(core: &Core) -> Result<(), OpenError> {
    let Some(key) = core.blobs.codecs().key().filter(|_| core.options.encoding != Encoding::Plain) else {
        return Ok(());
    };
    if key_check(&core.index)?.is_none() {
        let change = Change::put(&StateKey::KeyCheck, &KeyCheck::of(key));
        core.change_wait(vec![(StateKeyspace::State, change)], false)?;
    }
    Ok(())
}

fn note_damage(partition: &Partition, from: Offset, record: DamageRecord) {
    let offsets = partition.offsets();
    if record.end > offsets.high_watermark {
        partition.extend_to(record.end);
    }
    partition.add_damage(from, record);
}

/// Sets a partition's ends from its rows.
fn restore(index: &Index, partition: &Partition) -> Result<(), OpenError> {
    let number = partition.number();
    let last = index.batch_at_or_before(number, Offset::MAX)?;
    let end = last.map_or(0, |(base, row)| base + i64::from(row.last_offset_delta) + 1);
    partition.restore(log_start(index, number)?, end, index.last_time_row(number)?);
    let key = StateKey::Epochs(number).encode();
    if let Some(record) = index.state(StateKeyspace::State, &key)?.and_then(|bytes| value::<EpochsRecord>(&bytes)) {
        partition.epochs().extend(record.0.into_iter().map(|(epoch, start)| LeaderEpoch { epoch, start }));
    }
    Ok(())
}

fn stored_damage(index: &Index) -> Result<Vec<(PartitionNumber, Offset, DamageRecord)>, OpenError> {
    let mut damage = Vec::new();
    for row in index.state_prefix(StateKeyspace::State, &StateKey::damage()) {
        let (key, bytes) = row?;
        if let (Some(StateKey::Damage(partition, from)), Some(record)) = (StateKey::decode(&key), value(&bytes)) {
            damage.push((partition, from, record));
        }
    }
    Ok(damage)
}

/// Replays blob references from the state topic into the catalogue, from the offset it holds.
pub(super) fn bring_catalogue_forward(core: &Core, replay: Replay) -> Result<(), OpenError> {
    let state = &core.state_partition;
    let end = state.offsets().high_watermark;
    let mut claims = Claims::default();
    claims.extend(core.index.cleaned()?.into_values().flat_map(|head| head.claims));
    match replay {
        // Where state was compacted the removal of a reference may be gone with the reference.
        Replay::From(offset) if offset <= end && offset >= claims.compacted_to(STATE_PARTITION) => {
            let mut next = offset;
            while next < end {
                let batches = core.read(state, next, 1 << 20)?;
                let mut changes = Vec::new();
                for batch in &batches {
                    let records = Records::of(batch).map_err(|error| ReadError::batch(state, next, &error))?;
                    let end = records.header().last_offset() + 1;
                    for record in records {
                        let record = record.map_err(|error| ReadError::batch(state, next, &error))?;
                        if let Some(key) = record.key {
                            changes.push(Change { key, value: record.value });
                        }
                    }
                    next = next.max(end);
                }
                core.catalogue.apply(next, changes.iter())?;
                if batches.is_empty() {
                    break;
                }
            }
        }
        // Ahead of the log, too far behind, or empty: every reference, straight from the index.
        Replay::From(_) | Replay::Everything => {
            core.catalogue.clear()?;
            let mut changes = Vec::new();
            for row in core.index.state_prefix(StateKeyspace::State, &StateKey::blob_refs()) {
                let (key, bytes) = row?;
                changes.push(Change { key, value: Some(bytes) });
                if changes.len() == 4096 {
                    core.catalogue.apply(0, changes.iter())?;
                    changes.clear();
                }
            }
            core.catalogue.apply(0, changes.iter())?;
            // Before state offsets that it was ahead of are given again: a kill must not bring the old entries back.
            core.catalogue.close(end)?;
        }
    }
    Ok(())
}

pub(super) fn start_threads(core: &Arc<Core>, recovered: &Recovered) -> Result<Threads, OpenError> {
    core.keeper.check_room();
    let mut committer = Committer::new(core.clone(), recovered.last_commit, recovered.append_ms);
    let spawn = |name: &str, run: ThreadBody| {
        let shared = core.clone();
        let body = move || {
            let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| run(&shared)));
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => shared.stop_with(&reason),
                Err(_) => shared.stop_with("a storage thread panicked"),
            }
        };
        let thread = std::thread::Builder::new().name(format!("azulite-{name}")).spawn(body);
        thread.map_err(|error| OpenError::Io { path: core.options.root.clone(), error })
    };
    let text = |prefix: &'static str| move |error: &dyn std::fmt::Display| format!("{prefix}: {error}");
    let (log, index, keep, catalogue) =
        (text("writing the log failed"), text("the index failed"), text("a segment failed"), text("the catalogue"));
    let maintenance = match core.options.maintenance {
        Some(_) => Some(spawn("upkeep", Box::new(|core| core.maintenance.run(core).map_err(|e| e.to_string())))?),
        None => None,
    };
    let clean = text("the index failed");
    Ok(Threads {
        maintenance,
        applier: spawn(
            "apply",
            Box::new(move |core| {
                core.pending.run(&core.index, &core.cache, Expiry::new(&core.options)).map_err(|e| index(&e))
            }),
        )?,
        keeper: spawn("segments", Box::new(move |core| core.keeper.run().map_err(|e| keep(&e))))?,
        cleaner: spawn("clean", Box::new(move |core| core.cleaner.run(core).map_err(|e| clean(&e))))?,
        catalogue: spawn("catalogue", Box::new(move |core| core.catalogue.run().map_err(|e| catalogue(&e))))?,
        committer: spawn("commit", Box::new(move |_| committer.run().map_err(|e| log(&e))))?,
    })
}

/// Names damage found now, and records lost ranges so that they stay named.
pub(super) fn report_damage(
    core: &Core,
    recovered: &Recovered,
    lost: Vec<LostRange>,
) -> Result<Vec<String>, OpenError> {
    let place = |segment: SegmentNumber, from: u64| format!("segment {segment}, position {from}");
    let mut lines = Vec::new();
    let mut ranges = lost;
    for bad in &recovered.damage {
        match (bad.lost, bad.blob) {
            (Some((partition, from, end)), _) => {
                ranges.push(LostRange { partition, name: None, from, record: damage_record(bad, end) });
            }
            (None, Some(hash)) => {
                lines.push(format!("{}: blob {hash} cannot be read", place(bad.segment, bad.from)));
            }
            (None, None) => lines.push(format!("{}..{}: no frame can be read", place(bad.segment, bad.from), bad.to)),
        }
    }
    let lost_blobs = &recovered.lost_blobs;
    lines.extend(lost_blobs.some.iter().map(|hash| format!("blob {hash} cannot be read: the log has no frame of it")));
    let more = lost_blobs.count.saturating_sub(u64::try_from(lost_blobs.some.len()).unwrap_or(0));
    lines.extend((more > 0).then(|| format!("{more} more blobs cannot be read: the log has no frame of them")));
    let mut changes = Vec::new();
    let partitions = core.partitions.read().unwrap_or_else(PoisonError::into_inner).clone();
    for LostRange { partition: number, name, from, record } in ranges {
        let partition = partitions.get(&number);
        let name = partition.map(|p| p.name()).or(name.as_ref());
        // What nobody may read any more is not missed: deleted topics, and records below the log start.
        let passed = partition.map_or(name.is_none(), |p| record.end <= p.offsets().log_start);
        if passed {
            continue;
        }
        let name = name.map_or(format!("partition number {}", number.0), ToString::to_string);
        let last = record.end - 1;
        lines.push(format!("{name} offsets {from} to {last} are lost: {}", place(record.segment(), record.position)));
        // Of state that was never synced nothing is left that would tell of it: it stands as it was before, its offsets
        // and the numbers of topics that are gone are given again.
        if let Some(partition) = partition.filter(|p| p.number() >= FIRST_PARTITION) {
            changes.push((StateKeyspace::State, Change::put(&StateKey::Damage(number, from), &record)));
            note_damage(partition, from, record);
        }
    }
    lines.iter().for_each(|line| tracing::error!("damage: {line}"));
    if !changes.is_empty() {
        core.change_wait(changes, false)?;
    }
    core.synced.fetch_max(recovered.last_commit, Ordering::AcqRel);
    Ok(lines)
}
