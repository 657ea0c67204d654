//! Blobs: request examples R1 to R16, R19 and R20, the Range table, error bodies and upload metadata.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::random::Random;
use crate::support::{Body, Client, Config, Server};

const HERE: &str = "/api/v3/stream/testing/content";
const NO_ERROR: &str = "no error provided";
const T1: &[u8] = b"azulite sample line one\n";
const T1_SHA256: &str = "7fb5af0ab20332773c5553f3f940141bd933e205e8c192505fad4ab9e59f8dcb";
const T2_SHA256: &str = "0879f29f6e872a6cf6a868f3f724902e80fce030898ba56af0e5714aaab6a138";
/// A hash nobody uploaded.
const UNKNOWN: &str = "00000000000000000000000000000000000000000000000000000000000000ff";
const NOT_FOUND: &str =
    r#"{"status":"404","title":"not found","detail":"not found","error_enum":"ErrorStringEnumUnset"}"#;

fn upload(client: &mut Client, target: &str, body: &[u8]) -> Value {
    let answer = client.post(target, body).expect_status(200);
    assert!(answer.header("content-type").unwrap_or_default().starts_with("application/json"), "{answer:?}");
    let body = answer.json();
    assert_eq!(body.as_object().expect("an object").keys().collect::<Vec<_>>(), ["data"], "{body}");
    body["data"].clone()
}

fn t1_server() -> Server {
    let server = Server::start();
    upload(&mut server.client(), HERE, T1);
    server
}

fn t1_path() -> String {
    format!("{HERE}/{T1_SHA256}")
}

#[test]
fn t1_upload_metadata_is_complete_and_has_no_key_more() {
    let server = Server::start();
    let expected = json!({"identify_version": 2, "label": "content", "size": 24,
        "sha512": "f20043d00bc85b9ae7d2007692575fca6e85c1bbe01daa03e2eddf43f0cdce18d636ab82b620bb4a60dd7b5cb129a3b3606b2504aba05356c1726eed8f122f41",
        "sha256": T1_SHA256, "sha1": "f9eda2d51d1d931673c590ad1e50131ca37b5e3c",
        "md5": "fda3f9e82ff20fa60fc98f20759ba409", "mime": "text/plain", "magic": "ASCII text",
        "file_format": "text/plain", "file_extension": "txt"});
    let mut client = server.client();
    assert_eq!(upload(&mut client, HERE, T1), expected);
    assert_eq!(upload(&mut client, HERE, T1), expected, "an upload of known bytes answers in full");
    let label = upload(&mut client, "/api/v3/stream/testing/pcap", T1);
    assert_eq!(label, expected, "the label is always content");
    let named = upload(&mut client, &format!("{HERE}?expected-sha256={T1_SHA256}&skip-identify=false"), T1);
    assert_eq!(named, expected);
    let chunked = client.request("POST", HERE, &[], Body::Chunked(&[&T1[..5], &T1[5..6], &T1[6..]]));
    assert_eq!(chunked.expect_status(200).json()["data"], expected);
}

#[test]
fn the_digests_of_larger_and_odder_bytes_follow_the_examples() {
    let server = Server::start();
    let mut client = server.client();
    let mut x: u64 = 1;
    let t6: Vec<u8> = (0..4096)
        .map(|_| {
            x = (x * 1_103_515_245 + 12345) % (1 << 31);
            u8::try_from((x >> 16) % 256).unwrap()
        })
        .collect();
    let zeros = vec![0; 4096];
    let t2 = T1.repeat(1000);
    let cases: [(&[u8], Value); 5] = [
        (
            &t2,
            json!({"size": 24000, "sha256": T2_SHA256, "ssdeep": "96:IDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDC:n",
            "tlsh": "T1b9b200288000c0b02c8a00a3baaa3a00c830c022a88e22008e228a8280800a02820200", "mime": "text/plain"}),
        ),
        (
            &zeros,
            json!({"size": 4096, "ssdeep": "3::", "tlsh": null, "mime": "application/octet-stream",
            "magic": "data", "file_format": "unknown", "file_extension": null}),
        ),
        (
            &t6,
            json!({"sha256": "79fe80c81f701a2e9af6bba659ff99e143d581a3ebf177474ed2ee8c0fa14ccc",
            "ssdeep": "96:60D/ucey7/cIHEAe/gmb4TZuCeXaXQ7diFzFvG6pcEob:xD/uceMkIkJ/jb4ACeXCQ7diBlG6apb",
            "tlsh": "T1d0815cfa132df6a19448f05091f94bac3b28daf29ac93d2e5410496059a4383c2fe559",
            "magic": "OpenPGP Public Key"}),
        ),
        (
            &t6[..4095],
            json!({"sha256": "0430c0fe125d86ba9c6cf642e96550832f47cf6d6c440fdac60b624ea12918c2",
            "ssdeep": null, "tlsh": "T1af815cfa132df6a19448f05091f94bac3b28daf29ac93d2e5410496059a4383c2fe559"}),
        ),
        (
            b"A",
            json!({"size": 1, "sha256": "559aead08264d5795d3909718cdd05abd49572e84fe55590eef31a88a08fdffd",
            "magic": "very short file (no magic)", "file_format": "unknown", "ssdeep": null, "tlsh": null}),
        ),
    ];
    for (body, wanted) in cases {
        let data = upload(&mut client, HERE, body);
        for (key, value) in wanted.as_object().unwrap() {
            assert_eq!(data.get(key).unwrap_or(&Value::Null), value, "{key} in {data}");
        }
    }
}

