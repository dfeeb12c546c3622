//! The Linux room: sandboxed Python workers.

pub mod protocol;
