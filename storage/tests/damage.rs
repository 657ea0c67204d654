//! Damaged and torn stores: they open with nothing acknowledged lost, or name what is lost, and the rest stays readable.
//! The law NO-SKIP.
//!
//! What may be lost without a word is a torn tail: with the index gone, nothing says that the last commit was synced
//! but the frames after it, and there are none.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests: a panic is how they fail")]

mod support;

use azulite_storage::format::FormatError;
use azulite_storage::frame::{FrameHeader, FrameKind, HEADER_LEN};
use azulite_storage::ids::{PartitionNumber, TopicPartition};
use azulite_storage::log::ReadError;
use azulite_storage::state::{BlobRefKey, FIRST_PARTITION};
use azulite_storage::{Durability, OpenError, Options, Records};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::ledger::Line;
use support::rng::Rng;
use support::session::{Places, Session, content_hash, fast_tempdir, small_options};
use support::sim_fs::SimFs;

const PARTITIONS: i32 = 3;

fn name(partition: i32) -> TopicPartition {
    TopicPartition { topic: "t".to_owned(), partition }
}

fn line(text: &str) -> Line {
    Line { key: None, value: Some(text.as_bytes().to_vec()), timestamp: 1 }
}

/// One frame of the log as it should be.
#[derive(Clone, Debug)]
struct Framed {
    header: FrameHeader,
    path: PathBuf,
    /// Header and payload, without the padding, in bytes from the start of the segment.
    bytes: Range<usize>,
}

impl Framed {
    fn is_state(&self) -> bool {
        self.header.partition < FIRST_PARTITION
    }

    fn offsets(&self) -> Range<i64> {
        self.header.base_offset..self.header.base_offset + i64::from(self.header.last_offset_delta) + 1
    }

    /// Whether the damage changes its header or payload; a cut, also its padding.
    fn is_hit(&self, image: &Image, case: &Case) -> bool {
        self.is_changed(image, case, self.bytes.clone())
            || case.change == Change::Cut
                && self.path == case.path
                && self.bytes.end.next_multiple_of(8) > case.range.start
    }

    /// Whether the damage changes its header, so that nothing tells what it was.
    fn is_nameless(&self, image: &Image, case: &Case) -> bool {
        self.is_changed(image, case, self.bytes.start..self.bytes.start + HEADER_LEN)
    }

    fn is_changed(&self, image: &Image, case: &Case, bytes: Range<usize>) -> bool {
        let both = bytes.start.max(case.range.start)..bytes.end.min(case.range.end);
        self.path == case.path
            && match case.change {
                Change::Cut => bytes.end > case.range.start,
                Change::Flip => !both.is_empty(),
                Change::Zero => !both.is_empty() && image.contents[&self.path][both].iter().any(|byte| *byte != 0),
            }
    }
}

/// A store that was killed after everything was acknowledged, synced and indexed.
struct Image {
    fs: SimFs,
    real: tempfile::TempDir,
    frames: Vec<Framed>,
    contents: BTreeMap<PathBuf, Vec<u8>>,
    numbers: BTreeMap<PartitionNumber, TopicPartition>,
}

fn options(places: &Places) -> Options {
    Options { segment_bytes: 8 << 10, ..small_options(places) }
}

