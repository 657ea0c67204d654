//! The event routes: what reaches the hub, and what errors look like.

use std::time::Duration;

use super::support::{Running, options};
use crate::dispatcher::hub::{GetError, PostError};
use crate::http::RouteLimits;

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

#[tokio::test]
async fn a_post_reaches_the_hub_as_it_was_sent() {
    let server = Running::start().await;
    let path = "POST /api/v2/event?model=binary&sync=true&name=a%20b+c&sync=false";
    let answer = server.request(path, &["User-Agent: dpclient-go-x", "Content-Type: odd"], b"[{}]").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json()["total_ok"], 1);
    let posts = server.hub.posts.lock().unwrap().clone();
    let [post] = posts.as_slice() else { panic!("{posts:?}") };
    assert_eq!(post.query, pairs(&[("model", "binary"), ("sync", "true"), ("name", "a b c"), ("sync", "false")]));
    assert_eq!((&post.body[..], post.user_agent.as_str()), (&b"[{}]"[..], "dpclient-go-x"));
    server.stop().await;
}

#[tokio::test]
async fn chunked_and_empty_posts_reach_the_hub_too() {
    let server = Running::start().await;
    let head = "POST /api/v2/event HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut stream = server.send(format!("{head}2\r\n[{{\r\n2\r\n}}]\r\n0\r\n\r\n")).await;
    let mut answer = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
    assert_eq!(server.request("POST /api/v2/event", &[], b"").await.status, 200);
    let bodies: Vec<_> = server.hub.posts.lock().unwrap().iter().map(|post| post.body.clone()).collect();
    assert_eq!(bodies, ["[{}]", ""]);
    server.stop().await;
}

#[tokio::test]
async fn a_fetch_reaches_the_hub_decoded_with_its_repeats() {
    let server = Running::start().await;
    server.get("/api/v2/event/binary/passive?r-streams=content%2C&r-streams=*,image/&d-self").await;
    server.get("/api/v2/event/bi%2Fna%20ry/active").await;
    let gets = server.hub.gets.lock().unwrap().clone();
    let [passive, active] = gets.as_slice() else { panic!("{gets:?}") };
    assert_eq!((passive.model.as_str(), passive.task), ("binary", false));
    assert_eq!(passive.query, pairs(&[("r-streams", "content,"), ("r-streams", "*,image/"), ("d-self", "")]));
    assert_eq!((active.model.as_str(), active.task), ("bi/na ry", true));
    server.stop().await;
}

#[tokio::test]
async fn every_post_error_has_its_status_title_and_detail() {
    let server = Running::start().await;
    let text = str::to_owned;
    let second = Duration::from_millis(1500);
    let rows = [
        (
            PostError::UnknownModel(text("scrape")),
            400,
            "not a registered model type",
            "not a registered model type: scrape",
        ),
        (PostError::EmptyBody, 400, "Empty Request", "no events were provided to be published"),
        (PostError::Decode(text("why")), 422, "PostEvent TransformEvents invalid events", "why"),
        (
            PostError::AgedOff,
            425,
            "All events to be published have been filtered out",
            "all submitted events aged off immediately, is the submission time older than ageoff?",
        ),
        (
            PostError::Publish { stored: 1, total: 3, errors: vec![text("a"), text("b")] },
            500,
            "failed ProduceAnyEvents",
            "successfully submitted 1/3 events with the failed events providing the following errors: a;\nb;\n",
        ),
        (PostError::Encode(text("bad")), 500, "Marshalling Failed", "bad"),
        (
            PostError::TooLarge { limit: 5 },
            413,
            "request body too large",
            "the request body is over the limit of 5 bytes",
        ),
        (
            PostError::DiskFull,
            507,
            "failed ProduceAnyEvents",
            "the disk is full: free some space, reads and deletions go on",
        ),
        (PostError::Overloaded { retry_after: second }, 503, "too many requests", "too much is waiting already"),
        (PostError::Stopping, 503, "stopping", "the service is stopping, try again when it is back"),
        (
            PostError::Poisoned,
            503,
            "store stopped",
            "the store has stopped after a failed write and is about to restart",
        ),
    ];
    for (error, status, title, detail) in rows {
        *server.hub.post_error.lock().unwrap() = Some(error.clone());
        let answer = server.request("POST /api/v2/event", &[], b"x").await;
        assert_eq!(answer.error(), (status, title.to_owned(), detail.to_owned()), "{error:?}");
        let kind = answer.json()["error_enum"].clone();
        let aged_off = "ErrorStringEnumAllEventsAgedOffImmediately";
        assert_eq!(kind, if error == PostError::AgedOff { aged_off } else { "ErrorStringEnumUnset" });
        let retry = answer.header("retry-after");
        assert_eq!(retry.is_some(), status == 503, "{error:?}");
        assert!(retry.is_none() || !matches!(error, PostError::Overloaded { .. }) || retry == Some("2"));
    }
    server.stop().await;
}

