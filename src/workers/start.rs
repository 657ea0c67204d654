//! Starts what the configuration switches on, inside `serve` or in a process of its own; shows and stops it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::frame::Worker;
use super::overseer::{Overseen, WorkerView};
use super::run::{Frame, Options};
use super::sandbox::Sandbox;
use super::sandbox::crits::Crits;
use super::upstream::Upstream;
use super::yara::{self, Yara};
use crate::config;
use crate::metrics::Metrics;

/// Makes an upstream for one worker: each has its own, because an interrupt is for all that waits on one. The flag says
/// whether its running jobs end with this process.
pub type Connect<'a> = &'a dyn Fn(bool) -> Arc<dyn Upstream>;

/// What workers are started with.
pub struct Setting<'a> {
    /// `[workers]`.
    pub config: &'a config::Workers,
    /// The data directory; state of workers lies in `workers/<name>` below.
    pub data_dir: &'a Path,
    /// The dispatcher.
    pub connect: Connect<'a>,
    /// Where jobs are counted.
    pub metrics: Arc<Metrics>,
    /// How long a final status is worth trying to be stored.
    pub lease: Duration,
}

impl Setting<'_> {
    /// Where the worker of that name keeps what outlives the process.
    #[must_use]
    pub fn state_dir(&self, name: &str) -> PathBuf {
        self.data_dir.join("workers").join(name)
    }

    /// Runs a worker whose jobs end with the process in a frame.
    ///
    /// # Errors
    /// Its threads cannot be started.
    pub fn run(&self, worker: Arc<dyn Worker>) -> Result<Started, String> {
        let name = worker.announce().entity.name;
        let options = Options { lease: self.lease, ..Options::default() };
        let frame = Frame::start(worker, (self.connect)(true), options, self.metrics.clone());
        let frame = frame.map_err(|error| format!("the threads of {name} cannot be started: {error}"))?;
        let stopped = frame.clone();
        Ok(Started { view: frame, stop: Box::new(move |grace| stopped.stop(grace)) })
    }
}

/// Ends a worker, whose running jobs have so long to finish.
pub type Stop = Box<dyn FnOnce(Duration) + Send>;

/// A worker that runs.
pub struct Started {
    /// How it stands.
    pub view: Arc<dyn Overseen>,
    /// Stops it: running jobs have so long to finish, then the rest is given back. Blocks.
    pub stop: Stop,
}

/// The workers of this process.
#[derive(Default)]
pub struct Workers {
    views: Vec<Arc<dyn Overseen>>,
    stops: Mutex<Vec<Stop>>,
    yara: Option<Arc<Yara>>,
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").field("count", &self.views.len()).finish()
    }
}

impl Workers {
    /// Those that are given.
    #[must_use]
    pub fn new(started: Vec<Started>) -> Self {
        let (views, stops) = started.into_iter().map(|started| (started.view, started.stop)).unzip();
        Self { views, stops: Mutex::new(stops), yara: None }
    }

    /// The YARA worker, for what is asked about its rules.
    #[must_use]
    pub fn yara(&self) -> Option<&Arc<Yara>> {
        self.yara.as_ref()
    }

    /// How each of them stands, in the order of the configuration.
    #[must_use]
    pub fn views(&self, now_ms: i64) -> Vec<WorkerView> {
        self.views.iter().map(|worker| worker.view(now_ms)).collect()
    }

    /// Brings the metrics up to date that are looked up, not counted as something happens.
    pub fn measure(&self, metrics: &Metrics, now_ms: i64) {
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for worker in &self.views {
            let view = worker.view(now_ms);
            let name = view.name.as_str();
            metrics.worker_in_flight.at([name]).set(gauge(worker.jobs()));
            metrics.worker_up.at([name]).set(i64::from(view.state == "up"));
            for stage in &view.stages {
                let at = stage.name.as_str();
                metrics.worker_stage_in_flight.at([name, at]).set(gauge(stage.in_flight));
                for (status, count) in &stage.ended {
                    metrics.worker_stage_runs.at([name, at, status]).raise_to(*count);
                }
            }
        }
    }

    /// Lets each read again what may have changed on disk: its name, and what came of it. Blocks while they do.
    pub fn reload(&self) -> Vec<(String, Result<String, String>)> {
        self.views.iter().map(|worker| (worker.view(0).name, worker.reload())).collect()
    }

    /// Stops all of them at once; see [`Started::stop`]. The second call does nothing.
    pub fn stop(&self, grace: Duration) {
        let stops = std::mem::take(&mut *self.stops.lock().unwrap_or_else(PoisonError::into_inner));
        std::thread::scope(|scope| {
            stops.into_iter().for_each(|stop| {
                scope.spawn(move || stop(grace));
            });
        });
    }
}

