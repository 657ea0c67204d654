//! Result events of a scan (workers.md 2.2 and 2.3, "Events produced").

use std::collections::{BTreeMap, BTreeSet, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::ask::Hit;
use super::engine::ROW_BYTES_MAX;
use super::scanner::{FileHits, Findings};
use super::score::{Scored, file_score, weight};
use crate::dispatcher::model::{BinaryEvent, Datastream, Feature, Invalid};
use crate::workers::results::{self, Child, Origin, augmented, child, enriched, feature};

/// Name, type and description of every feature that the worker may add.
pub(super) const FEATURES: [(&str, &str, &str); 19] = [
    ("yararule", "string", "Rule that matches, with its namespace"),
    ("yararule_match", "binary", "Bytes that a rule matches"),
    ("yararule_match_name", "string", "Name of a pattern that matches"),
    ("yararule_description", "string", "What the rule says of itself"),
    ("yararule_tag", "string", "Tag of a rule that matches"),
    ("yararule_attribution", "string", "Whom the rule points at"),
    ("yararule_implant", "string", "Implant that the rule is for"),
    ("yararule_exploit", "string", "Exploit that the rule is for"),
    ("yararule_technique", "string", "Technique that the rule is for"),
    ("yararule_reference", "string", "Where the rule comes from"),
    ("yararule_weight", "integer", "Score of a rule that matches"),
    ("yara_file_score", "integer", "Sum of the weights of the rules that match a file; the label is its path"),
    ("yara_distribution_score", "integer", "Sum of the weights of all rules that match anything in the object"),
    ("yara_package_score", "integer", "Highest score of a distribution of the package"),
    ("yara_top_member", "filepath", "Member with the highest score"),
    ("filename", "filepath", "Path of a member in its archive"),
    ("box_password", "string", "Password that opens encrypted members"),
    ("malformed", "string", "Why the archive could not be read to its end"),
    ("tag", "string", "What is odd about an archive"),
];

/// Metadata whose values become features of the same idea, separated by commas.
const LISTS: [&str; 4] = ["attribution", "implant", "exploit", "technique"];
/// Rows in the info block, and their bytes.
const INFO_ROWS_MAX: usize = 5_000;
const INFO_BYTES_MAX: usize = 256 << 10;
/// Shortest name of a pattern that says something, with its `$`.
const PATTERN_NAME_MIN: usize = 4;

/// What is told of an object.
pub(super) struct Subject<'a> {
    pub(super) findings: &'a Findings,
    pub(super) scored: &'a Scored,
    /// The object's name.
    pub(super) name: &'a str,
    /// The rule set's.
    pub(super) hash: &'a str,
    /// Name and version of the package, and its score.
    pub(super) package: Option<(String, i64)>,
    /// Members that were published, by their SHA-256.
    pub(super) uploads: &'a HashMap<String, Datastream>,
    /// Texts of rules.
    pub(super) streams: Vec<Datastream>,
}

/// The events; what is left out of them is added to `notes`.
///
/// # Errors
/// One of them is not valid.
pub(super) fn of(
    origin: &Origin<'_>,
    subject: Subject<'_>,
    notes: &mut Vec<String>,
) -> Result<Vec<BinaryEvent>, Invalid> {
    let mut events = Vec::new();
    let features = object_features(&subject);
    let info = info(&subject, notes);
    if !features.is_empty() {
        events.push(enriched(origin, results::Findings { features, info })?);
    }
    let long = subject.findings.files.iter().flat_map(|file| &file.hits).flat_map(|hit| &hit.rows);
    let long = long.filter(|row| usize::try_from(row.size).is_ok_and(|size| size > ROW_BYTES_MAX)).count();
    if long > 0 {
        notes.push(format!("{long} matches were shortened to {ROW_BYTES_MAX} bytes"));
    }
    for file in &subject.findings.files {
        let Some(member) = &file.member else { continue };
        let Some(content) = subject.uploads.get(&member.sha256) else { continue };
        let relationship = BTreeMap::from([("action".to_owned(), "extracted".to_owned())]);
        let findings = results::Findings { features: member_features(file), info: Value::Null };
        let filename = member.path.clone();
        let content = content.clone();
        events.push(child(origin, Child { content, streams: Vec::new(), filename, relationship, findings })?);
    }
    if !subject.streams.is_empty() {
        events.push(augmented(origin, subject.streams, results::Findings::default())?);
    }
    Ok(events)
}

