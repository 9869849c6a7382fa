//! One mapping of the address space, parsed from a line of `/proc/PID/maps`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    /// First address.
    pub(super) start: u64,
    /// The address behind the last.
    pub(super) end: u64,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// What is written to it is seen in its file, and by others that map it.
    pub(super) shared: bool,
    /// Its file; `None` for private anonymous memory, and for the kernel's own mappings (vdso).
    pub(super) file: Option<MappedFile>,
}

/// A file as the kernel sees it: on a disk, a memfd, shared memory, huge pages, a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MappedFile {
    /// The offset of the mapping in it.
    pub(super) offset: u64,
    pub(super) inode: u64,
    pub(super) device: (u32, u32),
    /// As the kernel reports it; empty if it does not.
    pub(super) name: PathBuf,
}

impl MappedFile {
    /// Its path, if it has one: the kernel marks deleted files.
    pub(super) fn path(&self) -> Option<&Path> {
        let name = self.name.as_os_str().as_encoded_bytes();
        (self.may_have_an_end() && !name.ends_with(b" (deleted)")).then_some(&self.name)
    }

    /// Whether access ends with the file's size. The kernel's own files (`/proc`, `/sys`, `anon_inode:..`,
    /// `socket:..`) have other rules; devices are recognised when the file is opened.
    pub(super) fn may_have_an_end(&self) -> bool {
        self.is_named(&["/"]) && !self.is_named(&["/proc/", "/sys/", "/dmabuf:"])
    }

    /// Whether a driver has made the mapping, judged by its name: not a file of a file system, or a device. Shared
    /// memory is listed under `/dev` as well.
    pub(super) fn is_device(&self) -> bool {
        let on_dev =
            self.is_named(&["/dev/"]) && !self.is_named(&["/dev/zero", "/dev/shm/", "/dev/hugepages/"]);
        on_dev || !self.may_have_an_end()
    }

    fn is_named(&self, prefixes: &[&str]) -> bool {
        let name = self.name.as_os_str().as_encoded_bytes();
        prefixes.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
    }
}

impl Mapping {
    /// From a line of `/proc/PID/maps`, without its newline; `None` if it is none.
    ///
    /// `7f00-7f10 rw-s 00001000 00:01 172137                     /memfd:x (deleted)`
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let mut rest = line;
        let range = str::from_utf8(field(&mut rest)?).ok()?;
        let rights = field(&mut rest)?;
        let offset = hexadecimal(str::from_utf8(field(&mut rest)?).ok()?)?;
        let device = str::from_utf8(field(&mut rest)?).ok()?;
        let inode: u64 = str::from_utf8(field(&mut rest)?).ok()?.parse().ok()?;
        let (start, end) = range.split_once('-')?;
        let (start, end) = (hexadecimal(start)?, hexadecimal(end)?);
        let (major, minor) = device.split_once(':')?;
        let device = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
        let [read, write, _, sharing] = *rights else { return None };
        (start < end).then(|| Self {
            start,
            end,
            readable: read == b'r',
            writable: write == b'w',
            shared: sharing == b's',
            file: (inode != 0 || device != (0, 0)).then(|| MappedFile {
                offset,
                inode,
                device,
                name: PathBuf::from(OsString::from_vec(unescape(rest.trim_ascii_start()))),
            }),
        })
    }

    /// The address behind the last of a mapping's line, cheaply: most lines are only passed over.
    pub(super) fn end_of_line(line: &[u8]) -> Option<u64> {
        let range = line.split(|byte| *byte == b' ').next()?;
        hexadecimal(str::from_utf8(range).ok()?.split_once('-')?.1)
    }
}

/// Removes and returns the next word.
fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let text = rest.trim_ascii_start();
    let end = text.iter().position(|byte| *byte == b' ').unwrap_or(text.len());
    let (word, behind) = text.split_at_checked(end)?;
    *rest = behind;
    (!word.is_empty()).then_some(word)
}

/// Digits only, where the standard library would take a sign.
fn hexadecimal(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u64::from_str_radix(text, 16).ok())?
}

/// The kernel escapes a newline of a name as `\012`, and nothing else.
fn unescape(name: &[u8]) -> Vec<u8> {
    const NEWLINE: &[u8] = b"\\012";
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, behind)) = rest.split_first() {
        match rest.strip_prefix(NEWLINE) {
            Some(behind) => {
                plain.push(b'\n');
                rest = behind;
            }
            None => {
                plain.push(*first);
                rest = behind;
            }
        }
    }
    plain
}

