//! Snapshots: checked, and made ready for the first start of another cluster.
//!
//! A snapshot is the database of one member with a digest behind it. A member that starts without a
//! log takes a database that lies in its place, and the log it begins anew counts from one; but the
//! database says how far the old log had come, and entries before that would be passed over. So
//! that number is set to zero, in place, and the old members' list is emptied. These are the two
//! things that etcd's own restore does to the file; with them done here, hosts need no tool for it.
//! What it does besides is to begin the log with a snapshot: see `cli::backup` for how that is had.
//!
//! Source: the file format of bbolt 1.3, `page.go`, `bucket.go`, `db.go`; etcd 3.4,
//! `clientv3/snapshot/v3_snapshot.go`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use sha2::{Digest as _, Sha256};

/// Bytes of the digest behind a snapshot.
const DIGEST_BYTES: u64 = 32;
/// Every part of the database is a multiple of this long.
const SECTOR: u64 = 512;
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const PAGE_HEADER: u64 = 16;
const ELEMENT: u64 = 16;
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
/// No tree of a file that fits on a disk is deeper.
const DEPTH_MAX: usize = 32;

/// Why a file is no usable snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It cannot be read or written.
    #[error("cannot read or write the snapshot")]
    File(#[from] io::Error),
    /// The digest behind it is not its own.
    #[error("the snapshot is damaged: its digest is not the one that etcd put behind it")]
    Digest,
    /// It is not a database of etcd.
    #[error("the snapshot is not a database of etcd: {0}")]
    Format(&'static str),
}

/// Checks the digest behind a snapshot; gives the length of the database in bytes.
///
/// # Errors
/// When the file cannot be read or was damaged.
pub fn verify(file: &mut File) -> Result<u64, SnapshotError> {
    let len = file.metadata()?.len();
    let database = len.checked_sub(DIGEST_BYTES).ok_or(SnapshotError::Digest)?;
    if database == 0 || !database.is_multiple_of(SECTOR) {
        return Err(SnapshotError::Digest);
    }
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = Sha256::new();
    let (mut left, mut buffer) = (database, vec![0; 1 << 16]);
    while left > 0 {
        let part = usize::try_from(left.min(buffer.len() as u64)).unwrap_or(buffer.len());
        file.read_exact(&mut buffer[..part])?;
        hasher.update(&buffer[..part]);
        left -= part as u64;
    }
    let mut digest = [0; 32];
    file.read_exact(&mut digest)?;
    let own: [u8; 32] = hasher.finalize().into();
    if own == digest { Ok(database) } else { Err(SnapshotError::Digest) }
}

/// What was changed for another cluster's first start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reborn {
    /// How far the old log had come.
    pub consistent_index: u64,
    /// How many members the old cluster had.
    pub members: u16,
}

/// Checks a snapshot, takes the digest off and makes the database ready for the first start of a
/// member of another cluster. On an error the file may be changed: work on a copy.
///
/// # Errors
/// When the file cannot be read or written, or is no database of etcd.
pub fn rebear(file: &mut File) -> Result<Reborn, SnapshotError> {
    let len = verify(file)?;
    file.set_len(len)?;
    let database = Database::open(file, len)?;
    let meta = database.bucket(database.root, b"meta")?;
    let meta = meta.ok_or(SnapshotError::Format("it has no bucket `meta`"))?;
    let index = database.find(meta, b"consistent_index")?;
    let index = index.filter(|found| found.len == 8);
    let index = index.ok_or(SnapshotError::Format("it does not say how far the log had come"))?;
    let mut old = [0; 8];
    database.file.read_exact_at(&mut old, index.at)?;
    database.file.write_all_at(&[0; 8], index.at)?;
    // Written by etcd 3.5 and later, in the same shape.
    if let Some(term) = database.find(meta, b"term")?.filter(|found| found.len == 8) {
        database.file.write_all_at(&[0; 8], term.at)?;
    }
    let mut members = 0;
    for (name, counts) in [(&b"members"[..], true), (&b"members_removed"[..], false)] {
        if let Some(bucket) = database.bucket(database.root, name)? {
            let emptied = database.empty(bucket)?;
            members += if counts { emptied } else { 0 };
        }
    }
    file.sync_all()?;
    Ok(Reborn { consistent_index: u64::from_be_bytes(old), members })
}

/// A database file, read page by page.
struct Database<'a> {
    file: &'a File,
    len: u64,
    page_size: u64,
    root: Tree,
}

/// Where a tree of pages begins.
#[derive(Debug, Clone, Copy)]
struct Tree {
    /// Offset of its first page in the file.
    at: u64,
}

/// Where a value is.
#[derive(Debug, Clone, Copy)]
struct Found {
    at: u64,
    len: u32,
}

