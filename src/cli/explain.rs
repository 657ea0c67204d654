//! `azulite explain`: why a plugin did or did not get an entity.

use std::io::{self, Write};

use super::args::{Explain, Global};
use super::exit::Exit;
use super::output::{self, Refusal, printable};
use super::target::Target;
use super::topics::no_such_api;
use crate::admin::{ExplainedConsumer, ExplainedEvent, Explanation, Fate, Place, WaitingView};
use crate::client::encoded;
use crate::config::Config;
use crate::dispatcher::dead::Head;

/// Prints what `args` ask for.
pub(super) fn run(global: &Global, config: &Config, args: &Explain) -> Exit {
    output::finish(explain(global, config, args))
}

fn explain(global: &Global, config: &Config, args: &Explain) -> Result<Exit, Refusal> {
    let Explain { sha256, plugin } = args;
    let explanation = match Target::for_reading(config)? {
        Target::Server(client) => {
            let path = format!("/api/azulite/v1/explain/{}?plugin={}", encoded(sha256), encoded(plugin));
            client.get_json::<Explanation>(&path)?.ok_or_else(no_such_api)?
        }
        Target::Store(store) => {
            let dispatcher = store.dispatcher(config)?;
            let explained = store.admin.explain(&dispatcher, sha256, plugin);
            explained.map_err(|error| Refusal::failed(format!("the log cannot be read: {error}")))?
        }
    };
    let out = &mut output::stdout();
    match global.json {
        true => output::print_json(out, &explanation)?,
        false => print(&explanation, azulite_storage::clock::now_ms(), out)?,
    }
    for range in &explanation.damage {
        let (topic, partition) = (&range.topic, range.partition);
        let (from, last) = (range.from_offset, range.last_offset);
        output::complain(&format!("{topic}-{partition}: offsets {from} to {last} are missing: {}", range.reason));
    }
    Ok(if explanation.damage.is_empty() { Exit::Done } else { Exit::Damaged })
}

fn print(explanation: &Explanation, now_ms: i64, out: &mut impl Write) -> io::Result<()> {
    let Explanation { sha256, plugin, paused, consumers, more_consumers, idle_groups, events, more, .. } = explanation;
    writeln!(out, "{sha256} and {}", printable(plugin))?;
    if *paused {
        writeln!(out, "plugins are paused: task consumers get nothing at present")?;
    }
    if consumers.is_empty() {
        writeln!(out, "no consumer of that name has asked for events in the last 24 hours")?;
    }
    consumers.iter().try_for_each(|consumer| print_consumer(consumer, now_ms, out))?;
    if *more_consumers {
        writeln!(out, "and more than these {}, which asked last", consumers.len())?;
    }
    for group in idle_groups {
        writeln!(out, "group {} is there, but was not asked for in the last 24 hours", printable(group))?;
    }
    if events.is_empty() {
        writeln!(out, "nothing is stored about the entity")?;
    }
    events.iter().try_for_each(|event| print_event(event, out))?;
    if *more {
        writeln!(out, "and more than these {}", events.len())?;
    }
    out.flush()
}

fn print_consumer(consumer: &ExplainedConsumer, now_ms: i64, out: &mut impl Write) -> io::Result<()> {
    let ExplainedConsumer { key, model, task, seen_ms, groups, .. } = consumer;
    let kind = if *task { "tasks" } else { "events" };
    let age = super::lost_tasks::age(now_ms, *seen_ms);
    writeln!(out, "{}: takes {kind} of model {model}, asked {age} ago", printable(key))?;
    for group in groups {
        writeln!(out, "  {}: {} to come", printable(&group.name), group.lag)?;
    }
    Ok(())
}

fn print_event(event: &ExplainedEvent, out: &mut impl Write) -> io::Result<()> {
    let ExplainedEvent { topic, partition, offset, kafka_key, author, consumers, .. } = event;
    writeln!(out, "\n{topic}-{partition} offset {offset}, by {}, key {}", printable(author), printable(kafka_key))?;
    consumers.iter().try_for_each(|fate| print_fate(fate, out))
}

