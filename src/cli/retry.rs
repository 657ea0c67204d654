//! `azulite retry`: an entity is run again, whatever came of the last run.

use super::args::{Global, Retry};
use super::dead::{refusal, tell};
use super::exit::Exit;
use super::output::{self, Refusal};
use super::target::Target;
use crate::admin::dead::DeadReport;
use crate::client::{Payload, encoded};
use crate::config::Config;

/// Puts back what `args` name.
pub(super) fn run(global: &Global, config: &Config, args: &Retry) -> Exit {
    output::finish(retry(global, config, args))
}

fn retry(global: &Global, config: &Config, args: &Retry) -> Result<Exit, Refusal> {
    let Retry { sha256, plugin } = args;
    let plugin = plugin.as_deref();
    let report: DeadReport = match Target::for_reading(config)? {
        Target::Server(client) => {
            let query = plugin.map(|plugin| format!("?plugin={}", encoded(plugin))).unwrap_or_default();
            let path = format!("/api/azulite/v1/retry/{sha256}{query}");
            client.post(&path, "application/json", &Payload::Bytes(b""))?
        }
        Target::Store(store) => {
            let dispatcher = store.dispatcher(config)?;
            let admin = store.admin.clone().with_dispatcher(dispatcher);
            admin.retry(sha256, plugin).map_err(refusal)?
        }
    };
    tell(global, &report, false)
}
