//! The readers of this room that meet foreign bytes, as functions of bytes that panic when a
//! promise of theirs is broken: for the fuzzers in `fuzz/`, and for the test that runs their
//! corpora. Not for anybody else.

use crate::catalog::code_store::Tree;
pub use crate::http::fuzz::{first_bytes, request_head, text_request, trace_query};

/// A reader of bytes that panics when it breaks a promise.
pub type Target = fn(&[u8]);

/// Each target with its name, which is that of its corpus.
pub const TARGETS: [(&str, Target); 5] = [
    ("first_bytes", first_bytes),
    ("request_head", request_head),
    ("text_request", text_request),
    ("trace_query", trace_query),
    ("archive", archive),
];

/// A zip file. What is accepted stays below the directory that it is unpacked into, as files that
/// are each there once.
pub fn archive(bytes: &[u8]) {
    let Ok(tree) = Tree::of_zip(bytes) else { return };
    for path in tree.paths() {
        let parts: Vec<_> = path.split('/').collect();
        assert!(!parts.iter().any(|part| matches!(*part, "" | "." | "..")), "{path:?} leads elsewhere");
        assert!(!path.contains(['\0', '\\']) && path.len() <= 1024, "{path:?} is no file's name");
        assert!(!tree.has_directory(path), "{path:?} is a file and a directory");
    }
    tree.hash();
}
