//! Dead letters as people see them and what people do with them: lists, another run, removal, letters of other machines.
//! Contract workers.md 5.4.
//!
//! Whatever is long is done a part at a time: a call looks at so many letters, and says where the next one goes on.
//! Everything here blocks on the disk.

use std::collections::{BTreeMap, BTreeSet};

use azulite_storage::ids::Sha256;
use azulite_storage::index::IndexError;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::entity::About;
use super::{Admin, Flow};
use crate::broker::{AppendError, ReadError};
use crate::dispatcher::Dispatcher;
use crate::dispatcher::dead::{
    After, Change, ChangeError, Count, DeadLetter, Filter, Found, Head, LetterError, Requeued, is_id,
};
use crate::dispatcher::filter::{verdicts, why};
use crate::dispatcher::leases::Hastened;
use crate::dispatcher::model::{BinaryEvent, Event, Model, Timestamp, check_binary};
use crate::dispatcher::plugin_key::subscriptions;
use crate::dispatcher::registry::Listed;
use crate::dispatcher::topic::{Action, binary_topic};
use crate::streams::{Place, StoreError};

/// Letters that one call looks at, at most.
pub const MOST: usize = 1000;
/// Bytes of one commit, about.
const COMMIT_BYTES: usize = 8 << 20;
/// Events about one entity of which the newest is chosen for another run, at most.
const MOST_EVENTS: usize = 10_000;

/// Why nothing, or not everything, was done.
#[derive(Debug, thiserror::Error)]
pub enum DeadError {
    /// A change could not be written.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A blob could not be looked up.
    #[error(transparent)]
    Blobs(#[from] StoreError),
    /// What was given is no letter.
    #[error(transparent)]
    Letter(#[from] LetterError),
    /// What is asked for makes no sense.
    #[error("{0}")]
    Bad(String),
    /// The work was broken off.
    #[error("{0}")]
    Stopped(String),
}

impl From<AppendError> for DeadError {
    fn from(error: AppendError) -> Self {
        Self::Change(error.into())
    }
}

impl From<IndexError> for DeadError {
    fn from(error: IndexError) -> Self {
        Self::Change(error.into())
    }
}

/// A page of letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadList {
    /// All of the consumer and status that were asked for, whatever else was.
    pub counts: Vec<Count>,
    /// In order of time.
    pub letters: Vec<Head>,
    /// `after` for the next page; absent behind the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One letter.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeadView {
    /// The letter, as in its file.
    pub letter: Box<RawValue>,
    /// The name of its file.
    pub file: String,
    /// Set while another run is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requeued: Option<Requeued>,
    /// Where everything about the entity is read.
    pub entity: String,
}

/// Letters that are to be run again.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequeueRequest {
    /// By id.
    pub ids: Vec<String>,
    /// Every letter that the filter takes. An empty filter takes all.
    pub filter: Option<Filter>,
    /// Texts of letters, from files.
    pub letters: Vec<Box<RawValue>>,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Before everything else.
    pub expedite: bool,
    /// Where a filter goes on.
    pub after: Option<String>,
    /// Letters to look at with a filter; at most, and at first, 1000.
    pub limit: Option<usize>,
}

/// Something that was not done, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The letter, or the plugin.
    pub id: String,
    /// Why.
    pub reason: String,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeadReport {
    /// How many are put back for another run, or would be.
    pub requeued: u64,
    /// How many came from texts, or would.
    pub imported: u64,
    /// How many were removed.
    pub purged: u64,
    /// How many that waited for another run have ended, or would.
    #[serde(skip_serializing_if = "is_zero")]
    pub buried: u64,
    /// What was left as it is.
    pub skipped: Vec<Skipped>,
    /// Ids that there are no letters of.
    pub missing: Vec<String>,
    /// What is worth knowing.
    pub notes: Vec<String>,
    /// Where a filter goes on; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl DeadReport {
    /// Adds what another call did.
    pub fn add(&mut self, other: Self) {
        self.requeued += other.requeued;
        self.imported += other.imported;
        self.purged += other.purged;
        self.buried += other.buried;
        self.skipped.extend(other.skipped);
        self.missing.extend(other.missing);
        self.notes.extend(other.notes);
        self.next = other.next;
    }

    fn skip(&mut self, id: &str, reason: impl Into<String>) {
        self.skipped.push(Skipped { id: id.to_owned(), reason: reason.into() });
    }
}

