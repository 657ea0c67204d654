//! Clients that go away while their POST is under way.

use std::task::{Context, Waker};

use serde_json::json;

use super::super::hub::Hub as _;
use super::super::world::{World, sourced, status};
use super::*;

const ACTIVE: &str = "name=Carver&version=1.2&count=10&deadline=0&r-historic=true";

fn finished(world: &World) -> u64 {
    world.dispatcher().metrics.tracking_control.at([FINISHED]).get()
}

/// A client that goes away at any moment: what is in the log has been counted, and the task it closes is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_from_a_commit_is_done_for_a_client_that_has_gone_too() {
    let world = World::new();
    for (round, letter) in "abcdef0123456789".chars().enumerate() {
        world.put(letter).await;
        let task = world.get("binary/active", ACTIVE).await.events.pop().unwrap();
        let (before, dequeued) = (finished(&world), task["dequeued"].as_str().unwrap().to_owned());
        let request = PostRequest {
            query: vec![("model".to_owned(), "status".to_owned())],
            body: json!(status(&task, "completed")).to_string().into(),
            user_agent: String::new(),
        };
        let mut post = world.hub.post(request);
        let mut done = false;
        for _ in 0..round * 40 {
            done = post.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
            if done {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(post);
        // Whether it was stored is not known here: if it was, this one ends nothing.
        world.post("model=status", &status(&task, "completed")).await.unwrap();
        let counted = tokio::time::timeout(Duration::from_secs(20), async {
            while finished(&world) == before {
                tokio::task::yield_now().await;
            }
        });
        counted.await.unwrap_or_else(|_| panic!("round {round}, ready {done}: {dequeued} is not closed"));
        assert_eq!(finished(&world), before + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_that_is_awaited_is_stored_once() {
    let world = World::new();
    world.post("model=binary", &json!([sourced('a')])).await.unwrap();
    assert_eq!(world.get("binary/passive", ACTIVE).await.ids(), "a");
}
