//! The Kafka listener: frames and messages of the protocol, and what they ask of the broker.
//!
//! | part | what it owns |
//! |---|---|
//! | [`codec`] | bytes to messages and back, for both sides of a connection |
//! | [`error`] | error codes |
//! | `frame` | frames off a socket, bounded |
//! | `connection` | one client: requests in, answers out, in order |
//! | `complaints` | log lines that are not repeated |
//! | [`listener`] | the accept loop |
//! | [`api`] | what each request means |

pub mod api;
pub mod codec;
mod complaints;
mod connection;
pub mod error;
mod frame;
pub mod listener;

pub use api::{Api, ClampReplication};
pub use listener::Listener;

use azulite_storage::Store;

/// The cluster id, made once in the life of a data directory: 22 characters of base64, as Kafka's.
///
/// # Durability
/// On `Ok` it is durable.
/// # Errors
/// The state cannot be read or written.
pub fn cluster_id(store: &Store) -> Result<String, String> {
    const NAME: &[u8] = b"kafka/cluster-id";
    let kept = store.kv(NAME).map_err(|error| error.to_string())?;
    if let Some(kept) = kept.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok()) {
        return Ok(kept);
    }
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bits = u128::from_be_bytes(azulite_storage::ids::TopicId::random().0);
    let mut id = String::with_capacity(22);
    for _ in 0..22 {
        let digit = usize::try_from(bits & 63).unwrap_or(0);
        id.push(char::from(DIGITS.get(digit).copied().unwrap_or(b'A')));
        bits >>= 6;
    }
    store.put_kv(vec![(NAME.to_vec(), Some(id.clone().into()))]).map_err(|error| error.to_string())?;
    Ok(id)
}
