//! Connections: limits, timeouts, broken input, stopping.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::support::{Answer, Running, options, until};
use crate::http::{Drained, Options, RouteLimits, Server, Subsystem};

async fn read_all(mut stream: tokio::net::TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes)).await.expect("closed in time").unwrap();
    bytes
}

#[tokio::test]
async fn an_address_in_use_is_a_value_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = Server::bind(Options { listen: address.clone(), ..options() }).await.unwrap_err();
    assert_eq!(error.source.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&address), "{error}");
    let error = Server::bind(Options { listen: "no port".to_owned(), ..options() }).await.unwrap_err();
    assert_eq!(error.address, "no port");
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_after_its_time() {
    let quick = Options { header_timeout: Duration::from_millis(200), ..options() };
    let server = Running::with(quick, RouteLimits::default(), Default::default()).await;
    let stream = server.send("GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").await;
    assert_eq!(read_all(stream).await, b"");
    server.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_long_poll_is_not() {
    let quick = Options { idle_timeout: Duration::from_millis(200), ..options() };
    let server = Running::with(quick, RouteLimits::default(), Default::default()).await;
    let idle = server.send("").await;
    let kept_alive = server.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let _polling = server.send("GET /api/v2/event/wait/passive HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(read_all(idle).await, b"");
    assert_eq!(Answer::parse(&read_all(kept_alive).await).text(), "Azul Dispatcher");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(server.hub.outcome.seen(), (0, 0, 0), "the long poll goes on");
    server.stop().await;
}

#[tokio::test]
async fn a_head_over_the_limit_gets_431_and_the_server_lives_on() {
    let server = Running::start().await;
    let long = "x".repeat(200_000);
    let stream = server.send(format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n")).await;
    assert_eq!(Answer::parse(&read_all(stream).await).status, 431);
    let stream = server.send(format!("GET /{long} HTTP/1.1\r\n\r\n")).await;
    let status = Answer::parse(&read_all(stream).await).status;
    assert!([414, 431].contains(&status), "{status}");
    assert_eq!(server.get("/healthz").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn garbage_gets_400_and_the_server_lives_on() {
    let server = Running::start().await;
    let inputs: [&[u8]; 5] = [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /api/v2/event HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for input in inputs {
        let mut stream = server.send(input).await;
        stream.shutdown().await.unwrap();
        let answer = read_all(stream).await;
        assert!(answer.is_empty() || Answer::parse(&answer).status >= 400, "{input:?}");
    }
    assert_eq!(server.get("/healthz").await.text(), "ok\n");
    server.stop().await;
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_free_slot() {
    let narrow = Options { max_connections: 1, ..options() };
    let server = Running::with(narrow, RouteLimits::default(), Default::default()).await;
    let first = server.send("GET /api/v2/event/wait/passive HTTP/1.1\r\nHost: x\r\n\r\n").await;
    until("first is served", || server.hub.gets.lock().unwrap().len() == 1).await;
    let mut second = server.send("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let mut byte = [0];
    timeout(Duration::from_millis(200), second.read(&mut byte)).await.expect_err("second waits");
    drop(first);
    assert_eq!(Answer::parse(&read_all(second).await).status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read_and_the_client_gets_to_know() {
    let limits = RouteLimits { event_body_bytes: 1000, upload_bytes: Some(1000), ..RouteLimits::default() };
    let server = Running::with(options(), limits, Default::default()).await;
    for path in ["/api/v2/event?model=binary", "/api/v3/stream/testing/content"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n");
        let announced = server.send(format!("{head}Expect: 100-continue\r\n\r\n")).await;
        assert_eq!(Answer::parse(&read_all(announced).await).error().0, 413, "nothing was sent yet");

        let stream = server.send(format!("{head}\r\n")).await;
        let (mut reading, mut writing) = stream.into_split();
        let sending = tokio::spawn(async move { writing.write_all(&vec![b'x'; 4_000_000]).await });
        let mut answer = Vec::new();
        reading.read_to_end(&mut answer).await.expect("no reset before the answer");
        let (status, title, detail) = Answer::parse(&answer).error();
        assert_eq!((status, title.as_str()), (413, "request body too large"));
        assert!(detail.contains("1000 bytes"), "{detail}");
        drop(sending.await.unwrap());

        let chunked =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunk = format!("258\r\n{}\r\n", "x".repeat(600));
        let stream = server.send(format!("{chunked}{chunk}{chunk}0\r\n\r\n")).await;
        assert_eq!(Answer::parse(&read_all(stream).await).error().0, 413, "chunked {path}");
    }
    assert!(server.hub.posts.lock().unwrap().is_empty());
    until("nothing staged", || server.store.staged.load(std::sync::atomic::Ordering::SeqCst) == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_stops_coming_gets_408() {
    let limits = RouteLimits { body_timeout: Duration::from_millis(200), ..RouteLimits::default() };
    let server = Running::with(options(), limits, Default::default()).await;
    for (path, title) in [
        ("/api/v2/event", "Couldn't read request body"),
        ("/api/v3/stream/testing/content", "filebuffering error, failed to read file in PutData"),
    ] {
        let stream = server.send(format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")).await;
        let (status, got, _) = Answer::parse(&read_all(stream).await).error();
        assert_eq!((status, got.as_str()), (408, title));
    }
    server.stop().await;
}

#[tokio::test]
async fn broken_framing_of_a_body_is_an_error_and_nothing_is_kept() {
    let server = Running::start().await;
    for (path, title) in [
        ("/api/v2/event", "Couldn't read request body"),
        ("/api/v3/stream/testing/content", "filebuffering error, failed to read file in PutData"),
    ] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        let stream = server.send(format!("{head}5\r\nhello\r\nzz\r\n")).await;
        let (status, got, _) = Answer::parse(&read_all(stream).await).error();
        assert_eq!((status, got.as_str()), (500, title));
    }
    assert_eq!(server.store.blobs(), 0);
    server.stop().await;
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_get_the_404_page() {
    let server = Running::start().await;
    for target in [
        "GET /nothing",
        "PUT /",
        "HEAD /",
        "POST /metrics",
        "GET /api/v2/event",
        "DELETE /api/v2/event",
        "POST /api/v2/event/binary/passive",
        "GET /api/v2/event/binary/other",
        "GET /api/v1/event",
        "PUT /api/v3/stream/a/b",
        "GET /api/v3/stream/a/b",
        "POST /api/v3/stream/a/b/c",
        "GET //",
        "OPTIONS *",
    ] {
        let answer = server.request(target, &[], b"").await;
        assert_eq!(answer.status, 404, "{target}");
        if !target.starts_with("HEAD") {
            assert_eq!(answer.text(), "404 page not found", "{target}");
            assert_eq!(answer.header("content-type"), Some("text/plain"));
        }
        assert_eq!(answer.header("allow"), None);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_trailing_slash_is_redirected_where_there_is_a_route() {
    let server = Running::start().await;
    let answer = server.get("/api/v2/event/binary/passive/?name=p&name=q").await;
    let location = Some("/api/v2/event/binary/passive?name=p&name=q");
    assert_eq!((answer.status, answer.header("location")), (301, location));
    let answer = server.request("POST /api/v2/event/?model=x", &[], b"[]").await;
    assert_eq!((answer.status, answer.header("location")), (307, Some("/api/v2/event?model=x")));
    assert_eq!(server.get("/api/v2/event/").await.status, 404, "there is no GET of that path");
    assert_eq!(server.get("//example.net/").await.status, 404);
    server.stop().await;
}

#[tokio::test]
async fn root_health_and_readiness() {
    let server = Running::start().await;
    let answer = server.get("/").await;
    assert_eq!(
        (answer.status, answer.header("content-type"), answer.text()),
        (200, Some("text/plain"), "Azul Dispatcher")
    );
    let part = |name: &str, ready, detail: &str| Subsystem { name: name.to_owned(), ready, detail: detail.to_owned() };
    *server.readiness.0.lock().unwrap() = vec![part("log", true, ""), part("catalogue", false, "replaying")];
    let answer = server.get("/readyz").await;
    assert_eq!((answer.status, answer.text()), (503, "log: ready\ncatalogue: not ready: replaying\n"));
    *server.readiness.0.lock().unwrap() = vec![part("log", true, "durability fsync")];
    let answer = server.get("/readyz").await;
    assert_eq!((answer.status, answer.text()), (200, "log: ready, durability fsync\n"));
    assert_eq!(server.get("/healthz").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn requests_are_counted_with_their_real_code_and_templates() {
    let server = Running::start().await;
    server.get("/api/v2/event/big:1/active").await;
    server.get("/some/made/up/path").await;
    server.request("PURGE /x", &[], b"").await;
    let page = server.get("/metrics").await;
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4"));
    for line in [
        "dispatcher_restapi_response_codes{method=\"GET\",path=\"/api/v2/event/:model/active\",code=\"200\"} 1",
        "dispatcher_restapi_response_codes{method=\"GET\",path=\"other\",code=\"404\"} 1",
        "dispatcher_restapi_response_codes{method=\"OTHER\",path=\"other\",code=\"404\"} 1",
        "dispatcher_restapi_time_seconds_count{method=\"GET\",path=\"other\"} 1",
    ] {
        assert!(page.text().lines().any(|l| l == line), "{line}\n{}", page.text());
    }
    server.stop().await;
}

#[tokio::test]
async fn stopping_closes_idle_connections_and_refuses_new_ones() {
    let server = Running::start().await;
    let addr = server.addr;
    let _idle = server.send("").await;
    let mut used = server.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut byte = [0];
    used.read_exact(&mut byte).await.unwrap();
    let drained = timeout(Duration::from_secs(3), server.stop()).await.expect("no waiting for idle connections");
    assert_eq!(drained, Drained { cut: 0 });
    tokio::net::TcpStream::connect(addr).await.expect_err("nobody listens");
}
