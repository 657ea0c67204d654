//! The worker itself: an event comes in, what the rules say about its object goes out. Spec: workers.md 2.3.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use azulite_storage::clock::now_ms;

use super::ask::{Expand, Externals, Publish, Scan, Scanned};
use super::compile::Children;
use super::directory::{LeftOut, Wanted};
use super::packages::{Distribution, Packages, Report, TopMember};
use super::rulebook::{Listing, ReloadError, Rulebook, Watch};
use super::scanner::{Findings, Scanners, jobs_at_once};
use super::score::{self, Scored};
use super::{events, rule_texts};
use crate::dispatcher::model::{Author, BinaryEvent, Datastream, PluginEvent, Timestamp};
use crate::isolate::CallError;
use crate::metrics::Metrics;
use crate::workers::frame::{Job, Outcome, Status, Worker};
use crate::workers::overseer::WARNING;
use crate::workers::results::{Origin, registration};

/// The worker's name in events and groups.
pub const NAME: &str = "yara";
/// Its version without that of the rules.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const SECURITY: &str = "";

/// How long a start waits for the rules, which go on being compiled.
const FIRST_RULES: Duration = Duration::from_secs(20);

/// Members of one object that are published.
const CHILDREN_MAX: u64 = 1_000;
/// Words of password dictionaries and settings that are tried, and their bytes together: they go with every request.
const PASSWORDS_MAX: usize = 1_000;
const PASSWORD_BYTES_MAX: usize = 32 << 10;
/// Bytes of an object's name and of its format that rules see: they go with every request, too, and the name three times.
const NAME_MAX: usize = 8_000;
const FORMAT_MAX: usize = 1_000;
/// Bytes of a password dictionary that are read.
const DICTIONARY_MAX: u64 = 64 << 10;

/// Properties of the worker; those of `[workers.yara]`.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the rules are.
    pub rules_dir: PathBuf,
    /// Which of them.
    pub wanted: Wanted,
    /// How children are started.
    pub children: Children,
    /// Where packages are remembered.
    pub packages_dir: PathBuf,
    /// Most events in one fetch.
    pub bulk_size: usize,
    /// Longest idle wait.
    pub load_interval: Duration,
    /// Scans at once.
    pub threads: usize,
    /// Largest object and member.
    pub max_scan_size: u64,
    /// Time for a member.
    pub file_timeout: Duration,
    /// Time for an event.
    pub job_timeout: Duration,
    /// Whether new rules are for history, too.
    pub rescan: bool,
    /// How long a changed directory must be quiet.
    pub reload_settle: Duration,
    /// Which members become entities.
    pub publish: Publish,
    /// Limits of archives; its passwords are those of the configuration.
    pub expand: Expand,
    /// Where the rules are counted.
    pub metrics: Arc<Metrics>,
}

/// The YARA worker.
#[derive(Debug)]
pub struct Yara {
    options: Options,
    rulebook: Arc<Rulebook>,
    packages: Packages,
    /// Ends with this value.
    _watch: Watch,
}

impl Yara {
    /// A worker with the rules that are there. Blocks until they are compiled, but not for long; without any that compile it
    /// is [`Worker::down`] until there are some.
    ///
    /// # Errors
    /// The thread that watches the rules cannot be started.
    pub fn start(options: Options) -> io::Result<Self> {
        let rulebook = Arc::new(Rulebook::new(options.clone()));
        // What is wrong is logged there, and said by `down`.
        let watch = Watch::start(&rulebook, FIRST_RULES)?;
        let packages = Packages::new(options.packages_dir.clone());
        Ok(Self { options, rulebook, packages, _watch: watch })
    }

    /// The rules in use.
    #[must_use]
    pub fn listing(&self) -> Listing {
        self.rulebook.listing()
    }

    /// Reads the rules again; the set that is in use then.
    ///
    /// # Errors
    /// [`ReloadError`]; the rules stay as they are.
    pub fn reload_rules(&self) -> Result<Listing, ReloadError> {
        self.rulebook.reload().map(|_| self.rulebook.listing())
    }

    /// The report over a package.
    ///
    /// # Errors
    /// The disk's.
    pub fn report(&self, name: &str, version: &str) -> io::Result<Option<Report>> {
        self.packages.report(name, version)
    }

