use super::*;

const LIMITS: Limits = Limits { fetch_limit: 1000, default_wait_secs: 5 };

fn pairs(query: &str) -> Vec<(String, String)> {
    let pair = |piece: &str| {
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        (name.to_owned(), value.to_owned())
    };
    query.split('&').filter(|piece| !piece.is_empty()).map(pair).collect()
}

fn get(model: &str, query: &str) -> Result<GetParams, String> {
    GetParams::parse(model, &pairs(query), &LIMITS).map_err(|refused| refused.to_string())
}

fn binary(query: &str) -> GetParams {
    get("binary", query).unwrap()
}

fn refusal(model: &str, query: &str) -> String {
    get(model, query).unwrap_err()
}

/// Section 1.3: what is there when nothing is asked for.
#[test]
fn defaults_are_those_of_the_contract() {
    let plain = binary("r-live=true");
    let wanted = GetParams {
        model: Model::Binary,
        name: String::new(),
        version: String::new(),
        deployment_key: String::new(),
        count: 1,
        deadline: Duration::from_secs(5),
        avro: false,
        expedite: false,
        live: true,
        historic: false,
        require_content: false,
        sources: vec![],
        actions: vec![],
        deny_actions: vec![],
        deny_self: false,
        under_content_size: None,
        over_content_size: None,
        streams: BTreeMap::new(),
        max_security: String::new(),
        reset: false,
        debug: false,
        filter_ignored: false,
    };
    assert_eq!(plain, wanted);
}

/// Section 1.3, one line per row.
#[test]
fn every_current_name_is_read() {
    type Check = fn(&GetParams) -> bool;
    let table: [(&str, Check); 26] = [
        ("name=Carver", |p| p.name == "Carver"),
        ("version=1.2", |p| p.version == "1.2"),
        ("deployment_key=d", |p| p.deployment_key == "d"),
        ("deployment-key=d", |p| p.deployment_key.is_empty()),
        ("count=7", |p| p.count == 7),
        ("deadline=30", |p| p.deadline == Duration::from_secs(30)),
        ("avro-format=1", |p| p.avro),
        ("avro_format=1", |p| !p.avro),
        ("is-task=junk", |p| p.live),
        ("r-expedite=t", |p| p.expedite),
        ("r-historic=T", |p| p.historic),
        ("r-content=TRUE", |p| p.require_content && p.actions == [Action::Sourced, Action::Extracted]),
        ("r-source=b&r-source=a&r-source=", |p| p.sources == ["b", "a", ""]),
        ("r-action=mapped&r-action=sourced", |p| p.actions == [Action::Mapped, Action::Sourced]),
        ("d-action=enriched", |p| p.deny_actions == [Action::Enriched] && p.actions.is_empty()),
        ("d-self=True", |p| p.deny_self),
        ("r-under-content-size=209715200", |p| p.under_content_size == Some(209_715_200)),
        ("r-over-content-size=6", |p| p.over_content_size == Some(6)),
        ("r-under-content-size=5&r-over-content-size=5", |p| p.under_content_size == p.over_content_size),
        ("r-under-content-size=-5&r-over-content-size=5", |p| {
            (p.under_content_size, p.over_content_size) == (None, Some(5))
        }),
        ("max-security=MEDIUM MOD1", |p| p.max_security == "MEDIUM MOD1"),
        ("reset=true", |p| p.reset),
        ("debug=true", |p| p.debug),
        ("filter=x", |p| p.filter_ignored && p.live && !p.historic),
        ("nobody=knows&count=2&count=3", |p| p.count == 2),
        ("r-content=&count=&deadline=&r-under-content-size=&debug=", |p| p.count == 1 && !p.debug),
    ];
    for (query, check) in table {
        let read = binary(&format!("r-live=true&{query}"));
        assert!(check(&read), "{query}: {read:?}");
    }
}

#[test]
fn booleans_are_spelled_in_twelve_ways() {
    for yes in ["1", "t", "T", "TRUE", "true", "True"] {
        assert!(binary(&format!("r-live={yes}")).live, "{yes}");
    }
    for no in ["0", "f", "F", "FALSE", "false", "False", ""] {
        assert!(!binary(&format!("r-historic=1&r-live={no}")).live, "{no}");
    }
    for neither in ["yes", "tRUE", "2", " true", "on"] {
        let wanted = format!("bad parameter for r-live: parsing \"{neither}\": neither true nor false");
        assert_eq!(refusal("binary", &format!("r-live={neither}")), wanted);
    }
}

