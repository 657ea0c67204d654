//! The configuration of the appliance: `appliance.toml`, environment and flags -> one checked [`Config`].
//!
//! Called by the commands of `cli`. `serve` hands parts of it to the other rooms as their own small `Options`; nobody
//! else sees the whole. Layers, weakest first: built-in defaults, the file, upstream's environment names, our own
//! environment names, flags. Every mistake of every layer is gathered before the load fails (`cli.md` section 3).

mod check;
mod documents;
mod environment;
mod file;
mod layer;
mod problem;
mod sections;
mod security;
mod show;
mod topics;
mod units;
mod upstream;
mod workers;

#[cfg(test)]
mod tests;

pub use environment::variables;
pub use file::SEARCHED;
pub use layer::{KeyPath, Origin};
pub use problem::{ConfigErrors, Problem};
pub use sections::{
    ClampReplicationFactor, Consumer, DeadLetter, Delivery, Durability, Events, Http, Identify, Kafka, LogFormat,
    LogLevel, Logging, Metrics, Reprocess, Reserve, Storage, Streams,
};
pub use security::{LabelOption, LabelOptions, Releasability, Security, SecurityLabels, TlpOption, TlpOptions};
pub use show::Entry;
pub use topics::{Elsewhere, Expiry, Source, TopicSettings};
pub use units::{Listen, format_duration, format_size, parse_address, parse_duration, parse_size};
pub use workers::{
    CritsSink, ParseStage, Parser, Per, PublishMembers, Rate, RulesChange, SANDBOX_CALLS, SandboxKind, SandboxWorker,
    Workers, YaraWorker, read_secret,
};

use layer::{Accepted, Given, Setting};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Everything that can be set; what [`Config::load`] returns has been checked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The listener of the HTTP API.
    pub http: Http,
    /// The Kafka listener.
    pub kafka: Kafka,
    /// Where data lies and what is durable.
    pub storage: Storage,
    /// Names and limits of the events API.
    pub events: Events,
    /// Leases and retries.
    pub delivery: Delivery,
    /// Consumers whose leases and retries differ, by name.
    pub consumers: BTreeMap<String, Consumer>,
    /// Events that consumers could not work on.
    pub dead_letter: DeadLetter,
    /// Upload and deletion of blobs.
    pub streams: Streams,
    /// File identification.
    pub identify: Identify,
    /// The process log.
    pub logging: Logging,
    /// `GET /metrics`.
    pub metrics: Metrics,
    /// Labels of security markings.
    pub security: Security,
    /// What the `reprocess` command copies.
    pub reprocess: Reprocess,
    /// The built-in workers.
    pub workers: Workers,
    /// Sources by name.
    pub sources: BTreeMap<String, Source>,
    /// Topics that differ from their defaults, by name without `azul.<prefix>.`.
    pub topics: BTreeMap<String, TopicSettings>,
}

impl Config {
    /// Leases and retries of the consumers for which they are not those of `[delivery]`, by name. What
    /// `[consumers."<name>"]` says is stronger than the section of a worker.
    pub fn deliveries(&self) -> BTreeMap<String, Delivery> {
        let crits = &self.workers.crits;
        let mut own = BTreeMap::new();
        if crits.enabled {
            own.insert(CritsSink::CONSUMER.to_owned(), crits.over(&self.delivery));
        }
        for (name, consumer) in &self.consumers {
            let delivery = consumer.over(own.get(name).unwrap_or(&self.delivery));
            own.insert(name.clone(), delivery);
        }
        own
    }
}

