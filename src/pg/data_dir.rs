//! The door to what is below a node's folders. PostgreSQL's user in the container
//! may rearrange it at any moment: whoever works there becomes that user, follows
//! no link, crosses no mount, and waits for nothing but a disk.

use std::ffi::OsStr;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat, chmodat, fstat,
    fstatvfs, fsync, openat, openat2, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// A folder of PostgreSQL's holds fewer names than this.
const MAX_NAMES: usize = 1_000_000;

/// A tree is gone through no deeper than this: PostgreSQL's own is five deep.
const MAX_DEPTH: usize = 32;

/// Longest for removing a tree, which somebody may be filling.
const MAX_REMOVE: Duration = Duration::from_secs(600);

/// Longest for adding up the sizes in a tree.
const MAX_ADD_UP: Duration = Duration::from_secs(120);

/// Tries to find a name that is free.
const NAME_TRIES: usize = 8;

/// A folder above everything that a container may write: nobody but root can put
/// another in its place.
#[derive(Debug)]
pub struct DataDir {
    folder: OwnedFd,
    owner: (Uid, Gid),
}

impl DataDir {
    /// Opens a node's folder.
    ///
    /// # Errors
    ///
    /// Fails if it is no folder; a link is none.
    pub fn open(path: &Path) -> io::Result<DataDir> {
        let folder = open_folder(path)?;
        let about = fstat(&folder)?;
        Ok(DataDir {
            folder,
            owner: (Uid::from_raw(about.st_uid), Gid::from_raw(about.st_gid)),
        })
    }

    /// Returns the ids of its owner and group.
    pub fn owner(&self) -> (u32, u32) {
        let (uid, gid) = self.owner;
        (uid.as_raw(), gid.as_raw())
    }

    /// Does something below the folder as its owner, on a thread of its own if that is
    /// somebody else: what goes wrong there reaches nothing that the owner could not reach anyway.
    ///
    /// # Errors
    ///
    /// Fails as the work does, or if the thread cannot become the owner.
    pub fn enter<T: Send>(
        &self,
        work: impl FnOnce(&Folder) -> io::Result<T> + Send,
    ) -> io::Result<T> {
        let inside = || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = openat(&self.folder, ".", flags, Mode::empty())?;
            work(&Folder {
                fd,
                owner: self.owner.0,
            })
        };
        if geteuid() == self.owner.0 {
            // There is nobody to become.
            return inside();
        }
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("data".to_owned());
            let thread = thread.spawn_scoped(scope, || {
                self.become_owner()?;
                inside()
            })?;
            // A panic has ended the process already.
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("panicked")))
        })
    }

    /// Changes this thread alone, and for good.
    fn become_owner(&self) -> io::Result<()> {
        let (uid, gid) = self.owner;
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        Ok(())
    }
}

/// A folder below a node's, open.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    owner: Uid,
}

/// Which file or folder something is, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    device: (u32, u32),
    inode: u64,
}

impl Place {
    /// Makes a place of what the kernel tells.
    pub fn new(device: (u32, u32), inode: u64) -> Place {
        Place { device, inode }
    }

    fn of(about: &Stat) -> Place {
        let device = about.st_dev;
        Place {
            device: (rustix::fs::major(device), rustix::fs::minor(device)),
            inode: about.st_ino,
        }
    }
}

impl Folder {
    /// Opens a folder in this one; nothing if there is none.
    ///
    /// # Errors
    ///
    /// Fails if there is something else, or it belongs to somebody else.
    pub fn folder(&self, name: &str) -> io::Result<Option<Folder>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = match self.open(name, flags, Mode::empty()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        self.is_owners(&fstat(&fd)?)?;
        let owner = self.owner;
        Ok(Some(Folder { fd, owner }))
    }

    /// Opens a file to be read; nothing if there is none.
    ///
    /// # Errors
    ///
    /// Fails if it is no regular file of the owner's.
    pub fn file(&self, name: &str) -> io::Result<Option<File>> {
        let fd = match self.open(name, OFlags::RDONLY, Mode::empty()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let about = fstat(&fd)?;
        if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it is no regular file"));
        }
        self.is_owners(&about)?;
        Ok(Some(File::from(fd)))
    }

