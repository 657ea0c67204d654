//! `azulite config show` and `azulite config check`.

use super::args::{Cli, ConfigCommand};
use super::exit::Exit;
use crate::config::{Config, ConfigErrors, Loaded};
use serde_json::json;
use std::io::{self, Write};

/// Loads the configuration with the flags of `cli` and the variables `env`, and prints what `command` asks for.
///
/// # Errors
/// Only those of `out`; mistakes in the configuration are a result: they are printed and the exit code says so.
pub fn run(
    cli: &Cli,
    command: ConfigCommand,
    env: impl Iterator<Item = (String, String)>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<Exit> {
    match Config::load(&cli.flags(), env) {
        Ok(loaded) => {
            if !cli.global.json {
                loaded.warnings.iter().try_for_each(|warning| writeln!(err, "warning: {warning}"))?;
            }
            accepted(cli.global.json, command, &loaded, out)?;
            Ok(Exit::Done)
        }
        Err(errors) => {
            refused(cli.global.json, &errors, out, err)?;
            Ok(Exit::Usage)
        }
    }
}

fn accepted(json: bool, command: ConfigCommand, loaded: &Loaded, out: &mut impl Write) -> io::Result<()> {
    match (command, json) {
        (ConfigCommand::Show, true) => writeln!(out, "{:#}", loaded.to_json()),
        (ConfigCommand::Show, false) => write!(out, "{}", loaded.to_text()),
        (ConfigCommand::Check, true) => {
            writeln!(
                out,
                "{:#}",
                json!({ "ok": true, "file": loaded.file, "warnings": loaded.warnings, "problems": [] })
            )
        }
        (ConfigCommand::Check, false) => match &loaded.file {
            Some(file) => writeln!(out, "{}: no mistakes", file.display()),
            None => writeln!(out, "no configuration file found, the built-in defaults are in effect"),
        },
    }
}

fn refused(json: bool, errors: &ConfigErrors, out: &mut impl Write, err: &mut impl Write) -> io::Result<()> {
    if json {
        writeln!(out, "{:#}", json!({ "ok": false, "problems": errors.problems }))
    } else {
        writeln!(err, "{errors}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn azulite(file: &str, line: &str) -> (Exit, String, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        std::fs::write(&path, file).unwrap();
        let args = ["azulite", "--config", path.to_str().unwrap(), "config"].into_iter().chain(line.split(' '));
        let cli = Cli::parse_from(args);
        let super::super::args::Command::Config(config) = &cli.command else { panic!("got {cli:?}") };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = run(&cli, config.command, std::iter::empty(), &mut out, &mut err).unwrap();
        (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn a_good_file_is_called_good() {
        let (exit, out, err) = azulite("[http]\nmax_connections = 9\n", "check");
        assert_eq!((exit, err.as_str()), (Exit::Done, ""));
        assert!(out.ends_with("a.toml: no mistakes\n"), "{out}");
    }

    #[test]
    fn mistakes_end_with_code_two_and_their_line() {
        let (exit, out, err) = azulite("[http]\nmax_connections = 0\n", "check");
        assert_eq!((exit.code(), out.as_str()), (2, ""));
        assert!(err.contains("a.toml:2: http.max_connections = 0: allowed is"), "{err}");
    }

    #[test]
    fn json_goes_to_standard_output() {
        let (exit, out, _) = azulite("[http]\nmax_connections = 0\n", "check --json");
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((exit, &value["problems"][0]["origin"]["line"]), (Exit::Usage, &json!(2)));

        let (_, out, _) = azulite("[http]\nmax_connections = 9\n", "show --json");
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        let settings = value["settings"].as_array().unwrap();
        let setting = settings.iter().find(|setting| setting["key"] == "http.max_connections").unwrap();
        assert_eq!((&setting["value"], &setting["origin"]["line"]), (&json!(9), &json!(2)));
    }
}
