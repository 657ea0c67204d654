//! Flags of the verbs that write and read records and events.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::values::{Escaped, at_least_one, key_value, sha256, unescaped, unescaped_some};
use crate::admin::records::StartAt;

/// `produce`
#[derive(Debug, Args)]
pub struct Produce {
    /// Full name of the topic
    #[arg(value_name = "TOPIC")]
    pub topic: String,
    /// Key of every record
    #[arg(short, long, value_name = "KEY")]
    pub key: Option<String>,
    /// What stands between key and value in a line; knows \n \t \0 \\ \xNN
    #[arg(short = 'K', long, value_name = "TEXT", value_parser = unescaped_some, conflicts_with_all = ["key", "file"])]
    pub key_separator: Option<Escaped>,
    /// What stands between records; empty makes all of standard input one record
    #[arg(short = 'D', long, value_name = "TEXT", value_parser = unescaped, default_value = "\\n", conflicts_with = "file")]
    pub delimiter: Escaped,
    /// Write empty keys and values as null
    #[arg(short = 'Z', long)]
    pub null: bool,
    /// Header of every record; may be given several times
    #[arg(short = 'H', long, value_name = "K=V", value_parser = key_value)]
    pub header: Vec<(String, String)>,
    /// Partition of every record [default: chosen by its key]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// A file whose whole content is one record; may be given several times
    #[arg(short, long, value_name = "FILE")]
    pub file: Vec<PathBuf>,
}

/// `consume`
#[derive(Debug, Args)]
pub struct Consume {
    /// Full name of the topic
    #[arg(value_name = "TOPIC")]
    pub topic: String,
    /// Where to begin in each partition: earliest, latest, an offset, a time such as 2026-01-02T03:04:05Z, or @ and
    /// milliseconds since 1970
    #[arg(short = 'o', long, value_name = "WHERE", default_value = "earliest", allow_hyphen_values = true)]
    pub from: StartAt,
    /// Records after which to end
    #[arg(short, long, value_name = "N", value_parser = at_least_one)]
    pub count: Option<u64>,
    /// Go on with what is added, until SIGINT
    #[arg(short, long)]
    pub follow: bool,
    /// Write values as they are, events as Avro, null as nothing
    #[arg(long)]
    pub raw: bool,
    /// Only this partition
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// Print keys too, with this between key and value; knows \n \t \0 \\ \xNN
    #[arg(short = 'K', long, value_name = "TEXT", value_parser = unescaped)]
    pub key_separator: Option<Escaped>,
    /// What stands behind each record; with --raw and nothing here the output is the bytes and nothing else
    #[arg(short = 'D', long, value_name = "TEXT", value_parser = unescaped, default_value = "\\n")]
    pub delimiter: Escaped,
}

/// `events`
#[derive(Debug, Args)]
pub struct Events {
    #[command(subcommand)]
    pub command: EventsCommand,
}

/// What to do with events.
#[derive(Debug, Subcommand)]
pub enum EventsCommand {
    /// Print every event that the log holds about one entity
    Get {
        /// Hash of the entity, 64 hexadecimal digits
        #[arg(value_name = "SHA256", value_parser = sha256)]
        sha256: String,
    },
}

/// `explain`
#[derive(Debug, Args)]
pub struct Explain {
    /// Hash of the entity, 64 hexadecimal digits
    #[arg(value_name = "SHA256", value_parser = sha256)]
    pub sha256: String,
    /// Name of the plugin, as it asks for events
    #[arg(long, value_name = "NAME")]
    pub plugin: String,
}

/// `reprocess`
#[derive(Debug, Args)]
pub struct Reprocess {
    /// Copy the binary topics of all sources; overrides reprocess.upgrade_sources and reprocess.upgrade_system
    #[arg(long, conflicts_with = "system")]
    pub sources: bool,
    /// Copy system topics; overrides reprocess.upgrade_sources and reprocess.upgrade_system
    #[arg(long)]
    pub system: bool,
    /// Prefix of the topics that are read; overrides reprocess.previous_prefix
    #[arg(long, value_name = "PREFIX")]
    pub previous_prefix: Option<String>,
    /// Full name of a topic that is left out; may be given several times; overrides reprocess.deny_topics
    #[arg(long, value_name = "TOPIC", value_delimiter = ',')]
    pub deny_topic: Vec<String>,
    /// What the names of system topics begin with that are copied; may be given several times; overrides
    /// reprocess.include_system
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub include_system: Vec<String>,
    /// Take JSON records too, of versions 4 to 6; the same as reprocess.legacy_json = true
    #[arg(long)]
    pub legacy_json: bool,
    /// Read and count only, write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Accepted for scripts: there is no time to wait before it begins
    #[arg(long, hide = true)]
    pub ignore_warning: bool,
    /// Work through the server at this address, not on the data directory
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}
