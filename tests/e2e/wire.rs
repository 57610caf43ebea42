//! The cable between two programs, which can be cut, go dead, or be thin.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a thread looks at a connection before it looks at the cable again.
const GLANCE: Duration = Duration::from_millis(20);

/// Passes connections on.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Where to; the first that takes the connection gets it.
    targets: Vec<SocketAddr>,
    condition: Mutex<Condition>,
    /// Connections that were cut.
    generation: AtomicUsize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Condition {
    #[default]
    Good,
    /// Nothing gets through, and nobody is told.
    Dead,
    /// At most so many bytes each [`GLANCE`].
    Thin(usize),
}

impl Wire {
    /// A cable that ends at `listen` and leads to `targets`.
    pub(crate) fn lay(listen: &str, targets: Vec<SocketAddr>) -> Wire {
        let listener = TcpListener::bind((listen, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { targets, ..State::default() });
        let shared = state.clone();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let far = shared.targets.iter().find_map(|target| TcpStream::connect(target).ok());
                if let Some(far) = far {
                    shared.join(&near, &far);
                }
            }
        });
        Wire { address, state }
    }

    /// Breaks every connection; new ones can be made.
    pub(crate) fn cut(&self) {
        self.state.generation.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn go_dead(&self) {
        *self.state.condition.lock().unwrap() = Condition::Dead;
    }

    pub(crate) fn be_thin(&self, bytes: usize) {
        *self.state.condition.lock().unwrap() = Condition::Thin(bytes);
    }

    pub(crate) fn be_good(&self) {
        *self.state.condition.lock().unwrap() = Condition::Good;
    }
}

impl State {
    fn join(self: &Arc<Self>, near: &TcpStream, far: &TcpStream) {
        for (from, to) in [(near, far), (far, near)] {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            let state = self.clone();
            std::thread::spawn(move || state.pass(from, to));
        }
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream) {
        let mine = self.generation.load(Ordering::SeqCst);
        from.set_read_timeout(Some(GLANCE)).unwrap();
        let mut buffer = vec![0; 64 << 10];
        while self.generation.load(Ordering::SeqCst) == mine {
            let condition = *self.condition.lock().unwrap();
            let room = match condition {
                Condition::Good => buffer.len(),
                Condition::Thin(bytes) => bytes,
                Condition::Dead => 0,
            };
            if condition != Condition::Good {
                std::thread::sleep(GLANCE);
            }
            if room == 0 {
                continue;
            }
            match from.read(&mut buffer[..room]) {
                Ok(0) => break,
                Ok(length) if to.write_all(&buffer[..length]).is_err() => break,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        for end in [from, to] {
            let _ = end.shutdown(std::net::Shutdown::Both);
        }
    }
}
