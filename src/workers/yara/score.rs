//! Scores of files, distributions and packages (workers.md 2.1 and 2.3).

use std::collections::BTreeSet;

use super::ask::Hit;
use super::scanner::FileHits;

/// The most malicious file of a distribution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Top {
    /// Path of the member; empty for the object itself.
    pub path: String,
    /// SHA-256 of the member; empty for the object itself.
    pub sha256: String,
    /// Its score, above 0.
    pub score: i64,
}

/// What a distribution scores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scored {
    /// Sum over distinct rules and weights.
    pub score: i64,
    /// Distinct rules, with their namespaces.
    pub rules: BTreeSet<String>,
    /// `None` when nothing scores.
    pub top: Option<Top>,
}

/// A rule's own score.
pub(super) fn weight(hit: &Hit) -> i64 {
    hit.integer("weight").unwrap_or(0)
}

/// What a file scores under one of its paths; `name` is the object's.
pub(super) fn file_score(file: &FileHits, path: &str, name: &str) -> i64 {
    let path = if file.member.is_some() { path } else { name };
    counting(file, path).fold(0, |sum, hit| sum.saturating_add(weight(hit)))
}

fn counting<'a>(file: &'a FileHits, path: &'a str) -> impl Iterator<Item = &'a Hit> {
    file.hits.iter().filter(move |hit| hit.counts(path))
}

/// Leaves out hits that count under none of a file's paths; `name` is the object's.
pub(super) fn keep_counting(files: &mut [FileHits], name: &str) {
    for file in files {
        let paths: Vec<String> = match file.member {
            Some(_) => file.all_paths().map(str::to_owned).collect(),
            None => vec![name.to_owned()],
        };
        file.hits.retain(|hit| paths.iter().any(|path| hit.counts(path)));
    }
}

/// What a distribution scores; `name` is the object's.
pub(super) fn distribution(files: &[FileHits], name: &str) -> Scored {
    let mut pairs = BTreeSet::new();
    // Higher score, more rules, path in byte order; members before the object that holds them.
    let mut best: Option<(bool, i64, usize, &str, &FileHits)> = None;
    for file in files {
        for path in file.all_paths() {
            let shown = if file.member.is_some() { path } else { name };
            pairs.extend(counting(file, shown).map(|hit| (hit.rule(), weight(hit))));
            let rules: BTreeSet<_> = counting(file, shown).map(Hit::rule).collect();
            let score = file_score(file, path, name);
            let found = (file.member.is_some(), score, rules.len(), path, file);
            let better = |(member, most, count, first, _): &(bool, i64, usize, &str, &FileHits)| {
                (found.0, score, found.2).cmp(&(*member, *most, *count)).then_with(|| first.cmp(&path)).is_gt()
            };
            if score > 0 && best.as_ref().is_none_or(better) {
                best = Some(found);
            }
        }
    }
    Scored {
        score: pairs.iter().fold(0, |sum, (_, weight)| sum.saturating_add(*weight)),
        rules: pairs.into_iter().map(|(rule, _)| rule).collect(),
        top: best.map(|(_, score, _, path, file)| Top {
            path: path.to_owned(),
            sha256: file.member.as_ref().map(|member| member.sha256.clone()).unwrap_or_default(),
            score,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workers::yara::ask::{Member, Meta};

    fn hit(name: &str, weight: i64, filetype: Option<&str>) -> Hit {
        let mut metas = vec![("weight".to_owned(), Meta::Integer(weight))];
        metas.extend(filetype.map(|endings| ("filetype".to_owned(), Meta::Text(endings.to_owned()))));
        Hit { namespace: "n".into(), name: name.into(), metas, ..Hit::default() }
    }

    fn member(path: &str, hits: &[Hit]) -> FileHits {
        let member = Member { path: path.into(), sha256: format!("hash of {path}"), ..Member::default() };
        FileHits { member: Some(member), paths: Vec::new(), hits: hits.to_vec() }
    }

    #[test]
    fn a_rule_counts_once_in_a_distribution_whatever_the_number_of_files() {
        let files = [member("a", &[hit("x", 3, None)]), member("b", &[hit("y", 5, None), hit("x", 3, None)])];
        let scored = distribution(&files, "");
        assert_eq!(scored.score, 8);
        assert_eq!(scored.rules.into_iter().collect::<Vec<_>>(), ["n.x", "n.y"]);
        assert_eq!(scored.top.unwrap(), Top { path: "b".into(), sha256: "hash of b".into(), score: 8 });
    }

    #[test]
    fn a_rule_with_file_types_counts_only_for_paths_that_end_so() {
        let rule = hit("x", 3, Some(".py .pyc"));
        let files = [member("a.txt", std::slice::from_ref(&rule)), member("b.pyc", std::slice::from_ref(&rule))];
        assert_eq!(distribution(&files[..1], ""), Scored::default());
        assert_eq!(distribution(&files, "").top.unwrap().path, "b.pyc");
        let mut kept = files.clone();
        keep_counting(&mut kept, "");
        assert_eq!(kept.map(|file| file.hits.len()), [0, 1]);
        // The same bytes under a path that counts.
        let mut both = files[0].clone();
        both.paths.push("c.py".into());
        assert_eq!(distribution(&[both.clone()], "").top.unwrap().path, "c.py");
        assert_eq!((file_score(&both, "a.txt", ""), file_score(&both, "c.py", "")), (0, 3));
        let object = FileHits { member: None, paths: Vec::new(), hits: vec![rule] };
        assert_eq!(
            (distribution(std::slice::from_ref(&object), "x.py").score, distribution(&[object], "").score),
            (3, 0)
        );
    }

    #[test]
    fn ties_go_to_more_rules_and_then_to_the_first_path() {
        let one = hit("x", 4, None);
        let two = [hit("y", 2, None), hit("z", 2, None)];
        let files = [member("a", std::slice::from_ref(&one)), member("c", &two), member("b", &two)];
        assert_eq!(distribution(&files, "").top.unwrap().path, "b");
        assert_eq!(distribution(&files[..1], "").top.unwrap().path, "a");
        let object = FileHits { member: None, paths: Vec::new(), hits: vec![hit("big", 100, None)] };
        assert_eq!(distribution(&[object.clone(), files[0].clone()], "").top.unwrap().path, "a");
        assert_eq!(
            distribution(&[object], "").top.unwrap(),
            Top { path: String::new(), sha256: String::new(), score: 100 }
        );
    }

    #[test]
    fn without_weights_there_is_no_most_malicious_file() {
        let scored = distribution(&[member("a", &[hit("x", 0, None)])], "");
        assert_eq!((scored.score, scored.rules.len(), scored.top), (0, 1, None));
    }
}
