//! The child's side: compiles rules, and scans objects and what is in them.
//!
//! What runs here is C code over hostile bytes and texts, confined by [`crate::isolate`]. Compiled rules that it loads are
//! those that another child of this worker made.

use std::collections::{HashMap, HashSet};
use std::io::{self, Cursor};
use std::ops::ControlFlow;

use bincode::config::standard;
use bincode::serde::decode_from_slice;
use rustix::process::setpriority_process;
use yara::{
    CallbackMsg, CallbackReturn, CompileErrorLevel, Compiler, MetadataValue, ScanFlags, Scanner, Yara, YaraError,
    YaraErrorKind,
};

use super::ask::{
    Archive, Ask, EXTERNALS, Expand, Externals, Found, Hit, Listed, Member, Meta, Publish, Row, Scan, Scanned, Sources,
    Told,
};
use super::directory::TOTAL_MAX_BYTES;
use crate::archive;
use crate::isolate::{self, Limits, Pieces, Service};

/// The hidden command that a child is started with; what follows are what it is for and its limits.
pub const CHILD: &str = "__yara";

/// What a child is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Compiles, and leaves the processor to those that scan.
    Compile,
    /// Scans.
    Scan,
}

/// Most matches of one object and its members that are told.
const ROWS_MAX: usize = 20_000;
/// Most matches of one pattern that are told.
const PATTERN_ROWS_MAX: usize = 1_000;
/// Most bytes of a match that are told: what a feature's value holds in base64.
pub(super) const ROW_BYTES_MAX: usize = 3_000;
/// Most bytes of all matches that are told.
const BYTES_MAX: usize = 8 << 20;
/// Most bytes of one rule's metadata and tags that are told.
const METAS_MAX: usize = 128 << 10;
/// Most bytes of hits and paths that are told of one object and its members, matches apart. Hostile archives have tens of
/// thousands of members, each of which many rules may match.
pub(super) const TOLD_MAX: usize = 32 << 20;
/// What a hit or a path takes beside its texts, about.
pub(super) const TOLD_EACH: usize = 256;
/// Bytes in one piece.
const PIECE: usize = 256 << 10;
/// Expanded bytes from which the ratio counts.
const RATIO_FROM: u64 = 16 << 20;

/// Compiled rules that are taken.
pub(super) const SETUP_MAX: u64 = 1 << 30;

/// Limits of a child that takes bodies of `body_bytes` and may use `memory_bytes`.
pub(super) fn limits(body_bytes: u64, memory_bytes: u64) -> Limits {
    Limits { memory_bytes, cpu_seconds: 24 * 3600, body_bytes, setup_bytes: SETUP_MAX }
}

/// Is such a child.
///
/// # Errors
/// As [`isolate::serve`].
pub fn serve(role: Role, body_bytes: u64, memory_bytes: u64) -> io::Result<()> {
    if role == Role::Compile {
        // Compiling is not urgent. Refused: it goes on as it is.
        setpriority_process(None, 10).ok();
    }
    isolate::serve(&limits(body_bytes, memory_bytes), Engine::start)
}

/// Compiler and scanner.
pub(super) struct Engine {
    /// Lives as long as the process, as do its rules.
    scanner: Option<Scanner<'static>>,
    // Keeps the library's settings.
    _library: Yara,
}

impl Engine {
    pub(super) fn start() -> Result<Self, String> {
        let told = |error: YaraError| error.to_string();
        let library = Yara::new().map_err(told)?;
        // The bytes are at hand: a million matches need not be copied.
        library.set_configuration_max_match_data(0).map_err(told)?;
        Ok(Self { scanner: None, _library: library })
    }
}

impl Service for Engine {
    type Request = Ask;
    type Answer = Told;

    fn answer(&mut self, ask: Ask, body: &[u8], pieces: &mut dyn Pieces) -> Told {
        match ask {
            Ask::Check => {
                for (namespace, text) in sources(body).unwrap_or_default() {
                    // To the end, automaton and all: what takes too long or too much there must cost only this file.
                    let whole =
                        |compiler: Compiler| compiler.compile_rules().map(drop).map_err(|error| (0, error.to_string()));
                    let checked =
                        compiler().and_then(|compiler| add(compiler, &namespace, &text)).and_then(whole).err();
                    // A parent that is gone ends this process anyway.
                    pieces.send(&Found::Checked(checked)).ok();
                }
                Told::Checked
            }
            Ask::Link => Told::Linked(link(&sources(body).unwrap_or_default(), pieces)),
            Ask::Scan(scan) => {
                let Some(scanner) = &mut self.scanner else {
                    let mut failed = Listed::default();
                    failed.add(|| "there are no rules".into());
                    return Told::Scanned(Scanned { failed, ..Scanned::default() });
                };
                Told::Scanned(
                    Scanning {
                        scanner,
                        scan: &scan,
                        pieces,
                        interesting: HashSet::new(),
                        uncounted: HashMap::new(),
                        endings: Vec::new(),
                        published: 0,
                        told: Scanned::default(),
                        bytes: 0,
                        sent: 0,
                        left: TOLD_MAX,
                    }
                    .run(body),
                )
            }
        }
    }

