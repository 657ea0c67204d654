//! Flags of `dead` and `retry`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::values::{duration, sha256, since};

/// `dead`
#[derive(Debug, Args)]
pub struct Dead {
    #[command(subcommand)]
    pub command: DeadCommand,
}

/// Which letters are meant.
#[derive(Debug, Default, Args)]
pub struct Which {
    /// Only those of the consumer of this name
    #[arg(long, value_name = "NAME")]
    pub consumer: Option<String>,
    /// Only those whose last attempt ended with this status, for example error-timeout; requeued: those put back
    #[arg(long, value_name = "STATUS")]
    pub status: Option<String>,
}

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadCommand {
    /// List them, oldest first, with counts per consumer and status
    List {
        #[command(flatten)]
        which: Which,
        /// Only those from then on: a time such as 2026-01-02T03:04:05Z, or how long ago, such as 12h
        #[arg(long, value_name = "WHEN", value_parser = since)]
        since: Option<i64>,
        /// Only those of this source
        #[arg(long, value_name = "NAME")]
        source: Option<String>,
        /// Only those about this entity
        #[arg(long, value_name = "SHA256", value_parser = sha256)]
        sha256: Option<String>,
        /// How many are listed at most; all of them are counted
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: usize,
    },
    /// Show one with all its attempts
    Show {
        /// Its id, as listed
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Put them back for another run, with their attempts at 0
    #[command(
        after_help = "One that was put back and is not over yet is left as it is, so that this is safe to repeat. It is \
        removed when the run succeeds, and is back in the list when the run fails after its last attempt. With --file the \
        letters come from files, of another machine for example; the bytes they are about must be stored here.",
        group(ArgGroup::new("letters").args(["ids", "all", "consumer", "status", "file"]).required(true).multiple(true))
    )]
    Requeue {
        /// Their ids, as listed
        #[arg(value_name = "ID")]
        ids: Vec<String>,
        /// All of them
        #[arg(long, conflicts_with_all = ["ids", "consumer", "status", "file"])]
        all: bool,
        #[command(flatten)]
        which: Which,
        /// A file of a letter; may be given several times
        #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with_all = ["ids", "consumer", "status"])]
        file: Vec<PathBuf>,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
        /// How many in a second at most, for example 5/s
        #[arg(long, value_name = "N/s", value_parser = rate)]
        rate: Option<f64>,
        /// Before everything else
        #[arg(long)]
        expedite: bool,
    },
    /// Write each into a file of its own, to carry them to another machine
    Export {
        /// A directory, made if it is not there
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        #[command(flatten)]
        which: Which,
    },
    /// Take in files from another machine; nothing is run by that
    Import {
        /// Files, or directories of which all .json files are taken
        #[arg(value_name = "DIR|FILE", required = true)]
        paths: Vec<PathBuf>,
        /// Only look at them
        #[arg(long)]
        dry_run: bool,
    },
    /// Make dead letters of what waits for another run by a version of a plugin that nobody runs any more
    #[command(
        after_help = "`azulite workers` lists such versions as `not seen`. Refused while the plugin asks for events. Nothing is \
        lost: `dead requeue` puts the letters back. With a line in the topic azul.<prefix>.system.audit."
    )]
    Bury {
        /// Name of the plugin
        #[arg(value_name = "NAME")]
        consumer: String,
        /// Its version
        #[arg(value_name = "VERSION")]
        version: String,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove them for good, with a line in the topic azul.<prefix>.system.audit
    #[command(group(ArgGroup::new("letters").args(["ids", "older_than"]).required(true)))]
    Purge {
        /// Their ids, as listed
        #[arg(value_name = "ID")]
        ids: Vec<String>,
        /// All whose last attempt ended longer ago than this, for example 30d
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        older_than: Option<std::time::Duration>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// `retry`
#[derive(Debug, Args)]
pub struct Retry {
    /// Hash of the entity, 64 hexadecimal digits
    #[arg(value_name = "SHA256", value_parser = sha256)]
    pub sha256: String,
    /// Only the plugin of this name [default: every plugin that takes the entity]
    #[arg(long, value_name = "NAME")]
    pub plugin: Option<String>,
}

/// A number for each second.
fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse::<f64>().ok();
    let fits = number.filter(|rate| rate.is_finite() && (0.001..=1e6).contains(rate));
    fits.ok_or_else(|| "must be a number for each second, such as 5/s or 0.1/s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_for_each_second() {
        assert_eq!(rate("5/s"), Ok(5.0));
        assert_eq!(rate("0.5"), Ok(0.5));
        for bad in ["", "0", "-1/s", "5/m", "nan", "1e9"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
