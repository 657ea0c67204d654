use serde_json::json;

use super::super::hub::PostError;
use super::super::world::{World, sourced};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_refused_at_the_last_step_do_not_count_as_published() {
    let world = World::new();
    let mut large = sourced('b');
    large["entity"]["datastreams"][0]["magic"] = json!("x".repeat(1 << 20));
    let refused = world.post("model=binary", &json!([sourced('a'), large])).await.unwrap_err();
    assert!(matches!(refused, PostError::Publish { stored: 1, total: 2, .. }), "{refused:?}");
    assert_eq!(world.dispatcher().metrics.events_published.at(["amy", "binary"]).get(), 1);
}
