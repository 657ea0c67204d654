use std::io::Cursor;

use super::*;

/// Stored entries of one byte each, all from nothing.
fn archive(names: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut directory = Vec::new();
    for name in names {
        let offset = u32::try_from(bytes.len()).unwrap();
        let name_len = u16::try_from(name.len()).unwrap().to_le_bytes();
        bytes.extend(b"PK\x03\x04\x14\0\0\0\0\0\0\0\x21\x50\x83\x16\xdc\x8c\x01\0\0\0\x01\0\0\0");
        bytes.extend(name_len);
        bytes.extend([0, 0]);
        bytes.extend(name.bytes().chain(*b"x"));
        directory.extend(b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\x21\x50\x83\x16\xdc\x8c\x01\0\0\0\x01\0\0\0");
        directory.extend(name_len);
        directory.extend([0; 12]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name.bytes());
    }
    let count = u16::try_from(names.len()).unwrap().to_le_bytes();
    let start = u32::try_from(bytes.len()).unwrap();
    let len = u32::try_from(directory.len()).unwrap();
    bytes.extend(directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend([count, count].concat());
    bytes.extend(len.to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0, 0]);
    bytes
}

fn of(bytes: &[u8]) -> Option<Layout> {
    layout(&mut Cursor::new(bytes), bytes.len() as u64).unwrap()
}

fn named(names: &[&str]) -> &'static str {
    of(&archive(names)).unwrap().file_type()
}

#[test]
fn layouts_are_told_apart() {
    for (names, want) in [
        (&["a.txt"][..], "archive/zip"),
        (&[], "archive/zip"),
        (&["META-INF/MANIFEST.MF", "a.txt"], "java/jar"),
        (&["a.class", "b.jar", "c.txt"], "java/jar"),
        (&["a.class", "c.txt"], "archive/zip"),
        (&["AndroidManifest.xml", "classes.dex"], "archive/zip"),
        (&["AndroidManifest.xml", "classes.dex", "META-INF/x"], "android/apk"),
        (&["Payload/x.app/Info.plist", "META-INF/x"], "ios/ipa"),
        (&["[Content_Types].xml", "_rels/.rels", "word/document.xml"], "document/office/word"),
        (&["[Content_Types].xml", "docProps/app.xml", "xl/w.xml", "ppt/x"], "document/office/excel"),
        (&["[Content_Types].xml", "_rels/.rels", "ppt/x.xml"], "document/office/powerpoint"),
        (&["[Content_Types].xml", "_rels/.rels", "visio/x.xml"], "document/office/unknown"),
        (&["[Content_Types].xml", "word/document.xml"], "archive/zip"),
        (&["x.nuspec", "[Content_Types].xml", "_rels/.rels"], "document/office/unknown"),
        (
            &["x.nuspec", "package/services/metadata/core-properties/1.psmdcp", "[Content_Types].xml", "_rels/.rels"],
            "archive/zip",
        ),
    ] {
        assert_eq!(named(names), want, "{names:?}");
    }
}

#[test]
fn prepended_and_appended_bytes_do_not_hide_an_archive() {
    let zip = archive(&["META-INF/x"]);
    let mut before = vec![7; 70_000];
    before.extend(&zip);
    assert_eq!(of(&before).unwrap().file_type(), "java/jar");
    let mut commented = zip.clone();
    let len = commented.len();
    commented[len - 2..].copy_from_slice(&300_u16.to_le_bytes());
    commented.extend([b' '; 300]);
    assert_eq!(of(&commented).unwrap().file_type(), "java/jar");
    commented.pop();
    assert_eq!(of(&commented), None);
}

#[test]
fn a_wrong_count_makes_the_directory_unreadable() {
    let mut zip = archive(&["a", "b"]);
    let end = zip.len() - END_LEN;
    zip[end + 10] = 3;
    assert_eq!(of(&zip), None);
}

#[test]
fn wide_archives_are_read() {
    let narrow = archive(&["META-INF/x", "b"]);
    let end = narrow.len() - END_LEN;
    let (len, start) = (u32_at(&narrow[end..], 12).unwrap(), u32_at(&narrow[end..], 16).unwrap());
    let mut zip = narrow[..end].to_vec();
    zip.extend(b"PK\x06\x06");
    zip.extend([&44_u64.to_le_bytes()[..], &[45, 0, 45, 0], &[0; 8]].concat());
    for value in [2, 2, len, start] {
        zip.extend(value.to_le_bytes());
    }
    zip.extend(b"PK\x06\x07\0\0\0\0");
    zip.extend((end as u64).to_le_bytes());
    zip.extend([1, 0, 0, 0]);
    let mut last = narrow[end..].to_vec();
    last[16..20].fill(0xff);
    zip.extend(last);
    assert_eq!(of(&zip).unwrap().file_type(), "java/jar");
    zip[end + 48..end + 56].fill(0xff);
    assert_eq!(of(&zip), None);
}

#[test]
fn every_truncation_and_every_hostile_field_is_survived() {
    let zip = archive(&["META-INF/x", "word/document.xml", "c.class"]);
    for cut in 0..zip.len() {
        assert_eq!(of(&zip[..cut]), None, "{cut}");
    }
    for at in 0..zip.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut broken = zip.clone();
            broken[at] = value;
            of(&broken);
            let to = (at + 8).min(zip.len());
            broken[at..to].fill(value);
            of(&broken);
        }
    }
}

#[test]
fn more_than_65535_entries_are_counted_modulo() {
    let names = vec!["a.class"; 65_536];
    let mut zip = archive(&names[..65_535]);
    // One more entry, and a count of zero.
    let end = zip.len() - END_LEN;
    let start = u32_at(&zip[end..], 16).unwrap() as usize;
    let entry = zip[start..start + ENTRY_LEN + 7].to_vec();
    let mut last = zip.split_off(end);
    zip.extend(&entry);
    last[8..12].fill(0);
    let len = (zip.len() - start) as u32;
    last[12..16].copy_from_slice(&len.to_le_bytes());
    zip.extend(last);
    assert_eq!(of(&zip).unwrap().entries, 65_536);
    assert_eq!(of(&zip).unwrap().file_type(), "java/jar");
}
