//! Flags of the verbs that take files in, look at them and hand them out.

use std::path::PathBuf;

use clap::Args;

use super::values::{key_value, sha256};

/// `ingest`
#[derive(Debug, Args)]
pub struct Ingest {
    /// Files and directories; `-` reads a list of paths, separated by NUL, from standard input
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Source that the files belong to, as in source.name of their events
    #[arg(long, value_name = "NAME")]
    pub source: String,
    /// Reference of the source, as in source.references; may be given several times
    #[arg(long = "ref", value_name = "K=V", value_parser = key_value)]
    pub references: Vec<(String, String)>,
    /// Security label of the source, as in source.security
    #[arg(long, value_name = "LABEL")]
    pub security: Option<String>,
    /// When the files came to the source, in RFC 3339, as in source.timestamp [default: now]
    #[arg(long, value_name = "TIME")]
    pub timestamp: Option<String>,
    /// Label of the data stream that a file becomes
    #[arg(long, value_name = "LABEL", default_value = "content")]
    pub label: String,
    /// Files worked on at once [default: one per processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,
    /// Continue the last interrupted run with the same paths and flags
    #[arg(long)]
    pub resume: bool,
    /// Work through the server at this address, not on the data directory
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// `filetype`
#[derive(Debug, Args)]
pub struct Filetype {
    /// Files and directories to identify
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
}

/// `get`
#[derive(Debug, Args)]
pub struct Get {
    /// Hash of the blob, 64 hexadecimal digits
    #[arg(value_name = "SHA256", value_parser = sha256)]
    pub sha256: String,
    /// File to write [default: standard output, unless that is a terminal]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Wrap the blob in the CaRT container, so that it cannot run
    #[arg(long)]
    pub cart: bool,
}

/// `reidentify`
#[derive(Debug, Args)]
pub struct Reidentify {
    /// Say what would change, and store nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Server to work through [default: the one that holds the data directory]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// `__scanner`.
#[derive(Debug, Args)]
pub struct Scanner {
    /// Largest content that it is sent
    pub max_bytes: u64,
    /// Ask the system's libmagic
    #[cfg(feature = "libmagic")]
    #[arg(long)]
    pub libmagic: bool,
}
