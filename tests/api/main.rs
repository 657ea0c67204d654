//! Black-box tests of the running product: the worked examples of the contract over real sockets, bad input, the
//! command line, and what survives a restart. Every test has a server, a folder and a port of its own.

#[cfg(test)]
mod adopted;
#[cfg(test)]
mod avro;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod bench_blobs;
#[cfg(test)]
mod bench_kafka;
#[cfg(test)]
mod caches;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod dead;
#[cfg(test)]
mod deletes;
#[cfg(test)]
mod events_get;
#[cfg(test)]
mod events_post;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod large_streams;
#[cfg(test)]
mod leases;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod models;
#[cfg(test)]
mod pause;
#[cfg(test)]
mod records;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod reidentify;
#[cfg(test)]
mod reprocess;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod security;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod streams;
#[cfg(test)]
#[path = "../support/mod.rs"]
mod support;
#[cfg(test)]
mod workers;
#[cfg(test)]
mod yara;
