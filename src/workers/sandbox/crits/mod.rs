//! The CRITs sink: finished sandbox results go to a CRITs service as well (workers.md 3.5).
//!
//! An ordinary worker with a name, queues, retries and dead letters of its own: a CRITs that is slow or absent delays
//! nothing else. It reads the events of sandbox workers: from an `augmented` one the report, whose rows become results of
//! the analysis; from an `extracted` one the file, which becomes a related sample. Which analysis and object that is comes
//! from `source.references` of the submission: `crits_analysis_id`, `crits_object_id` and `crits_object_type` (`Sample` when
//! absent); without them the event is opted out of.

mod client;
mod rows;

use std::collections::BTreeMap;
use std::io::BufReader;

use azulite_storage::clock::now_ms;

use self::client::{Client, SinkError, Target};
use self::rows::Rows;
use super::super::frame::{Job, Outcome, Status, Worker};
use super::super::results;
use super::report::scan;
use crate::config::CritsSink;
use crate::dispatcher::model::{Author, BinaryEvent, PluginEvent, Timestamp};

/// Name of the sink as a plugin.
const NAME: &str = CritsSink::CONSUMER;
const VERSION: &str = "1";
/// Labels under which sandbox workers publish reports.
const REPORTS: [&str; 2] = ["cape_report", "report"];

/// The sink.
pub struct Crits {
    client: Client,
    author: Author,
}

impl Crits {
    /// The sink of a section.
    ///
    /// # Errors
    /// Text for people: an address, key file or certificate file that cannot be used.
    pub fn new(config: &CritsSink) -> Result<Self, String> {
        let (name, version, category) = (NAME.to_owned(), VERSION.to_owned(), "plugin".to_owned());
        Ok(Self { client: Client::new(config)?, author: Author { name, version, category, security: String::new() } })
    }

    fn report(&self, job: &Job, target: &Target) -> Result<Outcome, Outcome> {
        let streams = &job.event.entity.datastreams;
        let Some(report) = streams.iter().find(|stream| REPORTS.contains(&stream.label.as_str())) else {
            return Ok(Outcome::opt_out("the event has no report"));
        };
        let content = job.stream(&report.label, &report.sha256)?.ok_or_else(|| {
            let message = format!("there is no {} {}: it was deleted or aged off", report.label, report.sha256);
            Outcome::failed(Status::ErrorInput, "the report is missing", message)
        })?;
        let mut rows = Rows::default();
        scan::scan(&mut BufReader::new(content), &mut std::io::sink(), &mut rows)
            .map_err(|error| Outcome::failed(Status::ErrorInput, "the report cannot be read", error.to_string()))?;
        let (rows, left_out) = rows.finish();
        self.client.results(target, &rows, true, &|| job.is_stopping()).map_err(failed)?;
        if left_out > 0 {
            let message = format!("the first {} rows were sent, {left_out} more were there", rows.len());
            return Ok(Outcome::completed_with_errors(Vec::new(), message));
        }
        Ok(Outcome::completed(Vec::new()))
    }

    fn file(&self, job: &Job, target: &Target) -> Result<Outcome, Outcome> {
        let event = &job.event;
        if event.entity.size == 0 {
            return Ok(Outcome::opt_out("CRITs takes no empty files"));
        }
        let mut content = job.content()?;
        let name = event.source.path.last().map(|node| node.filename.as_str()).filter(|name| !name.is_empty());
        let name = name.unwrap_or(&event.entity.sha256);
        let size = content.size();
        let id = self.client.upload(name, size, &event.entity.sha256, &mut content).map_err(failed)?;
        self.client.relate(target, &id).map_err(failed)?;
        let row = rows::Row::file_added(name, &event.entity.md5);
        self.client.results(target, &[row], false, &|| job.is_stopping()).map_err(failed)?;
        Ok(Outcome::completed(Vec::new()))
    }
}

fn failed(error: SinkError) -> Outcome {
    match error {
        SinkError::Unreachable(reason) => Outcome::failed(Status::ErrorNetwork, "CRITs cannot be reached", reason),
        SinkError::Refused(reason) => Outcome::failed(Status::ErrorException, "CRITs refused", reason),
        SinkError::Stopped => Outcome::failed(Status::ErrorTimeout, "it took too long", ""),
    }
}

/// The analysis and object that a submission names.
fn target(event: &BinaryEvent) -> Option<Target> {
    let named = |name: &str| event.source.references.get(name).filter(|text| !text.is_empty()).cloned();
    Some(Target {
        analysis_id: named("crits_analysis_id")?,
        object_id: named("crits_object_id")?,
        object_type: named("crits_object_type").unwrap_or_else(|| "Sample".to_owned()),
    })
}

impl Worker for Crits {
    fn announce(&self) -> PluginEvent {
        let now = Timestamp::from_millis(now_ms());
        results::registration(&self.author, "Sends sandbox results to CRITs", &[], BTreeMap::new(), now)
    }

    fn query(&self) -> Vec<(String, String)> {
        let parameters = [
            ("r-expedite", "true"),
            ("r-live", "true"),
            ("r-historic", "true"),
            ("r-action", "augmented"),
            ("r-action", "extracted"),
            ("d-self", "true"),
        ];
        parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }

    /// One: CRITs cannot take more.
    fn slots(&self) -> usize {
        1
    }

    fn bulk(&self) -> usize {
        1
    }

    fn run(&self, job: &Job) -> Outcome {
        let author = &job.event.author.name;
        if !author.starts_with("sandbox-") {
            return Outcome::opt_out(format!("the author {author} is no sandbox worker"));
        }
        let Some(target) = target(&job.event) else {
            return Outcome::opt_out("source.references have no crits_analysis_id and crits_object_id");
        };
        let done = match job.event.action.as_str() {
            "augmented" => self.report(job, &target),
            _ => self.file(job, &target),
        };
        done.unwrap_or_else(|outcome| outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_submission_names_analysis_and_object() {
        let mut event = BinaryEvent::default();
        assert!(target(&event).is_none());
        for (name, value) in [("crits_analysis_id", "a1"), ("crits_object_id", "o1")] {
            event.source.references.insert(name.to_owned(), value.to_owned());
        }
        let found = target(&event).unwrap();
        assert_eq!(
            (found.analysis_id.as_str(), found.object_id.as_str(), found.object_type.as_str()),
            ("a1", "o1", "Sample")
        );
    }
}
