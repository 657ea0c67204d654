//! What the dispatcher does by itself while it serves: ends pauses, ends lost tasks, writes down who asked, lets go of
//! idle readers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Dispatcher;
use super::tasks::Ends;

/// How often registered consumers, readers and the pause are looked at.
const TICK: Duration = Duration::from_secs(60);

impl Dispatcher {
    /// Runs until [`Dispatcher::stop`]; what is not written down yet is then.
    pub async fn upkeep(self: Arc<Self>) {
        // Consumers have the first interval to report what they did while nobody listened.
        let mut lost_check = Instant::now() + self.options.lost_check;
        // Only counts them.
        self.check_lost(i64::MIN).await;
        loop {
            let pause_ends = u64::try_from(self.pause.due_ms().saturating_sub(self.now_ms())).unwrap_or(0);
            let next = (Instant::now() + TICK.min(Duration::from_millis(pause_ends))).min(lost_check);
            let stopping = tokio::select! {
                () = tokio::time::sleep_until(next) => false,
                () = self.stopping.cancelled() => true,
            };
            self.write_down().await;
            if stopping {
                return;
            }
            if Instant::now() >= lost_check {
                self.check_lost(self.now_ms().saturating_sub(self.options.lost_after_ms)).await;
                lost_check = Instant::now() + self.options.lost_check;
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

    async fn check_lost(self: &Arc<Self>, silent_since_ms: i64) {
        let ends = Ends { silent_since_ms: Some(silent_since_ms), name: None };
        match self.look_for_lost_tasks(&ends, self.now_ms()).await {
            Ok(looked) if looked.ended > 0 => {
                tracing::info!(lost = looked.ended, open = looked.open, "tasks were lost")
            }
            Ok(_) => {}
            Err(error) => tracing::error!(error, "lost tasks could not be looked for"),
        }
    }
}
