//! Jobs on disk: one JSON file each, replaced as a whole, so that a kill leaves the old or the new one.
//!
//! | file                    | holds                                                      |
//! |-------------------------|------------------------------------------------------------|
//! | `<event>.event.json`    | the event as it was leased, written before the job         |
//! | `<event>.job.json`      | [`Job`]; the job exists while this file does               |
//! | `<event>.<task>.found.json` | what the parse stages of a task have brought so far    |
//! | `LOCK`                  | held by the one worker that uses the folder                |
//! | `tmp/`                  | downloads; emptied at start                                |

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use azulite_storage::fs::{Fs, FsLock, RealFs, create_dir_durably, read_small, replace_durably};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::job::Job;
use super::report::Findings;
use crate::dispatcher::model::{BinaryEvent, Event, Model, decode_event_json, to_json};

/// Bytes a file of ours may have.
const FILE_MAX_BYTES: usize = 64 << 20;
const JOB: &str = ".job.json";
const EVENT: &str = ".event.json";
const FOUND: &str = ".found.json";

/// The jobs of one sandbox, in memory and on disk.
pub(super) struct Store {
    folder: PathBuf,
    jobs: Mutex<BTreeMap<String, Job>>,
    _lock: Box<dyn FsLock>,
}

impl Store {
    /// Opens the folder, making it when it is missing. Files of jobs that do not exist are removed; a job whose files cannot
    /// be read is left where it is and told of in the second part.
    ///
    /// # Errors
    /// When the folder cannot be used, or another worker uses it.
    pub(super) fn open(folder: &Path) -> io::Result<(Self, Vec<String>)> {
        let fs = RealFs;
        create_dir_durably(&fs, folder)?;
        let lock = fs.lock(&folder.join("LOCK"))?;
        let temporary = folder.join("tmp");
        create_dir_durably(&fs, &temporary)?;
        for entry in fs.list(&temporary)? {
            fs.remove_file(&temporary.join(entry.name))?;
        }
        let mut jobs = BTreeMap::new();
        let (mut odd, mut others) = (Vec::new(), Vec::new());
        for entry in fs.list(folder)?.into_iter().filter(|entry| !entry.is_dir) {
            let Some(event) = entry.name.strip_suffix(JOB) else {
                others.push(entry.name);
                continue;
            };
            let path = folder.join(&entry.name);
            let read = read_json::<Job>(&path).and_then(|job| read_event(folder, event).map(|_| job));
            match read {
                Ok(job) if job.event == event => {
                    jobs.insert(event.to_owned(), job);
                }
                Ok(_) => odd.push(format!("{}: is of another event", path.display())),
                Err(error) => odd.push(format!("{}: {error}", path.display())),
            }
        }
        for name in others {
            let event = name.split('.').next().unwrap_or_default();
            let known = odd.iter().any(|text| text.contains(event)) || jobs.contains_key(event);
            let ours = [EVENT, FOUND, ".tmp"].iter().any(|end| name.ends_with(end));
            if ours && (!known || name.ends_with(".tmp")) {
                fs.remove_file(&folder.join(&name))?;
            }
        }
        Ok((Self { folder: folder.to_owned(), jobs: Mutex::new(jobs), _lock: lock }, odd))
    }

    /// Where downloads go.
    pub(super) fn temporary(&self) -> PathBuf {
        self.folder.join("tmp")
    }

    /// Adds a job.
    ///
    /// # Durability
    /// On `Ok` it survives a power cut.
    /// # Errors
    /// When it could not be written; it is not there then.
    pub(super) fn add(&self, job: Job, event: &BinaryEvent) -> io::Result<()> {
        let text = to_json(&Event::Binary(Box::new(event.clone())));
        replace_durably(&RealFs, &self.path(&job.event, EVENT), &text)?;
        let mut jobs = self.lock();
        self.write(&job)?;
        jobs.insert(job.event.clone(), job);
        Ok(())
    }

    /// Changes a job; what `change` returns. `None` when there is no such job.
    ///
    /// # Durability
    /// On `Ok` the change survives a power cut.
    /// # Errors
    /// When it could not be written; the job is as it was then.
    pub(super) fn change<T>(&self, event: &str, change: impl FnOnce(&mut Job) -> T) -> io::Result<Option<T>> {
        let mut jobs = self.lock();
        let Some(job) = jobs.get_mut(event) else { return Ok(None) };
        let mut changed = job.clone();
        let answer = change(&mut changed);
        if changed != *job {
            self.write(&changed)?;
            *job = changed;
        }
        Ok(Some(answer))
    }

    /// Removes a job and its files.
    ///
    /// # Errors
    /// When the job's file could not be removed; the job is still there then.
    pub(super) fn remove(&self, event: &str) -> io::Result<()> {
        let mut jobs = self.lock();
        let Some(job) = jobs.get(event) else { return Ok(()) };
        let fs = RealFs;
        fs.remove_file(&self.path(event, JOB))?;
        fs.sync_dir(&self.folder)?;
        // What is left behind from here on is removed at the next start.
        for id in job.tasks.keys() {
            let path = self.path(event, &format!(".{id}{FOUND}"));
            if fs.meta(&path)?.is_some() {
                fs.remove_file(&path)?;
            }
        }
        let path = self.path(event, EVENT);
        jobs.remove(event);
        fs.remove_file(&path)
    }

    /// One job as it is now.
    pub(super) fn get(&self, event: &str) -> Option<Job> {
        self.lock().get(event).cloned()
    }

    /// What `pick` makes of each job, in the order of their keys, of those of which it makes something.
    pub(super) fn pick<T>(&self, mut pick: impl FnMut(&Job) -> Option<T>) -> Vec<T> {
        self.lock().values().filter_map(&mut pick).collect()
    }

