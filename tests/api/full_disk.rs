//! A full disk is a state, not a crash: writes are refused early, reads go on, and it mends itself.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::events::{e1, sourced};
use crate::support::random::Random;
use crate::support::{Config, Server, await_that};

const T1: &[u8] = b"azulite sample line one\n";
const STREAM: &str = "/api/v3/stream/lab/content";
const T1_SHA256: &str = "7fb5af0ab20332773c5553f3f940141bd933e205e8c192505fad4ab9e59f8dcb";

fn ids(server: &Server, version: &str) -> Vec<String> {
    server.fetch("binary/passive", &format!("name=d&version={version}&count=1000&deadline=0&r-historic=true")).ids()
}

#[test]
fn a_reserve_larger_than_the_disk_refuses_writes_and_lets_reads_go_on() {
    let mut server = Server::start();
    server.publish_ok("binary", &sourced(&"1".repeat(64), "lab"));
    server.client().post(STREAM, T1).expect_status(200);
    server.stop();

    let everything = Config::examples().set("storage", "reserve", "\"1000TB\"");
    server.configure(&everything);
    server.announce("reserve");
    server.announce("disk");
    server.announce("space");
    server.launch();
    let answer = server.publish("binary", "", &e1()).expect_any_error(507);
    assert!(answer.header("transfer-encoding").is_none(), "a plain, sized answer: {answer:?}");
    server.client().post(STREAM, b"other bytes").expect_any_error(507);
    assert_eq!(ids(&server, "1"), ["1".repeat(64)], "reading and moving positions go on");
    assert!(ids(&server, "1").is_empty());
    assert_eq!(server.client().get(&format!("{STREAM}/{T1_SHA256}")).expect_status(200).body, T1);

    server.stop();
    server.configure(&Config::examples());
    server.launch();
    server.publish_ok("binary", &e1());
    assert_eq!(ids(&server, "2").len(), 2);
}

/// A small file system of its own, unmounted at the end.
struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    fn mount(folder: &Path) -> Option<SmallDisk> {
        std::fs::create_dir_all(folder).ok()?;
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=768m", "tmpfs"]).arg(folder).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| SmallDisk { folder: folder.to_owned() })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.folder).output());
    }
}

#[test]
fn a_disk_that_runs_full_answers_507_and_recovers_when_there_is_room_again() {
    let folder = tempfile::Builder::new().prefix("azulite-disk-").tempdir().unwrap();
    let mount_point = folder.path().join("disk");
    let Some(disk) = SmallDisk::mount(&mount_point) else {
        eprintln!("SKIPPED: a tmpfs cannot be mounted here (not root, or not allowed): full disk not tested");
        return;
    };
    let config = Config::examples().set("storage", "reserve", "\"16Mi\"");
    let mut server = Server::over(folder, disk.folder.join("data"), &config).started();
    for word in ["reserve", "disk", "space", "ENOSPC"] {
        server.announce(word);
    }
    server.publish_ok("binary", &sourced(&"1".repeat(64), "lab"));

    let ballast = disk.folder.join("ballast");
    fill(&ballast, 300);
    let mut random = Random::new(5);
    let mut stored = Vec::new();
    let refused = (0..768).find_map(|_| {
        let bytes = random.bytes(1 << 20);
        let answer = server.client().post(STREAM, &bytes);
        if answer.status == 200 {
            stored.push((answer.json()["data"]["sha256"].as_str().unwrap().to_owned(), bytes));
            return None;
        }
        Some(answer)
    });
    refused.expect("768 MiB do not fit beside the ballast").expect_any_error(507);
    // Events still fit into the segment at hand for a while; in the end they are refused as well.
    let mut posted = 0..20_000_u32;
    let refused = posted.find_map(|number| {
        let large = crate::support::events::with(
            sourced(&format!("{number:064}"), "lab"),
            "/entity/magic",
            "m".repeat(100_000).into(),
        );
        let answer = server.publish("binary", "", &large);
        (answer.status != 200).then_some(answer)
    });
    refused.expect("the log is finite").expect_any_error(507);

    for (hash, bytes) in stored.iter().step_by(20) {
        assert_eq!(&server.client().get(&format!("{STREAM}/{hash}")).expect_status(200).body, bytes);
    }
    assert_eq!(ids(&server, "1").first(), Some(&"1".repeat(64)), "reads go on");
    std::fs::remove_file(&ballast).unwrap();
    await_that("writes are taken again", || server.publish("binary", "", &e1()).status == 200);
    server.client().post(STREAM, T1).expect_status(200);
    drop(server);
    drop(disk);
}

fn fill(path: &Path, mebibytes: usize) {
    let mut file = std::fs::File::create(path).unwrap();
    let piece = vec![1; 1 << 20];
    for _ in 0..mebibytes {
        if file.write_all(&piece).is_err() {
            return;
        }
    }
}
