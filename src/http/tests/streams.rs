//! The stream routes: streams.md 1 to 3 and the request examples of 13.1.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{Answer, Running, options, until};
use crate::http::RouteLimits;
use crate::streams::Place;
use crate::streams::memory::Failure;

const T1: &[u8] = b"azulite sample line one\n";
const T1_HASH: &str = "7fb5af0ab20332773c5553f3f940141bd933e205e8c192505fad4ab9e59f8dcb";
const UP: &str = "POST /api/v3/stream/testing/content";
const NOT_FOUND: &str =
    r#"{"status":"404","title":"not found","detail":"not found","error_enum":"ErrorStringEnumUnset"}"#;

fn at(method: &str, source: &str, hash: &str) -> String {
    format!("{method} /api/v3/stream/{source}/content/{hash}")
}

async fn head(server: &Running, source: &str, hash: &str) -> u16 {
    let answer = server.request(&at("HEAD", source, hash), &[], b"").await;
    assert_eq!(answer.body, b"");
    answer.status
}

async fn refused(server: &Running, target: &str, body: &[u8]) -> (u16, String) {
    let (status, title, _) = server.request(target, &[], body).await.error();
    (status, title)
}

fn titled(status: u16, title: &str) -> (u16, String) {
    (status, title.to_owned())
}

#[tokio::test]
async fn an_upload_is_answered_with_its_metadata_and_can_be_read_back() {
    let server = Running::start().await;
    let answer = server.request("POST /api/v3/stream/testing/pcap", &[], T1).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let digits = |digit: &str, n| digit.repeat(n);
    assert_eq!(
        answer.text(),
        format!(
            r#"{{"data":{{"identify_version":2,"label":"content","size":24,"sha512":"{}","sha256":"{T1_HASH}","sha1":"{}","md5":"{}","tlsh":"T1","mime":"text/plain","magic":"ASCII text","file_format":"text/plain","file_extension":"txt"}}}}"#,
            digits("5", 128),
            digits("1", 40),
            digits("d", 32)
        )
    );
    assert_eq!(server.store.places(), ["testing/pcap"]);
    let answer = server.get(&format!("/api/v3/stream/testing/pcap/{}", T1_HASH.to_uppercase())).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, T1));
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert_eq!(answer.header("content-length"), Some("24"));
    assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    for absent in ["content-range", "etag", "last-modified", "content-disposition", "transfer-encoding"] {
        assert_eq!(answer.header(absent), None, "{absent}");
    }
    assert_eq!(server.metrics.data_uploaded_bytes.get(), 24);
    server.stop().await;
}

#[tokio::test]
async fn r1_to_r4_refused_uploads_store_nothing() {
    let server = Running::start().await;
    let zeros = "0".repeat(64);
    assert_eq!(refused(&server, UP, b"").await, titled(400, "no content in request body"));
    let answer = server.request(&format!("{UP}?expected-sha256={zeros}"), &[], T1).await;
    let detail = format!("sha256 mismatch - supplied: {zeros} vs calc: {T1_HASH}");
    assert_eq!(answer.error(), (400, "sha256 mismatch".to_owned(), detail));
    let upper = format!("{UP}?expected-sha256={}", T1_HASH.to_uppercase());
    assert_eq!(refused(&server, &upper, T1).await, titled(400, "sha256 mismatch"));
    assert_eq!(head(&server, "testing", T1_HASH).await, 404);
    let answer = server.request(&format!("{UP}?skip-identify=true"), &[], T1).await;
    let title = "must supply sha256 when skipping identify".to_owned();
    assert_eq!(answer.error(), (400, title, "no error provided".to_owned()));
    for bad in ["yes", "TrUe", "2", "%20true"] {
        let target = format!("{UP}?skip-identify={bad}&skip-identify=true&expected-sha256={T1_HASH}");
        assert_eq!(refused(&server, &target, T1).await, titled(400, "bad param skip identify"), "{bad}");
    }
    assert_eq!((server.store.blobs(), server.store.staged.load(Ordering::SeqCst)), (0, 0));
    server.stop().await;
}