/// Letters that are to be removed.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PurgeRequest {
    /// By id.
    pub ids: Vec<String>,
    /// All that are older than this, milliseconds since 1970; those that wait for another run stay.
    pub before_ms: Option<i64>,
}

const BUSY: &str = "it is being changed at this moment; ask again";

impl Admin {
    fn served(&self) -> Result<&Dispatcher, DeadError> {
        self.dispatcher.as_deref().ok_or_else(|| DeadError::Bad("nothing serves events here".to_owned()))
    }

    /// Up to `limit` letters, in order of time, behind `after`.
    ///
    /// # Errors
    /// See [`DeadError`].
    pub fn dead_list(&self, filter: &Filter, after: Option<&After>, limit: usize) -> Result<DeadList, DeadError> {
        let dead = self.served()?.dead();
        filter.check(&dead.counts()).map_err(DeadError::Bad)?;
        let (letters, next) = dead.page(filter, after, limit.clamp(1, MOST))?;
        let counted = |count: &Count| {
            let status = filter.status.as_deref().is_none_or(|status| match status {
                "requeued" => count.requeued > 0,
                status => count.status == status,
            });
            status && filter.consumer.as_ref().is_none_or(|consumer| *consumer == count.consumer)
        };
        let counts = dead.counts().into_iter().filter(counted).collect();
        Ok(DeadList { counts, letters, next: next.map(|next| next.to_string()) })
    }

    /// One letter; `None` when there is none of that id.
    ///
    /// # Errors
    /// See [`DeadError`].
    pub fn dead_letter(&self, id: &str) -> Result<Option<DeadView>, DeadError> {
        let dead = self.served()?.dead();
        let Some((head, letter)) = dead.head(id)?.zip(dead.letter(id)?) else { return Ok(None) };
        let text = String::from_utf8(letter.to_text()).map_err(|error| DeadError::Bad(error.to_string()))?;
        let letter = RawValue::from_string(text).map_err(|error| DeadError::Bad(error.to_string()))?;
        let entity = format!("/api/azulite/v1/entities/{}/events", head.sha256);
        Ok(Some(DeadView { letter, file: head.file, requeued: head.requeued, entity }))
    }

    /// Puts letters back for another run, with their attempts at 0. What is put back already, and not over yet, stays as it
    /// is, so that it is safe to ask again.
    ///
    /// # Errors
    /// See [`DeadError`]; what was put back before stays so.
    pub fn dead_requeue(&self, request: &RequeueRequest) -> Result<DeadReport, DeadError> {
        let dispatcher = self.served()?;
        let kinds = [!request.ids.is_empty(), request.filter.is_some(), !request.letters.is_empty()];
        if kinds.iter().filter(|kind| **kind).count() != 1 {
            return Err(DeadError::Bad("give ids, or a filter, or letters".to_owned()));
        }
        if request.ids.len() > MOST || request.letters.len() > MOST {
            return Err(DeadError::Bad(format!("at most {MOST} at once")));
        }
        let mut report = DeadReport::default();
        let mut work = Requeueing::new(self, dispatcher, request);
        for text in &request.letters {
            let letter = DeadLetter::from_text(text.get().as_bytes())?;
            if let Some(reason) = dispatcher.too_large(&letter.event) {
                report.skip(&letter.id, reason);
                continue;
            }
            work.letter(letter, left_out(text), &mut report)?;
        }
        let ids = match &request.filter {
            None => request.ids.clone(),
            Some(filter) => {
                filter.check(&dispatcher.dead().counts()).map_err(DeadError::Bad)?;
                let after = request.after.as_deref().map(str::parse::<After>).transpose();
                let after = after.map_err(|reason| DeadError::Bad(format!("after: {reason}")))?;
                let limit = request.limit.unwrap_or(MOST).clamp(1, MOST);
                let (heads, next) = dispatcher.dead().page(filter, after.as_ref(), limit)?;
                report.next = next.map(|next| next.to_string());
                heads.into_iter().map(|head| head.id).collect()
            }
        };
        for id in &ids {
            work.id(id, &mut report)?;
        }
        work.finish()?;
        Ok(report)
    }

