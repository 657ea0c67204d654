use super::*;

fn config(json: &str) -> SourcesConfig {
    serde_json::from_str(json).unwrap()
}

#[test]
fn expiry_texts_are_read_as_listed_in_the_contract() {
    let table = [
        ("", None),
        ("0", None),
        ("0 days", None),
        ("-3 weeks", None),
        ("1 days", Some(86_400_000)),
        ("7 days", Some(604_800_000)),
        ("2 weeks", Some(1_209_600_000)),
        ("2 months", Some(5_184_000_000)),
        ("3 months", Some(7_776_000_000)),
        ("1 years", Some(31_536_000_000)),
        ("+2 days", Some(172_800_000)),
    ];
    for (text, wanted) in table {
        assert_eq!(parse_expiry(text), Ok(wanted), "{text:?}");
    }
}

#[test]
fn other_expiry_texts_are_refused_with_the_part_that_is_wrong() {
    let table = [
        ("7", ExpiryError::Form("7".into())),
        ("00", ExpiryError::Form("00".into())),
        ("days", ExpiryError::Form("days".into())),
        ("1 day", ExpiryError::Unit("day".into())),
        ("1 month", ExpiryError::Unit("month".into())),
        ("1 Days", ExpiryError::Unit("Days".into())),
        ("1  days", ExpiryError::Unit(" days".into())),
        ("1 days ", ExpiryError::Unit("days ".into())),
        (" 1 days", ExpiryError::Unit("1 days".into())),
        ("1.5 days", ExpiryError::Number("1.5".into())),
        ("x days", ExpiryError::Number("x".into())),
        ("99999999999999999999 days", ExpiryError::Number("99999999999999999999".into())),
        ("9000000000000000 years", ExpiryError::TooLong("9000000000000000 years".into())),
    ];
    for (text, wanted) in table {
        assert_eq!(parse_expiry(text), Err(wanted), "{text:?}");
    }
}

#[test]
fn unknown_members_and_nulls_are_ignored() {
    let sources = Sources::check(&config(
        r#"{"lab":{}, "bare":null,
            "short":{"expire_events_after":"2 days","description":"d","icon_class":"bug","references":[{"name":"user"}],
                     "elastic":{"a":1},"exclude_from_backup":true,"partition_unit":"year",
                     "kafka":{"numpartitions":3,"replicationfactor":1,"other":1,
                              "config":{"segment.bytes":1073741824,"cleanup.policy":"compact","x":"y"}}}}"#,
    ))
    .unwrap();
    assert_eq!(sources.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["bare", "lab", "short"]);
    let lab = sources.get("lab").unwrap();
    assert_eq!((lab.expiry_ms, lab.partitions, lab.replicas), (None, 0, 0));
    assert_eq!(lab.topic_config["cleanup.policy"], "compact");
    assert_eq!(lab.topic_config["retention.ms"], "-1");
    let short = sources.get("short").unwrap();
    assert_eq!((short.expiry_ms, short.partitions, short.replicas), (Some(172_800_000), 3, 1));
    assert_eq!(short.topic_config["cleanup.policy"], "delete");
    assert_eq!(short.topic_config["retention.ms"], "172800000");
    assert_eq!(short.topic_config["segment.bytes"], "1073741824");
    assert_eq!(short.topic_config["x"], "y");
    assert_eq!(sources.get("nobody"), None);
}

#[test]
fn sources_checked_elsewhere_are_the_same() {
    let config = config(r#"{"short":{"expire_events_after":"2 days","kafka":{"config":{"retention.ms":"1"}}}}"#);
    let topic =
        SourceTopicConfig { config: BTreeMap::from([("retention.ms".into(), "1".into())]), ..Default::default() };
    let made: Sources = [("short".to_owned(), Source::new(Some(172_800_000), topic))].into_iter().collect();
    assert_eq!(Sources::check(&config), Ok(made));
}

#[test]
fn an_unquoted_zero_is_never() {
    let sources = Sources::check(&config(r#"{"lab":{"expire_events_after":0}}"#)).unwrap();
    assert_eq!(sources.get("lab").unwrap().expiry_ms, None);
}

#[test]
fn checking_gathers_every_mistake() {
    let mistakes = Sources::check(&config(
        r#"{"a b":{"expire_events_after":"1 day"},"ok":{},"short":{"expire_events_after":"soon"}}"#,
    ))
    .unwrap_err();
    let texts: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            r#"source "a b": the name has the character ' ', allowed are A-Z a-z 0-9 _ -"#,
            r#"source "a b": expire_events_after: "day" is not one of days, weeks, months, years"#,
            concat!(
                r#"source "short": expire_events_after: "soon" is neither "0" nor of the form "#,
                r#""<integer> days|weeks|months|years""#
            ),
        ]
    );
}

#[test]
fn source_names_are_topic_parts() {
    let longest = "x".repeat(120);
    for name in ["lab", "A_9-z", "system", longest.as_str()] {
        assert_eq!(check_source_name(name), Ok(()), "{name:?}");
    }
    let over = "x".repeat(121);
    let table = [
        ("", SourceNameError::Empty),
        (over.as_str(), SourceNameError::TooLong { bytes: 121 }),
        ("a.b", SourceNameError::Character('.')),
        ("a b", SourceNameError::Character(' ')),
        ("a/b", SourceNameError::Character('/')),
        ("a*", SourceNameError::Character('*')),
        ("lab\n", SourceNameError::Character('\n')),
        ("läb", SourceNameError::Character('ä')),
    ];
    for (name, wanted) in table {
        assert_eq!(check_source_name(name), Err(wanted), "{name:?}");
    }
}