impl Image {
    /// Two sealed segments and one that is being appended to, of commits with one to three frames.
    fn new() -> Self {
        let (fs, real) = (SimFs::new(1), fast_tempdir());
        let session = Session::open(&fs, options(&Places::below(&real.path().join("used")))).unwrap();
        session.create_topic("t", PARTITIONS).unwrap();
        session.create_topic("other", 1).unwrap();
        let mut rng = Rng::new(7);
        for number in 0.. {
            if number >= 60 && frames(&fs).last().is_some_and(|last| last.bytes.end > 5000) {
                break;
            }
            let count = i32::try_from(rng.between(1, 3)).unwrap();
            let part = |at: i32| {
                let text = format!("record {number}-{at} {}", "x".repeat(usize::try_from(at * 9).unwrap()));
                (name(i32::try_from(rng.below(3)).unwrap()), vec![line(&text), line("second")])
            };
            session.append(1, &(0..count).map(part).collect::<Vec<_>>()).wait().unwrap();
        }
        session.index_dump().unwrap();
        let numbers = (0..PARTITIONS).map(|p| (session.partition(&name(p)).number(), name(p))).collect();
        let killed = fs.kill().snapshot();
        drop(session);
        Places::below(&real.path().join("kept")).copy_from(&Places::below(&real.path().join("used")));
        let frames = frames(&killed);
        let segments = frames.iter().map(|f| f.path.clone()).collect::<BTreeSet<_>>();
        assert!(segments.len() >= 3, "{segments:?}");
        let contents = segments.into_iter().map(|path| (path.clone(), killed.content(path))).collect();
        Self { fs: killed, real, frames, contents, numbers }
    }

    fn active(&self) -> &Path {
        &self.frames.last().unwrap().path
    }

    fn sealed(&self) -> Vec<&Framed> {
        let first = self.frames.iter().find(|f| !f.is_state()).unwrap();
        self.frames.iter().filter(|f| f.path == first.path && !f.is_state()).collect()
    }

    fn last_commit(&self) -> u64 {
        self.frames.last().unwrap().header.commit
    }

    /// The image with damage done to it, opened in `places`.
    fn open(&self, case: &Case, places: &Places) -> (SimFs, Result<Session, OpenError>) {
        let fs = self.fs.snapshot();
        fs.damage(&case.path, |content| match case.change {
            Change::Cut => content.truncate(case.range.start),
            Change::Flip => content[case.range.clone()].iter_mut().for_each(|byte| *byte ^= 0x20),
            Change::Zero => content[case.range.clone()].fill(0),
        });
        if places.index.exists() {
            fs::remove_dir_all(&places.index).unwrap();
        }
        if case.index_kept {
            support::session::copy_tree(&self.real.path().join("kept/index"), &places.index);
        }
        let session = Session::open(&fs, options(places));
        (fs, session)
    }
}

/// All frames of all segments of an undamaged store.
fn frames(fs: &SimFs) -> Vec<Framed> {
    let mut frames = Vec::new();
    let files = fs.files().into_iter().map(|(path, _)| path);
    for path in files.filter(|path| path.extension().is_some_and(|x| x == "seg")) {
        let content = fs.content(&path);
        let mut at = 0;
        while let Some(header) = content.get(at..).and_then(FrameHeader::decode) {
            let len = usize::try_from(header.frame_len()).unwrap();
            let used = HEADER_LEN + usize::try_from(header.payload_len).unwrap();
            if header.kind == FrameKind::Batch {
                frames.push(Framed { header, path: path.clone(), bytes: at..at + used });
            }
            at += len;
        }
    }
    frames.sort_by_key(|f| (f.header.commit, f.header.ordinal));
    frames
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Cut,
    Flip,
    Zero,
}

/// Damage done to one segment of an image.
#[derive(Clone, Debug)]
struct Case {
    change: Change,
    path: PathBuf,
    range: Range<usize>,
    index_kept: bool,
}

/// What became of one frame's records.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// They are read as they were written.
    There,
    /// Reading them fails and names them and the place of the frame.
    Named,
    /// Nothing says that they ever were.
    Gone,
}

