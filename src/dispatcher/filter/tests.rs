use super::super::labels::tests::contract_labels;
use super::super::model::{BinaryEvent, Datastream, DeleteEvent, JsonText, PathNode};
use super::super::params::Limits;
use super::super::sources::SourcesConfig;
use super::*;

fn params(query: &str) -> GetParams {
    let pairs: Vec<(String, String)> = query
        .split('&')
        .filter_map(|piece| piece.split_once('='))
        .chain([("r-historic", "true")])
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    GetParams::parse("binary", &pairs, &Limits { fetch_limit: 1000, default_wait_secs: 5 }).unwrap()
}

fn sources() -> Sources {
    let config: SourcesConfig = serde_json::from_str(r#"{"short":{"expire_events_after":"2 days"}}"#).unwrap();
    Sources::check(&config).unwrap()
}

fn binary(key: &str, nodes: usize) -> BinaryEvent {
    let mut event = BinaryEvent { kafka_key: key.into(), action: "sourced".into(), ..BinaryEvent::default() };
    event.source.name = "lab".into();
    event.source.path = vec![PathNode { action: "sourced".into(), ..PathNode::default() }; nodes];
    event.entity.datastreams = vec![Datastream { label: "content".into(), size: 5, ..Datastream::default() }];
    event
}

/// What a consumer of the contract's examples looks at.
struct Asked {
    params: GetParams,
    sources: Sources,
    purges: PurgeOrders,
    labels: Labels,
    metrics: Metrics,
}

impl Asked {
    fn new(query: &str) -> Self {
        let (purges, metrics) = (PurgeOrders::default(), Metrics::new());
        Self { params: params(query), sources: sources(), purges, labels: contract_labels(), metrics }
    }

    fn consumer(&self) -> Consumer<'_> {
        let Self { params, sources, purges, labels, metrics } = self;
        let now = Timestamp::parse("2026-01-10T00:00:00Z").unwrap();
        Consumer { params, task: false, sources, purges, labels, now, duplicates: None, metrics }
    }
}

fn kept(batch: Vec<BinaryEvent>, query: &str, task: bool) -> (Vec<String>, Vec<(String, u64)>) {
    let mut batch: Vec<(u64, Event)> =
        (0..).zip(batch.into_iter().map(|event| Event::Binary(Box::new(event)))).collect();
    let asked = Asked::new(query);
    let mut counts = FilterCounts::default();
    let consumer = Consumer { task, ..asked.consumer() };
    let purged = consume(&mut batch, |(_, event)| event, &consumer, &mut counts);
    assert!(purged.is_empty());
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    assert_eq!(counts.total(), total);
    let keys = batch.iter().map(|(_, event)| event.kafka_key().to_owned()).collect();
    (keys, counts.iter().map(|(key, count)| (key.to_string(), count)).collect())
}

/// X13.
#[test]
fn tasks_get_one_path_node_less_than_passive_consumers() {
    let batch = || [10, 11, 12].map(|nodes| binary(&nodes.to_string(), nodes)).to_vec();
    let dropped = |count| vec![("FilterTooDeep-too_deep".to_owned(), count)];
    assert_eq!(kept(batch(), "", false), (vec!["10".to_owned(), "11".to_owned()], dropped(1)));
    assert_eq!(kept(batch(), "", true), (vec!["10".to_owned()], dropped(2)));
}

/// Section 5.5: an event is counted at the first stage that drops it.
#[test]
fn stages_run_in_the_order_of_the_contract() {
    let mut event = binary("a", 12);
    event.source.name = "short".into();
    event.source.security = "TOP HIGH".into();
    event.entity.info = JsonText::new("7");
    let steps = [
        "PipelineAgeoff-ageoff",
        "FilterTooDeep-too_deep",
        "FilterSecurity-max_security",
        "FilterConsumerRules-reject_content_too_large",
        "AzuliteUnreadable-info_not_object",
    ];
    let mut query = "r-under-content-size=4&max-security=LOW";
    for step in steps {
        assert_eq!(kept(vec![event.clone()], query, false), (vec![], vec![(step.to_owned(), 1)]));
        match step {
            "PipelineAgeoff-ageoff" => event.source.name = "lab".into(),
            "FilterTooDeep-too_deep" => event.source.path.truncate(1),
            "FilterSecurity-max_security" => event.source.security = "LOW".into(),
            _ => query = "r-under-content-size=5",
        }
    }
    assert_eq!(kept(vec![event], "avro-format=true", false), (vec!["a".to_owned()], vec![]));
}

