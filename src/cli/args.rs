//! The command line: commands, flags and their help (`cli.md` sections 2 and 5).
//!
//! `main` parses it, one file per verb beside this one does the work.

use super::bench::kafka::{Acks, Codec};
use crate::admin::records::StartAt;
use crate::config::{Flags, parse_size};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// Kafka-compatible log, blob store and Azul Dispatcher for a malware-analysis workstation, in one process.
#[derive(Debug, Parser)]
#[command(name = "azulite", version, arg_required_else_help = true, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 something failed (each failure is named), 2 usage or configuration error, \
     3 store locked by another process, 4 store damaged, 5 stopped after a failed sync or an internal fault";

impl Cli {
    /// Parses a command line, program name first.
    ///
    /// # Errors
    /// What is wrong with it, or the help that was asked for.
    pub fn of(arguments: impl Iterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = with_negative_numbers(Self::command());
        let matches = command.try_get_matches_from_mut(untangled(arguments))?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }

    /// What the command line says about the configuration.
    pub fn flags(&self) -> Flags {
        let mut flags = Flags {
            config: self.global.config.clone(),
            data_dir: self.global.data_dir.clone(),
            log_level: self.global.log_level.clone(),
            log_format: self.global.log_format.clone(),
            ..Flags::default()
        };
        if let Command::Serve(serve) = &self.command {
            flags.http.clone_from(&serve.http);
            flags.kafka.clone_from(&serve.kafka);
            flags.no_kafka = serve.no_kafka;
        }
        flags
    }
}

/// A number below zero behind a flag is its value, whose parser says what is allowed, and not another flag.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let takes = |arg: clap::Arg| {
        let values = arg.get_action().takes_values() && !arg.is_positional();
        if values { arg.allow_negative_numbers(true) } else { arg }
    };
    command.mut_args(takes).mut_subcommands(with_negative_numbers)
}

/// `--config` names a file, but behind `topics create` and `topics alter` it configures the topic when its value is K=V.
/// The parser knows one flag of a name: there it is told apart first.
fn untangled(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut told_apart = Vec::new();
    let mut arguments = arguments.peekable();
    let (mut topics, mut changes) = (false, false);
    while let Some(argument) = arguments.next() {
        let text = argument.to_str().unwrap_or_default();
        topics |= text == "topics";
        changes |= topics && matches!(text, "create" | "alter");
        let is_pair = |value: &OsString| value.to_str().is_some_and(|value| value.contains('='));
        let value = text.strip_prefix("--config=").filter(|value| value.contains('='));
        let place = match value {
            Some(value) if changes => OsString::from(format!("--topic-config={value}")),
            None if changes && text == "--config" && arguments.peek().is_some_and(is_pair) => "--topic-config".into(),
            Some(_) | None => argument,
        };
        told_apart.push(place);
    }
    told_apart
}

