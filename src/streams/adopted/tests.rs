use azulite_storage::upstream::xor;
use sha2::Digest as _;

use super::super::memory::{Failure, MemoryStore};
use super::*;

const PLAIN: &[u8] = b"attack at dawn!\n";

fn hash() -> Sha256 {
    Sha256(sha2::Sha256::digest(PLAIN).into())
}

fn put(root: &Path, place: &str, suffix: &str, bytes: &[u8]) -> std::path::PathBuf {
    let text = hash().to_string();
    let folder = root.join(place).join(&text[0..1]).join(&text[1..2]);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{text}{suffix}"));
    std::fs::write(&path, bytes).unwrap();
    path
}

fn masked() -> Vec<u8> {
    let mut bytes = PLAIN.to_vec();
    xor(&mut bytes, 0);
    bytes
}

fn store(root: &Path) -> (Arc<MemoryStore>, AdoptedBlobs) {
    let own = Arc::new(MemoryStore::default());
    let adopted = AdoptedDir::open(Arc::new(RealFs), root.to_owned(), None).unwrap();
    (own.clone(), AdoptedBlobs::new(own, adopted))
}

fn part(blobs: &AdoptedBlobs, place: &Place, from: u64, count: usize) -> Vec<u8> {
    let blob = blobs.open_at(place, &hash()).unwrap().unwrap();
    let mut bytes = vec![0; count];
    blob.read_exact_at(&mut bytes, from).unwrap();
    bytes
}

/// R18.
#[test]
fn a_masked_blob_is_seen_read_in_ranges_and_deleted_where_it_lies() {
    let dir = tempfile::tempdir().unwrap();
    let path = put(dir.path(), "lab/content", ".xor", &masked());
    let (_, blobs) = store(dir.path());
    let place = Place::new("lab", "content");
    assert_eq!(blobs.stat(&place, &hash()).unwrap().unwrap().size, 16);
    assert_eq!(blobs.stat(&Place::new("lab", "text"), &hash()).unwrap(), None);
    assert_eq!((part(&blobs, &place, 0, 16), part(&blobs, &place, 7, 5)), (PLAIN.to_vec(), PLAIN[7..12].to_vec()));
    assert_eq!(blobs.delete(&place, &hash(), Some(946_684_800)).unwrap(), Deleted::TooYoung);
    assert_eq!(blobs.delete(&place, &hash(), None).unwrap(), Deleted::Yes);
    assert!(!path.exists());
    assert_eq!(blobs.delete(&place, &hash(), None).unwrap(), Deleted::NotFound);
    assert_eq!(blobs.stat(&place, &hash()).unwrap(), None);
}

/// R17, as far as the store goes: the fall-back to the empty place is the service's.
#[test]
fn a_blob_without_source_and_label_is_at_the_empty_place() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "", "", PLAIN);
    let (_, blobs) = store(dir.path());
    let found = super::super::copy::find(&blobs, &Place::new("any", "thing"), &hash()).unwrap();
    assert_eq!(found.map(|(place, stat)| (place, stat.size)), Some((Place::default(), 16)));
    assert_eq!(part(&blobs, &Place::default(), 0, 16), PLAIN);
}

#[test]
fn a_copy_is_ours_and_outlives_what_it_was_made_of() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "lab/content", ".xor", &masked());
    let (own, blobs) = store(dir.path());
    let (from, to) = (Place::new("lab", "content"), Place::new("other", "content"));
    assert!(!blobs.copy(&to, &from, &hash()).unwrap());
    assert!(blobs.copy(&from, &to, &hash()).unwrap());
    assert_eq!(blobs.delete(&from, &hash(), None).unwrap(), Deleted::Yes);
    assert_eq!((own.blobs(), part(&blobs, &to, 0, 16)), (1, PLAIN.to_vec()));
}

#[test]
fn what_has_other_bytes_is_not_copied_and_a_deletion_takes_ours_along() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "lab/content", "", b"something else.\n");
    let (own, blobs) = store(dir.path());
    let (from, to) = (Place::new("lab", "content"), Place::new("other", "content"));
    let got = blobs.copy(&from, &to, &hash());
    assert!(matches!(got, Err(StoreError::Damaged(_))), "got {got:?}");
    assert_eq!(own.blobs(), 0);
    own.put(from.clone(), PLAIN);
    assert_eq!(part(&blobs, &from, 0, 16), PLAIN, "ours counts before theirs");
    assert_eq!(blobs.delete(&from, &hash(), None).unwrap(), Deleted::Yes);
    assert_eq!((own.blobs(), blobs.stat(&from, &hash()).unwrap()), (0, None));
}

#[test]
fn a_missing_folder_and_a_key_of_another_length_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let open = |folder: &Path, key: Option<&Path>| {
        AdoptedBlobs::open(Arc::new(MemoryStore::default()), folder, key).map(drop).map_err(|e| e.to_string())
    };
    let missing = dir.path().join("missing");
    assert!(open(&missing, None).unwrap_err().starts_with("streams.adopt_dir: "));
    assert!(open(dir.path(), Some(&missing)).unwrap_err().starts_with("streams.adopt_key_file: "));
    for (text, wanted) in
        [("abcdefghijklmnopqrstuvwx", None), ("abcdefghijklmnopqrstuvwx\n", None), ("short", Some("5"))]
    {
        std::fs::write(&key, text).unwrap();
        let got = open(dir.path(), Some(&key));
        match wanted {
            Some(found) => assert!(got.unwrap_err().contains(&format!("holds {found} bytes")), "{text:?}"),
            None => assert_eq!(got, Ok(()), "{text:?}"),
        }
    }
}

