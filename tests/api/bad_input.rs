//! Input nobody should send: every refusal is the right one, the server stays up, and nothing is half stored.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::events::{e1, e1_final, id, sourced, with};
use crate::support::http::Wire;
use crate::support::process::run;
use crate::support::random::Random;
use crate::support::{Body, Config, PATIENCE, Server, await_that};

const POST_BINARY: &str = "/api/v2/event?model=binary";
const STREAM: &str = "/api/v3/stream/lab/content";
const T1: &[u8] = b"azulite sample line one\n";
const T1_SHA256: &str = "7fb5af0ab20332773c5553f3f940141bd933e205e8c192505fad4ab9e59f8dcb";

fn wire(server: &Server) -> Wire {
    Wire::connect(server.address(), PATIENCE).expect("connect to the server")
}

fn alive(server: &Server) {
    server.client().get("/healthz").expect_status(200);
    server.client().get("/readyz").expect_status(200);
}

fn events_stored(server: &Server) -> usize {
    server.fetch("binary/passive", "name=x&version=1&count=1000&deadline=0&r-historic=true&reset=true").events.len()
}

/// Sends raw bytes and reads the answer, if there is one, until the server closes.
fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut wire = wire(server);
    // The server may refuse and close before everything is written.
    drop(wire.send(bytes));
    wire.end_of_request();
    String::from_utf8_lossy(&wire.rest().expect("the server answers or closes")).into_owned()
}

fn client_error_or_nothing(answer: &str, what: &str) {
    // A body that breaks off or is framed wrongly is a 500 by name (events.md 1.7).
    let unread = answer.starts_with("HTTP/1.1 500") && answer.contains("Couldn't read request body");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4") || unread, "{what}: {answer}");
}

#[test]
fn unknown_paths_and_methods_are_a_plain_404() {
    let server = Server::start();
    let cases = [
        ("GET", "/nope"),
        ("GET", "/api"),
        ("GET", "/api/v1/event"),
        ("GET", "/api/v2/event"),
        ("PUT", "/api/v2/event?model=binary"),
        ("DELETE", "/api/v2/event"),
        ("POST", "/api/v2/event/binary/passive"),
        ("GET", "/api/v2/event/binary"),
        ("GET", "/api/v2/event/binary/lazy"),
        ("GET", "/api/v2/event/binary/passive/more"),
        ("GET", "/api/v3/stream/lab/content"),
        ("PUT", "/api/v3/stream/lab/content"),
        ("POST", "/api/v3/stream/lab"),
        ("POST", "/api/v3/stream/lab/content/more"),
        ("OPTIONS", "/api/v3/stream/lab/content"),
        ("POST", "/metrics"),
        ("BREW", "/"),
    ];
    let mut client = server.client();
    for (method, path) in cases {
        client.request(method, path, &[], Body::None).expect_no_such_page();
    }
    client.request("PUT", &format!("{STREAM}/{T1_SHA256}"), &[], Body::Sized(T1)).expect_no_such_page();
    client.head("/nope").expect_status(404);
    alive(&server);
}

#[test]
fn the_front_door_names_the_service() {
    let server = Server::start();
    let answer = server.client().get("/").expect_status(200);
    assert_eq!(answer.text(), "Azul Dispatcher");
    assert!(answer.header("content-type").unwrap_or_default().starts_with("text/plain"), "{answer:?}");
    let metrics = server.client().get("/metrics").expect_status(200);
    assert!(metrics.text().contains("# TYPE "), "{}", metrics.text());
    assert!(!server.client().get("/readyz").expect_status(200).body.is_empty(), "one line per subsystem");
}

#[test]
fn an_event_body_over_the_limit_is_a_413_however_it_is_sent() {
    let config = Config::examples().set("http", "max_event_body", "\"64Ki\"");
    let server = Server::with(&config.set("events", "message_max_bytes", "\"64Ki\""));
    let event = with(e1(), "/entity/magic", json!("m".repeat(70_000))).to_string();
    server.client().post(POST_BINARY, event.as_bytes()).expect_any_error(413);
    let (first, second) = event.as_bytes().split_at(40_000);
    server.client().request("POST", POST_BINARY, &[], Body::Chunked(&[first, second])).expect_any_error(413);

    let mut wire = wire(&server);
    let head = format!("POST {POST_BINARY} HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\n");
    wire.send(head.as_bytes()).unwrap();
    let answer = wire.response("POST").expect("an answer without waiting for ten gigabytes");
    answer.expect_any_error(413);

    assert_eq!(events_stored(&server), 0);
    server.publish_ok("binary", &with(e1(), "/entity/magic", json!("m".repeat(50_000))));
    alive(&server);
}

