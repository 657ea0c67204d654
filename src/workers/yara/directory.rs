//! The rule files below a directory: which there are, what they include, and what is left out and why.
//!
//! Nothing outside of the directory is ever read: includes are relative, symbolic links count only if what they lead to is
//! a file inside. Names that begin with a dot are passed over, as other tools keep their own files there.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use regex::Regex;
use sha2::{Digest, Sha256};

use super::source::{self, Parsed, Problem};

/// Largest rule file.
pub const FILE_MAX_BYTES: u64 = 16 << 20;
/// Largest sum of all rule files, and of what one becomes with its includes.
pub const TOTAL_MAX_BYTES: u64 = 128 << 20;
/// Most files that are looked at.
pub const FILES_MAX: usize = 50_000;
/// Folders inside folders.
const FOLDERS_MAX: usize = 16;
/// Includes inside includes.
const INCLUDES_MAX: usize = 5;
/// Includes in one file and in those that it includes: an include may add nothing and still takes time.
const INCLUDED_MAX: usize = 10_000;

/// Which of the files are wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Beginnings of namespaces that are not.
    pub deny_namespaces: Vec<String>,
    /// What a file's name has to match somewhere.
    pub name_pattern: Option<Regex>,
}

/// A file that is left out.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LeftOut {
    /// Below the directory.
    pub path: String,
    /// Line, from 1; 0 where the whole file is meant.
    pub line: usize,
    /// Why.
    pub reason: String,
}

/// A rule file with all that it includes.
#[derive(Clone, Debug)]
pub(super) struct RuleFile {
    /// Below the directory, with `/`.
    pub(super) path: String,
    pub(super) namespace: String,
    pub(super) text: Arc<str>,
    pub(super) parsed: Parsed,
    /// Where the lines of the text come from: the first line of each stretch, the file, and its line there.
    lines: Vec<(usize, String, usize)>,
    /// Every file whose text is in it, with its SHA-256.
    pub(super) parts: BTreeMap<String, [u8; 32]>,
}

impl RuleFile {
    /// File and line that line `line` of the text comes from.
    pub(super) fn origin(&self, line: usize) -> (&str, usize) {
        let stretch = self.lines.iter().rev().find(|(first, ..)| *first <= line);
        stretch.map_or((&self.path, line), |(first, path, there)| (path, there + (line - first)))
    }

    /// What is wrong with line `line` of the text, as somebody who edits the files wants to read it.
    pub(super) fn problem(&self, line: usize, reason: &str) -> LeftOut {
        let (path, there) = if line == 0 { (self.path.as_str(), 0) } else { self.origin(line) };
        let reason = if path == self.path { reason.to_owned() } else { format!("in {path} line {there}: {reason}") };
        LeftOut { path: self.path.clone(), line: if path == self.path { there } else { 0 }, reason }
    }
}

/// What a directory holds.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) files: Vec<RuleFile>,
    pub(super) left_out: Vec<LeftOut>,
}

/// Reads the rule files below `root`, in the order of their paths; or that one file, with what it includes.
///
/// # Errors
/// The directory itself cannot be read.
pub(super) fn read(root: &Path, wanted: &Wanted) -> io::Result<Snapshot> {
    let mut snapshot = Snapshot::default();
    let (root, paths) = paths(root, &mut snapshot.left_out)?;
    let mut reader = Reader { root: &root, bytes: BTreeMap::new(), total: 0 };
    let mut total = 0;
    for path in paths {
        let Some(path) = path.to_str().map(str::to_owned) else {
            let path = path.to_string_lossy().into_owned();
            snapshot.left_out.push(LeftOut { path, line: 0, reason: "its name is not UTF-8".into() });
            continue;
        };
        let Some(namespace) = namespace(&path) else { continue };
        let name = path.rsplit('/').next().unwrap_or(&path);
        let denied = wanted.deny_namespaces.iter().any(|prefix| namespace.starts_with(prefix.as_str()));
        if denied || wanted.name_pattern.as_ref().is_some_and(|pattern| !pattern.is_match(name)) {
            continue;
        }
        match reader.file(&path, namespace) {
            Ok(file) => {
                // A file that many include is in memory as often: no more than may be used.
                let size = u64::try_from(file.text.len()).unwrap_or(u64::MAX);
                if size > TOTAL_MAX_BYTES.saturating_sub(total) {
                    snapshot.left_out.push(file.problem(0, "all rules with their includes are too large"));
                } else {
                    total += size;
                    snapshot.files.push(file);
                }
            }
            Err(Problem { line, reason }) => snapshot.left_out.push(LeftOut { path, line, reason }),
        }
    }
    Ok(snapshot)
}

