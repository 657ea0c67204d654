//! The commands: one file per verb. `main` calls [`main`], which parses, runs and chooses the exit code.

mod arenas;
pub mod args;
pub mod bench;
mod cart;
pub mod config;
mod consume;
mod dead;
mod events;
pub mod exit;
mod explain;
mod filetype;
mod get;
mod groups;
mod ingest;
mod interrupt;
mod lost_tasks;
mod migrate;
mod output;
mod produce;
mod reidentify;
mod reprocess;
mod retry;
mod rules;
mod scanner;
mod target;
mod topics;
mod walk;
pub(crate) mod worker;

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::{Config, ConfigErrors, Loaded, LogFormat, Logging, variables};
use crate::http::BindError;
use crate::serve::{self, ServeError};
use args::{BenchCommand, Cli, Command};
use azulite_storage::OpenError;
use azulite_storage::log::ReadError;
use azulite_storage::secret::KeyError;
use exit::Exit;

/// Parses the command line, runs the command, says how the process ends.
pub fn main() -> Exit {
    let cli = match Cli::of(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            let code = error.exit_code();
            // Nothing can be done about a closed standard error.
            drop(error.print());
            return if code == 0 { Exit::Done } else { Exit::Usage };
        }
    };
    match &cli.command {
        Command::Config(config) => {
            let printed = config::run(&cli, config.command, variables(), &mut io::stdout(), &mut io::stderr());
            printed.unwrap_or_else(|error| failed(&error))
        }
        Command::Bench(bench) => with_config(&cli, |loaded| measure(&cli, &bench.command, loaded)),
        Command::Filetype(args) => filetype::run(&cli.global, args),
        Command::Serve(_) => {
            arenas::keep_few();
            with_config(&cli, serve)
        }
        Command::Ingest(args) => with_config(&cli, |loaded| ingest::run(&cli.global, &loaded.config, args)),
        Command::Get(args) => with_config(&cli, |loaded| get::run(&loaded.config, args)),
        Command::Topics(args) => with_config(&cli, |loaded| topics::run(&cli.global, &loaded.config, &args.command)),
        Command::Groups(args) => with_config(&cli, |loaded| groups::run(&cli.global, &loaded.config, &args.command)),
        Command::Produce(args) => with_config(&cli, |loaded| produce::run(&cli.global, &loaded.config, args)),
        Command::Consume(args) => with_config(&cli, |loaded| consume::run(&cli.global, &loaded.config, args)),
        Command::Reidentify(args) => with_config(&cli, |loaded| reidentify::run(&cli.global, &loaded.config, args)),
        Command::Reprocess(args) => with_config(&cli, |loaded| reprocess::run(&cli.global, &loaded.config, args)),
        Command::Events(args) => with_config(&cli, |loaded| events::run(&cli.global, &loaded.config, &args.command)),
        Command::Explain(args) => with_config(&cli, |loaded| explain::run(&cli.global, &loaded.config, args)),
        Command::LostTasks(args) => with_config(&cli, |loaded| lost_tasks::run(&cli.global, &loaded.config, args)),
        Command::Dead(args) => with_config(&cli, |loaded| dead::run(&cli.global, &loaded.config, &args.command)),
        Command::Retry(args) => with_config(&cli, |loaded| retry::run(&cli.global, &loaded.config, args)),
        Command::Worker(args) => with_config(&cli, |loaded| worker::run(&loaded.config, args)),
        Command::Workers => with_config(&cli, |loaded| worker::list(&cli.global, &loaded.config)),
        Command::Scanner(args) => scanner::run(args),
        Command::YaraChild(args) => rules::child(args),
        Command::Rules(args) => with_config(&cli, |loaded| rules::run(&cli.global, &loaded.config, &args.command)),
        Command::Migrate(args) => with_config(&cli, |loaded| migrate::run(&cli.global, &loaded.config, args)),
    }
}

