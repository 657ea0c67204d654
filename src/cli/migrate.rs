//! `azulite migrate`: brings the store to the format that this version opens.

use std::io::Write;

use azulite_migrations::{MigrateError, Mode, Outcome, migrate};
use azulite_storage::fs::RealFs;
use serde_json::json;

use super::args::{Global, Migrate};
use super::exit::Exit;
use super::output::{self, Refusal};
use crate::config::Config;

/// Does what `args` say and prints what was done.
pub(super) fn run(global: &Global, config: &Config, args: &Migrate) -> Exit {
    output::finish(migrated(global.json, config, mode(args)))
}

fn mode(args: &Migrate) -> Mode {
    match (args.dry_run, args.undo) {
        (true, _) => Mode::DryRun,
        (false, true) => Mode::Undo,
        (false, false) => Mode::Run,
    }
}

fn migrated(json: bool, config: &Config, mode: Mode) -> Result<Exit, Refusal> {
    let outcome = migrate(&RealFs, &config.storage.data_dir, mode).map_err(refusal)?;
    let out = &mut output::stdout();
    if json {
        let format = match &outcome {
            Outcome::NoStore => None,
            Outcome::UpToDate { format } => Some(format),
        };
        output::print_json(out, &json!({ "format": format, "steps": [], "message": outcome.to_string() }))?;
    } else {
        writeln!(out, "{outcome}")?;
        out.flush()?;
    }
    Ok(Exit::Done)
}

/// A format that this version cannot deal with is for the operator to solve: starting again does not help.
fn refusal(error: MigrateError) -> Refusal {
    let exit = match error {
        MigrateError::Newer { .. } | MigrateError::Unknown { .. } | MigrateError::Format(_) => Exit::Usage,
        MigrateError::NoCheckpoint { .. } => Exit::Failed,
    };
    Refusal::new(exit, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_a_usage_error_and_a_missing_store_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.storage.data_dir = folder.path().to_owned();
        assert_eq!(migrated(true, &config, Mode::DryRun).unwrap(), Exit::Done);
        std::fs::write(folder.path().join("FORMAT"), "azulite 9\n").unwrap();
        let refused = migrated(false, &config, Mode::Run).unwrap_err();
        assert!(refused.message().contains('9'), "{}", refused.message());
        assert_eq!(output::finish(Err(refused)), Exit::Usage);
    }
}
