//! The table of kafka.md 4.1, row by row, and what stands below it.

mod lasting;
mod members;
mod rebalances;
mod static_members;
