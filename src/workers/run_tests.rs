//! The frame over a dispatcher in memory.

use super::*;
use crate::dispatcher::model::{Datastream, PathNode, Source};
use crate::workers::upstream::Content;
use std::io::Read;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::mpsc;

const WAIT: Duration = Duration::from_secs(20);

/// A dispatcher that hands out what it is given, and writes down what it is told.
#[derive(Default)]
struct Script {
    state: Mutex<ScriptState>,
    changed: Condvar,
}

#[derive(Default)]
struct ScriptState {
    events: VecDeque<BinaryEvent>,
    asked: Vec<(usize, u64)>,
    registered: Vec<String>,
    finals: Vec<StatusEvent>,
    heartbeats: Vec<Vec<String>>,
    published: Vec<usize>,
    released: Vec<String>,
    interrupts: u64,
    unavailable: bool,
    refuse_results: bool,
    paused: bool,
}

impl Script {
    fn lock(&self) -> MutexGuard<'_, ScriptState> {
        lock(&self.state)
    }

    fn offer(&self, events: impl IntoIterator<Item = BinaryEvent>) {
        self.lock().events.extend(events);
        self.changed.notify_all();
    }

    fn change(&self, change: impl FnOnce(&mut ScriptState)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until something is so.
    fn until(&self, what: &str, is_so: impl Fn(&ScriptState) -> bool) -> MutexGuard<'_, ScriptState> {
        let (state, timeout) = self
            .changed
            .wait_timeout_while(self.lock(), WAIT, |state| !is_so(state))
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "waited for: {what}");
        state
    }
}

fn unavailable<T>() -> Result<T, UpstreamError> {
    Err(UpstreamError::Unavailable("out for lunch".to_owned()))
}

impl Upstream for Script {
    fn register(&self, plugin: &PluginEvent) -> Result<(), UpstreamError> {
        self.change(|state| state.registered.push(plugin.entity.version.clone()));
        Ok(())
    }

    fn lease(&self, query: &[(&str, &str)]) -> Result<Fetched, UpstreamError> {
        let value = |name: &str| query.iter().find(|(given, _)| *given == name).map_or("", |(_, value)| *value);
        let (count, deadline): (usize, u64) = (value("count").parse().unwrap(), value("deadline").parse().unwrap());
        let mut state = self.lock();
        state.asked.push((count, deadline));
        self.changed.notify_all();
        if state.unavailable {
            return unavailable();
        }
        let before = state.interrupts;
        let end = Instant::now() + Duration::from_secs(deadline);
        while state.events.len() < count && state.interrupts == before && Instant::now() < end && !state.paused {
            let left = end.saturating_duration_since(Instant::now());
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.paused {
            return Ok(Fetched { paused: true, ..Fetched::default() });
        }
        let count = count.min(state.events.len());
        self.changed.notify_all();
        Ok(Fetched { events: state.events.drain(..count).collect(), ..Fetched::default() })
    }

    fn interrupt(&self) {
        self.change(|state| state.interrupts += 1);
    }

    fn report(&self, statuses: &[StatusEvent]) -> Result<(), UpstreamError> {
        if self.lock().unavailable {
            return unavailable();
        }
        let refuse = self.lock().refuse_results && statuses.iter().any(|status| !status.entity.results.is_empty());
        if refuse {
            return Err(UpstreamError::Refused("too much of a good thing".to_owned()));
        }
        let (beats, finals): (Vec<_>, Vec<_>) =
            statuses.iter().cloned().partition(|status| status.entity.status == "heartbeat");
        self.change(|state| {
            state.finals.extend(finals);
            if !beats.is_empty() {
                state.heartbeats.push(beats.into_iter().map(|status| status.entity.input.dequeued).collect());
            }
        });
        Ok(())
    }

    fn publish(&self, events: &[BinaryEvent]) -> Result<(), UpstreamError> {
        self.change(|state| state.published.push(events.len()));
        Ok(())
    }

    fn release(&self, dequeued: &[&str]) -> Result<(), UpstreamError> {
        self.change(|state| state.released.extend(dequeued.iter().map(|id| (*id).to_owned())));
        Ok(())
    }

    fn content(&self, _: &str, _: &str, _: &str) -> Result<Option<Box<dyn Content>>, UpstreamError> {
        Ok(None)
    }

    fn upload(&self, _: &str, _: &str, _: &mut dyn Read) -> Result<Datastream, UpstreamError> {
        unavailable()
    }
}

type Run = dyn Fn(&Job) -> Outcome + Send + Sync;

struct TestWorker {
    run: Box<Run>,
    slots: usize,
    version: Mutex<String>,
    at_once: AtomicUsize,
    most: AtomicUsize,
}

impl TestWorker {
    fn new(slots: usize, run: impl Fn(&Job) -> Outcome + Send + Sync + 'static) -> Arc<Self> {
        let (at_once, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { run: Box::new(run), slots, version: Mutex::new("1".to_owned()), at_once, most })
    }
}

impl Worker for TestWorker {
    fn announce(&self) -> PluginEvent {
        let version = lock(&self.version).clone();
        let author = Author { name: "w".into(), version, category: "plugin".into(), ..Author::default() };
        results::registration(&author, "", &[], BTreeMap::new(), Timestamp::zero())
    }

