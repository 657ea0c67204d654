//! A form with one file as a stream of known length: the file is never in memory.

use std::io::{self, Cursor, Read};

/// The body of a `multipart/form-data` request.
pub(super) struct Multipart<'a> {
    boundary: String,
    head: Cursor<Vec<u8>>,
    file: io::Take<&'a mut dyn Read>,
    tail: Cursor<Vec<u8>>,
    length: u64,
    failed: Option<String>,
}

/// The file of a form.
pub(super) struct FilePart<'a> {
    /// Name of the field.
    pub(super) field: &'a str,
    pub(super) name: &'a str,
    pub(super) size: u64,
    pub(super) bytes: &'a mut dyn Read,
}

impl<'a> Multipart<'a> {
    /// A form of `fields`, then `file`; `boundary` must not be in any of them.
    pub(super) fn new<'f>(
        boundary: String,
        fields: impl Iterator<Item = (&'f str, &'f str)>,
        file: FilePart<'a>,
    ) -> Self {
        let mut head = String::new();
        for (name, value) in fields {
            let name = quoted(name);
            head.push_str(&format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            ));
        }
        head.push_str(&format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{}\"; filename=\"{}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n",
            quoted(file.field),
            quoted(file.name)
        ));
        let tail = format!("\r\n--{boundary}--\r\n");
        let around = u64::try_from(head.len() + tail.len()).unwrap_or(u64::MAX);
        Self {
            boundary,
            head: Cursor::new(head.into_bytes()),
            length: around.saturating_add(file.size),
            file: file.bytes.take(file.size),
            tail: Cursor::new(tail.into_bytes()),
            failed: None,
        }
    }

    /// Header `Content-Type`.
    pub(super) fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }

    /// Header `Content-Length`.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Why the file could not be read, once that happened.
    pub(super) fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }
}

impl Read for Multipart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.head.read(buffer)?;
        if count > 0 {
            return Ok(count);
        }
        if self.file.limit() > 0 {
            let read = match self.file.read(buffer) {
                Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stored file is shorter than it was")),
                other => other,
            };
            return read.inspect_err(|error| self.failed = Some(error.to_string()));
        }
        self.tail.read(buffer)
    }
}

/// A name between the quotes of a header, as browsers write it.
fn quoted(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '"' => out.push_str("%22"),
            '\\' => out.push_str("%5C"),
            c if c.is_control() => out.push('_'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form<'a>(name: &'a str, size: u64, bytes: &'a mut dyn Read) -> Multipart<'a> {
        let fields = [("custom", "a b"), ("odd\"\r\nname", "x")];
        Multipart::new("XX".to_owned(), fields.into_iter(), FilePart { field: "file", name, size, bytes })
    }

    #[test]
    fn the_body_has_the_announced_length_and_form() {
        let mut bytes: &[u8] = b"MZ\r\n--";
        let mut form = form("a\"\n.exe", 6, &mut bytes);
        let (length, mut body) = (form.length(), Vec::new());
        form.read_to_end(&mut body).unwrap();
        assert_eq!(u64::try_from(body.len()).unwrap(), length);
        assert_eq!(
            String::from_utf8(body).unwrap(),
            "--XX\r\nContent-Disposition: form-data; name=\"custom\"\r\n\r\na b\r\n\
             --XX\r\nContent-Disposition: form-data; name=\"odd%22__name\"\r\n\r\nx\r\n\
             --XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a%22_.exe\"\r\n\
             Content-Type: application/octet-stream\r\n\r\nMZ\r\n--\r\n--XX--\r\n"
        );
        assert_eq!(form.content_type(), "multipart/form-data; boundary=XX");
    }

    #[test]
    fn a_file_that_ends_early_fails_and_is_remembered() {
        let mut bytes: &[u8] = b"MZ";
        let mut form = form("a", 3, &mut bytes);
        assert!(form.read_to_end(&mut Vec::new()).is_err());
        assert!(form.failed().unwrap().contains("shorter"));
    }

    #[test]
    fn a_longer_file_is_cut_at_its_announced_size() {
        let mut bytes: &[u8] = b"MZMZ";
        let mut body = Vec::new();
        form("a", 2, &mut bytes).read_to_end(&mut body).unwrap();
        assert!(String::from_utf8(body).unwrap().contains("\r\n\r\nMZ\r\n--XX--"));
    }
}
