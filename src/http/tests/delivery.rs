//! What is reported of answers: delivered, lost, cancelled.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{Running, until};

const WAIT: &str = "GET /api/v2/event/wait/passive HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn an_answer_read_whole_is_delivered_exactly_once() {
    for size in [0, 10, 100_000, 8 << 20] {
        let server = Running::start().await;
        let answer = server.get(&format!("/api/v2/event/big:{size}/passive")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("multipart/form-data; boundary=BBB"));
        assert_eq!(answer.body.len(), size + 8);
        until("delivered", || server.hub.outcome.seen() == (1, 0, 0)).await;
        let outcome = std::sync::Arc::clone(&server.hub.outcome);
        server.stop().await;
        assert_eq!(outcome.seen(), (1, 0, 0));
    }
}

#[tokio::test]
async fn delivery_on_a_kept_alive_connection_does_not_wait_for_its_end() {
    let server = Running::start().await;
    let request = "GET /api/v2/event/big:5/passive HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut stream = server.send(request).await;
    until("first", || server.hub.outcome.seen() == (1, 0, 0)).await;
    stream.write_all(request.repeat(3).as_bytes()).await.unwrap();
    until("pipelined ones", || server.hub.outcome.seen() == (4, 0, 0)).await;
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn an_answer_the_client_leaves_in_the_middle_is_lost() {
    let server = Running::start().await;
    let mut stream = server.send("GET /api/v2/event/big:50000000/passive HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut some = vec![0; 100_000];
    stream.read_exact(&mut some).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.hub.outcome.seen(), (0, 0, 0));
    drop(stream);
    until("lost", || server.hub.outcome.seen() == (0, 1, 0)).await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_stops_reading_loses_its_answer_after_the_write_timeout() {
    let options = crate::http::Options { write_timeout: Duration::from_millis(300), ..super::support::options() };
    let server = Running::with(options, Default::default(), Default::default()).await;
    let stream = server.send("GET /api/v2/event/big:50000000/passive HTTP/1.1\r\nHost: x\r\n\r\n").await;
    until("lost", || server.hub.outcome.seen() == (0, 1, 0)).await;
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_a_long_poll_cancels_it() {
    let server = Running::start().await;
    let stream = server.send(WAIT).await;
    until("asked", || server.hub.gets.lock().unwrap().len() == 1).await;
    assert_eq!(server.hub.outcome.seen(), (0, 0, 0));
    drop(stream);
    until("cancelled", || server.hub.outcome.seen() == (0, 0, 1)).await;
    server.stop().await;
}

#[tokio::test]
async fn a_long_poll_that_outlives_the_drain_time_is_cut_and_others_are_not_waited_for() {
    let options = crate::http::Options { drain_time: Duration::from_millis(200), ..super::support::options() };
    let server = Running::with(options, Default::default(), Default::default()).await;
    let _idle = server.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let _busy = server.send(WAIT).await;
    until("asked", || server.hub.gets.lock().unwrap().len() == 1).await;
    let outcome = std::sync::Arc::clone(&server.hub.outcome);
    assert_eq!(server.stop().await.cut, 1);
    assert_eq!(outcome.seen(), (0, 0, 1));
}
