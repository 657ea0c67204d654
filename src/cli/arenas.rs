//! Memory that was freed goes back: settings of the C library that have to be there before a process begins.
//!
//! glibc gives each of many threads an area of its own (8 per processor), keeps in it what was freed there, and keeps the
//! more the larger the pieces were. Requests run on whatever blocking thread is free, so each area grows to the size of
//! the largest. Resident with a thousand plugins that read at once: 330 to 370 MiB as it comes, 210 MiB with four areas,
//! at the same speed. Two areas would make it 165, but then threads wait for each other's turn; another allocator
//! (mimalloc 2) took 2 GiB for its threads. The thresholds give large pieces back: under Kafka producers 160 to 190 MiB
//! rather than 210. At 512 KiB it would be 135, but producers would lose a fifth of their speed. Idle it is 36.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

const SETTINGS: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "4"), ("MALLOC_MMAP_THRESHOLD_", "2097152"), ("MALLOC_TRIM_THRESHOLD_", "2097152")];
/// Whoever sets this, in the environment, has chosen himself.
const TUNABLES: &str = "GLIBC_TUNABLES";

/// Begins this process anew with these settings, unless the environment has one of them. Process number and open files
/// stay. Comes back when they are there already, or when it does not work: then memory is all that it costs.
pub(super) fn keep_few() {
    let set = |name: &str| env::var_os(name).is_some();
    if set(TUNABLES) || SETTINGS.iter().any(|(name, _)| set(name)) {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut arguments = env::args_os();
    let mut again = Command::new(program);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    // Returns only when it failed.
    let error = again.args(arguments).envs(SETTINGS).exec();
    eprintln!("azulite: the process could not begin anew with {SETTINGS:?}, and goes on: {error}");
}
