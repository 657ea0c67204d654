//! `azulite groups list`, `describe`, `reset` and `delete`.

use std::io::{self, Write};

use super::args::{Global, GroupsCommand};
use super::exit::Exit;
use super::output::{self, Refusal, Table};
use super::target::Target;
use super::topics::{body, no_such_api};
use crate::admin::{DeletedGroup, GroupDetail, GroupList, GroupRefusal, GroupReset, ResetGroup};
use crate::client::{Payload, encoded};
use crate::config::Config;

/// Prints what `command` asks for.
pub(super) fn run(global: &Global, config: &Config, command: &GroupsCommand) -> Exit {
    let out = &mut output::stdout();
    output::finish(match command {
        GroupsCommand::List => list(global, config, out),
        GroupsCommand::Describe { group } => describe(global, config, group, out),
        GroupsCommand::Reset { group, to, topic, dry_run } => {
            let (topic, partition) = topic.clone().unzip();
            let reset = ResetGroup { to: to.to_string(), topic, partition: partition.flatten(), dry_run: *dry_run };
            reset_group(global, config, (group, &reset), out)
        }
        GroupsCommand::Delete { group } => delete(global, config, group, out),
    })
}

const GROUPS: &str = "/api/azulite/v1/groups";

impl From<GroupRefusal> for Refusal {
    fn from(refusal: GroupRefusal) -> Self {
        Self::failed(refusal.to_string())
    }
}

fn unreadable(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::failed(format!("the groups cannot be read: {error}"))
}

fn list(global: &Global, config: &Config, out: &mut impl Write) -> Result<Exit, Refusal> {
    let list = match Target::for_reading(config)? {
        Target::Server(client) => client.get_json::<GroupList>(GROUPS)?.ok_or_else(no_such_api)?,
        Target::Store(store) => store.admin.groups().map_err(|error| unreadable(&error))?,
    };
    if global.json {
        output::print_json(out, &list)?;
    } else {
        let mut table = Table::new(&["GROUP", "PARTITIONS", "LAG"]);
        for group in &list.groups {
            let name = output::printable(&group.name).into_owned();
            table.row([name, group.partitions.to_string(), group.lag.to_string()]);
        }
        table.print(out)?;
    }
    Ok(Exit::Done)
}

fn describe(global: &Global, config: &Config, name: &str, out: &mut impl Write) -> Result<Exit, Refusal> {
    let group = match Target::for_reading(config)? {
        Target::Server(client) => client.get_json(&format!("{GROUPS}/{}", encoded(name)))?,
        Target::Store(store) => store.admin.group(name).map_err(|error| unreadable(&error))?,
    };
    let group: GroupDetail = group.ok_or_else(|| Refusal::failed(format!("there is no group {name:?}")))?;
    if global.json {
        output::print_json(out, &group)?;
    } else {
        print_group(&group, out)?;
    }
    Ok(Exit::Done)
}

fn print_group(group: &GroupDetail, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}\nlag {}", output::printable(&group.name), group.lag)?;
    let mut table = Table::new(&["TOPIC", "PARTITION", "POSITION", "END", "LAG"]);
    let number = |number: Option<i64>| number.map_or("-".to_owned(), |number| number.to_string());
    for position in &group.positions {
        table.row([
            position.topic.clone(),
            position.partition.to_string(),
            position.committed_offset.to_string(),
            number(position.end_offset),
            number(position.lag),
        ]);
    }
    table.print(out)
}

fn reset_group(
    global: &Global,
    config: &Config,
    (name, reset): (&str, &ResetGroup),
    out: &mut impl Write,
) -> Result<Exit, Refusal> {
    let done: GroupReset = match Target::for_reading(config)? {
        Target::Server(client) => {
            let path = format!("{GROUPS}/{}/reset", encoded(name));
            client.post(&path, "application/json", &Payload::Bytes(&body(reset)?))?
        }
        Target::Store(store) => store.admin.reset_group(name, reset)?,
    };
    if global.json {
        output::print_json(out, &done)?;
    } else {
        print_reset(&done, out)?;
    }
    Ok(Exit::Done)
}

fn print_reset(done: &GroupReset, out: &mut impl Write) -> io::Result<()> {
    let note = if done.dry_run { " (dry run: nothing was changed)" } else { "" };
    writeln!(out, "{}{note}", output::printable(&done.name))?;
    let mut table = Table::new(&["TOPIC", "PARTITION", "OLD", "NEW"]);
    for moved in &done.positions {
        let old = moved.old_offset.map_or("-".to_owned(), |offset| offset.to_string());
        table.row([moved.topic.clone(), moved.partition.to_string(), old, moved.new_offset.to_string()]);
    }
    table.print(out)
}

fn delete(global: &Global, config: &Config, name: &str, out: &mut impl Write) -> Result<Exit, Refusal> {
    let gone: DeletedGroup = match Target::for_reading(config)? {
        Target::Server(client) => client.delete(&format!("{GROUPS}/{}", encoded(name)))?,
        Target::Store(store) => store.admin.delete_group(name)?,
    };
    if global.json {
        output::print_json(out, &gone)?;
    } else {
        writeln!(out, "{}: deleted, {} positions", output::printable(&gone.name), gone.partitions)?;
        out.flush()?;
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{MovedPosition, Position};

    #[test]
    fn a_reset_is_shown_with_old_and_new_offsets() {
        let moved =
            |old_offset, new_offset| MovedPosition { topic: "t".to_owned(), partition: 0, old_offset, new_offset };
        let positions = vec![moved(Some(7), 12), moved(None, 0)];
        let mut out = Vec::new();
        print_reset(&GroupReset { name: "g".to_owned(), dry_run: true, positions }, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("g (dry run: nothing was changed)\n"), "{text}");
        assert!(text.ends_with("t              0    7   12\nt              0    -    0\n"), "{text}");
    }

    #[test]
    fn a_position_in_a_topic_that_is_gone_has_no_lag() {
        let position = Position {
            topic: "t".to_owned(),
            partition: 0,
            committed_offset: 3,
            committed_ms: 0,
            end_offset: None,
            lag: None,
        };
        let mut out = Vec::new();
        print_group(&GroupDetail { name: "g".to_owned(), lag: 0, positions: vec![position] }, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("t              0         3    -    -\n"), "{text}");
    }
}
