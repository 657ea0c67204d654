use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::Value;

use super::*;

static IDENTIFIER: LazyLock<Identifier> = LazyLock::new(|| {
    let scanner = content::scanner(1, content::CONTENT_MAX_BYTES);
    scanner.and_then(Identifier::load).unwrap()
});

/// The examples of streams.md 13 as `(name, bytes, wanted data)`.
pub(super) fn examples() -> Vec<(String, Vec<u8>, Value)> {
    let all: Vec<Value> = serde_json::from_str(include_str!("../../tests/fixtures/identify/examples.json")).unwrap();
    let bytes = |example: &Value| {
        let digits = example["hex"].as_str().unwrap();
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        let once: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
        once.repeat(usize::try_from(example["repeat"].as_u64().unwrap()).unwrap())
    };
    all.iter()
        .map(|example| (example["id"].as_str().unwrap().into(), bytes(example), example["data"].clone()))
        .collect()
}

fn text<'a>(data: &'a Value, key: &str) -> Option<&'a str> {
    data.get(key).and_then(Value::as_str)
}

#[test]
fn digests_of_all_examples_are_exact() {
    let examples = examples();
    assert_eq!(examples.len(), 44);
    for (name, bytes, want) in examples {
        let mut digester = Digester::new(Mode::Full);
        digester.update(Bytes::from(bytes));
        let got = digester.finish().unwrap();
        assert_eq!(Some(got.size), want["size"].as_u64(), "{name}");
        assert_eq!(Some(got.sha256.as_str()), text(&want, "sha256"), "{name}");
        assert_eq!(Some(got.sha1.as_str()), text(&want, "sha1"), "{name}");
        assert_eq!(Some(got.md5.as_str()), text(&want, "md5"), "{name}");
        assert_eq!(got.ssdeep.as_deref(), text(&want, "ssdeep"), "{name}");
        assert_eq!(got.tlsh.as_deref(), text(&want, "tlsh"), "{name}");
        if let Some(sha512) = text(&want, "sha512") {
            assert_eq!(got.sha512, sha512, "{name}");
        }
    }
}

#[test]
fn types_of_all_examples_are_exact() {
    let mut wrong = Vec::new();
    for (name, bytes, want) in examples() {
        let got = IDENTIFIER.identify_bytes(&bytes);
        let (format, extension) = (text(&want, "file_format"), text(&want, "file_extension"));
        let mime_agrees =
            Some(got.mime.as_str()) == text(&want, "mime") || (name == "T25" && got.mime == "text/x-rust");
        if Some(got.file_format.as_str()) != format || got.file_extension.as_deref() != extension || !mime_agrees {
            wrong.push(format!("{name}: {got:?}, wanted {want}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn magic_text_of_most_examples_is_libmagics() {
    // Informative: the words belong to libmagic 5.47. This only keeps the corrections from rotting.
    let same = examples()
        .iter()
        .filter(|(_, bytes, want)| Some(IDENTIFIER.identify_bytes(bytes).magic.as_str()) == text(want, "magic"))
        .count();
    assert!(same >= 30, "{same}");
}

#[test]
fn an_empty_file_has_its_own_answer() {
    let got = IDENTIFIER.identify_bytes(b"");
    assert_eq!((got.mime.as_str(), got.magic.as_str()), ("inode/x-empty", "empty"));
    assert_eq!((got.file_format.as_str(), got.file_extension), ("unknown", None));
}

#[test]
fn a_text_in_another_encoding_is_still_looked_into() {
    let latin: Vec<u8> = [&b"<!DOCTYPE html>\n<html><body>"[..], &[0xe9; 40], b"</body></html>\n"].concat();
    assert_eq!(IDENTIFIER.identify_bytes(&latin).file_format, "code/html");
    let wide: Vec<u8> = "\u{feff}<?xml version=\"1.0\"?>\n<a/>\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(IDENTIFIER.identify_bytes(&wide).file_format, "document/xml");
}

#[test]
fn a_large_json_document_is_json_and_is_not_built_in_memory() {
    let mut document = b"[".to_vec();
    document.extend(b"{\"\":0},".repeat(200_000));
    document.extend(b"{}]\n");
    let got = IDENTIFIER.identify_bytes(&document);
    assert_eq!((got.file_format.as_str(), got.mime.as_str()), ("text/json", "application/json"));
    document.pop();
    document.pop();
    assert_ne!(IDENTIFIER.identify_bytes(&document).mime, "application/json");
    let lines = [&b"{\"a\":1}\n"[..]; 20_000].concat();
    assert_eq!(IDENTIFIER.identify_bytes(&lines).mime, "application/x-ndjson");
}

#[test]
fn a_character_cut_by_the_end_of_the_head_does_not_make_data() {
    let mut long = vec![b'x'; usize::try_from(view::HEAD_MAX).unwrap() - 1];
    long.extend("\u{e9}\n".as_bytes());
    assert_eq!(IDENTIFIER.identify_bytes(&long).file_format, "text/plain");
}

#[test]
fn errors_of_the_source_are_errors() {
    struct Torn(Cursor<Vec<u8>>);
    impl Read for Torn {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            if self.0.position() > view::HEAD_MAX { Err(io::Error::other("torn")) } else { self.0.read(buf) }
        }
    }
    impl Seek for Torn {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }
    let mut bytes = b"%PDF-1.4\n".to_vec();
    bytes.resize(9 << 20, b' ');
    let got = IDENTIFIER.identify(Torn(Cursor::new(bytes)));
    assert_eq!(got.map_err(|error| error.to_string()), Err("torn".to_owned()));
}

#[test]
fn nested_tags_end_at_the_recursion_limit_on_a_small_stack() {
    // An empty ID3 tag sends the engine to what follows it: here, the next empty tag.
    let tags = b"ID3\x03\0\0\0\0\0\0".repeat(2000);
    let work = move || IDENTIFIER.identify_bytes(&tags);
    let got = std::thread::Builder::new().stack_size(1 << 20).spawn(work).unwrap().join().unwrap();
    assert!(IDENTIFIER.types().get(&got.file_format).is_some(), "{got:?}");
}

#[test]
fn broken_examples_are_survived() {
    let mut x = 88_172_645_463_325_252_u64;
    let mut random = move |below: usize| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        usize::try_from(x % (below as u64)).unwrap()
    };
    let examples: Vec<Vec<u8>> = examples().into_iter().map(|(_, bytes, _)| bytes).collect();
    for example in &examples {
        for _ in 0..12 {
            let mut bytes = example.clone();
            for _ in 0..=random(6) {
                let at = random(bytes.len());
                match random(4) {
                    0 => bytes[at] = 0xff,
                    1 => bytes[at] ^= 1 << random(8),
                    2 => bytes.truncate(at.max(1)),
                    _ => bytes.extend(&examples[random(examples.len())]),
                }
            }
            let got = IDENTIFIER.identify_bytes(&bytes);
            assert!(IDENTIFIER.types().get(&got.file_format).is_some());
            assert!(!got.magic.starts_with("error"), "{got:?}");
            assert!(got.magic.is_ascii() && got.mime.is_ascii());
            disagrees(&got, &bytes);
        }
    }
}
