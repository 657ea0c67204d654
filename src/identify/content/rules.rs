//! The compiled rules.

use std::fmt;

use yara::{Compiler, Metadata, MetadataValue, ScanFlags, Yara, YaraError};

use super::Facts;

const SOURCE: &str = include_str!("rules.yar");

/// Time limit of one scan (streams.md 8.6). Looked at by the engine now and then.
pub(super) const TIME_LIMIT_S: u64 = 10;

/// The rules, ready to scan.
pub(super) struct Rules {
    compiled: yara::Rules,
    // Keeps the library's settings.
    _library: Yara,
}

/// A rule that matches, as far as the result depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Match<'a> {
    file_type: Option<&'a str>,
    score: Option<i64>,
}

impl Rules {
    /// Compiles the built-in rules.
    pub(super) fn compile() -> Result<Self, String> {
        let told = |error: &dyn fmt::Display| error.to_string();
        let library = Yara::new().map_err(|error| told(&error))?;
        // Where a string matches counts, not what: a long file matches a short one a million times.
        library.set_configuration_max_match_data(0).map_err(|error| told(&error))?;
        let compiler = || {
            let mut compiler = Compiler::new()?;
            for name in ["mime", "magic", "type"] {
                compiler.define_variable(name, "")?;
            }
            Ok(compiler)
        };
        let compiler = compiler().map_err(|error: YaraError| told(&error))?;
        let compiler = compiler.add_rules_str(SOURCE).map_err(|error| told(&error))?;
        let compiled = compiler.compile_rules().map_err(|error| told(&error))?;
        Ok(Self { compiled, _library: library })
    }

    /// The type that the rules give `bytes`, if any.
    ///
    /// # Errors
    /// What the engine says: time or memory has run out.
    pub(super) fn scan(&self, facts: &Facts, bytes: &[u8]) -> Result<Option<String>, String> {
        let found = self.matches(facts, bytes).map_err(|error| error.to_string())?;
        Ok(winner(found.iter().map(|rule| Match::of(&rule.metadatas))).map(str::to_owned))
    }

    fn matches(&self, facts: &Facts, bytes: &[u8]) -> Result<Vec<yara::Rule<'_>>, YaraError> {
        let mut scanner = self.compiled.scanner()?;
        scanner.set_timeout(i32::try_from(TIME_LIMIT_S).unwrap_or(i32::MAX));
        scanner.set_flags(ScanFlags::FAST_MODE | ScanFlags::REPORT_RULES_MATCHING);
        for (name, value) in [("mime", &facts.mime), ("magic", &facts.magic), ("type", &facts.file_type)] {
            scanner.define_variable(name, value.replace('\0', " ").as_str())?;
        }
        scanner.scan_mem(bytes)
    }

    /// Names of the rules that match.
    #[cfg(test)]
    pub(super) fn names(&self, facts: &Facts, bytes: &[u8]) -> Vec<String> {
        self.matches(facts, bytes).unwrap().iter().map(|rule| rule.identifier.to_owned()).collect()
    }

    /// Names, types and scores of all rules, in their order.
    #[cfg(test)]
    pub(super) fn all(&self) -> Vec<(String, Option<String>, Option<i64>)> {
        let described = |rule: &yara::RulesetRule<'_>| {
            let Match { file_type, score } = Match::of(&rule.metadatas);
            (rule.identifier.to_owned(), file_type.map(str::to_owned), score)
        };
        self.compiled.get_rules().iter().map(described).collect()
    }
}

impl<'a> Match<'a> {
    fn of(metadatas: &[Metadata<'a>]) -> Self {
        let mut matched = Self::default();
        for metadata in metadatas {
            match (metadata.identifier, &metadata.value) {
                ("type", MetadataValue::String(name)) => matched.file_type = Some(name),
                ("score", MetadataValue::Integer(score)) => matched.score = Some(*score),
                _ => {}
            }
        }
        matched
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Rules").finish_non_exhaustive()
    }
}

/// The type of the best match. A match without a score has that of the one before, one without a type likewise; only a
/// better score than the best so far wins, and it has to be above 0.
fn winner<'a>(matches: impl Iterator<Item = Match<'a>>) -> Option<&'a str> {
    let (mut file_type, mut score) = (None, 1);
    let mut best = (0, None);
    for matched in matches {
        file_type = matched.file_type.or(file_type);
        score = matched.score.unwrap_or(score);
        if score > best.0 {
            best = (score, file_type);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn won(matches: &[(&'static str, Option<i64>)]) -> Option<&'static str> {
        winner(matches.iter().map(|(name, score)| Match { file_type: Some(name), score: *score }))
    }

    #[test]
    fn the_earliest_of_the_best_scores_wins() {
        assert_eq!(won(&[]), None);
        assert_eq!(won(&[("a", Some(2)), ("b", Some(2)), ("c", Some(1))]), Some("a"));
        assert_eq!(won(&[("a", Some(1)), ("b", Some(3))]), Some("b"));
    }

    #[test]
    fn a_rule_without_a_score_has_that_of_the_match_before() {
        assert_eq!(won(&[("a", None), ("b", Some(1))]), Some("a"));
        assert_eq!(won(&[("a", Some(5)), ("b", None)]), Some("a"));
        assert_eq!(won(&[("a", Some(1)), ("b", Some(-1)), ("c", None), ("d", Some(2))]), Some("d"));
    }

    #[test]
    fn negative_scores_never_win() {
        assert_eq!(won(&[("a", Some(-2)), ("b", None)]), None);
    }

    #[test]
    fn a_rule_without_a_type_has_that_of_the_match_before() {
        let matches = [
            Match { file_type: Some("a"), score: Some(1) },
            Match { file_type: None, score: Some(3) },
            Match { file_type: Some("b"), score: Some(2) },
        ];
        assert_eq!(winner(matches.into_iter()), Some("a"));
    }
}
