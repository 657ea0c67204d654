//! A compact set of event keys.

use std::collections::HashSet;

/// An exact set of event keys that may hold millions of them.
///
/// The keys we give are 32 lower-case hex digits and are kept as the number they write: 17 bytes in a table that is 44 to
/// 88 % full, 19 to 39 bytes each. Any other text is kept as it is and costs its length and about 40 bytes.
#[derive(Debug, Default)]
pub(super) struct KeySet {
    numbers: HashSet<u128>,
    others: HashSet<Box<str>>,
}

impl KeySet {
    /// Adds a key; the empty one is none.
    pub(super) fn insert(&mut self, key: &str) {
        match number(key) {
            Some(number) => drop(self.numbers.insert(number)),
            None if key.is_empty() => {}
            None => drop(self.others.insert(key.into())),
        }
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        if self.numbers.is_empty() && self.others.is_empty() {
            return false;
        }
        match number(key) {
            Some(number) => self.numbers.contains(&number),
            None => self.others.contains(key),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.len() + self.others.len()
    }
}

/// The number that exactly 32 lower-case hex digits write.
fn number(key: &str) -> Option<u128> {
    let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_ours = key.len() == 32 && key.bytes().all(lower_hex);
    is_ours.then(|| u128::from_str_radix(key, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_any_form_are_told_apart() {
        let ours = "419d55d8a85cf11e3b9bd17486279a68";
        let upper = ours.to_uppercase();
        let signed = format!("+{}", &ours[1..]);
        let shorter = &ours[1..];
        let zero = format!("0{shorter}");
        let all = [ours, &upper, &signed, shorter, &zero, "tmp", "ä"];
        for inserted in all {
            let mut set = KeySet::default();
            set.insert(inserted);
            set.insert(inserted);
            assert_eq!(set.len(), 1);
            for asked in all {
                assert_eq!(set.contains(asked), asked == inserted, "{inserted} {asked}");
            }
        }
    }

    #[test]
    fn the_empty_text_is_no_key() {
        let mut set = KeySet::default();
        set.insert("");
        assert!(!set.contains("") && set.len() == 0);
    }
}