    fn prepare(&mut self, setup: &[u8]) -> Result<(), String> {
        let rules = yara::Rules::load_from_stream(Cursor::new(setup)).map_err(|error| error.to_string())?;
        let rules: &'static yara::Rules = Box::leak(Box::new(rules));
        let mut scanner = rules.scanner().map_err(|error| error.to_string())?;
        // Without its signal handlers: a fault ends this process, which is what it is for.
        scanner.set_flags(ScanFlags::REPORT_RULES_MATCHING | ScanFlags::NO_TRYCATCH);
        self.scanner = Some(scanner);
        Ok(())
    }
}

fn sources(body: &[u8]) -> Option<Sources> {
    const MOST: usize = 1 << 30;
    let (sources, used) = decode_from_slice::<Sources, _>(body, standard().with_limit::<MOST>()).ok()?;
    (used == body.len() && u64::try_from(used).ok()? <= 2 * TOTAL_MAX_BYTES).then_some(sources)
}

type Refused = (usize, String);

fn compiler() -> Result<Compiler, Refused> {
    let start = || {
        let mut compiler = Compiler::new()?;
        for name in EXTERNALS {
            compiler.define_variable(name, "")?;
        }
        compiler.disable_include_directive();
        Ok(compiler)
    };
    start().map_err(|error: YaraError| (0, error.to_string()))
}

fn add(compiler: Compiler, namespace: &str, text: &str) -> Result<Compiler, Refused> {
    compiler.add_rules_str_with_namespace(text, namespace).map_err(|error| match error {
        yara::Error::Compile(errors) => {
            let first = errors.iter().find(|error| matches!(error.level, CompileErrorLevel::Error));
            first.map_or_else(|| (0, errors.to_string()), |error| (error.line, error.message.clone()))
        }
        error @ (yara::Error::Io(_) | yara::Error::Yara(_)) => (0, error.to_string()),
    })
}

fn link(sources: &Sources, pieces: &mut dyn Pieces) -> Result<(), (Option<u64>, String)> {
    let mut linked = compiler().map_err(|(_, reason)| (None, reason))?;
    for (number, (namespace, text)) in (0..).zip(sources) {
        linked =
            add(linked, namespace, text).map_err(|(line, reason)| (Some(number), format!("line {line}: {reason}")))?;
    }
    let told = |error: &dyn std::fmt::Display| (None, error.to_string());
    let mut rules = linked.compile_rules().map_err(|error| told(&error))?;
    let mut bytes = Vec::new();
    rules.save_to_stream(&mut bytes).map_err(|error| told(&error))?;
    for piece in bytes.chunks(PIECE) {
        pieces.send(&Found::Bytes(piece.to_vec())).map_err(|error| told(&error))?;
    }
    Ok(())
}

/// One object on its way.
struct Scanning<'a> {
    scanner: &'a mut Scanner<'static>,
    scan: &'a Scan,
    pieces: &'a mut dyn Pieces,
    /// SHA-256 of the members that were told.
    interesting: HashSet<[u8; 32]>,
    /// Those whose hits count for none of their paths so far: the endings that would.
    uncounted: HashMap<[u8; 32], Vec<String>>,
    /// Endings of file names that the hits of the last file are for, as far as they name some.
    endings: Vec<String>,
    /// Members that are published.
    published: u64,
    told: Scanned,
    /// Rows and bytes that were sent.
    sent: usize,
    bytes: usize,
    /// Bytes of hits and paths that may still be sent.
    left: usize,
}

/// The parent is gone.
struct Gone;

/// What a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hits {
    None,
    /// Of rules that are for files of other names.
    Some,
    Count,
}

