//! What the clients were promised, and whether the log keeps it.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::support::Server;
use crate::work::{Posted, Poster, parse_id};

/// The longest page the server gives.
const PAGE: usize = 1000;

/// All POSTs of all rounds, and what the last full look at the log found.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    posts: Vec<Posted>,
    sources: BTreeMap<u64, &'static str>,
    log: HashMap<String, Value>,
}

impl Ledger {
    /// Takes over what `poster` did in this round.
    pub(crate) fn take(&mut self, poster: &mut Poster) {
        self.sources.insert(poster.client, poster.source);
        self.posts.append(&mut poster.posted);
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.posts.iter().filter_map(|post| post.promised.as_ref()).map(Vec::len).sum()
    }

    pub(crate) fn unanswered(&self) -> usize {
        self.posts.iter().filter(|post| post.promised.is_none()).count()
    }

    /// Ids of everything the last full look found.
    pub(crate) fn in_the_log(&self) -> impl Iterator<Item = &String> {
        self.log.keys()
    }

    pub(crate) fn is_in_the_log(&self, id: &str) -> bool {
        self.log.contains_key(id)
    }

    /// Reads the whole log with a consumer never seen before and compares: acknowledged events are there exactly as
    /// acknowledged, none twice, none that nobody posted, each client's in its order, unanswered POSTs whole or not
    /// at all.
    pub(crate) fn check(&mut self, server: &Server, round: u64) {
        self.log = read_everything(server, round);
        let mut posted = 0;
        for post in &self.posts {
            let found: Vec<Option<&Value>> = post.ids.iter().map(|id| self.log.get(id)).collect();
            if let Some(promised) = &post.promised {
                for (event, found) in promised.iter().zip(&found) {
                    assert_eq!(*found, Some(event), "round {round}: acknowledged, but not so in the log");
                }
            }
            let present = found.iter().flatten().count();
            assert!(
                present == 0 || present == post.ids.len(),
                "round {round}: half of one POST is there: {:?}",
                post.ids
            );
            posted += present;
        }
        assert_eq!(posted, self.log.len(), "round {round}: events that nobody posted");
    }

    /// The offsets of each topic are dense: as many as there are events.
    pub(crate) fn check_offsets(&self, server: &Server) {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for id in self.log.keys() {
            *counts.entry(self.sources[&parse_id(id).0]).or_default() += 1;
        }
        for (source, count) in counts {
            let topic = format!("azul.t1.{source}.binary.sourced");
            let ran = server.cli(["topics", "describe", &topic, "--json"]).expect_code(0);
            let partition = ran.json()["partitions"][0].clone();
            assert_eq!(partition["log_start_offset"], 0, "{topic}: {partition}");
            assert_eq!(partition["high_watermark"], count, "{topic}: {partition}");
        }
    }
}

fn read_everything(server: &Server, round: u64) -> HashMap<String, Value> {
    let query = format!("name=auditor&version={round}&count={PAGE}&deadline=0&r-historic=true");
    let mut log = HashMap::new();
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    loop {
        let batch = server.fetch("binary/passive", &query);
        if batch.events.is_empty() {
            return log;
        }
        for (id, event) in batch.ids().into_iter().zip(batch.events) {
            let (client, sequence) = parse_id(&id);
            let before = last.insert(client, sequence);
            assert!(before.is_none_or(|before| before < sequence), "client {client}: {sequence} after {before:?}");
            assert!(log.insert(id.clone(), event).is_none(), "{id} is in the log twice");
        }
    }
}
