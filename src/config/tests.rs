//! Loading as a whole: the shipped file, layers, and what the refusals say.

use super::*;
use std::path::Path;
use std::time::Duration;

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/appliance.toml");

fn load(file: &str, env: &[(&str, &str)], flags: &Flags) -> Result<Loaded, ConfigErrors> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.toml");
    std::fs::write(&path, file).unwrap();
    load_path(&path, env, flags)
}

fn load_path(path: &Path, env: &[(&str, &str)], flags: &Flags) -> Result<Loaded, ConfigErrors> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load_from(flags, env, &[path.to_owned()])
}

/// Each problem as `line or source: key: message`, with the folder of the file cut off.
fn refusals(loaded: Result<Loaded, ConfigErrors>) -> Vec<String> {
    let errors = loaded.expect_err("should be refused");
    let place = |origin: &Origin| match origin {
        Origin::File { line, .. } => line.map_or_else(String::new, |line| line.to_string()),
        Origin::Default | Origin::Environment { .. } | Origin::Flag { .. } => origin.to_string(),
    };
    errors.problems.iter().map(|p| format!("{}: {} = {}: {}", place(&p.origin), p.key, p.value, p.message)).collect()
}

const HOUR: Duration = Duration::from_secs(3_600);

fn from_file(file: &str) -> Vec<String> {
    refusals(load(file, &[], &Flags::default()))
}

#[test]
fn the_shipped_file_says_the_defaults() {
    let loaded = load_path(Path::new(SHIPPED), &[], &Flags::default()).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn the_shipped_file_has_every_key() {
    let shipped: BTreeSet<_> = file::read(Path::new(SHIPPED)).unwrap().into_iter().map(|setting| setting.key).collect();
    let free = [KeyPath::of("consumers"), KeyPath::of("sources"), KeyPath::of("topics")];
    let known: BTreeSet<_> = show::leaves(&Config::default()).into_iter().map(|(key, _)| key).chain(free).collect();
    assert_eq!(shipped, known);
}

#[test]
fn a_consumer_differs_in_what_it_says_and_is_held_to_the_same_ranges() {
    let text = "[delivery]\nlease = \"1h\"\n[consumers.\"a.b\"]\nmax_attempts = 1\nretry_backoff = 2.0\n";
    let config = load(text, &[], &Flags::default()).unwrap().config;
    let own = config.consumers["a.b"].over(&config.delivery);
    let wanted = Delivery { max_attempts: 1, retry_backoff: 2.0, ..config.delivery.clone() };
    assert_eq!((own, wanted.lease), (wanted.clone(), Duration::from_secs(3_600)));
    let refused =
        from_file("[consumers.a]\nmax_attempts = 1001\nretry_backoff = 0.5\n[delivery]\nretry_backoff = 0.0\n");
    assert_eq!(refused.len(), 3, "{refused:?}");
    assert!(refused.iter().any(|text| text.contains("consumers.a.max_attempts = 1001: allowed is a whole number")));
    assert_eq!(from_file("[consumers.a]\nlease = 5\n").len(), 1, "a duration needs a unit");
}

#[test]
fn retries_of_the_crits_sink_are_those_of_its_section_unless_it_is_named_as_a_consumer() {
    let deliveries = |text: &str| load(text, &[], &Flags::default()).unwrap().config.deliveries();
    let section = "[workers.crits]\nenabled = true\nurl = \"http://h\"\nusername = \"u\"\napi_key_file = \"k\"\n\
                   max_attempts = 7\nretry_delay = \"2h\"\n";
    let text = format!("[delivery]\nlease = \"7m\"\nmax_attempts = 1\n[consumers.a]\nretry_delay = \"1s\"\n{section}");
    let of = deliveries(&text);
    let (a, crits) = (&of["a"], &of["crits"]);
    assert_eq!((of.len(), a.max_attempts, a.retry_delay), (2, 1, Duration::from_secs(1)));
    assert_eq!((crits.max_attempts, crits.retry_delay, crits.lease), (7, HOUR * 2, Duration::from_secs(420)));
    assert_eq!(crits.retry_delay_max, HOUR * 2, "else the delay would be cut to an hour");
    let of = deliveries(&format!("{text}[consumers.crits]\nmax_attempts = 2\nretry_delay_max = \"1h\"\n"));
    let crits = &of["crits"];
    assert_eq!((crits.max_attempts, crits.retry_delay, crits.retry_delay_max), (2, HOUR * 2, HOUR));
    assert_eq!(deliveries(&section.replace("true", "false")).len(), 0, "it is somebody else's name then");
    assert_eq!(from_file("[workers.crits]\nmax_attempts = 1001\nretry_delay = \"366d\"\n").len(), 2);
}

#[test]
fn a_lost_task_is_a_lease_that_ended_under_its_old_name() {
    let loaded = load("[events]\nlost_tasks_after = \"7m\"\n", &[], &Flags::default()).unwrap();
    assert_eq!(loaded.config.delivery.lease, Duration::from_secs(420));
}

#[test]
fn the_examples_in_the_shipped_file_are_right() {
    let text = std::fs::read_to_string(SHIPPED).unwrap();
    let (_, examples) = text.split_once("[sources]\n").unwrap();
    let uncommented: String = examples
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|l| l.contains(" = ") || l.starts_with('['))
        .fold(String::new(), |all, line| all + line + "\n");
    let loaded = load(&uncommented, &[], &Flags::default()).unwrap();
    let source = &loaded.config.sources["incidents"];
    assert_eq!(source.expire_events_after.milliseconds(), Some(60 * 86_400_000));
    assert_eq!(source.kafka.numpartitions, 3);
    assert_eq!(source.kafka.config["segment.bytes"], "1073741824");
    assert_eq!(loaded.config.topics["system.status"].config["cleanup.policy"], "delete");
}

