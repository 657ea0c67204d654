//! Plugins that read over HTTP while topics go and come through the Kafka port.

use azulite::kafka::codec::messages::metadata::MetadataRequest;
use serde_json::json;

use crate::support::Server;
use crate::support::events::{id, sourced};
use crate::wire::{self, Wire};

const QUERY: &str = "name=idx&version=1&count=10&deadline=1&r-historic=true&r-live=true";

fn publish(server: &Server, letter: char) {
    server.publish_ok("binary", &json!([sourced(&id(letter), "lab")]));
}

fn read(server: &Server) -> Vec<String> {
    server.fetch("binary/passive", QUERY).ids()
}

/// The topics that hold anything.
fn filled(wire: &mut Wire) -> Vec<String> {
    let all = wire.ask(&MetadataRequest { topics: None, ..Default::default() }, 12).topics;
    let names =
        all.iter().filter(|topic| !topic.is_internal).filter_map(|topic| Some(topic.name.as_ref()?.to_string()));
    let mut names: Vec<_> = names.collect();
    names.retain(|name| name.contains(".binary.") && !wire.values(name, 0).is_empty());
    names
}

#[test]
fn a_topic_deleted_and_made_again_is_read_from_its_start() {
    let server = wire::start();
    let mut wire = Wire::to(&server);
    publish(&server, 'a');
    publish(&server, 'b');
    assert_eq!(read(&server), [id('a'), id('b')]);
    let names = filled(&mut wire);
    assert!(!names.is_empty());
    for name in &names {
        wire.delete(name);
    }
    assert!(read(&server).is_empty(), "and no error either");
    for name in &names {
        wire.create(name, 1, &[]);
    }
    publish(&server, 'c');
    assert_eq!(read(&server), [id('c')], "the positions of the old topic do not count");
    for name in &names {
        wire.delete(name);
        wire.create(name, 1, &[]);
    }
    publish(&server, 'd');
    assert_eq!(read(&server), [id('d')], "nobody looked in between");
    assert!(read(&server).is_empty());
}

#[test]
fn a_reader_that_waits_goes_on_with_the_topic_made_again() {
    let server = wire::start();
    let mut wire = Wire::to(&server);
    publish(&server, 'a');
    assert_eq!(read(&server), [id('a')]);
    let names = filled(&mut wire);
    std::thread::scope(|scope| {
        let query = "name=idx&version=1&count=1&deadline=15&r-historic=true&r-live=true";
        let waiter = scope.spawn(|| server.fetch("binary/passive", query).ids());
        server.await_readers(1);
        for name in &names {
            wire.delete(name);
            wire.create(name, 1, &[]);
        }
        publish(&server, 'b');
        assert_eq!(waiter.join().unwrap(), [id('b')]);
    });
}
