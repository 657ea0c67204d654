//! `azulite rules`: check YARA rules before they are used. And the children that compile and use rules.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::args::{Global, RulesCommand, YaraChild};
use super::exit::Exit;
use super::output::{self, Refusal};
use crate::config::Config;
use crate::workers::yara::{self, BuildError, Children, FileInUse, LeftOut, RuleSet, Wanted};

/// Answers on standard input until that is closed. There is nobody to tell of trouble: who asked notices by itself.
pub(super) fn child(args: &YaraChild) -> Exit {
    match yara::serve(args.role, args.max_bytes, args.memory_bytes) {
        Ok(()) => Exit::Done,
        Err(_) => Exit::Failed,
    }
}

/// Does what `command` says.
pub(super) fn run(global: &Global, _config: &Config, command: &RulesCommand) -> Exit {
    output::finish(match command {
        RulesCommand::Check { dir } => check(global, dir),
    })
}

/// The result of `check` with `--json`.
#[derive(Default, Serialize)]
struct Checked {
    /// SHA-256 of the set; none if no file compiles.
    hash: Option<String>,
    /// Rules that compile.
    rules: usize,
    files: Vec<FileInUse>,
    errors: Vec<LeftOut>,
    /// Rules that look at PE signatures and therefore never match.
    need_signatures: Vec<String>,
}

impl From<RuleSet> for Checked {
    fn from(set: RuleSet) -> Self {
        let rules = set.rules();
        let RuleSet { hash, files, left_out: errors, signatures: need_signatures, .. } = set;
        Self { hash: Some(hash), rules, files, errors, need_signatures }
    }
}

fn check(global: &Global, dir: &Path) -> Result<Exit, Refusal> {
    let checked = match yara::build(dir, &Wanted::default(), &Children::this()) {
        Ok(set) => Checked::from(set),
        Err(BuildError::Nothing { left_out, .. }) if !left_out.is_empty() => {
            Checked { errors: left_out, ..Checked::default() }
        }
        Err(error) => return Err(Refusal::failed(error.to_string())),
    };
    let out = &mut output::stdout();
    if global.json {
        output::print_json(out, &checked)?;
    } else {
        print(out, &checked)?;
    }
    Ok(if checked.errors.is_empty() { Exit::Done } else { Exit::Failed })
}

fn print(out: &mut impl Write, checked: &Checked) -> std::io::Result<()> {
    for LeftOut { path, line, reason } in &checked.errors {
        let place = if *line == 0 { String::new() } else { format!("{line}:") };
        writeln!(out, "{}:{place} {}", output::printable(path), output::printable(reason))?;
    }
    for rule in &checked.need_signatures {
        let rule = output::printable(rule);
        writeln!(
            out,
            "warning: {rule} never matches: it looks at PE signatures (pe.signatures, pe.is_signed), not read here"
        )?;
    }
    let set = checked.hash.as_ref().map(|hash| format!(", set {hash}")).unwrap_or_default();
    writeln!(out, "{} files, {} rules{set}, {} errors", checked.files.len(), checked.rules, checked.errors.len())?;
    out.flush()
}
