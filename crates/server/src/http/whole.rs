//! Bodies in whole: read as they come, up to a limit and as far as a purse goes.
//!
//! One reader for every listener. What is announced is only looked at, so that who announces much and
//! sends little takes nothing from those who send; what is here is counted, small bodies too once they
//! are waited for. Of a refused body some more is read and dropped, or its sender, who is still at it,
//! would get a reset connection instead of the answer.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::bodies::{NoRoom, Purse};

/// Most that is read and dropped of a refused body: enough for what a client has in flight.
const DISCARD_BYTES: usize = 64 << 20;

/// How long.
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// Why a body was not read to its end.
#[derive(Debug)]
pub(super) enum Unread<E> {
    /// It is larger than the limit.
    TooLarge,
    /// The platform holds as many bytes of bodies as it may.
    NoRoom,
    /// It broke off, or came too slowly.
    Broken(E),
}

impl<E> From<NoRoom> for Unread<E> {
    fn from(_: NoRoom) -> Self {
        Self::NoRoom
    }
}

/// Reads a body that came with this head. Without a purse it is not counted.
pub(super) async fn read<B>(
    mut body: B,
    head: &HeaderMap,
    limit: u64,
    mut purse: Option<Purse<'_>>,
) -> Result<Bytes, Unread<B::Error>>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Send,
{
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    match collect(&mut body, head, limit, purse.as_mut()).await {
        Ok(whole) => Ok(match purse {
            Some(purse) => purse.with(whole),
            None => whole,
        }),
        Err(Unread::Broken(error)) => Err(Unread::Broken(error)),
        Err(refused) => {
            tokio::spawn(discard(body));
            Err(refused)
        }
    }
}

async fn collect<B>(
    body: &mut B,
    head: &HeaderMap,
    limit: u64,
    mut purse: Option<&mut Purse<'_>>,
) -> Result<Bytes, Unread<B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let announced = body.size_hint().lower();
    if announced > limit {
        return Err(Unread::TooLarge);
    }
    if let Some(purse) = &purse {
        purse.look(announced)?;
    }
    let mut whole = Whole::Nothing;
    loop {
        let held = whole.len();
        let data = match next_data(body, || wait(purse.as_deref_mut(), head, held)).await? {
            Some(data) => data,
            None => return Ok(whole.into_bytes()),
        };
        let length = held + data.len() as u64;
        if length > limit {
            return Err(Unread::TooLarge);
        }
        if let Some(purse) = &mut purse {
            purse.grow(length)?;
        }
        whole.add(data);
        if body.is_end_stream() {
            return Ok(whole.into_bytes());
        }
    }
}

/// What is here of a body. One that comes in one piece is not copied.
enum Whole {
    Nothing,
    Piece(Bytes),
    Pieces(BytesMut),
}

impl Whole {
    fn len(&self) -> u64 {
        let length = match self {
            Self::Nothing => 0,
            Self::Piece(piece) => piece.len(),
            Self::Pieces(pieces) => pieces.len(),
        };
        length as u64
    }

    fn add(&mut self, data: Bytes) {
        *self = match std::mem::replace(self, Self::Nothing) {
            Self::Nothing => Self::Piece(data),
            Self::Piece(first) => {
                let mut pieces = BytesMut::from(first);
                pieces.extend_from_slice(&data);
                Self::Pieces(pieces)
            }
            Self::Pieces(mut pieces) => {
                pieces.extend_from_slice(&data);
                Self::Pieces(pieces)
            }
        };
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Nothing => Bytes::new(),
            Self::Piece(piece) => piece,
            Self::Pieces(pieces) => pieces.freeze(),
        }
    }
}

fn wait(purse: Option<&mut Purse<'_>>, head: &HeaderMap, held: u64) -> Result<(), NoRoom> {
    let Some(purse) = purse else { return Ok(()) };
    let head: usize = head.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    purse.wait(head as u64, held)
}

/// The next piece; none at the end. `on_wait` is asked first where it is not here yet.
async fn next_data<B>(
    body: &mut B,
    mut on_wait: impl FnMut() -> Result<(), NoRoom>,
) -> Result<Option<Bytes>, Unread<B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    loop {
        let frame = match frame_if_here(body).await {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                on_wait()?;
                body.frame().await
            }
        };
        let Some(frame) = frame.transpose().map_err(Unread::Broken)? else { return Ok(None) };
        // Trailers say nothing that a handler is told.
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
}

