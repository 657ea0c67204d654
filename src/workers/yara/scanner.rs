//! Scans objects with one rule set, in child processes that hold it.

use std::io::Read;
use std::time::{Duration, Instant};

use super::ask::{Ask, Found, Hit, Member, Row, Scan, Scanned, Told};
use super::compile::{Children, RuleSet};
use super::engine;
use crate::isolate::{CallError, Counts, Options, Patience, Pool};

/// How long a scanner may say nothing beyond the time of one member, which it keeps by itself: unpacking takes time, too,
/// and nothing is said of members that are skipped. `max_total_expanded` of bzip2 takes a minute.
const SILENCE: Duration = Duration::from_secs(150);
/// How often an object is begun anew without a member that keeps a scanner busy for too long.
const RESTARTS: usize = 3;
/// How long a scanner may have nothing to do before it is stopped.
const IDLE: Duration = Duration::from_secs(3600);
/// Program, rules and what the library remembers; without object and members.
const MEMORY_BYTES: u64 = 3 << 30;
/// Bytes that are taken from a scanner for one object: more than one that is well tells. One that was taken over must not
/// fill the memory of this process.
const GATHERED_MAX: usize = 4 * engine::TOLD_MAX;

/// Properties of the scanners of a set.
#[derive(Clone, Debug)]
pub struct ScannerOptions {
    /// How children are started.
    pub children: Children,
    /// Children at once.
    pub threads: usize,
    /// Largest object, and member.
    pub max_scan_size: u64,
    /// Archives inside archives, each of which may hold a member.
    pub max_nesting: u32,
}

/// Jobs for so many scanners: while one is scanned, another is read, or its results are stored.
#[must_use]
pub fn jobs_at_once(threads: usize) -> usize {
    threads.saturating_mul(2)
}

/// A rule set and the children that scan with it.
#[derive(Debug)]
pub struct Scanners {
    /// The rules.
    pub rules: RuleSet,
    pool: Pool,
}

/// What a file is: the object itself, or a member.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileHits {
    /// `None` for the object itself.
    pub member: Option<Member>,
    /// Further paths of the same member.
    pub paths: Vec<String>,
    /// Rules that match.
    pub hits: Vec<Hit>,
}

impl FileHits {
    /// All paths; one that is empty for the object itself.
    pub fn all_paths(&self) -> impl Iterator<Item = &str> {
        let first = self.member.as_ref().map_or("", |member| member.path.as_str());
        std::iter::once(first).chain(self.paths.iter().map(String::as_str))
    }
}

/// What came of a scan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// The object itself first, then the members that a rule matches or that are published.
    pub files: Vec<FileHits>,
    /// Everything else.
    pub told: Scanned,
}

/// Takes the bytes of members that are published.
pub type Publisher<'a> = dyn FnMut(&Member, &[u8]) -> Result<(), String> + 'a;

impl Scanners {
    /// Children for the set, ready to scan.
    ///
    /// # Errors
    /// A child cannot be started, or does not take the rules.
    pub fn start(rules: RuleSet, options: &ScannerOptions) -> Result<Self, CallError> {
        let ScannerOptions { children, threads, max_scan_size, max_nesting } = options;
        let levels = u64::from(*max_nesting) + 2;
        let held = u64::try_from(rules.compiled.len()).unwrap_or(u64::MAX).saturating_mul(4);
        let memory = max_scan_size.saturating_mul(levels).saturating_add(MEMORY_BYTES).saturating_add(held);
        let pool = Pool::start(Options {
            program: children.program("scan", *max_scan_size, memory),
            limits: engine::limits(*max_scan_size, memory),
            workers: *threads,
            idle: IDLE,
            wait: IDLE,
            setup: Some(std::sync::Arc::clone(&rules.compiled)),
            shared: true,
        });
        let pool = pool.map_err(|error| CallError::Start(error.to_string()))?;
        pool.warm(*threads)?;
        Ok(Self { rules, pool })
    }

