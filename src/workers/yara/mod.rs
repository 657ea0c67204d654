//! The YARA worker: scans objects and what is in them with rules from a directory.
//!
//! Rules are read, compiled and used in child processes only ([`engine`]); what the worker's own process sees of them are
//! texts, compiled bytes it does not look into, and hits. Spec: workers.md 2.
//!
//! From the rules to the result: [`directory`] reads files, [`source`] finds the rules in them, [`compile`] makes a set,
//! [`rulebook`] keeps the one in use and changes it, [`scanner`] scans with it, [`score`], [`events`] and [`packages`] say
//! what that means, [`worker`] is the plugin.

mod ask;
mod compile;
mod directory;
mod engine;
mod events;
mod packages;
mod rule_texts;
mod rulebook;
mod scanner;
mod score;
mod source;
mod worker;

pub use ask::{Archive, Expand, Externals, Hit, Listed, Member, Meta, Publish, Row, Scan, Scanned};
pub use compile::{BuildError, Children, FileInUse, RuleSet, build};
pub use directory::{FILE_MAX_BYTES, FILES_MAX, LeftOut, TOTAL_MAX_BYTES, Wanted};
pub use engine::{CHILD, Role, serve};
pub use packages::{Distribution, PackageReport, Packages, Report, TopMember};
pub use rulebook::{Listing, ReloadError, Rulebook};
pub use scanner::{FileHits, Findings, Publisher, ScannerOptions, Scanners, jobs_at_once};
pub use score::{Scored, Top};
pub use source::Problem;
pub use worker::{NAME, Options, Yara};