impl Scanning<'_> {
    fn run(mut self, body: &[u8]) -> Scanned {
        let externals = self.scan.externals.clone();
        if self.one(0, "", &externals, body).is_err() {
            return self.told;
        }
        if let Some(expand) = self.scan.expand.clone() {
            self.members(&expand, body);
        }
        self.told
    }

    /// Scans the members.
    fn members(&mut self, expand: &Expand, body: &[u8]) {
        let limits = archive::Limits {
            max_total_expanded: expand.max_total_expanded,
            max_members: expand.max_members,
            max_ratio: expand.max_ratio,
            ratio_from: RATIO_FROM,
            max_nesting: expand.max_nesting,
            max_member: expand.max_member,
        };
        // Time is the parent's: it ends this process.
        let options = archive::Options {
            name: &self.scan.externals.filename,
            limits: &limits,
            passwords: &expand.passwords,
            go_on: &|| true,
        };
        let mut number = 0;
        let report = archive::walk(body, &options, &mut |member| {
            number += 1;
            match self.member(number, &member) {
                Ok(()) if !self.told.out_of_memory => ControlFlow::Continue(()),
                Ok(()) | Err(Gone) => ControlFlow::Break(()),
            }
        });
        self.told.archive = report.map(|report| Archive::of(report, expand.max_member));
    }

    fn member(&mut self, number: u64, member: &archive::Member<'_>) -> Result<(), Gone> {
        let sha256 = hex(&member.sha256);
        if member.duplicate {
            let known = self.interesting.contains(&member.sha256);
            if !known {
                return Ok(());
            }
            if !self.fits(member.path.len() + TOLD_EACH) {
                self.told.hits_cut += 1;
                return Ok(());
            }
            let ends = |endings: &Vec<String>| endings.iter().any(|ending| member.path.ends_with(ending));
            let counts = self.uncounted.get(&member.sha256).is_some_and(ends);
            if counts {
                self.uncounted.remove(&member.sha256);
            }
            let published = self.publishes(counts && self.scan.publish == Publish::Matched);
            self.send(&Found::Again { sha256, path: member.path.to_owned(), published })?;
            return if published { self.send_bytes(member.bytes) } else { Ok(()) };
        }
        self.send(&Found::Began { member: number, path: member.path.to_owned() })?;
        let hits = self.one(number, member.path, &Externals::of(member.path, ""), member.bytes)?;
        let wanted = match self.scan.publish {
            // There is no stream without bytes.
            _ if member.bytes.is_empty() => false,
            Publish::None => false,
            Publish::Matched => hits == Hits::Count,
            Publish::All => true,
        };
        let published = self.publishes(wanted);
        if hits == Hits::None && !published {
            return Ok(());
        }
        self.interesting.insert(member.sha256);
        if hits == Hits::Some && !published {
            self.uncounted.insert(member.sha256, std::mem::take(&mut self.endings));
        }
        self.send(&Found::Member(Member {
            path: member.path.to_owned(),
            sha256,
            size: u64::try_from(member.bytes.len()).unwrap_or(u64::MAX),
            unsafe_path: member.unsafe_path,
            published,
        }))?;
        if published { self.send_bytes(member.bytes) } else { Ok(()) }
    }

    /// Whether a member is published that should be; counts both.
    fn publishes(&mut self, wanted: bool) -> bool {
        let published = wanted && self.published < self.scan.publish_max;
        self.published += u64::from(published);
        self.told.unpublished += u64::from(wanted && !published);
        published
    }

    fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        bytes.chunks(PIECE).try_for_each(|piece| self.send(&Found::Bytes(piece.to_vec())))
    }

    /// Whether so many bytes of hits and paths may be told; then they are counted.
    fn fits(&mut self, bytes: usize) -> bool {
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }

    fn send(&mut self, found: &Found) -> Result<(), Gone> {
        self.pieces.send(found).map_err(|_| Gone)
    }

    /// Scans `bytes` and sends what hits.
    fn one(&mut self, number: u64, path: &str, externals: &Externals, bytes: &[u8]) -> Result<Hits, Gone> {
        if self.scan.skip.contains(&number) {
            self.told.timed_out.add(|| path.to_owned());
            return Ok(Hits::None);
        }
        let (mut hits, mut bounds) = (Vec::new(), Bounds { rows: self.sent, bytes: self.bytes, all: 0, told: 0 });
        let scanned = self.matches(externals, bytes, &mut |rule| hits.push(bounds.hit(rule, bytes)));
        (self.sent, self.bytes) = (bounds.rows, bounds.bytes);
        self.told.rows += bounds.all;
        self.told.rows_cut += bounds.all - bounds.told;
        match scanned.map_err(|error| error.kind) {
            Ok(()) => {}
            Err(YaraErrorKind::ScanTimeout) => self.told.timed_out.add(|| path.to_owned()),
            Err(YaraErrorKind::InsufficientMemory) => self.told.out_of_memory = true,
            Err(kind) => self.told.failed.add(|| format!("{path}: {kind}")),
        }
        let mut found = Hits::None;
        self.endings.clear();
        for mut hit in hits {
            if !self.fits(hit.held() + path.len()) {
                self.told.hits_cut += 1;
                continue;
            }
            found = found.max(if hit.counts(path) { Hits::Count } else { Hits::Some });
            let endings = hit.texts("filetype").flat_map(str::split_whitespace).map(str::to_owned);
            self.endings.extend(endings);
            let mut rows = std::mem::take(&mut hit.rows);
            self.send(&Found::Hit(hit))?;
            while !rows.is_empty() {
                let (mut held, mut count) = (0, 0);
                while let Some(row) = rows.get(count).filter(|_| held < PIECE) {
                    held += row.bytes.len() + row.pattern.len() + 32;
                    count += 1;
                }
                let rest = rows.split_off(count);
                self.send(&Found::Rows(std::mem::replace(&mut rows, rest)))?;
            }
        }
        Ok(found)
    }

    fn matches(
        &mut self,
        externals: &Externals,
        bytes: &[u8],
        hit: &mut dyn FnMut(&yara::Rule<'_>),
    ) -> Result<(), YaraError> {
        for (name, value) in EXTERNALS.into_iter().zip(externals.values()) {
            self.scanner.define_variable(name, value.replace('\0', " ").as_str())?;
        }
        self.scanner.set_timeout(i32::try_from(self.scan.file_timeout_s).unwrap_or(i32::MAX));
        self.scanner.scan_mem_callback(bytes, |said| {
            if let CallbackMsg::RuleMatching(rule) = said {
                hit(&rule);
            }
            CallbackReturn::Continue
        })
    }
}

