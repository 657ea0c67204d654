//! What holds of the whole hub, whatever is asked of it and in whatever order: tests over a real store.
//!
//! Everything random comes from a seed that is printed; `AZULITE_SEED` replays it.

mod counts;
mod crowd;
mod keys;
mod leases;
mod ledger;
mod schedules;

/// A number from the environment.
fn environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}