    fn author(set: Option<&Scanners>) -> Author {
        let suffix = set.map_or_else(|| "norules".to_owned(), |set| set.rules.short_hash().to_owned());
        Author {
            name: NAME.into(),
            version: format!("{VERSION}-{suffix}"),
            category: "plugin".into(),
            security: SECURITY.into(),
        }
    }

    /// Everything about one object.
    fn scanned(&self, job: &Job, set: &Scanners) -> Result<Outcome, Outcome> {
        let event = &job.event;
        let size = content_size(event);
        let most = self.options.max_scan_size;
        let too_large = |size: u64| {
            Outcome::opt_out(format!("the object has {size} bytes, above workers.yara.max_scan_size = {most}"))
        };
        if size > most {
            return Err(too_large(size));
        }
        let mut content = Some(job.content()?);
        let size = content.as_ref().map_or(size, |content| content.size());
        if size > most {
            return Err(too_large(size));
        }
        let name = name_of(event);
        let (passwords, untried) = self.passwords(job)?;
        let scan = Scan {
            externals: Externals::of(tail(&name, NAME_MAX), tail(&event.entity.file_format, FORMAT_MAX)),
            expand: Some(Expand { passwords, ..self.options.expand.clone() }),
            file_timeout_s: u32::try_from(self.options.file_timeout.as_millis().div_ceil(1000)).unwrap_or(u32::MAX),
            publish: self.options.publish,
            publish_max: CHILDREN_MAX,
            skip: Vec::new(),
        };
        let mut failed = None;
        let mut uploads = HashMap::new();
        let findings = set.scan(
            &scan,
            size,
            job.deadline(),
            &mut || match content.take().map_or_else(|| job.content(), Ok) {
                Ok(content) => Ok(Box::new(content)),
                Err(outcome) => Err(io::Error::other(outcome.message)),
            },
            &mut |member, mut bytes| {
                if uploads.contains_key(&member.sha256) {
                    return Ok(());
                }
                let stored = job.upstream().upload(&event.source.name, "content", &mut bytes);
                stored.map(|stored| drop(uploads.insert(member.sha256.clone(), stored))).map_err(|error| {
                    let told = error.to_string();
                    failed = Some(error);
                    told
                })
            },
        );
        let mut findings = findings.map_err(|error| outcome_of(error, failed.map(|error| job.failed(error))))?;
        if let Some(archive) = findings.told.archive.as_mut().filter(|archive| archive.encrypted && untried > 0) {
            archive
                .notes
                .push(format!("at least {untried} passwords that came with the event were not tried: too many"));
        }
        score::keep_counting(&mut findings.files, &name);
        self.told(job, set, &name, &findings, &uploads)
    }

    /// The results of a scan that went well.
    fn told(
        &self,
        job: &Job,
        set: &Scanners,
        name: &str,
        findings: &Findings,
        uploads: &HashMap<String, Datastream>,
    ) -> Result<Outcome, Outcome> {
        let scored = score::distribution(&findings.files, name);
        let mut notes = notes(&findings.told, &set.rules.hash);
        let package = package_of(&job.event);
        let failed =
            |error: io::Error| Outcome::failed(Status::ErrorRunner, "the package cannot be stored", error.to_string());
        let package = match package {
            Some((package, version)) => {
                let distribution = distribution(job, set, name, &scored, uploads, &notes);
                let score = self.packages.record(package, version, distribution).map_err(failed)?;
                Some((format!("{package} {version}"), score))
            }
            None => None,
        };
        let author = Self::author(Some(set));
        let origin = Origin { author: &author, ..job.origin() };
        let texts = rule_texts::of(&findings.files, &set.rules);
        if texts.left_out > 0 {
            notes.push(format!("the texts of {} of {} rules were left out", texts.left_out, texts.rules));
        }
        let mut streams = Vec::new();
        for text in &texts.texts {
            let stored = job.upstream().upload(&job.event.source.name, "yara_rule_hit", &mut text.as_bytes());
            let stored = stored.map_err(|error| job.failed(error))?;
            streams.push(Datastream { label: "yara_rule_hit".into(), ..stored });
        }
        let subject =
            events::Subject { findings, scored: &scored, name, hash: &set.rules.hash, package, uploads, streams };
        let results = events::of(&origin, subject, &mut notes).map_err(|invalid| {
            Outcome::failed(Status::ErrorOutput, "a result is no valid event", invalid.to_string())
        })?;
        let mut outcome = if notes.is_empty() {
            Outcome::completed(results)
        } else {
            Outcome::completed_with_errors(results, notes.join("; "))
        };
        outcome.author = (author != job.author).then(|| Box::new(author));
        Ok(outcome)
    }

