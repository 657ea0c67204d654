//! `azulite bench blobs`: how fast a dispatcher takes blobs in and hands them out, beside what this machine could do.
//!
//! Works against any server with the dispatcher's stream routes. Each repetition uploads under a source of its own until
//! the time or the bytes are over, downloads what it uploaded, and measures the limits: the same bytes written to files
//! that are each synced, ssdeep alone, and bytes through loopback. Blobs differ in their first bytes.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::super::args::BenchBlobs;
use super::report::{Column, Report, Run, float, ms, percentile};
use super::server::{Server, usage};
use super::{BadRequest, Bounds, Case, Folder, Shown, asked, room};
use crate::client::{Client, Payload, RequestError};
use crate::identify::ssdeep_reader;

const COLUMNS: [Column; 17] = [
    Column { title: "upload MB/s", key: "upload_mb_s", digits: 1 },
    Column { title: "uploads/s", key: "files_s", digits: 0 },
    Column { title: "upload p50 ms", key: "upload_p50_ms", digits: 3 },
    Column { title: "upload p99 ms", key: "upload_p99_ms", digits: 3 },
    Column { title: "limit MB/s", key: "limit_mb_s", digits: 1 },
    Column { title: "ratio", key: "ratio", digits: 2 },
    Column { title: "plain durable files MB/s", key: "plain_mb_s", digits: 1 },
    Column { title: "plain durable files/s", key: "plain_files_s", digits: 0 },
    Column { title: "ssdeep on one thread MB/s", key: "ssdeep_mb_s", digits: 1 },
    Column { title: "download MB/s", key: "download_mb_s", digits: 1 },
    Column { title: "downloads/s", key: "downloads_s", digits: 0 },
    Column { title: "loopback MB/s", key: "loopback_mb_s", digits: 1 },
    Column { title: "ratio of download to loopback", key: "download_ratio", digits: 2 },
    Column { title: "server CPU s/GB uploaded", key: "upload_cpu_s_per_gb", digits: 2 },
    Column { title: "server CPU s/GB downloaded", key: "download_cpu_s_per_gb", digits: 2 },
    Column { title: "server resident MiB", key: "server_rss_mib", digits: 0 },
    Column { title: "server resident MiB, most so far", key: "server_peak_rss_mib", digits: 0 },
];

/// A blob's first bytes, which make it different from all others.
const STAMP: usize = 16;
const MAX_SIZE: u64 = 64 << 20;
/// The most that clients may have under way.
const MAX_UNDER_WAY: u64 = 1 << 30;
/// Bytes that one repetition uploads at most, and blobs.
const MAX_BYTES: u64 = 4 << 30;
const MAX_BLOBS: u64 = 200_000;
/// What is read or written at once.
const PIECE: usize = 128 << 10;

/// Measures the stream routes at `options.url`, and the disk that holds `options.dir` or else `data_dir`.
///
/// # Errors
/// A server that does not answer, refuses a blob or hands out another; options out of range; a disk without room.
pub fn run(options: &BenchBlobs, data_dir: &Path, shown: Shown, out: &mut impl Write) -> anyhow::Result<()> {
    let sizes = u64::try_from(STAMP)?..=MAX_SIZE;
    let (size, clients) = (options.size, options.clients);
    asked(sizes.contains(&size), || format!("--size {size}: a size from 16 bytes to 64 MiB can be measured"))?;
    asked(size * u64::from(clients) <= MAX_UNDER_WAY, || {
        format!("{clients} clients with blobs of {size} bytes need more than 1 GiB of memory")
    })?;
    let dir = options.dir.as_deref().unwrap_or(data_dir);
    let bounds = Bounds {
        warm_up: Duration::ZERO,
        measured: Duration::from_secs(options.seconds.into()),
        repetitions: options.repetitions.max(3),
        bytes: room(dir)?.min(MAX_BYTES),
    };
    let client = Client::new(&options.url).map_err(|bad| BadRequest(bad.0))?;
    let server = Server::find(options.url.trim_end_matches('/').trim_start_matches("http://"), options.server_pid)?;
    let folder = Folder::create(dir)?;
    let case = Case { size_bytes: u32::try_from(size)?, producers: clients };
    let mut report = Report::new("blobs", "clients", &COLUMNS, bounds, Some(&folder.path));
    report.note("url", json!(options.url));
    report.note("server", server.as_ref().map_or(json!(null), |server| json!(server.name())));
    report.note("server_pid", server.as_ref().map_or(json!(null), |server| json!(server.pid())));
    report.note("skip_identify", json!(options.skip_identify));
    let mut run = Run::new(case);
    for repetition in 0..=bounds.repetitions {
        // The first round is not measured.
        let (measured, mut warm_up) = match repetition {
            0 => (Duration::from_millis(500), Run::new(case)),
            _ => (bounds.measured, Run::new(case)),
        };
        if repetition > 0 {
            report.progress(shown, case, repetition);
        }
        let bounds = Bounds { measured, ..bounds };
        let round = Round::new(options, &client, server.as_ref(), &folder, bounds, repetition)?;
        round.run(if repetition == 0 { &mut warm_up } else { &mut run })?;
    }
    report.runs.push(run);
    report.print(shown.json, out)
}