async fn frame_if_here<B>(body: &mut B) -> Poll<Option<Result<Frame<Bytes>, B::Error>>>
where
    B: Body<Data = Bytes> + Unpin,
{
    std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *body).poll_frame(context))).await
}

/// Reads a refused body for a while, so that its sender gets to read the answer.
pub(super) async fn discard<B>(mut body: B)
where
    B: Body<Data = Bytes> + Send + Unpin,
{
    let mut left = DISCARD_BYTES;
    let until = Instant::now() + DISCARD_TIME;
    while let Ok(Some(Ok(frame))) = timeout_at(until, body.frame()).await {
        let Some(rest) = left.checked_sub(frame.data_ref().map_or(1, Bytes::len)) else { return };
        left = rest;
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::Context;

    use fp_core::Tenant;
    use http_body::SizeHint;
    use tokio::sync::mpsc;

    use super::*;
    use crate::bodies::BodyBudget;

    const MIB: u64 = 1 << 20;

    /// A body whose sender is the test, and announces what it likes.
    struct Announced(mpsc::Receiver<Bytes>, SizeHint);

    impl Body for Announced {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
        }

        fn size_hint(&self) -> SizeHint {
            self.1
        }
    }

    fn announced(bytes: u64) -> (mpsc::Sender<Bytes>, Announced) {
        let (sender, pieces) = mpsc::channel(8);
        (sender, Announced(pieces, SizeHint::with_exact(bytes)))
    }

    /// Polls once what is not there yet.
    async fn begun<F: Future + Unpin>(reading: &mut F) {
        let poll = std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *reading).poll(context))).await;
        assert!(poll.is_pending(), "the rest has not come");
    }

    #[tokio::test]
    async fn who_announces_much_and_sends_little_takes_little() {
        let (budget, acme) = (BodyBudget::new(8 * MIB), Tenant::default());
        let head = HeaderMap::new();
        let mut senders = Vec::new();
        for _ in 0..32 {
            let (sender, body) = announced(3 * MIB);
            sender.send(Bytes::from_static(b"a")).await.expect("it is read");
            let mut reading = Box::pin(read(body, &head, 6 * MIB, Some(budget.purse(&acme))));
            begun(&mut reading).await;
            senders.push((sender, reading));
        }
        assert_eq!(budget.held(), (0, 32), "a byte of each is here");
        let (sender, body) = announced(2 * MIB);
        (0..2).for_each(|_| sender.try_send(Bytes::from(vec![7; MIB as usize])).expect("room"));
        drop(sender);
        let body = read(body, &head, 6 * MIB, Some(budget.purse(&acme))).await.expect("there is room");
        assert_eq!((body.len() as u64, budget.held().0), (2 * MIB, 2 * MIB));
        drop((body, senders));
        assert_eq!(budget.held(), (0, 0));
    }

    #[tokio::test]
    async fn small_bodies_that_never_end_are_counted_with_their_heads() {
        let (budget, acme) = (BodyBudget::new(MIB), Tenant::default());
        let head =
            HeaderMap::from_iter([(http::header::COOKIE, "c".repeat(32 << 10).parse().expect("text"))]);
        let mut waiting = Vec::new();
        let refused = loop {
            let (sender, body) = announced(0);
            sender.send(Bytes::from(vec![7; 64 << 10])).await.expect("it is read");
            let mut reading = Box::pin(read(body, &head, MIB, Some(budget.purse(&acme))));
            let poll = std::future::poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await;
            match poll {
                Poll::Pending => waiting.push((sender, reading)),
                Poll::Ready(read) => break read,
            }
            assert!(waiting.len() < 8, "nothing bounds them");
        };
        assert!(matches!(refused, Err(Unread::NoRoom)), "{refused:?}");
        assert_eq!(waiting.len(), 2);
        let (sender, reading) = waiting.pop().expect("one waits");
        drop(sender);
        assert_eq!(reading.await.expect("it has ended").len(), 64 << 10);
    }

    #[tokio::test]
    async fn what_is_here_with_its_head_is_not_counted_or_copied() {
        let (budget, acme) = (BodyBudget::new(MIB), Tenant::default());
        let piece = Bytes::from_static(b"all of it");
        let body = http_body_util::Full::new(piece.clone());
        let whole = read(body, &HeaderMap::new(), MIB, Some(budget.purse(&acme))).await.expect("it is here");
        assert_eq!((whole.as_ptr(), budget.held()), (piece.as_ptr(), (0, 0)));
    }
}