#[test]
fn an_upload_over_the_limit_is_a_413_and_leaves_nothing() {
    let server = Server::with(&Config::examples().set("streams", "max_upload_bytes", "\"64Ki\""));
    let large = Random::new(1).bytes(70_000);
    server.client().post(STREAM, &large).expect_any_error(413);
    server.client().request("POST", STREAM, &[], Body::Chunked(&[&large[..100], &large[100..]])).expect_any_error(413);
    server.client().post(STREAM, &large[..65_536]).expect_status(200);
    server.client().post(STREAM, T1).expect_status(200);
    alive(&server);
}

#[test]
fn headers_over_the_limit_are_refused() {
    let server = Server::start();
    let long = "x".repeat(2_000_000);
    let many: String = (0..5000).map(|number| format!("X-{number}: y\r\n")).collect();
    let cases = [
        format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{many}\r\n"),
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
    ];
    for case in cases {
        client_error_or_nothing(&raw(&server, case.as_bytes()), &case[..60]);
    }
    alive(&server);
}

#[test]
fn requests_that_are_not_http_are_refused() {
    let server = Server::start();
    let cases: [&[u8]; 12] = [
        b"\r\n\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad\x00Name: x\r\n\r\n",
        b"POST /api/v2/event?model=binary HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/v2/event?model=binary HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n1234567",
        b"POST /api/v2/event?model=binary HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /api/v2/event?model=binary HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    for case in cases {
        client_error_or_nothing(&raw(&server, case), &String::from_utf8_lossy(case));
    }
    alive(&server);
    assert_eq!(events_stored(&server), 0);
}

#[test]
fn random_bytes_never_stop_the_server() {
    let server = Server::start();
    let mut random = Random::new(Random::run_seed());
    let valid =
        format!("POST {POST_BINARY} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n[{{\"a\":1}}]").into_bytes();
    for _ in 0..200 {
        let mut bytes = if random.below(2) == 0 { random.clone().bytes(200) } else { valid.clone() };
        for _ in 0..random.below(6) {
            let at = random.index(bytes.len());
            bytes[at] = random.bytes(1)[0];
        }
        bytes.truncate(random.index(bytes.len()) + 1);
        raw(&server, &bytes);
    }
    alive(&server);
    assert_eq!(events_stored(&server), 0);
}

#[test]
fn queries_that_cannot_be_decoded_are_no_server_error() {
    let server = Server::start();
    let targets = [
        "/api/v2/event/binary/passive?name=%zz&r-historic=true&deadline=0",
        "/api/v2/event/binary/passive?name=%ff%fe&r-historic=true&deadline=0",
        "/api/v2/event/binary/passive?%00=%00&&&=&r-historic=true&deadline=0",
        "/api/v2/event/binary/passive?r-historic=true;deadline=0&deadline=0&r-live=true",
        "/api/v2/event/%62inary/passive?r-historic=true&deadline=0",
        "/api/v2/event/bin%ffary/passive?r-historic=true&deadline=0",
        "/api/v3/stream/lab/content/%zz",
    ];
    for target in targets {
        let answer = server.client().get(target);
        assert!(answer.status < 500, "{target}: {answer:?}");
    }
    let name = "n".repeat(3000);
    let long =
        format!("/api/v2/event/binary/passive?name={name}&version=%F0%9F%92%BE%2F..%00&r-historic=true&deadline=0");
    assert_eq!(server.client().get(&long).expect_status(200).status, 200, "nothing limits a name");
    alive(&server);
}