/// The folders joined with dots, and the stem; `None` for a file that holds no rules.
fn namespace(path: &str) -> Option<String> {
    let stem = path.strip_suffix(".yar").or_else(|| path.strip_suffix(".yara"))?;
    Some(stem.replace('/', "."))
}

/// What tells two states of a directory apart without reading its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint(BTreeMap<PathBuf, (u64, i64, i64, u64)>);

/// The state of the directory.
///
/// # Errors
/// It cannot be read.
pub(super) fn fingerprint(root: &Path) -> io::Result<Fingerprint> {
    let (root, paths) = paths(root, &mut Vec::new())?;
    let state = |path: PathBuf| {
        // Gone in between: that is a state, too.
        let found = fs::metadata(root.join(&path)).ok();
        let of = found.map_or((0, 0, 0, 0), |found| (found.size(), found.mtime(), found.mtime_nsec(), found.ino()));
        (path, of)
    };
    Ok(Fingerprint(paths.into_iter().map(state).collect()))
}

/// The folder that `root` means, and the paths of all files below it, sorted; of a file its folder, and its name alone.
fn paths(root: &Path, left_out: &mut Vec<LeftOut>) -> io::Result<(PathBuf, Vec<PathBuf>)> {
    let root = fs::canonicalize(root)?;
    let mut paths = Vec::new();
    if let (false, Some(folder), Some(name)) = (root.is_dir(), root.parent(), root.file_name()) {
        let name = PathBuf::from(name);
        if name.to_str().and_then(namespace).is_none() {
            let path = name.to_string_lossy().into_owned();
            left_out.push(LeftOut { path, line: 0, reason: "its name does not end in .yar or .yara".into() });
        }
        return Ok((folder.to_owned(), vec![name]));
    }
    walk(&root, &mut paths, left_out)?;
    Ok((root, paths))
}

/// Paths of all files below `root`, sorted.
fn walk(root: &Path, paths: &mut Vec<PathBuf>, left_out: &mut Vec<LeftOut>) -> io::Result<()> {
    let mut folders = vec![(PathBuf::new(), 0)];
    let mut refuse = |path: &Path, reason: String| {
        left_out.push(LeftOut { path: path.to_string_lossy().into_owned(), line: 0, reason });
    };
    while let Some((folder, depth)) = folders.pop() {
        let entries = match fs::read_dir(root.join(&folder)) {
            Ok(entries) => entries,
            Err(error) if depth == 0 => return Err(error),
            Err(error) => {
                refuse(&folder, error.to_string());
                continue;
            }
        };
        for entry in entries {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let kind = entry.file_type()?;
            if kind.is_dir() && depth < FOLDERS_MAX {
                folders.push((path, depth + 1));
            } else if kind.is_dir() {
                refuse(&path, format!("more than {FOLDERS_MAX} folders deep"));
            } else if paths.len() >= FILES_MAX {
                refuse(&path, format!("more than {FILES_MAX} files"));
                paths.sort();
                return Ok(());
            } else {
                paths.push(path);
            }
        }
    }
    paths.sort();
    Ok(())
}

/// A file's bytes and their digest, or why there are none.
type Loaded = Result<(Arc<[u8]>, [u8; 32]), String>;

/// Reads files once, and puts includes where they are wanted.
struct Reader<'a> {
    root: &'a Path,
    bytes: BTreeMap<String, Loaded>,
    total: u64,
}

