//! Archives: the same members whatever the format, and troubled ones.

use std::io::{Cursor, Write};

use azulite::workers::{Outcome, Status};
use zip::unstable::write::FileOptionsExt as _;
use zip::write::{SimpleFileOptions, ZipWriter};
use zip::{AesMode, CompressionMethod};

use super::support::{Bench, labelled, rule, sha256, values};

const TREE: [(&str, &str); 3] =
    [("pkg/__init__.py", "import needle3"), ("pkg/data.txt", "needle5"), ("pkg/sub/run.py", "needle3 needle5")];

fn zip_of(files: &[(&str, &str)], options: SimpleFileOptions) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (path, text) in files {
        archive.start_file(*path, options).unwrap();
        archive.write_all(text.as_bytes()).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn deflated() -> SimpleFileOptions {
    SimpleFileOptions::default().compression_method(CompressionMethod::Deflated)
}

fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

fn rules() -> String {
    [rule("three", "needle3", "weight = 3"), rule("five", "needle5", "weight = 5")].concat()
}

fn children(outcome: &Outcome) -> Vec<(String, String)> {
    let children = outcome.results.iter().filter(|event| event.action == "extracted");
    let mut found: Vec<_> = children
        .map(|event| {
            let node = event.source.path.last().unwrap();
            assert_eq!(node.relationship.get("action").map(String::as_str), Some("extracted"));
            (node.filename.clone(), event.entity.sha256.clone())
        })
        .collect();
    found.sort();
    found
}

#[test]
fn the_same_tree_is_told_in_the_same_way_in_every_format() {
    let bench = Bench::new(&[("a.yar", &rules())]);
    let zip = zip_of(&TREE, deflated());
    let outcomes = [("p.tar.gz", gzipped(&tar_of(&TREE))), ("p-1-py3-none-any.whl", zip.clone()), ("p.zip", zip)]
        .map(|(name, bytes)| bench.scan(name, bytes));
    for outcome in &outcomes {
        assert_eq!((outcome.status, outcome.message.as_str()), (Status::Completed, ""));
        assert_eq!(values(outcome, "enriched", "yararule"), ["a.five", "a.three"]);
        assert_eq!(values(outcome, "enriched", "yara_distribution_score"), ["8"]);
        assert_eq!(labelled(outcome, "yara_top_member")["8"], "pkg/sub/run.py");
        let scores: Vec<_> = labelled(outcome, "yara_file_score").into_iter().collect();
        let expected = [("pkg/__init__.py", "3"), ("pkg/data.txt", "5"), ("pkg/sub/run.py", "8")];
        assert_eq!(scores, expected.map(|(path, score)| (path.to_owned(), score.to_owned())));
        let expected = TREE.map(|(path, text)| (path.to_owned(), sha256(text.as_bytes())));
        assert_eq!(children(outcome), expected);
    }
    let streams = bench.memory.streams.lock().unwrap();
    for (_, text) in TREE {
        assert_eq!(streams[&("content".to_owned(), sha256(text.as_bytes()))].as_slice(), text.as_bytes());
    }
}

#[test]
fn a_rule_for_python_files_does_not_count_for_a_text_file() {
    let bench = Bench::new(&[("a.yar", &rule("python", "needle5", "weight = 5 filetype = \".py .pyc\""))]);
    let outcome = bench.scan("p.zip", zip_of(&TREE[..2], deflated()));
    assert_eq!((outcome.status, outcome.results.len()), (Status::CompletedEmpty, 0));
    let outcome = bench.scan("p.zip", zip_of(&TREE, deflated()));
    assert_eq!(children(&outcome), [("pkg/sub/run.py".to_owned(), sha256(b"needle3 needle5"))]);
}

#[test]
fn equal_members_are_told_once_with_all_their_paths() {
    let bench = Bench::new(&[("a.yar", &rules())]);
    let outcome = bench.scan("p.zip", zip_of(&[("a", "needle3"), ("b", "needle3")], deflated()));
    assert_eq!(children(&outcome).len(), 1);
    assert_eq!(values(&outcome, "extracted", "filename"), ["a", "b"]);
    assert_eq!(values(&outcome, "enriched", "yara_file_score"), ["3", "3"]);
}

#[test]
fn a_member_is_published_for_whichever_of_its_paths_counts() {
    let bench = Bench::new(&[("a.yar", &rule("python", "needle3", "weight = 3 filetype = \".py\""))]);
    let tree = [("a.txt", "needle3"), ("b.md", "needle3"), ("c", "hay"), ("z.py", "needle3"), ("z2.py", "needle3")];
    let outcome = bench.scan("p.zip", zip_of(&tree, deflated()));
    assert_eq!(labelled(&outcome, "yara_top_member")["3"], "z.py");
    let held = sha256(b"needle3");
    assert_eq!(children(&outcome).into_iter().map(|(_, sha256)| sha256).collect::<Vec<_>>(), [held.as_str()]);
    assert!(bench.memory.streams.lock().unwrap().contains_key(&("content".to_owned(), held)));
}

#[test]
fn passwords_that_were_not_tried_are_told() {
    let bench = Bench::new(&[("a.yar", &rules())]);
    let zip = zip_of(&[("a", "needle3")], deflated().with_aes_encryption(AesMode::Aes256, "last"));
    let mut event = bench.event("p.zip", zip);
    let words: Vec<String> = (0..1500).map(|number| format!("word{number}")).chain(["last".to_owned()]).collect();
    event.source.settings.insert("passwords".to_owned(), words.join("\n"));
    let outcome = bench.run(event);
    assert_eq!(outcome.status, Status::CompletedWithErrors);
    assert!(outcome.message.contains("passwords that came with the event were not tried"), "{}", outcome.message);
}

#[test]
fn members_are_published_as_configured() {
    use azulite::workers::yara::Publish;
    let count = |publish| {
        let bench = Bench::with(&[("a.yar", &rules())], |options| options.publish = publish);
        children(&bench.scan("p.zip", zip_of(&[("a", "needle3"), ("b", "hay")], deflated()))).len()
    };
    assert_eq!([Publish::None, Publish::Matched, Publish::All].map(count), [0, 1, 2]);
}

#[test]
fn archives_inside_archives_are_joined_by_their_paths() {
    let bench = Bench::new(&[("a.yar", &rules())]);
    let inner = gzipped(&tar_of(&[("deep.txt", "needle3")]));
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    archive.start_file("in/inner.tar.gz", deflated()).unwrap();
    archive.write_all(&inner).unwrap();
    let outcome = bench.scan("p.zip", archive.finish().unwrap().into_inner());
    assert_eq!(labelled(&outcome, "yara_top_member")["3"], "in/inner.tar.gz!/deep.txt");
}

#[test]
fn encrypted_members_are_opened_with_passwords_of_event_and_configuration() {
    let bench = Bench::new(&[("a.yar", &rules())]);
    let aes =
        |password: &'static str| zip_of(&[("a", "needle3")], deflated().with_aes_encryption(AesMode::Aes256, password));
    let outcome = bench.scan("p.zip", aes("infected"));
    assert_eq!((outcome.status, outcome.message.as_str()), (Status::Completed, ""));
    assert_eq!(values(&outcome, "enriched", "box_password"), ["infected"]);
    let own = "my own";
    let legacy = zip_of(&[("a", "needle3")], deflated().with_deprecated_encryption(own.as_bytes()).unwrap());
    for bytes in [aes(own), legacy] {
        let outcome = bench.scan("p.zip", bytes.clone());
        assert_eq!(outcome.status, Status::CompletedWithErrors);
        assert_eq!(values(&outcome, "enriched", "tag"), ["archive_encrypted"]);
        assert!(outcome.message.contains("1 encrypted member"), "{}", outcome.message);
        let mut event = bench.event("p.zip", bytes);
        event.source.settings.insert("passwords".into(), "wrong\nmy own\n".into());
        let outcome = bench.run(event);
        assert_eq!(
            (outcome.status, values(&outcome, "enriched", "box_password")),
            (Status::Completed, vec![own.to_owned()])
        );
    }
}

#[test]
fn a_cut_off_archive_is_told_as_far_as_it_goes() {
    let bench = Bench::new(&[("a.yar", &rules())]);
    let noise: String =
        (0..40_000_u32).map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 24) as u8 % 26)).collect();
    let mut bytes = gzipped(&tar_of(&[("a", "needle3"), ("b", &noise)]));
    bytes.truncate(bytes.len() / 2);
    let outcome = bench.scan("p.tar.gz", bytes);
    assert_eq!(outcome.status, Status::CompletedWithErrors);
    assert_eq!(values(&outcome, "enriched", "tag"), ["archive_corrupt"]);
    assert_eq!(values(&outcome, "enriched", "malformed").len(), 1);
    assert_eq!(values(&outcome, "enriched", "yararule"), ["a.three"]);
}

#[test]
fn a_bomb_ends_at_its_limit() {
    let bench = Bench::new(&[("a.yar", &rules())]);
    let zeros = "\0".repeat(64 << 20);
    let outcome = bench.scan("p.zip", zip_of(&[("a", "needle3"), ("b", &zeros)], deflated()));
    assert_eq!(outcome.status, Status::CompletedWithErrors);
    assert_eq!(values(&outcome, "enriched", "tag"), ["archive_bomb"]);
    assert!(outcome.message.contains("max_ratio = 200"), "{}", outcome.message);
}

#[test]
fn paths_that_lead_out_are_text_and_nothing_is_written() {
    let bench = Bench::new(&[("a.yar", &rules())]);
    let before = std::fs::read_dir(bench.folder.path()).unwrap().count();
    let outcome = bench.scan("p.zip", zip_of(&[("../../evil.txt", "needle3")], deflated()));
    assert_eq!(outcome.status, Status::Completed);
    assert_eq!(values(&outcome, "enriched", "tag"), ["archive_unsafe_path"]);
    assert_eq!(values(&outcome, "enriched", "yara_top_member"), ["../../evil.txt"]);
    assert_eq!(std::fs::read_dir(bench.folder.path()).unwrap().count(), before);
}