/// What the object is told to have, the most important first: from the end it is cut.
fn object_features(subject: &Subject<'_>) -> Vec<Feature> {
    let Subject { findings, scored, name, package, .. } = subject;
    let mut told = Told::default();
    let hits = by_weight(findings.files.iter());
    if !hits.is_empty() {
        told.add("yara_distribution_score", "integer", scored.score.to_string(), "");
        if let Some((package, score)) = package {
            told.add("yara_package_score", "integer", score.to_string(), package);
        }
        if let Some(top) = scored.top.as_ref().filter(|top| !top.sha256.is_empty()) {
            told.add("yara_top_member", "filepath", &top.path, &top.score.to_string());
        }
    }
    if let Some(archive) = &findings.told.archive {
        for password in &archive.passwords {
            told.add("box_password", "string", password, "");
        }
        if let Some(reason) = &archive.corrupt {
            told.add("malformed", "string", reason, "");
        }
        let tags = [
            ("archive_encrypted", archive.encrypted),
            ("archive_corrupt", archive.corrupt.is_some()),
            ("archive_bomb", archive.limit),
            ("archive_unsupported", archive.unsupported),
            ("archive_unsafe_path", archive.unsafe_paths > 0),
        ];
        for (tag, _) in tags.into_iter().filter(|(_, holds)| *holds) {
            told.add("tag", "string", tag, "");
        }
    }
    rule_features(&mut told, &hits);
    let mut scores: Vec<(i64, &str)> = Vec::new();
    for file in findings.files.iter().filter(|file| !file.hits.is_empty()) {
        scores.extend(file.all_paths().map(|path| (file_score(file, path, name), path)));
    }
    scores.sort_by(|(one, path), (other, next)| other.cmp(one).then_with(|| path.cmp(next)));
    for (score, path) in scores {
        told.add("yara_file_score", "integer", score.to_string(), path);
    }
    for (file, hit) in &hits {
        match_features(&mut told, hit, file.member.is_none());
    }
    told.features
}

/// What a published member is told to have.
fn member_features(file: &FileHits) -> Vec<Feature> {
    let mut told = Told::default();
    for path in file.all_paths() {
        told.add("filename", "filepath", path, "");
    }
    let hits = by_weight(std::iter::once(file));
    if !hits.is_empty() {
        let score = file.all_paths().map(|path| file_score(file, path, "")).max().unwrap_or(0);
        told.add("yara_file_score", "integer", score.to_string(), "");
    }
    rule_features(&mut told, &hits);
    for (_, hit) in &hits {
        match_features(&mut told, hit, true);
    }
    told.features
}

/// All hits, those of the greatest weight first.
fn by_weight<'a>(files: impl Iterator<Item = &'a FileHits>) -> Vec<(&'a FileHits, &'a Hit)> {
    let mut hits: Vec<_> = files.flat_map(|file| file.hits.iter().map(move |hit| (file, hit))).collect();
    hits.sort_by_cached_key(|(_, hit)| (std::cmp::Reverse(weight(hit)), hit.rule()));
    hits
}

/// What is known of the rules.
fn rule_features(told: &mut Told, hits: &[(&FileHits, &Hit)]) {
    let mut rules = BTreeSet::new();
    let rules: Vec<_> = hits.iter().map(|(_, hit)| hit).filter(|hit| rules.insert(hit.rule())).collect();
    for hit in &rules {
        told.add("yararule", "string", hit.rule(), "");
    }
    for hit in &rules {
        let rule = hit.rule();
        if let Some(weight) = hit.integer("weight") {
            told.add("yararule_weight", "integer", weight.to_string(), &rule);
        }
        for text in hit.texts("description") {
            told.add("yararule_description", "string", text, &rule);
        }
        for tag in &hit.tags {
            told.add("yararule_tag", "string", tag, &rule);
        }
        for idea in LISTS {
            for value in
                hit.texts(idea).flat_map(|text| text.split(',')).map(str::trim).filter(|value| !value.is_empty())
            {
                told.add(&format!("yararule_{idea}"), "string", value, &rule);
            }
        }
        for text in hit.texts("reference") {
            told.add("yararule_reference", "string", text, &rule);
        }
    }
}