#[test]
fn r1_an_empty_body_is_refused() {
    let server = Server::start();
    server.client().post(HERE, b"").expect_error(400, "no content in request body", NO_ERROR);
    let chunked = server.client().request("POST", HERE, &[], Body::Chunked(&[]));
    chunked.expect_error(400, "no content in request body", NO_ERROR);
}

#[test]
fn r2_a_wrong_hash_is_refused_and_nothing_is_stored() {
    let server = Server::start();
    let zeros = "0".repeat(64);
    let answer = server.client().post(&format!("{HERE}?expected-sha256={zeros}"), T1);
    let detail = format!("sha256 mismatch - supplied: {zeros} vs calc: {T1_SHA256}");
    answer.expect_error(400, "sha256 mismatch", &detail);
    server.client().head(&t1_path()).expect_status(404);
    let upper = T1_SHA256.to_uppercase();
    let answer = server.client().post(&format!("{HERE}?expected-sha256={upper}"), T1);
    answer.expect_error(400, "sha256 mismatch", &format!("sha256 mismatch - supplied: {upper} vs calc: {T1_SHA256}"));
}

#[test]
fn r3_r4_bad_identify_parameters_are_refused_before_the_body_is_read() {
    let server = Server::start();
    let title = "must supply sha256 when skipping identify";
    server.client().post(&format!("{HERE}?skip-identify=true"), T1).expect_error(400, title, NO_ERROR);
    server
        .client()
        .post(&format!("{HERE}?skip-identify=true&expected-sha256="), b"")
        .expect_error(400, title, NO_ERROR);
    for bad in ["yes", "on", "2", "TrUe"] {
        let answer = server.client().post(&format!("{HERE}?skip-identify={bad}"), T1);
        answer.expect_error_titled(400, "bad param skip identify");
    }
    server.client().head(&t1_path()).expect_status(404);
    upload(&mut server.client(), &format!("{HERE}?skip-identify="), T1);
}

#[test]
fn r5_skipping_identification_fills_only_size_and_sha256() {
    let server = Server::start();
    for yes in ["true", "1", "t", "T", "TRUE", "True"] {
        let data = upload(&mut server.client(), &format!("{HERE}?skip-identify={yes}&expected-sha256={T1_SHA256}"), T1);
        let expected = json!({"label": "content", "size": 24, "sha512": "", "sha256": T1_SHA256, "sha1": "",
            "md5": "", "mime": "", "magic": ""});
        assert_eq!(data, expected);
    }
    assert_eq!(server.client().get(&t1_path()).expect_status(200).body, T1);
}

#[test]
fn a_download_has_exactly_the_headers_of_the_contract() {
    let server = t1_server();
    let answer = server.client().get(&t1_path()).expect_status(200);
    assert_eq!(answer.body, T1);
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert_eq!(answer.header("content-length"), Some("24"));
    assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    for absent in ["content-range", "etag", "last-modified", "content-disposition"] {
        assert_eq!(answer.header(absent), None, "{absent}");
    }
    let conditional = [("If-None-Match", "*"), ("If-Modified-Since", "Mon, 01 Jan 2035 00:00:00 GMT")];
    server.client().request("GET", &t1_path(), &conditional, Body::None).expect_status(200);
    let upper = format!("{HERE}/{}", T1_SHA256.to_uppercase());
    assert_eq!(server.client().get(&upper).expect_status(200).body, T1, "the hash is lower-cased");
}

