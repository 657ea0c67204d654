use super::super::super::model::{BinaryEvent, Datastream, DownloadEvent, Event, StatusEvent};
use super::super::super::params::Limits;
use super::*;

fn params(query: &str) -> GetParams {
    let pairs: Vec<(String, String)> = query
        .split('&')
        .filter_map(|piece| piece.split_once('='))
        .chain([("r-historic", "true")])
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    GetParams::parse("binary", &pairs, &Limits { fetch_limit: 1000, default_wait_secs: 5 }).unwrap()
}

fn stream(label: &str, size: u64, file_format: &str) -> Datastream {
    Datastream { label: label.into(), size, file_format: file_format.into(), ..Datastream::default() }
}

/// E1 of section 11 with these streams and this action.
fn binary(action: &str, datastreams: Vec<Datastream>) -> BinaryEvent {
    let mut event = BinaryEvent { action: action.into(), ..BinaryEvent::default() };
    event.author.name = "amy".into();
    event.source.name = "lab".into();
    event.entity.datastreams = datastreams;
    event
}

fn sourced() -> BinaryEvent {
    binary("sourced", vec![stream("content", 5, "text/plain")])
}

fn checked(query: &str, event: BinaryEvent) -> Option<&'static str> {
    check(&params(query), &Event::Binary(Box::new(event)))
}

/// X12. (`r-source=other` and `r-action=enriched` never read the topic; the filter agrees for other doors.)
#[test]
fn filter_accounting_is_that_of_x12() {
    let table = [
        ("", None),
        ("r-under-content-size=5", None),
        ("r-under-content-size=4", Some("reject_content_too_large")),
        ("r-over-content-size=5", None),
        ("r-over-content-size=6", Some("reject_content_too_small")),
        ("r-streams=content,", None),
        ("r-streams=content,text/", None),
        ("r-streams=content,image/,text/", None),
        ("r-streams=content,executable/&r-streams=pcap", Some("reject_file_format")),
        ("r-streams=content&r-streams=pcap", Some("reject_stream")),
        ("r-streams=pcap", Some("reject_stream")),
        ("r-streams=*,image/", Some("reject_file_format")),
        ("r-streams=*,text/", None),
        ("name=amy&d-self=true", Some("reject_self")),
        ("name=amy", None),
        ("name=amy2&d-self=true", None),
        ("d-action=sourced", Some("reject_event_type")),
        ("d-action=mapped", None),
        ("r-source=other", Some("reject_source")),
        ("r-source=other&r-source=lab", None),
        ("r-source=", Some("reject_source")),
        ("r-action=enriched", Some("reject_event_type")),
        ("r-action=enriched&r-action=sourced", None),
        ("r-content=true", None),
    ];
    for (query, wanted) in table {
        assert_eq!(checked(query, sourced()), wanted, "{query}");
    }
}

#[test]
fn every_stream_has_to_match_some_label() {
    let two = || binary("augmented", vec![stream("content", 5, "text/plain"), stream("pcap", 9, "network/pcap")]);
    let table = [
        ("r-streams=content", Some("reject_stream")),
        ("r-streams=content&r-streams=pcap", None),
        ("r-streams=content&r-streams=*", None),
        ("r-streams=content&r-streams=*,x", Some("reject_file_format")),
        ("r-streams=*", None),
        ("r-streams=content&r-streams=pcap&r-streams=text", Some("reject_stream")),
    ];
    for (query, wanted) in table {
        assert_eq!(checked(query, two()), wanted, "{query}");
    }
}

#[test]
fn an_event_without_streams_passes_one_label_but_not_a_need_for_content() {
    let none = || binary("enriched", vec![]);
    let table = [
        ("r-streams=content", None),
        ("r-streams=content&r-streams=pcap", Some("reject_stream")),
        ("r-under-content-size=209715200", Some("reject_no_content")),
        ("r-over-content-size=1", Some("reject_no_content")),
        ("r-content=true", Some("reject_event_type")),
    ];
    for (query, wanted) in table {
        assert_eq!(checked(query, none()), wanted, "{query}");
    }
    assert_eq!(checked("r-content=true", binary("extracted", vec![])), Some("reject_no_content"));
    let pcap = || binary("sourced", vec![stream("pcap", 1, "")]);
    assert_eq!(checked("r-under-content-size=4", pcap()), Some("reject_no_content"));
}

#[test]
fn hits_count_streams_rather_than_labels() {
    let twice = binary("sourced", vec![stream("content", 1, ""), stream("content", 1, "")]);
    assert_eq!(checked("r-streams=content&r-streams=pcap", twice), None);
}

/// Each query breaks its own step and every later one; the first is reported.
#[test]
fn the_first_broken_rule_is_reported() {
    let event = || binary("mapped", vec![stream("content", 5, "text/plain"), stream("text", 5, "text/plain")]);
    let all = "name=amy&r-source=x&r-action=sourced&d-action=mapped&d-self=1&r-under-content-size=4&r-streams=text,y";
    let steps = [
        ("r-source=x&", "reject_source"),
        ("r-action=sourced&", "reject_event_type"),
        ("d-action=mapped&", "reject_event_type"),
        ("d-self=1&", "reject_self"),
        ("r-under-content-size=4&", "reject_content_too_large"),
        ("", "reject_stream"),
    ];
    let mut query = all.to_owned();
    for (step, reason) in steps {
        assert_eq!(checked(&query, event()), Some(reason), "{query}");
        query = query.replace(step, "");
    }
    assert_eq!(checked("r-over-content-size=6&r-streams=text,y", event()), Some("reject_content_too_small"));
    // A stream is judged before the next one is looked at.
    let later = || binary("sourced", vec![stream("text", 5, "image/png"), stream("content", 5, "text/plain")]);
    assert_eq!(checked("r-under-content-size=4&r-streams=*,text/", later()), Some("reject_file_format"));
}

#[test]
fn a_status_is_judged_by_its_input_without_the_streams() {
    let mut event = StatusEvent::default();
    event.author.name = "Carver".into();
    event.entity.input = sourced();
    let table = [
        ("r-source=other", Some("reject_source")),
        ("r-action=mapped", Some("reject_event_type")),
        ("d-action=sourced", Some("reject_event_type")),
        ("r-content=true", None),
        ("r-content=true&r-source=lab", None),
        ("name=amy&d-self=1", Some("reject_self")),
        ("name=Carver&d-self=1", None),
        ("r-under-content-size=4&r-streams=pcap", None),
    ];
    for (query, wanted) in table {
        assert_eq!(check(&params(query), &Event::Status(Box::new(event.clone()))), wanted, "{query}");
    }
    // `r-content` stands for two actions, and without streams for nothing more.
    event.entity.input.action = "mapped".into();
    assert_eq!(check(&params("r-content=true"), &Event::Status(Box::new(event))), Some("reject_event_type"));
}

#[test]
fn other_models_pass() {
    let mut event = DownloadEvent::default();
    event.author.name = "amy".into();
    let query = "name=amy&d-self=1&r-source=x&r-action=mapped&r-under-content-size=1";
    assert_eq!(check(&params(query), &Event::Download(Box::new(event))), None);
}