    /// The event of a job as it was leased.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn event(&self, event: &str) -> io::Result<BinaryEvent> {
        read_event(&self.folder, event)
    }

    /// What the parse stages of a task have brought; nothing before the first.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn findings(&self, event: &str, task: u64) -> io::Result<Findings> {
        let path = self.path(event, &format!(".{task}{FOUND}"));
        if RealFs.meta(&path)?.is_none() {
            return Ok(Findings::default());
        }
        read_json(&path)
    }

    /// Keeps what the parse stages of a task have brought.
    ///
    /// # Durability
    /// On `Ok` it survives a power cut.
    /// # Errors
    /// When it could not be written; what was kept before is kept.
    pub(super) fn keep(&self, event: &str, task: u64, findings: &Findings) -> io::Result<()> {
        replace_durably(&RealFs, &self.path(event, &format!(".{task}{FOUND}")), &json(findings)?)
    }

    fn write(&self, job: &Job) -> io::Result<()> {
        replace_durably(&RealFs, &self.path(&job.event, JOB), &json(job)?)
    }

    fn path(&self, event: &str, end: &str) -> PathBuf {
        self.folder.join(format!("{event}{end}"))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True when a key is fit to be part of a file name, as those of the dispatcher are.
pub(super) fn is_key(key: &str) -> bool {
    (1..=64).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(io::Error::from)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    serde_json::from_slice(&read_small(&RealFs, path, FILE_MAX_BYTES)?).map_err(io::Error::from)
}

fn read_event(folder: &Path, event: &str) -> io::Result<BinaryEvent> {
    let odd = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let bytes = read_small(&RealFs, &folder.join(format!("{event}{EVENT}")), FILE_MAX_BYTES)?;
    let element = decode_event_json(Model::Binary, &bytes).map_err(|error| odd(error.to_string()))?;
    let event = element.event.map_err(|error| odd(error.to_string()))?;
    if let Event::Binary(event) = event { Ok(*event) } else { Err(odd("is no binary event".to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatcher::model::{Author, BinaryEntity, Datastream, PathNode, Source};

    pub(crate) fn event() -> BinaryEvent {
        let author = Author { name: "amy".to_owned(), ..Author::default() };
        let (sha256, action) = ("a".repeat(64), "sourced".to_owned());
        let content = Datastream { label: "content".to_owned(), sha256: sha256.clone(), ..Datastream::default() };
        let node =
            PathNode { author: author.clone(), action: action.clone(), sha256: sha256.clone(), ..PathNode::default() };
        BinaryEvent {
            kafka_key: "k1".to_owned(),
            author,
            source: Source { name: "lab".to_owned(), path: vec![node], ..Source::default() },
            entity: BinaryEntity { sha256, datastreams: vec![content], ..BinaryEntity::default() },
            action,
            dequeued: "k1.1".to_owned(),
            ..BinaryEvent::default()
        }
    }

    fn job() -> Job {
        Job { event: "k1".to_owned(), ..Job::default() }
    }

    fn names(folder: &Path) -> Vec<String> {
        RealFs.list(folder).unwrap().into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn jobs_and_findings_are_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path()).unwrap();
        store.add(job(), &event()).unwrap();
        store.change("k1", |job| job.submitted(&[4], false, 9)).unwrap();
        let mut found = Findings::default();
        found.add("mutex", 0, "m", "");
        store.keep("k1", 4, &found).unwrap();
        drop(store);
        let (store, odd) = Store::open(folder.path()).unwrap();
        assert_eq!(odd, [""; 0]);
        assert_eq!(store.get("k1").unwrap().tasks[&4].since_ms, 9);
        assert_eq!(store.event("k1").unwrap(), event());
        assert_eq!(store.findings("k1", 4).unwrap(), found);
        assert_eq!(store.findings("k1", 5).unwrap(), Findings::default());
        store.remove("k1").unwrap();
        assert_eq!(names(folder.path()), ["LOCK", "tmp"]);
    }

    #[test]
    fn an_event_without_a_job_and_old_downloads_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        drop(Store::open(folder.path()).unwrap());
        for name in ["k2.event.json", "k2.7.found.json", "k3.job.json.tmp", "tmp/0.tmp"] {
            std::fs::write(folder.path().join(name), "{}").unwrap();
        }
        std::fs::write(folder.path().join("notes.txt"), "not ours").unwrap();
        drop(Store::open(folder.path()).unwrap());
        assert_eq!(names(folder.path()), ["LOCK", "notes.txt", "tmp"]);
        assert_eq!(names(&folder.path().join("tmp")), [""; 0]);
    }

    #[test]
    fn a_job_that_cannot_be_read_is_kept_and_told_of() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("k1.job.json"), "{").unwrap();
        std::fs::write(folder.path().join("k1.event.json"), "{}").unwrap();
        let (store, odd) = Store::open(folder.path()).unwrap();
        assert!(odd.len() == 1 && odd[0].contains("k1.job.json"), "{odd:?}");
        assert!(store.get("k1").is_none());
        assert!(names(folder.path()).contains(&"k1.event.json".to_owned()));
    }

    #[test]
    fn a_folder_has_one_worker() {
        let folder = tempfile::tempdir().unwrap();
        let first = Store::open(folder.path()).unwrap();
        assert!(Store::open(folder.path()).is_err());
        drop(first);
        assert!(Store::open(folder.path()).is_ok());
    }

    #[test]
    fn keys_that_are_no_file_names_are_told() {
        assert!(is_key("419d55d8a85cf11e3b9bd17486279a68"));
        assert!(!is_key("") && !is_key("../x") && !is_key("a.b") && !is_key(&"a".repeat(65)));
    }
}
