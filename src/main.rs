//! argv to exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    azulite::cli::main().into()
}
