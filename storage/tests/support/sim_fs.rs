//! A disk in memory that loses power: it keeps what was synced and a random part of what was not.
//!
//! Hostile, but within what POSIX promises. What may happen to unsynced work in a cut:
//! - a write is kept, lost, or torn at sectors of 512 bytes; a sector shows some moment since the last sync of its file;
//! - the size of a file is kept or lost independently of its content; bytes inside the size that were lost read as what
//!   was there before, or zero;
//! - a name that was made, moved or removed is kept or lost; operations on one name keep their order, a rename within
//!   one directory is whole or not at all, one between two directories may be kept in either, both or neither;
//! - a file whose content was synced and whose name was not may be gone.
//!
//! A failed sync loses an unknown part of what it was for, while reads still show all of it and the next sync says
//! nothing about it (as Linux does).

use super::rng::Rng;
use super::sim_nodes::{DirNode, DirOp, FileNode, FileOp, InodeId, durable_dir, durable_file, to_u64, to_usize};
use azulite_storage::fs::{DirEntry, Fs, FsFile, FsLock, Meta, Room};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

const ROOT: InodeId = 1;

/// The disk for one session; a clone is another handle to the same session.
#[derive(Clone, Debug)]
pub(crate) struct SimFs(Arc<Mutex<Disk>>);

#[derive(Debug)]
struct Disk {
    inodes: BTreeMap<InodeId, Inode>,
    next_inode: InodeId,
    locked: BTreeSet<PathBuf>,
    rng: Rng,
    off: bool,
    mutations: u64,
    cut_at: Option<u64>,
    syncs: u64,
    fail_sync_at: Option<u64>,
    writes: u64,
    fail_write_at: Option<u64>,
    capacity: Option<u64>,
}

#[derive(Clone, Debug)]
enum Inode {
    File(FileNode),
    Dir(DirNode),
}

/// What became of a mutating call.
enum Turn {
    Go,
    /// The power fails in this very call, which is (`true`) or is not carried out before.
    Cut {
        applied: bool,
    },
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

impl SimFs {
    /// An empty disk whose only directory is `/`. `seed` decides partial writes and what a failed sync loses.
    pub(crate) fn new(seed: u64) -> Self {
        let inodes = BTreeMap::from([(ROOT, Inode::Dir(DirNode::default()))]);
        Self::start(inodes, ROOT + 1, None, seed)
    }

