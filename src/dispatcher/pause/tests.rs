//! X15 and what lies around it, on a clock of our own.

use proptest::prelude::*;

use super::super::world::{MINUTE_MS, START_MS, World};
use super::*;

const ACTIVE: &str = "binary/active";
const HISTORIC: &str = "count=10&deadline=0&r-historic=true";

fn asks(name: &str) -> String {
    format!("name={name}&version=1&{HISTORIC}")
}

async fn pause(world: &World, letter: char) {
    let event = serde_json::json!([super::super::world::sourced(letter)]);
    world.post("model=binary&pause_plugins=true", &event).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x15_a_pause_ends_after_ten_minutes_and_what_came_in_it_is_left_out() {
    let world = World::new();
    pause(&world, 'a').await;
    let paused = world.get(ACTIVE, &asks("p")).await;
    assert_eq!(paused.info, serde_json::json!({"filtered": 0, "fetched": 0, "ready": false, "paused": true}));
    assert!(paused.events.is_empty());
    assert_eq!(world.get("binary/passive", &asks("q")).await.ids(), "a");
    world.pass_minutes(11);
    let after = world.get(ACTIVE, &asks("p")).await;
    assert_eq!((after.is_paused(), after.ids().as_str()), (false, ""), "skipped to the end");
    world.put('b').await;
    assert_eq!(world.get(ACTIVE, &asks("p")).await.ids(), "b");
    world.pass_minutes(20);
    assert_eq!(world.get(ACTIVE, &asks("new")).await.ids(), "ab", "31 minutes after: from the beginning");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_there_before_goes_on_at_the_end_of_the_pause_however_late_and_after_restarts() {
    let mut world = World::new();
    world.put('a').await;
    world.put('b').await;
    assert_eq!(world.get(ACTIVE, &asks("p").replace("count=10", "count=1")).await.ids(), "a");
    assert_eq!(world.get("binary/passive", &asks("q").replace("count=10", "count=1")).await.ids(), "a");
    pause(&world, 'c').await;
    world.pass_minutes(5);
    world = world.restart();
    assert!(world.get(ACTIVE, &asks("p")).await.is_paused(), "a restart does not end it");
    world.pass_minutes(6);
    world.put('d').await;
    world = world.restart();
    world.pass_minutes(3 * 24 * 60);
    world.put('e').await;
    assert_eq!(world.get(ACTIVE, &asks("p")).await.ids(), "de");
    assert_eq!(world.get("binary/passive", &asks("q")).await.ids(), "bcde", "passive is not affected");
    world = world.restart();
    world.put('f').await;
    assert_eq!(world.get(ACTIVE, &asks("p")).await.ids(), "f", "the mark is used up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_ends_while_nothing_runs_is_settled_at_the_start() {
    let mut world = World::new();
    assert_eq!(world.get(ACTIVE, &asks("p")).await.ids(), "");
    pause(&world, 'a').await;
    world.pass_minutes(60);
    world = world.restart();
    world.put('b').await;
    assert_eq!(world.get(ACTIVE, &asks("p")).await.ids(), "b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_makes_the_pause_longer_and_rejected_ones_count() {
    let world = World::new();
    pause(&world, 'a').await;
    world.pass_minutes(9);
    world.post("model=nonsense&pause_plugins=1", &serde_json::json!([])).await.unwrap_err();
    world.pass_minutes(9);
    assert!(world.get(ACTIVE, &asks("p")).await.is_paused());
    world.post("model=nonsense&pause_plugins=True", &serde_json::json!([])).await.unwrap_err();
    world.pass_minutes(1);
    assert!(!world.get(ACTIVE, &asks("p")).await.is_paused());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_consumer_that_waits_when_the_pause_begins_gets_nothing_of_it() {
    let world = World::new();
    let query = asks("p").replace("deadline=0", "deadline=30");
    let (got, ()) = tokio::join!(world.get(ACTIVE, &query), async {
        while world.dispatcher().options.max_waiting == world.dispatcher().waiting.available_permits() {
            tokio::task::yield_now().await;
        }
        pause(&world, 'a').await;
    });
    assert!(got.is_paused() && got.events.is_empty(), "{got:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_consumer_is_told_what_was_left_out_before_the_pause_began() {
    let world = World::new();
    world.put('a').await;
    let query = format!("{}&d-action=sourced", asks("p").replace("deadline=0", "deadline=30"));
    let (got, ()) = tokio::join!(world.get(ACTIVE, &query), async {
        while world.dispatcher().options.max_waiting == world.dispatcher().waiting.available_permits() {
            tokio::task::yield_now().await;
        }
        pause(&world, 'b').await;
    });
    let filters = serde_json::json!({"FilterConsumerRules-reject_event_type": 1});
    let info = serde_json::json!({"filtered": 1, "fetched": 0, "ready": false, "paused": true, "filters": filters});
    assert_eq!(got.info, info);
    assert_eq!(world.get("binary/passive", &asks("p")).await.ids(), "b", "what was left out is done with");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_and_expedite_go_on_behind_the_pause_too_and_new_topics_are_read_whole() {
    let world = World::new();
    let query = "name=p&version=1&count=10&deadline=0&r-live=true&r-expedite=true&r-historic=true";
    assert!(world.get(ACTIVE, query).await.events.is_empty());
    world.put('a').await;
    let mut expedited = super::super::world::sourced('b');
    expedited["flags"] = serde_json::json!({"expedite": true});
    world.post("model=binary&pause_plugins=true", &serde_json::json!([expedited])).await.unwrap();
    world.pass_minutes(10);
    let mut elsewhere = super::super::world::sourced('c');
    elsewhere["source"]["name"] = "elsewhere".into();
    world.post("model=binary", &serde_json::json!([elsewhere])).await.unwrap();
    world.put('d').await;
    let mut ids: Vec<char> = world.get(ACTIVE, query).await.ids().chars().collect();
    ids.sort_unstable();
    assert_eq!(ids, ['c', 'd']);
    let live = query.replace("name=p", "name=late").replace("&r-historic=true", "");
    let mut ids: Vec<char> = world.get(ACTIVE, &live).await.ids().chars().collect();
    ids.sort_unstable();
    assert_eq!(ids, ['c', 'd'], "seen first within 30 minutes: from the end of the pause on");
}

#[test]
fn a_clock_that_is_set_back_ends_a_pause() {
    let record = Record { number: 1, last_ms: START_MS, ends: None };
    assert!(record.lasts(START_MS) && record.lasts(START_MS + PAUSE_MS - 1) && record.lasts(START_MS - MINUTE_MS));
    assert!(!record.lasts(START_MS + PAUSE_MS) && !record.lasts(START_MS - PAUSE_MS));
}

#[derive(Clone, Debug)]
enum Step {
    Put,
    Pause,
    Minutes(i64),
    Active(usize),
    Passive(usize),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Put),
        1 => Just(Step::Pause),
        3 => (1_i64..15).prop_map(Step::Minutes),
        4 => (0_usize..3).prop_map(Step::Active),
        2 => (0_usize..2).prop_map(Step::Passive),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

/// What 6.4 says, over one list of events.
#[derive(Default)]
struct Rules {
    now: i64,
    events: usize,
    /// Number, last request, and the end once it is over.
    pause: Option<(i64, i64, Option<usize>)>,
    /// Position and the last pause known, per group.
    tasks: [Option<(usize, i64)>; 3],
    passive: [usize; 2],
}

impl Rules {
    fn settle(&mut self) {
        if let Some((_, last, end @ None)) = &mut self.pause
            && self.now - *last >= 10
        {
            *end = Some(self.events);
        }
    }

    fn active(&mut self, group: usize) -> Option<std::ops::Range<usize>> {
        let now = self.now;
        let (number, last, end) = match self.pause {
            None => (0, i64::MIN / 2, 0),
            Some((_, _, None)) => return None,
            Some((number, last, Some(end))) => (number, last, end),
        };
        let from = match self.tasks[group] {
            Some((position, seen)) if seen < number => position.max(end),
            Some((position, _)) => position,
            None if now - last < 30 => end,
            None => 0,
        };
        self.tasks[group] = Some((self.events, number));
        Some(from..self.events)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_order_of_pauses_reads_and_restarts_follows_the_rules(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        runtime.block_on(async {
            let (mut world, mut rules) = (World::new(), Rules::default());
            for step in steps {
                rules.settle();
                match step {
                    Step::Put => {
                        world.put('a').await;
                        rules.events += 1;
                    }
                    Step::Pause => {
                        pause(&world, 'a').await;
                        rules.pause = match rules.pause {
                            Some((number, _, None)) => Some((number, rules.now, None)),
                            Some((number, _, Some(_))) => Some((number + 1, rules.now, None)),
                            None => Some((1, rules.now, None)),
                        };
                        rules.events += 1;
                    }
                    Step::Minutes(minutes) => {
                        world.pass_minutes(minutes);
                        rules.now += minutes;
                    }
                    Step::Active(group) => {
                        let got = world.get(ACTIVE, &asks(&format!("t{group}")).replace("=10", "=1000")).await;
                        let want = rules.active(group);
                        assert_eq!(got.is_paused(), want.is_none());
                        assert_eq!(got.events.len(), want.map_or(0, |range| range.len()));
                    }
                    Step::Passive(group) => {
                        let got = world.get("binary/passive", &asks(&format!("p{group}")).replace("=10", "=1000")).await;
                        assert_eq!(got.events.len(), rules.events - rules.passive[group]);
                        rules.passive[group] = rules.events;
                    }
                    Step::Restart => world = world.restart(),
                }
            }
        });
    }
}