#[test]
fn integers_are_a_sign_and_digits() {
    for (text, wanted) in [("+3", 3), ("007", 7), ("-3", 1), ("0", 1), ("5000", 1000), ("9223372036854775807", 1000)] {
        assert_eq!(binary(&format!("r-live=1&count={text}")).count, wanted, "{text}");
    }
    for text in ["1.0", "1e3", "0x10", "+", "-", "++1", "1_000", " 1", "١"] {
        let wanted = format!("bad parameter for count: parsing \"{text}\": not an integer");
        assert_eq!(refusal("binary", &format!("r-live=1&count={text}")), wanted);
    }
    let wanted = "bad parameter for deadline: parsing \"9223372036854775808\": out of range";
    assert_eq!(refusal("binary", "r-live=1&deadline=9223372036854775808"), wanted);
}

#[test]
fn deadline_zero_and_below_is_one_sweep_and_a_long_one_is_cut() {
    for (text, secs) in [("0", 0), ("-9", 0), ("1", 1), ("9223372036854775807", 86_400)] {
        let read = binary(&format!("r-live=1&deadline={text}"));
        assert_eq!(read.deadline, Duration::from_secs(secs), "{text}");
    }
}

/// X8.
#[test]
fn refusals_have_the_details_of_x8() {
    let exact = [
        ("binary", "name=p&version=1", "requires at least one of r-expedite, r-live or r-historic"),
        ("status", "r-expedite=true", "can only r-expedite with binary events"),
        ("report", "r-live=true", "bad parameter for model: not a registered model type: report"),
        ("binary", "r-live=true&r-content=true&r-action=sourced", "cannot combine r-action with r-content or d-action"),
    ];
    for (model, query, detail) in exact {
        assert_eq!(refusal(model, query), detail, "{query}");
    }
    let starts = [
        ("r-live=maybe", "bad parameter for r-live: "),
        ("r-live=true&r-under-content-size=10&r-over-content-size=20", "bad parameter for r-over-content-size: "),
        ("r-live=true&r-action=requested", "bad parameter for r-action: "),
    ];
    for (query, start) in starts {
        let detail = refusal("binary", query);
        assert!(detail.starts_with(start) && detail.len() > start.len(), "{query}: {detail}");
    }
}

/// Section 1.4: each query fails at its own row and at every later one; the earliest row is reported.
#[test]
fn the_first_failing_row_of_the_order_is_reported() {
    let rows = [
        ("avro-format=x", "bad parameter for avro-format: "),
        ("r-expedite=x", "bad parameter for r-expedite: "),
        ("r-expedite=1", "can only r-expedite with binary events"),
        ("r-live=x", "bad parameter for r-live: "),
        ("r-historic=x", "bad parameter for r-historic: "),
        ("r-live=0", "requires at least one of r-expedite, r-live or r-historic"),
        ("r-live=1&count=x", "bad parameter for count: "),
        ("r-live=1&deadline=x", "bad parameter for deadline: "),
        ("r-live=1&r-under-content-size=x", "bad parameter for r-under-content-size: "),
        ("r-live=1&r-over-content-size=x", "bad parameter for r-over-content-size: "),
        ("r-live=1&r-under-content-size=1&r-over-content-size=2", "bad parameter for r-over-content-size: "),
        ("r-live=1&r-content=x", "bad parameter for r-content: "),
        ("r-live=1&r-content=1&d-action=x", "cannot combine r-action with r-content or d-action"),
        ("r-live=1&r-action=x&r-action=y", "bad parameter for r-action: not a binary action: x"),
        ("r-live=1&r-action=", "bad parameter for r-action: not a binary action: "),
        ("r-live=1&d-action=x", "bad parameter for d-action: not a binary action: x"),
        ("r-live=1&d-self=x", "bad parameter for d-self: "),
        ("r-live=1&reset=x", "bad parameter for reset: "),
        ("r-live=1&debug=x", "bad parameter for debug: "),
    ];
    for (at, (query, start)) in rows.iter().enumerate() {
        let later: Vec<&str> = rows[at..].iter().map(|(query, _)| *query).collect();
        // Only queries that do not change what the row itself reads can follow it: the first occurrence counts.
        for query in [(*query).to_owned(), later.join("&")] {
            let detail = refusal("status", &query);
            assert!(detail.starts_with(start), "{query}: {detail}");
        }
    }
    assert_eq!(refusal("Binary", &rows[0].0.repeat(2)), "bad parameter for model: not a registered model type: Binary");
}

