//! `azulite lost-tasks`: the tasks that are open, with their age; `--release` ends them.

use std::io::Write;

use serde::Serialize;

use super::args::{Global, LostTasks};
use super::exit::Exit;
use super::output::{self, Refusal, Table, printable};
use super::target::Target;
use crate::admin::TaskView;
use crate::client::{Payload, encoded};
use crate::config::Config;
use crate::dispatcher::leases::{Ends, Looked};

/// Tasks that are listed at most; all of them are counted.
const MOST: usize = 10_000;

/// The result with `--json`.
#[derive(Serialize)]
struct Report {
    /// How many there are.
    open: usize,
    /// The first of them.
    tasks: Vec<TaskView>,
    /// How many of them were ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    released: Option<u64>,
}

/// Prints what `args` ask for.
pub(super) fn run(global: &Global, config: &Config, args: &LostTasks) -> Exit {
    output::finish(report(global, config, args))
}

fn report(global: &Global, config: &Config, args: &LostTasks) -> Result<Exit, Refusal> {
    let plugin = args.plugin.as_deref();
    let mut report = Report { open: 0, tasks: Vec::new(), released: None };
    let mut take = |task: TaskView| {
        report.open += 1;
        if report.tasks.len() < MOST {
            report.tasks.push(task);
        }
    };
    let query = plugin.map(|plugin| format!("?plugin={}", encoded(plugin))).unwrap_or_default();
    let released = match Target::for_reading(config)? {
        Target::Server(client) => {
            client.get_lines(&format!("/api/azulite/v1/tasks{query}"), |task: TaskView| {
                take(task);
                true
            })?;
            let release = || -> Result<Looked, _> {
                let path = format!("/api/azulite/v1/tasks/release{query}");
                client.post(&path, "application/json", &Payload::Bytes(b""))
            };
            args.release.then(release).transpose()?
        }
        Target::Store(store) => {
            let each = store.admin.open_tasks(plugin, &mut |task| {
                take(task);
                crate::admin::Flow::Continue(())
            });
            each.map_err(|error| Refusal::failed(format!("the tasks cannot be read: {error}")))?;
            let release = || release(config, &store, plugin);
            args.release.then(release).transpose()?
        }
    };
    report.released = released.map(|looked| looked.ended);
    print(global, &report)?;
    Ok(Exit::Done)
}

/// Ends tasks in a store that no server has open.
fn release(config: &Config, store: &super::target::Opened, plugin: Option<&str>) -> Result<Looked, Refusal> {
    let dispatcher = store.dispatcher(config)?;
    let ends = Ends { by_ms: None, name: plugin.map(str::to_owned) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(dispatcher.look_for_lost_tasks(&ends, dispatcher.now_ms()));
    ended.map_err(|error| Refusal::failed(format!("the tasks cannot be ended: {error}")))
}

fn print(global: &Global, report: &Report) -> Result<(), Refusal> {
    let out = &mut output::stdout();
    if global.json {
        output::print_json(out, report)?;
        return Ok(());
    }
    let now_ms = azulite_storage::clock::now_ms();
    let mut table = Table::new(&["PLUGIN", "VERSION", "ENTITY", "AGE", "SILENT", "LEFT", "ATTEMPT", "TASK"]);
    for task in &report.tasks {
        let text = |text: &str| printable(text).into_owned();
        // What is left of the lease is as old as it will be then.
        let left = age(task.until_ms, now_ms);
        let ages = [age(now_ms, task.since_ms), age(now_ms, task.heard_ms), left, (task.attempt + 1).to_string()];
        table.row(
            [text(&task.name), text(&task.version), text(&task.sha256)].into_iter().chain(ages).chain([text(&task.id)]),
        );
    }
    table.print(out)?;
    if report.open > report.tasks.len() {
        writeln!(out, "and {} more", report.open - report.tasks.len())?;
    }
    if let Some(released) = report.released {
        writeln!(out, "{released} ended")?;
    }
    out.flush()?;
    Ok(())
}

/// How long ago something was, in its largest unit.
pub(super) fn age(now_ms: i64, then_ms: i64) -> String {
    let seconds = now_ms.saturating_sub(then_ms).max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_given_in_their_largest_unit() {
        let ages = [0, 59_999, 60_000, 3_600_000, 47 * 3_600_000, 48 * 3_600_000].map(|ms| age(ms, 0));
        assert_eq!(ages, ["0s", "59s", "1m", "1h", "47h", "2d"]);
        assert_eq!(age(0, 5_000), "0s", "a clock that was set back");
    }
}
