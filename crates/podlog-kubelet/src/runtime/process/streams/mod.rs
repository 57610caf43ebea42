//! Streams of containers for clients: a server on loopback that each preparation gives one address of, once.
//!
//! Subprotocols, channels and texts as `k8s.io/kubelet/pkg/cri/streaming`: `v5.` and `v4.channel.k8s.io` over WebSocket, `v4` over
//! SPDY/3.1, ports over either. Whoever has the address may use it, as with every CRI runtime: it holds a token that nobody can
//! guess, for a minute at most.

mod attach;
mod channels;
mod descriptor;
mod ends;
mod exec;
mod forward;
mod inlet;
mod negotiate;
mod remote;
mod server;
pub(crate) mod spdy;
mod tickets;
mod websocket;

pub(super) use server::StreamServer;
pub(super) use tickets::Ticket;
