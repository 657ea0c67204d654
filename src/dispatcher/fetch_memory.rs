//! What bounds the memory of all GETs together. Used by [`super::consume`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Room for the answer that a pass begins with; what it does not need comes back at its end.
const PASS_ROOM: usize = 4 << 20;
/// What room for answers is counted in, bytes.
const ROOM_UNIT: usize = 1024;

/// What bounds the memory of all GETs together: how many decode events at once, and the bytes of answers that clients
/// have not taken yet.
#[derive(Debug)]
pub(super) struct Memory {
    passes: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    total_units: usize,
    /// How many wait for room.
    short: watch::Sender<usize>,
}

/// Counts somebody who waits for room.
struct Short<'a>(&'a watch::Sender<usize>);

impl<'a> Short<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|waiting| *waiting += 1);
        Self(count)
    }
}

impl Drop for Short<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

/// What one pass may use.
pub(super) struct Place {
    turn: Option<OwnedSemaphorePermit>,
    turns: Arc<Semaphore>,
    pub(super) room: OwnedSemaphorePermit,
}

impl Place {
    /// Does something that waits for a disk, without a turn. It goes on without one if there is none then: turns are held
    /// by work that may be waiting for this very thread.
    pub(super) fn without_turn<T>(&mut self, work: impl FnOnce() -> T) -> T {
        drop(self.turn.take());
        let done = work();
        self.turn = self.turns.clone().try_acquire_owned().ok();
        done
    }
}

impl Memory {
    /// Room for `bytes` of answers.
    pub(super) fn new(bytes: usize) -> Self {
        let total_units = bytes.div_ceil(ROOM_UNIT).clamp(1, Semaphore::MAX_PERMITS);
        let passes = std::thread::available_parallelism().map_or(4, |processors| 2 * processors.get());
        Self {
            passes: Arc::new(Semaphore::new(passes)),
            answers: Arc::new(Semaphore::new(total_units)),
            total_units,
            short: watch::Sender::new(0),
        }
    }

    fn pass_units(&self) -> u32 {
        u32::try_from(PASS_ROOM.div_ceil(ROOM_UNIT).min(self.total_units)).unwrap_or(u32::MAX)
    }

    /// A turn to decode and room for what comes of it, if nobody has to be waited for.
    pub(super) fn place_now(&self) -> Option<Place> {
        let room = self.answers.clone().try_acquire_many_owned(self.pass_units()).ok()?;
        let turns = self.passes.clone();
        Some(Place { turn: Some(turns.clone().try_acquire_owned().ok()?), turns, room })
    }

    /// A turn to decode, and room for what comes of it; `None` after `wait`.
    pub(super) async fn place(&self, wait: Duration) -> Option<Place> {
        let units = self.pass_units();
        let room = match self.answers.clone().try_acquire_many_owned(units) {
            Ok(room) => room,
            Err(_) if wait.is_zero() => return None,
            Err(_) => {
                let _short = Short::new(&self.short);
                tokio::time::timeout(wait, self.answers.clone().acquire_many_owned(units)).await.ok()?.ok()?
            }
        };
        let turns = self.passes.clone();
        Some(Place { turn: turns.clone().acquire_owned().await.ok(), turns, room })
    }

    /// Returns once somebody waits for room.
    pub(super) async fn is_short(&self) {
        // The sender lives as long as this.
        drop(self.short.subscribe().wait_for(|waiting| *waiting > 0).await);
    }

    /// Makes `room` one for `bytes`, as far as there is more.
    pub(super) fn fit(&self, room: &mut OwnedSemaphorePermit, bytes: usize) {
        let units = bytes.div_ceil(ROOM_UNIT);
        let has = room.num_permits();
        if units < has {
            drop(room.split(has - units));
        } else if let Ok(more) = u32::try_from(units - has)
            && let Ok(more) = self.answers.clone().try_acquire_many_owned(more)
        {
            room.merge(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM_WAIT: Duration = Duration::from_secs(5);
    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn who_lacks_room_is_noticed_by_those_who_have_some() {
        let memory = Memory::new(PASS_ROOM);
        let mut first = memory.place(Duration::ZERO).await.unwrap();
        assert!(memory.place(Duration::ZERO).await.is_none(), "all of it is taken");
        let (second, ()) = tokio::join!(memory.place(ROOM_WAIT), async {
            memory.is_short().await;
            memory.fit(&mut first.room, 10);
            drop(first);
        });
        assert!(second.is_some());
        assert!(tokio::time::timeout(SOON, memory.is_short()).await.is_err(), "nobody waits any more");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nobody_waits_for_the_turn_of_who_waits_for_a_disk() {
        let memory = Memory::new(PASS_ROOM);
        let turns = || memory.passes.available_permits();
        let (all, mut place) = (turns(), memory.place(Duration::ZERO).await.unwrap());
        assert_eq!(turns(), all - 1);
        tokio::task::block_in_place(|| place.without_turn(|| assert_eq!(turns(), all)));
        assert_eq!(turns(), all - 1, "it goes on with one");
        drop(place);
        assert_eq!(turns(), all);
    }

    #[tokio::test]
    async fn room_is_fitted_to_what_came_of_it_and_comes_back() {
        let memory = Memory::new(2 * PASS_ROOM);
        let units = || memory.answers.available_permits();
        let all = units();
        let mut place = memory.place(Duration::ZERO).await.unwrap();
        memory.fit(&mut place.room, 3 * ROOM_UNIT);
        assert_eq!(all - units(), 3);
        memory.fit(&mut place.room, PASS_ROOM + ROOM_UNIT);
        assert_eq!(all - units(), PASS_ROOM / ROOM_UNIT + 1);
        memory.fit(&mut place.room, 3 * PASS_ROOM);
        assert_eq!(all - units(), PASS_ROOM / ROOM_UNIT + 1, "what does not fit goes without");
        drop(place);
        assert_eq!(units(), all);
        let _held = memory.place(ROOM_WAIT).await.unwrap();
        let _other = memory.place(ROOM_WAIT).await.unwrap();
        assert!(memory.place(SOON).await.is_none(), "it is waited for, and not for ever");
    }
}