    fn start(inodes: BTreeMap<InodeId, Inode>, next_inode: InodeId, capacity: Option<u64>, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Disk {
            inodes,
            next_inode,
            locked: BTreeSet::new(),
            rng: Rng::new(seed),
            off: false,
            mutations: 0,
            cut_at: None,
            syncs: 0,
            fail_sync_at: None,
            writes: 0,
            fail_write_at: None,
            capacity,
        })))
    }

    /// Ends the session at once, if it has not ended, and returns the disk as the next session finds it.
    pub(crate) fn cut(&self, seed: u64) -> SimFs {
        let mut disk = self.disk();
        disk.off = true;
        let mut rng = Rng::new(seed);
        let mut found = BTreeMap::new();
        disk.survive(ROOT, &mut rng, &mut found);
        Self::start(found, disk.next_inode, disk.capacity, rng.next())
    }

    /// Ends the session as `kill -9` does: nothing is lost, but what was unsynced still is, and can be lost later.
    pub(crate) fn kill(&self) -> SimFs {
        let mut disk = self.disk();
        disk.off = true;
        let mut inodes = disk.inodes.clone();
        for inode in inodes.values_mut() {
            if let Inode::File(file) = inode {
                file.handles = 0;
            }
        }
        let seed = disk.rng.next();
        Self::start(inodes, disk.next_inode, disk.capacity, seed)
    }

    /// A copy of the disk as reads see it, all of it durable. The session goes on.
    pub(crate) fn snapshot(&self) -> SimFs {
        let disk = self.disk();
        let mut found = BTreeMap::new();
        disk.copy_current(ROOT, &mut found);
        Self::start(found, disk.next_inode, disk.capacity, 0)
    }

    /// Arms a cut: the power fails in the `calls`-th mutating call from now on (1 is the next one).
    pub(crate) fn cut_after(&self, calls: u64) {
        let mut disk = self.disk();
        disk.cut_at = Some(disk.mutations + calls.max(1));
    }

    /// True once the power has failed.
    pub(crate) fn is_off(&self) -> bool {
        self.disk().off
    }

    /// Mutating calls so far in this session.
    pub(crate) fn mutations(&self) -> u64 {
        self.disk().mutations
    }

    /// Makes the `nth` file sync from now on (1 is the next one) fail with `EIO`.
    pub(crate) fn fail_sync(&self, nth: u64) {
        let mut disk = self.disk();
        disk.fail_sync_at = Some(disk.syncs + nth.max(1));
    }

    /// Makes the `nth` write from now on (1 is the next one) fail with `StorageFull` after a random part of it, as disks
    /// do that promise room they do not have.
    pub(crate) fn fail_write(&self, nth: u64) {
        let mut disk = self.disk();
        disk.fail_write_at = Some(disk.writes + nth.max(1));
    }

    /// Sets the size of the disk: `None` is endless.
    pub(crate) fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    /// Bytes that files occupy.
    pub(crate) fn used(&self) -> u64 {
        self.disk().used()
    }

    /// The content of a file as reads see it.
    pub(crate) fn content(&self, path: impl AsRef<Path>) -> Vec<u8> {
        let disk = self.disk();
        let id = disk.find(path.as_ref()).unwrap();
        disk.file(id).unwrap().current.clone()
    }

    /// Replaces the content of a file, durably, as damage does: nothing is recorded as a write.
    pub(crate) fn damage(&self, path: impl AsRef<Path>, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.disk();
        let id = disk.find(path.as_ref()).unwrap();
        let file = disk.file_mut(id).unwrap();
        change(&mut file.current);
        file.durable = file.current.clone();
        file.pending.clear();
        file.reserved = file.reserved.max(to_u64(file.current.len()));
    }

    /// Every file, as path and length, sorted by path.
    pub(crate) fn files(&self) -> Vec<(PathBuf, usize)> {
        let disk = self.disk();
        let mut files = Vec::new();
        disk.walk(ROOT, Path::new("/"), &mut files);
        files
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    /// The disk, or the error that every call gets after a cut.
    fn live(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.disk();
        if disk.off { Err(power_is_off()) } else { Ok(disk) }
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn FsFile>> {
        let mut disk = self.live()?;
        let inode = disk.find(path)?;
        disk.file_mut(inode)?.handles += 1;
        Ok(Arc::new(SimFile { fs: self.clone(), inode, writable }))
    }

    /// Carries out a mutating call, unless this is the one in which the power fails: then it happened or it did not, and
    /// the caller never learns which.
    fn mutate<T>(&self, call: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        let mut disk = self.live()?;
        match disk.turn() {
            Turn::Go => call(&mut disk),
            Turn::Cut { applied } => {
                let done = if applied { call(&mut disk).err() } else { None };
                disk.off = true;
                Err(done.unwrap_or_else(power_is_off))
            }
        }
    }
}

impl Disk {
    fn turn(&mut self) -> Turn {
        self.mutations += 1;
        if self.cut_at == Some(self.mutations) { Turn::Cut { applied: self.rng.chance(50) } } else { Turn::Go }
    }

    fn find(&self, path: &Path) -> io::Result<InodeId> {
        let mut at = ROOT;
        for name in parts(path) {
            at = *self.dir(at)?.current.get(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    /// The directory a path lies in, and its last name.
    fn place(&self, path: &Path) -> io::Result<(InodeId, String)> {
        let mut names = parts(path);
        let last = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = self.find(&names.iter().collect::<PathBuf>())?;
        self.dir(parent)?;
        Ok((parent, last))
    }

    fn dir(&self, id: InodeId) -> io::Result<&DirNode> {
        match self.inodes.get(&id) {
            Some(Inode::Dir(dir)) => Ok(dir),
            Some(Inode::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn dir_mut(&mut self, id: InodeId) -> io::Result<&mut DirNode> {
        match self.inodes.get_mut(&id) {
            Some(Inode::Dir(dir)) => Ok(dir),
            Some(Inode::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn file(&self, id: InodeId) -> io::Result<&FileNode> {
        match self.inodes.get(&id) {
            Some(Inode::File(file)) => Ok(file),
            Some(Inode::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn file_mut(&mut self, id: InodeId) -> io::Result<&mut FileNode> {
        match self.inodes.get_mut(&id) {
            Some(Inode::File(file)) => Ok(file),
            Some(Inode::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn add(&mut self, path: &Path, inode: Inode) -> io::Result<InodeId> {
        let (parent, name) = self.place(path)?;
        if self.dir(parent)?.current.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(id, inode);
        self.dir_mut(parent)?.push(DirOp::Link { name, inode: id });
        Ok(id)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_dir, from) = self.place(from)?;
        let (to_dir, to) = self.place(to)?;
        let inode = *self.dir(from_dir)?.current.get(&from).ok_or(io::ErrorKind::NotFound)?;
        let replaced = self.dir(to_dir)?.current.get(&to).copied();
        if replaced == Some(inode) {
            return Ok(());
        }
        if let Some(replaced) = replaced {
            self.file_mut(replaced)?.names -= 1;
        }
        if from_dir == to_dir {
            self.dir_mut(from_dir)?.push(DirOp::Rename { from, to, inode });
        } else {
            self.dir_mut(from_dir)?.push(DirOp::Unlink { name: from });
            self.dir_mut(to_dir)?.push(DirOp::Link { name: to, inode });
        }
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.place(path)?;
        let inode = *self.dir(parent)?.current.get(&name).ok_or(io::ErrorKind::NotFound)?;
        self.file_mut(inode)?.names -= 1;
        self.dir_mut(parent)?.push(DirOp::Unlink { name });
        Ok(())
    }

    fn used(&self) -> u64 {
        let charge = |inode: &Inode| match inode {
            Inode::File(file) => file.charge(),
            Inode::Dir(_) => 0,
        };
        self.inodes.values().map(charge).sum()
    }

    fn free(&self) -> u64 {
        self.capacity.map_or(1 << 50, |capacity| capacity.saturating_sub(self.used()))
    }

    /// Reserves blocks of a file up to `end`, as far as there is room; returns where it got to.
    fn reserve(&mut self, id: InodeId, end: u64) -> io::Result<u64> {
        let free = self.free();
        let file = self.file_mut(id)?;
        let granted = end.min(file.reserved.saturating_add(free));
        file.reserved = file.reserved.max(granted);
        Ok(granted)
    }

    fn write(&mut self, id: InodeId, position: u64, mut bytes: Vec<u8>) -> io::Result<()> {
        let end = position + to_u64(bytes.len());
        self.writes += 1;
        let granted = if self.fail_write_at == Some(self.writes) {
            position + self.rng.below(to_u64(bytes.len()))
        } else {
            self.reserve(id, end)?
        };
        bytes.truncate(to_usize(granted.saturating_sub(position)));
        if !bytes.is_empty() {
            self.change(id, FileOp::Write { position: to_usize(position), bytes })?;
        }
        if granted < end { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn change(&mut self, id: InodeId, op: FileOp) -> io::Result<()> {
        let file = self.file_mut(id)?;
        op.apply(&mut file.current);
        file.pending.push(op);
        file.modified_ms = azulite_storage::clock::now_ms();
        Ok(())
    }

    fn allocate(&mut self, id: InodeId, len: u64) -> io::Result<()> {
        let grows_by = len.saturating_sub(self.file(id)?.reserved);
        if grows_by > self.free() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.reserve(id, len)?;
        if to_u64(self.file(id)?.current.len()) < len {
            self.change(id, FileOp::SetLen(to_usize(len)))?;
        }
        Ok(())
    }

    fn set_len(&mut self, id: InodeId, len: u64) -> io::Result<()> {
        let file = self.file_mut(id)?;
        file.reserved = file.reserved.min(len);
        self.change(id, FileOp::SetLen(to_usize(len)))
    }

    fn sync_data(&mut self, id: InodeId) -> io::Result<()> {
        self.syncs += 1;
        let fails = self.fail_sync_at == Some(self.syncs);
        let mut rng = Rng::new(self.rng.next());
        let file = self.file_mut(id)?;
        if fails {
            file.durable = file.survive(&mut rng);
            file.pending.clear();
            return Err(io::Error::from_raw_os_error(5));
        }
        file.sync();
        Ok(())
    }

    fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let id = self.find(path)?;
        self.dir_mut(id)?.sync();
        self.forget_unreachable();
        Ok(())
    }

    /// Frees the files that no name, handle or surviving name can lead to.
    fn forget_unreachable(&mut self) {
        let mut reachable = BTreeSet::from([ROOT]);
        for inode in self.inodes.values() {
            let Inode::Dir(dir) = inode else { continue };
            reachable.extend(dir.durable.values().chain(dir.current.values()));
            for op in &dir.pending {
                if let DirOp::Link { inode, .. } | DirOp::Rename { inode, .. } = op {
                    reachable.insert(*inode);
                }
            }
        }
        let open = |inode: &Inode| matches!(inode, Inode::File(file) if file.handles > 0);
        self.inodes.retain(|id, inode| reachable.contains(id) || open(inode));
    }

    /// Puts what survives a cut at and below directory `id` into `found`.
    fn survive(&self, id: InodeId, rng: &mut Rng, found: &mut BTreeMap<InodeId, Inode>) {
        let names = self.dir(id).unwrap().survive(rng);
        for child in names.values() {
            match self.inodes.get(child).unwrap() {
                Inode::Dir(_) => self.survive(*child, rng, found),
                // A second name left behind by a rename: two names of one file.
                Inode::File(file) => {
                    let mut new = || durable_file(file.survive(rng), file.modified_ms);
                    if let Inode::File(file) = found.entry(*child).or_insert_with(|| Inode::File(new())) {
                        file.names += 1;
                    }
                }
            }
        }
        found.insert(id, Inode::Dir(durable_dir(names)));
    }

    fn copy_current(&self, id: InodeId, found: &mut BTreeMap<InodeId, Inode>) {
        let names = self.dir(id).unwrap().current.clone();
        for child in names.values() {
            match self.inodes.get(child).unwrap() {
                Inode::Dir(_) => self.copy_current(*child, found),
                Inode::File(file) => {
                    let new = || durable_file(file.current.clone(), file.modified_ms);
                    if let Inode::File(file) = found.entry(*child).or_insert_with(|| Inode::File(new())) {
                        file.names += 1;
                    }
                }
            }
        }
        found.insert(id, Inode::Dir(durable_dir(names)));
    }

    fn walk(&self, id: InodeId, path: &Path, files: &mut Vec<(PathBuf, usize)>) {
        for (name, child) in &self.dir(id).unwrap().current {
            let path = path.join(name);
            match self.inodes.get(child).unwrap() {
                Inode::Dir(_) => self.walk(*child, &path, files),
                Inode::File(file) => files.push((path, file.current.len())),
            }
        }
    }
}

fn parts(path: &Path) -> Vec<String> {
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_str().unwrap().to_owned()),
        Component::ParentDir => panic!("{} has a parent component", path.display()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    };
    path.components().filter_map(name).collect()
}

#[derive(Debug)]
struct SimFile {
    fs: SimFs,
    inode: InodeId,
    writable: bool,
}

impl SimFile {
    fn mutate<T>(&self, call: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.fs.mutate(call)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let Ok(mut disk) = self.fs.0.lock() else { return };
        if let Ok(file) = disk.file_mut(self.inode) {
            file.handles -= 1;
        }
    }
}

impl FsFile for SimFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let disk = self.fs.live()?;
        let content = disk.file(self.inode)?.current.get(to_usize(position)..).unwrap_or_default();
        let len = content.len().min(buf.len());
        buf[..len].copy_from_slice(&content[..len]);
        Ok(len)
    }

    fn write_all_at(&self, bufs: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        let mut bytes = Vec::new();
        bufs.iter().for_each(|buf| bytes.extend_from_slice(buf));
        self.mutate(|disk| disk.write(self.inode, position, bytes))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.mutate(|disk| disk.allocate(self.inode, len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.mutate(|disk| disk.set_len(self.inode, len))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(to_u64(self.fs.live()?.file(self.inode)?.current.len()))
    }

    fn sync_data(&self) -> io::Result<()> {
        // A file opened for reading can be synced too.
        self.fs.mutate(|disk| disk.sync_data(self.inode))
    }
}

#[derive(Debug)]
struct SimLock {
    fs: SimFs,
    path: PathBuf,
}

impl FsLock for SimLock {
    fn describe(&self, text: &str) -> io::Result<()> {
        self.fs.mutate(|disk| {
            let inode = disk.find(&self.path)?;
            disk.set_len(inode, 0)?;
            disk.write(inode, 0, text.as_bytes().to_vec())
        })
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let Ok(mut disk) = self.fs.0.lock() else { return };
        disk.locked.remove(&self.path);
    }
}

impl Fs for SimFs {
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        self.open(path, false)
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        self.open(path, true)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        let file = FileNode { names: 1, handles: 1, ..FileNode::default() };
        let inode = self.mutate(|disk| disk.add(path, Inode::File(file)))?;
        Ok(Arc::new(SimFile { fs: self.clone(), inode, writable: true }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.mutate(|disk| disk.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.mutate(|disk| disk.remove(path))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.mutate(|disk| disk.add(path, Inode::Dir(DirNode::default())))?;
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.mutate(|disk| disk.sync_dir(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let disk = self.live()?;
        let dir = disk.dir(disk.find(path)?)?;
        let is_dir = |id: &InodeId| matches!(disk.inodes.get(id), Some(Inode::Dir(_)));
        Ok(dir.current.iter().map(|(name, id)| DirEntry { name: name.clone(), is_dir: is_dir(id) }).collect())
    }

    fn meta(&self, path: &Path) -> io::Result<Option<Meta>> {
        let disk = self.live()?;
        let id = match disk.find(path) {
            Ok(id) => id,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        Ok(Some(match disk.inodes.get(&id).unwrap() {
            Inode::Dir(_) => Meta { len: 0, is_dir: true, modified_ms: 0 },
            Inode::File(file) => Meta { len: to_u64(file.current.len()), is_dir: false, modified_ms: file.modified_ms },
        }))
    }

    fn room(&self, _path: &Path) -> io::Result<Room> {
        let disk = self.live()?;
        Ok(Room { free: disk.free(), total: disk.capacity.unwrap_or(1 << 50) })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>> {
        let path = parts(path).iter().collect::<PathBuf>();
        let mut disk = self.live()?;
        if !disk.locked.insert(path.clone()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if disk.find(&path).is_err() {
            disk.add(&path, Inode::File(FileNode { names: 1, ..FileNode::default() }))?;
        }
        Ok(Box::new(SimLock { fs: self.clone(), path }))
    }
}
