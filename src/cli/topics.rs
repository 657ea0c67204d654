//! `azulite topics list`, `describe`, `create`, `alter` and `delete`.

use std::io::{self, Write};

use super::args::{Global, TopicsCommand};
use super::exit::Exit;
use super::output::{self, Refusal, Table};
use super::target::Target;
use crate::admin::{AlterTopic, CreateTopic, TopicDetail, TopicList, TopicRefusal};
use crate::client::{Payload, encoded};
use crate::config::Config;

/// Prints what `command` asks for.
pub(super) fn run(global: &Global, config: &Config, command: &TopicsCommand) -> Exit {
    let out = &mut output::stdout();
    output::finish(match command {
        TopicsCommand::List => list(global, config, out),
        TopicsCommand::Describe { topic } => describe(global, config, topic, out),
        TopicsCommand::Create { topic, partitions, topic_config: pairs } => {
            let config_map = pairs.iter().cloned().collect();
            let new = CreateTopic { name: topic.clone(), partitions: *partitions, config: config_map };
            create(config, new).and_then(|topic| changed(global, &topic, "made", out))
        }
        TopicsCommand::Alter { topic, topic_config: pairs, unset, partitions } => {
            let set = pairs.iter().map(|(name, value)| (name.clone(), Some(value.clone())));
            let changes = set.chain(unset.iter().map(|name| (name.clone(), None))).collect();
            let change = AlterTopic { partitions: *partitions, config: changes };
            alter(config, topic, change).and_then(|topic| changed(global, &topic, "changed", out))
        }
        TopicsCommand::Delete { topic } => {
            delete(config, topic).and_then(|topic| changed(global, &topic, "deleted", out))
        }
    })
}

const TOPICS: &str = "/api/azulite/v1/topics";

impl From<TopicRefusal> for Refusal {
    fn from(refusal: TopicRefusal) -> Self {
        Self::failed(refusal.to_string())
    }
}

/// A value as the body of a request.
pub(super) fn body(value: &impl serde::Serialize) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(value).map_err(|error| Refusal::failed(error.to_string()))
}

fn create(config: &Config, new: CreateTopic) -> Result<TopicDetail, Refusal> {
    match Target::for_writing(config, None)? {
        Target::Server(client) => Ok(client.post(TOPICS, "application/json", &Payload::Bytes(&body(&new)?))?),
        Target::Store(store) => Ok(store.admin.create_topic(new)?),
    }
}

fn alter(config: &Config, name: &str, change: AlterTopic) -> Result<TopicDetail, Refusal> {
    match Target::for_reading(config)? {
        Target::Server(client) => Ok(client.patch(&format!("{TOPICS}/{}", encoded(name)), &body(&change)?)?),
        Target::Store(store) => Ok(store.admin.alter_topic(name, change)?),
    }
}

fn delete(config: &Config, name: &str) -> Result<TopicDetail, Refusal> {
    match Target::for_reading(config)? {
        Target::Server(client) => Ok(client.delete(&format!("{TOPICS}/{}", encoded(name)))?),
        Target::Store(store) => Ok(store.admin.delete_topic(name)?),
    }
}

fn changed(global: &Global, topic: &TopicDetail, what: &str, out: &mut impl Write) -> Result<Exit, Refusal> {
    if global.json {
        output::print_json(out, topic)?;
    } else {
        writeln!(out, "{}: {what}, {} partitions", output::printable(&topic.name), topic.partitions.len())?;
        out.flush()?;
    }
    Ok(Exit::Done)
}

fn list(global: &Global, config: &Config, out: &mut impl Write) -> Result<Exit, Refusal> {
    let list = match Target::for_reading(config)? {
        Target::Server(client) => client.get_json::<TopicList>("/api/azulite/v1/topics")?.ok_or_else(no_such_api)?,
        Target::Store(store) => store.admin.topics(),
    };
    if global.json {
        output::print_json(out, &list)?;
    } else {
        print_list(&list, out)?;
    }
    Ok(Exit::Done)
}

/// The server is azulite's, but of a version without this part of the API.
pub(super) fn no_such_api() -> Refusal {
    Refusal::failed("the server does not have this function: is it the same version of azulite?")
}

fn print_list(list: &TopicList, out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new(&["TOPIC", "PARTITIONS", "RECORDS", "POLICY"]);
    for topic in &list.topics {
        let policy = topic.config.get("cleanup.policy").cloned().unwrap_or_default();
        let policy = if topic.internal { format!("{policy} (internal)") } else { policy };
        table.row([topic.name.clone(), topic.partitions.to_string(), topic.records.to_string(), policy]);
    }
    table.print(out)
}

fn describe(global: &Global, config: &Config, name: &str, out: &mut impl Write) -> Result<Exit, Refusal> {
    let topic = match Target::for_reading(config)? {
        Target::Server(client) => client.get_json(&format!("/api/azulite/v1/topics/{}", encoded(name)))?,
        Target::Store(store) => store.admin.topic(name),
    };
    let topic: TopicDetail = topic.ok_or_else(|| Refusal::failed(format!("there is no topic {name:?}")))?;
    if global.json {
        output::print_json(out, &topic)?;
    } else {
        print_topic(&topic, out)?;
    }
    Ok(Exit::Done)
}

fn print_topic(topic: &TopicDetail, out: &mut impl Write) -> io::Result<()> {
    let internal = if topic.internal { " (internal)" } else { "" };
    writeln!(out, "{}{internal}\nid {}, {} records", topic.name, topic.id, topic.records)?;
    topic.config.iter().try_for_each(|(name, value)| writeln!(out, "  {name} = {}", output::printable(value)))?;
    let mut table = Table::new(&["PARTITION", "LOG START", "HIGH WATERMARK"]);
    for partition in &topic.partitions {
        let offsets = [partition.log_start_offset, partition.high_watermark];
        table.row([partition.partition.to_string()].into_iter().chain(offsets.map(|offset| offset.to_string())));
    }
    table.print(out)?;
    for range in topic.partitions.iter().flat_map(|partition| &partition.damage) {
        let (from, last) = (range.from_offset, range.last_offset);
        writeln!(out, "DAMAGED: partition {}, offsets {from} to {last}: {}", range.partition, range.reason)?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::PartitionDetail;
    use std::collections::BTreeMap;

    #[test]
    fn a_topic_is_shown_with_its_partitions_and_configuration() {
        let topic = TopicDetail {
            name: "azul.t1.lab.binary.sourced".to_owned(),
            id: "00".repeat(16),
            created_ms: 0,
            records: 4,
            internal: false,
            config: BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]),
            partitions: vec![PartitionDetail {
                partition: 0,
                log_start_offset: 1,
                high_watermark: 5,
                bytes: 0,
                damage: Vec::new(),
            }],
        };
        let mut out = Vec::new();
        print_topic(&topic, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("azul.t1.lab.binary.sourced\nid 0000"), "{text}");
        assert!(text.contains("  cleanup.policy = compact\n"), "{text}");
        assert!(text.ends_with("        0          1               5\n"), "{text}");
    }
}
