//! What goes between the worker and its children.

use serde::{Deserialize, Serialize};

/// Names of the external variables that every rule may use.
pub(super) const EXTERNALS: [&str; 4] = ["filename", "filepath", "extension", "filetype"];

/// What a child is asked for. The body is what it is about.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Compile each of the body's [`Sources`] on its own; a [`Found::Checked`] for each, in their order.
    Check,
    /// Compile all of the body's [`Sources`] together; the rules come as [`Found::Bytes`].
    Link,
    /// Scan the body with the rules that were set up.
    Scan(Box<Scan>),
}

/// Rule texts with their namespaces.
pub(super) type Sources = Vec<(String, String)>;

/// How to scan an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scan {
    /// The external variables for the object itself.
    pub externals: Externals,
    /// How to expand it if it is an archive; `None` to scan it as it is.
    pub expand: Option<Expand>,
    /// Time for the object, and for each member.
    pub file_timeout_s: u32,
    /// Which members' bytes are wanted.
    pub publish: Publish,
    /// How many of them at most.
    pub publish_max: u64,
    /// Members that are not scanned, because they kept a scanner busy for too long; 0 is the object itself.
    pub skip: Vec<u64>,
}

/// Limits of the expansion, as in the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expand {
    /// Bytes that may come out.
    pub max_total_expanded: u64,
    /// Members, with those of archives inside.
    pub max_members: u64,
    /// Expanded to packed size.
    pub max_ratio: u64,
    /// Archives inside archives.
    pub max_nesting: u32,
    /// Largest member that is looked at.
    pub max_member: u64,
    /// To be tried on encrypted members, in this order.
    pub passwords: Vec<String>,
}

/// Values of the external variables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Externals {
    /// Last part of the path.
    pub filename: String,
    /// Name of the object, or path in the archive.
    pub filepath: String,
    /// Behind the last dot of the name.
    pub extension: String,
    /// Identified file format; empty for members.
    pub filetype: String,
}

impl Externals {
    /// Those of a path.
    #[must_use]
    pub fn of(path: &str, filetype: &str) -> Self {
        let filename = path.rsplit(['/', '\\']).next().unwrap_or(path);
        let extension = filename.rsplit_once('.').map_or("", |(_, extension)| extension);
        Self {
            filename: filename.into(),
            filepath: path.into(),
            extension: extension.into(),
            filetype: filetype.into(),
        }
    }

    /// In the order of [`EXTERNALS`].
    pub(super) fn values(&self) -> [&str; 4] {
        [&self.filename, &self.filepath, &self.extension, &self.filetype]
    }
}

/// Members whose bytes are published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Publish {
    /// None.
    None,
    /// Those that a rule matches.
    #[default]
    Matched,
    /// All.
    All,
}

/// What comes before an answer, in this order for each member: [`Found::Began`], its hits with their rows, and if it is
/// of interest [`Found::Member`] with its bytes.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Found {
    /// How it went with a text: line and reason of the first error.
    Checked(Option<(usize, String)>),
    /// Some of the compiled rules, or of a member that is published.
    Bytes(Vec<u8>),
    /// A member is looked at.
    Began { member: u64, path: String },
    /// A rule matches the member that was begun last; before the first, the object itself.
    Hit(Hit),
    /// Matches of the last hit.
    Rows(Vec<Row>),
    /// What the member that was begun last is; its bytes follow if they are published.
    Member(Member),
    /// A member that was told stands there under another path, too; its bytes follow if that makes it published.
    Again { sha256: String, path: String, published: bool },
}

/// How a request ended.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Told {
    /// Every text was checked.
    Checked,
    /// All rules were sent; or which text does not go with those before it, and why.
    Linked(Result<(), (Option<u64>, String)>),
    /// Nothing but what is left to say.
    Scanned(Scanned),
}

