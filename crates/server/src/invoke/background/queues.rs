//! Which functions have a queue of accepted calls, and how many of one function's run at once.
//!
//! A queue begins with a call and ends when it has been quiet, so that there is none for functions
//! that are no more. It ends only while nobody holds a way into it, which is given out and looked at
//! under one lock: no call is ever put into a queue that nobody reads.

use std::collections::HashMap;
use std::sync::Arc;

use fp_core::{FunctionName, Tenant};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Accepted calls of one function that may wait in memory (they are on disk as well): more than two
/// hours of one call per second.
pub(super) const BACKLOG: usize = 10_000;

/// Whose function, and which.
pub(super) type Whose = (Tenant, FunctionName);

/// The ways into all queues.
#[derive(Debug)]
pub(super) struct Queues<T>(Mutex<HashMap<Whose, mpsc::Sender<T>>>);

impl<T> Default for Queues<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Queues<T> {
    /// The way into a function's queue, which `begin` reads if there was none.
    pub(super) fn of(&self, whose: &Whose, begin: impl FnOnce(mpsc::Receiver<T>)) -> mpsc::Sender<T> {
        let mut queues = self.0.lock();
        if let Some(known) = queues.get(whose) {
            return known.clone();
        }
        let (sender, receiver) = mpsc::channel(BACKLOG);
        queues.insert(whose.clone(), sender.clone());
        begin(receiver);
        sender
    }

    /// Ends a queue unless something is in it or on its way there.
    pub(super) fn end(&self, whose: &Whose, calls: &mpsc::Receiver<T>) -> bool {
        let mut queues = self.0.lock();
        // The one of the map, and no place that is reserved or waited for.
        let is_quiet = calls.is_empty() && calls.sender_strong_count() == 1;
        if is_quiet {
            queues.remove(whose);
        }
        is_quiet
    }

    /// Ends all, once what is in them has been taken.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

/// The calls of one queue that run.
#[derive(Debug)]
pub(super) struct Running {
    free: Arc<Semaphore>,
    most: usize,
}

impl Default for Running {
    fn default() -> Self {
        Self { free: Arc::new(Semaphore::new(0)), most: 0 }
    }
}

impl Running {
    /// So many at once from now on; where fewer are wanted than run, those first end.
    pub(super) fn at_most(&mut self, wanted: usize) {
        if wanted > self.most {
            self.free.add_permits(wanted - self.most);
            self.most = wanted;
        } else {
            // What is taken now is asked for again with the next call.
            self.most -= self.free.forget_permits(self.most - wanted);
        }
    }

    /// Waits until another may run, which it does until the place is dropped.
    pub(super) async fn place(&self) -> OwnedSemaphorePermit {
        self.free.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Whether none runs.
    pub(super) fn is_none(&self) -> bool {
        self.free.available_permits() == self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(name: &str) -> Whose {
        (Tenant::default(), name.parse().expect("a name"))
    }

    #[test]
    fn a_queue_ends_when_nothing_is_in_it_or_on_its_way() {
        let queues = Queues::<u32>::default();
        let mut begun = None;
        let cats = whose("cats");
        let way = queues.of(&cats, |receiver| begun = Some(receiver));
        let mut calls = begun.expect("it has begun");
        assert!(!queues.end(&cats, &calls), "somebody may be about to send");
        let place = way.try_reserve_owned().expect("room");
        assert!(!queues.end(&cats, &calls), "a place is reserved");
        drop(place.send(1));
        assert!(!queues.end(&cats, &calls), "a call is in it");
        assert_eq!(calls.try_recv(), Ok(1));
        drop(queues.of(&cats, |_| panic!("it is there")));
        assert!(queues.end(&cats, &calls));
        assert!(queues.0.lock().is_empty());
        let mut again = false;
        drop(queues.of(&cats, |_| again = true));
        assert!(again);
    }

    #[tokio::test]
    async fn fewer_run_at_once_when_less_is_wanted() {
        let mut running = Running::default();
        running.at_most(3);
        let places = [running.place().await, running.place().await];
        running.at_most(1);
        assert_eq!((running.most, running.free.available_permits()), (2, 0), "two run");
        drop(places);
        running.at_most(1);
        assert_eq!((running.most, running.free.available_permits()), (1, 1));
        assert!(running.is_none());
        running.at_most(4);
        let _place = running.place().await;
        assert!(!running.is_none());
        assert_eq!(running.free.available_permits(), 3);
    }
}