    /// Takes in the text of a letter from another machine. One that is here already, or a newer one, stays.
    ///
    /// # Errors
    /// See [`DeadError`].
    pub fn dead_import(&self, text: &[u8], dry_run: bool) -> Result<DeadReport, DeadError> {
        let dispatcher = self.served()?;
        let letter = DeadLetter::from_text(text)?;
        if let Some(reason) = dispatcher.too_large(&letter.event) {
            return Err(DeadError::Bad(reason));
        }
        let mut report = DeadReport::default();
        let mut change = dispatcher.dead().change();
        match change.find(&letter.id)? {
            Found::Busy => report.skip(&letter.id, BUSY),
            Found::Letter(_) => report.skip(&letter.id, "it is here already"),
            Found::Missing => {
                report.imported = 1;
                report.notes.extend(note_left_out(&letter.id, &serde_json::from_slice(text).unwrap_or_default()));
                change.add(&letter, None)?;
                if !dry_run {
                    dispatcher.commit_dead(change.finish())?;
                }
            }
        }
        Ok(report)
    }

    /// Removes letters for good, with a line in the audit log. `next` of the report says that there are more.
    ///
    /// # Errors
    /// See [`DeadError`].
    pub fn dead_purge(&self, request: &PurgeRequest, by: &str) -> Result<DeadReport, DeadError> {
        let dispatcher = self.served()?;
        if request.ids.is_empty() == request.before_ms.is_none() {
            return Err(DeadError::Bad("give ids, or a time before which they ended".to_owned()));
        }
        if request.ids.len() > MOST {
            return Err(DeadError::Bad(format!("at most {MOST} at once")));
        }
        let mut report = DeadReport::default();
        let mut ids = request.ids.clone();
        if let Some(before_ms) = request.before_ms {
            let (mut after, mut more) = (None, true);
            while more && ids.len() < MOST {
                let (heads, next) = dispatcher.dead().page(&Filter::default(), after.as_ref(), MOST)?;
                more = next.is_some() && heads.last().is_some_and(|last| last.time_ms < before_ms);
                let old = heads.into_iter().filter(|head| head.time_ms < before_ms && head.requeued.is_none());
                ids.extend(old.map(|head| head.id));
                after = next;
            }
            if more || ids.len() > MOST {
                report.next = Some("more".to_owned());
            }
            ids.truncate(MOST);
        }
        let mut change = dispatcher.dead().change();
        let mut purged = BTreeSet::new();
        for id in ids.iter().collect::<BTreeSet<_>>() {
            match change.find(id)? {
                Found::Letter(head) => {
                    change.remove(&head);
                    purged.insert(head.id);
                }
                Found::Missing => report.missing.push(id.clone()),
                Found::Busy => report.skip(id, BUSY),
            }
        }
        if !purged.is_empty() {
            report.purged = u64::try_from(purged.len()).unwrap_or(u64::MAX);
            let (topic, key) = dispatcher.audit_line();
            let time = Timestamp::from_millis(dispatcher.now_ms()).to_string();
            let line = serde_json::json!({
                "time": time, "action": "dead.purge", "by": by, "count": report.purged, "ids": purged,
            });
            change.note(topic, key, line.to_string().into_bytes());
            dispatcher.commit_dead(change.finish())?;
            tracing::info!(count = report.purged, by, "dead letters were purged");
        }
        Ok(report)
    }
}

/// What a text says is left out of it.
fn left_out(text: &RawValue) -> Vec<String> {
    serde_json::from_str::<LeftOut>(text.get()).unwrap_or_default().withheld
}

#[derive(Default, Deserialize)]
struct LeftOut {
    #[serde(default)]
    withheld: Vec<String>,
}

fn note_left_out(id: &str, left_out: &LeftOut) -> Option<String> {
    let named: Vec<&str> = left_out.withheld.iter().take(20).map(String::as_str).collect();
    (!named.is_empty()).then(|| format!("{id}: the file leaves out {}, and it runs without", named.join(", ")))
}

