//! The edge over real sockets, with the services behind it replaced by ones that can be told what to do.

mod delivery;
mod events;
mod server;
mod streams;
mod support;