/// Starts every worker that the configuration switches on.
///
/// # Errors
/// One of them cannot be started; those before it are stopped.
pub fn start(setting: &Setting<'_>) -> Result<Workers, String> {
    let mut started = Vec::new();
    let mut failed = None;
    let mut scanning = None;
    if setting.config.yara.enabled {
        let made = yara_worker(setting);
        let run = made.and_then(|worker| setting.run(scanning.insert(worker).clone()));
        keep(run, &mut started, &mut failed);
    }
    for section in &setting.config.sandbox {
        if failed.is_none() {
            keep(sandbox(setting, section), &mut started, &mut failed);
        }
    }
    if setting.config.crits.enabled && failed.is_none() {
        keep(crits(setting), &mut started, &mut failed);
    }
    let workers = Workers { yara: scanning, ..Workers::new(started) };
    match failed {
        None => Ok(workers),
        Some(reason) => {
            workers.stop(Duration::ZERO);
            Err(reason)
        }
    }
}

fn keep(made: Result<Started, String>, started: &mut Vec<Started>, failed: &mut Option<String>) {
    match made {
        Ok(one) => started.push(one),
        Err(reason) => *failed = Some(reason),
    }
}

/// The YARA worker.
///
/// # Errors
/// It cannot be started.
pub fn yara(setting: &Setting<'_>) -> Result<Started, String> {
    setting.run(yara_worker(setting)?)
}

fn yara_worker(setting: &Setting<'_>) -> Result<Arc<Yara>, String> {
    let options = yara_options(setting)?;
    let worker = Yara::start(options).map_err(|error| format!("workers.yara: {error}"))?;
    Ok(Arc::new(worker))
}

/// Which rule files the configuration wants.
///
/// # Errors
/// `name_pattern` is no regular expression.
pub fn wanted_rules(config: &config::YaraWorker) -> Result<yara::Wanted, String> {
    let pattern = (!config.name_pattern.is_empty()).then(|| regex::Regex::new(&config.name_pattern)).transpose();
    let name_pattern = pattern.map_err(|error| format!("workers.yara.name_pattern: {error}"))?;
    Ok(yara::Wanted { deny_namespaces: config.deny_namespaces.clone(), name_pattern })
}

fn yara_options(setting: &Setting<'_>) -> Result<yara::Options, String> {
    let config = &setting.config.yara;
    let publish = match config.publish_members {
        config::PublishMembers::None => yara::Publish::None,
        config::PublishMembers::Matched => yara::Publish::Matched,
        config::PublishMembers::All => yara::Publish::All,
    };
    Ok(yara::Options {
        rules_dir: config.rules_dir(setting.data_dir),
        wanted: wanted_rules(config)?,
        children: yara::Children::this(),
        packages_dir: setting.state_dir(yara::NAME).join("packages"),
        bulk_size: usize::try_from(config.bulk_size).unwrap_or(usize::MAX),
        load_interval: config.load_interval,
        threads: config.threads(),
        max_scan_size: config.max_scan_size,
        file_timeout: config.file_timeout,
        job_timeout: config.job_timeout,
        rescan: config.rules_change == config::RulesChange::Rescan,
        reload_settle: config.reload_settle,
        metrics: setting.metrics.clone(),
        publish,
        expand: yara::Expand {
            max_total_expanded: config.max_total_expanded,
            max_members: config.max_members,
            max_ratio: config.max_ratio,
            max_nesting: config.max_nesting,
            max_member: config.max_scan_size,
            passwords: config.passwords.clone(),
        },
    })
}

/// The worker of one sandbox.
///
/// # Errors
/// It cannot be started.
pub fn sandbox(setting: &Setting<'_>, section: &config::SandboxWorker) -> Result<Started, String> {
    let state_dir = setting.state_dir(&format!("sandbox-{}", section.name));
    // Its jobs are on disk: they do not end with the process.
    let upstream = (setting.connect)(false);
    let sandbox = Sandbox::from_config(section, upstream, state_dir, setting.lease, setting.metrics.clone());
    let sandbox = Arc::new(sandbox.map_err(|reason| format!("workers.sandbox {:?}: {reason}", section.name))?);
    let stopped = sandbox.clone();
    Ok(Started { view: sandbox, stop: Box::new(move |grace| stopped.stop(grace)) })
}

/// The sink of sandbox results.
///
/// # Errors
/// It cannot be started.
pub fn crits(setting: &Setting<'_>) -> Result<Started, String> {
    let sink = Crits::new(&setting.config.crits).map_err(|reason| format!("workers.crits: {reason}"))?;
    setting.run(Arc::new(sink))
}
