//! Log lines that strangers can cause: each kind once in a while, with the number that was left out.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A kind of complaint is repeated after this time at the earliest.
const EVERY: Duration = Duration::from_secs(60);
/// Kinds remembered at once. While so many are fresh, further ones are left out.
const MAX_KINDS: usize = 1024;

/// What was complained about lately.
#[derive(Debug)]
pub(super) struct Complaints<K>(Mutex<HashMap<K, Said>>);

#[derive(Debug)]
struct Said {
    at: Instant,
    left_out: u64,
}

impl<K> Default for Complaints<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Complaints<K> {
    /// How many of the kind were left out, if it is time to say it again.
    pub(super) fn due(&self, kind: K) -> Option<u64> {
        self.due_at(kind, Instant::now())
    }

    fn due_at(&self, kind: K, now: Instant) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= MAX_KINDS && !said.contains_key(&kind) {
            said.retain(|_, said| now.duration_since(said.at) < EVERY);
            if said.len() >= MAX_KINDS {
                return None;
            }
        }
        match said.get_mut(&kind) {
            Some(said) if now.duration_since(said.at) < EVERY => {
                said.left_out += 1;
                None
            }
            Some(said) => {
                said.at = now;
                Some(std::mem::take(&mut said.left_out))
            }
            None => {
                said.insert(kind, Said { at: now, left_out: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_said_once_a_minute_with_the_number_left_out() {
        let (complaints, start) = (Complaints::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(complaints.due_at("a", at(0)), Some(0));
        assert_eq!(complaints.due_at("a", at(1)), None);
        assert_eq!(complaints.due_at("b", at(1)), Some(0));
        assert_eq!(complaints.due_at("a", at(59)), None);
        assert_eq!(complaints.due_at("a", at(60)), Some(2));
        assert_eq!(complaints.due_at("a", at(61)), None);
    }

    #[test]
    fn many_kinds_at_once_do_not_fill_memory_or_the_log() {
        let (complaints, start) = (Complaints::default(), Instant::now());
        let said = (0..10_000).filter(|kind| complaints.due_at(*kind, start).is_some()).count();
        assert_eq!(said, MAX_KINDS);
        assert_eq!(complaints.due_at(20_000, start + EVERY), Some(0));
        assert_eq!(complaints.0.lock().unwrap().len(), 1);
    }
}
