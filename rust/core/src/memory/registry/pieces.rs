//! Registration in pieces: ranges larger than the device's largest region are cut, and the pieces registered by several threads.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::param::page_size;

use crate::fabric::{Device, DmaBuf, FabricError, MemoryRange, MemoryRegion, SharedFile};
use crate::memory::segment::{Segment, Segments};

/// Threads that register the pieces of one range, the caller's among them. The kernel pins pages of the pieces at the same time;
/// more threads wait for each other at the device's command queue.
const THREADS: usize = 4;

/// Pieces of one region at most: peers are told of each.
const MOST_PIECES: u64 = 65_536;

/// Cuts are made here where pieces are large enough, so that no huge page is in two of them.
const HUGE_PAGE: u64 = 2 << 20;

/// Registers a range that is one dma-buf, or none; in pieces, if it is longer than the device's largest region.
pub(in crate::memory) fn register(device: &dyn Device, range: &MemoryRange) -> Result<Segments, FabricError> {
    let mut pieces = Pieces::on(device);
    pieces.add(std::slice::from_ref(range))?;
    pieces.finish()
}

/// The segments of one region while they are registered, in several steps. All of them are registered in the end, or none.
pub(in crate::memory) struct Pieces<'a> {
    device: &'a dyn Device,
    segments: Vec<Segment>,
    since: Instant,
}

impl<'a> Pieces<'a> {
    pub(in crate::memory) fn on(device: &'a dyn Device) -> Self {
        Self { device, segments: Vec::new(), since: Instant::now() }
    }

    /// Registers further ranges, which follow those before without a gap, and each other. Each may have a dma-buf of its own, which
    /// is not needed afterwards, and is cut where it is longer than the device's largest region.
    pub(in crate::memory) fn add(&mut self, ranges: &[MemoryRange]) -> Result<(), FabricError> {
        let attributes = self.device.attributes();
        let mut pieces = Vec::with_capacity(ranges.len());
        for range in ranges {
            cut(range, attributes.max_region, &attributes.name, self.segments.len(), &mut pieces)?;
        }
        match pieces.as_slice() {
            [range] => {
                self.segments.push(Segment::new(range.address, range.length, self.device.register(range)?));
            }
            pieces => self.segments.extend(register_by_threads(self.device, pieces)?),
        }
        Ok(())
    }

    pub(in crate::memory) fn finish(mut self) -> Result<Segments, FabricError> {
        let segments = std::mem::take(&mut self.segments);
        if segments.len() > 1 {
            report(&segments, &self.device.attributes().name, self.since.elapsed());
        }
        Segments::new(segments)
            .ok_or_else(|| FabricError::Unsupported("a region of no memory at all".to_owned()))
    }
}

impl Drop for Pieces<'_> {
    fn drop(&mut self) {
        end(&self.segments);
    }
}

/// Appends the pieces of `range`, none of them longer than `largest`. `before`: segments that there are already.
fn cut(
    range: &MemoryRange,
    largest: u64,
    device: &str,
    before: usize,
    pieces: &mut Vec<MemoryRange>,
) -> Result<(), FabricError> {
    let page = page_size() as u64;
    let present = (before + pieces.len()) as u64;
    // A device without a limit that it can say, or one that is to refuse the range itself.
    if range.length <= largest || largest < page {
        if present >= MOST_PIECES {
            return Err(FabricError::Unsupported(format!(
                "the region lies in more than {MOST_PIECES} pieces, each to be registered on {device} alone; register it in parts"
            )));
        }
        pieces.push(*range);
        return Ok(());
    }
    let align = if largest >= 2 * HUGE_PAGE { HUGE_PAGE } else { page };
    if present.saturating_add(range.length / (largest - largest % align)) >= MOST_PIECES {
        return Err(FabricError::Unsupported(format!(
            "a region of {} bytes needs more than {MOST_PIECES} pieces of the {largest} bytes (max_mr_size) that {device} can \
             register; register it in parts",
            range.length
        )));
    }
    let mut offset = 0;
    while range.length - offset > largest {
        let start = range.address + offset;
        let end = start.saturating_add(largest);
        let length = end - end % align - start;
        pieces.push(piece(range, offset, length));
        offset += length;
    }
    pieces.push(piece(range, offset, range.length - offset));
    Ok(())
}

/// The piece of `range` that begins `offset` bytes behind its start.
fn piece(range: &MemoryRange, offset: u64, length: u64) -> MemoryRange {
    MemoryRange {
        address: range.address + offset,
        length,
        dma_buf: range.dma_buf.map(|buffer| DmaBuf { offset: buffer.offset + offset, ..buffer }),
        file: range.file.map(|file| SharedFile { offset: file.offset + offset, ..file }),
        cpu_address: range.cpu_address.map(|address| address + offset),
        ..*range
    }
}

/// Registers the pieces by up to [`THREADS`] threads. After a failure the others that were registered are ended again.
fn register_by_threads(device: &dyn Device, pieces: &[MemoryRange]) -> Result<Vec<Segment>, FabricError> {
    let work = Work {
        device,
        pieces,
        next: AtomicUsize::new(0),
        failed: AtomicBool::new(false),
        ended: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 1..THREADS.min(pieces.len()) {
            let named = std::thread::Builder::new().name("p2p-register".to_owned());
            // Without another thread this one registers them all.
            if named.spawn_scoped(scope, || work.run()).is_err() {
                break;
            }
        }
        work.run();
    });
    let mut ended = work.ended.into_inner().unwrap_or_else(PoisonError::into_inner);
    ended.sort_unstable_by_key(|(index, _)| *index);
    let (mut segments, mut first_error) = (Vec::with_capacity(pieces.len()), None);
    for ((_, result), range) in ended.into_iter().zip(pieces) {
        match result {
            Ok(memory) => segments.push(Segment::new(range.address, range.length, memory)),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    let Some(error) = first_error else { return Ok(segments) };
    end(&segments);
    Err(error)
}

/// Ends registrations of pieces of which another one has failed.
fn end(segments: &[Segment]) {
    let now = Instant::now();
    for left in segments.iter().filter_map(|segment| segment.revoke(now).err()) {
        tracing::warn!("cannot end the registration of a piece, of which another one has failed: {left}");
    }
}

/// What became of a piece.
type Registered = Result<Arc<dyn MemoryRegion>, FabricError>;

/// Pieces that several threads register.
struct Work<'a> {
    device: &'a dyn Device,
    pieces: &'a [MemoryRange],
    /// The first piece that no thread has begun with. Relaxed: the threads agree on nothing else by it.
    next: AtomicUsize,
    /// A piece has failed: no more are begun. Relaxed: one piece more is ended again like the others.
    failed: AtomicBool,
    /// By index.
    ended: Mutex<Vec<(usize, Registered)>>,
}

impl Work<'_> {
    fn run(&self) {
        while !self.failed.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(range) = self.pieces.get(index) else { return };
            let result = self.device.register(range);
            if result.is_err() {
                self.failed.store(true, Ordering::Relaxed);
            }
            self.ended.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
        }
    }
}

/// How fast the device registered the pieces: of most NICs the time to pin the pages.
fn report(segments: &[Segment], device: &str, time: Duration) {
    let bytes: u64 = segments.iter().map(|segment| segment.length).sum();
    tracing::info!(
        "registered {bytes} bytes in {} segments on {device} in {} us: {:.1} GB/s",
        segments.len(),
        time.as_micros(),
        bytes as f64 / 1e9 / time.as_secs_f64()
    );
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
#[path = "pieces_tests.rs"]
mod tests;