#[test]
fn the_sandbox_section_of_the_shipped_file_says_the_defaults() {
    let text = std::fs::read_to_string(SHIPPED).unwrap();
    let (_, section) = text.split_once("# [[workers.sandbox]]\n").unwrap();
    let (section, _) = section.split_once("\n\n").unwrap();
    let lines: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("# ")).collect();
    let head = |count: usize| format!("[[workers.sandbox]]\n{}\n", lines[..count].join("\n"));
    let shipped = load(&head(lines.len()), &[], &Flags::default()).unwrap().config.workers.sandbox.remove(0);
    let least = load(&head(4), &[], &Flags::default()).unwrap().config.workers.sandbox.remove(0);
    assert_eq!(shipped.stages(), least.stages());
    let SandboxWorker { parsers, parse_stages, cleanup, .. } = least.clone();
    let (submit_options, rate_limits) = (least.submit_options.clone(), least.rate_limits.clone());
    assert_eq!(
        (shipped.cleanup(), shipped.rate_limits_of("create")),
        (least.cleanup(), least.rate_limits_of("create"))
    );
    assert_eq!(SandboxWorker { parsers, parse_stages, cleanup, submit_options, rate_limits, ..shipped }, least);
}

#[test]
fn mistakes_in_a_list_of_sandboxes_name_line_item_and_key() {
    let section = |rest: &str| format!("[http]\n[[workers.sandbox]]\nname = \"a\"\nkind = \"cape\"\n{rest}");
    let got = |rest: &str| from_file(&section(rest)).join("\n");
    let missing = got("url = \"http://h\"\n");
    assert!(missing.starts_with("2: workers.sandbox[1] \"a\".token_file"), "{missing}");
    assert!(missing.contains("the key token_file is needed"), "{missing}");
    let scheme = got("url = \"h:80\"\ntoken_file = \"\"\n");
    assert!(scheme.contains("url = \"h:80\": allowed is http://HOST:PORT") && scheme.starts_with("2: "), "{scheme}");
    let parser = got("url = \"http://h\"\ntoken_file = \"\"\nparsers = [\"inof\"]\n");
    assert!(parser.contains("allowed is one of info, signatures"), "{parser}");
    let unknown = got("url = \"http://h\"\ntoken_file = \"\"\nprefetch = 1\n");
    assert!(unknown.contains("prefetch = 1: there is no such key"), "{unknown}");
}

