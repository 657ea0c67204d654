//! What is on disk and what is durable. Synchronous; knows nothing of HTTP or Azul.
//!
//! | module | owns |
//! |---|---|
//! | [`store`] | the open data directory: start, stop, threads, state |
//! | [`topics`], [`log`], [`groups`], [`producers`], [`blobs`] | what callers do with it |
//! | [`commit`](crate::queue), [`segments`], [`frame`], [`batch`], [`compress`] | the log: one committer, one sync, frames in segment files |
//! | [`index`], [`keys`] | fjall: everything that is looked up; rebuilt from the segments |
//! | [`recover`] | bringing the index forward, torn tails, damage |
//! | [`cleaner`] | removing, rewriting and compacting what is dead in sealed segments |
//! | [`blob`], [`staged`], `inline`, [`catalogue`] | blob files; uploads under way; small blobs in the log; sled: their names |
//! | [`encoding`], [`secret`] | what is done to the bytes of blobs, and the key for it |
//! | [`adopted`], [`upstream`] | an existing store of the upstream service, and how that keeps its bytes |
//! | [`format`](mod@format), [`fs`], [`clock`], [`ids`], [`state`], [`offsets`], [`membership`], [`partition`] | what all of these share |

pub mod adopted;
mod apply;
pub mod batch;
pub mod blob;
pub mod blobs;
mod cache;
pub mod catalogue;
pub mod cleaner;
pub mod clock;
mod commit;
pub mod compress;
mod dir_syncs;
pub mod encoding;
pub mod format;
pub mod frame;
pub mod fs;
pub mod groups;
pub mod ids;
pub mod index;
mod inline;
mod keeper;
pub mod keys;
pub mod log;
pub mod maintenance;
pub mod membership;
pub mod offsets;
pub mod partition;
pub mod producers;
mod publish;
pub mod queue;
pub mod recover;
pub mod retention;
pub mod secret;
pub mod segments;
pub mod staged;
pub mod state;
pub mod store;
mod sweep;
pub mod topics;
pub mod upstream;
pub mod usage;

pub use batch::{BatchBuilder, CheckedBatch, Record, RecordHeader, Records};
pub use compress::Codec;
pub use encoding::Encoding;
pub use ids::{Offset, PartitionIndex, PartitionNumber, Sha256, TopicId, TopicPartition};
pub use partition::{Partition, PartitionOffsets};
pub use queue::{Append, Appended, Done, Lane};
pub use store::{AppendError, Durability, OpenError, OpenReport, Options, Store, Values};
pub use topics::{NewTopic, Topic};