    fn query(&self) -> Vec<(String, String)> {
        vec![("r-live".to_owned(), "true".to_owned())]
    }

    fn slots(&self) -> usize {
        self.slots
    }

    fn bulk(&self) -> usize {
        20
    }

    fn job_timeout(&self) -> Duration {
        Duration::from_secs(600)
    }

    fn run(&self, job: &Job) -> Outcome {
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        struct Leave<'a>(&'a AtomicUsize);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let _leave = Leave(&self.at_once);
        (self.run)(job)
    }
}

fn event(n: usize) -> BinaryEvent {
    let node = PathNode { sha256: format!("{n:064x}"), action: "sourced".into(), ..PathNode::default() };
    let node = PathNode { author: Author { name: "a".into(), ..Author::default() }, ..node };
    let mut event = BinaryEvent { dequeued: format!("task-{n}"), action: "sourced".into(), ..BinaryEvent::default() };
    event.source = Source { name: "s".into(), path: vec![node], ..Source::default() };
    event.entity.sha256 = format!("{n:064x}");
    event
}

struct Fixture {
    script: Arc<Script>,
    worker: Arc<TestWorker>,
    frame: Arc<Frame>,
    clock_ms: Arc<AtomicU64>,
}

impl Fixture {
    fn start(slots: usize, run: impl Fn(&Job) -> Outcome + Send + Sync + 'static) -> Self {
        Self::over(Arc::default(), TestWorker::new(slots, run))
    }

    fn over(script: Arc<Script>, worker: Arc<TestWorker>) -> Self {
        let (clock_ms, begun) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let reading = clock_ms.clone();
        let now = move || begun + Duration::from_millis(reading.load(Ordering::SeqCst));
        let options = Options { tick: Duration::from_millis(2), now: Arc::new(now), ..Options::default() };
        let frame = Frame::start(worker.clone(), script.clone(), options, Arc::default()).unwrap();
        Self { script, worker, frame, clock_ms }
    }