#[tokio::test]
async fn r5_skip_identify_fills_in_three_fields() {
    let server = Running::start().await;
    for skip in ["1", "t", "T", "TRUE", "true", "True"] {
        let target = format!("{UP}?skip-identify={skip}&expected-sha256={T1_HASH}&unknown=x");
        let answer = server.request(&target, &[], T1).await;
        assert_eq!(
            answer.text(),
            format!(
                r#"{{"data":{{"label":"content","size":24,"sha512":"","sha256":"{T1_HASH}","sha1":"","md5":"","mime":"","magic":""}}}}"#
            )
        );
    }
    assert_eq!(server.analyzer.identified.load(Ordering::SeqCst), 0);
    for no in ["", "0", "false", "F"] {
        let answer = server.request(&format!("{UP}?skip-identify={no}&expected-sha256={T1_HASH}"), &[], T1).await;
        assert_eq!(answer.json()["data"]["identify_version"], 2, "{no}");
    }
    assert_eq!(server.analyzer.identified.load(Ordering::SeqCst), 1, "the record of the first one serves the others");
    server.stop().await;
}

#[tokio::test]
async fn r6_to_r9_ranges() {
    let server = Running::start().await;
    server.store.put(Place::new("testing", "content"), T1);
    let path = at("GET", "testing", T1_HASH);
    for (range, body, content_range) in [
        ("bytes=0-6", "azulite", "bytes 0-6/24"),
        ("bytes=-4", "one\n", "bytes 20-23/24"),
        ("bytes=20-", "one\n", "bytes 20-23/24"),
        ("bytes=-500", "azulite sample line one\n", "bytes 0-23/24"),
        ("bytes=22-99", "e\n", "bytes 22-23/24"),
        ("bytes= 0 - 0 ", "a", "bytes 0-0/24"),
    ] {
        let answer = server.request(&path, &[&format!("Range: {range}")], b"").await;
        assert_eq!((answer.status, answer.text(), answer.header("content-range")), (206, body, Some(content_range)));
        assert_eq!(answer.header("content-length"), Some(body.len().to_string().as_str()));
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        assert_eq!(answer.header("accept-ranges"), None);
    }
    let answer = server.request(&path, &["Range: bytes=24-"], b"").await;
    assert_eq!(answer.error(), (400, "invalid range end".to_owned(), "offset after EOF: 24".to_owned()));
    for (range, detail) in [
        ("bytes=0-1,3-4", "invalid range (multiple not supported)"),
        ("chunks=0-1", "invalid range (no bytes= prefix)"),
        ("bytes=-1-2", "invalid range (relative with range not supported)"),
        ("bytes=-", "invalid range (no range)"),
        ("bytes=-0", "invalid range (no range)"),
        ("bytes=x-2", "invalid range (non numeric)"),
        ("bytes=3-2", "invalid range (invalid end)"),
    ] {
        let want = (400, "invalid range provided".to_owned(), detail.to_owned());
        assert_eq!(server.request(&path, &[&format!("Range: {range}")], b"").await.error(), want);
        let missing = server.request(&at("GET", "testing", &"0".repeat(64)), &[&format!("Range: {range}")], b"").await;
        assert_eq!(missing.error(), want, "even when the blob is missing");
    }
    let ignored = server.request(&path, &["Range:", "If-Range: x", "If-None-Match: *"], b"").await;
    assert_eq!((ignored.status, ignored.body.as_slice()), (200, T1));
    server.stop().await;
}

#[tokio::test]
async fn r10_a_missing_blob_is_404_to_the_byte() {
    let server = Running::start().await;
    for hash in ["0".repeat(64).as_str(), "a", "..", "zz", &"g".repeat(64)] {
        let answer = server.request(&at("GET", "testing", hash), &[], b"").await;
        assert_eq!((answer.status, answer.text()), (404, NOT_FOUND));
        assert_eq!(answer.error().0, 404);
        assert_eq!(head(&server, "testing", hash).await, 404);
        assert_eq!(server.request(&at("DELETE", "testing", hash), &[], b"").await.text(), NOT_FOUND);
        let answer = server.request(&at("PATCH", "testing/other", hash), &[], b"").await;
        assert_eq!((answer.status, answer.text()), (404, NOT_FOUND), "R12 {hash}");
    }
    server.stop().await;
}

#[tokio::test]
async fn existence_is_200_without_type_and_body() {
    let server = Running::start().await;
    server.store.put(Place::new("testing", "content"), T1);
    let answer = server.request(&at("HEAD", "testing", T1_HASH), &[], b"").await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(answer.header("content-type"), None);
    assert_eq!(answer.header("content-length"), None);
    server.stop().await;
}

