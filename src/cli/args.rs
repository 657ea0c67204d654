//! The command line: commands, flags and their help (`cli.md` sections 2 and 5).
//!
//! `main` parses it, one file per verb beside this one does the work.

mod bench;
mod dead;
mod files;
mod records;
mod rules;
mod topics;
mod upkeep;
mod values;
mod workers;

pub use bench::{Bench, BenchBlobs, BenchCommand, BenchEvents, BenchKafka, BenchLeases};
pub use dead::{Dead, DeadCommand, Retry, Which};
pub use files::{Filetype, Get, Ingest, Reidentify, Scanner};
pub use records::{Consume, Events, EventsCommand, Explain, Produce, Reprocess};
pub use rules::{Rules, RulesCommand, YaraChild};
pub use topics::{Groups, GroupsCommand, Topics, TopicsCommand};
pub use upkeep::{ConfigArgs, ConfigCommand, LostTasks, Migrate, Serve};
pub use values::Escaped;
pub use workers::{Worker, WorkerCommand};

use crate::config::Flags;
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
        after_help = "A running server ends tasks by itself whose plugin was not heard of for delivery.lease: it publishes an \
        error-network status in the plugin's name and hands the event out again."
    )]
    LostTasks(LostTasks),
    /// Look at what plugins could not work on, and put it back for another run
    #[command(
        after_help = "What a plugin fails at is tried again a few times ([delivery] in the configuration), and then is a \
                      dead letter: nothing is lost, and nothing more happens by itself. Works on the data directory when \
                      no server runs and through the server when one does."
    )]
    Dead(Dead),
    /// Run an entity again, whatever came of the last run
    #[command(
        after_help = "Every plugin that asked for events in the last 24 hours and takes the entity gets it once more, before         other work: its events with a dead letter, else the newest one."
    )]
    Retry(Retry),
    /// Run a worker in this process, against any dispatcher
    #[command(
        after_help = "Takes events until SIGTERM or SIGINT; running jobs have workers.shutdown_grace to finish, the rest is \
        given back. SIGHUP reads rules again. `serve` runs the same workers inside, where the configuration says so."
    )]
    Worker(Worker),
    /// Show how workers and all other plugins that take tasks stand
    #[command(
        after_help = "For each: where it runs (server, outside), whether it is there, when it was seen last; what waits for it \
        (QUEUE: events it has not looked at yet, of which its filters may drop some, with those that wait for another run), \
        what is under way, what ended since the server began, the rate of the last 5 minutes, the middle one of the times \
        from lease to final status. A version that nobody runs any more is `not seen`; it stays listed while events wait for \
        it, until `dead bury` makes dead letters of them."
    )]
    Workers,
    /// Check YARA rules before they are used; list and reload those in use
    #[command(
        after_help = "`check` needs no server and changes nothing: every file is compiled on its own and then all together, as \
        the worker does it; any file that the worker would leave out makes the exit code 1. The others ask the server."
    )]
    Rules(Rules),
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
    /// Compile rules or scan with them, as a child process
    #[command(name = "__yara", hide = true)]
    YaraChild(YaraChild),
}

#[cfg(test)]
mod tests;