impl<'a> Database<'a> {
    /// Of the two heads of the file, the newer one that is whole counts.
    fn open(file: &'a File, len: u64) -> Result<Self, SnapshotError> {
        let page_size = u64::from(read_u32(file, PAGE_HEADER + 8)?);
        if !page_size.is_power_of_two() || !(1 << 9..=1 << 16).contains(&page_size) {
            return Err(SnapshotError::Format("its page size is not one"));
        }
        let mut best: Option<(u64, u64)> = None;
        for at in [PAGE_HEADER, page_size + PAGE_HEADER] {
            let mut meta = [0; 64];
            if file.read_exact_at(&mut meta, at).is_err() {
                continue;
            }
            let word = |from: usize| u64_at(&meta, from);
            let whole = u32_at(&meta, 0) == MAGIC
                && u32_at(&meta, 4) == VERSION
                && fnv64a(&meta[..56]) == word(56);
            if whole && best.is_none_or(|(txid, _)| word(48) > txid) {
                best = Some((word(48), word(16)));
            }
        }
        let (_, root) = best.ok_or(SnapshotError::Format("it has no whole head"))?;
        let mut database = Self { file, len, page_size, root: Tree { at: 0 } };
        database.root = database.page(root)?;
        Ok(database)
    }

    fn page(&self, number: u64) -> Result<Tree, SnapshotError> {
        let at = number.checked_mul(self.page_size).filter(|at| at + PAGE_HEADER <= self.len);
        Ok(Tree { at: at.ok_or(SnapshotError::Format("a page lies beyond its end"))? })
    }

    /// The bucket called `name` in the tree of buckets.
    fn bucket(&self, tree: Tree, name: &[u8]) -> Result<Option<Tree>, SnapshotError> {
        let Some(found) = self.find(tree, name)? else { return Ok(None) };
        let root = read_u64(self.file, found.at)?;
        // A small bucket has its only page behind its own head.
        if root == 0 { Ok(Some(Tree { at: found.at + 16 })) } else { self.page(root).map(Some) }
    }

    /// The value of `key`.
    fn find(&self, tree: Tree, key: &[u8]) -> Result<Option<Found>, SnapshotError> {
        let mut page = tree;
        for _ in 0..DEPTH_MAX {
            let (flags, count) = self.head(page)?;
            // The last branch whose first key is not greater; a leaf must have the key itself.
            let mut child = None;
            for index in 0..u64::from(count) {
                let element = page.at + PAGE_HEADER + index * ELEMENT;
                let mut bytes = [0; 16];
                self.file.read_exact_at(&mut bytes, element)?;
                let leaf = flags & LEAF != 0;
                let (pos, len) = if leaf {
                    (u32_at(&bytes, 4), u32_at(&bytes, 8))
                } else {
                    (u32_at(&bytes, 0), u32_at(&bytes, 4))
                };
                let at = element + u64::from(pos);
                let mut own = vec![0; self.within(at, len)?];
                self.file.read_exact_at(&mut own, at)?;
                if leaf && own == key {
                    let (at, len) = (at + u64::from(len), u32_at(&bytes, 12));
                    self.within(at, len)?;
                    return Ok(Some(Found { at, len }));
                }
                if !leaf && (child.is_none() || own.as_slice() <= key) {
                    child = Some(u64_at(&bytes, 8));
                }
            }
            match (flags & BRANCH != 0, child) {
                (true, Some(child)) => page = self.page(child)?,
                _ => return Ok(None),
            }
        }
        Err(SnapshotError::Format("its tree has no end"))
    }

    /// Empties a bucket of one page; larger ones hold no members. Gives how many entries it had.
    fn empty(&self, bucket: Tree) -> Result<u16, SnapshotError> {
        let (flags, count) = self.head(bucket)?;
        if flags & LEAF == 0 {
            return Ok(0);
        }
        self.file.write_all_at(&[0; 2], bucket.at + 10)?;
        Ok(count)
    }

    fn head(&self, page: Tree) -> Result<(u16, u16), SnapshotError> {
        let mut head = [0; 4];
        self.file.read_exact_at(&mut head, page.at + 8)?;
        Ok((u16::from_le_bytes([head[0], head[1]]), u16::from_le_bytes([head[2], head[3]])))
    }

    fn within(&self, at: u64, len: u32) -> Result<usize, SnapshotError> {
        let inside = at.checked_add(u64::from(len)).is_some_and(|end| end <= self.len);
        let len = usize::try_from(len).ok().filter(|_| inside);
        len.ok_or(SnapshotError::Format("an entry lies beyond its end"))
    }
}

fn read_u32(file: &File, at: u64) -> io::Result<u32> {
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, at)?;
    Ok(u32::from_le_bytes(bytes))
}

fn read_u64(file: &File, at: u64) -> io::Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, at)?;
    Ok(u64::from_le_bytes(bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The check sum of a head.
///
/// Source: Fowler, Noll, Vo, FNV-1a with 64 bits.
fn fnv64a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
