//! Places of workers as they are handed out: who has one, and who waits for one.
//!
//! [`fp_core::share::Places`] decides; here those who wait stand in line, and a place that comes free is
//! put into the hands of the one that it is for. Nobody else wakes: with a thousand who wait, a place
//! for each to snatch at would cost a thousand looks for each worker that ends.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fp_core::Tenant;
use fp_core::share::{Claim, Places};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The places of one host; shared as `Arc<Hall>`.
#[derive(Debug)]
pub(super) struct Hall {
    state: Mutex<State>,
    /// Somebody waits for a place: read at the end of every call, without the lock.
    is_short: AtomicBool,
}

#[derive(Debug)]
struct State {
    places: Places,
    /// Those who wait, by tenant and in the order in which they came.
    lines: HashMap<Tenant, BTreeMap<u64, oneshot::Sender<News>>>,
    next_number: u64,
}

/// What somebody who waits is told.
#[derive(Debug)]
enum News {
    Place(HostPlace),
    /// Nobody owes its tenant a place any more.
    AskAgain,
}

/// What is said to somebody who wants a place.
pub(super) enum Asked {
    /// Here it is.
    Place(HostPlace),
    /// The tenant `giver` holds more and should give one up; the turn comes when it has.
    Wait { giver: Tenant, turn: Turn },
    /// There is none, and nobody holds more.
    Full,
    /// Those who wait hold less.
    Yield,
}

impl Hall {
    pub(super) fn new(most: u32) -> Arc<Self> {
        let state = State { places: Places::new(most), lines: HashMap::new(), next_number: 0 };
        Arc::new(Self { state: Mutex::new(state), is_short: AtomicBool::new(false) })
    }

    /// How many places there are.
    pub(super) fn most(&self) -> u32 {
        self.state.lock().places.most()
    }

    /// What a tenant weighs from here on.
    pub(super) fn weigh(self: &Arc<Self>, tenant: &Tenant, weight: f64) {
        self.change(|places| places.weigh(tenant, weight));
    }

    /// A tenant wants a place.
    pub(super) fn ask(self: &Arc<Self>, tenant: &Tenant) -> Asked {
        let mut state = self.state.lock();
        match state.places.claim(tenant) {
            Claim::Granted => Asked::Place(self.place_of(tenant)),
            Claim::Yield => Asked::Yield,
            Claim::From(giver) if giver == *tenant => Asked::Full,
            Claim::From(giver) => {
                let (sender, receiver) = oneshot::channel();
                let number = state.next_number;
                state.next_number += 1;
                state.places.wait(tenant);
                state.lines.entry(tenant.clone()).or_default().insert(number, sender);
                self.is_short.store(true, Ordering::Relaxed);
                let turn = Turn { hall: self.clone(), tenant: tenant.clone(), number, receiver };
                Asked::Wait { giver, turn }
            }
        }
    }

    /// A place for a worker that is there already: also beyond the most.
    pub(super) fn take(self: &Arc<Self>, tenant: &Tenant) -> HostPlace {
        self.change(|places| places.take(tenant));
        self.place_of(tenant)
    }

    /// Whether the next place that the tenant could do without belongs to somebody who waits.
    pub(super) fn owes(&self, tenant: &Tenant) -> bool {
        self.is_short.load(Ordering::Relaxed) && self.state.lock().places.owes(tenant)
    }

    fn place_of(self: &Arc<Self>, tenant: &Tenant) -> HostPlace {
        HostPlace { hall: self.clone(), tenant: tenant.clone() }
    }

    /// Changes who holds what, and tells those whom that concerns.
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut Places)) {
        let mut state = self.state.lock();
        change(&mut state.places);
        let news = self.settle(&mut state);
        drop(state);
        // Not under the lock: a place that nobody is there for any more comes back to it.
        for (sender, news) in news {
            let _ = sender.send(news);
        }
    }

    /// Gives away what is free for those who wait, and sends off who waits for nothing.
    fn settle(self: &Arc<Self>, state: &mut State) -> Vec<(oneshot::Sender<News>, News)> {
        let mut news = Vec::new();
        if state.lines.is_empty() {
            return news;
        }
        while let Some(tenant) = state.places.next().cloned() {
            let Some(sender) = state.first_of(&tenant) else { break };
            state.places.take(&tenant);
            news.push((sender, News::Place(self.place_of(&tenant))));
        }
        for tenant in state.places.wait_in_vain().to_vec() {
            while let Some(sender) = state.first_of(&tenant) {
                news.push((sender, News::AskAgain));
            }
        }
        // Under the lock, so that it is not unsaid for one who has just begun to wait.
        self.is_short.store(state.places.has_waiting(), Ordering::Relaxed);
        news
    }
}

