//! Flags of `rules` and of the children that compile and use rules.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::workers::yara::Role;

/// `rules`.
#[derive(Debug, Args)]
pub struct Rules {
    #[command(subcommand)]
    pub command: RulesCommand,
}

/// What to do with rules.
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Compile the rules below a directory, or of one file, and say what is wrong with them
    Check {
        /// Directory with .yar and .yara files, or one such file
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
    /// Show the rules that the server scans with, and what it left out
    List,
    /// Let the server read its rules again
    Reload,
    /// Print what the scans of a package's distributions came to
    Report {
        /// Its name, as `package_name` of the submissions says
        #[arg(value_name = "NAME")]
        name: String,
        /// Its version, as `package_version` says
        #[arg(value_name = "VERSION")]
        version: String,
    },
}

/// `__yara`.
#[derive(Debug, Args)]
pub struct YaraChild {
    /// What it is for
    #[arg(value_parser = role)]
    pub role: Role,
    /// Largest body that it is sent
    pub max_bytes: u64,
    /// Memory that it may use
    pub memory_bytes: u64,
}

fn role(text: &str) -> Result<Role, String> {
    match text {
        "compile" => Ok(Role::Compile),
        "scan" => Ok(Role::Scan),
        _ => Err("compile or scan".into()),
    }
}
