//! The YARA worker: scans objects and what is in them with rules from a directory.
//!
//! Rules are read, compiled and used in child processes only ([`engine`]); what the worker's own process sees of them are
//! texts, compiled bytes it does not look into, and hits. Spec: workers.md 2.

mod ask;
mod compile;
mod directory;
mod engine;
mod scanner;
mod source;

pub use ask::{Archive, Expand, Externals, Hit, Listed, Member, Meta, Publish, Row, Scan, Scanned};
pub use compile::{BuildError, Children, FileInUse, RuleSet, build};
pub use directory::{FILE_MAX_BYTES, FILES_MAX, LeftOut, TOTAL_MAX_BYTES, Wanted};
pub use engine::{CHILD, Role, serve};
pub use scanner::{FileHits, Findings, Publisher, ScannerOptions, Scanners};
pub use source::Problem;
