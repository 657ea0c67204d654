//! Flags of `bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::bench::kafka::{Acks, Codec};
use crate::config::parse_size;

/// `bench`
#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// What to measure. Each says the machine, medians of at least three repetitions and the spread, and stops by itself.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// The limit of the disk: plain appends with CRC and fdatasync, per size and number of writers
    Disk {
        /// Directory on the disk to measure [default: the data directory]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Event POST and GET of any dispatcher over HTTP
    #[command(
        after_help = "Each repetition posts to a source of its own until the time is over and reads everything back through \
        one consumer; its topics are deleted where the server has a way to. One round goes before that is not measured. \
        Everything acknowledged has to come back."
    )]
    Events(BenchEvents),
    /// Lease, heartbeat and completion of jobs over HTTP
    #[command(
        after_help = "Each repetition posts jobs to a source of its own; then every client takes some at a time, sends one \
        heartbeat and one final status for each of them, until none is left. One round goes before that is not measured."
    )]
    Leases(BenchLeases),
    /// Bulk ingest of a tree beside computing the digests of the same files, nothing stored
    Ingest {
        /// Files and directories to take in
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Files worked on at once [default: one per processor]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
        jobs: Option<u16>,
        /// Repetitions, at least three [default: 5]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(3..=100))]
        repetitions: Option<u32>,
        /// Directory on the disk to measure [default: the data directory]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Digests and identification of files beside ssdeep alone, nothing stored
    Identify {
        /// Files and directories to identify
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Files worked on at once [default: 1]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
        jobs: Option<u16>,
        /// Repetitions, at least three [default: 5]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(3..=100))]
        repetitions: Option<u32>,
    },
    /// The YARA worker's scanners beside the `yara` tool: the same rules and files in the same run; and a reload of the rules
    #[command(
        after_help = "Archives are scanned as they are, as the tool does. What the tool takes for an empty file, which is mostly \
        compiling the rules, is taken off its time. At the end the rules are compiled again while a small object is scanned over \
        and over: the longest time between two results is the pause."
    )]
    Yara {
        /// Files and directories to scan
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Directory with .yar and .yara files
        #[arg(long, value_name = "DIR")]
        rules: PathBuf,
        /// The tool to compare with [default: yara, where PATH has it]
        #[arg(long, value_name = "PATH")]
        yara_tool: Option<PathBuf>,
        /// Files scanned at once [default: 1, then 2]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
        threads: Option<u16>,
        /// Repetitions, at least three [default: 3]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(3..=100))]
        repetitions: Option<u32>,
    },
    /// Upload and download of blobs over HTTP, beside writing the same bytes durably, ssdeep alone and loopback
    #[command(
        after_help = "Each repetition uploads different bytes under a source of its own until the time is over, then downloads \
        them. They are deleted again where the server allows it, else they stay. The limits are measured on this machine in \
        the same run: compare with them only a server that runs here too."
    )]
    Blobs(BenchBlobs),
    /// The log beside the limit of the disk: the same sizes in the same run
    Log {
        /// Size of one record, for example 1Ki, 16Ki or 2MB [default: the sizes the log is built for]
        #[arg(long, value_name = "SIZE", value_parser = parse_size)]
        size: Option<u64>,
        /// Producers that append at once [default: 64, or what goes with the sizes the log is built for]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
        producers: Option<u16>,
        /// Repetitions, at least three [default: 3]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(3..=100))]
        repetitions: Option<u32>,
        /// Directory on the disk to measure [default: the data directory]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Produce, consume and end-to-end latency of any Kafka server, through librdkafka
    #[command(
        after_help = "Each repetition makes topics of its own on the server and deletes them: one is filled as fast as it \
        acknowledges and read from its beginning, through another one records go at a fixed rate without waiting for \
        batches to fill. One round goes before that is not measured. Everything acknowledged has to come back."
    )]
    Kafka(BenchKafka),
}

/// `bench events`
#[derive(Debug, Args)]
pub struct BenchEvents {
    /// Address of the server, for example http://127.0.0.1:8111
    #[arg(long, value_name = "URL")]
    pub url: String,
    /// Events of one POST
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub batch: u16,
    /// Clients that each wait for one answer before they ask again
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub clients: u16,
    /// Events that one GET asks for
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub count: u16,
    /// Size of one event, about, as JSON
    #[arg(long, value_name = "SIZE", default_value = "2Ki", value_parser = parse_size)]
    pub size: u64,
    /// Post and read Avro instead of JSON
    #[arg(long)]
    pub avro: bool,
    /// Ask for each POST to be durable before it is answered
    #[arg(long)]
    pub sync: bool,
    /// Seconds that posting is measured
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// Repetitions, at least three
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..=100))]
    pub repetitions: u32,
    /// Process of the server on this machine, for its CPU time and memory [default: the one that listens on the port]
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
}

/// `bench leases`
#[derive(Debug, Args)]
pub struct BenchLeases {
    /// Address of the server, for example http://127.0.0.1:8111
    #[arg(long, value_name = "URL")]
    pub url: String,
    /// Jobs of one repetition
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub jobs: u32,
    /// Clients that each wait for one answer before they ask again
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub clients: u16,
    /// Jobs that one GET asks for
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub count: u16,
    /// Repetitions, at least three
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..=100))]
    pub repetitions: u32,
    /// Process of the server on this machine, for its CPU time and memory [default: the one that listens on the port]
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
}

/// `bench blobs`
#[derive(Debug, Args)]
pub struct BenchBlobs {
    /// Address of the server, for example http://127.0.0.1:8111
    #[arg(long, value_name = "URL")]
    pub url: String,
    /// Size of one blob
    #[arg(long, value_name = "SIZE", default_value = "1Mi", value_parser = parse_size)]
    pub size: u64,
    /// Clients that each wait for one answer before they ask again
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub clients: u16,
    /// Have only the SHA-256 computed
    #[arg(long)]
    pub skip_identify: bool,
    /// Seconds that each part of a repetition is measured
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// Repetitions, at least three
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..=100))]
    pub repetitions: u32,
    /// Directory on the disk whose limit is measured [default: the data directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Process of the server on this machine, for its CPU time and memory [default: the one that listens on the port]
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
}

/// `bench kafka`
#[derive(Debug, Args)]
pub struct BenchKafka {
    /// Address of the server, for example 127.0.0.1:9092; several with commas between
    #[arg(long, value_name = "ADDR")]
    pub bootstrap: String,
    /// Size of the value of one record
    #[arg(long, value_name = "SIZE", default_value = "1Ki", value_parser = parse_size)]
    pub size: u64,
    /// Partitions of the topics
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub partitions: u16,
    /// What an acknowledgement asks for
    #[arg(long, value_enum, default_value_t = Acks::All)]
    pub acks: Acks,
    /// How batches are compressed
    #[arg(long, value_enum, default_value_t = Codec::None)]
    pub codec: Codec,
    /// Seconds that each part of a repetition is measured
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// Repetitions, at least three
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..=100))]
    pub repetitions: u32,
    /// Records per second while latency is measured
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Process of the server on this machine, for its CPU time and memory [default: the one that listens on the port]
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
}