/// What a Range header is answered with.
enum Answer {
    Part(usize, usize),
    Whole,
    NotUnderstood(&'static str),
    PastTheEnd,
}

#[test]
fn r6_to_r9_the_range_table() {
    use Answer::{NotUnderstood, Part, PastTheEnd, Whole};
    let server = t1_server();
    let mut client = server.client();
    let cases = [
        ("bytes=0-6", Part(0, 6)),
        ("bytes=0-0", Part(0, 0)),
        ("bytes=23-23", Part(23, 23)),
        ("bytes=5-", Part(5, 23)),
        ("bytes=0-", Part(0, 23)),
        ("bytes=-4", Part(20, 23)),
        ("bytes=-24", Part(0, 23)),
        ("bytes=-50", Part(0, 23)),
        ("bytes=20-99", Part(20, 23)),
        ("bytes=20-9223372036854775807", Part(20, 23)),
        ("bytes= 0 - 6 ", Part(0, 6)),
        ("", Whole),
        ("bytes=24-", PastTheEnd),
        ("bytes=24-30", PastTheEnd),
        ("bytes=99-", PastTheEnd),
        ("bytes=0-1,3-4", NotUnderstood("invalid range (multiple not supported)")),
        ("Bytes=0-1", NotUnderstood("invalid range (no bytes= prefix)")),
        ("bits=0-1", NotUnderstood("invalid range (no bytes= prefix)")),
        ("0-1", NotUnderstood("invalid range (no bytes= prefix)")),
        ("bytes=1-2-3", NotUnderstood("invalid range (relative with range not supported)")),
        ("bytes=--5", NotUnderstood("invalid range (relative with range not supported)")),
        ("bytes=", NotUnderstood("invalid range (no range)")),
        ("bytes=-", NotUnderstood("invalid range (no range)")),
        ("bytes=7", NotUnderstood("invalid range (no range)")),
        ("bytes=a-5", NotUnderstood("invalid range (non numeric)")),
        ("bytes=1-b", NotUnderstood("invalid range (invalid end)")),
        ("bytes=5-2", NotUnderstood("invalid range (invalid end)")),
    ];
    for (header, wanted) in cases {
        let answer = client.request("GET", &t1_path(), &[("Range", header)], Body::None);
        match wanted {
            Part(first, last) => {
                let answer = answer.expect_status(206);
                assert_eq!(answer.body, &T1[first..=last], "{header}");
                assert_eq!(
                    answer.header("content-range"),
                    Some(format!("bytes {first}-{last}/24").as_str()),
                    "{header}"
                );
                assert_eq!(answer.header("content-type"), Some("application/octet-stream"), "{header}");
                assert_eq!(answer.header("content-length"), Some((last - first + 1).to_string().as_str()), "{header}");
            }
            Whole => assert_eq!(answer.expect_status(200).body, T1, "{header}"),
            NotUnderstood(detail) => drop(answer.expect_error(400, "invalid range provided", detail)),
            PastTheEnd => drop(answer.expect_error(400, "invalid range end", "offset after EOF: 24")),
        }
    }
    for nothing in ["bytes=-0", "bytes=99999999999999999999999-", "bytes=-x"] {
        client.request("GET", &t1_path(), &[("Range", nothing)], Body::None).expect_any_error(400);
    }
}

#[test]
fn ranges_of_a_blob_larger_than_the_inline_threshold() {
    let server = Server::start();
    let mut client = server.client();
    let bytes = Random::new(7).bytes(300_000);
    let data = upload(&mut client, HERE, &bytes);
    let path = format!("{HERE}/{}", data["sha256"].as_str().unwrap());
    assert_eq!(client.get(&path).expect_status(200).body, bytes);
    for (header, part) in [
        ("bytes=0-16", &bytes[0..=16]),
        ("bytes=65535-65536", &bytes[65535..=65536]),
        ("bytes=65537-250000", &bytes[65537..=250_000]),
        ("bytes=-17", &bytes[bytes.len() - 17..]),
        ("bytes=299999-", &bytes[299_999..]),
    ] {
        let answer = client.request("GET", &path, &[("Range", header)], Body::None).expect_status(206);
        assert_eq!(answer.body, part, "{header}");
    }
}

#[test]
fn a_bad_range_is_told_even_when_the_blob_is_missing() {
    let server = Server::start();
    let path = format!("{HERE}/{UNKNOWN}");
    let answer = server.client().request("GET", &path, &[("Range", "bytes=5-2")], Body::None);
    answer.expect_error(400, "invalid range provided", "invalid range (invalid end)");
    let answer = server.client().request("GET", &path, &[("Range", "bytes=0-2")], Body::None).expect_status(404);
    assert_eq!(answer.text(), NOT_FOUND);
}

#[test]
fn r10_an_unknown_hash_has_the_error_body_of_the_contract_byte_for_byte() {
    let server = t1_server();
    let answer = server.client().get(&format!("{HERE}/{UNKNOWN}")).expect_error(404, "not found", "not found");
    assert_eq!(answer.text(), NOT_FOUND);
    for elsewhere in ["/api/v3/stream/other/content/", "/api/v3/stream/testing/pcap/"] {
        let answer = server.client().get(&format!("{elsewhere}{T1_SHA256}")).expect_status(404);
        assert_eq!(answer.text(), NOT_FOUND, "a blob is found under its own source and label only");
    }
    let answer = server.client().head(&format!("{HERE}/{UNKNOWN}")).expect_status(404);
    assert_eq!(answer.header("content-length").unwrap_or("0"), "0", "no body for HEAD");
    server.client().head(&t1_path()).expect_status(200);
}

#[test]
fn a_connection_is_used_again_after_errors_and_heads() {
    let server = t1_server();
    let mut client = server.client();
    for _ in 0..3 {
        client.head(&t1_path()).expect_status(200);
        client.get(&format!("{HERE}/{UNKNOWN}")).expect_status(404);
        client.head(&format!("{HERE}/{UNKNOWN}")).expect_status(404);
        assert_eq!(client.get(&t1_path()).expect_status(200).body, T1);
    }
}

#[test]
fn r11_r12_copying_between_sources() {
    let server = t1_server();
    let mut client = server.client();
    let answer = client.patch(&format!("/api/v3/stream/testing/other/content/{T1_SHA256}")).expect_status(200);
    assert!(answer.body.is_empty(), "{answer:?}");
    assert_eq!(client.get(&format!("/api/v3/stream/other/content/{T1_SHA256}")).expect_status(200).body, T1);
    assert_eq!(client.get(&t1_path()).expect_status(200).body, T1);
    client.patch(&format!("/api/v3/stream/testing/other/content/{T1_SHA256}")).expect_status(200);
    let missing = client.patch(&format!("/api/v3/stream/testing/other/content/{UNKNOWN}")).expect_status(404);
    assert_eq!(missing.text(), NOT_FOUND);
    let label = client.patch(&format!("/api/v3/stream/testing/other/pcap/{T1_SHA256}")).expect_status(404);
    assert_eq!(label.text(), NOT_FOUND);
}

fn with_delete() -> Server {
    let server = Server::with(&Config::examples().set("streams", "api_allow_delete", "true"));
    upload(&mut server.client(), HERE, T1);
    server
}

#[test]
fn r13_r14_deleting_by_age() {
    let server = with_delete();
    let mut client = server.client();
    let young = client.delete(&format!("{}?ifOlderThan=946684800", t1_path())).expect_status(200);
    assert_eq!(young.json(), json!({"deleted": false}));
    client.head(&t1_path()).expect_status(200);
    let gone = client.delete(&format!("{}?ifOlderThan=4102444800", t1_path())).expect_status(200);
    assert_eq!(gone.json(), json!({"deleted": true}));
    client.head(&t1_path()).expect_status(404);
    let twice = client.delete(&format!("{}?ifOlderThan=4102444800", t1_path())).expect_status(404);
    assert_eq!(twice.text(), NOT_FOUND);
    upload(&mut client, HERE, T1);
    assert_eq!(client.get(&t1_path()).expect_status(200).body, T1, "it can come again");
}

#[test]
fn deleting_without_a_limit_and_with_a_bad_one() {
    let server = with_delete();
    let mut client = server.client();
    client.delete(&format!("{}?ifOlderThan=soon", t1_path())).expect_error_titled(400, "ifOlderThan error");
    client.head(&t1_path()).expect_status(200);
    for unconditional in ["", "?ifOlderThan=0", "?ifOlderThan=-5", "?ifOlderThan="] {
        let answer = client.delete(&format!("{}{unconditional}", t1_path())).expect_status(200);
        assert_eq!(answer.json(), json!({"deleted": true}), "{unconditional}");
        upload(&mut client, HERE, T1);
    }
    client.delete(&format!("{HERE}/{UNKNOWN}")).expect_status(404);
}

#[test]
fn deleting_from_one_source_leaves_the_other() {
    let server = with_delete();
    let mut client = server.client();
    client.patch(&format!("/api/v3/stream/testing/other/content/{T1_SHA256}")).expect_status(200);
    client.delete(&t1_path()).expect_status(200);
    client.head(&t1_path()).expect_status(404);
    assert_eq!(client.get(&format!("/api/v3/stream/other/content/{T1_SHA256}")).expect_status(200).body, T1);
}

#[test]
fn r15_deletion_is_off_by_default_as_if_the_route_were_not_there() {
    let server = t1_server();
    server.client().delete(&t1_path()).expect_no_such_page();
    server.client().head(&t1_path()).expect_status(200);
}

#[test]
fn r16_simultaneous_uploads_of_the_same_bytes_never_show_a_part() {
    let server = Server::start();
    let t2 = T1.repeat(1000);
    let path = format!("{HERE}/{T2_SHA256}");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut client = server.client();
            while !done.load(Ordering::Relaxed) {
                let answer = client.get(&path);
                if answer.status == 200 {
                    assert_eq!(answer.body, t2, "whole or not at all");
                } else {
                    answer.expect_error(404, "not found", "not found");
                }
            }
        });
        let post = || upload(&mut server.client(), HERE, &t2);
        let first = scope.spawn(post);
        let second = scope.spawn(post);
        let both = (first.join().unwrap(), second.join().unwrap());
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        assert_eq!(both.0, both.1);
    });
    assert_eq!(server.client().get(&path).expect_status(200).body, t2);
}