/// Letters being put back, in commits of a few megabytes.
struct Requeueing<'a> {
    admin: &'a Admin,
    dispatcher: &'a Dispatcher,
    dry_run: bool,
    expedite: bool,
    change: Change<'a>,
    woken: BTreeSet<(String, String)>,
    seen: BTreeSet<String>,
    /// The version that each consumer asked with last.
    versions: BTreeMap<String, Vec<(i64, String)>>,
}

impl<'a> Requeueing<'a> {
    fn new(admin: &'a Admin, dispatcher: &'a Dispatcher, request: &RequeueRequest) -> Self {
        let mut versions: BTreeMap<String, Vec<(i64, String)>> = BTreeMap::new();
        for Listed { seen_ms, consumer, .. } in admin.registered() {
            let params = &consumer.params;
            if consumer.task {
                versions.entry(params.name.clone()).or_default().push((seen_ms, params.version.clone()));
            }
        }
        Self {
            admin,
            dispatcher,
            dry_run: request.dry_run,
            expedite: request.expedite,
            change: dispatcher.dead().change(),
            woken: BTreeSet::new(),
            seen: BTreeSet::new(),
            versions,
        }
    }

    /// The version that is to try again: that of the letter, unless only others have asked lately.
    fn version(&self, consumer: &str, version: &str) -> String {
        let asked = self.versions.get(consumer).map(Vec::as_slice).unwrap_or_default();
        match asked.iter().max() {
            Some((_, newest)) if asked.iter().all(|(_, asked)| asked != version) => newest.clone(),
            _ => version.to_owned(),
        }
    }

    fn id(&mut self, id: &str, report: &mut DeadReport) -> Result<(), DeadError> {
        if !self.seen.insert(id.to_owned()) {
            return Ok(());
        }
        match self.change.find(id)? {
            Found::Missing => report.missing.push(id.to_owned()),
            Found::Busy => report.skip(id, BUSY),
            Found::Letter(head) => self.again(&head, report)?,
        }
        Ok(())
    }

    /// A letter that is here.
    fn again(&mut self, head: &Head, report: &mut DeadReport) -> Result<(), DeadError> {
        if let Some(Requeued { time_ms, version }) = &head.requeued
            // A run by a version for which only others have asked lately would never be over.
            && self.version(&head.consumer, version) == *version
        {
            let since = Timestamp::from_millis(*time_ms);
            report.skip(&head.id, format!("it was put back at {since}, and that run is not over"));
            return Ok(());
        }
        let Some(letter) = self.dispatcher.dead().letter(&head.id)? else {
            report.skip(&head.id, "its event cannot be read any more");
            return Ok(());
        };
        if let Err(invalid) = check_binary(&letter.event) {
            // Of one whose record had gone only what statuses carry is left.
            let advice = "it cannot be run from this letter; `azulite retry` takes what is stored of the entity";
            report.skip(&head.id, format!("its event is not whole ({}): {advice}", invalid.message));
            return Ok(());
        }
        if let Some(reason) = self.admin.not_here(&letter.event)? {
            report.skip(&head.id, reason);
            return Ok(());
        }
        let requeued = self.put(&letter, report);
        self.change.put_back(head, requeued);
        self.flush()
    }

    /// A letter out of a file.
    fn letter(&mut self, letter: DeadLetter, withheld: Vec<String>, report: &mut DeadReport) -> Result<(), DeadError> {
        if !self.seen.insert(letter.id.clone()) {
            return Ok(());
        }
        match self.change.find(&letter.id)? {
            Found::Busy => report.skip(&letter.id, BUSY),
            Found::Letter(head) => self.again(&head, report)?,
            Found::Missing => match self.admin.not_here(&letter.event)? {
                Some(reason) => report.skip(&letter.id, reason),
                None => {
                    report.imported += 1;
                    report.notes.extend(note_left_out(&letter.id, &LeftOut { withheld }));
                    let requeued = self.put(&letter, report);
                    self.change.add(&letter, Some(requeued))?;
                    self.flush()?;
                }
            },
        }
        Ok(())
    }

