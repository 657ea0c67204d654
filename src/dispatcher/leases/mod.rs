//! Leases: what is known of the tasks that consumers hold.

mod attempt;

pub use attempt::Attempt;
