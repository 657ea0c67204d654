//! Which registered consumers would get an event, asked of the filters without a read. Contract events.md 1.8.
//!
//! Only consumers of binaries are asked. Upstream lists those of every model, which section 10, 29 calls a fault: a reader
//! of statuses never gets a binary, yet its verdict would be taken for that of the plugin of the same name and version.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::Dispatcher;
use super::filter;
use super::hub::{SimulateError, SimulateRequest};
use super::model::{self, Event, Model};
use super::registry::Listed;

#[derive(Serialize)]
struct Answer<'a> {
    consumers: Vec<Verdict<'a>>,
}

/// What becomes of the event at one consumer. Keys of the first four are fixed; strict clients know no others.
#[derive(Serialize)]
struct Verdict<'a> {
    name: &'a str,
    version: &'a str,
    filter_out: bool,
    filter_out_trigger: String,
    /// Every filter that would drop the event, in the order in which they are asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    filters: Option<Vec<String>>,
}

/// Answers one question.
pub(super) async fn simulate(dispatcher: Arc<Dispatcher>, request: SimulateRequest) -> Result<Bytes, SimulateError> {
    let answer = tokio::task::spawn_blocking(move || answer(&dispatcher, &request)).await;
    answer.unwrap_or(Err(SimulateError::Stopping))
}

fn answer(dispatcher: &Dispatcher, request: &SimulateRequest) -> Result<Bytes, SimulateError> {
    let element = model::decode_event_json(Model::Binary, &request.body);
    let element = element.map_err(|error| SimulateError::Invalid(error.to_string()))?;
    let invalid = |invalid| SimulateError::Invalid(format!("innerNewMsgInFlight {invalid}"));
    let mut event = element.event.map_err(invalid)?;
    // As it would be stored, for filters that look at the key and at tracking.
    event.set_kafka_key(model::kafka_key(&event, [0; 32]).map_err(invalid)?);
    model::set_tracking(&mut event);
    if request.extended
        && let Err(error) = dispatcher.follow_purges()
    {
        tracing::error!(%error, "the newest deletes could not be read");
    }
    let now_ms = dispatcher.now_ms();
    let registered = dispatcher.registry.consumers(now_ms);
    let verdict = |listed| verdict(dispatcher, &event, listed, request.extended, now_ms);
    let binary = registered.iter().filter(|listed| listed.consumer.params.model == Model::Binary);
    let answer = Answer { consumers: binary.map(verdict).collect() };
    Ok(serde_json::to_vec(&answer).unwrap_or_default().into())
}

fn verdict<'a>(dispatcher: &Dispatcher, event: &Event, listed: &'a Listed, extended: bool, now_ms: i64) -> Verdict<'a> {
    let registered = listed.consumer.as_ref();
    let params = &registered.params;
    let dropped = filter::simulated(event, params);
    let every = || {
        let keys =
            dispatcher.for_consumer(params, registered.task, now_ms, |consumer| filter::verdicts(event, consumer));
        keys.iter().map(ToString::to_string).collect()
    };
    Verdict {
        name: &params.name,
        version: &params.version,
        filter_out: dropped.is_some(),
        filter_out_trigger: dropped.map(|key| key.to_string()).unwrap_or_default(),
        filters: extended.then(every),
    }
}
