//! The launcher alone, as the tests of this crate start it: the platform's own executable does
//! the same with this argument.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(fp_sandbox::LAUNCHER_ARGUMENT) => fp_sandbox::launcher_main(),
        _ => ExitCode::from(2),
    }
}