/// What the command line says about the configuration; `None` is a flag that was not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config`: the file, instead of looking for one.
    pub config: Option<PathBuf>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--log-level`
    pub log_level: Option<String>,
    /// `--log-format`
    pub log_format: Option<String>,
    /// `--http`
    pub http: Option<String>,
    /// `--kafka`
    pub kafka: Option<String>,
    /// `--no-kafka`
    pub no_kafka: bool,
}

impl Flags {
    fn settings(&self) -> Vec<Setting> {
        let data_dir = self.data_dir.as_ref().map(|path| path.to_string_lossy().into_owned());
        let no_kafka = self.no_kafka.then(|| "off".to_owned());
        [
            ("storage.data_dir", "--data-dir", data_dir.as_ref()),
            ("logging.level", "--log-level", self.log_level.as_ref()),
            ("logging.format", "--log-format", self.log_format.as_ref()),
            ("http.listen", "--http", self.http.as_ref()),
            ("kafka.listen", "--kafka", self.kafka.as_ref()),
            ("kafka.listen", "--no-kafka", no_kafka.as_ref()),
        ]
        .into_iter()
        .filter_map(|(key, name, value)| Some(Setting::text(KeyPath::of(key), value?, Origin::Flag { name })))
        .collect()
    }
}

/// Where each value came from that is not a default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<KeyPath, Origin>);

impl Origins {
    /// The origin of `key`, or of the first value below it.
    pub fn of(&self, key: &KeyPath) -> &Origin {
        let first = self.0.range(key..).next().filter(|(found, _)| found.parts().starts_with(key.parts()));
        first.map_or(&Origin::Default, |(_, origin)| origin)
    }
}

/// A checked configuration and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    /// Where each value came from.
    pub origins: Origins,
    /// What is allowed but deserves a line in the log.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads and checks all layers; `env` is [`variables`] except in tests.
    ///
    /// # Errors
    /// [`ConfigErrors`] names every mistake; the caller ends with exit code 2.
    pub fn load(flags: &Flags, env: impl Iterator<Item = (String, String)>) -> Result<Loaded, ConfigErrors> {
        Self::load_from(flags, env, &SEARCHED.map(PathBuf::from))
    }

    /// [`Config::load`], looking for the file in the places `searched`.
    fn load_from(
        flags: &Flags,
        env: impl Iterator<Item = (String, String)>,
        searched: &[PathBuf],
    ) -> Result<Loaded, ConfigErrors> {
        let mut problems = Vec::new();
        let file = flags.config.clone().or_else(|| file::find(searched));
        let mut settings = match file.as_deref().map(file::read).transpose() {
            Ok(settings) => settings.unwrap_or_default(),
            Err(problem) => {
                problems.push(problem);
                Vec::new()
            }
        };
        let environment = environment::read(env);
        settings.extend(environment.settings);
        problems.extend(environment.problems);
        settings.extend(flags.settings());

        let (accepted, refused) = sort(&settings, &mut problems);
        let origins = Origins(accepted.iter().map(|setting| (setting.key.clone(), setting.origin.clone())).collect());
        let mut config = match layer::merge(&accepted) {
            Ok(config) => config,
            Err(error) => {
                problems.push(clash(&error));
                return Err(ConfigErrors { problems });
            }
        };
        if let Some(data_dir) = &flags.data_dir {
            // A path need not be text, which is all that a layer carries.
            config.storage.data_dir.clone_from(data_dir);
        }
        problems.extend(check::check(&config, &origins, &refused));
        if !problems.is_empty() {
            return Err(ConfigErrors { problems });
        }
        let warnings = [environment.warnings, check::warnings(&config)].concat();
        Ok(Loaded { config, file, origins, warnings })
    }
}

/// Settings that can be used, and the keys of those that cannot.
fn sort(settings: &[Setting], problems: &mut Vec<Problem>) -> (Vec<Accepted>, BTreeSet<KeyPath>) {
    let mut accepted = Vec::new();
    let mut refused = BTreeSet::new();
    for setting in settings {
        match setting.checked() {
            Ok(setting) => accepted.push(setting),
            Err(problem) => {
                refused.insert(setting.key.clone());
                let each = each_mistake(setting, &problem);
                problems.extend(if each.is_empty() { vec![problem] } else { each });
            }
        }
    }
    (accepted, refused)
}

/// What is wrong with each item of a list of sections; empty for anything else.
fn each_mistake(setting: &Setting, problem: &Problem) -> Vec<Problem> {
    let Given::Typed(list) = &setting.given else { return Vec::new() };
    if setting.key != KeyPath::of("workers.sandbox") {
        return Vec::new();
    }
    let refused = |probe| {
        let probe = Setting::typed(setting.key.clone(), probe, setting.origin.clone());
        probe.checked().err().map(|problem| problem.message)
    };
    let each = workers::each_sandbox_mistake(list, refused).into_iter();
    each.map(|(key, value, message)| Problem { origin: problem.origin.clone(), key, value, message }).collect()
}

/// Settings that pass alone fit together, because a later one replaces an earlier one of the same key; should that ever
/// be untrue, it is a refusal and not a panic.
fn clash(error: &figment::Error) -> Problem {
    let key = error.path.join(".");
    Problem { origin: Origin::Default, message: error.kind.to_string(), value: "(merged)".to_owned(), key }
}
