//! `reidentify` on a store, and through a server.

use serde_json::json;

use crate::support::{Config, Server};

const ROUTE: &str = "/api/azulite/v1/reidentify";

#[test]
fn what_is_current_is_left_alone_through_the_server_and_without_it() {
    let mut server = Server::with(&Config::examples());
    let mut client = server.client();
    client.get(ROUTE).expect_any_error(404);
    client.delete(ROUTE).expect_any_error(404);
    for text in ["one text", "another text"] {
        client.post("/api/v3/stream/testing/content", text.as_bytes()).expect_status(200);
    }
    let through = server.cli(["reidentify"]).expect_code(0);
    assert_eq!(
        through.stdout, "2 blobs: 0 identified anew, 0 of them changed; 2 were current, 0 never identified\n",
        "{through:?}"
    );
    let progress = client.get(ROUTE).expect_status(200).json();
    assert_eq!((&progress["stage"], &progress["passed"]), (&json!("done"), &json!(2)), "{progress}");
    client.post(ROUTE, b"{\"dry\": 1}").expect_any_error(400);
    client.post(ROUTE, b"nonsense").expect_any_error(400);
    server.stop();
    let offline = server.cli(["reidentify", "--dry-run", "--json"]).expect_code(0).json();
    assert_eq!((&offline["current"], &offline["request"]["dry_run"]), (&json!(2), &json!(true)), "{offline}");
}

#[test]
fn no_store_is_made_by_looking_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none");
    let ran = crate::support::process::run(["reidentify", "--data-dir", none.to_str().unwrap()]).expect_code(1);
    assert!(ran.stderr.contains("there is no store"), "{ran:?}");
    assert!(!none.exists());
}
