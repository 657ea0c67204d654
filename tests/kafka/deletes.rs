//! Deletes and inserts that come through the Kafka port, and the tombstones they leave.

use azulite::dispatcher::model::{DeleteEvent, Event, encode_avro};
use azulite_storage::{BatchBuilder, Record, Records};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::events::{E1_KEY, e1, id, sourced};
use crate::support::{Batch, Server, await_that};
use crate::wire::{self, Wire};

const DELETES: &str = "azul.t1.system.delete";
const INSERTS: &str = "azul.t1.system.insert";
const SOURCED: &str = "azul.t1.lab.binary.sourced";

fn batch(key: &str, value: Option<&[u8]>) -> Bytes {
    let mut batch = BatchBuilder::default();
    batch.push(azulite_storage::clock::now_ms(), Some(key.as_bytes()), value);
    Bytes::copy_from_slice(batch.build().unwrap().as_bytes())
}

fn order(action: &str, ids: &[&str]) -> Vec<u8> {
    let mut order = DeleteEvent { action: action.into(), ..DeleteEvent::default() };
    order.author.name = "mirror".into();
    order.entity.ids.ids = ids.iter().map(|id| (*id).to_owned()).collect();
    encode_avro(&Event::Delete(Box::new(order)))
}

fn read(server: &Server, version: &str) -> Batch {
    let query = format!("name=k&version={version}&count=10&deadline=0&r-historic=true");
    server.fetch("binary/passive", &query)
}

/// Keys of all records, and whether each is a tombstone.
fn records(wire: &mut Wire, topic: &str) -> Vec<(String, bool)> {
    let data = wire.fetch(topic, 0);
    let mut rest = data.records.as_ref().map(azulite::kafka::codec::Records::to_bytes).unwrap_or_default();
    let mut all = Vec::new();
    while !rest.is_empty() {
        let len = 12 + usize::try_from(i32::from_be_bytes(rest[8..12].try_into().unwrap())).unwrap();
        let of_batch = Records::of(&rest.split_to(len)).unwrap();
        let told = |Record { key, value, .. }| (String::from_utf8(key.unwrap().to_vec()).unwrap(), value.is_none());
        all.extend(of_batch.map(Result::unwrap).map(told));
    }
    all
}

#[test]
fn a_delete_through_the_port_counts_for_the_next_get_and_post() {
    let mut server = wire::start();
    let mut wire = Wire::to(&server);
    server.publish_ok("binary", &json!([e1()]));
    assert_eq!(read(&server, "1").ids(), [id('a')]);
    wire.produce(DELETES, batch("any", Some(&order("ids", &[E1_KEY]))));
    let purged = |batch: &Batch| batch.info["filters"] == json!({"FilterPreviouslyDeleted-deleted": 1});
    assert!(purged(&read(&server, "2")));
    server.publish("binary", "", &json!([e1()])).expect_any_error(425);
    server.crash();
    server.publish("binary", "", &json!([e1()])).expect_any_error(425);
    assert!(purged(&read(&server, "3")));
}

#[test]
fn what_is_no_delete_is_passed_over_and_counted() {
    let mut server = wire::start();
    server.announce("records that cannot be used were passed over");
    let mut wire = Wire::to(&server);
    wire.produce(DELETES, batch("1", Some(b"{\"action\":\"ids\"}")));
    wire.produce(DELETES, batch("2", Some(&order("all", &[E1_KEY]))));
    wire.produce(DELETES, batch("3", None));
    wire.produce(DELETES, batch("4", Some(&order("ids", &[E1_KEY]))));
    for _ in 0..2 {
        server.publish("binary", "", &json!([e1()])).expect_any_error(425);
        server.publish_ok("binary", &json!([sourced(&id('b'), "lab")]));
        let page = server.client().get("/metrics").text();
        for reason in ["undecodable", "unknown_action"] {
            let line = format!("azulite_followed_errors_total{{topic=\"{DELETES}\",reason=\"{reason}\"}} 1");
            assert!(page.lines().any(|l| l == line), "{line}");
        }
        server.crash();
    }
}

