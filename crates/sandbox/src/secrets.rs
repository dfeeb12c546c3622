//! Secrets on their way to a worker: frames made once per change of a value, sent before `Load`
//! and, when a value has changed since, before the next `Call`.
//!
//! The bytes are not printed and are wiped when they go. Calls of functions without secrets pay
//! nothing for this; those of functions with secrets compare one number.

use std::fmt;

use fp_core::SecretName;
use zeroize::Zeroizing;

use crate::frames;
use crate::protocol::{FrameType, SecretHead};

/// All that one function may read, as frames.
pub struct SecretFrames {
    generation: u64,
    frames: Zeroizing<Vec<u8>>,
}

impl SecretFrames {
    /// None yet. Workers are sent them when they hold another generation.
    pub fn new(generation: u64) -> Self {
        Self { generation, frames: Zeroizing::new(Vec::new()) }
    }

    /// Adds a secret and the environment variables that hold it; without a value it is one that
    /// was deleted.
    pub fn add(&mut self, name: &SecretName, variables: &[String], value: Option<&[u8]>) {
        let head = SecretHead { name: name.as_str(), env: variables, gone: value.is_none() };
        let body = value.unwrap_or_default();
        // Not by growing in place: what is outgrown would be left behind.
        let mut next = Zeroizing::new(Vec::with_capacity(self.frames.len() + body.len() + 1024));
        next.extend_from_slice(&self.frames);
        let added = frames::append(&mut next, FrameType::Secret, 0, &head, body);
        added.expect("names and values are far below the limits of frames");
        self.frames = next;
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.frames
    }
}

impl fmt::Debug for SecretFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretFrames").field("generation", &self.generation).finish_non_exhaustive()
    }
}
