//! What is looked at in a body before a worker is asked: its signature, and that its JSON parses.
//!
//! Both read all of it. A body of some size is looked at on a thread of its own, a few at a time: the
//! threads that serve calls are one on a small host, and a body may be of any size that its function
//! takes.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::Semaphore;

use super::entrance::Entrance;
use super::intake;
use crate::catalog::Deployed;
use crate::http::problem::Problem;

/// Largest body that a thread that serves calls looks at itself: about half a millisecond of JSON.
const LARGE: usize = 256 << 10;

/// Larger ones that are looked at at once: more would take the cores from the workers.
const AT_ONCE: usize = 2;

/// Looks at bodies.
#[derive(Debug)]
pub(super) struct Look {
    turns: Arc<Semaphore>,
}

impl Default for Look {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

/// What a look has found: whom the functions let in, and whether the body is what it claims to be.
type Found = (Entrance, Result<(), Problem>);

impl Look {
    /// Looks at a body that came with these headers for these functions.
    pub(super) async fn at(
        &self,
        entrance: Entrance,
        functions: &Arc<[Arc<Deployed>]>,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Found {
        let claims_json = intake::claims_json(headers);
        if body.len() <= LARGE || !(claims_json || entrance.wants_body()) {
            return look(entrance, functions, claims_json, body);
        }
        // In a box: calls with small bodies need no room for it.
        Box::pin(self.aside(entrance, functions.clone(), claims_json, body.clone())).await
    }

    async fn aside(
        &self,
        entrance: Entrance,
        functions: Arc<[Arc<Deployed>]>,
        claims_json: bool,
        body: Bytes,
    ) -> Found {
        let turn = self.turns.clone().acquire_owned().await.expect("the semaphore is never closed");
        let whole = move || {
            // Until the look has ended, which it does not when the caller has left.
            let _turn = turn;
            look(entrance, &functions, claims_json, &body)
        };
        tokio::task::spawn_blocking(whole).await.expect("looking at a body does not panic")
    }
}

fn look(mut entrance: Entrance, functions: &[Arc<Deployed>], claims_json: bool, body: &[u8]) -> Found {
    entrance.check_body(functions, body);
    let is_read = claims_json && entrance.first_open().is_some();
    let json = if is_read { intake::check_json_text(body) } else { Ok(()) };
    (entrance, json)
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use http::HeaderValue;
    use http::header::CONTENT_TYPE;

    use super::*;

    #[tokio::test]
    async fn a_large_body_is_not_looked_at_by_a_thread_that_serves_calls() {
        let look = Look::default();
        let nobody: Arc<[Arc<Deployed>]> = Arc::from(Vec::new());
        let json = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        for (headers, bytes, is_here) in
            [(&json, LARGE, true), (&json, LARGE + 1, false), (&HeaderMap::new(), LARGE + 1, true)]
        {
            let body = Bytes::from(format!("[{}", " ".repeat(bytes - 1)));
            // While nobody has a turn, what is looked at aside waits.
            let turns = look.turns.clone().try_acquire_many_owned(AT_ONCE as u32).expect("all are free");
            let mut looking = Box::pin(look.at(Entrance::free(), &nobody, headers, &body));
            let first = std::future::poll_fn(|cx| Poll::Ready(looking.as_mut().poll(cx))).await;
            assert_eq!(first.is_ready(), is_here, "{bytes} bytes");
            drop(turns);
            let (_, found) = match first {
                Poll::Ready(found) => found,
                Poll::Pending => looking.await,
            };
            assert_eq!(found.is_err(), !headers.is_empty(), "{bytes} bytes");
        }
    }
}
