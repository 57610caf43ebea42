//! Who is connected to the control socket.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use podlog_container::control::{self, MAX_REQUEST, Reply, Request};
use serde::{Deserialize, Serialize};

use crate::handover::{Handed, Parcel, Unpacked};

/// Most connections at a time; more wait at the door.
const MAX_CLIENTS: usize = 64;
/// Most descriptors a connection may have sent ahead of a request.
const MAX_DESCRIPTORS: usize = 8;
const CHUNK: usize = 16 * 1024;
/// How long to do nothing when the system has no descriptor left: whoever waits at the door cannot be let in, and is
/// there at once again.
const PAUSE: Duration = Duration::from_millis(10);

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ClientId(u64);

/// A request that came in, with the descriptors that came with it.
pub(crate) struct Incoming {
    /// What is asked.
    pub(crate) request: Request,
    /// Empty unless it brought some.
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// All connections. None of them can hold up capture: reading and writing never block, and who sends too much or does
/// not read answers is cut off.
pub(crate) struct Clients {
    listener: UnixListener,
    connected: BTreeMap<ClientId, Client>,
    next: u64,
}

struct Client {
    socket: UnixStream,
    unread: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// Answers that come later.
    owed: usize,
    /// It will say nothing more, and stays for the answers that it is owed.
    is_silent: bool,
}

/// All connections in a parcel.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ClientsState {
    listener: Handed,
    connected: Vec<(ClientId, ClientState)>,
    next: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct ClientState {
    socket: Handed,
    unread: Vec<u8>,
    descriptors: Vec<Handed>,
    owed: usize,
    is_silent: bool,
}

impl Clients {
    /// Puts all connections into a parcel.
    pub(crate) fn pack(&self, parcel: &mut Parcel) -> ClientsState {
        let listener = parcel.put(&self.listener);
        let connected = self.connected.iter().map(|(id, client)| (*id, client.pack(parcel))).collect();
        ClientsState { listener, connected, next: self.next }
    }

    /// Takes them out again.
    ///
    /// # Errors
    /// When a descriptor is missing.
    pub(crate) fn unpack(state: ClientsState, parcel: &mut Unpacked) -> Result<Self, String> {
        let listener = parcel.take(state.listener)?.into();
        let connected = state.connected.into_iter().map(|(id, client)| Ok((id, client.unpack(parcel)?)));
        Ok(Self { listener, connected: connected.collect::<Result<_, String>>()?, next: state.next })
    }