/// One repetition.
struct Round<'a> {
    options: &'a BenchBlobs,
    client: &'a Client,
    server: Option<&'a Server>,
    folder: &'a Folder,
    bounds: Bounds,
    source: String,
    /// What all blobs have behind their stamps.
    bytes: Arc<Vec<u8>>,
}

/// What makes a blob different, and its hash where the server wants it beforehand.
struct Body {
    stamp: [u8; STAMP],
    hash: String,
}

/// What one client stored.
#[derive(Default)]
struct Stored {
    hashes: Vec<String>,
    latencies: Vec<Duration>,
}

#[derive(Deserialize)]
struct Uploaded {
    data: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    sha256: String,
    size: u64,
}

impl<'a> Round<'a> {
    fn new(
        options: &'a BenchBlobs,
        client: &'a Client,
        server: Option<&'a Server>,
        folder: &'a Folder,
        bounds: Bounds,
        repetition: u32,
    ) -> anyhow::Result<Self> {
        let source = format!("azulite-bench-{}-{}-{repetition}", azulite_storage::clock::now_ms(), std::process::id());
        let bytes = Arc::new(noise(usize::try_from(options.size)?, u64::from(repetition)));
        Ok(Self { options, client, server, folder, bounds, source, bytes })
    }

    fn run(&self, run: &mut Run) -> anyhow::Result<()> {
        let mut stored = Vec::new();
        let measured = self.measure(run, &mut stored);
        self.delete(&stored);
        measured
    }

    fn measure(&self, run: &mut Run, stored: &mut Vec<Stored>) -> anyhow::Result<()> {
        let size = float(self.options.size) / 1e6;
        let plain = self.plain()?;
        let ssdeep = self.ssdeep()?;
        let loopback = self.loopback()? / 1e6;

        let before = usage(self.server)?;
        let bodies = self.bodies()?;
        let begun = Instant::now();
        *stored = clients(bodies, |mine| self.upload(mine))?;
        let took = begun.elapsed().as_secs_f64();
        let uploaded = usage(self.server)?;
        let mut latencies: Vec<_> = stored.iter().flat_map(|one| one.latencies.iter().copied()).collect();
        latencies.sort_unstable();
        ensure!(!latencies.is_empty(), "not one upload was answered in {:?}", self.bounds.measured);
        let uploads_s = float(u64::try_from(latencies.len())?) / took;
        let gb = size / 1e3 * float(u64::try_from(latencies.len())?);

        let hashes: Vec<_> = stored.iter().map(|one| one.hashes.clone()).collect();
        let begun = Instant::now();
        let downloads: u64 = clients(hashes, |mine| self.download(&mine))?.into_iter().sum();
        let downloads_s = float(downloads) / begun.elapsed().as_secs_f64();
        let end = usage(self.server)?;

        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = float(u64::try_from(processors)?.min(self.options.clients.into()));
        let limit = if self.options.skip_identify { plain * size } else { (plain * size).min(ssdeep * threads) };
        run.add("upload_mb_s", uploads_s * size);
        run.add("files_s", uploads_s);
        run.add("upload_p50_ms", ms(percentile(&latencies, 500)));
        run.add("upload_p99_ms", ms(percentile(&latencies, 990)));
        run.add("limit_mb_s", limit);
        run.add("ratio", uploads_s * size / limit);
        run.add("plain_mb_s", plain * size);
        run.add("plain_files_s", plain);
        run.add("ssdeep_mb_s", ssdeep);
        run.add("download_mb_s", downloads_s * size);
        run.add("downloads_s", downloads_s);
        run.add("loopback_mb_s", loopback);
        run.add("download_ratio", downloads_s * size / loopback);
        run.add_cpu("upload_cpu_s_per_gb", before, uploaded, gb);
        run.add_cpu("download_cpu_s_per_gb", uploaded, end, float(downloads) * size / 1e3);
        if let Some(usage) = end {
            run.add("server_rss_mib", usage.resident_mib);
            run.add("server_peak_rss_mib", usage.peak_mib);
        }
        Ok(())
    }

