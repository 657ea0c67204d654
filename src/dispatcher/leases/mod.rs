//! Leases: what is known of the tasks that consumers hold.

mod attempt;

use super::Dispatcher;
use super::model::BinaryEvent;
use crate::broker::Value;

pub use attempt::Attempt;

/// See the module.
#[derive(Debug, Default)]
pub struct Leases;

impl Leases {
    /// Puts an event into the `error` group of one consumer.
    pub fn requeue(
        &self,
        _event: &BinaryEvent,
        _consumer: &str,
        _version: &str,
        _stage: &str,
        _now_ms: i64,
        _expedite: bool,
    ) -> Vec<Value> {
        Vec::new()
    }
}

impl Dispatcher {
    /// What is leased.
    pub fn leases(&self) -> Leases {
        Leases
    }

    /// Behind a commit of [`Leases::requeue`].
    pub fn requeued(&self, _consumer: &str, _version: &str) {}
}