/// What becomes of every frame's records (`None` for state), by reading each partition from its start to its end.
fn outcomes(image: &Image, session: &Session) -> Result<Vec<Option<Outcome>>, String> {
    let mut there = BTreeSet::new();
    let mut named = BTreeMap::new();
    for (number, partition) in &image.numbers {
        let handle = session.partition(partition);
        let end = handle.offsets().high_watermark;
        let mut next = 0;
        while next < end {
            match session.store.read(&handle, next, 5000) {
                Ok(batches) if batches.is_empty() => return Err(format!("{partition}: nothing at {next} of {end}")),
                Ok(batches) => {
                    for record in batches.iter().flat_map(|b| Records::of(b).unwrap()) {
                        next = record.map_err(|e| e.to_string())?.offset + 1;
                        there.insert((*number, next - 1));
                    }
                }
                Err(ReadError::Damaged { partition: p, from, end, segment, .. }) => {
                    if p != *partition || !(from..end).contains(&next) {
                        return Err(format!("{partition} at {next}: damage of {p} from {from} to {end} is named"));
                    }
                    named.extend((next..end).map(|offset| ((*number, offset), segment)));
                    next = end;
                }
                Err(error) => return Err(format!("{partition} at {next}: {error}")),
            }
        }
    }
    let outcome = |frame: &Framed| {
        let FrameHeader { partition, segment, .. } = frame.header;
        let count = frame.offsets().count();
        let is_there = frame.offsets().filter(|offset| there.contains(&(partition, *offset))).count();
        let places = frame.offsets().filter_map(|offset| named.get(&(partition, offset))).collect::<Vec<_>>();
        match (is_there, places.len()) {
            _ if frame.is_state() || !image.numbers.contains_key(&partition) => Ok(None),
            (n, 0) if n == count => Ok(Some(Outcome::There)),
            (0, n) if n == count && places.iter().any(|place| **place != segment) => {
                Err(format!("partition {} {:?}: was in {segment}, named is {places:?}", partition.0, frame.offsets()))
            }
            (0, n) if n == count => Ok(Some(Outcome::Named)),
            (0, 0) => Ok(Some(Outcome::Gone)),
            _ => Err(format!("partition {} {:?}: there and named in part", partition.0, frame.offsets())),
        }
    };
    image.frames.iter().map(outcome).collect()
}

/// Whether it is right that a frame's records came to this, after this damage.
fn judge(image: &Image, case: &Case, frame: &Framed, outcome: Outcome, damage: &[String]) -> Result<(), String> {
    let hit = frame.is_hit(image, case);
    let hit_commits = || image.frames.iter().filter(|f| f.is_hit(image, case)).map(|f| f.header.commit);
    // Frames of later commits call a commit synced; behind a cut there are none.
    let torn_from = match case.change {
        _ if case.index_kept => None,
        Change::Cut => hit_commits().min(),
        Change::Flip | Change::Zero => hit_commits().max().filter(|commit| *commit == image.last_commit()),
    };
    let torn = torn_from.is_some_and(|from| frame.header.commit >= from);
    let later =
        |f: &&Framed| f.header.partition == frame.header.partition && f.header.base_offset > frame.header.base_offset;
    let nameless = !case.index_kept
        && frame.is_nameless(image, case)
        && image.frames.iter().filter(later).all(|f| f.is_nameless(image, case));
    match outcome {
        Outcome::There if hit => Err("it is damaged and was read".to_owned()),
        Outcome::There if torn => Err("its commit is there in part".to_owned()),
        Outcome::There => Ok(()),
        Outcome::Named if hit => Ok(()),
        Outcome::Named => Err("it is whole and called damaged".to_owned()),
        Outcome::Gone if torn => Ok(()),
        Outcome::Gone if nameless && !damage.is_empty() => Ok(()),
        Outcome::Gone => Err(format!("it was acknowledged and is gone; reported is {damage:?}")),
    }
}

