//! Who is changing which letters, so that two changes of one letter are one after the other: each reads rows, commits,
//! and only then lets the next one look.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How a family of letters is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// By so many final statuses on their way to the disk.
    Statuses(usize),
    /// By a person's command, which waits for nobody.
    Person,
}

/// See the module. Families are the first parts of ids.
#[derive(Debug, Default)]
pub(super) struct Claims {
    held: Mutex<BTreeMap<String, Held>>,
    freed: Condvar,
}

/// Holds families until it is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    claims: Arc<Claims>,
    families: Vec<String>,
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a final status: waits for a person's command about the same letters, which is about to be over. Statuses do not
    /// wait for each other; whoever stores them lets one through for each task.
    pub(super) fn wait(self: &Arc<Self>, family: &str) -> Claim {
        let mut held = self.lock();
        loop {
            match held.get_mut(family) {
                Some(Held::Person) => held = self.freed.wait(held).unwrap_or_else(PoisonError::into_inner),
                Some(Held::Statuses(count)) => {
                    *count += 1;
                    break;
                }
                None => {
                    held.insert(family.to_owned(), Held::Statuses(1));
                    break;
                }
            }
        }
        Claim { claims: self.clone(), families: vec![family.to_owned()] }
    }

    /// For a person's command: nothing is held yet.
    pub(super) fn none(self: &Arc<Self>) -> Claim {
        Claim { claims: self.clone(), families: Vec::new() }
    }
}

impl Claim {
    /// Holds one more family for a person's command; false when somebody else is changing it. Holding it already is fine.
    pub(super) fn try_add(&mut self, family: &str) -> bool {
        if self.families.iter().any(|held| held == family) {
            return true;
        }
        let mut held = self.claims.lock();
        if held.contains_key(family) {
            return false;
        }
        held.insert(family.to_owned(), Held::Person);
        self.families.push(family.to_owned());
        true
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut held = self.claims.lock();
        for family in &self.families {
            match held.get_mut(family) {
                Some(Held::Statuses(count)) if *count > 1 => *count -= 1,
                Some(Held::Statuses(_) | Held::Person) => drop(held.remove(family)),
                None => {}
            }
        }
        drop(held);
        self.claims.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_waits_for_nobody_and_a_status_for_a_person() {
        let claims = Arc::new(Claims::default());
        let status = claims.wait("a");
        let second = claims.wait("a");
        let mut person = claims.none();
        assert!(!person.try_add("a"));
        assert!(person.try_add("b") && person.try_add("b"));
        drop(status);
        assert!(!person.try_add("a"), "another status is still under way");
        drop(second);
        assert!(person.try_add("a"));
        let (told, waited) = std::sync::mpsc::channel();
        let waiting = claims.clone();
        let waiting = std::thread::spawn(move || {
            told.send(()).unwrap();
            drop(waiting.wait("b"));
        });
        waited.recv().unwrap();
        drop(person);
        waiting.join().unwrap();
        assert!(claims.lock().is_empty());
    }
}
