//! Flags of `worker`.

use clap::{Args, Subcommand};

/// `worker`
#[derive(Debug, Args)]
pub struct Worker {
    #[command(subcommand)]
    pub command: WorkerCommand,
    /// Address of the dispatcher, for example http://127.0.0.1:8111
    #[arg(long, value_name = "URL", global = true, default_value = "http://127.0.0.1:8111")]
    pub url: String,
}

/// Which worker.
#[derive(Debug, Subcommand)]
pub enum WorkerCommand {
    /// Scan with YARA rules, as [workers.yara] says
    Yara,
    /// Send files to a sandbox, as one [[workers.sandbox]] says
    Sandbox {
        /// Name of the sandbox
        #[arg(long, value_name = "NAME")]
        name: String,
    },
}