/// What a rule matches. Places are told only where they are places in the entity itself.
fn match_features(told: &mut Told, hit: &Hit, placed: bool) {
    let rule = hit.rule();
    for row in &hit.rows {
        if row.pattern.chars().count() >= PATTERN_NAME_MIN {
            told.add("yararule_match_name", "string", &row.pattern, &rule);
        }
    }
    for row in &hit.rows {
        let value = feature("yararule_match", "binary", STANDARD.encode(&row.bytes), &rule);
        told.push(if placed { Feature { offset: row.offset, size: row.size, ..value } } else { value });
    }
}

/// Features, each once.
#[derive(Default)]
struct Told {
    features: Vec<Feature>,
    known: BTreeSet<(String, String, String, u64, u64)>,
}

impl Told {
    fn add(&mut self, name: &str, kind: &str, value: impl Into<String>, label: &str) {
        self.push(feature(name, kind, value, label));
    }

    fn push(&mut self, feature: Feature) {
        let Feature { name, value, label, offset, size, .. } = feature.clone();
        if self.known.insert((name, value, label, offset, size)) {
            self.features.push(feature);
        }
    }
}

/// The rows of all matches; nothing if there is none.
fn info(subject: &Subject<'_>, notes: &mut Vec<String>) -> Value {
    let hits = by_weight(subject.findings.files.iter());
    let all = hits.iter().map(|(_, hit)| hit.rows.len()).sum::<usize>();
    if hits.is_empty() {
        return Value::Null;
    }
    let mut rows = Vec::new();
    let mut left = INFO_BYTES_MAX;
    for (file, hit) in hits {
        let path = file.member.as_ref().map_or("", |member| member.path.as_str());
        for row in &hit.rows {
            let value = STANDARD.encode(&row.bytes);
            let length = value.len() + path.len() + row.pattern.len() + hit.namespace.len() + hit.name.len();
            if rows.len() < INFO_ROWS_MAX && length <= left {
                left -= length;
                rows.push(json!([hit.rule(), row.offset, row.pattern, value, path]));
            }
        }
    }
    if rows.len() < all {
        notes.push(format!("{} of {all} matches are in the info block", rows.len()));
    }
    json!({"matches_key": ["rule", "offset", "var", "value", "path"], "matches": rows, "rules_hash": subject.hash})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workers::yara::ask::{Archive, Member, Meta, Row, Scanned};
    use crate::workers::yara::score;

    fn hit(name: &str, weight: i64) -> Hit {
        let text = |text: &str| Meta::Text(text.to_owned());
        Hit {
            namespace: "ns".into(),
            name: name.into(),
            tags: vec!["one".into()],
            metas: vec![
                ("weight".into(), Meta::Integer(weight)),
                ("description".into(), text("d")),
                ("attribution".into(), text("a, b")),
                ("reference".into(), text("r,s")),
            ],
            rows: vec![
                Row { pattern: "$aaa".into(), offset: 7, size: 2, bytes: b"xy".to_vec() },
                Row { pattern: "$b".into(), offset: 9, size: 1, bytes: b"z".to_vec() },
            ],
        }
    }

    fn subject<'a>(
        findings: &'a Findings,
        scored: &'a Scored,
        uploads: &'a HashMap<String, Datastream>,
    ) -> Subject<'a> {
        Subject {
            findings,
            scored,
            name: "",
            hash: "h",
            package: Some(("p 1".into(), 9)),
            uploads,
            streams: Vec::new(),
        }
    }

    fn shown(features: &[Feature]) -> Vec<String> {
        features.iter().map(|feature| format!("{}={}|{}", feature.name, feature.value, feature.label)).collect()
    }

    #[test]
    fn a_hit_is_told_in_the_features_of_the_plugin() {
        let findings = Findings {
            files: vec![FileHits { member: None, paths: Vec::new(), hits: vec![hit("low", 1), hit("high", 5)] }],
            told: Scanned::default(),
        };
        let scored = score::distribution(&findings.files, "");
        let uploads = HashMap::new();
        let features = object_features(&subject(&findings, &scored, &uploads));
        let of_high = [
            "yararule_weight=5|ns.high",
            "yararule_description=d|ns.high",
            "yararule_tag=one|ns.high",
            "yararule_attribution=a|ns.high",
            "yararule_attribution=b|ns.high",
            "yararule_reference=r,s|ns.high",
        ];
        let shown = shown(&features);
        assert_eq!(
            shown[..4],
            ["yara_distribution_score=6|", "yara_package_score=9|p 1", "yararule=ns.high|", "yararule=ns.low|"]
        );
        assert_eq!(shown[4..10], of_high);
        assert!(shown.contains(&"yara_file_score=6|".to_owned()), "{shown:?}");
        assert!(shown.contains(&"yararule_match_name=$aaa|ns.low".to_owned()));
        assert!(!shown.iter().any(|text| text.contains("match_name=$b")), "{shown:?}");
        let matched = features.iter().find(|feature| feature.name == "yararule_match").unwrap();
        assert_eq!((matched.value.as_str(), matched.offset, matched.size), ("eHk=", 7, 2));
        let known: BTreeSet<_> = FEATURES.iter().map(|(name, kind, _)| (*name, *kind)).collect();
        assert!(features.iter().all(|told| known.contains(&(told.name.as_str(), told.feature_type.as_str()))));
        let mut notes = Vec::new();
        let info = info(&subject(&findings, &scored, &uploads), &mut notes);
        assert_eq!(info["matches"][0], json!(["ns.high", 7, "$aaa", "eHk=", ""]));
        assert_eq!((info["matches"].as_array().unwrap().len(), notes.len()), (4, 0));
    }

    #[test]
    fn members_are_told_with_all_their_paths_and_without_places_in_the_object() {
        let member = Member { path: "t/a.py".into(), sha256: "aa".into(), ..Member::default() };
        let file = FileHits { member: Some(member), paths: vec!["t/b.py".into()], hits: vec![hit("x", 3)] };
        let findings = Findings { files: vec![FileHits::default(), file.clone()], told: Scanned::default() };
        let scored = score::distribution(&findings.files, "");
        let features = object_features(&subject(&findings, &scored, &HashMap::new()));
        let shown = shown(&features);
        for expected in ["yara_top_member=t/a.py|3", "yara_file_score=3|t/a.py", "yara_file_score=3|t/b.py"] {
            assert!(shown.contains(&expected.to_owned()), "{shown:?}");
        }
        let matched = |features: &[Feature]| {
            let found = features.iter().find(|feature| feature.name == "yararule_match").unwrap();
            (found.offset, found.size)
        };
        assert_eq!(matched(&features), (0, 0));
        let own = member_features(&file);
        assert_eq!(matched(&own), (7, 2));
        assert_eq!(self::shown(&own)[..3], ["filename=t/a.py|", "filename=t/b.py|", "yara_file_score=3|"]);
    }

    #[test]
    fn troubled_archives_are_marked_without_hits() {
        let archive = Archive {
            encrypted: true,
            corrupt: Some("cut off".into()),
            passwords: vec!["infected".into()],
            unsafe_paths: 1,
            ..Archive::default()
        };
        let told = Scanned { archive: Some(archive), ..Scanned::default() };
        let findings = Findings { files: vec![FileHits::default()], told };
        let scored = Scored::default();
        let features = object_features(&subject(&findings, &scored, &HashMap::new()));
        let expected = [
            "box_password=infected|",
            "malformed=cut off|",
            "tag=archive_encrypted|",
            "tag=archive_corrupt|",
            "tag=archive_unsafe_path|",
        ];
        assert_eq!(shown(&features), expected);
        let nothing = Findings { files: vec![FileHits::default()], told: Scanned::default() };
        assert_eq!(object_features(&subject(&nothing, &scored, &HashMap::new())), []);
    }
}
