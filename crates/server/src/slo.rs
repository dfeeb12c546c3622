//! Rates, percentiles and objectives per function.

/// One book per function.
#[derive(Debug)]
pub struct SloBook;
