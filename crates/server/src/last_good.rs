//! Last good answers, for functions that give them out instead of a refusal.
//!
//! Each function version that wants that has a [`Shelf`]; what stands on it goes with the version.
//! All shelves share one bound in bytes: who puts something up when it is reached takes from the
//! largest shelf of the tenant that holds most, so nobody can empty another's. What may be kept, and
//! for whom, is [`fp_core::fallback`]'s to say. A kept answer is a copy: the bytes of an answer may be
//! a small part of what a worker sent.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fp_core::Tenant;
use fp_sandbox::protocol::AnswerHead;
use parking_lot::Mutex;

/// The largest answer that is kept: pages and JSON documents, not downloads.
const MOST_OF_ANSWER: usize = 1 << 20;

/// What the answers of one version may take: some hundred documents of an ordinary size.
const MOST_OF_SHELF: usize = 8 << 20;

/// What all may take: a quarter of the least that request bodies may (`bodies.rs`).
const MOST: usize = 64 << 20;

/// What an answer takes besides its bytes: its places in two maps.
const OVERHEAD: usize = 256;

/// A good answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) head: AnswerHead,
    pub(crate) body: Bytes,
}

/// All that is kept, of all functions.
#[derive(Debug, Default)]
pub(crate) struct LastGood {
    shelves: Mutex<Shelves>,
}

#[derive(Debug, Default)]
struct Shelves {
    next: u64,
    bytes: usize,
    all: HashMap<u64, Kept>,
}

/// What one shelf holds.
#[derive(Debug)]
struct Kept {
    tenant: Tenant,
    bytes: usize,
    answers: HashMap<Box<[u8]>, Entry>,
    /// Keys in the order in which their answers were made.
    by_age: BTreeMap<(Duration, u64), Box<[u8]>>,
    /// Which headers matter, for questions whose answers say so; by the key without headers.
    public: HashMap<Box<[u8]>, Arc<[String]>>,
    serial: u64,
}

#[derive(Debug)]
struct Entry {
    answer: Answer,
    made: (Duration, u64),
    size: usize,
}

/// The last good answers of one function version. Dropping it forgets them.
#[derive(Debug)]
pub(crate) struct Shelf {
    of: Arc<LastGood>,
    id: u64,
    /// How old an answer may be.
    pub(crate) most_age: Duration,
}

impl LastGood {
    /// An empty shelf.
    pub(crate) fn shelf(self: &Arc<Self>, tenant: &Tenant, most_age: Duration) -> Shelf {
        let mut shelves = self.shelves.lock();
        shelves.next += 1;
        let id = shelves.next;
        shelves.all.insert(id, Kept::of(tenant.clone()));
        Shelf { of: self.clone(), id, most_age }
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.shelves.lock().bytes
    }
}

impl Shelf {
    /// Which headers matter to answers of this question, where they say so.
    pub(crate) fn public(&self, base: &[u8]) -> Option<Arc<[String]>> {
        self.of.shelves.lock().all.get(&self.id)?.public.get(base).cloned()
    }

    /// Notes it, or that it is no longer so.
    pub(crate) fn set_public(&self, base: Box<[u8]>, named: Option<&[String]>) {
        let mut shelves = self.of.shelves.lock();
        let Some(kept) = shelves.all.get_mut(&self.id) else { return };
        match named {
            None => drop(kept.public.remove(&base)),
            Some(named) if kept.public.get(&base).is_some_and(|known| **known == *named) => {}
            Some(named) => {
                // As many as there can be answers of an ordinary size; which headers matter is told
                // again by the next answer.
                if kept.public.len() >= MOST_OF_SHELF >> 14 {
                    kept.public.clear();
                }
                kept.public.insert(base, named.into());
            }
        }
    }

