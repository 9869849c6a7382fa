//! From which file, and from where in it, a range is mapped.

use super::mapping::Mapping;
use super::source::{Covering, with_mappings};

/// A range is a shared mapping of the file that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MappedFrom {
    /// All of it may be written to.
    Writable,
    /// Some of it may only be read.
    ReadOnly,
}

/// Whether `address..address + length`, of at least one byte, is a shared mapping, from `offset` on, of the file that is
/// mapped at `witness` too. An error is a text: what is mapped instead.
pub(crate) fn mapped_from(
    (address, length): (u64, u64),
    witness: u64,
    offset: u64,
) -> Result<MappedFrom, String> {
    let unknown =
        "the mappings of this process cannot be read: /proc/thread-self/maps is needed to check them"
            .to_owned();
    let one = |covering: Covering<'_>| Ok::<_, String>(covering(witness).ok());
    let wanted = with_mappings(&one)?.flatten().ok_or_else(|| unknown.clone())?;
    let all = |covering: Covering<'_>| compare((address, length), offset, &wanted, covering);
    with_mappings(&all)?.ok_or(unknown)
}

/// `Ok(None)`: the mappings cannot be read.
fn compare(
    (address, length): (u64, u64),
    offset: u64,
    wanted: &Mapping,
    covering: Covering<'_>,
) -> Result<Option<MappedFrom>, String> {
    let end = address.checked_add(length).ok_or("the range wraps around the address space")?;
    let (mut at, mut found) = (address, MappedFrom::Writable);
    while at < end {
        let mapping = match covering(at) {
            Ok(Some(mapping)) => mapping,
            Ok(None) => return Err(format!("no memory is mapped at {at:#x}")),
            Err(_) => return Ok(None),
        };
        let same = is_of(&mapping, wanted).map_err(|what| format!("at {at:#x} is {what}"))?;
        let (is, should) = (same.saturating_add(at - mapping.start), offset.saturating_add(at - address));
        if is != should {
            return Err(format!("at {at:#x} the file is mapped from offset {is}, not {should}"));
        }
        if !mapping.writable {
            found = MappedFrom::ReadOnly;
        }
        at = mapping.end;
    }
    Ok(Some(found))
}

/// The offset of the mapping in the wanted file, or what it is instead.
fn is_of(mapping: &Mapping, wanted: &Mapping) -> Result<u64, String> {
    let (Some(file), Some(wanted)) = (&mapping.file, &wanted.file) else {
        return Err("memory without a file: map it with mmap(MAP_SHARED) of the descriptor".to_owned());
    };
    if (file.device, file.inode) != (wanted.device, wanted.inode) {
        let (is, should) = (file.name.display(), wanted.name.display());
        return Err(format!("a mapping of another file, {is}, and the descriptor is that of {should}"));
    }
    if !mapping.shared {
        return Err(
            "a private copy of the file (MAP_PRIVATE), which peers would not see: map it with MAP_SHARED"
                .to_owned(),
        );
    }
    Ok(file.offset)
}

#[cfg(test)]
#[cfg(not(flagcx_p2p_loom))]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::super::mapping::MappedFile;
    use super::*;

    const PAGE: u64 = 4096;

    fn mapping(start: u64, pages: u64, inode: u64, offset: u64) -> Mapping {
        let file =
            MappedFile { offset, inode, device: (0, 1), name: PathBuf::from(format!("/memfd:{inode}")) };
        let end = start + pages * PAGE;
        Mapping {
            start,
            end,
            readable: true,
            writable: true,
            shared: true,
            file: (inode > 0).then_some(file),
        }
    }

    fn ask(range: (u64, u64), offset: u64, mappings: &[Mapping]) -> Result<Option<MappedFrom>, String> {
        let look = |at| mappings.iter().find(|one| (one.start..one.end).contains(&at)).cloned();
        compare(range, offset, &mapping(0, 1, 7, 0), &mut |at| io::Result::Ok(look(at)))
    }

    #[test]
    fn each_difference_is_named() {
        let from = 8 * PAGE;
        let good = mapping(PAGE, 4, 7, from);
        let answer = |range, offset, mapping: &Mapping| ask(range, offset, std::slice::from_ref(mapping));
        assert_eq!(answer((PAGE, 4 * PAGE), from, &good), Ok(Some(MappedFrom::Writable)));
        assert_eq!(answer((PAGE + 5, 100), from + 5, &good), Ok(Some(MappedFrom::Writable)));
        let read_only = Mapping { writable: false, ..good.clone() };
        assert_eq!(answer((PAGE, 1), from, &read_only), Ok(Some(MappedFrom::ReadOnly)));
        let refused = |range, offset, mapping: &Mapping| answer(range, offset, mapping).unwrap_err();
        assert!(refused((PAGE, 1), from + 1, &good).contains("from offset 32768, not 32769"));
        assert!(refused((PAGE, 5 * PAGE), from, &good).contains("no memory is mapped at 0x5000"));
        assert!(refused((PAGE, 1), 0, &mapping(PAGE, 1, 0, 0)).contains("without a file"));
        let other = refused((PAGE, 1), 0, &mapping(PAGE, 1, 8, 0));
        assert!(other.contains("another file, /memfd:8") && other.contains("that of /memfd:7"), "{other}");
        let private = Mapping { shared: false, ..good };
        assert!(refused((PAGE, 1), from, &private).contains("MAP_PRIVATE"));
        assert!(refused((u64::MAX, 2), 0, &private).contains("wraps"));
    }

    #[test]
    fn what_cannot_be_read_is_no_answer() {
        let answer = compare((PAGE, 1), 0, &mapping(0, 1, 7, 0), &mut |_| Err(io::ErrorKind::Other.into()));
        assert_eq!(answer, Ok(None));
    }

    proptest! {
        /// A file mapped piece by piece, one behind the other, is the file from end to end unless a piece is out of place.
        #[test]
        fn pieces_in_order_are_one_range(pieces in proptest::collection::vec(1_u64..4, 1..6), moved in 0_usize..6) {
            let mut at = PAGE;
            let mut mappings: Vec<_> = pieces.iter().map(|pages| {
                let piece = mapping(at, *pages, 7, at);
                at = piece.end;
                piece
            }).collect();
            prop_assert_eq!(ask((PAGE, at - PAGE), PAGE, &mappings), Ok(Some(MappedFrom::Writable)));
            if let Some(piece) = mappings.get_mut(moved) {
                piece.file.as_mut().unwrap().offset += PAGE;
                prop_assert!(ask((PAGE, at - PAGE), PAGE, &mappings).is_err());
            }
        }
    }
}
