use super::super::filter::FilterKey;
use super::*;

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn an_error_body_has_its_members_in_order() {
    let body = ErrorBody::new(404, "not found", "not found");
    let wanted = r#"{"status":"404","title":"not found","detail":"not found","error_enum":"ErrorStringEnumUnset"}"#;
    assert_eq!(text(body.to_json()), wanted);
}

#[test]
fn empty_members_of_an_error_are_left_out_and_params_come_last() {
    let mut body = ErrorBody::new(500, "", "");
    assert_eq!(text(body.to_json()), r#"{"status":"500","error_enum":"ErrorStringEnumUnset"}"#);
    body.error_params.insert("filters", String::new());
    let wanted = r#"{"status":"500","error_enum":"ErrorStringEnumUnset","error_params":{"filters":""}}"#;
    assert_eq!(text(body.to_json()), wanted);
}

#[test]
fn info_leaves_out_what_is_empty() {
    let filters = FilterCounts::default();
    let info = Info { filters: &filters, fetched: 1, not_ready: &[], paused: false };
    assert_eq!(text(info.to_json()), r#"{"filtered":0,"fetched":1,"ready":true,"paused":false}"#);
    let info = Info { filters: &filters, fetched: 0, not_ready: &[], paused: true };
    assert_eq!(text(info.to_json()), r#"{"filtered":0,"fetched":0,"ready":false,"paused":true}"#);
    let info = Info { filters: &filters, fetched: 0, not_ready: &[Flow::Historic], paused: false };
    let wanted = r#"{"filtered":0,"fetched":0,"ready":false,"paused":false,"consumers_not_ready":"historic"}"#;
    assert_eq!(text(info.to_json()), wanted);
}

#[test]
fn info_counts_add_up_to_filtered() {
    let mut filters = FilterCounts::default();
    filters.add(FilterKey { stage: "FilterTooDeep", reason: "too_deep" });
    filters.add(FilterKey { stage: "FilterConsumerRules", reason: "reject_self" });
    filters.add(FilterKey { stage: "FilterTooDeep", reason: "too_deep" });
    let info = Info { filters: &filters, fetched: 0, not_ready: &[], paused: false };
    let wanted = concat!(
        r#"{"filtered":3,"fetched":0,"ready":true,"paused":false,"#,
        r#""filters":{"FilterConsumerRules-reject_self":1,"FilterTooDeep-too_deep":2}}"#
    );
    assert_eq!(text(info.to_json()), wanted);
}

#[test]
fn a_post_answer_always_has_a_list_of_failures() {
    let answer = PostAnswer { total_ok: 1, failures: &[], ok: &[] };
    assert_eq!(text(answer.to_json()), r#"{"total_ok":1,"total_failures":0,"failures":[]}"#);
}

/// X1 and X2.
#[test]
fn a_post_answer_repeats_the_failed_text_and_the_final_events() {
    let failure = Failure { event: "{\"a\": \"\\u0001\"\n}".into(), error: "innerNewMsgInFlight x".into() };
    let ok = [b"{\"n\":1}".to_vec(), b"{}".to_vec()];
    let answer = PostAnswer { total_ok: 2, failures: &[failure], ok: &ok };
    let wanted = concat!(
        r#"{"total_ok":2,"total_failures":1,"#,
        r#""failures":[{"event":"{\"a\": \"\\u0001\"\n}","error":"innerNewMsgInFlight x"}],"ok":[{"n":1},{}]}"#
    );
    assert_eq!(text(answer.to_json()), wanted);
}

#[test]
fn events_are_one_list() {
    assert_eq!(text(events_json(&[])), r#"{"events":[]}"#);
    assert_eq!(text(events_json(&[b"{}".to_vec(), b"{\"a\":1}".to_vec()])), r#"{"events":[{},{"a":1}]}"#);
}

/// X7.
#[test]
fn the_two_parts_are_framed_byte_for_byte() {
    let multipart = Multipart::new(b"{\"i\":1}", b"{\"events\":[]}", || [0xab; BOUNDARY_BYTES]);
    let boundary = "ab".repeat(BOUNDARY_BYTES);
    assert_eq!(multipart.content_type, format!("multipart/form-data; boundary={boundary}"));
    let body = [multipart.head.as_slice(), b"{\"events\":[]}", multipart.tail.as_slice()].concat();
    let wanted = [
        &format!("--{boundary}"),
        "Content-Disposition: form-data; name=\"info\"; filename=\"info.json\"",
        "Content-Type: application/octet-stream",
        "",
        "{\"i\":1}",
        &format!("--{boundary}"),
        "Content-Disposition: form-data; name=\"events\"; filename=\"events.json\"",
        "Content-Type: application/octet-stream",
        "",
        "{\"events\":[]}",
        &format!("--{boundary}--"),
        "",
    ];
    assert_eq!(text(body.clone()), wanted.join("\r\n"));
    assert_eq!(multipart.content_length(13), body.len());
}

#[test]
fn a_boundary_that_occurs_in_the_data_is_not_used() {
    let first = "11".repeat(BOUNDARY_BYTES);
    let mut bytes = [0x11, 0x22].into_iter();
    let multipart = Multipart::new(b"{}", format!("x{first}").as_bytes(), || [bytes.next().unwrap(); BOUNDARY_BYTES]);
    assert_eq!(multipart.content_type, format!("multipart/form-data; boundary={}1", "22".repeat(BOUNDARY_BYTES)));
    // A source that repeats itself still ends.
    let stuck = Multipart::new(b"{}", format!("{first}1").as_bytes(), || [0x11; BOUNDARY_BYTES]);
    let boundary = stuck.content_type.rsplit('=').next().unwrap();
    assert_eq!(boundary, format!("{first}2"));
    assert!(boundary.len() <= 70 && boundary.bytes().all(|byte| byte.is_ascii_alphanumeric()));
}

#[test]
fn a_text_is_found_wherever_it_stands() {
    let needles: [&[u8]; 6] = [b"a", b"ab", b"aab", b"abab", b"baaa", b"aaaa"];
    let datas: [&[u8]; 10] =
        [b"", b"a", b"b", b"aab", b"abaab", b"ababab", b"bbbbaaa", b"aaabaaab", b"xaaxaaaa", b"baabaaxabab"];
    for needle in needles {
        for data in datas {
            let wanted = data.windows(needle.len()).any(|window| window == needle);
            assert_eq!(occurs(needle, data), wanted, "{needle:?} in {data:?}");
        }
    }
}

fn missing_author() -> Failure {
    Failure { event: "{}".into(), error: "innerNewMsgInFlight event is missing 'author' field".into() }
}

/// X3.
#[test]
fn a_post_whose_events_are_all_invalid_says_so() {
    let body = ErrorBody::nothing_left(&Drops::default(), &[missing_author()]);
    let wanted = concat!(
        r#"{"status":"425","title":"All events to be published have been filtered out","#,
        r#""detail":"failed to produce any of the provided events as they were all filtered out by the following "#,
        r#"filters [], with 1 response failures which are: [innerNewMsgInFlight event is missing 'author' field]","#,
        r#""error_enum":"ErrorStringEnumAllEventsFiltered","error_params":{"filters":"","response_failures":"#,
        r#""[innerNewMsgInFlight event is missing 'author' field]","total_failures":"1"}}"#
    );
    assert_eq!(text(body.to_json()), wanted);
}

/// X11 and X16.
#[test]
fn filters_and_failures_are_listed_in_the_detail() {
    let mut drops = Drops::default();
    drops.add("InjectId");
    drops.add("FilterPreviouslyDeleted");
    drops.add("InjectId");
    let dequeued = Failure {
        event: String::new(),
        error: "innerNewMsgInFlight entity status missing entity.input.dequeued".into(),
    };
    let body = ErrorBody::nothing_left(&drops, &[missing_author(), dequeued]);
    let wanted = "failed to produce any of the provided events as they were all filtered out by the following filters \
         [FilterPreviouslyDeleted:1,InjectId:2], with 2 response failures which are: \
         [innerNewMsgInFlight event is missing 'author' field \
         innerNewMsgInFlight entity status missing entity.input.dequeued]";
    assert_eq!(body.detail, wanted);
    assert_eq!(body.error_params["filters"], "FilterPreviouslyDeleted:1,InjectId:2");
}

/// X6.
#[test]
fn one_event_aged_off_decides_the_enum() {
    let mut drops = Drops::default();
    drops.add("FilterPreviouslyDeleted");
    drops.add("PipelineAgeoff");
    let body = ErrorBody::nothing_left(&drops, &[missing_author()]);
    let wanted = concat!(
        r#"{"status":"425","title":"All events to be published have been filtered out","#,
        r#""detail":"all submitted events aged off immediately, is the submission time older than ageoff?","#,
        r#""error_enum":"ErrorStringEnumAllEventsAgedOffImmediately"}"#
    );
    assert_eq!(text(body.to_json()), wanted);
}

/// X21.
#[test]
fn a_failed_publish_says_how_many_were_stored() {
    let body = ErrorBody::publish_failed(3, &["message too large for kafka: 2410 vs 1000 bytes".to_owned()]);
    let wanted = "successfully submitted 2/3 events with the failed events providing the following errors: \
         message too large for kafka: 2410 vs 1000 bytes;\n";
    assert_eq!((body.status, body.title.as_str(), body.detail.as_str()), (500, "failed ProduceAnyEvents", wanted));
}
