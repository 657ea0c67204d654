//! `azulite __scanner`: a child process that looks through content. Started by the server and the commands, by nobody else.

use super::args::Scanner;
use super::exit::Exit;
use crate::identify::content;

/// Answers on standard input until that is closed. There is nobody to tell of trouble: who asked notices by itself.
pub(super) fn run(args: &Scanner) -> Exit {
    match content::serve(args.max_bytes) {
        Ok(()) => Exit::Done,
        Err(_) => Exit::Failed,
    }
}