#[test]
fn half_a_body_stores_nothing() {
    let server = Server::start();
    let body = json!([e1()]).to_string();
    let half = &body.as_bytes()[..body.len() / 2];
    let head = format!("POST {POST_BINARY} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    raw(&server, &[head.as_bytes(), half].concat());
    let head = format!("POST {STREAM} HTTP/1.1\r\nHost: x\r\nContent-Length: 24\r\n\r\n");
    raw(&server, &[head.as_bytes(), &T1[..23]].concat());
    let head = format!("POST {STREAM} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n18\r\n");
    raw(&server, &[head.as_bytes(), T1].concat());
    alive(&server);
    assert_eq!(events_stored(&server), 0);
    server.client().head(&format!("{STREAM}/{T1_SHA256}")).expect_status(404);
    await_that("the staging folder is empty again", || {
        std::fs::read_dir(server.data_dir().join("staging")).is_ok_and(|mut entries| entries.next().is_none())
    });
}

#[test]
fn a_half_sent_header_is_cut_off_and_others_go_on() {
    let config = Config::examples().set("http", "header_timeout", "\"1s\"").set("http", "idle_timeout", "\"2s\"");
    let server = Server::with(&config);
    let mut silent = wire(&server);
    let mut half = wire(&server);
    half.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Ha").unwrap();
    let start = Instant::now();
    alive(&server);
    let answer = String::from_utf8_lossy(&half.rest().expect("closed by the server")).into_owned();
    client_error_or_nothing(&answer, "half a header");
    assert!(start.elapsed() < Duration::from_secs(15), "closed after the header timeout: {:?}", start.elapsed());
    silent.rest().expect("a connection that never says anything is closed too");
    alive(&server);
}

#[test]
fn wrong_types_refuse_the_request_and_name_the_form() {
    let server = Server::start();
    let cases = [
        with(e1(), "/author", json!("amy")),
        with(e1(), "/source", json!(["lab"])),
        with(e1(), "/source/path", json!({})),
        with(e1(), "/source/references/user", json!(7)),
        with(e1(), "/entity", json!(true)),
        with(e1(), "/entity/size", json!(-5)),
        with(e1(), "/entity/size", json!(5.5)),
        with(e1(), "/entity/size", json!("5")),
        with(e1(), "/entity/datastreams", json!("none")),
        with(e1(), "/flags", json!([])),
        with(e1(), "/retries", json!(4_294_967_296_u64)),
        with(e1(), "/timestamp", json!("2026-01-02 03:04:06Z")),
        with(e1(), "/timestamp", json!("2026-13-02T03:04:06Z")),
        with(e1(), "/timestamp", json!("2026-01-02T03:04:06")),
        with(e1(), "/action", json!(1)),
    ];
    for case in cases {
        let answer = server.publish("binary", "", &json!([e1(), case]));
        let detail = answer.expect_error_titled(422, "PostEvent TransformEvents invalid events");
        assert!(detail.contains("event message version was too old or was corrupt"), "{detail} for {case}");
    }
    let huge = e1().to_string().replacen("\"size\":5", "\"size\":18446744073709551616", 1);
    server.client().post(POST_BINARY, huge.as_bytes()).expect_any_error(422);
    assert_eq!(events_stored(&server), 0);
}

#[test]
fn deep_nesting_and_broken_text_are_refused_not_followed() {
    let server = Server::start();
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    let mut invalid_utf8 = e1().to_string().into_bytes();
    let at = invalid_utf8.iter().position(|byte| *byte == b'O').unwrap();
    invalid_utf8[at] = 0xff;
    let in_info = e1().to_string().replacen("\"entity\":{", &format!("\"entity\":{{\"info\":{},", deep("[", "]")), 1);
    let bodies: [Vec<u8>; 5] = [
        deep("[", "]").into_bytes(),
        deep("{\"a\":", "}").into_bytes(),
        in_info.into_bytes(),
        invalid_utf8,
        b"\xef\xbb\xbf[]".to_vec(),
    ];
    for (index, body) in bodies.iter().enumerate() {
        // Free-form JSON may be nested as deep as it likes on the way in; the event that carries it is refused.
        let status = if index == 2 { 425 } else { 422 };
        server.client().post(POST_BINARY, body).expect_any_error(status);
    }
    alive(&server);
    assert_eq!(events_stored(&server), 0);
}

#[test]
fn broken_avro_is_refused() {
    let server = Server::start();
    let mut random = Random::new(11);
    let mut bodies = vec![
        b"\x0c\x02".to_vec(),
        b"\x0c\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01".to_vec(),
        b"\x0c\x80\x80\x80\x80\x80\x80\x80\x80\x40".to_vec(),
        vec![0x0c; 64],
    ];
    bodies.extend((1..40).map(|length| [&[0x0c, 0x02][..], &random.bytes(length * 7)].concat()));
    for model in ["binary", "status", "plugin", "insert", "delete", "download", "retrohunt"] {
        for body in &bodies {
            let answer = server.client().post(&format!("/api/v2/event?model={model}&avro-format=true"), body);
            assert!([422, 425].contains(&answer.status), "{model} {body:02x?}: {answer:?}");
            answer.clone().expect_any_error(answer.status);
        }
    }
    alive(&server);
}

#[test]
fn names_with_dots_never_leave_the_data_folder() {
    let server = Server::start();
    for source in ["..", "../../etc", ".", "a/../b"] {
        let answer = server.publish("binary", "", &with(e1(), "/source/name", json!(source)));
        if source.contains('/') {
            answer.expect_any_error(425);
        } else {
            assert!([200, 425].contains(&answer.status), "{answer:?}");
        }
    }
    for target in [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/debug/pprof/../../x",
        "/api/v3/stream/%2e%2e/%2e%2e/passwd",
    ] {
        let answer = server.client().get(target);
        assert!([400, 404].contains(&answer.status), "{target}: {answer:?}");
        assert!(!answer.text().contains("root:"), "{target}");
    }
    let names: Vec<_> = std::fs::read_dir(server.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "configuration and data: {names:?}");
}

#[test]
fn clients_that_hang_up_while_waiting_lose_no_events() {
    let server = Server::start();
    let target = "/api/v2/event/binary/passive?name=gone&version=1&count=1&deadline=30&r-historic=true";
    let mut gone: Vec<Wire> = (0..20).map(|_| wire(&server)).collect();
    for wire in &mut gone {
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    }
    alive(&server);
    drop(gone);
    // A server that answers these has also been told that the others hung up.
    for _ in 0..20 {
        alive(&server);
    }
    server.publish_ok("binary", &e1());
    let batch = server.fetch("binary/passive", "name=gone&version=1&count=1&deadline=10&r-historic=true");
    assert_eq!(batch.only(), &e1_final(), "an answer nobody read is no delivery");
}

#[test]
fn a_client_that_hangs_up_in_the_middle_of_its_answer_loses_no_events() {
    let server = Server::start();
    let ids: Vec<String> = (0..200).map(|number| format!("{number:064}")).collect();
    for id in &ids {
        let large = with(sourced(id, "lab"), "/entity/magic", json!("m".repeat(60_000)));
        server.publish_ok("binary", &large);
    }
    let query = "name=gone&version=1&count=1000&deadline=0&r-historic=true";
    let target = format!("/api/v2/event/binary/passive?{query}");
    let mut gone = wire(&server);
    gone.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    gone.first_byte().expect("the answer begins");
    drop(gone);
    let mut seen = Vec::new();
    await_that("every event of the answer that was not read comes again", || {
        seen.extend(server.fetch("binary/passive", query).ids());
        seen.len() >= ids.len()
    });
    seen.sort();
    assert_eq!(seen, ids, "twelve megabytes do not fit into socket buffers: nothing of it was delivered");
}

#[test]
fn an_unusable_data_directory_is_named_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    let config = folder.path().join("azulite.toml");
    std::fs::write(&config, Config::examples().text()).unwrap();
    for data in [file.clone(), file.join("below"), "/proc/azulite-data".into()] {
        let arguments = [
            "serve".into(),
            "--config".into(),
            config.clone().into_os_string(),
            "--data-dir".into(),
            data.clone().into_os_string(),
        ];
        let ran = run(arguments);
        assert!(matches!(ran.code, Some(1 | 2)), "{ran:?}");
        assert!(ran.stderr.contains(&*data.to_string_lossy()), "the path is named: {ran:?}");
        assert!(!ran.stderr.contains("panicked"), "{ran:?}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "not a folder");
}

#[test]
fn a_folder_with_data_but_no_format_is_refused_untouched() {
    let server = Server::prepared(&Config::examples());
    let log = server.data_dir().join("log");
    std::fs::create_dir_all(&log).unwrap();
    std::fs::write(log.join("00000001.seg"), "someone else's").unwrap();
    let ran = server.cli(["serve"]);
    assert!(ran.code.is_some_and(|code| code != 0), "{ran:?}");
    assert!(ran.stderr.contains("FORMAT"), "{ran:?}");
    assert_eq!(std::fs::read_to_string(log.join("00000001.seg")).unwrap(), "someone else's");
}

#[test]
fn a_port_in_use_is_named_at_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let server = Server::prepared(&Config::examples().set("http", "listen", &format!("\"{address}\"")));
    let ran = server.cli(["serve"]).expect_code(1);
    assert!(ran.stderr.contains(&address), "{ran:?}");
}

#[test]
fn a_second_process_on_the_same_data_ends_with_code_three() {
    let server = Server::start();
    let ran = server.cli(["serve"]).expect_code(3);
    assert!(ran.stderr.contains(&server.pid().to_string()), "the owner is named: {ran:?}");
    alive(&server);
    server.publish_ok("binary", &e1());
}

#[test]
fn an_unknown_setting_stops_the_start_with_file_line_and_key() {
    let server = Server::prepared(&Config::examples());
    let text = Config::examples().text();
    let line = text.lines().count() + 2;
    std::fs::write(server.config_path(), format!("{text}[delivery]\nleese = \"30m\"\n")).unwrap();
    let ran = server.cli(["serve"]).expect_code(2);
    let config = server.config_path();
    for wanted in [&*config.to_string_lossy(), &line.to_string(), "leese"] {
        assert!(ran.stderr.contains(wanted), "{wanted} in {ran:?}");
    }
    assert!(!server.data_dir().exists(), "nothing is made before the configuration is good");
}

#[test]
fn bad_values_stop_the_start_with_the_value_and_what_is_allowed() {
    let cases = [
        ("http", "listen", "\"nowhere\"", "nowhere"),
        ("http", "max_event_body", "\"64 parsecs\"", "64 parsecs"),
        ("events", "message_max_bytes", "-1", "-1"),
        ("storage", "durability", "\"sometimes\"", "sometimes"),
        ("sources.lab", "expire_events_after", "\"2 fortnights\"", "2 fortnights"),
    ];
    for (section, key, literal, value) in cases {
        let server = Server::prepared(&Config::examples().set(section, key, literal));
        let ran = server.cli(["serve"]).expect_code(2);
        assert!(ran.stderr.contains(key) && ran.stderr.contains(value), "{section}.{key}: {ran:?}");
    }
    let server = Server::prepared(&Config::examples());
    std::fs::write(server.config_path(), "[http\nlisten = ").unwrap();
    let ran = server.cli(["serve"]).expect_code(2);
    assert!(ran.stderr.contains("azulite.toml"), "{ran:?}");
    std::fs::remove_file(server.config_path()).unwrap();
    let ran = server.cli(["serve"]).expect_code(2);
    assert!(ran.stderr.contains("azulite.toml"), "a file that was asked for must be there: {ran:?}");
}

#[test]
fn listening_beyond_loopback_without_protection_is_refused() {
    let server = Server::prepared(&Config::examples().set("http", "listen", "\"0.0.0.0:0\""));
    let ran = server.cli(["serve"]).expect_code(2);
    assert!(ran.stderr.contains("0.0.0.0") && ran.stderr.contains("allow_insecure"), "{ran:?}");
}

#[test]
fn the_address_is_in_the_lock_file_and_in_the_log() {
    let server = Server::start();
    let lock = std::fs::read_to_string(server.data_dir().join("LOCK")).unwrap();
    assert_eq!(lock.trim_end(), format!("pid={} http={}", server.pid(), server.address()));
    let said = server.log_text();
    assert!(said.contains(&format!("listening on http://{}", server.address())), "{said}");
}

#[test]
fn thousands_of_pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    for letter in ['a', 'b', 'c'] {
        server.publish_ok("binary", &sourced(&id(letter), "lab"));
    }
    let mut wire = wire(&server);
    let pair = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /nope HTTP/1.1\r\nHost: x\r\n\r\n";
    for _ in 0..50 {
        wire.send(pair.repeat(20).as_bytes()).unwrap();
        for _ in 0..20 {
            assert_eq!(wire.response("GET").unwrap().status, 200);
            assert_eq!(wire.response("GET").unwrap().status, 404);
        }
    }
}