    /// How long a limit is measured.
    fn short(&self) -> Duration {
        (self.bounds.measured / 3).max(Duration::from_millis(300))
    }

    /// Files of this size per second, each written and synced.
    fn plain(&self) -> anyhow::Result<f64> {
        let dir = self.folder.sub("plain")?;
        let until = Instant::now() + self.short();
        let most = (self.bounds.bytes / self.options.size.max(1) / u64::from(self.options.clients)).clamp(1, MAX_BLOBS);
        let begun = Instant::now();
        let write = |client: u16| -> anyhow::Result<u64> {
            for number in 0..most {
                if number > 0 && Instant::now() >= until {
                    return Ok(number);
                }
                let mut file = fs::File::create(dir.join(format!("{client}-{number}")))?;
                self.bytes.chunks(PIECE).try_for_each(|piece| file.write_all(piece))?;
                file.sync_data()?;
            }
            Ok(most)
        };
        let written: u64 = clients((0..self.options.clients).collect(), write)?.into_iter().sum();
        let took = begun.elapsed().as_secs_f64();
        fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(float(written) / took)
    }

    /// MB per second of one thread.
    fn ssdeep(&self) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let mut bytes = 0;
        while begun.elapsed() < self.short() {
            // Small ones would measure the beginning of each, and below 4096 bytes there is no ssdeep at all.
            let some = self.bytes.repeat((PIECE / self.bytes.len()).max(1));
            ssdeep_reader(some.as_slice())?;
            bytes += u64::try_from(some.len())?;
        }
        Ok(float(bytes) / 1e6 / begun.elapsed().as_secs_f64())
    }

    /// Bytes per second from one thread to another of each client, through TCP on loopback.
    fn loopback(&self) -> anyhow::Result<f64> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let until = Instant::now() + self.short();
        let begun = Instant::now();
        let flow = |_| -> anyhow::Result<u64> {
            let mut to = TcpStream::connect(address)?;
            let (mut from, _) = listener.accept()?;
            let reader = std::thread::spawn(move || -> io::Result<u64> {
                let mut piece = vec![0; PIECE];
                let mut bytes = 0;
                loop {
                    match from.read(&mut piece)? {
                        0 => return Ok(bytes),
                        read => bytes += u64::try_from(read).unwrap_or(0),
                    }
                }
            });
            let piece = vec![7; PIECE];
            while Instant::now() < until {
                to.write_all(&piece)?;
            }
            drop(to);
            Ok(reader.join().map_err(|_| anyhow!("a thread panicked"))??)
        };
        let bytes: u64 = clients((0..self.options.clients).collect(), flow)?.into_iter().sum();
        Ok(float(bytes) / begun.elapsed().as_secs_f64())
    }

    /// What each client uploads.
    fn bodies(&self) -> anyhow::Result<Vec<Vec<Body>>> {
        let each = (self.bounds.bytes / self.options.size / u64::from(self.options.clients)).clamp(1, MAX_BLOBS);
        // Hashes are computed beforehand, so that the client's part does not count: no more than can be used.
        let seconds = u64::try_from(self.bounds.measured.as_millis())?.div_ceil(1000);
        let each = if self.options.skip_identify { each.min((seconds << 30) / self.options.size + 1) } else { each };
        let of = |client: u16| -> anyhow::Result<_> {
            let mut bytes = self.bytes.to_vec();
            let stamped = |number: u64| {
                let mut stamp = [0; STAMP];
                let (salt, rest) = stamp.split_at_mut(8);
                let word = u64::from(client) << 48 ^ number;
                salt.copy_from_slice(&word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
                rest.copy_from_slice(&word.to_le_bytes());
                stamp
            };
            let hashed = |stamp: [u8; STAMP]| {
                put(&mut bytes, &stamp);
                Body { stamp, hash: hex(&Sha256::digest(&bytes)) }
            };
            Ok(match self.options.skip_identify {
                true => (0..each).map(stamped).map(hashed).collect(),
                false => (0..each).map(|number| Body { stamp: stamped(number), hash: String::new() }).collect(),
            })
        };
        clients((0..self.options.clients).collect(), of)
    }

    fn upload(&self, bodies: Vec<Body>) -> anyhow::Result<Stored> {
        let until = Instant::now() + self.bounds.measured;
        let mut bytes = self.bytes.to_vec();
        let mut stored = Stored::default();
        for Body { stamp, hash } in bodies {
            let begun = Instant::now();
            if begun >= until && !stored.hashes.is_empty() {
                break;
            }
            put(&mut bytes, &stamp);
            let query = match self.options.skip_identify {
                true => format!("?skip-identify=true&expected-sha256={hash}"),
                false => String::new(),
            };
            let path = format!("/api/v3/stream/{}/content{query}", self.source);
            let answer: Uploaded =
                self.client.post(&path, "application/octet-stream", &Payload::Bytes(&bytes)).map_err(refused)?;
            ensure!(answer.data.size == self.options.size, "the server counted {} bytes", answer.data.size);
            stored.latencies.push(begun.elapsed());
            stored.hashes.push(answer.data.sha256);
        }
        Ok(stored)
    }

    fn download(&self, hashes: &[String]) -> anyhow::Result<u64> {
        let until = Instant::now() + self.bounds.measured;
        let mut body = Vec::with_capacity(self.bytes.len());
        let mut count = 0;
        for hash in hashes.iter().cycle() {
            if count > 0 && Instant::now() >= until {
                break;
            }
            body.clear();
            let response = self.client.get(&self.path(hash)).map_err(refused)?;
            response.into_body().into_reader().read_to_end(&mut body)?;
            ensure!(
                body.len() == self.bytes.len(),
                "a blob of {} bytes came back with {}",
                self.bytes.len(),
                body.len()
            );
            ensure!(count > 0 || hex(&Sha256::digest(&body)) == *hash, "another blob than {hash} came back");
            count += 1;
        }
        Ok(count)
    }

    fn path(&self, hash: &str) -> String {
        format!("/api/v3/stream/{}/content/{hash}", self.source)
    }

    /// Removes the blobs where that is allowed; another server keeps them.
    fn delete(&self, stored: &[Stored]) {
        for hash in stored.iter().flat_map(|one| &one.hashes) {
            if let Err(error) = self.client.delete::<Value>(&self.path(hash)) {
                tracing::warn!(
                    source = self.source,
                    error = error.message(),
                    "blobs of the measurement stay; streams.api_allow_delete would let them go"
                );
                break;
            }
        }
    }
}

