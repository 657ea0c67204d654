use super::super::filter::FilterKey;
use super::*;

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
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
    assert_eq!(text([EVENTS_HEAD, EVENTS_TAIL].concat()), r#"{"events":[]}"#);
}

/// X7.
#[test]
fn the_two_parts_are_framed_byte_for_byte() {
    let multipart = Multipart::new(b"{\"i\":1}", &[b"{\"events\":[]}"], || [0xab; BOUNDARY_BYTES]);
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
    let multipart =
        Multipart::new(b"{}", &[b"", format!("x{first}").as_bytes()], || [bytes.next().unwrap(); BOUNDARY_BYTES]);
    assert_eq!(multipart.content_type, format!("multipart/form-data; boundary={}1", "22".repeat(BOUNDARY_BYTES)));
    // A source that repeats itself still ends.
    let stuck = Multipart::new(b"{}", &[format!("{first}1").as_bytes()], || [0x11; BOUNDARY_BYTES]);
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