    /// Reads the beginning of a file, up to `at_most` bytes; nothing if there is
    /// none.
    ///
    /// # Errors
    ///
    /// As [`Folder::file`].
    pub fn read(&self, name: &str, at_most: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.file(name)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(at_most).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Says whether a regular file has this name.
    ///
    /// # Errors
    ///
    /// Fails if that cannot be seen.
    pub fn has_file(&self, name: &str) -> io::Result<bool> {
        let about = self.about(name)?;
        Ok(about.is_some_and(|it| FileType::from_raw_mode(it.st_mode) == FileType::RegularFile))
    }

    /// Returns the size of a regular file; nothing if there is none of this name.
    pub fn size_of(&self, name: &str) -> Option<u64> {
        let about = self.about(name).ok()??;
        let regular = FileType::from_raw_mode(about.st_mode) == FileType::RegularFile;
        regular.then(|| u64::try_from(about.st_size).ok())?
    }

    /// Says whether anything has this name.
    ///
    /// # Errors
    ///
    /// Fails if that cannot be seen.
    pub fn has(&self, name: &str) -> io::Result<bool> {
        Ok(self.about(name)?.is_some())
    }

    /// Returns what `pick` makes of the names in this folder.
    ///
    /// # Errors
    ///
    /// Fails if they cannot be read, or are too many.
    pub fn names<T>(&self, mut pick: impl FnMut(&str) -> Option<T>) -> io::Result<Vec<T>> {
        let mut picked = Vec::new();
        let mut seen = 0;
        for entry in Dir::read_from(&self.fd)? {
            seen += 1;
            if seen > MAX_NAMES {
                return Err(io::Error::other("it holds too many files"));
            }
            let entry = entry?;
            picked.extend(entry.file_name().to_str().ok().and_then(&mut pick));
        }
        Ok(picked)
    }

    /// Says whether nothing is in it.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(entries(&self.fd, 1)?.is_empty())
    }

    /// Makes an empty file of the owner's here for good, whatever had its name,
    /// and sees that it is there.
    ///
    /// # Errors
    ///
    /// Fails if that is not certain.
    pub fn put_empty(&self, name: &str) -> io::Result<()> {
        if self.has_file(name)? {
            // A full disk takes nothing new, and needs nothing.
            if let Ok(Some(file)) = self.file(name) {
                file.sync_all()?;
                return self.sync();
            }
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let (beside, fd) = self.fresh(name, |beside| {
            self.open(beside, flags, Mode::from_raw_mode(0o600))
        })?;
        let mut file = File::from(fd);
        let made = file.flush().and_then(|()| file.sync_all());
        if let Err(error) = made.and_then(|()| self.replace(&beside, name)) {
            let _ = unlinkat(&self.fd, beside.as_str(), AtFlags::empty());
            return Err(error);
        }
        self.sync()?;
        let own = Place::of(&fstat(&file)?);
        match self.about(name)? {
            Some(there) if Place::of(&there) == own => Ok(()),
            _ => Err(io::Error::other(format!("{name} was taken away again"))),
        }
    }

    /// Gives `from` the name `to`, whatever has it.
    fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        let renamed = renameat_with(&self.fd, from, &self.fd, to, RenameFlags::empty());
        match renamed {
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                renameat_with(&self.fd, from, &self.fd, to, RenameFlags::EXCHANGE)?;
                self.leave(from);
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Removes a folder if nothing is in it; a full one is only in the way of who
    /// tidies up.
    fn leave(&self, name: &str) {
        if let Err(error) = unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            log::warn!("left_behind name={name} cause={:?}", error.to_string());
        }
    }

    /// Removes what has a name, or moves it out of the way: to whom it belongs or how
    /// deep it is does not matter.
    ///
    /// # Errors
    ///
    /// Fails if it still has the name.
    pub fn free(&self, name: &str) -> io::Result<()> {
        self.remove(name).or_else(|error| {
            log::warn!("left_behind name={name} cause={:?}", error.to_string());
            self.take_away(name)
        })
    }

    /// Removes an empty folder, if it is there.
    ///
    /// # Errors
    ///
    /// Fails if something is in it, or it is none.
    pub fn remove_empty(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a name away for good and at once, whatever has it; what is there no
    /// more is no error.
    ///
    /// # Errors
    ///
    /// Fails if it still has the name.
    pub fn take_away(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => {
                let (aside, ()) = self.fresh(name, |aside| self.rename(name, aside))?;
                self.leave(&aside);
            }
            Err(error) => return Err(error.into()),
        }
        self.sync()
    }

    /// Gives something another name, which must be free, for good.
    ///
    /// # Errors
    ///
    /// Fails if it is not there, or the name is taken.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        renameat_with(&self.fd, from, &self.fd, to, RenameFlags::NOREPLACE)?;
        self.sync()
    }