    /// What is tried on encrypted members: the event's own, words of its dictionaries, those of the configuration. And how
    /// many at least are not.
    fn passwords(&self, job: &Job) -> Result<(Vec<String>, usize), Outcome> {
        let event = &job.event;
        let own = event.source.settings.get("passwords").map(String::as_str).unwrap_or_default();
        let mut words: Vec<String> = own.lines().map(str::to_owned).collect();
        for stream in event.entity.datastreams.iter().filter(|stream| stream.label == "password_dictionary") {
            let mut text = Vec::new();
            if let Some(content) = job.stream("password_dictionary", &stream.sha256)? {
                let read = content.take(DICTIONARY_MAX).read_to_end(&mut text);
                let failed = |error: io::Error| {
                    Outcome::failed(Status::ErrorRunner, "the password dictionary cannot be read", error.to_string())
                };
                read.map_err(failed)?;
            }
            words.extend(String::from_utf8_lossy(&text).lines().map(str::to_owned));
        }
        Ok(bounded(words, &self.options.expand.passwords))
    }

    /// Remembers for the package's report that a scan failed.
    fn remember_failure(&self, job: &Job, outcome: &Outcome) {
        let Some((package, version)) = package_of(&job.event).filter(|_| outcome.status.is_error()) else { return };
        let distribution = Distribution {
            source: job.event.source.name.clone(),
            sha256: job.event.entity.sha256.clone(),
            filename: name_of(&job.event),
            error: Some(format!("{}: {}", outcome.status, outcome.message)),
            failed: true,
            ..Distribution::default()
        };
        if let Err(error) = self.packages.record(package, version, distribution) {
            tracing::warn!(%error, package, version, "a failed scan is not in the package's report");
        }
    }
}

impl Worker for Yara {
    fn announce(&self) -> PluginEvent {
        let set = self.rulebook.current();
        let author = Self::author(set.as_deref());
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let hash = set.as_ref().map_or("", |set| set.rules.hash.as_str());
        let config = BTreeMap::from([
            ("rules_hash".to_owned(), text(hash)),
            ("max_scan_size".to_owned(), self.options.max_scan_size.to_string()),
        ]);
        let description = "Matches YARA rules against objects and the members of archives";
        registration(&author, description, &events::FEATURES, config, Timestamp::from_millis(now_ms()))
    }

