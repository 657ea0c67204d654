//! Records of one topic: `GET` and `POST /api/azulite/v1/topics/:name/records`, one JSON object a line.
//!
//! A page is bounded, and so is what is taken in at once; the client says where it is, nothing is kept for it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use warp::reply::Response;

use super::azulite::{flow, json, lines};
use super::body::BodyLimits;
use super::router::Call;
use super::url::{first, parse_query};
use super::{Services, error};
use crate::admin::records::{AppendRecordsError, NewRecord, Page, ReadRecordsError, Start, StartAt};
use crate::admin::{Admin, write_line};

/// A page, unless less is asked for.
const PAGE_BYTES: usize = 4 << 20;
/// The longest wait for the next record: shorter than the time there is to stop.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// The longest body of new records.
const BODY_BYTES: u64 = 96 << 20;
/// Records in one body, at most: an empty one takes three bytes there and a hundred times that in memory.
const BODY_RECORDS: usize = 100_000;

/// What a reader asks for.
#[derive(Debug)]
struct Asked {
    start: Start,
    page: Page,
    wait: Duration,
}

impl Asked {
    fn read(query: &[(String, String)]) -> Result<Self, String> {
        let bad = |name: &str, text: &str| format!("{name} is {text:?}, which is not what it may be");
        let number =
            |name: &str| first(query, name).map(|text| text.parse::<u64>().map_err(|_| bad(name, text))).transpose();
        let partition = number("partition")?.map(|index| i32::try_from(index).unwrap_or(i32::MAX));
        let start = match first(query, "positions") {
            Some(positions) => positions.parse()?,
            None => {
                let from = first(query, "from").map_or(Ok(StartAt::Earliest), str::parse);
                Start::At { from: from.map_err(|reason| format!("from {reason}"))?, partition }
            }
        };
        let max_bytes = number("bytes")?.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(PAGE_BYTES);
        let decode = match first(query, "events") {
            None | Some("true") => true,
            Some("false") => false,
            Some(text) => return Err(bad("events", text)),
        };
        let max_records = number("count")?.unwrap_or(u64::MAX);
        let page = Page { max_records, max_bytes: max_bytes.clamp(1, PAGE_BYTES), decode };
        Ok(Self { start, page, wait: Duration::from_secs(number("wait")?.unwrap_or(0)).min(WAIT_MAX) })
    }
}

/// `GET`: a page of records, and where the next one begins.
pub(super) async fn read(admin: Arc<Admin>, topic: String, query: &str) -> Response {
    let query = match parse_query(query) {
        Ok(query) => query,
        Err(bad) => return error::bad_query(&bad),
    };
    let Asked { start, page, wait } = match Asked::read(&query) {
        Ok(asked) => asked,
        Err(reason) => return error::bad_parameter(&reason),
    };
    let found = match spans(&admin, &topic, &start).await {
        Ok((found, spans)) if !wait.is_zero() && spans.iter().all(|span| span.next >= span.end) => {
            let numbers = spans.iter().filter_map(|span| found.partition(span.partition)).map(|p| p.number());
            let waiter = admin.waiter(numbers);
            // Whatever came before the waiter is seen by looking again.
            match self::spans(&admin, &topic, &start).await {
                Ok((found, spans)) if spans.iter().any(|span| span.next < span.end) => Ok((found, spans)),
                Ok(_) => {
                    // Waking or not, the answer is what is there then.
                    let _woken = tokio::time::timeout(wait, waiter.woken()).await;
                    self::spans(&admin, &topic, &start).await
                }
                refused => refused,
            }
        }
        found => found,
    };
    let (topic, spans) = match found {
        Ok(found) => found,
        Err(refusal) => return refusal,
    };
    let scan = move |out: &mut super::azulite::Lines| {
        let mut sent = Ok(());
        let read = admin.read_records(&topic, spans, page, &mut |found| flow(write_line(out, &found), &mut sent));
        read.map_err(io::Error::other).and(sent)
    };
    match lines(scan).await {
        Ok(Some(response)) => response,
        Ok(None) => error::internal("the log cannot be read", "the page has no end"),
        Err(refusal) => refusal,
    }
}

