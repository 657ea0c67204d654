//! The answer to one GET of events, read as strictly as the strictest client does.

use serde_json::Value;

use super::Response;

/// The two parts of an answer with JSON events.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) info: Value,
    pub(crate) events: Vec<Value>,
}

impl Batch {
    /// Reads the answer; fails the test on anything a strict client would refuse.
    pub(crate) fn read(response: &Response) -> Batch {
        let (info, events) = parts(response);
        let info = checked_info(&info);
        let body: Value = serde_json::from_slice(&events).expect("the events part is JSON");
        let object = body.as_object().expect("the events part is an object");
        assert_eq!(object.keys().collect::<Vec<_>>(), ["events"], "only one key beside none");
        let events = body["events"].as_array().expect("a list of events").clone();
        assert_eq!(info["fetched"], events.len(), "fetched is the number of events: {info}");
        for event in &events {
            assert_eq!(event["model_version"], 6, "{event}");
            assert!(event["kafka_key"].as_str().is_some_and(|key| key.len() == 32), "{event}");
        }
        Batch { info, events }
    }

    /// The only event; fails the test when there is none or more than one.
    pub(crate) fn only(&self) -> &Value {
        assert_eq!(self.events.len(), 1, "one event: {self:?}");
        &self.events[0]
    }

    /// The entity ids of all events in their order.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.events.iter().map(|event| event["entity"]["sha256"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

fn checked_info(bytes: &[u8]) -> Value {
    let info: Value = serde_json::from_slice(bytes).expect("the info part is JSON");
    let object = info.as_object().expect("info is an object");
    let known = ["filtered", "fetched", "ready", "paused", "consumers_not_ready", "filters"];
    assert!(object.keys().all(|key| known.contains(&key.as_str())), "unknown key in {info}");
    assert!(info["filtered"].is_u64() && info["fetched"].is_u64(), "{info}");
    assert!(info["ready"].is_boolean() && info["paused"].is_boolean(), "{info}");
    let filters = object.get("filters").map(|filters| filters.as_object().expect("filters is an object"));
    if let Some(filters) = filters {
        assert!(!filters.is_empty(), "empty filters are left out: {info}");
        let sum: u64 = filters.values().map(|count| count.as_u64().expect("a count")).sum();
        assert_eq!(info["filtered"], sum, "the filters sum up: {info}");
    } else {
        assert_eq!(info["filtered"], 0, "what filtered is named: {info}");
    }
    if let Some(names) = object.get("consumers_not_ready") {
        assert!(names.as_str().is_some_and(|names| !names.is_empty()), "{info}");
    }
    info
}

/// The bytes of the parts `info` and `events` of a multipart answer with exactly the layout of the contract.
pub(crate) fn parts(response: &Response) -> (Vec<u8>, Vec<u8>) {
    assert_eq!(response.status, 200, "{}", response.text());
    let media_type = response.header("content-type").expect("a media type");
    let boundary = media_type.strip_prefix("multipart/form-data; boundary=").expect("multipart with a boundary");
    assert!(!boundary.is_empty() && boundary.len() <= 70, "{boundary}");
    assert!(boundary.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{boundary}");
    let head = |name: &str| {
        format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}.json\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        )
    };
    let middle = format!("\r\n{}", head("events"));
    let end = format!("\r\n--{boundary}--\r\n");
    let body = response.body.as_slice();
    assert_eq!(occurrences(body, format!("--{boundary}").as_bytes()), 3, "the boundary occurs in the data");
    let rest = body.strip_prefix(head("info").as_bytes()).expect("the info part comes first");
    let at = find(rest, middle.as_bytes()).expect("the events part follows");
    let events = &rest[at + middle.len()..];
    let events = events.strip_suffix(end.as_bytes()).expect("the closing boundary ends the body");
    (rest[..at].to_vec(), events.to_vec())
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, wanted)
}

fn occurrences(text: &[u8], wanted: &[u8]) -> usize {
    memchr::memmem::find_iter(text, wanted).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Response {
        let header = ("content-type".to_owned(), "multipart/form-data; boundary=BBB".to_owned());
        Response { status: 200, headers: vec![header], body: body.as_bytes().to_vec() }
    }

    const GOOD: &str = "--BBB\r\nContent-Disposition: form-data; name=\"info\"; filename=\"info.json\"\r\n\
        Content-Type: application/octet-stream\r\n\r\n{\"filtered\":0,\"fetched\":0,\"ready\":true,\"paused\":false}\
        \r\n--BBB\r\nContent-Disposition: form-data; name=\"events\"; filename=\"events.json\"\r\n\
        Content-Type: application/octet-stream\r\n\r\n{\"events\":[]}\r\n--BBB--\r\n";

    #[test]
    fn the_layout_of_the_contract_is_read() {
        let batch = Batch::read(&answer(GOOD));
        assert!(batch.events.is_empty());
    }

    #[test]
    #[should_panic(expected = "the info part comes first")]
    fn bare_line_feeds_are_refused() {
        Batch::read(&answer(&GOOD.replace("\r\n", "\n")));
    }

    #[test]
    #[should_panic(expected = "the closing boundary ends the body")]
    fn a_missing_last_line_end_is_refused() {
        Batch::read(&answer(GOOD.trim_end()));
    }
}