/// Flags that every command takes, before or after its name.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Configuration file [default: ./appliance.toml, else /etc/azulite/appliance.toml, else built-in defaults]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the store; overrides storage.data_dir [default: ./azulite-data]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Least level that is logged; overrides logging.level [default: info]
    #[arg(long, global = true, value_name = "LEVEL", value_parser = ["error", "warn", "info", "debug", "trace"])]
    pub log_level: Option<String>,
    /// Shape of log lines on standard error; overrides logging.format [default: text]
    #[arg(long, global = true, value_name = "FORMAT", value_parser = ["text", "json"])]
    pub log_format: Option<String>,
    /// Print results as JSON on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Show no progress bars
    #[arg(long, global = true)]
    pub quiet: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the appliance until SIGTERM or SIGINT
    #[command(
        after_help = "The store is created when the data directory is empty. SIGTERM lets requests under way finish \
        (http.drain_timeout) and closes the store. Under systemd readiness, status and watchdog are reported."
    )]
    Serve(Serve),
    /// Take files into the store and announce each one as a sourced binary event
    #[command(
        after_help = "Every regular file below the paths is hashed, identified, stored and announced. Works on the data \
        directory when no server runs and through the server when one does. Running it again adds nothing twice. Files that \
        cannot be read are listed at the end and make the exit code 1."
    )]
    Ingest(Ingest),
    /// Identify and hash local files, without a store
    #[command(
        after_help = "Prints path, file format and mime type of every regular file, with two tabs behind the path; \
        directories are walked. With --json everything that is known: digests, magic and extension too."
    )]
    Filetype(Filetype),
    /// Write a stored blob to a file
    Get(Get),
    /// List, show, make, change and delete topics
    Topics(Topics),
    /// List, show, move and delete the read positions of consumers
    Groups(Groups),
    /// Write records to a topic
    #[command(
        after_help = "Each line of standard input becomes a record, or each file. The count that is printed at the end is \
        of records that are on the disk. Lines that come slowly are written as they come. A key chooses the partition as \
        in Kafka's own tools, in event topics as the dispatcher does. Where a topic does not exist, it is made if the \
        broker makes topics on first use (auto.create.topics.enable)."
    )]
    Produce(Produce),
    /// Read the records of a topic
    #[command(
        after_help = "Prints values, one a line; events as JSON, null as `null`. With --json each line is an object with \
        partition, offset, time, key, value or event, and headers; bytes that are no text are in base64. Ends at the end of \
        the topic, after --count records, or at SIGINT. What cannot be read is named and makes the exit code 1."
    )]
    Consume(Consume),
    /// Copy the events of a previous prefix, in today's form and under keys computed anew
    #[command(
        after_help = "Reads the topics azul.<previous prefix>. and writes those of events.topic_prefix, up to the end of what \
        was there at the beginning. Works on the data directory when no server runs and through the server when one does. \
        A run that was interrupted goes on where it was. Records that cannot be copied are named and make the exit code 1. \
        Without flags the section [reprocess] of the configuration counts."
    )]
    Reprocess(Reprocess),
    /// Identify anew what an earlier version of the rules has identified
    #[command(
        after_help = "For use after an upgrade that changed the rules: the types of stored blobs are found out again; bytes, \
        digests and times stay, and events are not changed. Lists the blobs whose type is another now. Works on the data \
        directory when no server runs and through the server when one does. A run that was interrupted goes on where it \
        was; a server that was stopped goes on by itself when it runs again."
    )]
    Reidentify(Reidentify),
    /// Look at events
    Events(Events),
    /// Say why a plugin did or did not get an entity
    #[command(
        after_help = "For every stored event about the entity: which groups of the plugin read its topic and where they \
        stand, and the filter, value and limit that drop it. Only consumers that asked in the last 24 hours are known by \
        what they ask for."
    )]
    Explain(Explain),
    /// List the tasks that plugins have taken and not finished
    #[command(
        after_help = "A running server ends tasks by itself whose plugin was not heard of for events.lost_tasks_after: it \
        publishes an error-network status in the plugin's name."
    )]
    LostTasks(LostTasks),
    /// Print or check the configuration
    Config(ConfigArgs),
    /// Bring the store to the format that this version opens
    #[command(
        after_help = "`serve` opens exactly one format and refuses any other by name. Run this after an upgrade, with the \
        server stopped; it does nothing when there is nothing to do."
    )]
    Migrate(Migrate),
    /// Measure what this machine can do
    Bench(Bench),
    /// Look through content, as a child process
    #[command(name = "__scanner", hide = true)]
    Scanner(Scanner),
}

/// `serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// Address of the HTTP API; overrides http.listen [default: 127.0.0.1:8111]
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
    /// Address for the Kafka listener; overrides kafka.listen
    #[arg(long, value_name = "ADDR", conflicts_with = "no_kafka")]
    pub kafka: Option<String>,
    /// Want no Kafka listener; the same as kafka.listen = "off"
    #[arg(long)]
    pub no_kafka: bool,
}

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