#[tokio::test]
async fn nothing_left_looks_as_in_the_contract_byte_for_byte() {
    let server = Running::start().await;
    let error = "innerNewMsgInFlight event is missing 'author' field";
    *server.hub.post_error.lock().unwrap() =
        Some(PostError::NothingLeft { filters: vec![], total_failures: 1, errors: vec![error.to_owned()] });
    let answer = server.request("POST /api/v2/event", &[], b"x").await;
    assert_eq!(
        answer.text(),
        "{\"status\":\"425\",\"title\":\"All events to be published have been filtered out\",\"detail\":\"failed to produce \
         any of the provided events as they were all filtered out by the following filters [], with 1 response failures \
         which are: [innerNewMsgInFlight event is missing 'author' field]\",\"error_enum\":\
         \"ErrorStringEnumAllEventsFiltered\",\"error_params\":{\"filters\":\"\",\"response_failures\":\
         \"[innerNewMsgInFlight event is missing 'author' field]\",\"total_failures\":\"1\"}}"
    );
    *server.hub.post_error.lock().unwrap() = Some(PostError::NothingLeft {
        filters: vec![("FilterPreviouslyDeleted".to_owned(), 1), ("B".to_owned(), 2)],
        total_failures: 0,
        errors: vec![],
    });
    let (_, _, detail) = server.request("POST /api/v2/event", &[], b"x").await.error();
    assert!(
        detail.ends_with("filters [FilterPreviouslyDeleted:1,B:2], with 0 response failures which are: []"),
        "{detail}"
    );
    server.stop().await;
}

#[tokio::test]
async fn every_fetch_error_has_its_status_and_title() {
    let server = Running::start().await;
    let text = str::to_owned;
    let after = Duration::from_secs(3);
    let rows = [
        (GetError::BadParameter(text("requires")), 422, "bad parameters", "requires"),
        (GetError::Registration(text("no")), 422, "bad parameters", "no"),
        (GetError::FetchFailed(text("no")), 500, "Fetch Failed", "no"),
        (GetError::EncodeInfo(text("no")), 500, "info marshal Failed", "no"),
        (GetError::EncodeAvro(text("no")), 500, "events MsgInFlightsToAvroBulk Failed", "no"),
        (GetError::EncodeJson(text("no")), 500, "Marshalling Failed", "no"),
        (GetError::DiskFull, 507, "Fetch Failed", "the disk is full: free some space, reads and deletions go on"),
        (GetError::Overloaded { retry_after: after }, 503, "too many requests", "too many readers are waiting"),
        (GetError::Stopping, 503, "stopping", "the service is stopping, try again when it is back"),
        (
            GetError::Poisoned,
            503,
            "store stopped",
            "the store has stopped after a failed write and is about to restart",
        ),
    ];
    for (error, status, title, detail) in rows {
        *server.hub.get_error.lock().unwrap() = Some(error.clone());
        let answer = server.get("/api/v2/event/binary/passive").await;
        assert_eq!(answer.error(), (status, title.to_owned(), detail.to_owned()), "{error:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_query_that_is_not_utf8_is_refused_by_name() {
    let server = Running::start().await;
    let refusal = "bad parameter for name: not valid UTF-8".to_owned();
    let answer = server.get("/api/v2/event/binary/passive?name=%ff").await;
    assert_eq!(answer.error(), (422, "bad parameters".to_owned(), refusal.clone()));
    let answer = server.request("POST /api/v2/event?name=%ff", &[], b"[]").await;
    assert_eq!(answer.error(), (400, "bad parameters".to_owned(), refusal));
    server.stop().await;
}

#[tokio::test]
async fn delete_of_streams_can_be_switched_off_without_a_trace() {
    let limits = RouteLimits { allow_delete: false, ..RouteLimits::default() };
    let server = Running::with(options(), limits, Default::default()).await;
    let answer = server.request(&format!("DELETE /api/v3/stream/testing/content/{}", "0".repeat(64)), &[], b"").await;
    assert_eq!((answer.status, answer.text()), (404, "404 page not found"));
    server.stop().await;
}
