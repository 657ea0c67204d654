//! An existing local store of the upstream service (`streams.adopt_dir`): R17 and R18 of the contract.

use std::fs;
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::support::http::Body;
use crate::support::{Config, Server};

const TEXT: &[u8] = b"attack at dawn!\n";
/// What upstream's mask makes of it (contract streams.md 5.3).
const MASKED: &str = "08181b17060a5a1418115652435b173d";
/// Ciphertext of the contract's vector (5.4), with its salt and counter in front.
const ENCRYPTED: &str = "0001020304050607101112131415161718191a1b1c1d1e1ffda2c0660ccef9febfe6f3f342c229d8";
const KEY: &str = "abcdefghijklmnopqrstuvwx";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn hash() -> String {
    Sha256::digest(TEXT).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Puts a file where upstream keeps the blob in this folder.
fn put(folder: &Path, suffix: &str, content: &[u8]) -> std::path::PathBuf {
    let hash = hash();
    let folder = folder.join(&hash[0..1]).join(&hash[1..2]);
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(hash + suffix);
    fs::write(&path, content).unwrap();
    path
}

fn text(path: &Path) -> String {
    format!("{:?}", path.to_str().unwrap())
}

fn over(old: &Path) -> Server {
    let key = old.with_extension("key");
    fs::write(&key, KEY).unwrap();
    let config = Config::examples().set("streams", "api_allow_delete", "true");
    Server::with(&config.set("streams", "adopt_dir", &text(old)).set("streams", "adopt_key_file", &text(&key)))
}

#[test]
fn without_the_key_an_encrypted_blob_is_an_error_that_names_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("store");
    put(&old.join("testing").join("content"), ".aesc1", &bytes(ENCRYPTED));
    let mut server = Server::with(&Config::examples().set("streams", "adopt_dir", &text(&old)));
    server.announce("streams.adopt_key_file names no key");
    let mut client = server.client();
    let path = format!("/api/v3/stream/testing/content/{}", hash());
    client.head(&path).expect_status(500);
    let told = String::from_utf8(client.get(&path).expect_status(500).body).unwrap();
    assert!(told.contains("streams.adopt_key_file"), "{told}");
}

#[test]
fn r17_a_blob_without_source_and_label_is_found_under_any() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("store");
    put(&old, "", TEXT);
    let server = over(&old);
    let mut client = server.client();
    for place in ["testing/content", "elsewhere/report"] {
        assert_eq!(client.get(&format!("/api/v3/stream/{place}/{}", hash())).expect_status(200).body, TEXT);
        client.head(&format!("/api/v3/stream/{place}/{}", hash())).expect_status(200);
    }
}

#[test]
fn r18_masked_and_encrypted_blobs_are_read_in_parts_and_deleted() {
    for (suffix, stored) in [(".xor", MASKED), (".aesc1", ENCRYPTED)] {
        let folder = tempfile::tempdir().unwrap();
        let old = folder.path().join("store");
        let file = put(&old.join("testing").join("content"), suffix, &bytes(stored));
        let server = over(&old);
        let mut client = server.client();
        let path = format!("/api/v3/stream/testing/content/{}", hash());
        client.head(&path).expect_status(200);
        assert_eq!(client.get(&path).expect_status(200).body, TEXT, "{suffix}");
        let part = client.request("GET", &path, &[("Range", "bytes=7-8")], Body::None).expect_status(206);
        assert_eq!(
            (part.body.as_slice(), part.header("content-range")),
            (&b"at"[..], Some("bytes 7-8/16")),
            "{suffix}"
        );
        client.get(&format!("/api/v3/stream/elsewhere/content/{}", hash())).expect_status(404);

        let young = client.delete(&format!("{path}?ifOlderThan=946684800")).expect_status(200);
        assert_eq!(young.json(), json!({"deleted": false}), "{suffix}");
        let gone = client.delete(&path).expect_status(200);
        assert_eq!(gone.json(), json!({"deleted": true}), "{suffix}");
        assert!(!file.exists(), "{suffix}");
        client.get(&path).expect_status(404);
    }
}