#[test]
fn a_purged_event_gets_one_tombstone_in_its_topic_however_many_readers_meet_it() {
    let server = wire::start();
    let mut wire = Wire::to(&server);
    let other = server.publish_ok("binary", &json!([e1(), sourced(&id('b'), "lab")]))[1]["kafka_key"].clone();
    let other = other.as_str().unwrap().to_owned();
    server.publish_ok("delete", &json!([delete("ids", json!({"ids": [E1_KEY]}))]));
    for version in ["1", "2", "3"] {
        assert_eq!(read(&server, version).ids(), [id('b')]);
    }
    let e1 = E1_KEY.to_owned();
    assert_eq!(records(&mut wire, SOURCED), [(e1.clone(), false), (other, false), (e1, true)]);
}

#[test]
fn an_event_purged_by_its_author_gets_its_tombstone_in_the_background() {
    let server = wire::start();
    let mut wire = Wire::to(&server);
    server.publish_ok("binary", &json!([e1()]));
    let order = delete("author", json!({"track_author": "user.amy.", "timestamp": "2026-02-01T00:00:00Z"}));
    server.publish_ok("delete", &json!([order]));
    assert!(read(&server, "1").events.is_empty());
    await_that("the tombstone", || wire.end(SOURCED) == 2);
    assert!(read(&server, "2").events.is_empty());
    assert_eq!(records(&mut wire, SOURCED), [(E1_KEY.to_owned(), false), (E1_KEY.to_owned(), true)]);
}

#[test]
fn a_purged_event_that_comes_through_the_port_reaches_nobody() {
    let server = wire::start();
    let mut wire = Wire::to(&server);
    server.publish_ok("binary", &json!([e1()]));
    let stored = wire.values(SOURCED, 0).remove(0);
    server.publish_ok("delete", &json!([delete("ids", json!({"ids": [E1_KEY]}))]));
    read(&server, "1");
    wire.produce(SOURCED, batch(E1_KEY, Some(&stored)));
    // Under another record key there may be other events: first a look, then the tombstone.
    wire.produce(SOURCED, batch("elsewhere", Some(&stored)));
    assert!(read(&server, "1").events.is_empty());
    await_that("both tombstones", || records(&mut wire, SOURCED).iter().filter(|(_, dead)| *dead).count() == 3);
}

fn delete(action: &str, part: Value) -> Value {
    let mut entity = json!({"reason": "test"});
    entity[action] = part;
    json!({"model_version": 6, "timestamp": "2026-01-03T00:00:00Z", "author": {"name": "admin"}, "action": action,
        "entity": entity})
}

#[test]
fn an_insert_leaves_with_its_tombstone() {
    let mut server = wire::start();
    let mut wire = Wire::to(&server);
    let amy = json!({"name": "amy", "category": "user"});
    let stream = json!({"label": "content", "size": 5, "sha256": id('c')});
    let insert = json!([{"model_version": 6, "timestamp": "2026-01-02T04:00:01Z", "author": amy,
        "entity": {"original_source": "lab", "parent_sha256": id('a'),
            "child": {"sha256": id('c'), "datastreams": [stream]},
            "child_history": {"author": amy, "action": "extracted", "sha256": id('c'),
                "timestamp": "2026-01-02T04:00:00Z"}}}]);
    let key = server.publish_ok("insert", &insert)[0]["kafka_key"].as_str().unwrap().to_owned();
    server.publish_ok("binary", &json!([e1()]));
    assert_eq!(read(&server, "1").events.len(), 2);
    wire.produce(INSERTS, batch(&key, None));
    server.publish_ok("binary", &json!([e1()]));
    assert_eq!(read(&server, "1").ids(), [id('a')]);
    server.restart();
    server.publish_ok("binary", &json!([e1()]));
    assert_eq!(read(&server, "1").ids(), [id('a')]);
}