    /// Serves a listening socket.
    pub(crate) fn new(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener, connected: BTreeMap::new(), next: 0 })
    }

    /// The listening socket; `None` while there is no room for another connection.
    pub(crate) fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.has_room().then(|| self.listener.as_fd())
    }

    fn has_room(&self) -> bool {
        self.connected.len() < MAX_CLIENTS
    }

    /// The connections that may say something.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = (ClientId, BorrowedFd<'_>)> {
        let talking = self.connected.iter().filter(|(_, client)| !client.is_silent);
        talking.map(|(id, client)| (*id, client.socket.as_fd()))
    }

    /// Whether a connection is still there.
    pub(crate) fn is_connected(&self, id: ClientId) -> bool {
        self.connected.get(&id).is_some_and(|client| !client.is_silent)
    }

    /// Takes in whoever waits at the door.
    pub(crate) fn accept(&mut self) {
        while self.has_room() {
            match self.listener.accept() {
                Ok((socket, _)) => self.let_in(socket),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return thread::sleep(PAUSE),
            }
        }
    }

    fn let_in(&mut self, socket: UnixStream) {
        if socket.set_nonblocking(true).is_ok() {
            let client =
                Client { socket, unread: Vec::new(), descriptors: Vec::new(), owed: 0, is_silent: false };
            self.connected.insert(ClientId(self.next), client);
            self.next += 1;
        }
    }

    /// Reads what a connection has sent. Garbage is answered and ends the connection.
    pub(crate) fn receive(&mut self, id: ClientId) -> Vec<Incoming> {
        let Some(client) = self.connected.get_mut(&id) else { return Vec::new() };
        let mut requests = Vec::new();
        let is_open = client.read().is_ok()
            && loop {
                match client.next_request() {
                    Ok(Some(request)) => requests.push(request),
                    Ok(None) => break client.unread.len() <= MAX_REQUEST,
                    Err(why) => {
                        client.send(&Reply::Error(why), None);
                        break false;
                    }
                }
            };
        if !is_open {
            self.said_goodbye(id);
        }
        requests
    }

    /// Who waits for an answer is kept until it has been given.
    fn said_goodbye(&mut self, id: ClientId) {
        let Some(client) = self.connected.get_mut(&id) else { return };
        client.is_silent = true;
        if client.owed == 0 {
            self.connected.remove(&id);
        }
    }

    /// A connection gets an answer later, whether it says more until then or not.
    pub(crate) fn owe(&mut self, id: ClientId) {
        if let Some(client) = self.connected.get_mut(&id) {
            client.owed += 1;
        }
    }

    /// Answers a connection to which an answer is owed.
    pub(crate) fn pay(&mut self, id: ClientId, reply: &Reply) {
        self.answer(id, reply);
        if let Some(client) = self.connected.get_mut(&id) {
            client.owed = client.owed.saturating_sub(1);
            if client.is_silent && client.owed == 0 {
                self.connected.remove(&id);
            }
        }
    }

    /// Answers a connection.
    pub(crate) fn answer(&mut self, id: ClientId, reply: &Reply) {
        self.answer_with(id, reply, None);
    }

    /// Answers a connection, with a descriptor if there is one.
    pub(crate) fn answer_with(&mut self, id: ClientId, reply: &Reply, descriptor: Option<OwnedFd>) {
        let is_read = self.connected.get(&id).is_some_and(|client| client.send(reply, descriptor));
        if !is_read {
            self.connected.remove(&id);
        }
    }
}

impl Client {
    fn pack(&self, parcel: &mut Parcel) -> ClientState {
        ClientState {
            socket: parcel.put(&self.socket),
            unread: self.unread.clone(),
            descriptors: self.descriptors.iter().map(|descriptor| parcel.put(descriptor)).collect(),
            owed: self.owed,
            is_silent: self.is_silent,
        }
    }

    /// # Errors
    /// When the connection has ended.
    fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0; CHUNK];
        match control::receive(&self.socket, &mut chunk, &mut self.descriptors) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) if self.descriptors.len() > MAX_DESCRIPTORS => Err(ErrorKind::InvalidData.into()),
            Ok(length) => {
                self.unread.extend_from_slice(&chunk[..length]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn next_request(&mut self) -> Result<Option<Incoming>, String> {
        let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') else { return Ok(None) };
        let line: Vec<u8> = self.unread.drain(..=end).collect();
        let request = Request::parse(&line[..end])?;
        Ok(Some(Incoming { request, descriptors: std::mem::take(&mut self.descriptors) }))
    }

    /// Answers are shorter than a socket's buffer: one that does not fit has no reader.
    fn send(&self, reply: &Reply, descriptor: Option<OwnedFd>) -> bool {
        let line = format!("{reply}\n");
        let sent = control::send(&self.socket, line.as_bytes(), descriptor.as_slice());
        sent.is_ok_and(|length| length == line.len())
    }
}

impl ClientState {
    fn unpack(self, parcel: &mut Unpacked) -> Result<Client, String> {
        let Self { socket, unread, descriptors, owed, is_silent } = self;
        let descriptors =
            descriptors.into_iter().map(|handed| parcel.take(handed)).collect::<Result<_, _>>()?;
        Ok(Client { socket: parcel.take(socket)?.into(), unread, descriptors, owed, is_silent })
    }
}