    /// Takes a name away for good, whatever has it; what is there no more is no
    /// error.
    ///
    /// # Errors
    ///
    /// Fails if something of it stays.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let limit = Instant::now() + MAX_REMOVE;
        let mut trees = vec![name.to_owned()];
        while let Some(tree) = trees.pop() {
            match unlinkat(&self.fd, tree.as_str(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
            loop {
                let inside = self.open_anyhow(&self.fd, tree.as_bytes())?;
                self.clear(&inside, MAX_DEPTH, &mut trees, limit)?;
                match unlinkat(&self.fd, tree.as_str(), AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => break,
                    // Somebody puts more there.
                    Err(Errno::NOTEMPTY) => in_time(limit)?,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        self.sync()
    }

    /// Removes what is in a folder. What lies too deep is brought up here, and
    /// listed.
    fn clear(
        &self,
        folder: &OwnedFd,
        depth: usize,
        trees: &mut Vec<String>,
        limit: Instant,
    ) -> io::Result<()> {
        const AT_ONCE: usize = 10_000;
        loop {
            let names = entries(folder, AT_ONCE)?;
            if names.is_empty() {
                return Ok(());
            }
            for name in names {
                in_time(limit)?;
                let name = name.as_slice();
                match unlinkat(folder, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    Err(Errno::ISDIR | Errno::PERM) => {}
                    Err(error) => return Err(error.into()),
                }
                if depth == 0 {
                    let (up, ()) = self.fresh("deep", |up| {
                        let flags = RenameFlags::NOREPLACE;
                        Ok(renameat_with(folder, name, &self.fd, up, flags)?)
                    })?;
                    trees.push(up);
                    continue;
                }
                let inside = self.open_anyhow(folder, name)?;
                self.clear(&inside, depth - 1, trees, limit)?;
                match unlinkat(folder, name, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    /// Opens a folder that is to be removed, whatever its mode.
    fn open_anyhow(&self, folder: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let open = || open_beneath(folder, name, flags, Mode::empty());
        match open() {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                chmodat(folder, name, Mode::RWXU, AtFlags::empty())?;
                open()
            }
            opened => opened,
        }
    }

    /// Returns the bytes that the files in this folder take, as far as they can be
    /// seen.
    ///
    /// # Errors
    ///
    /// Fails if that takes too long.
    pub fn used_bytes(&self) -> io::Result<u64> {
        add_up(&self.fd, MAX_DEPTH, Instant::now() + MAX_ADD_UP)
    }

    /// Returns the bytes that are free where it is.
    ///
    /// # Errors
    ///
    /// Fails if the file system cannot be asked.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let about = fstatvfs(&self.fd)?;
        Ok(about.f_bavail.saturating_mul(about.f_frsize))
    }

    /// Makes what was created, renamed or removed here survive a power failure.
    ///
    /// # Errors
    ///
    /// Fails if the file system does not confirm it.
    pub fn sync(&self) -> io::Result<()> {
        Ok(fsync(&self.fd)?)
    }

    /// Returns which folder this is.
    ///
    /// # Errors
    ///
    /// Fails if the kernel does not tell.
    pub fn place(&self) -> io::Result<Place> {
        Ok(Place::of(&fstat(&self.fd)?))
    }

    fn open(&self, name: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        open_beneath(&self.fd, name.as_bytes(), flags, mode)
    }

    fn about(&self, name: &str) -> io::Result<Option<Stat>> {
        match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(about) => Ok(Some(about)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn is_owners(&self, about: &Stat) -> io::Result<()> {
        match about.st_uid == self.owner.as_raw() {
            true => Ok(()),
            false => Err(io::Error::other(format!(
                "it belongs to the user id {}, not {}",
                about.st_uid,
                self.owner.as_raw()
            ))),
        }
    }

    /// Does something with a name that nobody has.
    fn fresh<T>(
        &self,
        stem: &str,
        mut make: impl FnMut(&str) -> io::Result<T>,
    ) -> io::Result<(String, T)> {
        let mut tried = 0;
        loop {
            let name = format!("{stem}.{:016x}", RandomState::new().hash_one(tried));
            tried += 1;
            match make(&name) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && tried < NAME_TRIES => {}
                made => return Ok((name, made?)),
            }
        }
    }
}

/// How a name below a folder is followed: within it, on its own file system, by no
/// link.
pub const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Opens a folder whose own folder is root's, as a place to begin at.
///
/// # Errors
///
/// Fails if it is no folder; a link is none.
pub fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(no_folder)
}

/// Opens something below a folder, on its own file system and by no link; never
/// waits for who is at a pipe's other end.
fn open_beneath(folder: &OwnedFd, name: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    openat2(folder, OsStr::from_bytes(name), flags, mode, BENEATH).map_err(no_folder)
}

/// Says what is in the way where the kernel's words would not.
fn no_folder(error: Errno) -> io::Error {
    match error {
        Errno::LOOP => io::Error::other("it is a link, which is not followed"),
        Errno::NOTDIR => io::Error::other("it is no folder"),
        Errno::XDEV => io::Error::other("it is a mount or leads out of the folder"),
        other => other.into(),
    }
}

fn in_time(limit: Instant) -> io::Result<()> {
    match Instant::now() < limit {
        true => Ok(()),
        false => Err(io::Error::new(ErrorKind::TimedOut, "it takes too long")),
    }
}

/// Lists up to `at_most` of the names in a folder.
fn entries(folder: &OwnedFd, at_most: usize) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_owned();
        if name != b"." && name != b".." {
            names.push(name);
        }
        if names.len() == at_most {
            break;
        }
    }
    Ok(names)
}

fn add_up(folder: &OwnedFd, depth: usize, limit: Instant) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in Dir::read_from(folder)? {
        in_time(limit)?;
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        // What vanishes meanwhile does not count.
        let Ok(about) = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        // In units of 512 bytes, whatever the file system's own.
        bytes += u64::try_from(about.st_blocks).unwrap_or(0) * 512;
        if FileType::from_raw_mode(about.st_mode) == FileType::Directory && depth > 0 {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let inside = open_beneath(folder, name.to_bytes(), flags, Mode::empty());
            bytes += inside.map_or(Ok(0), |inside| add_up(&inside, depth - 1, limit))?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
