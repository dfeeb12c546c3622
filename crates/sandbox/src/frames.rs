//! Writing and reading frames, and bodies in memfds: the codec of [`crate::protocol`].
//!
//! Every length is checked before memory is taken for it. One buffer per worker is reused; it
//! grows for a large frame and shrinks after it.

use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use bytes::Bytes;
use rustix::fs::{
    MemfdFlags, SealFlags, SeekFrom, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create, seek,
};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use serde::Serialize;

use crate::closing::ClosedAside;
use crate::protocol::{FLAG_MEMFD, FrameType, MAX_HEAD_LEN, MEMFD_THRESHOLD, PREFIX_LEN};

/// The longest frame there can be.
pub(crate) const MAX_FRAME: usize = PREFIX_LEN + MAX_HEAD_LEN + MEMFD_THRESHOLD;
/// What the buffer starts with, and falls back to: a typical answer with room to spare.
const BUFFER: usize = 8 * 1024;

/// One frame inside the reader's buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub kind: FrameType,
    pub memfd: bool,
    pub serial: u64,
    pub head: Range<usize>,
    pub body: Range<usize>,
}

/// Appends a frame to `out`, whose body is `body` or, if that is too long, follows by memfd
/// (then the caller has sent it already).
pub(crate) fn append<H: Serialize>(
    out: &mut Vec<u8>,
    kind: FrameType,
    serial: u64,
    head: &H,
    body: &[u8],
) -> Result<(), String> {
    let start = out.len();
    let memfd = body.len() > MEMFD_THRESHOLD;
    out.extend_from_slice(&[0; PREFIX_LEN]);
    serde_json::to_writer(&mut *out, head).map_err(|e| e.to_string())?;
    let head_len = out.len() - start - PREFIX_LEN;
    if head_len > MAX_HEAD_LEN {
        out.truncate(start);
        return Err(format!("a head of {head_len} bytes is over the limit of {MAX_HEAD_LEN}"));
    }
    if !memfd {
        out.extend_from_slice(body);
    }
    // Below MAX_FRAME, so it fits.
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4] = kind as u8;
    out[start + 5] = if memfd { FLAG_MEMFD } else { 0 };
    out[start + 8..start + 16].copy_from_slice(&serial.to_le_bytes());
    out[start + 16..start + 20].copy_from_slice(&(head_len as u32).to_le_bytes());
    Ok(())
}

/// Collects bytes of the stream and finds the frames in them.
#[derive(Debug)]
pub(crate) struct Reader {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; BUFFER], start: 0, end: 0 }
    }

    /// What the buffer takes now.
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// Where to read into: room for the rest of the frame that has begun, at least one byte.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() > 4 * BUFFER {
                self.buffer = vec![0; BUFFER];
            }
        }
        // `next` has refused longer ones, so a known length is a safe one.
        let wanted = self.length().map_or(PREFIX_LEN, |length| length.min(MAX_FRAME));
        if self.start > 0 && self.start + wanted.max(BUFFER / 2) > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if wanted > self.buffer.len() {
            self.buffer.resize(wanted, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes were read into [`Self::space`].
    pub(crate) fn filled(&mut self, count: usize) {
        self.end += count;
    }

    /// Whole length of the frame that has begun, prefix included, once its length is here.
    fn length(&self) -> Option<usize> {
        let prefix = self.buffer[self.start..self.end].get(..4)?;
        Some(4 + u32::from_le_bytes(prefix.try_into().ok()?) as usize)
    }

    /// The next frame, if it is complete; its bytes stay valid until the next call of
    /// [`Self::space`]. The error says how the frame breaks the protocol.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, String> {
        let Some(length) = self.length() else { return Ok(None) };
        if length > MAX_FRAME {
            return Err(format!("a frame of {length} bytes is over the limit of {MAX_FRAME}"));
        }
        if length < PREFIX_LEN {
            return Err(format!("a frame of {length} bytes is shorter than its own prefix"));
        }
        let at = self.start;
        let (Some(number), Some(flags)) = (self.early(4), self.early(5)) else { return Ok(None) };
        let kind = FrameType::from_number(number).ok_or_else(|| format!("frame type {number} is unknown"))?;
        if flags & !FLAG_MEMFD != 0 {
            return Err(format!("flags {flags:#x} are unknown"));
        }
        if self.end - at < length {
            return Ok(None);
        }
        let prefix = &self.buffer[at..at + PREFIX_LEN];
        let serial = u64::from_le_bytes(prefix[8..16].try_into().expect("eight bytes"));
        let head_len = u32::from_le_bytes(prefix[16..20].try_into().expect("four bytes")) as usize;
        if head_len > length - PREFIX_LEN || head_len > MAX_HEAD_LEN {
            return Err(format!("a head of {head_len} bytes does not fit its frame of {length}"));
        }
        let head = at + PREFIX_LEN..at + PREFIX_LEN + head_len;
        let body = head.end..at + length;
        if body.len() > MEMFD_THRESHOLD {
            return Err(format!("a body of {} bytes must come by memfd", body.len()));
        }
        self.start = body.end;
        Ok(Some(Frame { kind, memfd: flags & FLAG_MEMFD != 0, serial, head, body }))
    }

    fn early(&self, offset: usize) -> Option<u8> {
        self.buffer[self.start..self.end].get(offset).copied()
    }

    /// Bytes of the frame that [`Self::next`] gave last.
    pub(crate) fn bytes(&self, range: &Range<usize>) -> &[u8] {
        &self.buffer[range.clone()]
    }
}

