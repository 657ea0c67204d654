//! SIGINT and SIGTERM for commands that run until they are told to stop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use super::exit::Exit;

/// Set once the process has been asked to stop. The second time it ends at once.
#[derive(Clone, Debug)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Begins to listen.
    ///
    /// # Errors
    /// The operating system refuses.
    pub(super) fn listen() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (mut interrupt, mut terminate) = {
            let _entered = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        let asked = Arc::new(AtomicBool::new(false));
        let set = asked.clone();
        std::thread::Builder::new().name("azulite-signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if set.swap(true, Ordering::AcqRel) {
                        std::process::exit(Exit::Failed.code().into());
                    }
                }
            });
        })?;
        Ok(Self(asked))
    }

    /// Whether the process has been asked to stop.
    pub(super) fn asked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