fn examine(image: &Image, case: &Case, places: &Places) -> Result<(), String> {
    let (_fs, session) = image.open(case, places);
    let session = session.map_err(|e| format!("does not open: {e}"))?;
    let damage = &session.store.report().damage;
    for (frame, outcome) in image.frames.iter().zip(outcomes(image, &session)?) {
        let Some(outcome) = outcome else { continue };
        judge(image, case, frame, outcome, damage).map_err(|e| {
            let FrameHeader { commit, partition, .. } = frame.header;
            let (offsets, bytes) = (frame.offsets(), &frame.bytes);
            format!("commit {commit}, partition {}, offsets {offsets:?}, bytes {bytes:?}: {e}", partition.0)
        })?;
    }
    for partition in image.numbers.values() {
        let end = session.partition(partition).offsets().high_watermark;
        let got = session.append(1, &[(partition.clone(), vec![line("goes on")])]).wait();
        if got != Ok(vec![end]) {
            return Err(format!("{partition} does not go on at {end}: {got:?}"));
        }
    }
    Ok(())
}

/// Examines all cases on several threads, each with an engine folder of its own.
fn examine_all(image: &Image, cases: &[Case]) {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let worker = || {
        let real = fast_tempdir();
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let failure = examine(image, case, &Places::below(real.path())).err();
            failures.lock().unwrap().extend(failure.map(|e| format!("{case:?}\n  {e}")));
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(worker))));
    let failures = failures.into_inner().unwrap();
    let shown = failures.iter().take(5).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} of {} cases failed\n{shown}", failures.len(), cases.len());
}

/// Cases at every `step`-th byte of the last 4 KiB of frames of the active segment, and a little behind.
fn at_the_end(image: &Image, change: Change, index_kept: bool, step: usize) -> Vec<Case> {
    let end = image.frames.last().unwrap().bytes.end;
    let case = |at| Case { change, path: image.active().to_path_buf(), range: at..at + 1, index_kept };
    (end - 4096..end + 24).step_by(step).map(case).collect()
}

/// How far apart the cases are that need not be tried at every byte: 1 when `AZULITE_THOROUGH` is set.
fn step(usual: usize) -> usize {
    if std::env::var_os("AZULITE_THOROUGH").is_some() { 1 } else { usual }
}

#[test]
fn end_cut_anywhere_without_the_index_loses_a_torn_tail_alone() {
    let image = Image::new();
    examine_all(&image, &at_the_end(&image, Change::Cut, false, step(5)));
}

#[test]
fn end_flipped_anywhere_without_the_index_is_named_or_torn() {
    let image = Image::new();
    examine_all(&image, &at_the_end(&image, Change::Flip, false, 1));
}

#[test]
fn end_cut_or_flipped_with_the_index_is_always_named() {
    let image = Image::new();
    let cases =
        [at_the_end(&image, Change::Cut, true, step(11)), at_the_end(&image, Change::Flip, true, step(11))].concat();
    examine_all(&image, &cases);
}

#[test]
fn sealed_segment_with_a_hole_or_a_flipped_byte_names_what_was_there() {
    let image = Image::new();
    let sealed = image.sealed();
    let (first, last) = (sealed.first().unwrap(), sealed.last().unwrap());
    let mut rng = Rng::new(3);
    let mut cases = Vec::new();
    for number in 0..120 {
        let at = rng.between(u64::try_from(first.bytes.start).unwrap(), u64::try_from(last.bytes.end - 2001).unwrap());
        let at = usize::try_from(at).unwrap();
        let len = *rng.pick(&[1, 8, 512, 2000]);
        let change = if len == 1 { Change::Flip } else { Change::Zero };
        cases.push(Case { change, path: first.path.clone(), range: at..at + len, index_kept: number % 2 == 0 });
    }
    let payload = sealed[sealed.len() / 2].bytes.start + HEADER_LEN + 70;
    for index_kept in [true, false] {
        let range = payload..payload + 1;
        cases.push(Case { change: Change::Flip, path: first.path.clone(), range, index_kept });
        let range = first.bytes.start..first.bytes.start + 1;
        cases.push(Case { change: Change::Flip, path: first.path.clone(), range, index_kept });
    }
    examine_all(&image, &cases);
}

