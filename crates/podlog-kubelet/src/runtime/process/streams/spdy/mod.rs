//! SPDY/3.1, as far as Kubernetes' clients speak it (`github.com/moby/spdystream`): streams that the client opens, data both ways,
//! pings. Nobody there counts windows, and neither is it done here: what holds a sender back is TCP.

mod connection;
mod frame;
mod headers;

pub(crate) use connection::open;
pub(crate) use headers::{Headers, value};