    /// Puts an answer up in the place of the one before. One that is too large only takes that away.
    pub(crate) fn put(&self, now: Duration, key: Box<[u8]>, head: &AnswerHead, body: &Bytes) {
        let size = OVERHEAD + 2 * key.len() + body.len() + head_bytes(head);
        let mut shelves = self.of.shelves.lock();
        let shelves = &mut *shelves;
        let Some(kept) = shelves.all.get_mut(&self.id) else { return };
        // Under load most answers are the one before: that costs no copy.
        if kept.refresh(now, &key, head, body) {
            return;
        }
        shelves.bytes -= kept.remove(&key);
        if size > MOST_OF_ANSWER {
            return;
        }
        while kept.bytes + size > MOST_OF_SHELF {
            shelves.bytes -= kept.remove_oldest();
        }
        while shelves.bytes + size > MOST {
            shelves.make_room();
        }
        let Some(kept) = shelves.all.get_mut(&self.id) else { return };
        let head = AnswerHead {
            status: head.status,
            headers: head.headers.clone(),
            kind: head.kind,
            ..AnswerHead::default()
        };
        kept.insert(now, key, Answer { head, body: Bytes::copy_from_slice(body) }, size);
        shelves.bytes += size;
    }

    /// Takes an answer away, if it is there.
    pub(crate) fn remove(&self, key: &[u8]) {
        let mut shelves = self.of.shelves.lock();
        let shelves = &mut *shelves;
        let Some(kept) = shelves.all.get_mut(&self.id) else { return };
        shelves.bytes -= kept.remove(key);
    }

    /// The answer to a question, and its age; none beyond the age that it may have.
    pub(crate) fn get(&self, now: Duration, key: &[u8]) -> Option<(Answer, Duration)> {
        let mut shelves = self.of.shelves.lock();
        let shelves = &mut *shelves;
        let kept = shelves.all.get_mut(&self.id)?;
        let entry = kept.answers.get(key)?;
        let age = now.saturating_sub(entry.made.0);
        if age > self.most_age {
            shelves.bytes -= kept.remove(key);
            return None;
        }
        Some((entry.answer.clone(), age))
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        let mut shelves = self.of.shelves.lock();
        if let Some(kept) = shelves.all.remove(&self.id) {
            shelves.bytes -= kept.bytes;
        }
    }
}

impl Shelves {
    /// Takes the oldest answer of the largest shelf of the tenant that holds most.
    fn make_room(&mut self) {
        let mut tenants: HashMap<Tenant, usize> = HashMap::new();
        for kept in self.all.values() {
            *tenants.entry(kept.tenant.clone()).or_default() += kept.bytes;
        }
        let Some((tenant, _)) = tenants.into_iter().max_by_key(|(_, bytes)| *bytes) else { return };
        let theirs = self.all.values_mut().filter(|kept| kept.tenant == tenant);
        if let Some(largest) = theirs.max_by_key(|kept| kept.bytes) {
            self.bytes -= largest.remove_oldest();
        }
    }
}

impl Kept {
    fn of(tenant: Tenant) -> Self {
        let (answers, by_age, public) = Default::default();
        Self { tenant, bytes: 0, answers, by_age, public, serial: 0 }
    }

    /// Notes that the answer is still the same; whether it is.
    fn refresh(&mut self, now: Duration, key: &[u8], head: &AnswerHead, body: &Bytes) -> bool {
        let Some(entry) = self.answers.get_mut(key) else { return false };
        let known = &entry.answer;
        let is_same = known.head.status == head.status
            && known.head.kind == head.kind
            && known.head.headers == head.headers
            && known.body == body;
        if is_same && let Some(key) = self.by_age.remove(&entry.made) {
            entry.made.0 = now;
            self.by_age.insert(entry.made, key);
        }
        is_same
    }

    fn insert(&mut self, now: Duration, key: Box<[u8]>, answer: Answer, size: usize) {
        self.serial += 1;
        let made = (now, self.serial);
        self.by_age.insert(made, key.clone());
        self.answers.insert(key, Entry { answer, made, size });
        self.bytes += size;
    }