fn print_fate(fate: &Fate, out: &mut impl Write) -> io::Result<()> {
    let Fate { key, groups, filters, tasks, waiting, dead } = fate;
    let key = printable(key);
    if groups.is_empty() {
        writeln!(out, "  {key}: does not read this topic")?;
        return dead.iter().try_for_each(|head| print_dead(head, out));
    }
    for standing in groups {
        let position = standing.position.map_or("none".to_owned(), |position| position.to_string());
        let (subscription, state) = (&standing.subscription, place(standing.state));
        writeln!(out, "  {key}: {subscription}: {state} (position {position})")?;
    }
    for filter in filters {
        let dash = if filter.because.is_empty() { "" } else { ": " };
        writeln!(out, "    dropped by {}{dash}{}", filter.filter, printable(&filter.because))?;
    }
    if filters.is_empty() {
        writeln!(out, "    no filter drops it")?;
    }
    let now_ms = azulite_storage::clock::now_ms();
    for task in tasks {
        // What is left of a lease is as old as it will be at its end.
        let left = super::lost_tasks::age(task.until_ms, now_ms);
        writeln!(out, "    open task {}, attempt {}, ends in {left}", printable(&task.id), task.attempt + 1)?;
    }
    for WaitingView { attempt, due_ms, held_by } in waiting {
        let due = super::lost_tasks::age(*due_ms, now_ms);
        let held = if held_by.is_empty() { String::new() } else { format!(", kept back by {}", printable(held_by)) };
        writeln!(out, "    waits for attempt {}, due in {due}{held}", attempt + 1)?;
    }
    dead.iter().try_for_each(|head| print_dead(head, out))
}

fn print_dead(head: &Head, out: &mut impl Write) -> io::Result<()> {
    let (status, version, reason) = (printable(&head.status), printable(&head.version), printable(&head.reason));
    let again = if head.requeued.is_some() { ", put back for another run" } else { "" };
    writeln!(out, "    dead letter {}: version {version}: {status}{again}: {reason}", head.id)
}

fn place(place: Place) -> &'static str {
    match place {
        Place::Read => "already read",
        Place::ToCome => "still to come",
        Place::BeforeStart => "was there before the group began, and is never read",
        Place::LeftToLive => "left to the live group",
        Place::NotBegun => "the group has not read the topic yet",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{FilteredBy, GroupSummary, Standing};

    #[test]
    fn the_filter_its_value_and_its_limit_are_named() {
        let groups = vec![GroupSummary { name: "t1-azul-p-historic".into(), partitions: 1, lag: 3 }];
        let consumer = ExplainedConsumer {
            key: "p-1".into(),
            version: "1".into(),
            model: "binary".into(),
            task: true,
            seen_ms: 1_000,
            groups,
        };
        let because = "the content has 5 bytes, at most 4 are wanted".to_owned();
        let fate = Fate {
            key: "p-1".into(),
            groups: vec![Standing {
                subscription: "historic".into(),
                group: "g".into(),
                position: Some(7),
                state: Place::ToCome,
            }],
            filters: vec![FilteredBy { filter: "F-x".into(), because }],
            tasks: Vec::new(),
            waiting: Vec::new(),
            dead: Vec::new(),
        };
        let event = ExplainedEvent {
            topic: "t".into(),
            partition: 0,
            offset: 9,
            model: "binary".into(),
            kafka_key: "k".into(),
            author: "amy\u{1b}".into(),
            consumers: vec![fate.clone(), Fate { groups: Vec::new(), ..fate }],
        };
        let explanation = Explanation {
            sha256: "ab".into(),
            plugin: "p".into(),
            consumers: vec![consumer],
            events: vec![event],
            ..Explanation::default()
        };
        let mut out = Vec::new();
        print(&explanation, 63_000, &mut out).unwrap();
        let want = "ab and p\np-1: takes tasks of model binary, asked 1m ago\n  t1-azul-p-historic: 3 to come\n\n\
                    t-0 offset 9, by amy\\u{1b}, key k\n  p-1: historic: still to come (position 7)\n    \
                    dropped by F-x: the content has 5 bytes, at most 4 are wanted\n  p-1: does not read this topic\n";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }
}