#[test]
fn actions_are_checked_for_every_model() {
    assert!(refusal("download", "r-live=1&r-action=requested").starts_with("bad parameter for r-action: "));
    assert_eq!(get("download", "r-live=1&r-action=mapped").unwrap().actions, [Action::Mapped]);
}

#[test]
fn r_content_stands_only_against_actions_that_are_given() {
    assert_eq!(binary("r-live=1&r-content=0&r-action=mapped").actions, [Action::Mapped]);
    assert_eq!(
        refusal("binary", "r-live=1&r-content=1&r-action="),
        "cannot combine r-action with r-content or d-action"
    );
}

#[test]
fn stream_values_are_split_at_commas() {
    type Label = (&'static str, &'static [&'static str]);
    let table: [(&str, &[Label]); 9] = [
        ("r-streams=content", &[("content", &[])]),
        ("r-streams=content,", &[("content", &[])]),
        ("r-streams=,content,,text/,", &[("content", &["text/"])]),
        ("r-streams=content,executable/,document/pdf", &[("content", &["executable/", "document/pdf"])]),
        ("r-streams=content,a&r-streams=content,b", &[("content", &["b"])]),
        ("r-streams=*,image/&r-streams=pcap", &[("*", &["image/"]), ("pcap", &[])]),
        ("r-streams=", &[]),
        ("r-streams=,,", &[]),
        ("f-data-type=text,x", &[("text", &["x"])]),
    ];
    for (query, wanted) in table {
        let wanted: BTreeMap<String, Vec<String>> = wanted
            .iter()
            .map(|(label, prefixes)| ((*label).to_owned(), prefixes.iter().map(|p| (*p).to_owned()).collect()))
            .collect();
        assert_eq!(binary(&format!("r-live=1&{query}")).streams, wanted, "{query}");
    }
}

/// X24 and the alias column of section 1.3.
#[test]
fn old_names_mean_the_current_ones() {
    let table = [
        (
            "name=p&version=1&count=5&timeout=1&ignore-historic=true&f-max-content-size=4",
            "name=p&version=1&count=5&deadline=1&r-expedite=true&r-live=true&r-under-content-size=4",
        ),
        ("timeout=3", "deadline=3&r-expedite=1&r-live=1&r-historic=1"),
        ("ignore-historic=false", "r-expedite=1&r-live=1&r-historic=1"),
        ("requires-data=true", "r-content=true&r-expedite=1&r-live=1&r-historic=1"),
        ("f-allow-event-type=mapped", "r-action=mapped&r-expedite=1&r-live=1&r-historic=1"),
        ("f-deny-event-type=mapped", "d-action=mapped&r-expedite=1&r-live=1&r-historic=1"),
        ("f-self=true", "d-self=true&r-expedite=1&r-live=1&r-historic=1"),
        ("f-min-content-size=4", "r-over-content-size=4&r-expedite=1&r-live=1&r-historic=1"),
        ("f-data-type=content,x", "r-streams=content,x&r-expedite=1&r-live=1&r-historic=1"),
        ("r-live=1&ignore-historic=false", "r-live=1&r-historic=1"),
        ("r-live=1&ignore-historic=true", "r-live=1"),
        ("r-historic=1&ignore-historic=true", "r-historic=1"),
        ("r-historic=1&r-action=mapped&f-allow-event-type=sourced", "r-historic=1&r-action=mapped"),
        ("r-historic=1&deadline=7&timeout=3&f-max-content-size=", "r-historic=1&deadline=7"),
    ];
    for (old, current) in table {
        assert_eq!(binary(old), binary(current), "{old}");
    }
    let status = get("status", "timeout=3").unwrap();
    assert_eq!((status.expedite, status.live, status.historic), (false, true, true));
    let filtered = binary("filter=x");
    assert!(filtered.filter_ignored && filtered.expedite && filtered.live && filtered.historic);
}

#[test]
fn a_flow_flag_that_is_false_is_no_old_client() {
    let wanted = "requires at least one of r-expedite, r-live or r-historic";
    assert_eq!(refusal("binary", "timeout=3&r-live=false"), wanted);
    assert_eq!(refusal("binary", "name=p&count=3&deadline=1"), wanted);
}

#[test]
fn a_bad_old_value_is_reported_under_the_name_that_was_sent() {
    assert_eq!(refusal("binary", "timeout=x"), "bad parameter for timeout: parsing \"x\": not an integer");
    assert!(refusal("binary", "ignore-historic=x").starts_with("bad parameter for ignore-historic: "));
    assert!(refusal("binary", "f-allow-event-type=x").starts_with("bad parameter for f-allow-event-type: "));
}

#[test]
fn texts_and_repeats_have_bounds() {
    let longest = "x".repeat(TEXT_MAX_BYTES);
    assert_eq!(binary(&format!("r-live=1&name={longest}")).name, longest);
    for name in ["name", "version", "deployment_key", "max-security", "r-source", "r-streams"] {
        let wanted = format!("bad parameter for {name}: 4097 bytes, at most 4096");
        assert_eq!(refusal("binary", &format!("r-live=1&{name}={longest}x")), wanted);
    }
    for name in ["r-source", "r-action", "d-action", "r-streams"] {
        let many = format!("&{name}=mapped").repeat(REPEATS_MAX + 1);
        let wanted = format!("bad parameter for {name}: given 1025 times, at most 1024");
        assert_eq!(refusal("binary", &format!("r-live=1{many}")), wanted);
    }
    let three = format!("&r-source={}", "x".repeat(3000)).repeat(3);
    let wanted = "bad parameter for r-source: 9003 bytes together, at most 8192";
    assert_eq!(refusal("binary", &format!("r-live=1{three}")), wanted);
}

#[test]
fn an_error_repeats_only_the_start_of_a_long_value() {
    let detail = refusal("binary", &format!("r-live={}", "ä".repeat(5000)));
    let wanted = format!("bad parameter for r-live: parsing \"{}...\": neither true nor false", "ä".repeat(80));
    assert_eq!(detail, wanted);
}

#[test]
fn post_flags_are_compared_literally() {
    for (text, wanted) in [("true", true), ("1", true), ("True", false), ("t", false), ("yes", false), ("", false)] {
        let query = format!("model=binary&avro-format={text}&sync={text}&include_ok={text}&pause_plugins={text}&x=1");
        let read = PostParams::parse(&pairs(&query));
        let wanted = PostParams {
            model: Ok(Model::Binary),
            avro: wanted,
            sync: wanted,
            include_ok: wanted,
            pause_plugins: wanted,
        };
        assert_eq!(read, wanted, "{text}");
    }
}

#[test]
fn a_post_without_a_known_model_keeps_the_text() {
    assert_eq!(PostParams::parse(&pairs("model=scrape&model=binary")).model, Err("scrape".to_owned()));
    assert_eq!(PostParams::parse(&[]).model, Err(String::new()));
}

#[test]
fn parameters_are_written_as_the_query_that_gives_them_again() {
    for (model, query) in [
        (
            "binary",
            "name=p&version=1&count=7&deadline=9&r-content=1&r-expedite=1&r-live=1&r-historic=1&debug=1&reset=1",
        ),
        ("binary", "r-live=1&r-source=a&r-source=&r-source=b&r-action=mapped&d-action=sourced&d-self=1&avro-format=1"),
        ("binary", "r-live=1&r-streams=content,text/,image/&r-streams=*&r-under-content-size=9&r-over-content-size=0"),
        ("status", "r-live=1&max-security=LOW%20MOD1&deployment_key=d&deadline=-4&count=-1"),
        ("binary", "name=old&ignore-historic=true&f-max-content-size=4&timeout=3&f-data-type=content"),
    ] {
        let read = |pairs: &[(String, String)]| GetParams::parse(model, pairs, &LIMITS).unwrap();
        let pairs: Vec<(String, String)> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let params = read(&pairs);
        assert_eq!(read(&params.to_query()), params, "{query}");
    }
}
