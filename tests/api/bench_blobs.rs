//! `bench blobs` against our own server, and `bench identify`.

use crate::support::process::run;
use crate::support::{Config, Server};

#[test]
fn a_server_is_measured_and_keeps_no_blob() {
    let server = Server::with(&Config::examples().set("streams", "api_allow_delete", "true"));
    let url = format!("http://{}", server.address());
    for more in [&[][..], &["--skip-identify"]] {
        let flags = ["bench", "blobs", "--url", &url, "--size", "8Ki", "--seconds", "1", "--json"];
        let figures = server.cli(flags.into_iter().chain(more.iter().copied())).expect_code(0).json();
        let keys = ["upload_mb_s", "files_s", "download_mb_s", "limit_mb_s", "ratio", "loopback_mb_s", "plain_files_s"];
        for key in keys {
            assert!(figures[key].as_f64().unwrap() > 0.0, "{key} in {figures}");
            assert_eq!(figures["spread"][key].as_array().unwrap().len(), 2, "{key} in {figures}");
        }
        assert_eq!(figures["server_pid"], server.pid(), "{figures}");
    }
    let uploads = server.metric("dispatcher_data_upload_requests_total");
    assert!(uploads >= 8, "{uploads}");
    assert_eq!(server.metric("dispatcher_data_delete_requests_total"), uploads, "each is deleted again");
}

#[test]
fn a_server_without_stream_routes_is_told() {
    let ran = run(["bench", "blobs", "--url", "http://127.0.0.1:1", "--seconds", "1"]).expect_code(1);
    assert!(ran.stderr.contains("127.0.0.1:1"), "{ran:?}");
    let ran = run(["bench", "blobs", "--url", "http://127.0.0.1:1", "--size", "1"]).expect_code(2);
    assert!(ran.stderr.contains("16 bytes to 64 MiB"), "{ran:?}");
}

#[test]
fn identification_is_measured_beside_ssdeep() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("text"), "some text\n".repeat(5000)).unwrap();
    std::fs::write(folder.path().join("page"), format!("<html>{}</html>", "<p>x</p>".repeat(2000))).unwrap();
    let path = folder.path().to_str().unwrap();
    let figures = run(["bench", "identify", path, "--repetitions", "3", "--json"]).expect_code(0).json();
    for key in ["files_s", "mb_s", "ssdeep_mb_s", "ratio"] {
        assert!(figures[key].as_f64().unwrap() > 0.0, "{key} in {figures}");
    }
    let ran = run(["bench", "identify", "/nonexistent/azulite"]).expect_code(1);
    assert!(ran.stderr.contains("nothing to identify"), "{ran:?}");
}
