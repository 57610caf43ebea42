//! A connection over HTTP/2 and the bodies of its streams, in one task.
//!
//! hyper gives each stream a task, which the connection wakes for every frame that it may send, and which wakes the connection for every
//! frame that it has: mostly on another thread. Here they take turns, until none has anything to do.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use hyper::rt::Executor;
use parking_lot::Mutex;
use tokio::task::coop::has_budget_remaining;

use crate::SparseBuffers;

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where a connection puts the streams that begin.
#[derive(Clone, Default)]
pub(super) struct Begun(Arc<Mutex<Vec<Stream>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Begun {
    fn execute(&self, stream: F) {
        self.0.lock().push(Box::pin(stream));
    }
}

/// A connection with its streams. They end with it.
pub(super) struct Turns<C> {
    connection: C,
    bell: Arc<Bell>,
    begun: Begun,
    streams: Vec<Option<(Stream, Arc<Bell>)>>,
    queue: Arc<Mutex<Queue>>,
}

/// Who is to be polled, in order.
#[derive(Default)]
struct Queue {
    rung: VecDeque<Part>,
    /// The task is at work, and comes to the end of the queue by itself.
    is_served: bool,
    task: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Connection,
    /// By its place.
    Stream(usize),
}

/// What wakes one of them.
struct Bell {
    part: Part,
    /// It is in the queue.
    has_rung: AtomicBool,
    queue: Arc<Mutex<Queue>>,
}

impl Bell {
    /// One that has been rung, since everybody is polled once to begin with.
    fn rung(part: Part, queue: &Arc<Mutex<Queue>>) -> Arc<Self> {
        let bell = Arc::new(Bell { part, has_rung: AtomicBool::new(false), queue: queue.clone() });
        bell.wake_by_ref();
        bell
    }

    fn poll<F: Future + Unpin>(self: &Arc<Self>, future: &mut F) -> Poll<F::Output> {
        // Before the look: what changes afterwards rings again.
        self.has_rung.swap(false, Ordering::AcqRel);
        Pin::new(future).poll(&mut Context::from_waker(&Waker::from(self.clone())))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.has_rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut queue = self.queue.lock();
        queue.rung.push_back(self.part);
        let task = if queue.is_served { None } else { queue.task.clone() };
        drop(queue);
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Queue {
    fn next(&mut self) -> Option<Part> {
        let next = self.rung.pop_front();
        self.is_served = next.is_some();
        next
    }
}

impl<C: Future + Unpin> Turns<C> {
    pub(super) fn new(connection: C, begun: Begun) -> Self {
        let queue = Arc::default();
        let bell = Bell::rung(Part::Connection, &queue);
        Turns { connection, bell, begun, streams: Vec::new(), queue }
    }

    /// To be told something; it has to be polled then.
    pub(super) fn connection(&mut self) -> &mut C {
        self.bell.wake_by_ref();
        &mut self.connection
    }

    fn poll_part(&mut self, part: Part) -> Poll<C::Output> {
        match part {
            Part::Connection => {
                let end = SparseBuffers::for_connection(|| self.bell.poll(&mut self.connection));
                self.admit();
                end
            }
            Part::Stream(place) => {
                // One that panics ends alone, unfinished.
                let poll = |(stream, bell): &mut (Stream, Arc<Bell>)| {
                    catch_unwind(AssertUnwindSafe(|| bell.poll(stream))).unwrap_or(Poll::Ready(()))
                };
                if self.streams[place].as_mut().is_some_and(|stream| poll(stream).is_ready()) {
                    self.streams[place] = None;
                }
                Poll::Pending
            }
        }
    }

    fn admit(&mut self) {
        for stream in std::mem::take(&mut *self.begun.0.lock()) {
            let free = self.streams.iter().position(Option::is_none);
            let place = free.unwrap_or(self.streams.len());
            if free.is_none() {
                self.streams.push(None);
            }
            self.streams[place] = Some((stream, Bell::rung(Part::Stream(place), &self.queue)));
        }
    }
}

impl<C: Future + Unpin> Future for Turns<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        self.queue.lock().task = Some(context.waker().clone());
        loop {
            let next = self.queue.lock().next();
            let Some(part) = next else { return Poll::Pending };
            if let Poll::Ready(end) = self.poll_part(part) {
                return Poll::Ready(end);
            }
            if !has_budget_remaining() {
                // Whoever is left in the queue is next when others have had their turn.
                self.queue.lock().is_served = false;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;

    /// A connection that begins streams, and ends when all of them have sent it so many words.
    fn connection(streams: usize, words: usize) -> (Turns<Stream>, Arc<AtomicUsize>) {
        let (begun, heard) = (Begun::default(), Arc::new(AtomicUsize::new(0)));
        let (executor, count) = (begun.clone(), heard.clone());
        let connection = async move {
            let (sender, mut said) = mpsc::channel(1);
            for _ in 0..streams {
                let sender = sender.clone();
                executor.execute(async move {
                    for _ in 0..words {
                        sender.send(()).await.unwrap();
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                });
            }
            drop(sender);
            while said.recv().await.is_some() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        };
        (Turns::new(Box::pin(connection), begun), heard)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn everybody_has_a_turn() {
        for (streams, words) in [(0, 0), (1, 100), (300, 10)] {
            let (turns, heard) = connection(streams, words);
            tokio::time::timeout(Duration::from_secs(30), turns).await.unwrap();
            assert_eq!(heard.load(Ordering::Relaxed), streams * words);
        }
    }

    #[tokio::test]
    async fn who_always_has_something_to_do_keeps_nobody_out() {
        let begun = Begun::default();
        let others = Arc::new(AtomicUsize::new(0));
        let (executor, seen) = (begun.clone(), others.clone());
        let connection = poll_fn(move |context| {
            if seen.load(Ordering::Relaxed) == 0 {
                // Always at work, and within tokio's budget.
                executor.execute(poll_fn(|context| {
                    let _ = std::pin::pin!(tokio::task::coop::consume_budget()).poll(context);
                    context.waker().wake_by_ref();
                    Poll::<()>::Pending
                }));
                for _ in 0..200 {
                    let seen = seen.clone();
                    executor.execute(async move {
                        seen.fetch_add(1, Ordering::Relaxed);
                    });
                }
            }
            context.waker().wake_by_ref();
            if seen.load(Ordering::Relaxed) < 200 { Poll::Pending } else { Poll::Ready(()) }
        });
        let turns = Turns::new(connection, begun);
        // The task itself gives way to others.
        let (turns, other) = tokio::join!(turns, tokio::spawn(std::future::ready(7)));
        assert_eq!((turns, other.unwrap()), ((), 7));
    }

    #[tokio::test]
    async fn a_stream_that_panics_ends_alone() {
        let (begun, said) = (Begun::default(), Arc::new(AtomicUsize::new(0)));
        let (executor, heard) = (begun.clone(), said.clone());
        executor.execute(async { panic!("as it should") });
        executor.execute(async move {
            heard.fetch_add(1, Ordering::Relaxed);
        });
        let connection = poll_fn(|context| {
            context.waker().wake_by_ref();
            if said.load(Ordering::Relaxed) == 1 { Poll::Ready(()) } else { Poll::Pending }
        });
        Turns::new(connection, begun).await;
    }

    #[tokio::test]
    async fn streams_end_with_their_connection() {
        let (begun, alive) = (Begun::default(), Arc::new(()));
        let (executor, held) = (begun.clone(), alive.clone());
        let mut turn = 0;
        let connection = poll_fn(move |context| {
            let held = held.clone();
            executor.execute(async move {
                std::future::pending::<()>().await;
                drop(held);
            });
            turn += 1;
            context.waker().wake_by_ref();
            if turn == 3 { Poll::Ready(()) } else { Poll::Pending }
        });
        Turns::new(connection, begun).await;
        assert_eq!(Arc::strong_count(&alive), 1);
    }
}
