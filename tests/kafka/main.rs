//! Black-box tests of the Kafka port: the protocol over real sockets, spoken with the client side of our own codec and
//! read strictly. What real clients do is tested in `tests/interop/kafka`; here is what they do not do.

#[cfg(test)]
mod deletes;
#[cfg(test)]
mod events;
#[cfg(test)]
mod fetch;
#[cfg(test)]
mod groups;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod produce;
#[cfg(test)]
#[path = "../support/mod.rs"]
mod support;
#[cfg(test)]
mod versions;
#[cfg(test)]
mod wire;
