//! The sandbox worker against a stand-in of Cuckoo and of CAPE on loopback (workers.md 6, checks 9 to 15).
#![allow(dead_code, reason = "the stand-in and the support modules have parts for other themes")]

#[cfg(test)]
mod bench;
#[cfg(test)]
mod crits;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod served;
#[cfg(test)]
mod stages;
#[cfg(test)]
mod stand_in;
#[cfg(test)]
#[path = "../support/mod.rs"]
mod support;
#[cfg(test)]
mod troubles;