#[test]
fn r19_names_that_leave_the_store_are_refused() {
    let server = t1_server();
    let secret = server.folder().join("secret");
    std::fs::write(&secret, "untouched").unwrap();
    let bad_names = ["..", ".", "%2e%2e", "%2E%2e", "..%2f..", "%2e", "a%2fb", "a%00b", "a%20b", "a%5cb", "l%C3%A4b"];
    for bad in bad_names {
        for path in
            [format!("/api/v3/stream/{bad}/content/{T1_SHA256}"), format!("/api/v3/stream/testing/{bad}/{T1_SHA256}")]
        {
            for method in ["GET", "HEAD"] {
                server.client().request(method, &path, &[], Body::None).expect_status(400);
            }
            server.client().get(&path).expect_any_error(400);
        }
        server.client().post(&format!("/api/v3/stream/{bad}/content"), T1).expect_any_error(400);
        server.client().post(&format!("/api/v3/stream/testing/{bad}"), T1).expect_any_error(400);
        server.client().patch(&format!("/api/v3/stream/testing/{bad}/content/{T1_SHA256}")).expect_any_error(400);
    }
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "untouched");
    let names: Vec<_> = std::fs::read_dir(server.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "configuration, data, secret and nothing else: {names:?}");
}

#[test]
fn a_malformed_hash_is_a_404() {
    let server = with_delete();
    let short = &T1_SHA256[..63];
    let bad =
        [short.to_owned(), format!("{T1_SHA256}0"), format!("{short}g"), "a".into(), "..".into(), "%2e%2e%2fx".into()];
    for hash in bad {
        let path = format!("{HERE}/{hash}");
        assert_eq!(server.client().get(&path).expect_status(404).text(), NOT_FOUND, "{hash}");
        server.client().head(&path).expect_status(404);
        server.client().delete(&path).expect_status(404);
        server.client().patch(&format!("/api/v3/stream/testing/other/content/{hash}")).expect_status(404);
    }
}