/// `__scanner`.
#[derive(Debug, Args)]
pub struct Scanner {
    /// Largest content that it is sent
    pub max_bytes: u64,
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

/// `topics`
#[derive(Debug, Args)]
pub struct Topics {
    #[command(subcommand)]
    pub command: TopicsCommand,
}

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// List all topics with their partitions and records
    List,
    /// Show one topic: partitions with their offsets, and configuration
    Describe {
        /// Full name of the topic, for example azul.test01.system.status
        #[arg(value_name = "TOPIC")]
        topic: String,
    },
    /// Make a topic
    Create {
        /// Full name of the topic
        #[arg(value_name = "TOPIC")]
        topic: String,
        /// Number of partitions
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=10_000))]
        partitions: i32,
        /// Configuration in Kafka's names, for example retention.ms=86400000; may be repeated; --config K=V means the same
        #[arg(long, value_name = "K=V", value_parser = key_value)]
        topic_config: Vec<(String, String)>,
    },
    /// Change the configuration of a topic, or give it more partitions
    Alter {
        /// Full name of the topic
        #[arg(value_name = "TOPIC")]
        topic: String,
        /// Configuration in Kafka's names; may be repeated; --config K=V means the same
        #[arg(long, value_name = "K=V", value_parser = key_value, required_unless_present_any = ["unset", "partitions"])]
        topic_config: Vec<(String, String)>,
        /// Configuration that goes back to its default; may be repeated
        #[arg(long, value_name = "K")]
        unset: Vec<String>,
        /// Number of partitions, more than now
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=10_000))]
        partitions: Option<i32>,
    },
    /// Delete a topic with all its records, and the positions of all groups in it
    Delete {
        /// Full name of the topic
        #[arg(value_name = "TOPIC")]
        topic: String,
    },
}

/// `groups`
#[derive(Debug, Args)]
pub struct Groups {
    #[command(subcommand)]
    pub command: GroupsCommand,
}

/// What to do with consumer groups.
#[derive(Debug, Subcommand)]
pub enum GroupsCommand {
    /// List all groups with their total lag
    List,
    /// Show one group: position, end and lag for each partition
    Describe {
        /// Name of the group
        #[arg(value_name = "GROUP")]
        group: String,
    },
    /// Move the positions of a group; prints where each was and is
    #[command(
        after_help = "A group with live members is left alone: stop them first. Readers over HTTP may go on, they take up \
        the new positions at once. An offset outside of what a partition holds becomes its nearest end."
    )]
    Reset {
        /// Name of the group
        #[arg(value_name = "GROUP")]
        group: String,
        /// Where to: earliest, latest, an offset, a time such as 2026-01-02T03:04:05Z, or @ and milliseconds since 1970
        #[arg(long, value_name = "WHERE")]
        to: StartAt,
        /// Only this topic or partition, also where the group has no position yet [default: wherever it has one]
        #[arg(long, value_name = "TOPIC[:PARTITION]", value_parser = topic_partition)]
        topic: Option<(String, Option<i32>)>,
        /// Only print what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete a group with all its positions
    Delete {
        /// Name of the group
        #[arg(value_name = "GROUP")]
        group: String,
    },
}

/// A topic, or one partition of it. Names of topics hold no colon.
fn topic_partition(text: &str) -> Result<(String, Option<i32>), String> {
    let (topic, partition) = text.split_once(':').map_or((text, None), |(topic, index)| (topic, Some(index)));
    if topic.is_empty() {
        return Err("must be the name of a topic, or TOPIC:PARTITION".to_owned());
    }
    let index = |text: &str| text.parse().ok().filter(|index| *index >= 0);
    let partition = partition.map(|text| index(text).ok_or("the partition must be a number from 0 on")).transpose()?;
    Ok((topic.to_owned(), partition))
}

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
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
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

/// Bytes that were given as text with escapes.
pub type Escaped = std::sync::Arc<[u8]>;

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

/// `lost-tasks`
#[derive(Debug, Args)]
pub struct LostTasks {
    /// Only tasks of the plugin of this name
    #[arg(long, value_name = "NAME")]
    pub plugin: Option<String>,
    /// End them all now, as if they were lost
    #[arg(long)]
    pub release: bool,
}

/// `config`
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What to do with the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum ConfigCommand {
    /// Print every key with its value in effect and where it came from; secrets are hidden
    Show,
    /// Name every mistake with file and line, and do nothing else
    Check,
}

/// `migrate`
#[derive(Debug, Args)]
pub struct Migrate {
    /// Say what would be done, and do nothing
    #[arg(long, conflicts_with = "undo")]
    pub dry_run: bool,
    /// Go back to the checkpoint that the last migration took
    #[arg(long)]
    pub undo: bool,
}