#[cfg(test)]
#[cfg(not(flagcx_p2p_loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_as_kernels_write_them() {
        let file =
            Mapping::parse(b"7ffb9924c000-7ffb99250000 rw-s 00001000 00:01 172137    /memfd:x (deleted)");
        let file = file.unwrap();
        assert_eq!((file.start, file.end), (0x7ffb_9924_c000, 0x7ffb_9925_0000));
        assert!(file.readable && file.writable && file.shared);
        let memfd = file.file.unwrap();
        assert_eq!((memfd.offset, memfd.inode, memfd.device), (0x1000, 172_137, (0, 1)));
        assert_eq!(memfd.name, Path::new("/memfd:x (deleted)"));
        assert!(memfd.path().is_none() && memfd.may_have_an_end());

        let heap = Mapping::parse(b"55d0a000-55d2b000 rw-p 00000000 00:00 0          [heap]").unwrap();
        assert!(heap.file.is_none() && !heap.shared);
        let nameless = Mapping::parse(b"7f00-8f00 ---p 00000000 00:00 0 ").unwrap();
        assert!(!nameless.readable && !nameless.writable && nameless.file.is_none());
        let code = Mapping::parse(b"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]");
        assert!(!code.unwrap().readable);
    }

    #[test]
    fn which_names_are_paths() {
        let file = |name: &str| MappedFile { offset: 0, inode: 1, device: (8, 1), name: PathBuf::from(name) };
        assert_eq!(file("/a b/c").path(), Some(Path::new("/a b/c")));
        for kernels in ["anon_inode:[io_uring]", "socket:[17]", "/proc/fb0", "/sys/devices/x/resource0", ""] {
            assert!(!file(kernels).may_have_an_end() && file(kernels).path().is_none(), "{kernels}");
        }
        assert!(file("/system/x").may_have_an_end());
        for driver in ["/dev/nvidia-uvm", "/dev/dri/renderD128", "/dmabuf:", "anon_inode:[vfio]", "/sys/x"] {
            assert!(file(driver).is_device(), "{driver}");
        }
        for memory in
            ["/dev/zero (deleted)", "/dev/shm/x", "/memfd:x (deleted)", "/SYSV00000000 (deleted)", "/devil"]
        {
            assert!(!file(memory).is_device(), "{memory}");
        }
    }

    #[test]
    fn what_is_no_line_is_none() {
        let lines =
            ["", "7f00", "7f00-8f00", "7f00-8f00 rw-p", "7f00-8f00 rw-p 0 00:00", "x-y rw-p 0 00:00 0"];
        let more = ["8f00-7f00 rw-p 0 00:00 0", "7f00-8f00 rw 0 00:00 0", "+7f00-8f00 rw-p 0 00:00 0"];
        for line in lines.iter().chain(&more) {
            assert_eq!(Mapping::parse(line.as_bytes()), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn a_line_says_what_it_was_made_of(
            start in 0_u64..u64::MAX - 1, length in 1_u64..1 << 40, read: bool, write: bool, offset: u64,
            device in (0_u32..4096, 0_u32..1 << 20), inode in 1_u64..u64::MAX, name in "/[ -~\n]{0,40}",
        ) {
            let end = start.saturating_add(length);
            let rights = format!("{}{}-s", if read { 'r' } else { '-' }, if write { 'w' } else { '-' });
            let escaped = name.replace('\n', "\\012");
            let line = format!(
                "{start:08x}-{end:08x} {rights} {offset:08x} {:02x}:{:02x} {inode} {:>20}{escaped}",
                device.0, device.1, ""
            );
            // The kernel does not escape a backslash of the name itself: such names are ambiguous.
            prop_assume!(!name.contains("\\012"));
            let expected = Mapping {
                start, end, readable: read, writable: write, shared: true,
                file: Some(MappedFile { offset, inode, device, name: PathBuf::from(&name) }),
            };
            prop_assert_eq!(Mapping::end_of_line(line.as_bytes()), Some(end));
            prop_assert_eq!(Mapping::parse(line.as_bytes()), Some(expected));
        }

        #[test]
        fn any_bytes_are_taken(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (Mapping::parse(&line), Mapping::end_of_line(&line));
        }
    }
}
