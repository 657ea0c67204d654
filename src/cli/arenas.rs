//! Memory that was freed goes back: one setting of the C library that has to be there before a process begins.
//!
//! glibc gives each of many threads an area of its own (8 per processor) and keeps in it what was freed there. Requests
//! run on whatever blocking thread is free, so each area grows to the size of the largest: with a thousand plugins that
//! read at once 330 to 370 MiB were resident, with four areas 210 MiB. Two would make it 165, but then threads wait for each
//! other's turn; another allocator (mimalloc 2) took 2 GiB for its threads.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

const SETTING: &str = "MALLOC_ARENA_MAX";
const AREAS: &str = "4";

/// Begins this process anew with few areas, unless the environment says how many there are to be. Process number and
/// open files stay. Comes back when that is so already, or does not work: then memory is all that it costs.
pub(super) fn keep_few() {
    if env::var_os(SETTING).is_some() || env::var_os("GLIBC_TUNABLES").is_some() {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut arguments = env::args_os();
    let mut again = Command::new(program);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    // Returns only when it failed.
    let error = again.args(arguments).env(SETTING, AREAS).exec();
    eprintln!("azulite: the process could not begin anew with {SETTING}={AREAS}, and goes on: {error}");
}
