//! The HTTP edge.

pub mod csrf;
pub mod guard;
pub mod problem;
