//! Thousands of plugin names: readers take memory only while they are used, and their positions are kept all the same.

use futures_util::StreamExt;
use futures_util::stream;

use crate::dispatcher::hub::{GetRequest, Hub};
use crate::dispatcher::world::World;

const NAMES: usize = 5_000;
const READERS: usize = 50;

fn query(number: usize) -> String {
    format!("name=p{number}&version=1&count=10&deadline=0&r-historic=true")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_names_that_ask_once_leave_few_readers_and_every_position() {
    let world = World::changed(|options| options.max_readers = READERS);
    world.put('a').await;
    let ask = |number| {
        let world = &world;
        async move { world.get("binary/passive", &query(number)).await.ids() }
    };
    // Together, so that they share commits.
    let answers: Vec<String> = stream::iter(0..NAMES).map(ask).buffer_unordered(40).collect().await;
    assert!(answers.iter().all(|ids| ids == "a") && answers.len() == NAMES);
    let readers = world.dispatcher().readers.len();
    assert!(readers <= READERS + 40, "{readers} readers are in memory");
    assert_eq!(world.dispatcher().registry().consumers(world.now_ms()).len(), NAMES, "known for a day");
    world.put('b').await;
    for number in (0..NAMES).step_by(250) {
        assert_eq!(ask(number).await, "b", "its position was kept");
    }
    assert!(world.dispatcher().readers.len() <= READERS);
}

/// A reader that leaves the memory knows only how far everything before was delivered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_with_a_lost_answer_stays_until_it_was_fetched_again() {
    let world = World::changed(|options| options.max_readers = 3);
    world.put('a').await;
    world.put('b').await;
    let pairs = [("name", "p"), ("count", "1"), ("deadline", "0"), ("r-historic", "true")];
    let query = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let (model, user_agent) = ("binary".to_owned(), String::new());
    let slow = world.hub.get(GetRequest { model, task: false, query, user_agent, in_process: false }).await.unwrap();
    let next = "name=p&count=5&deadline=0&r-historic=true";
    assert_eq!(world.get("binary/passive", next).await.ids(), "b", "the first one is on its way to another");
    drop(slow);
    for number in 0..4 {
        assert_eq!(world.get("binary/passive", &self::query(number)).await.ids(), "ab");
    }
    assert_eq!(world.get("binary/passive", next).await.ids(), "a", "what was delivered does not come again");
    let before = world.dispatcher().readers.len();
    assert!(before <= 2 * 3, "{before}");
}
