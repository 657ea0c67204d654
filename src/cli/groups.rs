//! `azulite groups list` and `azulite groups describe`.

use std::io::{self, Write};

use super::args::{Global, GroupsCommand};
use super::client::encoded;
use super::exit::Exit;
use super::output::{self, Refusal, Table};
use super::target::Target;
use super::topics::no_such_api;
use crate::admin::{GroupDetail, GroupList};
use crate::config::Config;

/// Prints what `command` asks for.
pub(super) fn run(global: &Global, config: &Config, command: &GroupsCommand) -> Exit {
    let out = &mut output::stdout();
    output::finish(match command {
        GroupsCommand::List => list(global, config, out),
        GroupsCommand::Describe { group } => describe(global, config, group, out),
    })
}

fn unreadable(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::failed(format!("the groups cannot be read: {error}"))
}

fn list(global: &Global, config: &Config, out: &mut impl Write) -> Result<Exit, Refusal> {
    let list = match Target::for_reading(config)? {
        Target::Server(client) => client.get_json::<GroupList>("/api/azulite/v1/groups")?.ok_or_else(no_such_api)?,
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
        Target::Server(client) => client.get_json(&format!("/api/azulite/v1/groups/{}", encoded(name)))?,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Position;

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