/// `bench`
#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// What to measure. Each says the machine, medians of at least three repetitions and the spread, and stops by itself.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// The limit of the disk: plain appends with CRC and fdatasync, per size and number of writers
    Disk {
        /// Directory on the disk to measure [default: the data directory]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Event POST and GET of any dispatcher over HTTP
    #[command(
        after_help = "Each repetition posts to a source of its own until the time is over and reads everything back through \
        one consumer; its topics are deleted where the server has a way to. One round goes before that is not measured. \
        Everything acknowledged has to come back."
    )]
    Events(BenchEvents),
    /// Bulk ingest of a tree beside computing the digests of the same files, nothing stored
    Ingest {
        /// Files and directories to take in
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Files worked on at once [default: one per processor]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
        jobs: Option<u16>,
        /// Repetitions, at least three [default: 5]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(3..=100))]
        repetitions: Option<u32>,
        /// Directory on the disk to measure [default: the data directory]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Digests and identification of files beside ssdeep alone, nothing stored
    Identify {
        /// Files and directories to identify
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Files worked on at once [default: 1]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
        jobs: Option<u16>,
        /// Repetitions, at least three [default: 5]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(3..=100))]
        repetitions: Option<u32>,
    },
    /// Upload and download of blobs over HTTP, beside writing the same bytes durably, ssdeep alone and loopback
    #[command(
        after_help = "Each repetition uploads different bytes under a source of its own until the time is over, then downloads \
        them. They are deleted again where the server allows it, else they stay. The limits are measured on this machine in \
        the same run: compare with them only a server that runs here too."
    )]
    Blobs(BenchBlobs),
    /// The log beside the limit of the disk: the same sizes in the same run
    Log {
        /// Size of one record, for example 1Ki, 16Ki or 2MB [default: the sizes the log is built for]
        #[arg(long, value_name = "SIZE", value_parser = parse_size)]
        size: Option<u64>,
        /// Producers that append at once [default: 64, or what goes with the sizes the log is built for]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
        producers: Option<u16>,
        /// Repetitions, at least three [default: 3]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(3..=100))]
        repetitions: Option<u32>,
        /// Directory on the disk to measure [default: the data directory]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Produce, consume and end-to-end latency of any Kafka server, through librdkafka
    #[command(
        after_help = "Each repetition makes topics of its own on the server and deletes them: one is filled as fast as it \
        acknowledges and read from its beginning, through another one records go at a fixed rate without waiting for \
        batches to fill. One round goes before that is not measured. Everything acknowledged has to come back."
    )]
    Kafka(BenchKafka),
}

/// `bench events`
#[derive(Debug, Args)]
pub struct BenchEvents {
    /// Address of the server, for example http://127.0.0.1:8111
    #[arg(long, value_name = "URL")]
    pub url: String,
    /// Events of one POST
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub batch: u16,
    /// Clients that each wait for one answer before they ask again
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub clients: u16,
    /// Events that one GET asks for
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub count: u16,
    /// Size of one event, about, as JSON
    #[arg(long, value_name = "SIZE", default_value = "2Ki", value_parser = parse_size)]
    pub size: u64,
    /// Post and read Avro instead of JSON
    #[arg(long)]
    pub avro: bool,
    /// Ask for each POST to be durable before it is answered
    #[arg(long)]
    pub sync: bool,
    /// Seconds that posting is measured
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// Repetitions, at least three
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..=100))]
    pub repetitions: u32,
    /// Process of the server on this machine, for its CPU time and memory [default: the one that listens on the port]
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
}

/// `bench blobs`
#[derive(Debug, Args)]
pub struct BenchBlobs {
    /// Address of the server, for example http://127.0.0.1:8111
    #[arg(long, value_name = "URL")]
    pub url: String,
    /// Size of one blob
    #[arg(long, value_name = "SIZE", default_value = "1Mi", value_parser = parse_size)]
    pub size: u64,
    /// Clients that each wait for one answer before they ask again
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub clients: u16,
    /// Have only the SHA-256 computed
    #[arg(long)]
    pub skip_identify: bool,
    /// Seconds that each part of a repetition is measured
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// Repetitions, at least three
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..=100))]
    pub repetitions: u32,
    /// Directory on the disk whose limit is measured [default: the data directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Process of the server on this machine, for its CPU time and memory [default: the one that listens on the port]
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
}

/// `bench kafka`
#[derive(Debug, Args)]
pub struct BenchKafka {
    /// Address of the server, for example 127.0.0.1:9092; several with commas between
    #[arg(long, value_name = "ADDR")]
    pub bootstrap: String,
    /// Size of the value of one record
    #[arg(long, value_name = "SIZE", default_value = "1Ki", value_parser = parse_size)]
    pub size: u64,
    /// Partitions of the topics
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub partitions: u16,
    /// What an acknowledgement asks for
    #[arg(long, value_enum, default_value_t = Acks::All)]
    pub acks: Acks,
    /// How batches are compressed
    #[arg(long, value_enum, default_value_t = Codec::None)]
    pub codec: Codec,
    /// Seconds that each part of a repetition is measured
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// Repetitions, at least three
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..=100))]
    pub repetitions: u32,
    /// Records per second while latency is measured
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Process of the server on this machine, for its CPU time and memory [default: the one that listens on the port]
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
}

