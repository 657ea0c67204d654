use super::values::{unescaped, unescaped_some};
use super::*;
use crate::admin::records::StartAt;
use clap::error::ErrorKind;

const HASH: &str = "AF1349B9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::of(std::iter::once("azulite").chain(line.split_whitespace()).map(OsString::from))
}

#[test]
fn the_definitions_are_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_and_flag_has_help() {
    fn walk(command: &clap::Command) {
        let name = command.get_name();
        assert!(command.get_about().is_some(), "{name} has no help");
        for arg in command.get_arguments() {
            assert!(arg.get_help().is_some(), "{name} {} has no help", arg.get_id());
        }
        command.get_subcommands().filter(|sub| sub.get_name() != "help").for_each(walk);
    }
    walk(&Cli::command());
}

#[test]
fn global_flags_go_before_or_after_the_command() {
    for line in [
        "--json --config a.toml topics list",
        "topics list --json --config a.toml",
        "topics --json list --config a.toml",
    ] {
        let cli = parse(line).unwrap();
        assert!(cli.global.json, "{line}");
        assert_eq!(cli.flags().config, Some(PathBuf::from("a.toml")), "{line}");
    }
}

#[test]
fn a_topic_is_configured_with_the_flag_that_names_the_file_elsewhere() {
    for line in [
        "--config a.toml topics create t --config retention.ms=1 --config=cleanup.policy=compact",
        "topics create --config retention.ms=1 t --topic-config cleanup.policy=compact --config a.toml",
        "topics --config=a.toml alter t --config retention.ms=1 --config cleanup.policy=compact",
    ] {
        let cli = parse(line).unwrap();
        assert_eq!(cli.flags().config, Some(PathBuf::from("a.toml")), "{line}");
        let Command::Topics(Topics { command }) = &cli.command else { panic!("got {cli:?}") };
        let (TopicsCommand::Create { topic_config, .. } | TopicsCommand::Alter { topic_config, .. }) = command else {
            panic!("got {cli:?}")
        };
        let pairs = [("retention.ms", "1"), ("cleanup.policy", "compact")];
        assert_eq!(*topic_config, pairs.map(|(name, value)| (name.to_owned(), value.to_owned())), "{line}");
    }
    let cli = parse("topics alter t --unset retention.ms").unwrap();
    assert_eq!(cli.flags().config, None);
    let cli = parse("--config a=b.toml topics list").unwrap();
    assert_eq!(cli.flags().config, Some(PathBuf::from("a=b.toml")));
    let refused = parse("topics create t --config =1").unwrap_err();
    assert!(refused.to_string().contains("=1"), "{refused}");
}

#[test]
fn serve_flags_reach_the_configuration() {
    let flags = parse("serve --http 127.0.0.1:1 --no-kafka --data-dir d --log-format json").unwrap().flags();
    assert_eq!((flags.http.as_deref(), flags.no_kafka), (Some("127.0.0.1:1"), true));
    assert_eq!((flags.data_dir, flags.log_format.as_deref()), (Some(PathBuf::from("d")), Some("json")));
}

#[test]
fn ingest_takes_several_references() {
    let cli = parse("ingest a - --source s --ref k=v=w --ref e= --jobs 3 --resume").unwrap();
    let Command::Ingest(ingest) = cli.command else { panic!("got {:?}", cli.command) };
    assert_eq!(ingest.references, [("k".into(), "v=w".into()), ("e".into(), String::new())]);
    assert_eq!((ingest.paths.len(), ingest.label.as_str(), ingest.jobs), (2, "content", Some(3)));
}

#[test]
fn hashes_are_checked_and_lowered() {
    let cli = parse(&format!("get {HASH} -o f")).unwrap();
    let Command::Get(get) = cli.command else { panic!("got {:?}", cli.command) };
    assert_eq!(get.sha256, HASH.to_ascii_lowercase());
    assert_eq!(parse("get abc").unwrap_err().kind(), ErrorKind::ValueValidation);
}

#[test]
fn sizes_on_the_command_line_are_those_of_the_file() {
    let cli = parse("bench log --size 2Ki").unwrap();
    assert!(
        matches!(&cli.command, Command::Bench(Bench { command: BenchCommand::Log { size: Some(2048), .. } })),
        "{cli:?}"
    );
}

#[test]
fn bench_ingest_takes_paths() {
    let cli = parse("bench ingest a b --jobs 2").unwrap();
    let Command::Bench(Bench { command: BenchCommand::Ingest { paths, jobs, .. } }) = &cli.command else {
        panic!("got {cli:?}")
    };
    assert_eq!((paths.len(), *jobs), (2, Some(2)));
}

#[test]
fn escapes_stand_for_bytes() {
    for (text, bytes) in [("", &b""[..]), ("\\n", b"\n"), ("a\\tb\\\\\\0", b"a\tb\\\0"), ("\\xff;\\r", b"\xff;\r")] {
        assert_eq!(unescaped(text).unwrap().as_ref(), bytes, "{text}");
    }
    for bad in ["\\", "\\q", "\\x1", "\\xzz", "\\xé"] {
        assert!(unescaped(bad).is_err(), "{bad}");
    }
    assert!(unescaped_some("").is_err());
}

#[test]
fn a_place_in_a_topic_is_a_word_an_offset_or_a_time() {
    for (text, want) in [
        ("latest", StartAt::Latest),
        ("12", StartAt::Offset(12)),
        ("@5", StartAt::Time(5)),
        ("1970-01-01T00:00:01Z", StartAt::Time(1000)),
    ] {
        let cli = parse(&format!("consume t --from {text}")).unwrap();
        let Command::Consume(consume) = cli.command else { panic!("got {:?}", cli.command) };
        assert_eq!(consume.from, want, "{text}");
    }
    for bad in ["-1", "yesterday", "@x", "1970-01-01"] {
        assert_eq!(parse(&format!("consume t --from {bad}")).unwrap_err().kind(), ErrorKind::ValueValidation, "{bad}");
    }
}

#[test]
fn numbers_below_zero_are_told_what_is_allowed() {
    for (line, allowed) in [
        ("groups reset g --to -5", "must be earliest, latest, an offset"),
        ("consume t --count -1", "must be a whole number from 1 on"),
        ("consume t --count 0", "must be a whole number from 1 on"),
        ("consume t --partition -1", "-1 is not in 0.."),
        ("topics create t --partitions -3", "-3 is not in 1..=10000"),
        ("bench log --size -1", "a size: a whole number"),
    ] {
        let refused = parse(line).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ValueValidation, "{line}: {refused}");
        assert!(refused.to_string().contains(allowed), "{line}: {refused}");
    }
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    for line in [
        "serve --kafka 127.0.0.1:1 --no-kafka",
        "migrate --dry-run --undo",
        "produce t --key k --key-separator :",
        "produce t --file f --key-separator :",
    ] {
        assert_eq!(parse(line).unwrap_err().kind(), ErrorKind::ArgumentConflict, "{line}");
    }
}

#[test]
fn usage_errors_end_with_two() {
    for line in
        ["", "nonsense", "serve --nonsense", "ingest a", "--log-level loud serve", "ingest a --source s --ref =v"]
    {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
    assert_eq!(parse("--help").unwrap_err().exit_code(), 0);
}
