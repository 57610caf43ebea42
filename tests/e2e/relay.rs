//! A place where clients find a `podlog up` that comes back at another port.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Passes connections on, for as long as the process lives.
pub(crate) struct Relay {
    /// Where clients connect to, on loopback.
    pub(crate) port: u16,
    target: Arc<Mutex<u16>>,
    /// How many have been made.
    pub(crate) connections: Arc<AtomicUsize>,
}

impl Relay {
    pub(crate) fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Relay {
            port: listener.local_addr().unwrap().port(),
            target: Arc::new(Mutex::new(port)),
            connections: Arc::default(),
        };
        let (target, connections) = (relay.target.clone(), relay.connections.clone());
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                connections.fetch_add(1, Ordering::SeqCst);
                let port = *target.lock().unwrap();
                // A server that is not there refuses; so does this.
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                pass_on(client.try_clone().unwrap(), server.try_clone().unwrap());
                pass_on(server, client);
            }
        });
        relay
    }

    pub(crate) fn set_target(&self, port: u16) {
        *self.target.lock().unwrap() = port;
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        // However it ends, both sides hear of it.
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}