#[test]
fn r20_an_event_log_file_is_named_and_does_not_stop_the_server() {
    let server = Server::start();
    let mut t34 = b"ElfFile\0".to_vec();
    t34.extend([0; 120]);
    let data = upload(&mut server.client(), HERE, &t34);
    assert_eq!(data["sha256"], "b39a3c594416045aec4892da158cbdb218df08c838c8f347d0f3962b9c484d09");
    assert_eq!(data["mime"], "application/x-ms-evtx");
    assert_eq!(data["magic"], "MS Windows 10-11 Event Log, version  0.0, 0 chunks (no. 0 in use)");
    assert_eq!(data["file_format"], "metadata/sysmon");
    assert!(data.get("file_extension").is_none(), "{data}");
    server.client().get("/healthz").expect_status(200);
}

#[test]
fn what_a_text_is_comes_from_its_content_and_is_counted() {
    let server = Server::start();
    let mut client = server.client();
    for (text, format, extension) in [
        ("pub struct A;\nimpl A {\n    fn f(&self) { println!(\"x\"); }\n}\n", "code/rust", "txt"),
        ("<a>\n<b>c</b>\n</a>\n", "code/xml", "xml"),
        ("azulite sample line one\n", "text/plain", "txt"),
    ] {
        let data = upload(&mut client, HERE, text.as_bytes());
        assert_eq!((&data["file_format"], &data["file_extension"]), (&json!(format), &json!(extension)));
    }
    let metrics = client.get("/metrics").expect_status(200).text();
    for line in [
        "azulite_identify_content_total{result=\"type\"} 2",
        "azulite_identify_content_total{result=\"nothing\"} 1",
        "azulite_identify_disputed_total 0",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}