impl State {
    /// Takes the first of a tenant's out of its line.
    fn first_of(&mut self, tenant: &Tenant) -> Option<oneshot::Sender<News>> {
        let number = *self.lines.get(tenant)?.first_key_value()?.0;
        self.leave(tenant, number)
    }

    fn leave(&mut self, tenant: &Tenant, number: u64) -> Option<oneshot::Sender<News>> {
        let line = self.lines.get_mut(tenant)?;
        let sender = line.remove(&number)?;
        if line.is_empty() {
            self.lines.remove(tenant);
        }
        self.places.leave(tenant);
        Some(sender)
    }
}

/// A worker's place, given back by its drop.
#[derive(Debug)]
pub(crate) struct HostPlace {
    hall: Arc<Hall>,
    tenant: Tenant,
}

impl Drop for HostPlace {
    fn drop(&mut self) {
        self.hall.change(|places| places.release(&self.tenant));
    }
}

/// Somebody's place in line, until it is dropped.
pub(super) struct Turn {
    hall: Arc<Hall>,
    tenant: Tenant,
    number: u64,
    receiver: oneshot::Receiver<News>,
}

impl Turn {
    /// Waits for the place; none if it is to be asked for anew. Cancel-safe.
    pub(super) async fn come(&mut self) -> Option<HostPlace> {
        match (&mut self.receiver).await {
            Ok(News::Place(place)) => Some(place),
            Ok(News::AskAgain) | Err(_) => None,
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.hall.state.lock();
        if state.leave(&self.tenant, self.number).is_none() {
            return;
        }
        let news = self.hall.settle(&mut state);
        self.hall.is_short.store(state.places.has_waiting(), Ordering::Relaxed);
        drop(state);
        for (sender, news) in news {
            let _ = sender.send(news);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::{Context, Poll, Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn tenant(name: &str) -> Tenant {
        name.parse().expect("a name")
    }

    fn place(hall: &Arc<Hall>, name: &str) -> HostPlace {
        match hall.ask(&tenant(name)) {
            Asked::Place(place) => place,
            _ => panic!("no place for {name}"),
        }
    }

    fn turn(hall: &Arc<Hall>, name: &str) -> Turn {
        match hall.ask(&tenant(name)) {
            Asked::Wait { giver, turn } if giver == tenant("hoarder") => turn,
            _ => panic!("{name} does not wait for the hoarder"),
        }
    }

    /// None while it waits; whether there was a place.
    fn poll(turn: &mut Turn, waker: &Waker) -> Option<Option<HostPlace>> {
        match std::pin::pin!(turn.come()).poll(&mut Context::from_waker(waker)) {
            Poll::Ready(place) => Some(place),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_place_that_comes_free_wakes_one_of_a_thousand_who_wait() {
        let (hall, woken) = (Hall::new(3_000), Arc::new(Woken::default()));
        let mut held: Vec<_> = (0..3_000).map(|_| place(&hall, "hoarder")).collect();
        let mut turns: Vec<_> = (0..1_000).map(|_| turn(&hall, "poor")).collect();
        let waker = Waker::from(woken.clone());
        assert!(turns.iter_mut().all(|turn| poll(turn, &waker).is_none()));
        assert!(hall.owes(&tenant("hoarder")) && !hall.owes(&tenant("poor")));
        let mut got = Vec::new();
        for first in &mut turns[..3] {
            drop(held.pop());
            assert_eq!(woken.0.swap(0, Ordering::Relaxed), 1);
            got.push(poll(first, &waker).flatten().expect("the first who came"));
        }
    }

    #[test]
    fn who_leaves_the_line_gets_nothing_and_nothing_is_lost() {
        let hall = Hall::new(6);
        let mut held: Vec<_> = (0..6).map(|_| place(&hall, "hoarder")).collect();
        let (first, mut second) = (turn(&hall, "poor"), turn(&hall, "poor"));
        drop(first);
        drop(held.pop());
        let got = poll(&mut second, Waker::noop()).flatten();
        assert!(got.is_some() && !hall.owes(&tenant("hoarder")), "nobody waits any more");
        let third = turn(&hall, "poor");
        drop(held.pop());
        // It was handed over, and nobody took it.
        drop(third);
        drop(place(&hall, "poor"));
        drop((got, held));
        let all: Vec<_> = (0..6).map(|_| place(&hall, "poor")).collect();
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn nobody_waits_for_what_nobody_owes() {
        let hall = Hall::new(4);
        let mut held: Vec<_> = (0..4).map(|_| place(&hall, "hoarder")).collect();
        let mut turns: Vec<_> = (0..3).map(|_| turn(&hall, "poor")).collect();
        drop((held.pop(), held.pop()));
        let told = turns.iter_mut().map(|turn| poll(turn, Waker::noop()));
        let told: Vec<_> = told.map(|told| told.map(|place| place.is_some())).collect();
        assert_eq!(told, [Some(true), Some(true), Some(false)], "two each, and the last asks again");
    }
}