    /// How many children there were.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.pool.counts()
    }

    /// Scans the `size` bytes of an object until `deadline`; `open` reads it from its beginning, once for each time it is
    /// begun.
    ///
    /// A member that keeps a scanner busy for longer than it should is left out the next time, and named.
    ///
    /// # Errors
    /// [`CallError`]; [`CallError::Source`] if `open` or `publish` fails.
    pub fn scan(
        &self,
        scan: &Scan,
        size: u64,
        deadline: Instant,
        open: &mut dyn FnMut() -> std::io::Result<Box<dyn Read>>,
        publish: &mut Publisher<'_>,
    ) -> Result<Findings, CallError> {
        let mut scan = scan.clone();
        loop {
            let mut gathering = Gathering {
                findings: Findings::default(),
                begun: 0,
                pending: None,
                gathered: 0,
                publish_left: scan.publish_max,
                max_member: scan.expand.as_ref().map_or(0, |expand| expand.max_member),
                publish: &mut *publish,
            };
            gathering.findings.files.push(FileHits::default());
            let quiet = Some(Duration::from_secs(u64::from(scan.file_timeout_s)) + SILENCE);
            let patience = Patience { limit: deadline.saturating_duration_since(Instant::now()), quiet };
            let mut body = open().map_err(CallError::Source)?;
            let ask = Ask::Scan(Box::new(scan.clone()));
            let told = self.pool.call_in_pieces(&ask, &mut *body, size, patience, &mut |found| gathering.take(found));
            let (begun, findings) = (gathering.begun, gathering.findings);
            match told {
                Ok(Told::Scanned(told)) if told.out_of_memory => return Err(CallError::OutOfMemory),
                Ok(Told::Scanned(told)) => return Ok(Findings { told, ..findings }),
                Ok(Told::Checked | Told::Linked(_)) => return Err(CallError::Garbled("it is about something else")),
                Err(CallError::Silent(_)) if scan.skip.len() < RESTARTS && !scan.skip.contains(&begun) => {
                    scan.skip.push(begun);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// A member and its bytes, so far.
type Whole = (Member, Vec<u8>);

/// A scan's pieces, as they come.
struct Gathering<'a, 'b> {
    findings: Findings,
    /// The member that is looked at.
    begun: u64,
    /// Its hits so far are for a member that is not named yet; its bytes so far.
    pending: Option<(Vec<Hit>, Option<Whole>)>,
    /// Bytes that it took so far, about; those of published members apart.
    gathered: usize,
    /// Members that may still be published.
    publish_left: u64,
    /// Size of the largest one.
    max_member: u64,
    publish: &'a mut Publisher<'b>,
}

impl Gathering<'_, '_> {
    fn take(&mut self, found: Found) -> Result<(), CallError> {
        let garbled = || CallError::Garbled("its pieces are in no order");
        self.gathered = self.gathered.saturating_add(held(&found));
        if self.gathered > GATHERED_MAX {
            return Err(CallError::Garbled("it is too much"));
        }
        match found {
            Found::Began { member, path: _ } => {
                self.begun = member;
                self.pending = Some((Vec::new(), None));
            }
            Found::Hit(hit) => self.hits().ok_or_else(garbled)?.push(hit),
            Found::Rows(rows) => self.hits().and_then(|hits| hits.last_mut()).ok_or_else(garbled)?.rows.extend(rows),
            Found::Member(member) => {
                let (hits, bytes) = self.pending.as_mut().ok_or_else(garbled)?;
                let hits = std::mem::take(hits);
                if member.published {
                    *bytes = Some((member.clone(), Vec::new()));
                    self.publishes(&member)?;
                }
                self.findings.files.push(FileHits { member: Some(member), paths: Vec::new(), hits });
                self.whole()?;
            }
            Found::Bytes(bytes) => {
                let (_, held) = self.pending.as_mut().ok_or_else(garbled)?;
                let (member, held) = held.as_mut().ok_or_else(garbled)?;
                if u64::try_from(held.len() + bytes.len()).unwrap_or(u64::MAX) > member.size {
                    return Err(garbled());
                }
                held.extend(bytes);
                self.whole()?;
            }
            Found::Again { sha256, path, published } => {
                let same = |file: &&mut FileHits| file.member.as_ref().is_some_and(|member| member.sha256 == sha256);
                let file = self.findings.files.iter_mut().find(same).ok_or_else(garbled)?;
                file.paths.push(path.clone());
                let unpublished = file.member.as_mut().filter(|member| published && !member.published);
                if let Some(member) = unpublished {
                    member.published = true;
                    let member = Member { path, ..member.clone() };
                    self.publishes(&member)?;
                    self.pending = Some((Vec::new(), Some((member, Vec::new()))));
                } else if published {
                    return Err(garbled());
                }
            }
            Found::Checked(_) => return Err(garbled()),
        }
        Ok(())
    }

    /// Counts a member whose bytes follow.
    fn publishes(&mut self, member: &Member) -> Result<(), CallError> {
        if member.size == 0 || member.size > self.max_member {
            return Err(CallError::Garbled("a member is as large as none may be"));
        }
        let left = self.publish_left.checked_sub(1);
        self.publish_left = left.ok_or(CallError::Garbled("it publishes too many members"))?;
        Ok(())
    }

    /// The hits of what is looked at.
    fn hits(&mut self) -> Option<&mut Vec<Hit>> {
        match &mut self.pending {
            Some((hits, None)) => Some(hits),
            Some((_, Some(_))) => None,
            None => self.findings.files.first_mut().map(|file| &mut file.hits),
        }
    }

    /// Publishes a member whose bytes are all there.
    fn whole(&mut self) -> Result<(), CallError> {
        let Some((_, held)) = &mut self.pending else { return Ok(()) };
        let all =
            |(member, bytes): &(Member, Vec<u8>)| u64::try_from(bytes.len()).is_ok_and(|size| size == member.size);
        if let Some((member, bytes)) = held.take_if(|held| all(held)) {
            let refused = |reason: String| CallError::Source(std::io::Error::other(reason));
            (self.publish)(&member, &bytes).map_err(refused)?;
        }
        Ok(())
    }
}

/// Bytes that a piece takes as long as the scan goes on, about.
fn held(found: &Found) -> usize {
    match found {
        Found::Hit(hit) => hit.rows.iter().map(row_held).sum::<usize>() + hit.held(),
        Found::Rows(rows) => rows.iter().map(row_held).sum(),
        Found::Member(member) => member.path.len() + member.sha256.len() + engine::TOLD_EACH,
        Found::Again { sha256: _, path, published: _ } => path.len() + engine::TOLD_EACH,
        Found::Began { .. } | Found::Bytes(_) | Found::Checked(_) => 0,
    }
}

fn row_held(row: &Row) -> usize {
    row.bytes.len() + row.pattern.len() + 128
}
