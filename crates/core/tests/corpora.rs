//! What the fuzzers know, through the same functions, wherever the tests run.
#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "reads the corpora and the clock")]

#[path = "../../../fuzz/replay.rs"]
mod replay;

#[test]
fn no_input_of_the_corpora_and_none_like_them_breaks_a_promise() {
    replay::run(&fp_core::fuzz::TARGETS);
}
