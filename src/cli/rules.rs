//! `azulite rules`: check YARA rules before they are used; show and reload those in use. And the children that compile and use rules.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::args::{Global, RulesCommand, YaraChild};
use super::exit::Exit;
use super::output::{self, Refusal, Table};
use super::target::Target;
use super::worker::no_server;
use crate::client::{Client, Payload, encoded};
use crate::config::Config;
use crate::workers::start::wanted_rules;
use crate::workers::yara::{self, BuildError, Children, FileInUse, LeftOut, Listing, RuleSet};

/// Answers on standard input until that is closed. There is nobody to tell of trouble: who asked notices by itself.
pub(super) fn child(args: &YaraChild) -> Exit {
    match yara::serve(args.role, args.max_bytes, args.memory_bytes) {
        Ok(()) => Exit::Done,
        Err(_) => Exit::Failed,
    }
}

/// Does what `command` says.
pub(super) fn run(global: &Global, config: &Config, command: &RulesCommand) -> Exit {
    output::finish(match command {
        RulesCommand::Check { path } => check(global, config, path),
        RulesCommand::List => list(global, config),
        RulesCommand::Reload => reload(global, config),
        RulesCommand::Report { name, version } => report(global, config, name, version),
    })
}

fn server(config: &Config) -> Result<Client, Refusal> {
    match Target::for_reading(config)? {
        Target::Server(client) => Ok(client),
        Target::Store(_) => Err(Refusal::failed(format!("{}, so no rules are in use", no_server(config)))),
    }
}

fn list(global: &Global, config: &Config) -> Result<Exit, Refusal> {
    let listing = server(config)?.get_json::<Listing>("/api/azulite/v1/rules")?;
    let listing = listing.ok_or_else(|| Refusal::failed("the server runs no YARA worker (workers.yara.enabled)"))?;
    show(global, &listing)
}

fn reload(global: &Global, config: &Config) -> Result<Exit, Refusal> {
    let path = "/api/azulite/v1/rules/reload";
    let listing: Listing = server(config)?.post(path, "application/json", &Payload::Bytes(b""))?;
    show(global, &listing)
}

/// Prints the rules in use; files that are left out are named and make no failure, because the others work.
fn show(global: &Global, listing: &Listing) -> Result<Exit, Refusal> {
    let out = &mut output::stdout();
    if global.json {
        output::print_json(out, listing)?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["FILE", "NAMESPACE", "RULES", "SHA256"]);
    for file in &listing.files {
        let text = |text: &str| output::printable(text).into_owned();
        table.row([text(&file.path), text(&file.namespace), file.rules.len().to_string(), text(&file.sha256)]);
    }
    table.print(out)?;
    print_troubles(out, &listing.errors, &listing.need_signatures)?;
    if let Some(failure) = &listing.failure {
        writeln!(out, "the last reload changed nothing: {}", output::printable(failure))?;
    }
    let hash = listing.hash.as_deref().unwrap_or("none");
    let (dir, files, rules) = (output::printable(&listing.dir), listing.files.len(), listing.rules);
    let (files, rules, left_out) =
        (counted(files, "file"), counted(rules, "rule"), counted(listing.errors.len(), "file"));
    writeln!(out, "{dir}: {files}, {rules}, set {hash}, {left_out} left out")?;
    out.flush()?;
    Ok(Exit::Done)
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Prints the report over a package; with `--json`, as the absorbed scanner sent it.
fn report(global: &Global, config: &Config, name: &str, version: &str) -> Result<Exit, Refusal> {
    let path = format!("/api/azulite/v1/rules/packages/{}/{}", encoded(name), encoded(version));
    let report = server(config)?.get_json::<serde_json::Value>(&path)?;
    let report = report.ok_or_else(|| Refusal::failed(format!("nothing is known of package {name} {version}")))?;
    let out = &mut output::stdout();
    if global.json {
        output::print_json(out, &report)?;
    } else {
        print_report(out, &report)?;
    }
    Ok(Exit::Done)
}

/// A line for each distribution, then what the package comes to.
fn print_report(out: &mut impl Write, report: &serde_json::Value) -> std::io::Result<()> {
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::Null => "-".to_owned(),
        serde_json::Value::String(text) => output::printable(text).into_owned(),
        other @ (serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_)) => other.to_string(),
    };
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let joined = |value: &serde_json::Value| match list(value).iter().map(text).collect::<Vec<_>>() {
        rules if rules.is_empty() => "-".to_owned(),
        rules => rules.join(", "),
    };
    let of = |value: &serde_json::Value, key: &str| value.get(key).cloned().unwrap_or_default();
    let package = format!("{} {}", text(&of(report, "name")), text(&of(report, "version")));
    if let Some(reason) = report.get("reason") {
        writeln!(out, "{package}: every scan failed: {}", text(reason))?;
        return out.flush();
    }
    let mut table = Table::new(&["FILE", "SCORE", "RULES", "TOP MEMBER", "SHA256"]);
    for one in list(&of(report, "distributions")) {
        let top = of(&of(&one, "top_member"), "path");
        table.row([
            text(&of(&one, "filename")),
            text(&of(&one, "score")),
            joined(&of(&one, "rules_matched")),
            text(&top),
            text(&of(&one, "sha256")),
        ]);
    }
    table.print(out)?;
    for error in list(&of(report, "errors")) {
        writeln!(out, "{}", text(&error))?;
    }
    let (score, rules) = (text(&of(report, "score")), joined(&of(report, "rules_matched")));
    let most = text(&of(&of(report, "top_member"), "sha256"));
    writeln!(
        out,
        "{package}: score {score}, rules {rules}, most malicious {most}, set {}",
        text(&of(report, "commit"))
    )?;
    out.flush()
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

fn check(global: &Global, config: &Config, dir: &Path) -> Result<Exit, Refusal> {
    let wanted = wanted_rules(&config.workers.yara).map_err(Refusal::usage)?;
    let checked = match yara::build(dir, &wanted, &Children::this()) {
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
    print_troubles(out, &checked.errors, &checked.need_signatures)?;
    let hash = checked.hash.as_ref().map(|hash| format!(", set {hash}")).unwrap_or_default();
    let (files, rules, errors) =
        (counted(checked.files.len(), "file"), counted(checked.rules, "rule"), counted(checked.errors.len(), "error"));
    writeln!(out, "{files}, {rules}{hash}, {errors}")?;
    out.flush()
}

/// One line for each file that is left out and for each rule that never matches.
fn print_troubles(out: &mut impl Write, errors: &[LeftOut], need_signatures: &[String]) -> std::io::Result<()> {
    for LeftOut { path, line, reason } in errors {
        let place = if *line == 0 { String::new() } else { format!("{line}:") };
        writeln!(out, "{}:{place} {}", output::printable(path), output::printable(reason))?;
    }
    for rule in need_signatures {
        let rule = output::printable(rule);
        writeln!(
            out,
            "warning: {rule} never matches: it looks at PE signatures (pe.signatures, pe.is_signed), not read here"
        )?;
    }
    Ok(())
}
