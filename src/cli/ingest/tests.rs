//! Runs straight on a data directory.

use super::*;
use crate::cli::args::{Cli, Command};
use crate::dispatcher::topic::{Action, binary_topic};
use clap::Parser as _;

struct Setup {
    folder: tempfile::TempDir,
    config: Config,
}

fn setup() -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.storage.data_dir = folder.path().join("data");
    config.storage.segment_bytes = 1 << 20;
    // Every blob is a file, so that they can be counted.
    config.streams.inline_threshold = 0;
    std::fs::create_dir_all(folder.path().join("in/below")).unwrap();
    for (name, bytes) in [("a", "first file\n"), ("below/copy", "first file\n"), ("below/b", "second\n"), ("none", "")]
    {
        std::fs::write(folder.path().join("in").join(name), bytes).unwrap();
    }
    Setup { folder, config }
}

impl Setup {
    fn run(&self, flags: &[&str]) -> Exit {
        let path = self.folder.path().join("in");
        let line = ["azulite", "--quiet", "ingest", path.to_str().unwrap(), "--source", "lab"];
        let cli = Cli::parse_from(line.iter().chain(flags));
        let Command::Ingest(args) = &cli.command else { panic!("got {cli:?}") };
        run(&cli.global, &self.config, args)
    }

    /// Events in the source and blobs in the folder.
    fn stored(&self) -> (i64, usize) {
        let Target::Store(opened) = Target::for_reading(&self.config).unwrap() else { panic!("no server runs") };
        let topic = binary_topic(&self.config.events.topic_prefix, "lab", Action::Sourced);
        let events = opened.admin.topic(&topic).map_or(0, |topic| topic.records);
        let mut blobs = 0;
        walk(&self.config.storage.data_dir.join("blobs"), None, &mut |walked| {
            blobs += usize::from(matches!(walked, Walked::File(_)));
            true
        });
        (events, blobs)
    }
}

#[test]
fn twice_is_as_once_whatever_the_time() {
    let setup = setup();
    assert_eq!(setup.run(&[]), Exit::Done);
    assert_eq!(setup.stored(), (2, 2));
    assert_eq!(setup.run(&[]), Exit::Done);
    assert_eq!(setup.run(&["--resume", "--jobs", "1"]), Exit::Done);
    assert_eq!(setup.stored(), (2, 2));
}

#[test]
fn other_references_or_another_time_are_another_submission_of_the_same_bytes() {
    let setup = setup();
    for (flags, events) in [
        (&["--ref", "k=v"][..], 2),
        (&["--ref", "k=w"], 4),
        (&["--ref", "k=v", "--timestamp", "2026-01-02T03:04:05Z"], 6),
        (&["--ref", "k=v", "--timestamp", "2026-01-02T03:04:05Z"], 6),
        (&["--ref", "k=v"], 6),
        (&["--security", "S"], 8),
    ] {
        assert_eq!(setup.run(flags), Exit::Done, "{flags:?}");
        assert_eq!(setup.stored(), (events, 2), "{flags:?}");
    }
}

#[test]
fn a_data_directory_below_the_path_is_left_out() {
    let mut setup = setup();
    setup.config.storage.data_dir = setup.folder.path().join("in/data");
    assert_eq!(setup.run(&[]), Exit::Done);
    assert_eq!(setup.stored(), (2, 2));
}

#[test]
fn a_resumed_run_does_not_read_what_is_done() {
    let setup = setup();
    let missing = setup.folder.path().join("in/locked");
    // A directory whose name is listed as a file cannot be read: the run fails and keeps its journal.
    std::os::unix::fs::symlink("/proc/self/mem", &missing).unwrap();
    let path = setup.folder.path().join("in");
    let line = |resume: bool| {
        let mut line = vec!["azulite".to_owned(), "--quiet".to_owned(), "ingest".to_owned()];
        line.extend([&path, &missing].map(|path| path.to_str().unwrap().to_owned()));
        line.extend(["--source", "lab"].map(str::to_owned));
        line.extend(resume.then(|| "--resume".to_owned()));
        line
    };
    let run_line = |resume| {
        let cli = Cli::parse_from(line(resume));
        let Command::Ingest(args) = &cli.command else { panic!("got {cli:?}") };
        run(&cli.global, &setup.config, args)
    };
    assert_eq!(run_line(false), Exit::Failed);
    assert_eq!(setup.stored(), (2, 2));
    let journals = || std::fs::read_dir(setup.config.storage.data_dir.join("ingest")).unwrap();
    let sizes: Vec<u64> = journals().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
    assert_eq!(sizes, [4 * 16], "four files are done");
    std::fs::remove_file(&missing).unwrap();
    std::fs::write(&missing, "third\n").unwrap();
    assert_eq!(run_line(true), Exit::Done);
    assert_eq!(setup.stored(), (3, 3));
    assert_eq!(journals().count(), 0, "the run went to its end");
}

#[test]
fn lists_are_separated_by_nul_and_may_lack_the_last_one() {
    let mut paths = Vec::new();
    let mut input: &[u8] = b"a b\0\0c\nd\0e";
    let all = listed(&mut input, &mut |path| {
        paths.push(path.to_owned());
        true
    });
    assert!(all.unwrap());
    assert_eq!(paths, [Path::new("a b"), Path::new("c\nd"), Path::new("e")]);
}
