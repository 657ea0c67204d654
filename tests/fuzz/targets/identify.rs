//! Any file: it has a type of the table and words in ASCII. Seeds: the examples of streams.md 13.
//!
//! The content rules run in this process here, so that a fault in their C code is seen. The second opinion is left out:
//! it may panic, which is caught where it is asked and would count as a crash here.
#![no_main]

use std::io::Cursor;
use std::sync::{Arc, LazyLock};

use azulite::identify::Identifier;
use azulite::identify::content::{CONTENT_MAX_BYTES, InProcess};
use libfuzzer_sys::fuzz_target;

static IDENTIFIER: LazyLock<Identifier> = LazyLock::new(|| {
    let scanner = InProcess::load(CONTENT_MAX_BYTES).expect("the content rules compile");
    Identifier::load(Arc::new(scanner)).expect("the magic rules load")
});

fuzz_target!(|bytes: &[u8]| {
    let found = IDENTIFIER.identify(Cursor::new(bytes)).expect("memory can be read");
    assert!(IDENTIFIER.types().get(&found.file_format).is_some(), "{found:?}");
    assert!(found.mime.is_ascii() && found.magic.is_ascii(), "{found:?}");
    assert!(!found.magic.starts_with("error - content rules"), "{found:?}");
});
