//! Sources of mappings: an ioctl for each, or the text of all of them.
#![allow(unsafe_code, reason = "an ioctl that takes a struct with an address")]

use std::ffi::{OsStr, c_ulong};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::mapping::{MappedFile, Mapping};

/// The mappings of the calling process. Not `/proc/self`, which is empty once the main thread has ended. Opened for
/// each use, because a descriptor inherited by a fork shows the parent's.
pub(super) const MAPS: &str = "/proc/thread-self/maps";

/// The kernel has no such ioctl. Set by the first registration, read by later ones; Relaxed, because it only saves a
/// call.
static NO_QUERY: AtomicBool = AtomicBool::new(false);

/// Returns the mapping that covers an address, if one does. To be called with ascending addresses.
pub(super) type Covering<'a> = &'a mut dyn FnMut(u64) -> io::Result<Option<Mapping>>;

/// Calls `look` with each source until it returns a result. `Ok(None)`: no source is available.
pub(super) fn with_mappings<T, E>(
    look: &dyn Fn(Covering<'_>) -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let Ok(maps) = File::open(MAPS) else { return Ok(None) };
    if !NO_QUERY.load(Ordering::Relaxed)
        && let Some(answer) = look(&mut |address| query(&maps, address)).transpose()
    {
        return answer.map(Some);
    }
    in_text(maps, look)
}

/// [`with_mappings`] on a kernel without the ioctl.
pub(super) fn in_text<T, E>(
    maps: File,
    look: &dyn Fn(Covering<'_>) -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let mut text = Text::new(maps);
    look(&mut |address| text.covering(address))
}

/// Queries the mapping that covers `address`. Fails on a kernel without the ioctl, or where a filter denies it.
fn query(maps: &File, address: u64) -> io::Result<Option<Mapping>> {
    let mut name = [0_u8; libc::PATH_MAX as usize];
    let mut query = Query::new(address, &mut name);
    // SAFETY: the kernel reads and writes the struct, which contains its size, and writes at most `name_size` bytes at
    // `name_address`; both outlive the call.
    let answer = unsafe { libc::ioctl(maps.as_raw_fd(), PROCMAP_QUERY as _, &raw mut query) };
    if answer != 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(None),
            errno => {
                NO_QUERY.fetch_or(errno == Some(libc::ENOTTY), Ordering::Relaxed);
                Err(error)
            }
        };
    }
    let text = name.get(..(query.name_size as usize).saturating_sub(1)).unwrap_or_default();
    let device = (query.device_major, query.device_minor);
    Ok(Some(Mapping {
        start: query.start,
        end: query.end,
        readable: query.flags & READABLE != 0,
        writable: query.flags & WRITABLE != 0,
        shared: query.flags & SHARED != 0,
        file: (query.inode != 0 || device != (0, 0)).then(|| MappedFile {
            offset: query.offset,
            inode: query.inode,
            device,
            name: PathBuf::from(OsStr::from_bytes(text)),
        }),
    }))
}

/// The text of all mappings, read as far as needed.
struct Text {
    lines: BufReader<File>,
    line: Vec<u8>,
}

impl Text {
    fn new(maps: File) -> Self {
        Self { lines: BufReader::with_capacity(16 * 1024, maps), line: Vec::with_capacity(256) }
    }

    fn covering(&mut self, address: u64) -> io::Result<Option<Mapping>> {
        // The last line is kept: it may cover this address too.
        while Mapping::end_of_line(&self.line).is_none_or(|end| end <= address) {
            self.line.clear();
            if self.lines.read_until(b'\n', &mut self.line)? == 0 {
                return Ok(None);
            }
        }
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let mapping = Mapping::parse(line).ok_or(io::ErrorKind::InvalidData)?;
        Ok((mapping.start <= address).then_some(mapping))
    }
}

/// `struct procmap_query` of `linux/fs.h`.
#[repr(C)]
struct Query {
    size: u64,
    /// 0: the mapping that covers the address, whatever its rights.
    query_flags: u64,
    query_address: u64,
    start: u64,
    end: u64,
    flags: u64,
    page_size: u64,
    offset: u64,
    inode: u64,
    device_major: u32,
    device_minor: u32,
    /// In: bytes at `name_address`; out: bytes of the name with its NUL, 0 for none.
    name_size: u32,
    build_id_size: u32,
    name_address: u64,
    build_id_address: u64,
}

impl Query {
    fn new(address: u64, name: &mut [u8]) -> Self {
        Self {
            size: size_of::<Self>() as u64,
            query_flags: 0,
            query_address: address,
            start: 0,
            end: 0,
            flags: 0,
            page_size: 0,
            offset: 0,
            inode: 0,
            device_major: 0,
            device_minor: 0,
            name_size: name.len() as u32,
            build_id_size: 0,
            name_address: name.as_mut_ptr().expose_provenance() as u64,
            build_id_address: 0,
        }
    }
}

/// `_IOWR('f', 17, struct procmap_query)`, as most architectures compose it; another one returns ENOTTY.
const PROCMAP_QUERY: c_ulong = 0xC000_0000 | ((size_of::<Query>() as c_ulong) << 16) | 0x6611;
const READABLE: u64 = 1;
const WRITABLE: u64 = 2;
const SHARED: u64 = 8;

#[cfg(test)]
#[cfg(not(flagcx_p2p_loom))]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_the_kernels() {
        assert_eq!(PROCMAP_QUERY, 0xC068_6611);
    }

    /// Both sources, over the start of every mapping of the process.
    #[test]
    fn the_ioctl_and_the_text_agree() {
        let maps = || File::open(MAPS).unwrap();
        if let Err(error) = query(&maps(), 0) {
            println!("not run: this kernel cannot query one mapping: {error}");
            return;
        }
        let code = the_number_is_the_kernels as fn() as usize as u64;
        let place = Box::new(0_u8);
        for address in [code, (&raw const *place).addr() as u64, (&raw const code).addr() as u64, 1, u64::MAX]
        {
            let (asked, read) =
                (query(&maps(), address).unwrap(), Text::new(maps()).covering(address).unwrap());
            // Other tests map memory meanwhile, which may be merged with a neighbour.
            let what = |mapping: &Mapping| {
                (
                    mapping.readable,
                    mapping.writable,
                    mapping.shared,
                    mapping.file.clone().map(|file| file.name),
                )
            };
            assert_eq!(asked.as_ref().map(what), read.as_ref().map(what), "{address:#x}");
        }
    }

    #[test]
    fn text_is_read_once_and_in_order() {
        let mut file = tempfile::tempfile().unwrap();
        let lines = "1000-3000 rw-p 0 00:00 0\n3000-4000 r--p 0 00:00 0\n8000-9000 rw-p 0 00:00 0\n";
        io::Write::write_all(&mut file, lines.as_bytes()).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let mut text = Text::new(file);
        let mut start = |address| text.covering(address).unwrap().map(|mapping| mapping.start);
        assert_eq!(start(0x500), None);
        assert_eq!(start(0x1000), Some(0x1000));
        assert_eq!(start(0x2fff), Some(0x1000));
        assert_eq!(start(0x3000), Some(0x3000));
        assert_eq!(start(0x4000), None);
        assert_eq!(start(0x8fff), Some(0x8000));
        assert_eq!(start(0x9000), None);
    }
}