#[test]
fn survivors_keep_their_order_and_counts_add_up() {
    let mut batch: Vec<BinaryEvent> = (0..6).map(|at| binary(&at.to_string(), 1)).collect();
    batch[1].source.path = vec![PathNode::default(); 12];
    batch[2].entity.datastreams.clear();
    batch[4].entity.datastreams.clear();
    let counts =
        vec![("FilterConsumerRules-reject_no_content".to_owned(), 2), ("FilterTooDeep-too_deep".to_owned(), 1)];
    assert_eq!(kept(batch, "r-content=1", true), (["0", "3", "5"].map(str::to_owned).to_vec(), counts));
}

/// X12 and X13.
#[test]
fn keys_are_stage_and_reason() {
    assert_eq!(UNDECODABLE.to_string(), "AzuliteUnreadable-undecodable");
    let mut counts = FilterCounts::default();
    assert!(counts.is_empty());
    counts.add(UNDECODABLE);
    assert!(!counts.is_empty());
    assert_eq!(counts.total(), 1);
}

/// Section 6.6: what the consumer would not have got anyway is counted there and leaves no tombstone.
#[test]
fn purged_events_are_handed_to_the_caller_and_not_counted() {
    let mut order = DeleteEvent { action: "ids".into(), ..DeleteEvent::default() };
    order.entity.ids.ids = vec!["a".into(), "deep".into()];
    let mut purges = PurgeOrders::default();
    purges.add(&order).unwrap();
    let all = [binary("a", 1), binary("deep", 12), binary("b", 1)];
    let mut batch: Vec<Event> = all.map(|event| Event::Binary(Box::new(event))).into();
    let asked = Asked::new("");
    let consumer = Consumer { purges: &purges, ..asked.consumer() };
    let mut counts = FilterCounts::default();
    let purged = consume(&mut batch, |event| event, &consumer, &mut counts);
    let purged: Vec<_> = purged.iter().map(|(event, kind)| (event.kafka_key(), *kind)).collect();
    assert_eq!(purged, [("a", PurgeKind::Id)]);
    assert_eq!(batch.iter().map(Event::kafka_key).collect::<Vec<_>>(), ["b"]);
    assert_eq!(
        counts.iter().map(|(key, n)| (key.to_string(), n)).collect::<Vec<_>>(),
        [("FilterTooDeep-too_deep".to_owned(), 1)]
    );
}

#[test]
fn every_stage_says_what_it_thinks_of_an_event_and_simulate_asks_two_of_them() {
    let mut event = binary("a", 12);
    event.source.name = "short".into();
    let (event, asked) = (Event::Binary(Box::new(event)), Asked::new("r-under-content-size=4"));
    let params = &asked.params;
    let keys: Vec<String> = verdicts(&event, &asked.consumer()).iter().map(ToString::to_string).collect();
    assert_eq!(
        keys,
        ["PipelineAgeoff-ageoff", "FilterTooDeep-too_deep", "FilterConsumerRules-reject_content_too_large"]
    );
    assert_eq!(simulated(&event, params).unwrap().to_string(), "FilterTooDeep-too_deep");
    let event = Event::Binary(Box::new(binary("a", 11)));
    let rule = simulated(&event, params).unwrap();
    assert_eq!(rule.to_string(), "FilterConsumerRules-reject_content_too_large");
    assert_eq!(simulated(&event, &self::params("r-under-content-size=5")), None);
}

/// Section 5.5.6: only what is handed out makes a later event of its key a duplicate.
#[test]
fn an_unreadable_event_does_not_make_a_readable_one_of_its_key_a_duplicate() {
    let asked = Asked::new("");
    let (seen, gathered) = (duplicates::Duplicates::new(1 << 12), std::collections::HashSet::new());
    let asking =
        duplicates::Asking::new(&seen, &asked.metrics, (&asked.params, crate::broker::Rewind::default()), &gathered)
            .unwrap();
    let consumer = Consumer { duplicates: Some(&asking), ..asked.consumer() };
    let mut unreadable = binary("a", 1);
    unreadable.entity.info = JsonText::new("7");
    let mut batch: Vec<Event> =
        [unreadable, binary("a", 1), binary("a", 1)].map(|event| Event::Binary(Box::new(event))).into();
    let mut counts = FilterCounts::default();
    consume(&mut batch, |event| event, &consumer, &mut counts);
    assert_eq!(batch.iter().map(Event::kafka_key).collect::<Vec<_>>(), ["a"]);
    let counts: Vec<_> = counts.iter().map(|(key, count)| (key.to_string(), count)).collect();
    let one = |key: &str| (key.to_owned(), 1);
    assert_eq!(counts, [one("AzuliteUnreadable-info_not_object"), one("FilterDuplicates-skipped")]);
}