/// What the key `abcdefghijklmnopqrstuvwx` makes of it.
fn encrypted() -> Vec<u8> {
    let header = (0..8).chain(0x10..0x20);
    let text = [0xfd, 0xa2, 0xc0, 0x66, 0x0c, 0xce, 0xf9, 0xfe, 0xbf, 0xe6, 0xf3, 0xf3, 0x42, 0xc2, 0x29, 0xd8];
    header.chain(text).collect()
}

fn with_key(root: &Path, key: &[u8; AES_KEY_LEN]) -> AdoptedBlobs {
    let adopted = AdoptedDir::open(Arc::new(RealFs), root.to_owned(), Some(AdoptedKey(*key))).unwrap();
    AdoptedBlobs::new(Arc::new(MemoryStore::default()), adopted)
}

fn error_of<T>(got: Result<T, StoreError>) -> String {
    got.map(drop).unwrap_err().to_string()
}

#[test]
fn a_file_that_was_cut_short_or_changed_is_damage_and_is_named() {
    let place = Place::new("lab", "content");
    let mut flipped = masked();
    flipped[3] ^= 1;
    for (suffix, stored) in [("", &PLAIN[..9]), (".xor", &masked()[..15]), (".xor", &flipped)] {
        let dir = tempfile::tempdir().unwrap();
        let path = put(dir.path(), "lab/content", suffix, stored);
        let (_, blobs) = store(dir.path());
        let error = error_of(blobs.open_at(&place, &hash()));
        assert!(error.starts_with("damaged blob: ") && error.contains(path.to_str().unwrap()), "{error}");
        assert!(blobs.copy(&place, &Place::new("other", "content"), &hash()).is_err());
    }
}

#[test]
fn what_was_good_is_looked_at_again_once_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = put(dir.path(), "lab/content", "", PLAIN);
    let (_, blobs) = store(dir.path());
    let place = Place::new("lab", "content");
    assert_eq!(part(&blobs, &place, 0, 16), PLAIN);
    assert_eq!(part(&blobs, &place, 7, 5), PLAIN[7..12]);
    std::fs::write(&path, &PLAIN[1..]).unwrap();
    assert!(error_of(blobs.open_at(&place, &hash())).starts_with("damaged blob: "));
}

#[test]
fn a_wrong_key_is_told_and_a_missing_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "lab/content", ".aesc1", &encrypted());
    let place = Place::new("lab", "content");
    let right = with_key(dir.path(), b"abcdefghijklmnopqrstuvwx");
    assert_eq!(part(&right, &place, 0, 16), PLAIN);
    let wrong = with_key(dir.path(), b"abcdefghijklmnopqrstuvwy");
    let error = error_of(wrong.open_at(&place, &hash()));
    assert!(error.starts_with("damaged blob: ") && error.contains("streams.adopt_key_file"), "{error}");

    let (own, none) = store(dir.path());
    for error in [error_of(none.stat(&place, &hash())), error_of(none.open_at(&place, &hash()))] {
        assert!(error.contains("streams.adopt_key_file"), "{error}");
    }
    own.put(Place::default(), PLAIN);
    let found = super::super::copy::find(&none, &place, &hash()).unwrap();
    assert_eq!(found.map(|(place, _)| place), Some(Place::default()), "ours is found behind it");
    assert_eq!(none.delete(&place, &hash(), None).unwrap(), Deleted::Yes, "a deletion needs no key");
    assert_eq!(none.stat(&place, &hash()).unwrap(), None);
}

#[test]
fn trouble_in_the_adopted_folder_is_none_for_what_is_ours() {
    let dir = tempfile::tempdir().unwrap();
    let (own, blobs) = store(dir.path());
    // Longer than the name of any folder may be.
    let place = Place::new("x".repeat(300), "content");
    for call in [blobs.stat(&place, &hash()).map(drop), blobs.delete(&place, &hash(), None).map(drop)] {
        assert!(matches!(call, Err(StoreError::Io(_))), "nothing is ours: {call:?}");
    }
    own.put(Place::default(), PLAIN);
    assert_eq!(blobs.stat(&place, &hash()).unwrap(), None, "the empty place is next");
    assert_eq!(blobs.delete(&place, &hash(), None).unwrap(), Deleted::NotFound);
    own.put(place.clone(), PLAIN);
    assert_eq!(blobs.stat(&place, &hash()).unwrap().unwrap().size, 16);
    assert_eq!(part(&blobs, &place, 0, 16), PLAIN);
    assert_eq!(blobs.delete(&place, &hash(), None).unwrap(), Deleted::Yes);
    assert_eq!(own.places(), ["/"]);
}

#[test]
fn what_is_damaged_of_ours_is_read_from_the_adopted_store_when_it_is_good_there() {
    let dir = tempfile::tempdir().unwrap();
    let (own, blobs) = store(dir.path());
    let place = Place::new("lab", "content");
    own.put(place.clone(), PLAIN);
    let open = blobs.open_at(&place, &hash()).unwrap().unwrap();
    for call in ["open", "read"] {
        own.fail(call, Failure::Io);
    }
    let (mut bytes, told) = ([0; 5], "told to fail");
    assert_eq!(error_of(blobs.open_at(&place, &hash())), told, "there is no other");
    assert_eq!(error_of(open.read_exact_at(&mut bytes, 7)), told);
    let path = put(dir.path(), "lab/content", "", b"something else.\n");
    assert_eq!(error_of(blobs.open_at(&place, &hash())), told, "the other is no better");
    std::fs::remove_file(path).unwrap();
    put(dir.path(), "", ".xor", &masked());
    assert_eq!(part(&blobs, &place, 0, 16), PLAIN);
    open.read_exact_at(&mut bytes, 7).unwrap();
    assert_eq!(bytes, PLAIN[7..12]);
}
