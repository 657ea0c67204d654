//! Flags of `serve` and of the verbs that look after it.

use clap::{Args, Subcommand};

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
