//! The rules in use, and how they change: a new set is built and its scanners are started beside those that work, then it
//! takes their place in one step. Who scans keeps the set it began with.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use super::compile::{self, BuildError, FileInUse};
use super::directory::{self, Fingerprint, LeftOut};
use super::scanner::{ScannerOptions, Scanners};
use super::worker::Options;
use crate::isolate::CallError;

/// How often the directory is looked at.
const POLL: Duration = Duration::from_secs(2);
/// Those who may wait for a reload at once: one whose set is built, and one that reads the directory behind it.
const RELOADS_MAX: usize = 2;
/// Files left out that metrics name.
const NAMED_MAX: usize = 100;
/// How long after children failed it is tried again.
const AGAIN: Duration = Duration::from_secs(30);

/// The rules of a worker.
pub struct Rulebook {
    options: Options,
    current: RwLock<Option<Arc<Scanners>>>,
    /// One set is built at a time; what came of the last one.
    last: Mutex<Last>,
    /// Its failure, for those who do not want to wait for one that is being built.
    failure: Mutex<Option<String>>,
    /// Those who wait for a reload.
    reloads: AtomicUsize,
}

#[derive(Default)]
struct Last {
    /// The directory when it was read.
    seen: Option<Fingerprint>,
    /// When it is tried again, after children failed: that says nothing about the rules.
    again: Option<Instant>,
}

/// Why the rules stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The set cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Its scanners cannot be started.
    #[error("the scanners of the new rules: {0}")]
    Scanners(#[from] CallError),
    /// Others wait already; what they get is read from the directory later.
    #[error("the rules are being read again already")]
    Busy,
}

/// What `rules list` shows.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Listing {
    /// SHA-256 of the set; none when nothing compiles.
    pub hash: Option<String>,
    /// Where the rules are.
    pub dir: String,
    /// How many rules there are.
    pub rules: usize,
    /// Files in use.
    pub files: Vec<FileInUse>,
    /// Files left out.
    pub errors: Vec<LeftOut>,
    /// Rules that never match, because they look at PE signatures.
    pub need_signatures: Vec<String>,
    /// Why the last reload changed nothing.
    pub failure: Option<String>,
}

impl fmt::Debug for Rulebook {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Rulebook").field("dir", &self.options.rules_dir).finish_non_exhaustive()
    }
}

impl Rulebook {
    /// Without rules, until the first [`Self::reload`].
    #[must_use]
    pub(super) fn new(options: Options) -> Self {
        let (current, last, failure) = (RwLock::default(), Mutex::default(), Mutex::default());
        Self { options, current, last, failure, reloads: AtomicUsize::new(0) }
    }

    /// The set in use.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Scanners>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why there is none, or why the last reload changed nothing.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Builds the set that the directory holds now and puts it in use. Blocks until that is done.
    ///
    /// # Errors
    /// [`ReloadError`]; the set in use stays.
    pub fn reload(&self) -> Result<Arc<Scanners>, ReloadError> {
        let others = self.reloads.fetch_add(1, Ordering::AcqRel);
        let reloaded = if others < RELOADS_MAX {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            self.reload_under(&mut last)
        } else {
            Err(ReloadError::Busy)
        };
        self.reloads.fetch_sub(1, Ordering::AcqRel);
        reloaded
    }

    fn reload_under(&self, last: &mut MutexGuard<'_, Last>) -> Result<Arc<Scanners>, ReloadError> {
        // Before the files are read: a change in between is seen the next time.
        last.seen = directory::fingerprint(&self.options.rules_dir).ok();
        let built = self.built();
        let passing = matches!(built, Err(ReloadError::Scanners(_) | ReloadError::Build(BuildError::Child(_))));
        last.again = passing.then(|| Instant::now() + AGAIN);
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = built.as_ref().err().map(ToString::to_string);
        self.count(built.as_ref().err());
        match &built {
            Ok(set) => {
                let rules = &set.rules;
                for left in &rules.left_out {
                    let LeftOut { path, line, reason } = left;
                    tracing::warn!(%path, line, %reason, "a rule file is left out");
                }
                for rule in &rules.signatures {
                    tracing::warn!(%rule, "a rule looks at PE signatures, which are not read here: it never matches");
                }
                tracing::info!(hash = %rules.hash, files = rules.files.len(), rules = rules.rules(), "rules in use");
            }
            Err(error) => {
                if let ReloadError::Build(BuildError::Nothing { left_out, .. }) = error {
                    for LeftOut { path, line, reason } in left_out {
                        tracing::warn!(%path, line, %reason, "a rule file does not compile");
                    }
                }
                tracing::warn!(%error, "the rules stay as they are");
            }
        }
        built
    }