/// Opens an image whose first segment ends in half a foot; the foot must be whole afterwards, and nothing missing.
fn open_with_half_foot(
    image: &Image,
    places: &Places,
    half: Range<usize>,
    room: usize,
    kept: bool,
) -> Result<(), String> {
    let sealed = image.sealed();
    let (path, foot) = (&sealed[0].path, sealed.last().unwrap().bytes.end.next_multiple_of(8));
    let fs = image.fs.snapshot();
    fs.damage(path, |content| {
        content[foot..foot + half.start].fill(0);
        content[foot + half.end..].fill(0);
        content.resize(foot + HEADER_LEN + room, 0);
    });
    places.remove();
    if kept {
        support::session::copy_tree(&image.real.path().join("kept/index"), &places.index);
    }
    let session = Session::open(&fs, options(places)).map_err(|e| e.to_string())?;
    let damage = &session.store.report().damage;
    if !damage.is_empty() {
        return Err(format!("damage is reported: {damage:?}"));
    }
    if let Some(gone) = outcomes(image, &session)?.into_iter().flatten().find(|o| *o != Outcome::There) {
        return Err(format!("a frame is {gone:?}"));
    }
    let content = fs.content(path);
    let header = FrameHeader::decode(&content[foot..]);
    match header.filter(|h| h.kind == FrameKind::Foot && content.len() == foot + HEADER_LEN) {
        Some(_) => Ok(()),
        None => Err("the segment is not sealed again".to_owned()),
    }
}

/// Sealing goes on in the background, behind commits to the next segment: a power cut can leave half a foot in front of
/// acknowledged records.
#[test]
fn a_half_written_foot_is_no_damage_and_is_written_again() {
    let (image, real) = (Image::new(), fast_tempdir());
    let places = Places::below(real.path());
    let mut failures = Vec::new();
    for at in (4..HEADER_LEN).step_by(4) {
        for (half, room, kept) in
            [(0..at, 0, false), (at..HEADER_LEN, 600, false), (0..at, 600, true), (at..HEADER_LEN, 0, true)]
        {
            let got = open_with_half_foot(&image, &places, half.clone(), room, kept);
            failures.extend(got.err().map(|e| format!("bytes {half:?}, {room} behind, index kept {kept}: {e}")));
        }
    }
    assert!(failures.is_empty(), "{} failed\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn damaged_state_record_is_refused_by_name_when_the_index_must_be_rebuilt() {
    let image = Image::new();
    let states = image.frames.iter().filter(|f| f.is_state()).collect::<Vec<_>>();
    let real = fast_tempdir();
    for (number, at) in [(0, HEADER_LEN + 80), (0, 3), (1, HEADER_LEN + 80)] {
        let frame = states[number];
        let range = frame.bytes.start + at..frame.bytes.start + at + 1;
        let mut case = Case { change: Change::Flip, path: frame.path.clone(), range, index_kept: false };
        let (_fs, got) = image.open(&case, &Places::below(real.path()));
        let offset_of_it = frame.header.base_offset;
        let refused = matches!(&got, Err(OpenError::StateDamaged { segment, offset, .. })
            if *segment == frame.header.segment && *offset == offset_of_it);
        assert!(refused, "state frame {number}, byte {at}: got {:?}", got.err());
        case.index_kept = true;
        assert_eq!(examine(&image, &case, &Places::below(real.path())), Ok(()), "state frame {number}, byte {at}");
    }
}

/// A store on the real disk with a few records and blobs, closed.
fn real_store() -> (tempfile::TempDir, Options) {
    let dir = fast_tempdir();
    let options = Options { segment_bytes: 256 << 10, ..Options::new(dir.path().join("data")) };
    let session = Session::open(&azulite_storage::fs::RealFs, options.clone()).unwrap();
    session.create_topic("t", 1).unwrap();
    for number in 0..20 {
        session.append(1, &[(name(0), vec![line(&format!("record {number}"))])]).wait().unwrap();
        session.publish(&blob(number), blob_content(number).as_bytes()).unwrap();
    }
    session.commit_offsets("g", &BTreeMap::from([(name(0), 7)])).unwrap();
    drop(session);
    (dir, options)
}

fn blob_content(number: usize) -> String {
    format!("blob {number}")
}

fn blob(number: usize) -> BlobRefKey {
    let hash = content_hash(blob_content(number).as_bytes());
    BlobRefKey { hash, source: "lab".to_owned(), label: "content".to_owned() }
}

fn open_real(options: &Options) -> Result<Session, OpenError> {
    Session::open(&azulite_storage::fs::RealFs, options.clone())
}

fn assert_complete(session: &Session) {
    assert_eq!(session.store.report().damage, Vec::<String>::new());
    assert_eq!(session.read_all(&name(0)).unwrap().len(), 20);
    assert_eq!(session.committed("g", &name(0)), Ok(Some(7)));
    for number in 0..20 {
        assert_eq!(session.blob(&blob(number)).unwrap(), Some(blob_content(number).into_bytes()));
    }
    assert_eq!(session.blobs().unwrap().len(), 20);
}

/// Overwrites every file below a folder with noise of the same length.
fn fill_with_garbage(dir: &Path, rng: &mut Rng) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fill_with_garbage(&path, rng);
        } else {
            let len = usize::try_from(fs::metadata(&path).unwrap().len()).unwrap();
            fs::write(&path, rng.bytes(len)).unwrap();
        }
    }
}

