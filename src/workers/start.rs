//! Starts what the configuration switches on, inside `serve` or in a process of its own; shows and stops it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::frame::Worker;
use super::overseer::{Overseen, WorkerView};
use super::run::{Frame, Options};
use super::upstream::Upstream;
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

/// A worker that runs.
pub struct Started {
    /// How it stands.
    pub view: Arc<dyn Overseen>,
    /// Stops it: running jobs have so long to finish, then the rest is given back. Blocks.
    pub stop: Box<dyn FnOnce(Duration) + Send>,
}

/// The workers of this process.
#[derive(Default)]
pub struct Workers {
    views: Vec<Arc<dyn Overseen>>,
    stops: Mutex<Vec<Box<dyn FnOnce(Duration) + Send>>>,
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
        Self { views, stops: Mutex::new(stops) }
    }

    /// How each of them stands, in the order of the configuration.
    #[must_use]
    pub fn views(&self, now_ms: i64) -> Vec<WorkerView> {
        self.views.iter().map(|worker| worker.view(now_ms)).collect()
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
    if setting.config.yara.enabled {
        keep(yara(setting), &mut started, &mut failed);
    }
    for section in &setting.config.sandbox {
        if failed.is_none() {
            keep(sandbox(setting, section), &mut started, &mut failed);
        }
    }
    let workers = Workers::new(started);
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
pub fn yara(_setting: &Setting<'_>) -> Result<Started, String> {
    Err("workers.yara: this build has no YARA worker".to_owned())
}

/// The worker of one sandbox.
///
/// # Errors
/// It cannot be started.
pub fn sandbox(_setting: &Setting<'_>, section: &config::SandboxWorker) -> Result<Started, String> {
    Err(format!("workers.sandbox {:?}: this build has no sandbox worker", section.name))
}
