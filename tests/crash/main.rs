//! The crash test: random work from several clients, SIGKILL at a random moment, restart, and then every promise the
//! server made is checked. `AZULITE_CRASH_ROUNDS` sets the number of rounds (100), `AZULITE_SEED` replays a run.
//!
//! A killed process keeps the operating system's cache: this shows that no reply runs ahead of the log and that
//! recovery is right, not that syncs happen (the storage crate's tests show that).

#[cfg(test)]
mod jobs;
#[cfg(test)]
mod ledger;
#[cfg(test)]
#[path = "../support/mod.rs"]
mod support;
#[cfg(test)]
mod work;
#[cfg(test)]
mod workers;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use crate::ledger::Ledger;
    use crate::support::random::Random;
    use crate::support::{Config, Server};
    use crate::work::{GroupReader, Pause, Poster, Uploader};

    /// Warnings that a start after a kill may give.
    const AFTER_A_KILL: [&str; 3] = ["torn tail", "not shut down cleanly", "unclean"];

    /// A full look at everything costs time in proportion to all rounds so far: only now and then, and at the end.
    const FULL_CHECK_EVERY: u64 = 25;

    /// How often, about, a group is moved with the command while no server runs.
    const RESET_BY_COMMAND_EVERY: u64 = 8;

    fn rounds() -> u64 {
        std::env::var("AZULITE_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
    }

    #[test]
    fn nothing_acknowledged_is_lost_doubled_or_changed_by_kills() {
        let rounds = rounds();
        let mut random = Random::new(Random::run_seed());
        // Two clients share a source, so that their events meet in one topic.
        let mut posters = [Poster::new(0, "mixed"), Poster::new(1, "mixed"), Poster::new(2, "own")];
        let mut uploader = Uploader::default();
        let mut reader = GroupReader::new("group");
        let mut resetter = GroupReader::resetting("resetter", 12);
        let (mut tasker, pause) = (GroupReader::of_tasks("tasker"), Pause::default());
        // From here on plugins are paused: a pause outlasts the rest of the test, and every kill in it.
        let pause_from = rounds - rounds / 4;
        let mut ledger = Ledger::default();
        // Small segments: many of them begin and end, and none of them is long to look through.
        let config = Config::examples().section("sources.mixed").section("sources.own");
        let mut server = Server::with(&config.set("storage", "segment_bytes", "16777216"));
        for text in AFTER_A_KILL {
            server.announce(text);
        }
        let start = Instant::now();
        for round in 1..=rounds {
            let life = Duration::from_millis(20 + random.below(480));
            let stop = AtomicBool::new(false);
            let address = server.address();
            std::thread::scope(|scope| {
                for (number, poster) in (0..).zip(&mut posters) {
                    let (random, stop) = (random.fork(number), &stop);
                    scope.spawn(move || poster.run(address, random, stop));
                }
                let (uploader, stop, pause) = (&mut uploader, &stop, &pause);
                let other = random.fork(10);
                scope.spawn(move || uploader.run(address, other, stop));
                for (number, reader) in (11..).zip([&mut reader, &mut resetter, &mut tasker]) {
                    let random = random.fork(number);
                    scope.spawn(move || reader.run(address, random, stop, pause));
                }
                // Kills come behind a request that was answered; it is repeated before it runs out.
                if round > pause_from && (!pause.is_certain() || round % 50 == 0) {
                    let random = random.fork(20);
                    scope.spawn(move || pause.request(address, random, stop));
                }
                std::thread::sleep(life);
                server.kill();
                stop.store(true, Ordering::Relaxed);
            });
            if random.next().is_multiple_of(RESET_BY_COMMAND_EVERY) {
                resetter.reset_by_command(&server);
            }
            server.launch();
            for poster in &mut posters {
                ledger.take(poster);
            }
            uploader.check_new(&server);
            if round % FULL_CHECK_EVERY == 0 || round == rounds || round == pause_from {
                ledger.check(&server, round);
                uploader.check_all(&server);
            }
            if round == pause_from {
                tasker.drain(&server);
                tasker.check(&ledger);
            }
        }
        for reader in [&mut reader, &mut resetter] {
            reader.drain(&server);
            reader.check(&ledger);
        }
        tasker.check_paused(&server, &pause);
        ledger.check_offsets(&server);
        println!(
            "{rounds} rounds in {:?}: {} events acknowledged, {} requests unanswered, {} blobs, deliveries, of which \
             repeated, and resets: {:?} {:?} {:?}",
            start.elapsed(),
            ledger.acknowledged(),
            ledger.unanswered(),
            uploader.count(),
            reader.counts(),
            resetter.counts(),
            tasker.counts(),
        );
        assert!(ledger.acknowledged() > 0 && uploader.count() > 0, "the rounds were too short to do anything");
    }
}
