//! Flags of `topics` and `groups`.

use clap::{Args, Subcommand};

use super::values::{key_value, topic_partition};
use crate::admin::records::StartAt;

/// `topics`
#[derive(Debug, Args)]
pub struct Topics {
    #[command(subcommand)]
    pub command: TopicsCommand,
}

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// List all topics with their partitions and records
    List,
    /// Show one topic: partitions with their offsets, and configuration
    Describe {
        /// Full name of the topic, for example azul.test01.system.status
        #[arg(value_name = "TOPIC")]
        topic: String,
    },
    /// Make a topic
    Create {
        /// Full name of the topic
        #[arg(value_name = "TOPIC")]
        topic: String,
        /// Number of partitions
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=10_000))]
        partitions: i32,
        /// Configuration in Kafka's names, for example retention.ms=86400000; may be repeated; --config K=V means the same
        #[arg(long, value_name = "K=V", value_parser = key_value)]
        topic_config: Vec<(String, String)>,
    },
    /// Change the configuration of a topic, or give it more partitions
    Alter {
        /// Full name of the topic
        #[arg(value_name = "TOPIC")]
        topic: String,
        /// Configuration in Kafka's names; may be repeated; --config K=V means the same
        #[arg(long, value_name = "K=V", value_parser = key_value, required_unless_present_any = ["unset", "partitions"])]
        topic_config: Vec<(String, String)>,
        /// Configuration that goes back to its default; may be repeated
        #[arg(long, value_name = "K")]
        unset: Vec<String>,
        /// Number of partitions, more than now
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=10_000))]
        partitions: Option<i32>,
    },
    /// Delete a topic with all its records, and the positions of all groups in it
    Delete {
        /// Full name of the topic
        #[arg(value_name = "TOPIC")]
        topic: String,
    },
}

/// `groups`
#[derive(Debug, Args)]
pub struct Groups {
    #[command(subcommand)]
    pub command: GroupsCommand,
}

/// What to do with consumer groups.
#[derive(Debug, Subcommand)]
pub enum GroupsCommand {
    /// List all groups with their total lag
    List,
    /// Show one group: position, end and lag for each partition
    Describe {
        /// Name of the group
        #[arg(value_name = "GROUP")]
        group: String,
    },
    /// Move the positions of a group; prints where each was and is
    #[command(
        after_help = "A group with live members is left alone: stop them first. Readers over HTTP may go on, they take up \
        the new positions at once. An offset outside of what a partition holds becomes its nearest end."
    )]
    Reset {
        /// Name of the group
        #[arg(value_name = "GROUP")]
        group: String,
        /// Where to: earliest, latest, an offset, a time such as 2026-01-02T03:04:05Z, or @ and milliseconds since 1970
        #[arg(long, value_name = "WHERE")]
        to: StartAt,
        /// Only this topic or partition, also where the group has no position yet [default: wherever it has one]
        #[arg(long, value_name = "TOPIC[:PARTITION]", value_parser = topic_partition)]
        topic: Option<(String, Option<i32>)>,
        /// Only print what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete a group with all its positions
    Delete {
        /// Name of the group
        #[arg(value_name = "GROUP")]
        group: String,
    },
}
