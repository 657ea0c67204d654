//! Files and directories of the test disk: what is durable, what reads see, and what lies between the two.

use super::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// The unit in which a disk writes.
pub(crate) const SECTOR: usize = 512;

pub(super) type InodeId = u64;

#[derive(Clone, Debug, Default)]
pub(super) struct FileNode {
    /// What survives a cut for certain.
    pub(super) durable: Vec<u8>,
    /// What reads see.
    pub(super) current: Vec<u8>,
    /// What happened since the last sync, oldest first.
    pub(super) pending: Vec<FileOp>,
    /// Bytes from the start that have blocks on the disk.
    pub(super) reserved: u64,
    pub(super) names: u32,
    pub(super) handles: u32,
    pub(super) modified_ms: i64,
}

#[derive(Clone, Debug)]
pub(super) enum FileOp {
    Write { position: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Clone, Debug, Default)]
pub(super) struct DirNode {
    pub(super) durable: BTreeMap<String, InodeId>,
    pub(super) current: BTreeMap<String, InodeId>,
    pub(super) pending: Vec<DirOp>,
}

#[derive(Clone, Debug)]
pub(super) enum DirOp {
    Link { name: String, inode: InodeId },
    Unlink { name: String },
    Rename { from: String, to: String, inode: InodeId },
}

/// How much of the unsynced work of one file or directory a cut keeps.
#[derive(Clone, Copy)]
enum Fate {
    All,
    Nothing,
    Some,
}

pub(super) fn to_u64(n: usize) -> u64 {
    u64::try_from(n).expect("64 bits")
}

pub(super) fn to_usize(n: u64) -> usize {
    usize::try_from(n).expect("64 bits")
}

impl FileOp {
    pub(super) fn apply(&self, content: &mut Vec<u8>) {
        match self {
            FileOp::Write { position, bytes } => {
                let end = position + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*position..end].copy_from_slice(bytes);
            }
            FileOp::SetLen(len) => content.resize(*len, 0),
        }
    }

    /// The bytes it changes in a file that is `len` bytes long before.
    fn range(&self, len: usize) -> (usize, usize) {
        match self {
            FileOp::Write { position, bytes } => (*position, position + bytes.len()),
            FileOp::SetLen(to) => (*to.min(&len), len),
        }
    }
}

impl DirOp {
    fn names(&self) -> Vec<&String> {
        match self {
            DirOp::Link { name, .. } | DirOp::Unlink { name } => vec![name],
            DirOp::Rename { from, to, .. } => vec![from, to],
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, InodeId>) {
        match self {
            DirOp::Link { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            DirOp::Unlink { name } => {
                names.remove(name);
            }
            DirOp::Rename { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
}

impl Fate {
    fn roll(rng: &mut Rng) -> Self {
        *rng.pick(&[Fate::All, Fate::Nothing, Fate::Some, Fate::Some])
    }

    fn keeps(self, rng: &mut Rng) -> bool {
        match self {
            Fate::All => true,
            Fate::Nothing => false,
            Fate::Some => rng.chance(50),
        }
    }
}

impl FileNode {
    /// What the disk holds when the power fails now.
    pub(super) fn survive(&self, rng: &mut Rng) -> Vec<u8> {
        let mut image = self.durable.clone();
        let mut size = image.len();
        let mut cache = self.durable.clone();
        let fate = Fate::roll(rng);
        for op in &self.pending {
            let (start, end) = op.range(cache.len());
            op.apply(&mut cache);
            if fate.keeps(rng) {
                size = cache.len();
            }
            let whole = Fate::roll(rng);
            for sector in start / SECTOR..end.div_ceil(SECTOR) {
                let keep = match fate {
                    Fate::All => true,
                    Fate::Nothing => false,
                    Fate::Some => whole.keeps(rng),
                };
                if keep {
                    copy_sector(&cache, &mut image, sector);
                }
            }
        }
        image.resize(size, 0);
        image
    }

    pub(super) fn sync(&mut self) {
        for op in std::mem::take(&mut self.pending) {
            op.apply(&mut self.durable);
        }
    }

    pub(super) fn charge(&self) -> u64 {
        if self.names == 0 && self.handles == 0 { 0 } else { self.reserved }
    }
}

/// Makes one sector of `image` what it is in `cache`; what lies past the end of `cache` is zero.
fn copy_sector(cache: &[u8], image: &mut Vec<u8>, sector: usize) {
    let start = sector * SECTOR;
    let end = start + SECTOR;
    if image.len() < end {
        image.resize(end, 0);
    }
    let have = cache.get(start..end.min(cache.len())).unwrap_or_default();
    image[start..start + have.len()].copy_from_slice(have);
    image[start + have.len()..end].fill(0);
}

impl DirNode {
    /// The names the disk holds when the power fails now.
    pub(super) fn survive(&self, rng: &mut Rng) -> BTreeMap<String, InodeId> {
        let mut names = self.durable.clone();
        let mut lost = BTreeSet::new();
        let fate = Fate::roll(rng);
        for op in &self.pending {
            let follows_a_lost_one = op.names().iter().any(|name| lost.contains(*name));
            if !follows_a_lost_one && fate.keeps(rng) {
                op.apply(&mut names);
            } else {
                lost.extend(op.names().into_iter().cloned());
            }
        }
        names
    }

    pub(super) fn push(&mut self, op: DirOp) {
        op.apply(&mut self.current);
        self.pending.push(op);
    }

    pub(super) fn sync(&mut self) {
        for op in std::mem::take(&mut self.pending) {
            op.apply(&mut self.durable);
        }
    }
}

pub(super) fn durable_file(content: Vec<u8>, modified_ms: i64) -> FileNode {
    FileNode {
        reserved: to_u64(content.len()),
        current: content.clone(),
        durable: content,
        modified_ms,
        ..FileNode::default()
    }
}

pub(super) fn durable_dir(names: BTreeMap<String, InodeId>) -> DirNode {
    DirNode { durable: names.clone(), current: names, pending: Vec::new() }
}
