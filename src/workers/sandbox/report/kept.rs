//! Values of features, as many as a result may have: the first in a fixed order, however many come.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Values one feature may have (workers.md 1.6).
pub(crate) const VALUES_MAX: usize = 1000;
/// Characters of a value, and of a label.
const VALUE_MAX_CHARS: usize = 4000;
const LABEL_MAX_CHARS: usize = 1000;

/// One value. Sorted by rank, lowest first, then by its text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Found {
    /// 0 where no value comes before another.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) rank: i64,
    pub(crate) value: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) label: String,
}

fn is_zero(rank: &i64) -> bool {
    *rank == 0
}

/// The first [`VALUES_MAX`] of the values of one feature.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    values: BTreeSet<Found>,
    /// Values that had no place, repetitions among them counted.
    #[serde(default)]
    dropped: u64,
    /// Values that are longer than a value may be.
    #[serde(default)]
    shortened: u64,
}

impl Kept {
    /// Takes a value; an empty one is none.
    pub(crate) fn add(&mut self, rank: i64, value: &str, label: &str) {
        if value.is_empty() {
            return;
        }
        let (value, is_short) = first_chars(value, VALUE_MAX_CHARS);
        self.shortened += u64::from(is_short);
        let found = Found { rank, value, label: first_chars(label, LABEL_MAX_CHARS).0 };
        if self.values.len() < VALUES_MAX {
            self.values.insert(found);
            return;
        }
        if self.values.contains(&found) {
            return;
        }
        self.dropped += 1;
        if self.values.last().is_some_and(|last| found < *last) {
            self.values.insert(found);
            self.values.pop_last();
        }
    }

    /// Takes all of another.
    pub(crate) fn merge(&mut self, other: &Self) {
        for found in &other.values {
            self.add(found.rank, &found.value, &found.label);
        }
        self.dropped += other.dropped;
        self.shortened += other.shortened;
    }

    /// Takes out the values that `other` has too, whatever their labels.
    pub(crate) fn subtract(&mut self, other: &Self) {
        let known: BTreeSet<&str> = other.values.iter().map(|found| found.value.as_str()).collect();
        self.values.retain(|found| !known.contains(found.value.as_str()));
    }

    /// The values, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Found> {
        self.values.iter()
    }

    /// How many values are missing, and how many are cut.
    pub(crate) fn lost(&self) -> (u64, u64) {
        (self.dropped, self.shortened)
    }
}

/// The first characters of a text, and whether it has more.
pub(crate) fn first_chars(text: &str, limit: usize) -> (String, bool) {
    match text.char_indices().nth(limit) {
        Some((end, _)) => (text.get(..end).unwrap_or(text).to_owned(), true),
        None => (text.to_owned(), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_values_in_order_are_kept_whatever_order_they_come_in() {
        let (mut up, mut down) = (Kept::default(), Kept::default());
        for number in 0..5000 {
            up.add(0, &format!("{number:05}"), "");
            down.add(0, &format!("{:05}", 4999 - number), "");
        }
        assert!(up.iter().eq(down.iter()));
        assert_eq!(up.iter().last().unwrap().value, "00999");
        assert_eq!((up.lost(), down.lost()), ((4000, 0), (4000, 0)));
    }

    #[test]
    fn lower_ranks_come_first_and_repetitions_count_once() {
        let mut kept = Kept::default();
        for (rank, value) in [(-1, "b"), (-3, "z"), (-1, "a"), (-3, "z"), (0, "")] {
            kept.add(rank, value, "");
        }
        let values: Vec<&str> = kept.iter().map(|found| found.value.as_str()).collect();
        assert_eq!((values, kept.lost()), (vec!["z", "a", "b"], (0, 0)));
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let mut kept = Kept::default();
        kept.add(0, &"é".repeat(5000), &"l".repeat(5000));
        let found = kept.iter().next().unwrap();
        assert_eq!((found.value.chars().count(), found.label.len(), kept.lost()), (4000, 1000, (0, 1)));
    }

    #[test]
    fn values_of_another_are_taken_out() {
        let (mut all, mut read) = (Kept::default(), Kept::default());
        all.add(0, "a", "");
        all.add(0, "b", "");
        read.add(0, "a", "label");
        all.subtract(&read);
        assert_eq!(all.iter().map(|found| found.value.as_str()).collect::<Vec<_>>(), ["b"]);
    }
}
