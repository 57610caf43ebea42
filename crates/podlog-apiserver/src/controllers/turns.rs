//! Who of the controllers may use a processor. They work in slices and leave room for requests, which nobody makes wait
//! for a look at thousands of objects.

use std::sync::Arc;
use std::time::{Duration, Instant};

use podlog_api::ApiError;
use tokio::sync::Semaphore;

/// What one slice takes, unless a single look takes longer.
const SLICE: Duration = Duration::from_millis(1);

/// Turns of controllers: half of the processors, one at least, is theirs at any time.
#[derive(Clone)]
pub(crate) struct Turns(Arc<Semaphore>);

/// How much of a slice is left.
#[derive(Clone, Copy)]
pub(crate) struct Slice(Instant);

impl Turns {
    /// On a machine with so many processors.
    pub(crate) fn among(processors: usize) -> Self {
        Turns(Arc::new(Semaphore::new((processors / 2).max(1))))
    }

    /// Works off the async threads, when it is its turn. In the order in which they ask.
    ///
    /// # Errors
    /// When the work panicked.
    pub(crate) async fn slice<T: Send + 'static>(
        &self,
        work: impl FnOnce(Slice) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = self.0.clone().acquire_owned().await.map_err(ApiError::internal)?;
        let work = move || {
            // Kept until the work is done, also when nobody waits for it any more.
            let _turn = turn;
            work(Slice(Instant::now()))
        };
        tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)
    }
}

impl Slice {
    /// Whether others are to have their turn.
    pub(crate) fn is_over(self) -> bool {
        self.0.elapsed() >= SLICE
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn no_more_work_at_once_than_half_of_the_processors() {
        for (processors, most) in [(1, 1), (2, 1), (5, 2), (8, 4)] {
            let turns = Turns::among(processors);
            let (working, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let work = || {
                let (working, seen) = (working.clone(), seen.clone());
                turns.slice(move |slice| {
                    seen.fetch_max(working.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    while !slice.is_over() {
                        std::thread::yield_now();
                    }
                    working.fetch_sub(1, Ordering::SeqCst);
                })
            };
            let done = futures_util::future::join_all((0..20).map(|_| work())).await;
            assert!(done.into_iter().all(|done| done.is_ok()));
            assert_eq!(seen.load(Ordering::SeqCst), most, "{processors} processors");
        }
    }

    #[tokio::test]
    async fn a_panic_gives_the_turn_back() {
        let turns = Turns::among(1);
        assert!(turns.slice(|_| panic!("as a controller may")).await.is_err());
        assert_eq!(turns.slice(|_| 7).await.unwrap(), 7);
    }
}
