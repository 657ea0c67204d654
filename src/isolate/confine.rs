//! What a child gives up before it reads a byte.

use std::collections::BTreeMap;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{set_name, set_no_new_privs};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::Limits;

/// System calls that memory, the socket and the end of a process need. All others fail with EPERM: what is refused hurts
/// whoever took the process over, not a library that asks for something it can do without.
const CALLS: [libc::c_long; 25] = [
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_recvfrom,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sendto,
    libc::SYS_sigaltstack,
    libc::SYS_write,
];

/// Allowed without `PROT_EXEC` in the third argument.
const MAPPING_CALLS: [libc::c_long; 2] = [libc::SYS_mmap, libc::SYS_mprotect];

/// Confines this process to `limits`, to its open files and to its memory, for good.
///
/// It ends with the thread that started it, leaves no core file, and can open, start or signal nothing.
///
/// # Errors
/// What cannot be given up, in words. The process must not go on then.
pub(super) fn confine(limits: &Limits) -> Result<(), String> {
    let failed = |what: &'static str| move |error: rustix::io::Errno| format!("{what}: {error}");
    set_name(c"azulite-scanner").map_err(failed("name"))?;
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("parent's end"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("dumps"))?;
    for (resource, most) in [
        (Resource::As, limits.memory_bytes),
        (Resource::Cpu, limits.cpu_seconds),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Memlock, 0),
        (Resource::Nofile, 0),
        (Resource::Nproc, 0),
    ] {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }).map_err(failed("limit"))?;
    }
    set_no_new_privs(true).map_err(failed("privileges"))?;
    filter_calls().map_err(|error| format!("system calls: {error}"))
}

/// Does nothing on processors the filter cannot be made for.
fn filter_calls() -> Result<(), String> {
    let Ok(processor) = TargetArch::try_from(std::env::consts::ARCH) else { return Ok(()) };
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let executable = u64::try_from(libc::PROT_EXEC).map_err(|error| told(&error))?;
    let operation = SeccompCmpOp::MaskedEq(executable);
    let plain =
        SeccompCondition::new(2, SeccompCmpArgLen::Dword, operation, 0).and_then(|is| SeccompRule::new(vec![is]));
    let plain = plain.map_err(|error| told(&error))?;
    let rules: BTreeMap<i64, Vec<SeccompRule>> = CALLS
        .into_iter()
        .map(|call| (call, Vec::new()))
        .chain(MAPPING_CALLS.into_iter().map(|call| (call, vec![plain.clone()])))
        .collect();
    let refusal = u32::try_from(libc::EPERM).map_err(|error| told(&error))?;
    let filter = SeccompFilter::new(rules, SeccompAction::Errno(refusal), SeccompAction::Allow, processor);
    let program = filter.and_then(BpfProgram::try_from).map_err(|error| told(&error))?;
    seccompiler::apply_filter(&program).map_err(|error| told(&error))
}
