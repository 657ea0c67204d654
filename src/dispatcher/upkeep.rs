//! What the dispatcher does by itself while it serves: ends pauses, ends leases, writes down who asked, lets go of
//! idle readers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Dispatcher;
use super::leases::Ends;

/// How often registered consumers, readers and the pause are looked at.
const TICK: Duration = Duration::from_secs(60);

/// Looks for leases that have ended take at most one part in so many of the time.
const LOOKS_PART: u32 = 10;
/// At most so often.
const LOOK_AT_MOST: Duration = Duration::from_millis(100);

impl Dispatcher {
    /// Runs until [`Dispatcher::stop`]; what is not written down yet is then.
    pub async fn upkeep(self: Arc<Self>) {
        // Consumers have the first interval to report what they did while nobody listened; only workers of a process that
        // has ended cannot.
        let mut rest_until = Instant::now() + self.options.lost_check;
        self.check_lost(i64::MIN).await;
        let mut written = Instant::now();
        loop {
            let until = |ms: i64| Duration::from_millis(u64::try_from(ms.saturating_sub(self.now_ms())).unwrap_or(0));
            let look = rest_until.max(Instant::now() + until(self.leases.next_end_ms()).min(self.options.lost_check));
            let next = (Instant::now() + TICK.min(until(self.pause.due_ms()))).min(look);
            let stopping = tokio::select! {
                () = tokio::time::sleep_until(next) => false,
                () = self.leases.ends_earlier.notified() => false,
                () = self.stopping.cancelled() => true,
            };
            if stopping || Instant::now() >= written + TICK || self.pause.due_ms() <= self.now_ms() {
                self.write_down().await;
                written = Instant::now();
            }
            if stopping {
                return;
            }
            if Instant::now() >= rest_until && self.leases.may_have_ended(self.now_ms()) {
                let began = Instant::now();
                self.check_lost(self.now_ms()).await;
                rest_until = Instant::now() + LOOK_AT_MOST.max(began.elapsed() * LOOKS_PART);
            }
        }
    }

    async fn write_down(self: &Arc<Self>) {
        let this = self.clone();
        let written = tokio::task::spawn_blocking(move || {
            let log = this.broker.log().as_ref();
            this.settle_pause();
            this.drop_idle_readers();
            this.pause.flush(log);
            this.registry.flush(log, this.now_ms());
        });
        if let Err(stopped) = written.await {
            tracing::error!(%stopped, "registered consumers were not written down");
        }
    }

    async fn check_lost(self: &Arc<Self>, by_ms: i64) {
        let ends = Ends { by_ms: Some(by_ms), name: None };
        match self.look_for_lost_tasks(&ends, self.now_ms()).await {
            Ok(looked) if looked.ended > 0 => {
                tracing::info!(lost = looked.ended, open = looked.open, "leases have ended")
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(error, "leases that have ended could not be looked for");
                tokio::time::sleep(TICK.min(self.options.lost_check)).await;
            }
        }
    }
}
