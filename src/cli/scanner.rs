//! `azulite __scanner`: a child process that looks through content. Started by the server and the commands, by nobody else.

use super::args::Scanner;
use super::exit::Exit;
use crate::identify::content;

/// Answers on standard input until that is closed. There is nobody to tell of trouble: who asked notices by itself.
pub(super) fn run(args: &Scanner) -> Exit {
    #[cfg(feature = "libmagic")]
    let served = if args.libmagic { content::serve_libmagic() } else { content::serve(args.max_bytes) };
    #[cfg(not(feature = "libmagic"))]
    let served = content::serve(args.max_bytes);
    match served {
        Ok(()) => Exit::Done,
        Err(_) => Exit::Failed,
    }
}