    /// How many bytes came free.
    fn remove(&mut self, key: &[u8]) -> usize {
        let Some(entry) = self.answers.remove(key) else { return 0 };
        self.by_age.remove(&entry.made);
        self.bytes -= entry.size;
        entry.size
    }

    fn remove_oldest(&mut self) -> usize {
        let oldest = self.by_age.pop_first();
        oldest.map_or(0, |(_, key)| self.remove(&key))
    }
}

fn head_bytes(head: &AnswerHead) -> usize {
    head.headers.iter().map(|(name, value)| name.len() + value.len() + 48).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn tenant(name: &str) -> Tenant {
        name.parse().expect("a name")
    }

    fn put(shelf: &Shelf, now: Duration, key: &str, body: impl Into<Bytes>) {
        shelf.put(now, key.as_bytes().into(), &AnswerHead::default(), &body.into());
    }

    fn get(shelf: &Shelf, now: Duration, key: &str) -> Option<(Bytes, u64)> {
        shelf.get(now, key.as_bytes()).map(|(answer, age)| (answer.body, age.as_secs()))
    }

    #[test]
    fn an_answer_is_the_last_one_and_never_older_than_it_may_be() {
        let all = Arc::new(LastGood::default());
        let shelf = all.shelf(&Tenant::default(), 60 * SECOND);
        assert_eq!(get(&shelf, SECOND, "a"), None);
        put(&shelf, SECOND, "a", "one");
        put(&shelf, 2 * SECOND, "a", "two");
        assert_eq!(get(&shelf, 12 * SECOND, "a"), Some(("two".into(), 10)));
        put(&shelf, 20 * SECOND, "a", "two");
        assert_eq!(get(&shelf, 80 * SECOND, "a"), Some(("two".into(), 60)), "the same again is new");
        assert_eq!(get(&shelf, 80 * SECOND + Duration::from_millis(1), "a"), None);
        assert_eq!(all.bytes(), 0, "and it is gone");
        put(&shelf, 90 * SECOND, "a", "three");
        shelf.remove(b"a");
        assert_eq!((get(&shelf, 90 * SECOND, "a"), all.bytes()), (None, 0));
    }

    #[test]
    fn what_is_kept_is_bounded_and_goes_with_its_version() {
        let all = Arc::new(LastGood::default());
        let shelf = all.shelf(&Tenant::default(), 600 * SECOND);
        put(&shelf, SECOND, "huge", vec![0; MOST_OF_ANSWER]);
        assert_eq!(get(&shelf, SECOND, "huge"), None, "too large to be kept");
        let page = vec![0; 1 << 19];
        for number in 0..64 {
            put(&shelf, number * SECOND, &number.to_string(), page.clone());
            assert!(all.bytes() <= MOST_OF_SHELF);
        }
        assert!(get(&shelf, 64 * SECOND, "63").is_some());
        assert!(get(&shelf, 64 * SECOND, "0").is_none(), "the oldest goes first");
        // One that has grown too large must not leave the old one behind.
        put(&shelf, 64 * SECOND, "63", vec![0; MOST_OF_ANSWER]);
        assert!(get(&shelf, 64 * SECOND, "63").is_none());
        drop(shelf);
        assert_eq!(all.bytes(), 0);
    }

    #[test]
    fn a_tenant_with_many_functions_takes_only_its_own_away() {
        let all = Arc::new(LastGood::default());
        let quiet = all.shelf(&tenant("quiet"), 600 * SECOND);
        put(&quiet, SECOND, "a", "one");
        let greedy: Vec<_> = (0..16).map(|_| all.shelf(&tenant("greedy"), 600 * SECOND)).collect();
        for (number, shelf) in greedy.iter().cycle().take(200).enumerate() {
            put(shelf, 2 * SECOND, &number.to_string(), vec![0; 1 << 19]);
            assert!(all.bytes() <= MOST);
        }
        assert!(all.bytes() > MOST / 2);
        assert!(get(&quiet, 3 * SECOND, "a").is_some());
    }
}