impl Reader<'_> {
    /// The rule file at `path` with what it includes.
    fn file(&mut self, path: &str, namespace: String) -> Result<RuleFile, Problem> {
        let mut flat = Flat::default();
        self.put(path, 0, &mut flat)?;
        let parsed = source::parse(&flat.text);
        Ok(RuleFile {
            path: path.to_owned(),
            namespace,
            text: flat.text.into(),
            parsed,
            lines: flat.lines,
            parts: flat.parts,
        })
    }

    /// Appends a file and, in the place of each, its includes.
    fn put(&mut self, path: &str, depth: usize, flat: &mut Flat) -> Result<(), Problem> {
        let whole = |reason: String| Problem { line: 0, reason };
        let (bytes, sha256) = self.load(path).map_err(whole)?;
        flat.parts.insert(path.to_owned(), sha256);
        let text = source::normalized(&bytes)?;
        let mut done = 0;
        for include in source::parse(&text).includes {
            flat.push(path, &text, done..include.place.start)?;
            done = include.place.end;
            let line = source::line_of(text.as_bytes(), include.place.start);
            let refused = |reason: String| Problem { line, reason: format!("include \"{}\": {reason}", include.path) };
            if depth >= INCLUDES_MAX {
                return Err(refused(format!("more than {INCLUDES_MAX} deep")));
            }
            flat.included += 1;
            if flat.included > INCLUDED_MAX {
                return Err(refused(format!("more than {INCLUDED_MAX} in one file")));
            }
            let included = below(path, &include.path).map_err(|reason| refused(reason.into()))?;
            self.put(&included, depth + 1, flat).map_err(|problem| match problem.line {
                0 => refused(problem.reason),
                there => refused(format!("line {there}: {}", problem.reason)),
            })?;
        }
        flat.push(path, &text, done..text.len())
    }

    fn load(&mut self, path: &str) -> Loaded {
        if let Some(loaded) = self.bytes.get(path) {
            return loaded.clone();
        }
        let loaded = self.read(path);
        self.bytes.insert(path.to_owned(), loaded.clone());
        loaded
    }

    fn read(&mut self, path: &str) -> Loaded {
        let told = |error: io::Error| error.to_string();
        let place = fs::canonicalize(self.root.join(path)).map_err(told)?;
        if !place.starts_with(self.root) {
            return Err("a link that leads out of the rules directory".into());
        }
        if !fs::metadata(&place).map_err(told)?.is_file() {
            return Err("not a file".into());
        }
        let mut bytes = Vec::new();
        fs::File::open(&place).and_then(|file| file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(told)?;
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if size > FILE_MAX_BYTES {
            return Err(format!("larger than {FILE_MAX_BYTES} bytes"));
        }
        if self.total + size > TOTAL_MAX_BYTES {
            return Err(format!("all rule files together are larger than {TOTAL_MAX_BYTES} bytes"));
        }
        self.total += size;
        let sha256 = Sha256::digest(&bytes).into();
        Ok((bytes.into(), sha256))
    }
}

/// The path that an include in file `from` means, below the directory.
fn below(from: &str, include: &str) -> Result<String, &'static str> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for component in Path::new(include).components() {
        match component {
            Component::Normal(name) => parts.push(name.to_str().ok_or("its name is not UTF-8")?),
            Component::CurDir => {}
            Component::ParentDir => return Err("`..` is not followed"),
            Component::RootDir | Component::Prefix(_) => return Err("an absolute path is not followed"),
        }
    }
    Ok(parts.join("/"))
}

/// The text of a rule file and of its includes.
#[derive(Default)]
struct Flat {
    text: String,
    line: usize,
    lines: Vec<(usize, String, usize)>,
    parts: BTreeMap<String, [u8; 32]>,
    /// Includes so far.
    included: usize,
}

