//! What the driver exports as a dma-buf for NICs: ranges at odd places, of one allocation and of many.

use std::os::fd::AsFd;

use flagcx_p2p::internals::gpu::{self, GpuError};

use super::cuda::{cuda, is_stand_in};
use super::group::Group;
use super::memory::{Kind, Memory, in_context};
use super::vmm::{Segments, Shareable};

const LENGTH: usize = 1 << 20;

pub fn run(group: &mut Group) {
    cuda();
    let memory = Memory::new(Kind::Gpu, LENGTH);
    if let Err(error @ GpuError::Unsupported { .. }) = export(memory.address, 4096) {
        return group.note(&format!("not run: exports of dma-bufs: {error}"));
    }
    group.check("ranges of one allocation, with unaligned starts and tails", || {
        expect_ranges(memory.address, LENGTH as u64)
    });
    let counts: &[usize] = if is_stand_in() { &[] } else { &[2, 40] };
    if counts.is_empty() {
        group.note("not run: one dma-buf over several allocations: the stand-in makes one of each");
        group.check("ranges of one allocation of cuMemCreate among others", || {
            let segments = Segments::new(3, Shareable::No);
            let each = segments.each as u64;
            assert!(export(segments.address + each - 5, 10).is_err());
            expect_ranges(segments.address + each, each)
        });
    }
    for &count in counts {
        group.check(&format!("ranges over {count} allocations side by side"), || {
            let segments = Segments::new(count, Shareable::No);
            let (each, length) = (segments.each as u64, segments.length() as u64);
            // Across one border, and over all of them.
            expect_range(segments.address + each - 5, 10);
            expect_ranges(segments.address, length)
        });
    }
    group.check("host memory and a range beyond an allocation are refused", || {
        let host = Memory::new(Kind::Host, LENGTH);
        let beyond = 1 << 40;
        format!(
            "{}; {}",
            export(host.address, 4096).unwrap_err(),
            export(memory.address, beyond).unwrap_err()
        )
    });
}

fn export(address: u64, length: u64) -> Result<(u64, u64), GpuError> {
    let export = in_context(|| gpu::runtime().dma_buf(address, length))?;
    let bytes = rustix::fs::seek(export.fd.as_fd(), rustix::fs::SeekFrom::End(0));
    Ok((export.offset, bytes.expect("a dma-buf has a length")))
}

fn expect_ranges(address: u64, length: u64) -> String {
    for (offset, bytes) in
        [(0, length), (0, 1), (1, length - 1), (4095, 2), (77, length - 4096), (length - 1, 1)]
    {
        expect_range(address + offset, bytes);
    }
    String::new()
}

/// The dma-buf holds the range where it says.
fn expect_range(address: u64, length: u64) {
    let (offset, bytes) =
        export(address, length).unwrap_or_else(|error| panic!("{address:#x}+{length}: {error}"));
    assert_eq!(offset, address % 4096, "{address:#x}+{length}: whole pages of the host");
    assert!(offset + length <= bytes, "{address:#x}+{length} ends beyond the {bytes} bytes of its dma-buf");
}