#[test]
fn every_mistake_of_every_sandbox_is_named_with_item_name_and_key() {
    let file = "[[workers.sandbox]]\nname = \"lab\"\nkind = \"joe\"\nurl = \"h:80\"\nprefetch = 1\nmax_pending = 0\n\
                [[workers.sandbox]]\nname = \"two\"\nkind = \"cape\"\nurl = \"http://h\"\ntoken_file = \"\"\n\
                capacity_recheck = \"soon\"\nparsers = [\"inof\"]\n";
    let got = from_file(file);
    let starts = [
        "1: workers.sandbox[1] \"lab\".token_file = (none): the key token_file is needed",
        "1: workers.sandbox[1] \"lab\".kind = \"joe\": allowed is one of cuckoo, cape",
        "1: workers.sandbox[1] \"lab\".prefetch = 1: there is no such key",
        "1: workers.sandbox[1] \"lab\".url = \"h:80\": allowed is http://HOST:PORT",
        "1: workers.sandbox[1] \"lab\".max_pending = 0: allowed is a whole number from 1",
        "1: workers.sandbox[2] \"two\".capacity_recheck = \"soon\": allowed is ",
        "1: workers.sandbox[2] \"two\".parsers = [\"inof\"]: parsers.0: allowed is one of info, signatures",
    ];
    for start in starts {
        assert!(got.iter().any(|line| line.starts_with(start)), "{start}\n{got:#?}");
    }
    assert_eq!(got.len(), starts.len(), "{got:#?}");
}

#[test]
fn without_a_file_the_defaults_count() {
    let loaded =
        Config::load_from(&Flags::default(), std::iter::empty(), &[PathBuf::from("/nonexistent/a.toml")]).unwrap();
    assert_eq!((loaded.config, loaded.file), (Config::default(), None));
}

#[test]
fn a_named_file_that_is_missing_is_refused() {
    let flags = Flags { config: Some("/nonexistent/a.toml".into()), ..Flags::default() };
    let errors = Config::load(&flags, std::iter::empty()).unwrap_err();
    assert_eq!(errors.problems.len(), 1);
    assert!(errors.to_string().contains("/nonexistent/a.toml: cannot be read"), "{errors}");
}

#[test]
fn later_layers_win_and_say_so() {
    let file = "[events]\ntopic_prefix = \"file\"\nmessage_max_bytes = \"1Mi\"\napi_event_fetch_limit = 7\n";
    let env = [
        ("DP__EVENTS__KAFKA__TOPIC_PREFIX", "upstream"),
        ("DP__EVENTS__API_DEFAULT_EVENT_WAIT", "9"),
        ("AZULITE_EVENTS__TOPIC_PREFIX", "007"),
        ("AZULITE_HTTP__LISTEN", "127.0.0.1:1"),
        ("AZULITE_STREAMS__API_ALLOW_DELETE", "true"),
    ];
    let flags = Flags { http: Some("localhost:2".into()), ..Flags::default() };
    let loaded = load(file, &env, &flags).unwrap();
    let events = &loaded.config.events;
    assert_eq!(events.topic_prefix, "007", "text stays text although it looks like a number");
    assert_eq!(events.message_max_bytes, 1 << 20);
    assert_eq!(events.api_event_fetch_limit, 7);
    assert_eq!(events.api_default_event_wait, std::time::Duration::from_secs(9));
    assert_eq!(loaded.config.http.listen.port(), 2);
    assert!(loaded.config.streams.api_allow_delete);

    let origin = |key: &str| loaded.origins.of(&KeyPath::of(key)).to_string();
    assert_eq!(origin("events.topic_prefix"), "environment AZULITE_EVENTS__TOPIC_PREFIX");
    assert_eq!(origin("events.api_default_event_wait"), "environment DP__EVENTS__API_DEFAULT_EVENT_WAIT");
    assert!(origin("events.message_max_bytes").ends_with("a.toml:3"));
    assert_eq!(origin("http.listen"), "flag --http");
    assert_eq!(origin("storage.data_dir"), "default");
}