impl Flat {
    /// Appends a stretch of a file.
    fn push(&mut self, path: &str, text: &str, place: std::ops::Range<usize>) -> Result<(), Problem> {
        let there = source::line_of(text.as_bytes(), place.start);
        let stretch = text.get(place).unwrap_or_default();
        let most = usize::try_from(TOTAL_MAX_BYTES).unwrap_or(usize::MAX);
        if self.text.len() + stretch.len() > most {
            return Err(Problem { line: 0, reason: format!("with its includes larger than {most} bytes") });
        }
        // What an include stood beside begins a line of its own, so that every line has one origin.
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
            self.line += 1;
        }
        self.lines.push((self.line + 1, path.to_owned(), there));
        self.text.push_str(stretch);
        self.line += stretch.matches('\n').count();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_is_read_alone_with_its_includes() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("a.yar", "include \"b.inc\""), ("b.inc", "rule b { condition: true }"), ("c.yar", "")] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let snapshot = read(&folder.path().join("a.yar"), &Wanted::default()).unwrap();
        let files: Vec<_> = snapshot.files.iter().map(|file| (file.path.as_str(), file.namespace.as_str())).collect();
        assert_eq!((files, snapshot.left_out), (vec![("a.yar", "a")], vec![]));
        let snapshot = read(&folder.path().join("b.inc"), &Wanted::default()).unwrap();
        assert_eq!((snapshot.files.len(), snapshot.left_out[0].path.as_str()), (0, "b.inc"));
        assert!(snapshot.left_out[0].reason.contains(".yara"), "{:?}", snapshot.left_out);
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn read_all(files: &[(&str, &str)]) -> Snapshot {
        read(folder(files).path(), &Wanted::default()).unwrap()
    }

    const RULE: &str = "rule a { condition: true }\n";

    #[test]
    fn namespaces_are_folders_and_stem() {
        let files =
            [("b/c.d/e.yara", RULE), ("a.yar", RULE), ("x.txt", RULE), (".git/h.yar", RULE), ("b/.i.yar", RULE)];
        let found = read_all(&files);
        let found: Vec<_> = found.files.iter().map(|file| (file.path.as_str(), file.namespace.as_str())).collect();
        assert_eq!(found, [("a.yar", "a"), ("b/c.d/e.yara", "b.c.d.e")]);
    }

    #[test]
    fn namespaces_are_denied_by_their_beginning_and_names_by_a_pattern() {
        let folder = folder(&[("a/x1.yar", RULE), ("b/x1.yar", RULE), ("b/y.yar", RULE)]);
        let name_pattern = Some(Regex::new("^x").unwrap());
        let wanted = Wanted { deny_namespaces: vec!["a.".into()], name_pattern };
        let found = read(folder.path(), &wanted).unwrap();
        let found: Vec<_> = found.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(found, ["b/x1.yar"]);
    }

    #[test]
    fn includes_stand_where_they_are_wanted_and_lines_know_their_file() {
        let files = [
            ("a.yar", "rule a { condition: true }\ninclude \"in/b.inc\" rule d\n{ condition: true }"),
            ("in/b.inc", "include \"c.inc\"\nrule b { condition: true }"),
            ("in/c.inc", "\nrule c { condition: true }\n"),
        ];
        let found = read_all(&files);
        let [file] = found.files.as_slice() else { panic!("{found:?}") };
        let names: Vec<_> = file.parsed.rules.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(names, ["a", "c", "b", "d"]);
        let line = |wanted: &str| file.text.lines().position(|line| line.contains(wanted)).unwrap() + 1;
        assert_eq!(file.origin(line("rule a")), ("a.yar", 1));
        assert_eq!(file.origin(line("rule c")), ("in/c.inc", 2));
        assert_eq!(file.origin(line("rule b")), ("in/b.inc", 2));
        assert_eq!(file.origin(line("rule d") + 1), ("a.yar", 3));
        assert_eq!(file.parts.keys().collect::<Vec<_>>(), ["a.yar", "in/b.inc", "in/c.inc"]);
        assert_eq!(file.problem(line("rule b"), "x").reason, "in in/b.inc line 2: x");
    }

    #[test]
    fn includes_stay_in_the_directory() {
        let outside = folder(&[("secret.yar", RULE)]);
        let folder = folder(&[
            ("a.yar", "\ninclude \"../x.yar\""),
            ("b.yar", "include \"/etc/passwd\""),
            ("c.yar", "include \"link.inc\""),
            ("d.yar", "include \"missing\""),
            ("e.yar", "include \"e.yar\""),
        ]);
        std::os::unix::fs::symlink(outside.path().join("secret.yar"), folder.path().join("link.inc")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret.yar"), folder.path().join("z.yar")).unwrap();
        let found = read(folder.path(), &Wanted::default()).unwrap();
        assert!(found.files.is_empty());
        let reasons: Vec<_> =
            found.left_out.iter().map(|left| (left.path.as_str(), left.line, left.reason.as_str())).collect();
        let [a, b, c, d, e, z] = reasons.as_slice() else { panic!("{reasons:?}") };
        assert_eq!(*a, ("a.yar", 2, "include \"../x.yar\": `..` is not followed"));
        assert_eq!(b.2, "include \"/etc/passwd\": an absolute path is not followed");
        assert_eq!(c.2, "include \"link.inc\": a link that leads out of the rules directory");
        assert!(d.2.contains("No such file"), "{d:?}");
        assert!(e.2.ends_with("more than 5 deep"), "{e:?}");
        assert_eq!(z.2, "a link that leads out of the rules directory");
    }

    #[test]
    fn a_link_inside_the_directory_counts() {
        let folder = folder(&[("..2024/a.yar", RULE)]);
        std::os::unix::fs::symlink("..2024/a.yar", folder.path().join("a.yar")).unwrap();
        assert_eq!(read(folder.path(), &Wanted::default()).unwrap().files.len(), 1);
    }

    #[test]
    fn a_changed_file_changes_the_fingerprint() {
        let folder = folder(&[("a.yar", RULE)]);
        let before = fingerprint(folder.path()).unwrap();
        assert_eq!(before, fingerprint(folder.path()).unwrap());
        fs::write(folder.path().join("b.inc"), "x").unwrap();
        assert_ne!(before, fingerprint(folder.path()).unwrap());
    }
}