type Spans = (Arc<crate::broker::Topic>, Vec<crate::admin::records::Span>);

async fn spans(admin: &Arc<Admin>, topic: &str, start: &Start) -> Result<Spans, Response> {
    let (admin, topic, start) = (admin.clone(), topic.to_owned(), start.clone());
    let found = tokio::task::spawn_blocking(move || admin.spans(&topic, &start)).await;
    let found = found.map_err(|stopped| error::scan(&stopped.to_string()))?;
    found.map_err(|problem: ReadRecordsError| error::read_records(&problem))
}

/// `POST`: new records, all of them or none; answered when they are durable.
pub(super) async fn append(services: &Services, call: Call, topic: String) -> Response {
    let Some(admin) = services.admin.clone() else { return error::no_such_page() };
    let limits = BodyLimits {
        bytes: Some(BODY_BYTES),
        pause: services.limits.body_timeout,
        min_rate: services.limits.body_min_rate,
    };
    let body = match call.body.collect(limits, &call.budget).await {
        Ok(body) => body,
        Err(problem) => return error::event_body(&problem),
    };
    let preparing = {
        let admin = admin.clone();
        move || admin.prepare_records(&topic, new_records(&body.bytes)?)
    };
    let prepared = match tokio::task::spawn_blocking(preparing).await {
        Ok(Ok(prepared)) => prepared,
        Ok(Err(problem)) => return error::append_records(&problem),
        Err(stopped) => return error::internal("records cannot be written", &stopped.to_string()),
    };
    match admin.append_records(prepared).await {
        Ok(produced) => json(&produced),
        Err(problem) => error::append_records(&problem.into()),
    }
}

fn new_records(body: &[u8]) -> Result<Vec<NewRecord>, AppendRecordsError> {
    let mut records = Vec::new();
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    for (number, line) in (1..).zip(lines) {
        let wrong = |reason: String| AppendRecordsError::Record { number, reason };
        if number > BODY_RECORDS {
            return Err(wrong(format!("one request has at most {BODY_RECORDS}")));
        }
        // A list would read as a record too, field by field.
        if !line.trim_ascii_start().starts_with(b"{") {
            return Err(wrong("the line does not read: it is no object".to_owned()));
        }
        records.push(serde_json::from_slice(line).map_err(|error| wrong(format!("the line does not read: {error}")))?);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<Asked, String> {
        Asked::read(&parse_query(query).unwrap())
    }

    #[test]
    fn pages_are_bounded_whatever_is_asked_for() {
        let asked = asked("bytes=99999999999&wait=99999&count=7&partition=3&from=12&events=false").unwrap();
        assert_eq!((asked.page.max_bytes, asked.page.max_records, asked.page.decode), (PAGE_BYTES, 7, false));
        assert_eq!(asked.wait, WAIT_MAX);
        assert_eq!(asked.start, Start::At { from: StartAt::Offset(12), partition: Some(3) });
    }

    #[test]
    fn nonsense_is_named() {
        for bad in ["from=yesterday", "partition=-1", "count=x", "events=1", "positions=1", "positions=0:a-3"] {
            let name = bad.split('=').next().unwrap();
            let said = asked(bad).unwrap_err();
            assert!(said.contains(name) || said.contains("PARTITION:NEXT-END"), "{bad}: {said}");
        }
    }

    #[test]
    fn a_line_that_does_not_read_is_named() {
        assert_eq!(new_records(b"{}\n\n{\"value\":\"x\"}").unwrap().len(), 2);
        for bad in [&b"{}\n[]"[..], b"{}\n{\"valeu\":1}", b"{}\n\xff"] {
            let said = new_records(bad).unwrap_err().to_string();
            assert!(said.starts_with("record 2: the line does not read"), "{said}");
        }
        assert!(new_records("{}\n".repeat(BODY_RECORDS + 1).as_bytes()).is_err());
    }
}