/// Text with `\n`, `\t`, `\r`, `\0`, `\\` and `\xNN`.
fn unescaped(text: &str) -> Result<Escaped, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let (byte, length) = match escape.as_bytes() {
            [b'n', ..] => (b'\n', 1),
            [b't', ..] => (b'\t', 1),
            [b'r', ..] => (b'\r', 1),
            [b'0', ..] => (0, 1),
            [b'\\', ..] => (b'\\', 1),
            [b'x', ..] => {
                let byte = escape.get(1..3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
                (byte.ok_or("behind \\x two hexadecimal digits are needed")?, 3)
            }
            _ => return Err("a backslash goes before n, t, r, 0, x or another one".to_owned()),
        };
        bytes.push(byte);
        rest = escape.get(length..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes.into())
}

fn unescaped_some(text: &str) -> Result<Escaped, String> {
    unescaped(text).and_then(|bytes| if bytes.is_empty() { Err("must not be empty".to_owned()) } else { Ok(bytes) })
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

/// A hash in lower case, as everything is stored.
fn sha256(text: &str) -> Result<String, String> {
    let fits = text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    if fits { Ok(text.to_ascii_lowercase()) } else { Err("must be 64 hexadecimal digits".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::error::ErrorKind;

    const HASH: &str = "AF1349B9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::of(std::iter::once("azulite").chain(line.split_whitespace()).map(OsString::from))
    }

    #[test]
    fn the_definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_flag_has_help() {
        fn walk(command: &clap::Command) {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name} has no help");
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{name} {} has no help", arg.get_id());
            }
            command.get_subcommands().filter(|sub| sub.get_name() != "help").for_each(walk);
        }
        walk(&Cli::command());
    }

    #[test]
    fn global_flags_go_before_or_after_the_command() {
        for line in [
            "--json --config a.toml topics list",
            "topics list --json --config a.toml",
            "topics --json list --config a.toml",
        ] {
            let cli = parse(line).unwrap();
            assert!(cli.global.json, "{line}");
            assert_eq!(cli.flags().config, Some(PathBuf::from("a.toml")), "{line}");
        }
    }

    #[test]
    fn a_topic_is_configured_with_the_flag_that_names_the_file_elsewhere() {
        for line in [
            "--config a.toml topics create t --config retention.ms=1 --config=cleanup.policy=compact",
            "topics create --config retention.ms=1 t --topic-config cleanup.policy=compact --config a.toml",
            "topics --config=a.toml alter t --config retention.ms=1 --config cleanup.policy=compact",
        ] {
            let cli = parse(line).unwrap();
            assert_eq!(cli.flags().config, Some(PathBuf::from("a.toml")), "{line}");
            let Command::Topics(Topics { command }) = &cli.command else { panic!("got {cli:?}") };
            let (TopicsCommand::Create { topic_config, .. } | TopicsCommand::Alter { topic_config, .. }) = command
            else {
                panic!("got {cli:?}")
            };
            let pairs = [("retention.ms", "1"), ("cleanup.policy", "compact")];
            assert_eq!(*topic_config, pairs.map(|(name, value)| (name.to_owned(), value.to_owned())), "{line}");
        }
        let cli = parse("topics alter t --unset retention.ms").unwrap();
        assert_eq!(cli.flags().config, None);
        let cli = parse("--config a=b.toml topics list").unwrap();
        assert_eq!(cli.flags().config, Some(PathBuf::from("a=b.toml")));
        let refused = parse("topics create t --config =1").unwrap_err();
        assert!(refused.to_string().contains("=1"), "{refused}");
    }

    #[test]
    fn serve_flags_reach_the_configuration() {
        let flags = parse("serve --http 127.0.0.1:1 --no-kafka --data-dir d --log-format json").unwrap().flags();
        assert_eq!((flags.http.as_deref(), flags.no_kafka), (Some("127.0.0.1:1"), true));
        assert_eq!((flags.data_dir, flags.log_format.as_deref()), (Some(PathBuf::from("d")), Some("json")));
    }

    #[test]
    fn ingest_takes_several_references() {
        let cli = parse("ingest a - --source s --ref k=v=w --ref e= --jobs 3 --resume").unwrap();
        let Command::Ingest(ingest) = cli.command else { panic!("got {:?}", cli.command) };
        assert_eq!(ingest.references, [("k".into(), "v=w".into()), ("e".into(), String::new())]);
        assert_eq!((ingest.paths.len(), ingest.label.as_str(), ingest.jobs), (2, "content", Some(3)));
    }

    #[test]
    fn hashes_are_checked_and_lowered() {
        let cli = parse(&format!("get {HASH} -o f")).unwrap();
        let Command::Get(get) = cli.command else { panic!("got {:?}", cli.command) };
        assert_eq!(get.sha256, HASH.to_ascii_lowercase());
        assert_eq!(parse("get abc").unwrap_err().kind(), ErrorKind::ValueValidation);
    }

    #[test]
    fn sizes_on_the_command_line_are_those_of_the_file() {
        let cli = parse("bench log --size 2Ki").unwrap();
        assert!(
            matches!(&cli.command, Command::Bench(Bench { command: BenchCommand::Log { size: Some(2048), .. } })),
            "{cli:?}"
        );
    }

    #[test]
    fn bench_ingest_takes_paths() {
        let cli = parse("bench ingest a b --jobs 2").unwrap();
        let Command::Bench(Bench { command: BenchCommand::Ingest { paths, jobs, .. } }) = &cli.command else {
            panic!("got {cli:?}")
        };
        assert_eq!((paths.len(), *jobs), (2, Some(2)));
    }

    #[test]
    fn escapes_stand_for_bytes() {
        for (text, bytes) in [("", &b""[..]), ("\\n", b"\n"), ("a\\tb\\\\\\0", b"a\tb\\\0"), ("\\xff;\\r", b"\xff;\r")]
        {
            assert_eq!(unescaped(text).unwrap().as_ref(), bytes, "{text}");
        }
        for bad in ["\\", "\\q", "\\x1", "\\xzz", "\\xé"] {
            assert!(unescaped(bad).is_err(), "{bad}");
        }
        assert!(unescaped_some("").is_err());
    }

    #[test]
    fn a_place_in_a_topic_is_a_word_an_offset_or_a_time() {
        for (text, want) in [
            ("latest", StartAt::Latest),
            ("12", StartAt::Offset(12)),
            ("@5", StartAt::Time(5)),
            ("1970-01-01T00:00:01Z", StartAt::Time(1000)),
        ] {
            let cli = parse(&format!("consume t --from {text}")).unwrap();
            let Command::Consume(consume) = cli.command else { panic!("got {:?}", cli.command) };
            assert_eq!(consume.from, want, "{text}");
        }
        for bad in ["-1", "yesterday", "@x", "1970-01-01"] {
            assert_eq!(
                parse(&format!("consume t --from {bad}")).unwrap_err().kind(),
                ErrorKind::ValueValidation,
                "{bad}"
            );
        }
    }

    #[test]
    fn numbers_below_zero_are_told_what_is_allowed() {
        for (line, allowed) in [
            ("groups reset g --to -5", "must be earliest, latest, an offset"),
            ("consume t --count -1", "-1 is not in 1.."),
            ("consume t --partition -1", "-1 is not in 0.."),
            ("topics create t --partitions -3", "-3 is not in 1..=10000"),
            ("bench log --size -1", "a size: a whole number"),
        ] {
            let refused = parse(line).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ValueValidation, "{line}: {refused}");
            assert!(refused.to_string().contains(allowed), "{line}: {refused}");
        }
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        for line in [
            "serve --kafka 127.0.0.1:1 --no-kafka",
            "migrate --dry-run --undo",
            "produce t --key k --key-separator :",
            "produce t --file f --key-separator :",
        ] {
            assert_eq!(parse(line).unwrap_err().kind(), ErrorKind::ArgumentConflict, "{line}");
        }
    }

    #[test]
    fn usage_errors_end_with_two() {
        for line in
            ["", "nonsense", "serve --nonsense", "ingest a", "--log-level loud serve", "ingest a --source s --ref =v"]
        {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        assert_eq!(parse("--help").unwrap_err().exit_code(), 0);
    }
}
