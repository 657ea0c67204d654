//! `azulite filetype`: what local files are, without a store (events.md 7.2, streams.md 10).

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::{Filetype, Global};
use super::exit::Exit;
use super::output::{self, Refusal};
use super::walk::{Found, Step, Trouble, Walked, open, walk};
use crate::identify::{Digests, Identification, Identifier, Mode, content, digest_reader};

/// Prints what the files of `args` are. What cannot be read is a line of its own and does not change the exit code.
pub(super) fn run(global: &Global, args: &Filetype) -> Exit {
    let scanner = content::scanner(1, content::CONTENT_MAX_BYTES);
    let identifier = scanner.and_then(Identifier::load).map_err(|error| Refusal::failed(error.to_string()));
    output::finish(identifier.and_then(|identifier| {
        let mut printer = Printer { out: output::stdout(), json: global.json, items: 0, identifier };
        printer.all(&args.paths)?;
        Ok(Exit::Done)
    }))
}

struct Printer<W> {
    out: W,
    json: bool,
    items: u64,
    identifier: Identifier,
}

/// One file in JSON.
#[derive(Serialize)]
struct Described<'a> {
    path: String,
    size: u64,
    sha512: &'a str,
    sha256: &'a str,
    sha1: &'a str,
    md5: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssdeep: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tlsh: Option<&'a str>,
    mime: &'a str,
    magic: &'a str,
    file_format: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_extension: Option<&'a str>,
}

/// One path in JSON that could not be read.
#[derive(Serialize)]
struct Unreadable {
    path: String,
    error: String,
}

impl<W: Write> Printer<W> {
    fn all(&mut self, paths: &[PathBuf]) -> io::Result<()> {
        let mut printed = Ok(());
        for path in paths {
            walk(path, None, &mut |walked| {
                printed = self.one(walked);
                printed.is_ok()
            });
            std::mem::replace(&mut printed, Ok(()))?;
        }
        if self.json {
            writeln!(self.out, "{}]", if self.items == 0 { "[" } else { "\n" })?;
        }
        self.out.flush()
    }

    fn one(&mut self, walked: Walked) -> io::Result<()> {
        match walked {
            Walked::Trouble(trouble) => self.trouble(&trouble),
            Walked::File(found) => match self.identified(&found) {
                Ok((file, identification)) if self.json => self.described(&found, file, &identification),
                Ok((_, identification)) => self.columns(&found.path, &identification),
                Err(error) => self.trouble(&Trouble { path: found.path, step: Step::Open, error }),
            },
        }
    }

    fn identified(&self, found: &Found) -> io::Result<(File, Identification)> {
        let mut file = open(found)?;
        let identification = self.identifier.identify(&mut file)?;
        Ok((file, identification))
    }

    fn columns(&mut self, path: &Path, found: &Identification) -> io::Result<()> {
        self.out.write_all(path.as_os_str().as_bytes())?;
        writeln!(self.out, "\t\t{}\t{}", found.file_format, found.mime)
    }

    fn described(&mut self, found: &Found, mut file: File, identification: &Identification) -> io::Result<()> {
        let read = file.seek(SeekFrom::Start(0)).map_err(|error| error.to_string());
        let digests = read.and_then(|_| digest_reader(file, Mode::Full).map_err(|error| error.to_string()));
        let digests: Digests = match digests {
            Ok(digests) => digests,
            Err(error) => {
                let error = io::Error::other(error);
                return self.trouble(&Trouble { path: found.path.clone(), step: Step::Open, error });
            }
        };
        self.item(&Described {
            path: found.path.to_string_lossy().into_owned(),
            size: digests.size,
            sha512: &digests.sha512,
            sha256: &digests.sha256,
            sha1: &digests.sha1,
            md5: &digests.md5,
            ssdeep: digests.ssdeep.as_deref(),
            tlsh: digests.tlsh.as_deref(),
            mime: &identification.mime,
            magic: &identification.magic,
            file_format: &identification.file_format,
            file_extension: identification.file_extension.as_deref(),
        })
    }

    fn trouble(&mut self, trouble: &Trouble) -> io::Result<()> {
        let Trouble { path, step, error } = trouble;
        if self.json {
            let error = format!("unable to {}: {error}", step.as_str());
            return self.item(&Unreadable { path: path.to_string_lossy().into_owned(), error });
        }
        write!(self.out, "*Unable to {}: ", step.as_str())?;
        self.out.write_all(path.as_os_str().as_bytes())?;
        writeln!(self.out, " ({error})")
    }

    fn item(&mut self, item: &impl Serialize) -> io::Result<()> {
        self.out.write_all(if self.items == 0 { b"[\n" } else { b",\n" })?;
        self.items += 1;
        Ok(serde_json::to_writer(&mut self.out, item)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(json: bool, paths: &[PathBuf]) -> String {
        let scanner = content::scanner(1, content::CONTENT_MAX_BYTES);
        let identifier = scanner.and_then(Identifier::load).unwrap();
        let mut printer = Printer { out: Vec::new(), json, items: 0, identifier };
        printer.all(paths).unwrap();
        String::from_utf8(printer.out).unwrap()
    }

    #[test]
    fn three_columns_and_unreadable_paths_in_the_order_given() {
        let folder = tempfile::tempdir().unwrap();
        let (script, missing) = (folder.path().join("run.sh"), folder.path().join("none"));
        std::fs::write(&script, "#!/bin/sh\necho hi\n").unwrap();
        let text = printed(false, &[missing.clone(), script.clone()]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with(&format!("*Unable to stat: {} (", missing.display())), "{text}");
        assert_eq!(lines[1], format!("{}\t\tcode/shell\ttext/x-shellscript", script.display()));
    }

    #[test]
    fn json_is_one_list_also_of_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(printed(true, &[folder.path().to_owned()]), "[]\n");
        std::fs::write(folder.path().join("a.txt"), "hello there\n").unwrap();
        let paths = [folder.path().to_owned(), folder.path().join("none")];
        let list: serde_json::Value = serde_json::from_str(&printed(true, &paths)).unwrap();
        assert_eq!((&list[0]["size"], &list[0]["file_format"]), (&12.into(), &"text/plain".into()));
        assert!(list[1]["error"].as_str().unwrap().starts_with("unable to stat"), "{list}");
    }
}