/// What is left to say of a scan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scanned {
    /// What came of expanding it; `None` if it is no archive.
    pub archive: Option<Archive>,
    /// Members that were given up after `file_timeout`: some paths, empty for the object itself, and their count.
    pub timed_out: Listed,
    /// Members that the library gave up for another reason, with it.
    pub failed: Listed,
    /// Members that were to be published, but are too many.
    pub unpublished: u64,
    /// Matches that were not sent.
    pub rows_cut: u64,
    /// All matches of all hits.
    pub rows: u64,
    /// Hits, and further paths of members, that were not sent.
    pub hits_cut: u64,
    /// Out of memory: nothing is complete.
    pub out_of_memory: bool,
}

/// Some of many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The first ones.
    pub first: Vec<String>,
    /// How many there are.
    pub count: u64,
}

/// How many of many are named.
pub(super) const LISTED: usize = 20;

impl Listed {
    /// One more.
    pub(super) fn add(&mut self, one: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < LISTED {
            self.first.push(one());
        }
    }
}

/// What came of expanding an archive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Archive {
    /// Members that were looked at.
    pub members: u64,
    /// There are encrypted members that no password opens.
    pub encrypted: bool,
    /// Passwords that opened something.
    pub passwords: Vec<String>,
    /// Why it could not be read to its end.
    pub corrupt: Option<String>,
    /// A limit was reached.
    pub limit: bool,
    /// Some members are packed in a way nobody here knows.
    pub unsupported: bool,
    /// Paths that lead out of the archive: how many.
    pub unsafe_paths: u64,
    /// Something is missing.
    pub troubled: bool,
    /// What, in sentences.
    pub notes: Vec<String>,
}

/// A rule that matches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Metadata, in its order.
    pub metas: Vec<(String, Meta)>,
    /// Matches, in their order: each pattern's own, one pattern after another.
    pub rows: Vec<Row>,
}

impl Hit {
    /// Bytes that it takes without its matches, about.
    pub(super) fn held(&self) -> usize {
        let tags = self.tags.iter().map(|tag| tag.len() + 32).sum::<usize>();
        let metas = self.metas.iter().map(|(name, value)| {
            let value = if let Meta::Text(text) = value { text.len() } else { 8 };
            name.len() + value + 64
        });
        self.namespace.len() + self.name.len() + tags + metas.sum::<usize>() + super::engine::TOLD_EACH
    }

    /// Namespace and name.
    #[must_use]
    pub fn rule(&self) -> String {
        format!("{}.{}", self.namespace, self.name)
    }

    /// The number that a metadata name stands for.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.metas.iter().find_map(|(key, value)| match value {
            Meta::Integer(value) if key == name => Some(*value),
            Meta::Integer(_) | Meta::Text(_) | Meta::Boolean(_) => None,
        })
    }

    /// Whether it counts for a file of this path: metadata `filetype` lists the endings it is for.
    #[must_use]
    pub fn counts(&self, path: &str) -> bool {
        let mut endings = self.texts("filetype").flat_map(str::split_whitespace).peekable();
        endings.peek().is_none() || endings.any(|ending| path.ends_with(ending))
    }

    /// The texts that a metadata name stands for.
    pub fn texts<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.metas.iter().filter_map(move |(key, value)| match value {
            Meta::Text(value) if key == name => Some(value.as_str()),
            Meta::Integer(_) | Meta::Text(_) | Meta::Boolean(_) => None,
        })
    }
}

/// A value of a rule's metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Meta {
    /// A number.
    Integer(i64),
    /// A text.
    Text(String),
    /// Yes or no.
    Boolean(bool),
}

/// One match of one pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the pattern, with its `$`.
    pub pattern: String,
    /// Where.
    pub offset: u64,
    /// How long.
    pub size: u64,
    /// The bytes, or the first of them.
    pub bytes: Vec<u8>,
}

/// A member of an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Path in the archive, levels joined with `!/`.
    pub path: String,
    /// SHA-256, in lower-case digits.
    pub sha256: String,
    /// Size.
    pub size: u64,
    /// The path leads out of the archive.
    pub unsafe_path: bool,
    /// Its bytes are published.
    pub published: bool,
}
