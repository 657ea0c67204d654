//! Identification with its child processes: what happens when a child fails, what a child may do, and what hostile files
//! cost.

#[cfg(test)]
mod children;
#[cfg(test)]
mod hostile;

#[cfg(test)]
use std::sync::Arc;
#[cfg(test)]
use std::time::{Duration, Instant};

#[cfg(test)]
use azulite::identify::Identifier;
#[cfg(test)]
use azulite::identify::content::{CONTENT_MAX_BYTES, Isolated, SCANNER};
#[cfg(test)]
use azulite::isolate::Program;

/// The content scanner over children of the built program.
#[cfg(test)]
fn scanner(workers: usize) -> Isolated {
    scanner_of(workers, CONTENT_MAX_BYTES)
}

/// The same, for content of this size.
#[cfg(test)]
fn scanner_of(workers: usize, max_bytes: u64) -> Isolated {
    let arguments = [SCANNER, &max_bytes.to_string()].map(Into::into).to_vec();
    let program = Program { path: env!("CARGO_BIN_EXE_azulite").into(), arguments };
    Isolated::with_program(program, workers, max_bytes).unwrap()
}

/// Identification as a server has it.
#[cfg(test)]
fn identifier() -> Identifier {
    Identifier::load(Arc::new(scanner(2))).unwrap()
}

/// Asks `ready` again and again until it says so.
#[cfg(test)]
fn await_that(what: &str, mut ready: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < Duration::from_secs(30), "gave up waiting for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
