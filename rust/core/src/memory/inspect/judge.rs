//! The properties of a range, from its mappings. Pure: mappings and file sizes come from the caller.

use super::mapping::{MappedFile, Mapping};
use super::source::Covering;
use super::{CpuAccess, Inaccessible, InaccessibleReason, Inspection};

/// Inspects `address..address + length`. `covering` returns the mapping that holds an address, if one does, and is
/// called with ascending addresses. `size` returns the size of a mapping's file; `None` if it does not matter, or is
/// not known. `page`: bytes of a page.
///
/// `Ok(None)`: `covering` failed.
pub(super) fn judge(
    address: u64,
    length: u64,
    page: u64,
    covering: Covering<'_>,
    size: impl Fn(&Mapping, &MappedFile) -> Option<u64>,
) -> Result<Option<Inspection>, Inaccessible> {
    let end = address.saturating_add(length);
    let refuse = |at: u64, reason| Err(Inaccessible { address, length, offset: at - address, reason });
    let mut inspection = Inspection { access: CpuAccess::ReadWrite, anonymous: true, device: false };
    let mut at = address;
    while at < end {
        let Ok(found) = covering(at) else { return Ok(None) };
        let Some(mapping) = found.filter(|mapping| mapping.start <= at && at < mapping.end) else {
            return refuse(at, InaccessibleReason::NotMapped);
        };
        if !mapping.readable {
            return refuse(at, InaccessibleReason::NotReadable);
        }
        if let Some(file) = &mapping.file
            && let Some(file_size) = size(&mapping, file)
        {
            let accessible = accessible_end(&mapping, file, file_size, page);
            if accessible < mapping.end.min(end) {
                return refuse(at.max(accessible), InaccessibleReason::BeyondEndOfFile { file_size });
            }
        }
        if !mapping.writable {
            inspection.access = CpuAccess::ReadOnly;
        }
        inspection.anonymous &= mapping.file.is_none();
        inspection.device |= mapping.file.as_ref().is_some_and(MappedFile::is_device);
        at = mapping.end;
    }
    Ok(Some(inspection))
}

/// The end of the last page of the mapping that the file has bytes for: all of that page can be accessed.
fn accessible_end(mapping: &Mapping, file: &MappedFile, file_size: u64, page: u64) -> u64 {
    let whole_pages = file_size.checked_next_multiple_of(page).unwrap_or(u64::MAX);
    mapping.start.saturating_add(whole_pages.saturating_sub(file.offset))
}