fn measure(cli: &Cli, command: &BenchCommand, loaded: &Loaded) -> Exit {
    let data_dir = &loaded.config.storage.data_dir;
    let shown = bench::Shown { json: cli.global.json, progress: !cli.global.quiet && io::stderr().is_terminal() };
    let out = &mut io::stdout();
    let measured = match command {
        BenchCommand::Disk { dir } => bench::disk(dir.as_ref().unwrap_or(data_dir), shown, out),
        BenchCommand::Ingest { paths, jobs, repetitions, dir } => {
            let dir = dir.as_ref().unwrap_or(data_dir);
            bench::ingest(dir, &loaded.config, paths, *jobs, *repetitions, shown, out)
        }
        BenchCommand::Log { size, producers, repetitions, dir } => {
            bench::log(dir.as_ref().unwrap_or(data_dir), *size, *producers, *repetitions, shown, out)
        }
        BenchCommand::Identify { paths, jobs, repetitions } => bench::identify(paths, *jobs, *repetitions, shown, out),
        BenchCommand::Yara { paths, rules, yara_tool, threads, repetitions } => {
            bench::yara(paths, rules, yara_tool.as_deref(), *threads, *repetitions, shown, out)
        }
        BenchCommand::Blobs(args) => bench::blobs::run(args, data_dir, shown, out),
        BenchCommand::Events(args) => bench::events::run(args, shown, out),
        BenchCommand::Leases(args) => bench::leases::run(args, shown, out),
        BenchCommand::Kafka(args) => bench::kafka::run(&args.into(), shown, out),
    };
    match measured {
        Ok(()) => Exit::Done,
        Err(error) => {
            let exit = failed(&format!("{error:#}"));
            if error.is::<bench::BadRequest>() { Exit::Usage } else { exit }
        }
    }
}

/// Names a failure.
fn failed(error: &dyn std::fmt::Display) -> Exit {
    eprintln!("azulite: {error}");
    Exit::Failed
}

/// Loads the configuration for a command that needs it; mistakes end with exit code 2 and nothing touched.
fn with_config(cli: &Cli, command: impl FnOnce(&Loaded) -> Exit) -> Exit {
    match Config::load(&cli.flags(), variables()) {
        Ok(loaded) => {
            start_logging(&loaded.config.logging);
            command(&loaded)
        }
        Err(errors) => refused(&errors),
    }
}

fn refused(errors: &ConfigErrors) -> Exit {
    eprintln!("{errors}");
    Exit::Usage
}

/// Log lines go to standard error, so that results on standard output stay clean.
fn start_logging(logging: &Logging) {
    let level = logging.level.as_str().to_ascii_lowercase();
    // The engines' own chatter is of use only to whoever asks for it.
    let filter = match level.as_str() {
        "trace" | "debug" => EnvFilter::new(format!("{level},pure_magic=warn")),
        _ => EnvFilter::new(format!("{level},fjall=error,lsm_tree=error,sled=error,pure_magic=error")),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    // When nobody reads stderr any more, saying so there would be a panic, and where the end is begun at that.
    let builder = builder.log_internal_errors(false);
    let started = match logging.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
    };
    if let Err(error) = started {
        eprintln!("azulite: logging could not be started: {error}");
    }
}

fn serve(loaded: &Loaded) -> Exit {
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    match serve::run(&loaded.config) {
        Ok(()) => Exit::Done,
        Err(error) => {
            tracing::error!("{error}");
            serve_exit(&error)
        }
    }
}

fn serve_exit(error: &ServeError) -> Exit {
    match error {
        ServeError::Bind(BindError { .. }) | ServeError::BindKafka(_) | ServeError::Start { .. } => Exit::Failed,
        ServeError::LogFiles(_) | ServeError::Adopt(_) | ServeError::DeadLetters { .. } => Exit::Usage,
        ServeError::Open(error) => open_exit(error),
        ServeError::Stopped(_) => Exit::Stopped,
    }
}

/// How a command ends that could not open the store.
fn open_exit(error: &OpenError) -> Exit {
    match error {
        OpenError::Locked { .. } => Exit::Locked,
        OpenError::Format { .. } => Exit::Usage,
        // Starting again does not bring a key back.
        OpenError::Key(KeyError::Missing { .. } | KeyError::Wrong { .. } | KeyError::Unreadable { .. })
        | OpenError::Stamp(_)
        | OpenError::StateDamaged { .. }
        | OpenError::Read(ReadError::Damaged { .. }) => Exit::Damaged,
        OpenError::Io { .. }
        | OpenError::Key(KeyError::Io { .. })
        | OpenError::Index(_)
        | OpenError::Catalogue(_)
        | OpenError::Blobs(_)
        | OpenError::Read(_)
        | OpenError::Append(_) => Exit::Failed,
    }
}
