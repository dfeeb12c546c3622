//! Calls: from an admitted invocation to its outcome.

/// Runs invocations.
#[derive(Debug)]
pub struct Invoker;