/// The body of a request in a memfd, lent to the worker that handles it: its pages are the
/// platform's, whatever the worker does with the descriptor, so it is emptied when this is
/// dropped, at the end of the call.
#[derive(Debug)]
pub(crate) struct Lent(ClosedAside);

impl Lent {
    pub(crate) fn new(body: &[u8]) -> std::io::Result<Self> {
        let fd = memfd_create("body", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut file = File::from(fd);
        file.write_all(body)?;
        let fd = OwnedFd::from(file);
        // A worker cannot make more of it, and cannot seal it against our taking it back.
        fcntl_add_seals(&fd, SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
        Ok(Self(ClosedAside::emptied(fd)))
    }
}

impl AsFd for Lent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Without these a mapping could change or vanish under our hands.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::WRITE);

/// The body in a memfd that a worker sent, mapped, not copied. Only a sealed one is taken, none
/// above `limit`, none that would have gone inline (a mapping each is too much for a few bytes),
/// and none with a hole: whoever touches a page first pays for it, and that must be the worker.
pub(crate) fn open_sealed(fd: impl AsFd, limit: usize) -> Result<Bytes, String> {
    let seals = fcntl_get_seals(&fd).map_err(|_| "a body came in something that is no memfd")?;
    if !seals.contains(SEALS) {
        return Err("a body came in a memfd that is not sealed".into());
    }
    let size = fstat(&fd).map_err(|e| e.to_string())?.st_size;
    let size = usize::try_from(size).map_err(|e| e.to_string())?;
    if size > limit {
        return Err(format!("a body of {size} bytes is over the limit of {limit}"));
    }
    if size <= MEMFD_THRESHOLD {
        return Err(format!("a body of {size} bytes came by memfd, which is for longer ones"));
    }
    // Sealed against writing, so that no hole can be punched any more.
    let hole = seek(&fd, SeekFrom::Hole(0)).map_err(|e| format!("looking for holes in a body: {e}"))?;
    if hole < size as u64 {
        return Err(format!("a body of {size} bytes has a hole at {hole}"));
    }
    Mapping::new(&fd, size).map(Bytes::from_owner).map_err(|e| format!("mapping a body: {e}"))
}

/// A read-only mapping of a sealed memfd.
struct Mapping {
    address: NonNull<u8>,
    size: usize,
}

// SAFETY: the mapping is read-only and its file is sealed against writing and shrinking, so
// the bytes are plain immutable memory for any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(fd: impl AsFd, size: usize) -> Result<Self, Errno> {
        // SAFETY: a new mapping at an address of the kernel's choice; populated at once because
        // every page is going to be read.
        let address = unsafe {
            mmap(std::ptr::null_mut(), size, ProtFlags::READ, MapFlags::SHARED | MapFlags::POPULATE, fd, 0)
        }?;
        NonNull::new(address.cast()).map(|address| Self { address, size }).ok_or(Errno::FAULT)
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: mapped for `size` bytes until drop, and immutable (see above).
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.size) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of exactly this size; nobody borrows from it any more.
        unsafe { munmap(self.address.as_ptr().cast(), self.size) }.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustix::fs::{FallocateFlags, fallocate, ftruncate};

    fn feed(reader: &mut Reader, mut bytes: &[u8], piece: usize) -> Result<Vec<(u64, Vec<u8>)>, String> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let space = reader.space();
            let count = space.len().min(piece).min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            reader.filled(count);
            bytes = &bytes[count..];
            while let Some(frame) = reader.next()? {
                frames.push((frame.serial, reader.bytes(&frame.body).to_vec()));
            }
        }
        Ok(frames)
    }

    proptest! {
        #[test]
        fn frames_read_back_however_they_are_cut(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9000), 1..6),
            piece in 1usize..5000,
        ) {
            let mut wire = Vec::new();
            for (serial, body) in (1..).zip(&bodies) {
                append(&mut wire, FrameType::Answer, serial, &serde_json::json!({"k": "json"}), body)
                    .expect("a short head");
            }
            let frames = feed(&mut Reader::new(), &wire, piece).expect("our own frames");
            let expected: Vec<_> = (1..).zip(bodies).collect();
            prop_assert_eq!(frames, expected);
        }

        #[test]
        fn noise_is_an_error_or_incomplete_and_never_takes_memory_for_it(
            noise in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut reader = Reader::new();
            let _ = feed(&mut reader, &noise, 64);
            prop_assert!(reader.buffer.len() <= MAX_FRAME);
        }
    }

    #[test]
    fn lengths_are_refused_before_memory_is_taken() {
        for (prefix, what) in [
            (&[0xff, 0xff, 0xff, 0xff][..], "over the limit"),
            (&[3, 0, 0, 0], "shorter than its own prefix"),
            (&[16, 0, 0, 0, 99, 0], "frame type 99 is unknown"),
            (&[16, 0, 0, 0, 20, 8], "flags 0x8 are unknown"),
        ] {
            let mut reader = Reader::new();
            let error = feed(&mut reader, prefix, 100).expect_err(what);
            assert!(error.contains(what), "{error}");
            assert_eq!(reader.buffer.len(), BUFFER);
        }
        let mut wire = Vec::new();
        append(&mut wire, FrameType::Answer, 1, &(), b"").expect("a short head");
        wire[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(feed(&mut Reader::new(), &wire, 100).expect_err("too long").contains("does not fit"));
    }

    /// As an honest worker makes it, but for `holes`.
    fn sealed(body: &[u8], holes: &[Range<usize>], seals: SealFlags) -> OwnedFd {
        let fd = memfd_create("x", MemfdFlags::ALLOW_SEALING).expect("a memfd");
        let mut file = File::from(fd);
        file.write_all(body).expect("it is written");
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        for hole in holes {
            fallocate(&file, flags, hole.start as u64, hole.len() as u64).expect("a hole");
        }
        fcntl_add_seals(&file, seals).expect("it is sealed");
        file.into()
    }

    #[test]
    fn only_sealed_memfds_within_the_limits_are_opened() {
        let body = vec![7; 300_000];
        let fd = sealed(&body, &[], SEALS);
        assert_eq!(open_sealed(&fd, 300_000).expect("it opens"), body);
        assert!(open_sealed(&fd, 299_999).expect_err("too long").contains("over the limit"));
        let loose = sealed(&body, &[], SealFlags::SHRINK | SealFlags::GROW);
        assert!(open_sealed(&loose, 300_000).expect_err("unsealed").contains("not sealed"));
        let file = tempfile::tempfile().expect("a file");
        assert!(open_sealed(&file, 10).is_err());
        for short in [0, 1, MEMFD_THRESHOLD] {
            let refused = open_sealed(sealed(&body[..short], &[], SEALS), 300_000).expect_err("short");
            assert!(refused.contains("for longer ones"), "{refused}");
        }
    }

    #[test]
    fn a_memfd_with_a_hole_is_refused_wherever_that_is() {
        let body = vec![7; 1 << 20];
        for hole in [0..1 << 20, 0..4096, 125 * 4096..126 * 4096, (1 << 20) - 4096..1 << 20] {
            let fd = sealed(&body, std::slice::from_ref(&hole), SEALS);
            assert!(open_sealed(&fd, 1 << 20).expect_err("a hole").contains("has a hole at"), "{hole:?}");
        }
        let sparse = memfd_create("x", MemfdFlags::ALLOW_SEALING).expect("a memfd");
        ftruncate(&sparse, 1 << 20).expect("it is long");
        fcntl_add_seals(&sparse, SEALS).expect("it is sealed");
        assert!(open_sealed(&sparse, 1 << 20).expect_err("a hole").contains("has a hole at 0"));
        // Memory that is reserved and was never written reads as a hole, too, and is nobody's honest body.
        let reserved = memfd_create("x", MemfdFlags::ALLOW_SEALING).expect("a memfd");
        fallocate(&reserved, FallocateFlags::empty(), 0, 1 << 20).expect("it is reserved");
        fcntl_add_seals(&reserved, SEALS).expect("it is sealed");
        assert!(open_sealed(&reserved, 1 << 20).is_err());
    }

    #[test]
    fn a_lent_body_is_given_back_whatever_the_worker_does_to_keep_it() {
        let body = vec![7; 1 << 20];
        let lent = Lent::new(&body).expect("a memfd");
        let kept = lent.as_fd().try_clone_to_owned().expect("the worker's copy");
        let mapping = Mapping::new(&kept, body.len()).expect("the worker's mapping");
        assert_eq!(mapping.as_ref(), body);
        assert_eq!(fcntl_add_seals(&kept, SealFlags::SHRINK), Err(Errno::PERM));
        assert_eq!(ftruncate(&kept, 2 << 20), Err(Errno::PERM), "no more than it was given");
        drop(lent);
        let blocks = || fstat(&kept).expect("it is there").st_blocks;
        while blocks() > 0 {
            std::thread::yield_now();
        }
        assert_eq!(fstat(&kept).expect("it is there").st_size, 0);
    }
}