#[test]
fn all_mistakes_come_out_together_with_their_lines() {
    let file = "[http]\nmax_connections = 0\nlisten = 5\n\n[storage]\nsegment_bytes = \"1.5Mi\"\ndurability = \"often\"\n\n\
                [nonsense]\na = 1\n[events]\ntopic_prefx = \"x\"\n[logging]\nlevel = \"loud\"\n";
    let env = [("AZULITE_EVENTS__PARTITION_COUNT", "many"), ("AZULITE_IDENTIFY__JOBS", "-1")];
    let flags = Flags { log_format: Some("xml".into()), ..Flags::default() };
    let got = refusals(load(file, &env, &flags));
    let expected = [
        "3: http.listen = 5: allowed is an address and port, for example",
        "6: storage.segment_bytes = \"1.5Mi\": allowed is a size from 1Mi to 1Gi",
        "7: storage.durability = \"often\": allowed is \"sync\", \"interval:<milliseconds",
        "10: nonsense.a = 1: there is no such key; here are allowed: http, kafka, storage",
        "12: events.topic_prefx = \"x\": there is no such key; here are allowed: topic_prefix, ",
        "14: logging.level = \"loud\": allowed is one of error, warn, info",
        "environment AZULITE_EVENTS__PARTITION_COUNT: events.partition_count = \"many\": allowed is a whole number from 1 to 1000",
        "environment AZULITE_IDENTIFY__JOBS: identify.jobs = \"-1\": allowed is a whole number from 0 to 1024",
        "flag --log-format: logging.format = \"xml\": allowed is one of text, json",
        "2: http.max_connections = 0: allowed is a whole number from 1 to 65535",
    ];
    assert_eq!(got.len(), expected.len(), "{got:#?}");
    for (got, expected) in got.iter().zip(expected) {
        assert!(got.starts_with(expected), "got      {got}\nexpected {expected}");
    }
}

#[test]
fn a_file_that_is_not_toml_names_the_line() {
    assert_eq!(from_file("[http]\nlisten = \n").len(), 1);
    let got = from_file("[http]\n\nlisten == 1\n");
    assert!(got[0].starts_with("3: "), "{got:?}");
    assert!(got[0].contains("not TOML"), "{got:?}");
}

#[test]
fn a_section_must_be_a_table() {
    let got = from_file("http = 3\n");
    assert_eq!(got, ["1: http = 3: allowed is a table, written as [section] or with dots"]);
    assert_eq!(from_file("[nonsense]\n").len(), 1, "an empty unknown section is refused too");
}

#[test]
fn contradictions_name_both_settings() {
    let got = from_file("[storage]\nsegment_bytes = \"1Mi\"\n");
    assert_eq!(
        got,
        ["2: storage.segment_bytes = \"1Mi\": contradicts storage.commit_bytes = \"8Mi\" (default): \
          a commit never spans two segments"]
    );
    let got = from_file("[http]\nlisten = \"127.0.0.1:9092\"\n");
    assert!(got[0].contains("two listeners cannot share an address"), "{got:?}");
    let got =
        from_file("[events]\nmessage_max_bytes = \"2Mi\"\n[storage]\nqueue_bytes = \"1Mi\"\ncommit_bytes = \"1Mi\"\n");
    assert!(got[0].contains("the largest event must fit into the queue"), "{got:?}");
}

#[test]
fn a_refused_value_is_not_blamed_for_contradictions() {
    let got = from_file("[storage]\nsegment_bytes = \"1Mi\"\ncommit_bytes = \"lots\"\n");
    assert_eq!(got.len(), 1, "{got:?}");
}

#[test]
fn leaving_loopback_needs_a_word() {
    let got = refusals(load("", &[("DP__LISTEN_ADDR", ":8111")], &Flags::default()));
    assert_eq!(got.len(), 1);
    assert!(got[0].starts_with("environment DP__LISTEN_ADDR: http.listen = \"0.0.0.0:8111\": contradicts"), "{got:?}");

    let loaded = load("[http]\nlisten = \"0.0.0.0:1\"\nallow_insecure = true\n", &[], &Flags::default()).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
}

