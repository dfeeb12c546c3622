//! What happened: the ring in memory and what was kept on disk.

/// Records and queries of invocations.
#[derive(Debug)]
pub struct History;