#[test]
fn derived_folders_are_rebuilt_when_deleted_or_filled_with_garbage() {
    let (_dir, options) = real_store();
    let mut rng = Rng::new(11);
    assert_complete(&open_real(&options).unwrap());
    for folder in ["index", "catalogue"] {
        let path = options.root.join(folder);
        fs::remove_dir_all(&path).unwrap();
        assert_complete(&open_real(&options).unwrap_or_else(|e| panic!("{folder} deleted: {e}")));
        fill_with_garbage(&path, &mut rng);
        assert_complete(&open_real(&options).unwrap_or_else(|e| panic!("{folder} full of garbage: {e}")));
        assert_complete(&open_real(&options).unwrap_or_else(|e| panic!("{folder} after that: {e}")));
    }
}

#[test]
fn directory_without_a_stamp_is_refused() {
    let (_dir, options) = real_store();
    fs::remove_file(options.root.join("FORMAT")).unwrap();
    let got = open_real(&options).err();
    assert!(matches!(got, Some(OpenError::Stamp(FormatError::Missing { .. }))), "got {got:?}");
}

#[test]
fn directory_of_another_format_is_refused_with_both_numbers() {
    let (_dir, options) = real_store();
    fs::write(options.root.join("FORMAT"), "azulite 2\n").unwrap();
    let got = open_real(&options).err();
    assert!(matches!(got, Some(OpenError::Format { found: 2, wanted: 1, .. })), "got {got:?}");
    fs::write(options.root.join("FORMAT"), "azulite 1\n").unwrap();
    assert_complete(&open_real(&options).unwrap());
}

#[test]
fn directory_in_use_is_refused_and_its_holder_named() {
    let (_dir, options) = real_store();
    let session = open_real(&options).unwrap();
    let got = open_real(&options).err();
    let own = std::process::id().to_string();
    assert!(matches!(&got, Some(OpenError::Locked { holder, .. }) if holder.contains(&own)), "got {got:?}");
    drop(session);
    assert_complete(&open_real(&options).unwrap());
}

/// Offsets of partition 0 of `t` that an open report calls lost.
fn reported(damage: &[String]) -> Vec<i64> {
    let mut offsets = Vec::new();
    for text in damage.iter().filter_map(|text| text.strip_prefix("t-0 offsets ")) {
        let (range, _) = text.split_once(" are lost: segment ").unwrap_or_else(|| panic!("no place in {text}"));
        let (first, last) = range.split_once(" to ").unwrap();
        offsets.extend(first.parse::<i64>().unwrap()..=last.parse::<i64>().unwrap());
    }
    offsets.sort_unstable();
    offsets
}