#[test]
fn the_kafka_listener_stays_on_loopback_unless_that_is_meant_and_never_advertises_a_wildcard() {
    let got = refusals(load("[kafka]\nlisten = \"0.0.0.0:9092\"\n", &[], &Flags::default()));
    assert!(
        got[0].contains("2: kafka.listen = \"0.0.0.0:9092\"") && got[0].contains("kafka.allow_insecure"),
        "{got:?}"
    );
    let file = "[kafka]\nlisten = \"0.0.0.0:9092\"\nallow_insecure = true\nadvertised = \"box.lan:9092\"\n";
    let loaded = load(file, &[], &Flags::default()).unwrap();
    assert!(loaded.warnings[0].contains("every topic"), "{:?}", loaded.warnings);
    assert_eq!(loaded.config.kafka.advertised(), Some(("box.lan".to_owned(), 9092)));
    for bad in ["box.lan", "0.0.0.0:9092", "[::]:9092", ":9092", "box:70000", "a b:1"] {
        let got = refusals(load(&format!("[kafka]\nadvertised = \"{bad}\"\n"), &[], &Flags::default()));
        assert!(got[0].contains("kafka.advertised") && got[0].contains("host:port"), "{bad}: {got:?}");
    }
    let file = "[kafka]\nlisten = \"0.0.0.0:9092\"\nallow_insecure = true\n";
    let loaded = load(file, &[], &Flags::default()).unwrap();
    assert!(loaded.warnings[1].contains("clients are told 127.0.0.1"), "{:?}", loaded.warnings);
    let file = "[kafka]\nfetch_memory = \"8Mi\"\n";
    let got = refusals(load(file, &[], &Flags::default()));
    assert!(got[0].contains("kafka.fetch_memory = \"8Mi\": contradicts kafka.fetch_max_bytes"), "{got:?}");

    let flags = Flags { no_kafka: true, ..Flags::default() };
    let loaded = load("", &[], &flags).unwrap();
    assert_eq!(loaded.config.kafka.listen, Listen::Off);
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn sources_and_topics_are_checked_with_their_lines() {
    let got = from_file(
        "[sources.incidents]\nexpire_events_after = \"2 month\"\n[sources.\"a b\"]\nkafka.numpartitions = 1\n\
         [topics.\"system.status\".config]\nretention.ms = \"soon\"\n\"retention.mss\" = 1\n[sources.x]\nretention = 1\n",
    );
    let expected = [
        "2: sources.incidents.expire_events_after = \"2 month\": allowed is \"0\" for never",
        "9: sources.x.retention = 1: there is no such key; here are allowed: expire_events_after, kafka",
        "4: sources.\"a b\" = { .. }: a name may be 1 to 120 characters",
        "6: topics.\"system.status\".config.\"retention.ms\" = \"soon\": allowed is a whole number of at least -1",
        "7: topics.\"system.status\".config.\"retention.mss\" = \"1\": allowed is a topic configuration out of",
    ];
    assert_eq!(got.len(), expected.len(), "{got:#?}");
    for (got, expected) in got.iter().zip(expected) {
        assert!(got.starts_with(expected), "got      {got}\nexpected {expected}");
    }
}

#[test]
fn members_for_other_parts_of_azul_are_left_alone() {
    let file = "[sources.s]\ndescription = \"d\"\nicon_class = \"bug\"\nelastic = { a = { b = 1 } }\n\
                references = [{ name = \"n\", required = true, description = \"x\" }]\n";
    let loaded = load(file, &[], &Flags::default()).unwrap();
    assert_eq!(loaded.config.sources["s"].expire_events_after.milliseconds(), None);
}

#[test]
fn expiry_overrules_topic_settings_of_a_source_and_says_so() {
    let file = "[sources.s.kafka.config]\n\"retention.ms\" = 5\n";
    assert_eq!(load(file, &[], &Flags::default()).unwrap().warnings.len(), 1);
}

#[test]
fn a_secret_under_an_unknown_key_is_not_repeated() {
    let errors = load("[http]\npassword = \"hunter2\"\n", &[], &Flags::default()).unwrap_err();
    assert!(!errors.to_string().contains("hunter2"), "{errors}");
}

#[test]
fn what_is_shown_can_be_used_as_a_file() {
    let file = "[storage]\ndurability = \"interval:200\"\n[sources.s]\nexpire_events_after = \"2 weeks\"\n\
                references = [{ name = \"n\", required = true }]\n[topics.\"system.status\".config]\n\"retention.ms\" = 7\n";
    let first = load(file, &[], &Flags::default()).unwrap();
    let text = first.to_text();
    assert!(text.contains("storage.durability = \"interval:200\""), "{text}");
    assert!(text.contains("a.toml:2"), "{text}");
    assert_eq!(load(&text, &[], &Flags::default()).unwrap().config, first.config);

    let json = first.to_json();
    assert_eq!(json["settings"].as_array().map(Vec::len), Some(first.entries().len()));
    let entry = first.entries().into_iter().find(|entry| entry.key == "http.listen").unwrap();
    assert_eq!((entry.value, entry.origin), ("127.0.0.1:8111".into(), Origin::Default));
}

#[test]
fn documents_of_upstream_stand_between_the_file_and_our_own_variables() {
    let file = "[sources.a]\nexpire_events_after = \"1 days\"\nkafka.numpartitions = 2\n[sources.b]\n";
    let document = "sources: {a: {expire_events_after: 2 days}, c: {expire_events_after: 3 days}}";
    let topics = "[{topic: x, numpartitions: 4, config: {retention.ms: 7}}]";
    let env = [
        ("DP__EVENTS__SOURCES", document),
        ("DP__EVENTS__TOPICS", topics),
        ("AZULITE_SOURCES__c__EXPIRE_EVENTS_AFTER", "4 days"),
        ("AZULITE_TOPICS__x__NUMPARTITIONS", "5"),
    ];
    let loaded = load(file, &env, &Flags::default()).unwrap();
    let days = |name: &str| loaded.config.sources[name].expire_events_after.milliseconds().map(|ms| ms / 86_400_000);
    assert_eq!((days("a"), days("b"), days("c")), (Some(2), None, Some(4)));
    assert_eq!(loaded.config.sources["a"].kafka.numpartitions, 2, "what the document does not say is kept");
    assert_eq!((loaded.config.topics["x"].numpartitions, &*loaded.config.topics["x"].config["retention.ms"]), (5, "7"));
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let origin = |key: &[&str]| {
        let key = KeyPath::new(key.iter().map(|&part| part.to_owned()).collect());
        loaded.origins.of(&key).to_string()
    };
    assert_eq!(origin(&["sources", "a", "expire_events_after"]), "environment DP__EVENTS__SOURCES");
    assert_eq!(origin(&["sources", "c", "expire_events_after"]), "environment AZULITE_SOURCES__c__EXPIRE_EVENTS_AFTER");
}

#[test]
fn mistakes_in_documents_name_variable_key_value_and_what_is_allowed() {
    let env = [
        (
            "DP__EVENTS__SOURCES",
            "sources: {a: {expire_events_after: soon, kafka: {numpartitions: many, config: {x: 1}}}, 'b c': }",
        ),
        ("DP__EVENTS__TOPICS", "[{topic: y, config: {cleanup.policy: keep}}]"),
    ];
    let got = refusals(load("", &env, &Flags::default()));
    let expected = [
        "environment DP__EVENTS__SOURCES: sources.a.expire_events_after = \"soon\": allowed is \"0\" for never",
        "environment DP__EVENTS__SOURCES: sources.a.kafka.numpartitions = \"many\": allowed is a whole number from 0",
        "environment DP__EVENTS__SOURCES: sources.a.kafka.config.x = \"1\": allowed is a topic configuration out of",
        "environment DP__EVENTS__SOURCES: sources.\"b c\" = { .. }: a name may be 1 to 120 characters",
        "environment DP__EVENTS__TOPICS: topics.y.config.\"cleanup.policy\" = \"keep\": allowed is one or more of delete and compact",
    ];
    assert_eq!(got.len(), expected.len(), "{got:#?}");
    for (got, expected) in got.iter().zip(expected) {
        assert!(got.starts_with(expected), "got      {got}\nexpected {expected}");
    }
}

#[test]
fn labels_are_read_from_upstreams_variable_and_from_the_file_with_their_lines() {
    let json = r#"{"classification": {"title": "C", "options": [{"name": "LOW", "priority": "10"}]}}"#;
    let loaded = load("", &[("SECURITY_LABELS", json)], &Flags::default()).unwrap();
    assert_eq!(loaded.config.security.labels.classification.options[0].name, "LOW");
    let file = "[security.labels.classification]\noptions = [{ name = \"LOW\" }, { name = \"low\" }]\n\
                [[security.labels.caveat.options]]\nnam = \"MOD1\"\n";
    let got = refusals(load(file, &[], &Flags::default()));
    let expected = [
        "3: security.labels.caveat.options = [{\"nam\":\"MOD1\"}]: nam: there is no such key; here are allowed: name, aliases",
        "2: security.labels.classification.options = \"low\": is there twice",
    ];
    assert_eq!(got.len(), expected.len(), "{got:#?}");
    for (got, expected) in got.iter().zip(expected) {
        assert!(got.starts_with(expected), "got      {got}\nexpected {expected}");
    }
}

#[test]
fn what_is_missed_at_the_end_of_a_document_is_shown_with_its_last_line() {
    for (text, shown) in [("sources: [", "\"sources: [\""), ("sources:\n  a: {\n", "\"a: {\"")] {
        let got = refusals(load("", &[("DP__EVENTS__SOURCES", text)], &Flags::default()));
        assert!(got[0].contains(&format!("sources = {shown}: line ")), "{text:?}: {got:?}");
    }
}