    fn query(&self) -> Vec<(String, String)> {
        let mut query = vec![
            ("r-expedite", "true"),
            ("r-live", "true"),
            ("r-historic", "true"),
            ("r-action", "sourced"),
            ("r-action", "extracted"),
            // No r-streams: it would drop what has other streams beside its content, which these two always have.
            ("d-self", "true"),
        ];
        if !self.options.rescan {
            // One group for all rule sets: what waits in it is scanned with the new rules, what was scanned is not.
            query.push(("version", VERSION));
        }
        query.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn slots(&self) -> usize {
        jobs_at_once(self.options.threads)
    }

    fn bulk(&self) -> usize {
        self.options.bulk_size
    }

    fn load_interval(&self) -> Duration {
        self.options.load_interval
    }

    fn job_timeout(&self) -> Duration {
        self.options.job_timeout
    }

    fn run(&self, job: &Job) -> Outcome {
        let Some(set) = self.rulebook.current() else {
            return Outcome::failed(Status::ErrorRunner, "there are no rules", self.down().unwrap_or_default());
        };
        let outcome = self.scanned(job, &set).unwrap_or_else(|outcome| outcome);
        self.remember_failure(job, &outcome);
        outcome
    }

    fn reload(&self) -> Result<String, String> {
        let listing = self.reload_rules().map_err(|error| error.to_string())?;
        let Listing { hash, rules, files, errors, .. } = listing;
        let hash = hash.unwrap_or_default();
        Ok(format!("{rules} rules in {} files, {} files left out, set {hash}", files.len(), errors.len()))
    }

    fn down(&self) -> Option<String> {
        let none = || self.rulebook.failure().unwrap_or_else(|| "the rules are being compiled".into());
        self.rulebook.current().is_none().then(none)
    }

    fn facts(&self) -> Vec<(String, String)> {
        let listing = self.rulebook.listing();
        let mut facts = vec![
            ("rules_hash".to_owned(), listing.hash.unwrap_or_default()),
            ("rules".to_owned(), listing.rules.to_string()),
            ("rule_files".to_owned(), listing.files.len().to_string()),
            ("rule_files_left_out".to_owned(), listing.errors.len().to_string()),
        ];
        if !listing.errors.is_empty() {
            facts.push((WARNING.to_owned(), left_out(&listing.errors)));
        }
        if let Some(failure) = listing.failure {
            // The stronger one: nothing of what the directory holds now is in use. Without any rules it is `down`.
            if self.rulebook.current().is_some() {
                facts.retain(|(name, _)| name != WARNING);
                facts.push((WARNING.to_owned(), format!("the old rules stay in use: {failure}")));
            }
            facts.push(("reload_failure".to_owned(), failure));
        }
        facts
    }
}

/// Which files are left out, and why: the first of them.
fn left_out(errors: &[LeftOut]) -> String {
    const NAMED: usize = 10;
    let name = |LeftOut { path, line, reason }: &LeftOut| match line {
        0 => format!("{path}: {reason}"),
        line => format!("{path} line {line}: {reason}"),
    };
    let mut named: Vec<String> = errors.iter().take(NAMED).map(name).collect();
    if errors.len() > NAMED {
        named.push(format!("and {} more", errors.len() - NAMED));
    }
    let files =
        if errors.len() == 1 { "1 rule file is".to_owned() } else { format!("{} rule files are", errors.len()) };
    format!("{files} left out: {}", named.join("; "))
}

/// Size of the content as the event says.
fn content_size(event: &BinaryEvent) -> u64 {
    let content = event.entity.datastreams.iter().find(|stream| stream.label == "content");
    content.map_or(event.entity.size, |content| content.size)
}

/// The object's name: its feature `filename`, else the name in its last path node.
fn name_of(event: &BinaryEvent) -> String {
    let feature = event.entity.features.iter().find(|feature| feature.name == "filename" && !feature.value.is_empty());
    let node = || event.source.path.last().map(|node| node.filename.clone()).unwrap_or_default();
    feature.map_or_else(node, |feature| feature.value.clone())
}

/// The last bytes of a text, at most so many.
fn tail(text: &str, most: usize) -> &str {
    text.get(text.ceil_char_boundary(text.len().saturating_sub(most))..).unwrap_or_default()
}

/// Name and version of the package that an event is of.
fn package_of(event: &BinaryEvent) -> Option<(&str, &str)> {
    let reference =
        |name: &str| event.source.references.get(name).map(String::as_str).filter(|value| !value.is_empty());
    Some((reference("package_name")?, reference("package_version")?))
}

/// What is said of a distribution in the package's report.
fn distribution(
    job: &Job,
    set: &Scanners,
    name: &str,
    scored: &Scored,
    uploads: &HashMap<String, Datastream>,
    notes: &[String],
) -> Distribution {
    let (source, sha256) = (job.event.source.name.clone(), job.event.entity.sha256.clone());
    let top_member = scored.top.as_ref().map(|top| {
        let published = top.sha256.is_empty() || uploads.contains_key(&top.sha256);
        TopMember::new(top, &source, &sha256, published)
    });
    Distribution {
        filename: name.to_owned(),
        score: scored.score,
        rules_matched: scored.rules.iter().cloned().collect(),
        commit: set.rules.hash.clone(),
        top_member,
        error: (!notes.is_empty()).then(|| notes.join("; ")),
        failed: false,
        source,
        sha256,
    }
}

/// What is missing from a scan, in sentences.
fn notes(told: &Scanned, hash: &str) -> Vec<String> {
    let mut notes = told.archive.as_ref().map(|archive| archive.notes.clone()).unwrap_or_default();
    let shown = |path: &String| if path.is_empty() { "the object itself".to_owned() } else { path.clone() };
    let named = |listed: &super::ask::Listed| {
        let first = listed.first.iter().map(shown).collect::<Vec<_>>().join(", ");
        if listed.count > u64::try_from(listed.first.len()).unwrap_or(u64::MAX) {
            format!("{first}, ...")
        } else {
            first
        }
    };
    if told.timed_out.count > 0 {
        let (count, first) = (told.timed_out.count, named(&told.timed_out));
        notes.push(format!("{count} given up after workers.yara.file_timeout with the rules {hash}: {first}"));
    }
    if told.failed.count > 0 {
        notes.push(format!("{} not scanned: {}", told.failed.count, named(&told.failed)));
    }
    if told.rows_cut > 0 {
        notes.push(format!("{} of at least {} matches were left out", told.rows_cut, told.rows));
    }
    if told.hits_cut > 0 {
        notes.push(format!("{} further hits and paths of members were left out: there are too many", told.hits_cut));
    }
    if told.unpublished > 0 {
        notes.push(format!("{} members beyond {CHILDREN_MAX} were not published", told.unpublished));
    }
    notes
}

/// The first of `words` and then those of the configuration, each once, as many as go with a request; and how many of
/// `words` do not.
fn bounded(words: Vec<String>, configured: &[String]) -> (Vec<String>, usize) {
    let mut kept: Vec<String> = Vec::new();
    let mut left_out = 0;
    let reserved: usize = configured.iter().map(String::len).sum();
    let mut left = PASSWORD_BYTES_MAX.saturating_sub(reserved);
    let most = PASSWORDS_MAX.saturating_sub(configured.len());
    for word in words {
        let word = word.trim_end_matches('\r');
        if left_out > 0 || kept.len() >= most || word.len() > left {
            left_out += usize::from(!word.is_empty());
        } else if !word.is_empty() && !kept.iter().any(|known| known == word) {
            left -= word.len();
            kept.push(word.to_owned());
        }
    }
    for word in configured {
        if !kept.contains(word) {
            kept.push(word.clone());
        }
    }
    (kept, left_out)
}

/// How a job ends whose scan did not.
fn outcome_of(error: CallError, upload: Option<Outcome>) -> Outcome {
    if let (CallError::Source(_), Some(outcome)) = (&error, upload) {
        return outcome;
    }
    let (status, short) = match &error {
        CallError::Source(_) => (Status::ErrorRunner, "the content cannot be read"),
        CallError::Busy | CallError::Start(_) => (Status::ErrorRunner, "there is no scanner"),
        CallError::Died | CallError::Garbled(_) => (Status::ErrorRunner, "the scanner failed"),
        CallError::OutOfMemory => (Status::ErrorOutOfMemory, "out of memory"),
        CallError::TimedOut(_) | CallError::Silent(_) => (Status::ErrorTimeout, "the scan took too long"),
    };
    Outcome::failed(status, short, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_passwords_come_first_and_each_once() {
        let words = ["b\r", "", "a", "b", "infected"].map(str::to_owned).to_vec();
        let kept = bounded(words, &["password".to_owned(), "infected".to_owned()]);
        assert_eq!(kept, (["b", "a", "infected", "password"].map(str::to_owned).to_vec(), 0));
    }

    #[test]
    fn many_words_leave_room_for_those_of_the_configuration() {
        let (kept, left_out) = bounded((0..5_000).map(|n| format!("word{n}")).collect(), &["password".to_owned()]);
        assert_eq!((kept.len(), kept.last().map(String::as_str)), (PASSWORDS_MAX, Some("password")));
        assert_eq!(left_out, 4_001);
        let kept = bounded(vec!["x".repeat(PASSWORD_BYTES_MAX)], &["password".to_owned()]);
        assert_eq!(kept, (vec!["password".to_owned()], 1));
    }
}
