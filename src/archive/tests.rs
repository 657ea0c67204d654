use std::collections::BTreeMap;
use std::io::{Cursor, Write};

use ::zip::write::SimpleFileOptions;
use ::zip::{AesMode, CompressionMethod, ZipWriter};
use proptest::prelude::*;

use super::*;

type Tree = BTreeMap<String, Vec<u8>>;

fn options(limits: &Limits) -> Options<'_> {
    Options { name: "", limits, passwords: &[], go_on: &|| true }
}

/// Path and bytes of all members, sorted; the walk has no trouble.
fn members(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let report = walk(bytes, &options(&Limits::default()), &mut |member| {
        found.push((member.path.to_owned(), member.bytes.to_vec()));
        ControlFlow::Continue(())
    });
    assert_eq!(report.unwrap().notes(0), Vec::<String>::new());
    found.sort();
    found
}

fn tar_of(tree: &Tree, top: &str) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (path, bytes) in tree {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(len(bytes));
        header.set_mode(0o644);
        builder.append_data(&mut header, format!("{top}{path}"), &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gz_of(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip_of(tree: &Tree, options: SimpleFileOptions) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (path, bytes) in tree {
        writer.start_file(path.as_str(), options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap()
}

fn trees() -> impl Strategy<Value = Tree> {
    let name = "[a-zA-Z0-9_ä.-]{1,12}x";
    let path = prop::collection::vec(name, 1..14).prop_map(|parts| parts.join("/"));
    // Letters in front keep the bytes from being an archive.
    let bytes = (prop::collection::vec(any::<u8>(), 0..2000), 1..30_usize);
    let bytes = bytes.prop_map(|(bytes, times)| [&b"file "[..], &bytes.repeat(times)].concat());
    prop::collection::btree_map(path, bytes, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_same_tree_gives_the_same_members_in_every_archive(tree in trees()) {
        let want: Vec<_> = tree.iter().map(|(path, bytes)| (path.clone(), bytes.clone())).collect();
        let under_top: Vec<_> = tree.iter().map(|(path, bytes)| (format!("name-1.0/{path}"), bytes.clone())).collect();
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        let packed = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        prop_assert_eq!(&members(&tar_of(&tree, "")), &want);
        prop_assert_eq!(&members(&gz_of(&tar_of(&tree, "name-1.0/"))), &under_top);
        prop_assert_eq!(&members(&zip_of(&tree, packed)), &want);
        prop_assert_eq!(&members(&zip_of(&tree, stored.large_file(true))), &want);
    }

    #[test]
    fn cut_or_changed_archives_end(tree in trees(), cut in 0..10_000_usize, place in 0..10_000_usize, byte: u8) {
        let packed = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        for mut bytes in [tar_of(&tree, ""), gz_of(&tar_of(&tree, "")), zip_of(&tree, packed)] {
            let at = place % bytes.len();
            bytes[at] = byte;
            for bytes in [&bytes[..], &bytes[..cut % bytes.len()]] {
                walk(bytes, &options(&Limits::default()), &mut |_| ControlFlow::Continue(()));
            }
        }
    }
}

#[test]
fn every_password_opens_its_member() {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (mode, password) in [(AesMode::Aes128, "one"), (AesMode::Aes192, "two"), (AesMode::Aes256, "three")] {
        let options = SimpleFileOptions::default().with_aes_encryption(mode, password);
        writer.start_file(password, options).unwrap();
        writer.write_all(&b"text that is packed ".repeat(20_000)).unwrap();
    }
    let bytes = writer.finish().unwrap().into_inner();
    let (limits, passwords) = (Limits::default(), ["zero", "three", "two", "one"].map(str::to_owned));
    let options = Options { passwords: &passwords, ..options(&limits) };
    let report = walk(&bytes, &options, &mut |member| {
        assert_eq!((member.encrypted_with, member.bytes.len()), (Some(member.path), 400_000));
        ControlFlow::Continue(())
    });
    let report = report.unwrap();
    assert_eq!(
        (report.members, report.decrypted, report.passwords),
        (3, 3, ["one", "two", "three"].map(str::to_owned).to_vec())
    );
}

#[test]
fn a_walk_stops_when_it_is_told_to() {
    let tree: Tree = (0..10).map(|at| (at.to_string(), vec![at; 100_000])).collect();
    let bytes = gz_of(&tar_of(&tree, ""));
    let limits = Limits::default();
    let mut seen = 0;
    let report = walk(&bytes, &options(&limits), &mut |_| {
        seen += 1;
        if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(seen == 3 && report.unwrap().stopped);

    let asked = std::cell::Cell::new(0);
    let go_on = || {
        asked.set(asked.get() + 1);
        asked.get() < 8
    };
    let report = walk(&bytes, &Options { go_on: &go_on, ..options(&limits) }, &mut |_| ControlFlow::Continue(()));
    assert!(report.is_some_and(|report| report.stopped && report.members < 10));
    assert_eq!(asked.get(), 8);
}

#[test]
fn notes_name_the_trouble() {
    let mut report = Report::new(Kind::Zip);
    assert!(!report.is_troubled() && report.notes(10).is_empty());
    for at in 0..25 {
        report.note_too_large(format!("f{at}"), 11);
    }
    report.encrypted = 1;
    report.note_unsupported(93);
    report.note_unsupported(14);
    report.note_fault("a: checksum differs".to_owned());
    report.note_fault("b: checksum differs".to_owned());
    report.note_limit(LimitName::Ratio, 200, 999);
    report.note_limit(LimitName::Members, 1, 2);
    let notes = report.notes(10);
    assert!(report.is_troubled());
    assert_eq!(notes[0], "archive limit: max_ratio = 200 reached: 999");
    assert_eq!(notes[1], "1 encrypted member: no password opens them");
    assert_eq!(notes[2], "archive corrupt: a: checksum differs, b: checksum differs");
    assert_eq!(notes[3], "2 members with unknown compression method 14, 93");
    assert!(
        notes[4].starts_with("20 of 25 members above 10 bytes: f0 (11), f1 (11)") && notes[4].ends_with("f19 (11)")
    );
}

/// Written by Info-ZIP 3.0: `zip -X -P infected`.
#[test]
fn zipcrypto_of_another_writer_is_opened() {
    let hex = [
        "504b03040a00090000002385775d20303a361200000006000000010000006821479b75b177e231ae80f1a63697c0be34b050",
        "4b070820303a361200000006000000504b01021e030a00090000002385775d20303a36120000000600000001000000000000",
        "0001000000a4810000000068504b050600000000010001002f000000410000000000",
    ]
    .concat();
    let digits = hex.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
    let bytes: Vec<u8> = digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect();
    let (limits, passwords) = (Limits::default(), ["password", "infected"].map(str::to_owned));
    let options = Options { passwords: &passwords, ..options(&limits) };
    let report = walk(&bytes, &options, &mut |member| {
        assert_eq!((member.path, member.bytes, member.encrypted_with), ("h", &b"hello\n"[..], Some("infected")));
        ControlFlow::Continue(())
    });
    assert!(report.is_some_and(|report| report.members == 1 && !report.is_troubled()));
}