    fn pass(&self, time: Duration) {
        self.clock_ms.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    fn finals(&self, count: usize) -> Vec<StatusEvent> {
        self.script.until(&format!("{count} final statuses"), |state| state.finals.len() >= count).finals.clone()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.frame.stop(Duration::ZERO);
    }
}

/// Holds jobs until the test lets them go.
fn gate() -> (mpsc::Sender<()>, impl Fn(&Job) -> Outcome + Send + Sync) {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    (go, move |_: &Job| {
        // An end of the sender opens the gate for good.
        lock(&wait).recv().ok();
        Outcome::completed(Vec::new())
    })
}

#[test]
fn no_fetch_asks_for_more_than_is_free_and_every_event_has_one_final_status() {
    let script = Arc::new(Script::default());
    script.offer((0..45).map(event));
    let worker = TestWorker::new(4, |_| {
        std::thread::yield_now();
        Outcome::completed(Vec::new())
    });
    let fixture = Fixture::over(script, worker);
    let finals = fixture.finals(45);
    let mut tasks: Vec<_> = finals.iter().map(|status| status.entity.input.dequeued.clone()).collect();
    tasks.sort();
    tasks.dedup();
    assert_eq!((finals.len(), tasks.len()), (45, 45));
    assert!(finals.iter().all(|status| status.entity.status == "completed-empty" && status.author.name == "w"));
    let state = fixture.script.lock();
    assert!(state.asked.iter().all(|(count, _)| *count <= 4), "{:?}", state.asked);
    assert!(state.asked.iter().all(|(count, deadline)| *count == 1 || *deadline == 0), "{:?}", state.asked);
    assert!(fixture.worker.most.load(Ordering::SeqCst) <= 4);
    assert_eq!(state.registered, ["1"]);
}

#[test]
fn many_slots_ask_for_no_more_than_the_bulk() {
    let script = Arc::new(Script::default());
    script.offer((0..45).map(event));
    let fixture = Fixture::over(script, TestWorker::new(64, |_| Outcome::completed(Vec::new())));
    fixture.finals(45);
    let asked = fixture.script.lock().asked.clone();
    assert_eq!(asked.iter().map(|(count, _)| *count).max(), Some(20));
}

#[test]
fn an_event_wakes_a_worker_that_waits() {
    let fixture = Fixture::start(4, |_| Outcome::completed(Vec::new()));
    drop(fixture.script.until("a long poll", |state| state.asked.contains(&(1, 60))));
    let offered = Instant::now();
    fixture.script.offer([event(1)]);
    fixture.finals(1);
    assert!(offered.elapsed() < Duration::from_secs(1), "{:?}", offered.elapsed());
}

#[test]
fn heartbeats_of_all_running_jobs_are_one_request_every_thirty_seconds() {
    let (go, run) = gate();
    let fixture = Fixture::start(3, run);
    fixture.script.offer((0..3).map(event));
    for round in 1..=3 {
        while fixture.worker.at_once.load(Ordering::SeqCst) < 3 {
            std::thread::yield_now();
        }
        fixture.pass(Duration::from_secs(31));
        let state = fixture.script.until("a heartbeat", |state| state.heartbeats.len() >= round);
        assert_eq!((state.heartbeats.len(), state.heartbeats[round - 1].len()), (round, 3));
    }
    drop(go);
    fixture.finals(3);
}

#[test]
fn a_panic_is_the_end_of_one_job_only() {
    let fixture = Fixture::start(1, |job| {
        assert!(job.event.dequeued != "task-1", "bad luck");
        Outcome::completed(Vec::new())
    });
    fixture.script.offer((0..3).map(event));
    let finals = fixture.finals(3);
    let failed = &finals[1].entity;
    assert_eq!((failed.status.as_str(), failed.message.as_str()), ("error-runner", "bad luck"));
    assert_eq!(
        (finals[0].entity.status.as_str(), finals[2].entity.status.as_str()),
        ("completed-empty", "completed-empty")
    );
    let view = fixture.frame.view(0);
    assert_eq!(view.stages[0].last_error.as_ref().map(|error| error.status.as_str()), Some("error-runner"));
}

#[test]
fn a_job_over_its_time_ends_as_timeout_and_keeps_its_slot() {
    let (go, run) = gate();
    let fixture = Fixture::start(1, run);
    fixture.script.offer([event(0), event(1)]);
    drop(fixture.script.until("the first lease", |state| state.events.len() == 1));
    fixture.pass(Duration::from_secs(601));
    let finals = fixture.finals(1);
    assert_eq!(finals[0].entity.status, "error-timeout");
    assert_eq!(fixture.script.lock().events.len(), 1, "no slot is free");
    go.send(()).unwrap();
    drop(fixture.script.until("the second lease", |state| state.events.is_empty()));
    go.send(()).unwrap();
    let finals = fixture.finals(2);
    assert_eq!((finals.len(), finals[1].entity.input.dequeued.as_str()), (2, "task-1"));
}

#[test]
fn a_deep_event_is_opted_out_of_without_work() {
    let fixture = Fixture::start(1, |_| panic!("there is nothing to do"));
    let mut deep = event(1);
    deep.source.path = vec![deep.source.path[0].clone(); 10];
    fixture.script.offer([deep]);
    let status = fixture.finals(1).remove(0).entity;
    assert_eq!(status.status, "opt-out");
    assert!(status.message.contains("10 nodes"), "{}", status.message);
}

#[test]
fn a_stop_lets_jobs_finish_and_gives_the_others_back() {
    let (go, run) = gate();
    let fixture = Fixture::start(2, run);
    fixture.script.offer((0..2).map(event));
    while fixture.worker.at_once.load(Ordering::SeqCst) < 2 {
        std::thread::yield_now();
    }
    go.send(()).unwrap();
    fixture.finals(1);
    fixture.frame.stop(Duration::from_millis(20));
    let state = fixture.script.lock();
    assert_eq!((state.finals.len(), state.released.len()), (1, 1));
    assert_ne!(state.finals[0].entity.input.dequeued, state.released[0]);
    drop(state);
    // What is done after that says nothing.
    drop(go);
    while fixture.worker.at_once.load(Ordering::SeqCst) > 0 {
        std::thread::yield_now();
    }
    assert_eq!(fixture.script.lock().finals.len(), 1);
    let asked = fixture.script.lock().asked.len();
    fixture.script.offer([event(9)]);
    assert_eq!(fixture.script.lock().asked.len(), asked);
}

#[test]
fn a_final_status_waits_for_a_dispatcher_that_is_gone() {
    let (go, run) = gate();
    let fixture = Fixture::start(1, run);
    fixture.script.offer([event(0)]);
    while fixture.worker.at_once.load(Ordering::SeqCst) < 1 {
        std::thread::yield_now();
    }
    fixture.script.change(|state| state.unavailable = true);
    go.send(()).unwrap();
    while fixture.worker.at_once.load(Ordering::SeqCst) > 0 {
        std::thread::yield_now();
    }
    assert_eq!(fixture.frame.view(0).stages[0].in_flight, 1);
    fixture.script.change(|state| state.unavailable = false);
    assert_eq!(fixture.finals(1).len(), 1);
}

#[test]
fn a_final_status_is_given_up_when_the_lease_is_over() {
    let fixture = Fixture::start(1, |_| Outcome::completed(Vec::new()));
    drop(fixture.script.until("a long poll", |state| !state.asked.is_empty()));
    fixture.script.change(|state| {
        state.events.push_back(event(0));
        state.unavailable = true;
    });
    drop(fixture.script.until("the lease", |state| state.events.is_empty()));
    // Before that its time has not begun.
    while fixture.frame.view(0).stages[0].in_flight < 1 {
        std::thread::yield_now();
    }
    fixture.pass(Duration::from_secs(31 * 60));
    // The slot is free again, so a fetch is tried, which fails.
    drop(fixture.script.until("another fetch", |state| state.asked.len() > 1));
    assert!(fixture.script.lock().finals.is_empty());
}

#[test]
fn a_refused_result_ends_as_error_output() {
    let fixture = Fixture::start(1, |job| {
        let findings = results::Findings {
            features: vec![results::feature("f", "string", "v", "")],
            ..results::Findings::default()
        };
        Outcome::completed(vec![results::enriched(&job.origin(), findings).unwrap()])
    });
    fixture.script.change(|state| state.refuse_results = true);
    fixture.script.offer([event(0)]);
    let status = fixture.finals(1).remove(0).entity;
    assert_eq!((status.status.as_str(), status.message.as_str()), ("error-output", "too much of a good thing"));
    assert!(status.results.is_empty());
}

#[test]
fn a_new_version_is_registered_although_a_fetch_waits() {
    let fixture = Fixture::start(2, |_| Outcome::completed(Vec::new()));
    drop(fixture.script.until("a long poll", |state| state.asked.contains(&(1, 60))));
    *lock(&fixture.worker.version) = "2".to_owned();
    let state = fixture.script.until("a registration", |state| state.registered.len() == 2);
    assert_eq!(state.registered, ["1", "2"]);
}

#[test]
fn paused_plugins_leave_the_dispatcher_alone() {
    let script = Arc::new(Script::default());
    script.change(|state| state.paused = true);
    let fixture = Fixture::over(script, TestWorker::new(2, |_| Outcome::completed(Vec::new())));
    drop(fixture.script.until("a fetch", |state| !state.asked.is_empty()));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(fixture.script.lock().asked.len(), 1);
}

#[test]
fn results_over_the_number_of_one_status_are_published_before_it() {
    let fixture = Fixture::start(1, |job| {
        let one = results::enriched(&job.origin(), results::Findings::default()).unwrap();
        Outcome::completed(vec![one; 2500])
    });
    fixture.script.offer([event(0)]);
    let status = fixture.finals(1).remove(0).entity;
    assert_eq!((status.status.as_str(), status.results.len()), ("completed", 1000));
    assert_eq!(fixture.script.lock().published, [1000, 500]);
}

#[test]
fn an_outcome_is_made_to_fit_its_status() {
    let origin = event(0);
    let author = Author { name: "w".into(), ..Author::default() };
    let origin = results::Origin { input: &origin, author: &author, now: Timestamp::zero() };
    let with = |features: usize| {
        let feature = |n: usize| results::feature("f", "string", format!("{n}"), "");
        let findings =
            results::Findings { features: (0..features).map(feature).collect(), ..results::Findings::default() };
        results::enriched(&origin, findings).unwrap()
    };
    let cut = settled(Outcome::completed(vec![with(1001)]));
    assert_eq!(cut.status, Status::CompletedWithErrors);
    assert_eq!(cut.message, "1000 of 1001 values of the feature f were kept");
    assert_eq!(settled(Outcome::completed(vec![with(1)])).status, Status::Completed);
    let failed = settled(Outcome { results: vec![with(1)], ..Outcome::opt_out("too big") });
    assert_eq!(failed.results.len(), 0);
    assert!(failed.message.starts_with("too big; 1 results were left out"), "{}", failed.message);
    let broken = BinaryEvent { action: "sourced".into(), ..with(1) };
    assert_eq!(settled(Outcome::completed(vec![broken])).status, Status::ErrorOutput);
}
