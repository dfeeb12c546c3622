//! trace_context