    fn count(&self, failed: Option<&ReloadError>) {
        let metrics = &self.options.metrics;
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let set = self.current();
        let rules = set.as_ref().map(|set| &set.rules);
        metrics.yara_rules.at([]).set(rules.map_or(0, |rules| number(rules.rules())));
        metrics.yara_rule_files.at(["in use"]).set(rules.map_or(0, |rules| number(rules.files.len())));
        let left_out = match failed {
            // Nothing of what the directory holds now is in use.
            Some(ReloadError::Build(BuildError::Nothing { left_out, .. })) => left_out.as_slice(),
            Some(_) | None => rules.map_or(&[][..], |rules| &rules.left_out),
        };
        metrics.yara_rule_files.at(["left out"]).set(number(left_out.len()));
        metrics.yara_rule_file_left_out.clear();
        for file in left_out.iter().take(NAMED_MAX) {
            metrics.yara_rule_file_left_out.at([&file.path]).set(1);
        }
        metrics.yara_reload_failed.at([]).set(i64::from(failed.is_some()));
    }

    fn built(&self) -> Result<Arc<Scanners>, ReloadError> {
        let Options { rules_dir, wanted, children, threads, max_scan_size, expand, .. } = &self.options;
        let rules = compile::build(rules_dir, wanted, children)?;
        let options = ScannerOptions {
            children: children.clone(),
            threads: *threads,
            max_scan_size: *max_scan_size,
            max_nesting: expand.max_nesting,
        };
        if let Some(current) = self.current()
            && current.rules.hash == rules.hash
            && current.rules.left_out == rules.left_out
        {
            return Ok(current);
        }
        let set = Arc::new(Scanners::start(rules, &options)?);
        // The old one ends with the last job that uses it, not in this lock.
        let old = self.current.write().unwrap_or_else(PoisonError::into_inner).replace(Arc::clone(&set));
        drop(old);
        Ok(set)
    }

    /// What is in use.
    #[must_use]
    pub fn listing(&self) -> Listing {
        let dir = self.options.rules_dir.display().to_string();
        let failure = self.failure();
        let Some(set) = self.current() else { return Listing { dir, failure, ..Listing::default() } };
        let rules = &set.rules;
        Listing {
            hash: Some(rules.hash.clone()),
            dir,
            rules: rules.rules(),
            files: rules.files.clone(),
            errors: rules.left_out.clone(),
            need_signatures: rules.signatures.clone(),
            failure,
        }
    }
}

/// Looks at the directory until it is dropped, and reloads when it has changed and then been quiet for a while.
#[derive(Debug)]
pub(super) struct Watch {
    stop: Arc<(Mutex<bool>, Condvar)>,
}

impl Watch {
    /// Builds the first set, and waits for it at most `wait`.
    ///
    /// # Errors
    /// Its thread cannot be started.
    pub(super) fn start(rulebook: &Arc<Rulebook>, wait: Duration) -> std::io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (theirs, rulebook) = (Arc::clone(&stop), Arc::clone(rulebook));
        let (ready, first) = sync_channel(1);
        thread::Builder::new().name("yara-rules".into()).spawn(move || {
            // What came of it is logged there, and nobody may wait any more.
            drop(rulebook.reload());
            ready.send(()).ok();
            watch(&theirs, &rulebook);
        })?;
        // Not yet: the worker is down until then.
        first.recv_timeout(wait).ok();
        Ok(Self { stop })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
    }
}

fn watch((stop, stopped): &(Mutex<bool>, Condvar), rulebook: &Rulebook) {
    let Options { rules_dir, reload_settle, .. } = &rulebook.options;
    let poll = POLL.min(*reload_settle).max(Duration::from_millis(50));
    // A change, and since when the directory looks like this.
    let mut changed: Option<(Fingerprint, Instant)> = None;
    // The first reload has said it already.
    let mut warned = directory::fingerprint(rules_dir).is_err();
    loop {
        let held = stop.lock().unwrap_or_else(PoisonError::into_inner);
        let (held, _) = stopped.wait_timeout_while(held, poll, |stop| !*stop).unwrap_or_else(PoisonError::into_inner);
        if *held {
            return;
        }
        drop(held);
        // One that is being built reads the directory by itself.
        let Ok(mut last) = rulebook.last.try_lock() else { continue };
        let now = match directory::fingerprint(rules_dir) {
            Ok(now) => now,
            Err(error) => {
                if !std::mem::replace(&mut warned, true) {
                    tracing::warn!(dir = %rules_dir.display(), %error, "the rules directory cannot be read");
                }
                continue;
            }
        };
        warned = false;
        if last.seen.as_ref() == Some(&now) {
            changed = None;
            if last.again.is_some_and(|again| Instant::now() >= again) {
                // What came of it is logged there.
                drop(rulebook.reload_under(&mut last));
            }
            continue;
        }
        match &changed {
            Some((seen, since)) if *seen == now => {
                if since.elapsed() >= *reload_settle {
                    changed = None;
                    // What came of it is logged there.
                    drop(rulebook.reload_under(&mut last));
                }
            }
            Some(_) | None => changed = Some((now, Instant::now())),
        }
    }
}