impl Archive {
    fn of(report: archive::Report, max_member: u64) -> Self {
        Self {
            members: report.members,
            encrypted: report.encrypted > 0,
            corrupt: report.corrupt.clone(),
            limit: report.limit.is_some(),
            unsupported: report.unsupported > 0,
            unsafe_paths: report.unsafe_paths,
            troubled: report.is_troubled(),
            notes: report.notes(max_member),
            passwords: report.passwords,
        }
    }
}

/// Lower-case digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What may still be told.
struct Bounds {
    rows: usize,
    bytes: usize,
    all: u64,
    told: u64,
}

impl Bounds {
    /// What is told of a rule that matches `body`.
    fn hit(&mut self, rule: &yara::Rule<'_>, body: &[u8]) -> Hit {
        let mut hit = Hit { namespace: rule.namespace.into(), name: rule.identifier.into(), ..Hit::default() };
        let mut left = METAS_MAX;
        let mut fits = |length: usize| {
            let fits = length <= left;
            left -= if fits { length } else { 0 };
            fits
        };
        hit.tags = rule.tags.iter().filter(|tag| fits(tag.len() + 8)).map(|tag| (*tag).to_owned()).collect();
        for meta in &rule.metadatas {
            let value = match &meta.value {
                MetadataValue::Integer(value) => Meta::Integer(*value),
                MetadataValue::String(value) => Meta::Text((*value).to_owned()),
                MetadataValue::Boolean(value) => Meta::Boolean(*value),
            };
            let length = if let Meta::Text(text) = &value { text.len() } else { 8 };
            if fits(meta.identifier.len() + length + 16) {
                hit.metas.push((meta.identifier.to_owned(), value));
            }
        }
        for pattern in &rule.strings {
            self.all += u64::try_from(pattern.matches.len()).unwrap_or(u64::MAX);
            for (nth, found) in pattern.matches.iter().take(PATTERN_ROWS_MAX).enumerate() {
                // A pattern's first match has room of its own: a hit of great weight may come after many of none.
                let room = if nth == 0 { 2 } else { 1 };
                if self.rows >= room * ROWS_MAX || self.bytes >= room * BYTES_MAX {
                    break;
                }
                let place = found.offset..found.offset.saturating_add(found.length.min(ROW_BYTES_MAX));
                let bytes = body.get(place).unwrap_or_default().to_vec();
                self.rows += 1;
                self.bytes += bytes.len();
                self.told += 1;
                let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
                let (offset, size) = (number(found.offset), number(found.length));
                hit.rows.push(Row { pattern: pattern.identifier.to_owned(), offset, size, bytes });
            }
        }
        hit
    }
}