/// Offsets below `end` whose reading fails by name.
fn unreadable(session: &Session, end: i64) -> Result<Vec<i64>, String> {
    let partition = session.partition(&name(0));
    let (mut next, mut lost) = (0, Vec::new());
    while next < end {
        match session.store.read(&partition, next, 1) {
            Ok(batches) if batches.is_empty() => return Err(format!("nothing at {next} of {end}")),
            Ok(batches) => next += i64::try_from(batches.len()).unwrap(),
            Err(ReadError::Damaged { from, end, .. }) if (from..end).contains(&next) => {
                lost.extend(next..end);
                next = end;
            }
            Err(error) => return Err(format!("at {next}: {error}")),
        }
    }
    Ok(lost)
}

/// A power cut in the life of a log that is never synced, with an index that outlives it.
fn cut_unsynced(seed: u64) -> Result<Vec<i64>, String> {
    let (disk, real) = (SimFs::new(seed), fast_tempdir());
    let places = Places::below(real.path());
    let open = |disk: &SimFs| {
        let options = Options { durability: Durability::None, ..options(&places) };
        Session::open(disk, options).map_err(|e| e.to_string())
    };
    let session = open(&disk)?;
    session.create_topic("t", 1)?;
    for number in 0..40 {
        session.append(1, &[(name(0), vec![line(&format!("record {number}"))])]).wait().map_err(|e| e.to_string())?;
    }
    session.index_dump()?;
    let disk = disk.cut(seed);
    drop(session);
    let session = open(&disk)?;
    let named = reported(&session.store.report().damage);
    let there = session.store.topic("t").is_some();
    // The topic itself was not synced either: its records are named, and its partition number is free again.
    let lost = if there { unreadable(&session, 40)? } else { (0..40).collect() };
    if named != lost {
        return Err(format!("{lost:?} are lost, named are {:?}", session.store.report().damage));
    }
    if !there {
        session.create_topic("t", 1)?;
    }
    let end = if there { 40 } else { 0 };
    let got = session.append(1, &[(name(0), vec![line("goes on")])]).wait();
    if got != Ok(vec![end]) {
        return Err(format!("goes on at {got:?}, not at {end}"));
    }
    let kept = if there { lost.clone() } else { Vec::new() };
    drop(session);
    for rebuilt in [false, true] {
        if rebuilt {
            places.remove();
        }
        let session = open(&disk).map_err(|e| format!("rebuilt {rebuilt}: {e}"))?;
        let found = unreadable(&session, session.partition(&name(0)).offsets().high_watermark)?;
        if found != kept || session.partition(&name(0)).offsets().high_watermark != end + 1 {
            return Err(format!("rebuilt {rebuilt}: {found:?} are lost, before {kept:?}"));
        }
    }
    Ok(lost)
}

#[test]
fn what_a_power_cut_takes_from_an_unsynced_log_is_named_when_the_index_knows_it() {
    let mut failures = Vec::new();
    let mut kinds = [0; 3];
    for seed in 0..60 {
        match cut_unsynced(seed) {
            Ok(lost) if lost.is_empty() => kinds[0] += 1,
            Ok(lost) if lost.len() == 40 => kinds[1] += 1,
            Ok(_) => kinds[2] += 1,
            Err(e) => failures.push(format!("seed {seed}: {e}")),
        }
    }
    assert!(failures.is_empty(), "{} failed\n{}", failures.len(), failures.join("\n"));
    assert!(kinds.iter().all(|seen| *seen > 0), "nothing, all, some of it was lost: {kinds:?}");
}