    fn put(&mut self, letter: &DeadLetter, report: &mut DeadReport) -> Requeued {
        let version = self.version(&letter.consumer, &letter.version);
        if version != letter.version {
            let (id, asked, was) = (&letter.id, &version, &letter.version);
            report.notes.push(format!("{id}: goes to version {asked}, as {was} has not asked for events lately"));
        }
        let now_ms = self.dispatcher.now_ms();
        let (consumer, stage) = (&letter.consumer, &letter.stage);
        let leases = self.dispatcher.leases();
        self.change.extend(leases.requeue(&letter.event, consumer, &version, stage, now_ms, self.expedite));
        self.woken.insert((consumer.clone(), version.clone()));
        report.requeued += 1;
        Requeued { time_ms: now_ms, version }
    }

    fn flush(&mut self) -> Result<(), DeadError> {
        if self.change.bytes() >= COMMIT_BYTES { self.commit() } else { Ok(()) }
    }

    fn commit(&mut self) -> Result<(), DeadError> {
        let change = std::mem::replace(&mut self.change, self.dispatcher.dead().change());
        if !self.dry_run && !change.is_empty() {
            self.dispatcher.commit_dead(change.finish())?;
            for (consumer, version) in std::mem::take(&mut self.woken) {
                self.dispatcher.requeued(&consumer, &version);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), DeadError> {
        self.commit()
    }
}

impl Admin {
    /// Why an event cannot be run here, if it cannot: bytes that it names are not stored.
    fn not_here(&self, event: &BinaryEvent) -> Result<Option<String>, StoreError> {
        for stream in &event.entity.datastreams {
            let Some(hash) = Sha256::parse(&stream.sha256) else { continue };
            let place = Place::new(event.source.name.clone(), stream.label.clone());
            if self.blobs.stat(&place, &hash)?.is_none() {
                let elsewhere = if self.blobs.known(&hash)?.is_some() { ", though under another name" } else { "" };
                return Ok(Some(format!("the stream {place}/{hash} is not stored here{elsewhere}; bring it first")));
            }
        }
        Ok(None)
    }

    /// Runs an entity again at every consumer that takes it, or at the one of that name, whatever the last status was:
    /// events with a dead letter, else the newest that the consumer's filters let through. Reads every event topic.
    ///
    /// # Errors
    /// See [`DeadError`].
    pub fn retry(&self, sha256: &str, plugin: Option<&str>) -> Result<DeadReport, DeadError> {
        let dispatcher = self.served()?;
        dispatcher.follow_purges()?;
        let mut events: BTreeMap<String, BinaryEvent> = BTreeMap::new();
        let mut report = DeadReport::default();
        self.about_entity(sha256, &mut |about| {
            match about {
                About::Event(event, ..) => {
                    if let Event::Binary(event) = *event
                        && event.entity.sha256 == sha256
                    {
                        events.insert(event.kafka_key.clone(), *event);
                    }
                }
                About::Damage(range) => {
                    let (topic, from, last) = (&range.topic, range.from_offset, range.last_offset);
                    report.notes.push(format!("{topic}-{}: offsets {from} to {last} are missing", range.partition));
                }
            }
            if events.len() < MOST_EVENTS { Flow::Continue(()) } else { Flow::Break(()) }
        })?;
        if events.is_empty() {
            report.missing.push(sha256.to_owned());
            return Ok(report);
        }
        // Of each consumer the version that asked last, with all it asks for.
        let mut consumers: BTreeMap<String, Vec<Listed>> = BTreeMap::new();
        for listed in self.registered() {
            let params = &listed.consumer.params;
            let wanted = plugin.is_none_or(|plugin| plugin == params.name);
            if wanted && listed.consumer.task && params.model == Model::Binary {
                consumers.entry(params.name.clone()).or_default().push(listed);
            }
        }
        if let Some(plugin) = plugin.filter(|plugin| !consumers.contains_key(*plugin)) {
            report.missing.push(plugin.to_owned());
        }
        let events: Vec<BinaryEvent> = events.into_values().collect();
        for (name, listed) in consumers {
            let Some(version) = listed.iter().max_by_key(|listed| listed.seen_ms) else { continue };
            let version = version.consumer.params.version.clone();
            let asking = listed.iter().filter(|listed| listed.consumer.params.version == version).collect::<Vec<_>>();
            self.retry_at(dispatcher, &name, &version, &asking, &events, &mut report)?;
        }
        Ok(report)
    }

    fn retry_at(
        &self,
        dispatcher: &Dispatcher,
        name: &str,
        version: &str,
        asking: &[&Listed],
        events: &[BinaryEvent],
        report: &mut DeadReport,
    ) -> Result<(), DeadError> {
        let mut chosen: Vec<(&BinaryEvent, Vec<Head>)> = Vec::new();
        let mut newest: Option<&BinaryEvent> = None;
        let mut reason = "it does not read events about this entity".to_owned();
        for event in events {
            let letters = dispatcher.dead().of_event(&event.kafka_key, name)?;
            if !letters.is_empty() {
                chosen.push((event, letters));
                continue;
            }
            match self.dropped(dispatcher, asking, event) {
                None if newest.is_none_or(|found| found.timestamp.micros() <= event.timestamp.micros()) => {
                    newest = Some(event);
                }
                None => {}
                Some(why) if !why.is_empty() => reason = why,
                Some(_) => {}
            }
        }
        if chosen.is_empty() {
            chosen.extend(newest.map(|event| (event, Vec::new())));
        }
        if chosen.is_empty() {
            report.skip(name, reason);
            return Ok(());
        }
        let mut change = dispatcher.dead().change();
        let now_ms = dispatcher.now_ms();
        for (event, letters) in chosen {
            if let Some(reason) = self.not_here(event)? {
                report.skip(name, reason);
                continue;
            }
            match dispatcher.hasten(&event.kafka_key, name, version)? {
                Hastened::No => {}
                Hastened::Due => {
                    report.notes.push(format!("{name}: {} waited for its next run, which is due now", event.kafka_key));
                    report.requeued += 1;
                    continue;
                }
                Hastened::Running => {
                    report.skip(name, format!("{} is being run", event.kafka_key));
                    continue;
                }
            }
            let mut again = event.clone();
            again.flags.bypass_cache = true;
            change.extend(dispatcher.leases().requeue(&again, name, version, "", now_ms, true));
            for head in letters {
                if let Found::Letter(head) = change.find(&head.id)? {
                    change.put_back(&head, Requeued { time_ms: now_ms, version: version.to_owned() });
                }
            }
            report.requeued += 1;
        }
        if report.requeued > 0 {
            dispatcher.commit_dead(change.finish())?;
            dispatcher.requeued(name, version);
        }
        Ok(())
    }

    /// Why none of those who ask gets an event, if none does; empty when none reads its topic.
    fn dropped(&self, dispatcher: &Dispatcher, asking: &[&Listed], event: &BinaryEvent) -> Option<String> {
        let Some(action) = Action::parse(&event.action) else { return Some(String::new()) };
        let topic = binary_topic(&self.topic_prefix, &event.source.name, action);
        let event = Event::Binary(Box::new(event.clone()));
        let mut reason = String::new();
        for listed in asking {
            let params = &listed.consumer.params;
            let reads = subscriptions(params, &self.topic_prefix)
                .iter()
                .any(|subscription| subscription.topics.matches(&topic, &self.topic_prefix));
            if !reads {
                continue;
            }
            let dropped = dispatcher.for_consumer(params, true, dispatcher.now_ms(), |consumer| {
                verdicts(&event, consumer).into_iter().next().map(|key| match why(key, &event, consumer) {
                    because if because.is_empty() => key.to_string(),
                    because => format!("{key}: {because}"),
                })
            });
            reason = dropped?;
        }
        Some(reason)
    }
}

/// An id as it was given.
///
/// # Errors
/// It cannot be one.
pub fn checked_id(text: &str) -> Result<&str, DeadError> {
    match is_id(text) {
        true => Ok(text),
        false => Err(DeadError::Bad(format!("{text:?} is no id of a dead letter"))),
    }
}
