//! What was taken in for each consumer is what is finished, waits, is a dead letter or was deleted: the counts beside the
//! rows.

use std::collections::BTreeMap;

use azulite_storage::index::IndexError;
use serde::{Deserialize, Serialize};

use super::rows::{self, Ended, Lease, TakenIn, Waiting, each_row};
use crate::broker::LogStore;

/// The account of one consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// The consumer.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Events handed out for the first time; one that a person puts back is taken in once more.
    pub taken_in: u64,
    /// Those that were completed or opted out of.
    pub finished: u64,
    /// Those that became dead letters.
    pub dead: u64,
    /// Those that were purged, aged off or had gone from their topic before they could be run again.
    pub deleted: u64,
    /// Rows of leases.
    pub leases: u64,
    /// Rows of events that wait for another run; those that people have put back and nobody has got yet are left out.
    pub waiting: u64,
}

impl Balance {
    /// Whether everything that was taken in is somewhere.
    pub fn holds(&self) -> bool {
        let Self { taken_in, finished, dead, deleted, leases, waiting, .. } = self;
        *taken_in == finished + dead + deleted + leases + waiting
    }
}

/// The accounts of all consumers as they are written down. Changes made meanwhile may be seen in part. Reads every row;
/// memory grows with the number of consumers. Blocks.
///
/// # Errors
/// The index failed.
pub fn balances(log: &dyn LogStore) -> Result<Vec<Balance>, IndexError> {
    let all = std::cell::RefCell::new(BTreeMap::<(String, String), Balance>::new());
    let of = |who: (String, String), change: &dyn Fn(&mut Balance)| {
        let mut all = all.borrow_mut();
        let (name, version) = who.clone();
        change(all.entry(who).or_insert_with(|| Balance { name, version, ..Balance::default() }));
    };
    rows::each_count(
        log,
        |who, TakenIn { taken_in, deleted }| {
            of(who, &|balance| (balance.taken_in, balance.deleted) = (taken_in, deleted));
        },
        |who, Ended { finished, dead }| of(who, &|balance| (balance.finished, balance.dead) = (finished, dead)),
    )?;
    each_row(log, rows::LEASE, |key, bytes| {
        if let Some(lease) = Lease::read(key, bytes) {
            of((lease.work.name, lease.work.version), &|balance| balance.leases += 1);
        }
        true
    })?;
    each_row(log, rows::WAITING, |key, bytes| {
        if let Some(waiting) = Waiting::read(key, bytes).filter(|waiting| !waiting.fresh) {
            of((waiting.work.name, waiting.work.version), &|balance| balance.waiting += 1);
        }
        true
    })?;
    Ok(all.into_inner().into_values().collect())
}