#[cfg(test)]
#[cfg(not(flagcx_p2p_loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io;
    use std::path::PathBuf;

    /// Of kernels for ARM64, of which x86-64 has the first.
    const PAGES: [u64; 3] = [4 << 10, 16 << 10, 64 << 10];

    /// Mappings one behind the other from page 1 on, of so many pages: (kind, pages).
    #[derive(Clone, Copy, Debug)]
    enum Kind {
        Hole,
        Anonymous,
        ReadOnly,
        NoAccess,
        /// With so many bytes in the file behind the offset of the mapping: whole pages, and bytes that are fewer than a page.
        File(u64, u64),
    }

    fn kinds() -> impl Strategy<Value = Vec<(Kind, u64)>> {
        let kind = prop_oneof![
            1 => Just(Kind::Hole),
            8 => Just(Kind::Anonymous),
            4 => Just(Kind::ReadOnly),
            1 => Just(Kind::NoAccess),
            6 => (0_u64..6, prop_oneof![Just(0_u64), Just(1), 1..4096_u64]).prop_map(|(pages, rest)| Kind::File(pages, rest)),
        ];
        proptest::collection::vec((kind, 1_u64..5), 1..8)
    }

    /// Where each mapping begins.
    fn laid_out(kinds: &[(Kind, u64)], page: u64) -> Vec<(u64, u64, Kind)> {
        let mut at = page;
        let place = |(kind, pages): &(Kind, u64)| {
            let start = at;
            at += pages * page;
            (start, at, *kind)
        };
        kinds.iter().map(place).collect()
    }

    fn look(layout: &[(u64, u64, Kind)], address: u64, page: u64) -> Option<Mapping> {
        let (start, end, kind) = *layout.iter().find(|(start, end, _)| (*start..*end).contains(&address))?;
        let file = MappedFile { offset: 7 * page, inode: 1, device: (0, 1), name: PathBuf::from("/f") };
        let (readable, writable, file) = match kind {
            Kind::Hole => return None,
            Kind::Anonymous => (true, true, None),
            Kind::ReadOnly => (true, false, None),
            Kind::NoAccess => (false, false, None),
            Kind::File(..) => (true, true, Some(file)),
        };
        Some(Mapping { start, end, readable, writable, shared: false, file })
    }

    fn size_in(layout: &[(u64, u64, Kind)], mapping: &Mapping, page: u64) -> Option<u64> {
        match layout.iter().find(|(start, ..)| *start == mapping.start)?.2 {
            Kind::File(pages, rest) => Some((7 + pages) * page + rest),
            _ => None,
        }
    }

    /// The reason why one byte cannot be accessed.
    fn obstacle(layout: &[(u64, u64, Kind)], address: u64, page: u64) -> Option<InaccessibleReason> {
        let Some((start, _, kind)) = layout.iter().find(|(start, end, _)| (*start..*end).contains(&address))
        else {
            return Some(InaccessibleReason::NotMapped);
        };
        match kind {
            Kind::Hole => Some(InaccessibleReason::NotMapped),
            Kind::NoAccess => Some(InaccessibleReason::NotReadable),
            Kind::File(pages, rest) if (address - start) / page >= pages + u64::from(*rest > 0) => {
                Some(InaccessibleReason::BeyondEndOfFile { file_size: (7 + pages) * page + rest })
            }
            _ => None,
        }
    }

    proptest! {
        /// Compared with a check of every byte's page.
        #[test]
        fn says_what_byte_by_byte_would(
            kinds in kinds(), page in prop::sample::select(&PAGES[..]), first in 0_u64..1 << 20, length in 1_u64..1 << 20,
        ) {
            let layout = laid_out(&kinds, page);
            let address = page / 2 + first % (20 * page);
            let length = 1 + length % (20 * page);
            let size = |mapping: &Mapping, _: &MappedFile| size_in(&layout, mapping, page);
            let answer = judge(address, length, page, &mut |at| Ok(look(&layout, at, page)), size);
            let pages = (address / page..=(address + length - 1) / page).map(|n| (n * page).max(address));
            let bad = pages.clone().find_map(|at| Some((at - address, obstacle(&layout, at, page)?)));
            match (bad, answer) {
                (Some((offset, reason)), Err(error)) => {
                    prop_assert_eq!((error.address, error.length), (address, length));
                    prop_assert_eq!((error.offset, error.reason), (offset, reason));
                }
                (None, Ok(Some(inspection))) => {
                    let of_page = |at| layout.iter().find(|(start, end, _)| (*start..*end).contains(&at)).unwrap().2;
                    let writable = pages.clone().all(|at| !matches!(of_page(at), Kind::ReadOnly));
                    let anonymous = pages.clone().all(|at| !matches!(of_page(at), Kind::File(..)));
                    prop_assert_eq!(inspection.access == CpuAccess::ReadWrite, writable);
                    prop_assert_eq!(inspection.anonymous, anonymous);
                }
                (bad, answer) => prop_assert!(false, "{:?} against {:?}", bad, answer),
            }
        }
    }

    #[test]
    fn a_source_that_fails_says_nothing() {
        let answer = judge(4096, 1, 4096, &mut |_| Err(io::ErrorKind::PermissionDenied.into()), |_, _| None);
        assert_eq!(answer, Ok(None));
    }

    #[test]
    fn the_end_of_the_address_space_is_an_end() {
        let mapping = Mapping {
            start: u64::MAX - 65_536,
            end: u64::MAX,
            readable: true,
            writable: true,
            shared: false,
            file: None,
        };
        let answer = judge(u64::MAX - 10, 10, 65_536, &mut |_| Ok(Some(mapping.clone())), |_, _| None);
        assert!(answer.unwrap().unwrap().anonymous);
    }
}