#[test]
fn a_damaged_blob_frame_is_named_costs_that_blob_alone_and_is_healed_by_an_upload() {
    let (_dir, options) = real_store();
    let segment = |root: &Path| {
        let mut paths = fs::read_dir(root.join("log")).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
        paths.sort();
        paths.into_iter().find(|path| holds(&fs::read(path).unwrap(), b"blob 7").is_some()).unwrap()
    };
    let path = segment(&options.root);
    let content = fs::read(&path).unwrap();
    let at = holds(&content, b"blob 7").unwrap();
    let good = content.clone();
    for (what, hit, index_kept) in
        [("bytes", at, true), ("bytes", at, false), ("prefix", at - 40, true), ("prefix", at - 40, false)]
    {
        let mut bad = good.clone();
        bad[hit] ^= 1;
        fs::write(&path, &bad).unwrap();
        if !index_kept {
            fs::remove_dir_all(options.root.join("index")).unwrap();
        }
        let session = open_real(&options).unwrap();
        let position = at - 40 - HEADER_LEN;
        let place = format!("position {position}");
        let error = session.blob(&blob(7)).unwrap_err();
        assert!(error.contains(&blob(7).hash.to_string()), "{what}, index kept: {index_kept}: {error}");
        let told = session.store.report().damage.concat();
        assert_eq!(told.contains(&place), !index_kept, "{what}: {told}");
        assert_eq!(told.contains(&blob(7).hash.to_string()), !index_kept, "{what}: {told}");
        assert_eq!(session.store.report().damaged_blobs, u64::from(!index_kept), "{what}");
        // Without its prefix nothing tells whose frame it was, but for the row that is there already.
        assert_eq!(error.contains(&place), index_kept || what == "bytes", "{what}: {error}");
        for number in (0..20).filter(|number| *number != 7) {
            assert_eq!(session.blob(&blob(number)).unwrap(), Some(blob_content(number).into_bytes()));
        }
        assert_eq!(session.read_all(&name(0)).unwrap().len(), 20);
        drop(session);
        fs::write(&path, &good).unwrap();
        fs::remove_dir_all(options.root.join("index")).unwrap();
        drop(open_real(&options).unwrap());
    }
    let mut bad = good.clone();
    bad[at] ^= 1;
    fs::write(&path, &bad).unwrap();
    let session = open_real(&options).unwrap();
    session.publish(&blob(7), blob_content(7).as_bytes()).unwrap();
    assert_eq!(session.blob(&blob(7)).unwrap(), Some(blob_content(7).into_bytes()), "stored anew");
    drop(session);
    fs::remove_dir_all(options.root.join("index")).unwrap();
    assert_complete(&open_real(&options).unwrap());
}

#[test]
fn a_bad_frame_of_a_blob_does_not_take_the_place_of_a_good_one_when_the_index_is_built_anew() {
    let (_dir, options) = real_store();
    let session = open_real(&options).unwrap();
    session.publish(&BlobRefKey { label: "first".to_owned(), ..blob(30) }, blob_content(30).as_bytes()).unwrap();
    session.delete_blob(&BlobRefKey { label: "first".to_owned(), ..blob(30) }).unwrap();
    session.publish(&blob(30), blob_content(30).as_bytes()).unwrap();
    // What comes behind it tells that it was synced.
    session.publish(&blob(31), blob_content(31).as_bytes()).unwrap();
    drop(session);
    let mut paths = fs::read_dir(options.root.join("log")).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    paths.sort();
    let path = paths.into_iter().rfind(|path| holds(&fs::read(path).unwrap(), b"blob 30").is_some()).unwrap();
    let mut content = fs::read(&path).unwrap();
    let at = content.windows(7).rposition(|window| window == b"blob 30").unwrap();
    content[at] ^= 1;
    fs::write(&path, &content).unwrap();
    fs::remove_dir_all(options.root.join("index")).unwrap();
    let session = open_real(&options).unwrap();
    assert_eq!(session.blob(&blob(30)).unwrap(), Some(blob_content(30).into_bytes()));
    assert_eq!(session.store.report().damage, Vec::<String>::new());
}

fn holds(content: &[u8], needle: &[u8]) -> Option<usize> {
    content.windows(needle.len()).position(|window| window == needle)
}