/// Runs `work` once for each of `inputs`, each on a thread of its own.
fn clients<I: Send, T: Send>(inputs: Vec<I>, work: impl Fn(I) -> anyhow::Result<T> + Sync) -> anyhow::Result<Vec<T>> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = inputs.into_iter().map(|input| scope.spawn(move || work(input))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a client panicked")))).collect()
    })
}

fn refused(error: RequestError) -> anyhow::Error {
    anyhow!("{}", error.message())
}

fn put(bytes: &mut [u8], stamp: &[u8; STAMP]) {
    if let Some(beginning) = bytes.first_chunk_mut() {
        *beginning = *stamp;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that do not repeat (xorshift), always the same for one seed.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ seed;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(size: u64, clients: u16) -> BenchBlobs {
        BenchBlobs {
            url: "http://127.0.0.1:1".to_owned(),
            size,
            clients,
            skip_identify: false,
            seconds: 1,
            repetitions: 3,
            dir: None,
            server_pid: None,
        }
    }

    #[test]
    fn sizes_out_of_range_are_refused_before_anything_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        for (size, clients, said) in [(15, 1, "15"), (65 << 20, 1, "64 MiB"), (64 << 20, 17, "17 clients")] {
            let shown = Shown { json: true, progress: false };
            let error = run(&options(size, clients), folder.path(), shown, &mut Vec::new()).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn noise_does_not_repeat_and_stamps_make_bytes_different() {
        let (one, other) = (noise(100, 1), noise(100, 2));
        assert!(one.len() == 100 && one != other && one == noise(100, 1));
        let mut stamped = one.clone();
        put(&mut stamped, &[9; STAMP]);
        assert_eq!((&stamped[..STAMP], &stamped[STAMP..]), (&[9; STAMP][..], &one[STAMP..]));
    }
}