#[tokio::test]
async fn r11_a_copy_is_there_under_the_other_source() {
    let server = Running::start().await;
    server.store.put(Place::new("testing", "content"), T1);
    let target = at("PATCH", "testing/other", &T1_HASH.to_uppercase());
    for _ in 0..2 {
        let answer = server.request(&target, &[], b"").await;
        assert_eq!((answer.status, answer.body.len()), (200, 0));
    }
    assert_eq!(server.get(&format!("/api/v3/stream/other/content/{T1_HASH}")).await.body, T1);
    assert_eq!(server.store.blobs(), 1);
    server.stop().await;
}

#[tokio::test]
async fn r13_and_r14_deletion_looks_at_the_age() {
    let server = Running::start().await;
    server.store.put(Place::new("testing", "content"), T1);
    let target = at("DELETE", "testing", T1_HASH);
    let bad = server.request(&format!("{target}?ifOlderThan=soon"), &[], b"").await;
    assert_eq!(bad.error().1, "ifOlderThan error");
    assert_eq!(bad.status, 400);
    let answer = server.request(&format!("{target}?ifOlderThan=946684800"), &[], b"").await;
    assert_eq!((answer.status, answer.text()), (200, r#"{"deleted":false}"#));
    assert_eq!(head(&server, "testing", T1_HASH).await, 200);
    let tomorrow = azulite_storage::clock::now_ms() / 1000 + 86400;
    let answer = server.request(&format!("{target}?ifOlderThan={tomorrow}"), &[], b"").await;
    assert_eq!((answer.status, answer.text()), (200, r#"{"deleted":true}"#));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(head(&server, "testing", T1_HASH).await, 404);
    assert_eq!(server.request(&format!("{target}?ifOlderThan={tomorrow}"), &[], b"").await.text(), NOT_FOUND);
    for unconditional in ["", "?ifOlderThan=", "?ifOlderThan=0", "?ifOlderThan=-1"] {
        server.store.put(Place::new("testing", "content"), T1);
        let answer = server.request(&format!("{target}{unconditional}"), &[], b"").await;
        assert_eq!(answer.text(), r#"{"deleted":true}"#, "{unconditional}");
    }
    server.stop().await;
}

#[tokio::test]
async fn r16_uploads_and_downloads_of_the_same_bytes_do_not_disturb_each_other() {
    let server = Running::start().await;
    let t2 = T1.repeat(1000);
    let hash = "0879f29f6e872a6cf6a868f3f724902e80fce030898ba56af0e5714aaab6a138";
    let path = format!("/api/v3/stream/testing/content/{hash}");
    let (first, second, third) = tokio::join!(server.request(UP, &[], &t2), server.request(UP, &[], &t2), async {
        for _ in 0..50 {
            let answer = server.get(&path).await;
            assert!(answer.status == 404 || (answer.status == 200 && answer.body == t2), "a partial read");
        }
    });
    assert_eq!((first.status, second.status, third), (200, 200, ()));
    assert_eq!(first.body, second.body);
    assert_eq!(server.store.blobs(), 1);
    server.stop().await;
}

#[tokio::test]
async fn r17_a_blob_without_a_place_is_found_under_any() {
    let server = Running::start().await;
    server.store.put(Place::default(), T1);
    assert_eq!(head(&server, "whatever", T1_HASH).await, 200);
    assert_eq!(server.get(&format!("/api/v3/stream/x/pcap/{T1_HASH}")).await.body, T1);
    assert_eq!(server.request(&at("PATCH", "nowhere/there", T1_HASH), &[], b"").await.status, 200);
    assert_eq!(server.store.places(), ["/", "there/content"]);
    assert_eq!(server.request(&at("DELETE", "whatever", T1_HASH), &[], b"").await.text(), r#"{"deleted":true}"#);
    assert_eq!(server.store.places(), ["there/content"]);
    server.stop().await;
}

#[tokio::test]
async fn r19_names_that_are_not_names_get_400() {
    let server = Running::start().await;
    for bad in ["..", ".", "%2e%2e", "a%2Fb", "a%20b", "%00", "%ff", "caf%C3%A9", "a:b", "a%5Cb", &"x".repeat(256)] {
        for target in [
            format!("POST /api/v3/stream/{bad}/content"),
            format!("POST /api/v3/stream/testing/{bad}"),
            format!("GET /api/v3/stream/{bad}/content/{T1_HASH}"),
            format!("DELETE /api/v3/stream/testing/{bad}/{T1_HASH}"),
            format!("PATCH /api/v3/stream/testing/{bad}/content/{T1_HASH}"),
        ] {
            assert_eq!(refused(&server, &target, b"").await, titled(400, "bad source or label"), "{target}");
        }
        assert_eq!(head(&server, bad, T1_HASH).await, 400);
    }
    assert_eq!(server.store.blobs(), 0);
    let odd = server.request("POST /api/v3/stream/A.b_c-9/...", &[], T1).await;
    assert_eq!(odd.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn store_trouble_has_the_titles_of_the_contract() {
    for (call, target, title) in [
        ("stage", UP.to_owned(), "filecaching error in PutData"),
        ("write", UP.to_owned(), "filebuffering error, failed to write file in PutData"),
        ("publish", UP.to_owned(), "store error in PutData"),
        ("stat", at("GET", "testing", T1_HASH), "store error in GetData"),
        ("read", at("GET", "testing", T1_HASH), "store error in GetData"),
        ("delete", at("DELETE", "testing", T1_HASH), "store error in DeleteData"),
        ("stat", at("PATCH", "testing/b", T1_HASH), "copy error"),
        ("copy", at("PATCH", "testing/b", T1_HASH), "copy error"),
    ] {
        for (failure, status) in [(Failure::Io, 500), (Failure::Full, 507)] {
            let server = Running::start().await;
            server.store.put(Place::new("testing", "content"), T1);
            server.store.fail(call, failure);
            let body = if target.starts_with("POST") { b"other bytes".as_slice() } else { b"" };
            assert_eq!(refused(&server, &target, body).await, titled(status, title), "{call}");
            assert_eq!((server.store.blobs(), server.store.staged.load(Ordering::SeqCst)), (1, 0), "{call}");
            server.stop().await;
        }
    }
    let server = Running::start().await;
    server.store.fail("stat", Failure::Io);
    assert_eq!(head(&server, "testing", T1_HASH).await, 500);
    server.stop().await;
}

#[tokio::test]
async fn identification_that_fails_or_panics_is_500_and_stores_nothing() {
    let server = Running::start().await;
    for body in [b"FAIL please".as_slice(), b"PANIC please"] {
        assert_eq!(refused(&server, UP, body).await, titled(500, "identify error"));
    }
    assert_eq!((server.store.blobs(), server.store.staged.load(Ordering::SeqCst)), (0, 0));
    assert_eq!(server.request(UP, &[], T1).await.status, 200, "still alive");
    server.stop().await;
}

#[tokio::test]
async fn known_bytes_are_identified_once() {
    let server = Running::start().await;
    let first = server.request(UP, &[], T1).await;
    for target in
        [UP.to_owned(), "POST /api/v3/stream/other/text".to_owned(), format!("{UP}?expected-sha256={T1_HASH}")]
    {
        assert_eq!(server.request(&target, &[], T1).await.body, first.body);
    }
    let wrong = format!("{UP}?expected-sha256={T1_HASH}");
    assert_eq!(refused(&server, &wrong, b"other").await, titled(400, "sha256 mismatch"));
    assert_eq!(server.analyzer.identified.load(Ordering::SeqCst), 1);
    assert_eq!(server.store.places(), ["other/text", "testing/content"]);
    server.stop().await;
}

#[tokio::test]
async fn chunked_uploads_are_taken() {
    let server = Running::start().await;
    let head = format!("{UP} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut stream = server.send(format!("{head}8\r\nazulite \r\n10\r\nsample line one\n\r\n0\r\n\r\n")).await;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(Answer::parse(&answer).json()["data"]["sha256"], T1_HASH);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_during_its_upload_leaves_nothing_behind() {
    let server = Running::start().await;
    let staged = || server.store.staged.load(Ordering::SeqCst);
    let mut stream = server.send(format!("{UP} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")).await;
    stream.write_all(&[b'x'; 300_000]).await.unwrap();
    until("staged", || staged() == 1 && server.store.written.load(Ordering::SeqCst) == 300_000).await;
    drop(stream);
    until("cleaned up", || staged() == 0).await;

    let stream = server.send(format!("{UP} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nWAIT here")).await;
    until("identifying", || server.analyzer.running.load(Ordering::SeqCst) == 1).await;
    drop(stream);
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.analyzer.release();
    until("cleaned up", || staged() == 0).await;
    assert_eq!(server.store.blobs(), 0);
    server.stop().await;
}

#[tokio::test]
async fn uploads_and_identifications_are_bounded_and_the_surplus_is_told_to_come_back() {
    let bounds =
        crate::streams::Options { max_uploads: 3, max_identifications: 2, upload_wait: Duration::from_millis(200) };
    let server = Running::with(options(), RouteLimits::default(), bounds).await;
    let waiting = async {
        let bodies = [b"WAIT 1", b"WAIT 2", b"WAIT 3"];
        futures_util::future::join_all(bodies.iter().map(|body| server.request(UP, &[], *body))).await
    };
    let surplus = async {
        until("all staged", || server.store.staged.load(Ordering::SeqCst) == 3).await;
        until("two identifying", || server.analyzer.running.load(Ordering::SeqCst) == 2).await;
        let answer = server.request(UP, &[], T1).await;
        server.analyzer.release();
        answer
    };
    let (answers, surplus) = tokio::join!(waiting, surplus);
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!((surplus.status, surplus.header("retry-after")), (503, Some("2")));
    assert_eq!(server.analyzer.most_running.load(Ordering::SeqCst), 2);
    server.stop().await;
}

#[tokio::test]
async fn large_blobs_pass_in_small_pieces_both_ways() {
    let server = Running::start().await;
    let large: Vec<u8> = (0..20_000_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[2]).collect();
    let answer = server.request(UP, &[], &large).await;
    let hash = answer.json()["data"]["sha256"].as_str().unwrap().to_owned();
    assert!(server.store.largest_write.load(Ordering::SeqCst) < 1 << 20);
    let path = format!("/api/v3/stream/testing/content/{hash}");
    let answer = server.get(&path).await;
    assert_eq!(answer.header("content-length"), Some("20000000"));
    assert_eq!(answer.header("transfer-encoding"), None);
    assert!(answer.body == large);
    let answer = server.request(&format!("GET {path}"), &["Range: bytes=1000000-9999999"], b"").await;
    assert!(answer.body == large[1_000_000..10_000_000]);
    server.stop().await;
}

#[tokio::test]
async fn a_download_that_breaks_off_is_cut_short_and_never_filled_up() {
    let server = Running::start().await;
    let hash = server.store.put(Place::new("testing", "content"), &vec![7; 1_000_000]);
    server.store.fail("read on", Failure::Io);
    let path = format!("/api/v3/stream/testing/content/{hash}");
    let mut stream = server.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.len() < 1_000_000, "cut short");
    if !answer.is_empty() {
        assert_eq!(Answer::parse(&answer).header("content-length"), Some("1000000"));
    }
    server.stop().await;
}

#[tokio::test]
async fn an_empty_file_in_the_store_counts_as_missing() {
    let server = Running::start().await;
    let hash = server.store.put(Place::new("testing", "content"), b"").to_string();
    assert_eq!(head(&server, "testing", &hash).await, 404);
    assert_eq!(server.request(&at("GET", "testing", &hash), &[], b"").await.text(), NOT_FOUND);
    server.stop().await;
}

#[tokio::test]
async fn the_shipped_identification_answers_as_the_contract_says() {
    let server = Running::with_real_identification().await;
    let answer = server.request(UP, &[], T1).await;
    let sha512 = "f20043d00bc85b9ae7d2007692575fca6e85c1bbe01daa03e2eddf43f0cdce18d636ab82b620bb4a60dd7b5cb129a3b3606b2504aba05356c1726eed8f122f41";
    let want = serde_json::json!({"data": {
        "identify_version": 2, "label": "content", "size": 24, "sha512": sha512, "sha256": T1_HASH,
        "sha1": "f9eda2d51d1d931673c590ad1e50131ca37b5e3c", "md5": "fda3f9e82ff20fa60fc98f20759ba409",
        "mime": "text/plain", "magic": "ASCII text", "file_format": "text/plain", "file_extension": "txt"}});
    assert_eq!(answer.json(), want);
    let t2 = server.request(UP, &[], &T1.repeat(1000)).await.json();
    assert_eq!(t2["data"]["ssdeep"], "96:IDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDC:n");
    let mut t34 = b"ElfFile\0".to_vec();
    t34.resize(128, 0);
    let answer = server.request(UP, &[], &t34).await;
    assert_eq!(answer.json()["data"]["file_format"], "metadata/sysmon", "R20");
    assert_eq!(server.get("/healthz").await.status, 200);
    server.stop().await;
}
