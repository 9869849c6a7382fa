//! One registered range, in one segment or several, and the hold that keeps it registered while a transfer uses it.

use std::sync::Arc;
use std::time::Instant;

use super::allocation::AllocationUse;
use super::further_nics::FurtherNics;
use super::process_regions;
use super::recipe::Recipe;
use super::region_uses::RegionUses;
use super::registry::next_id;
use super::segment::{Segment, Segments};
use super::sharing::Sharing;
use crate::fabric::{Access, Backing, MemoryRange, MemoryRegion, SharedFile};

/// Names a region. Unique in the process, never 0, never reused, owned by one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct RegionId(pub u64);

/// What the caller knows of the memory that it registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryKind {
    /// Ask the GPU runtime.
    #[default]
    Probe,
    /// Host memory.
    Host,
    /// GPU memory.
    Gpu,
}

/// A registered range.
#[derive(Debug)]
pub struct Region {
    /// Its id.
    pub id: RegionId,
    /// Start.
    pub address: u64,
    /// Bytes, more than zero.
    pub length: u64,
    /// [`MemoryKind::Host`] or [`MemoryKind::Gpu`]; never `Probe`.
    pub kind: MemoryKind,
    /// What it may be used for: what was asked, without writing if the memory is not writable.
    pub access: Access,
    /// Whether the CPU may read it at any time, as far as is known: not memory of a device, nor of a file, which may be gone.
    pub readable: bool,
    /// Whether all of it is private anonymous memory, see [`Inspection::anonymous`](super::Inspection::anonymous).
    pub anonymous: bool,
    /// Whether peers are told of it.
    pub announced: bool,
    /// Whether peers read a byte behind what they write to it, see [`super::RemoteRegion::gpu_flush`].
    pub gpu_flush: bool,
    segments: Segments,
    /// With other processes, by the GPU's runtime.
    pub(crate) sharing: Sharing,
    /// Keeps memory mapped that the engine has allocated.
    allocation: Option<AllocationUse>,
    uses: RegionUses,
    /// Whether it is that of a further NIC: the region of the first one, which has the same id, counts for the process.
    is_further: bool,
    /// How further NICs register it; `None` if they do not.
    recipe: Option<Box<Recipe>>,
    /// What they have registered.
    further: FurtherNics,
}

impl Region {
    pub(super) fn new(
        id: RegionId,
        range: &MemoryRange,
        kind: MemoryKind,
        readable: bool,
        announced: bool,
        segments: Segments,
    ) -> Self {
        Self {
            id,
            address: range.address,
            length: range.length,
            kind,
            access: range.access,
            readable,
            anonymous: range.backing == Backing::Anonymous,
            announced,
            gpu_flush: false,
            segments,
            sharing: Sharing::new(),
            allocation: None,
            uses: RegionUses::default(),
            is_further: false,
            recipe: None,
            further: FurtherNics::new(),
        }
    }

    /// The memory of `first` as a further NIC has registered it.
    pub(super) fn on_further_nic(first: &Self, range: &MemoryRange, segments: Segments) -> Self {
        let range = MemoryRange { access: first.access, ..*range };
        let mut made = Self::new(first.id, &range, first.kind, first.readable, first.announced, segments);
        made.gpu_flush = first.gpu_flush;
        made.is_further = true;
        made
    }

    /// This region of a range that the engine has allocated.
    pub(super) fn within(mut self, allocation: Option<AllocationUse>) -> Self {
        self.allocation = allocation;
        self
    }

    /// This region, with [`Region::gpu_flush`].
    pub(super) fn flushed(mut self, gpu_flush: bool) -> Self {
        self.gpu_flush = gpu_flush;
        self
    }

    /// This region, which further NICs can register by `recipe`.
    pub(super) fn with_recipe(mut self, recipe: Option<Recipe>) -> Self {
        self.recipe = recipe.map(Box::new);
        self
    }

    /// Memory of another process that was opened here, in no registry: kept open by its holds.
    pub fn imported(address: u64, length: u64, memory: Arc<dyn MemoryRegion>) -> Arc<Self> {
        let range = MemoryRange {
            address,
            length,
            access: Access::FULL,
            dma_buf: None,
            file: None,
            cpu_address: None,
            backing: Backing::Unknown,
            announced: false,
        };
        let segments = Segments::of_one(Segment::new(address, length, memory));
        Arc::new(Self::new(next_id(), &range, MemoryKind::Gpu, false, false, segments))
    }

    /// The ranges that it consists of, each with keys of its own: one, if the device could register all of it at once.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter()
    }

    /// How many [segments](Region::segments) it has.
    pub fn segment_count(&self) -> usize {
        self.segments.count()
    }

    /// The segment that holds `address..address + length` whole; `None` if the range crosses a boundary between two of them, or
    /// is not inside the region.
    pub fn segment_holding(&self, address: u64, length: u64) -> Option<&Segment> {
        self.segments.holding(address, length)
    }

    /// The segment with this byte; `None` if it is not inside the region.
    pub fn segment_at(&self, address: u64) -> Option<&Segment> {
        self.segments.at(address)
    }

    /// The local key of its first segment.
    pub fn lkey(&self) -> u32 {
        self.segments.first().lkey
    }

    /// The key for peers of its first segment.
    pub fn rkey(&self) -> u32 {
        self.segments.first().rkey
    }

    /// Takes it into use; `None` once it is being deregistered.
    #[inline]
    pub fn hold(self: &Arc<Self>) -> Option<Hold> {
        let allowed = self.uses.begin();
        // Dropped on both ways out, which gives the use back.
        let hold = Hold { region: Arc::clone(self) };
        allowed.then_some(hold)
    }

    /// Allows no new use. The caller ends [`Region::sharing`] too, once it has released its locks.
    pub(super) fn revoke(&self) {
        self.leave_process();
        self.uses.revoke();
    }

    fn leave_process(&self) {
        // Keys of several NICs may be equal, so that of a further one is not looked for.
        if !self.is_further {
            process_regions::remove(self);
        }
    }

    /// Whether it is that of a further NIC.
    pub(super) fn is_further(&self) -> bool {
        self.is_further
    }

    /// Whether further NICs can register it.
    pub(crate) fn has_recipe(&self) -> bool {
        self.recipe.is_some()
    }

    /// How they do.
    pub(super) fn recipe(&self) -> Option<&Recipe> {
        self.recipe.as_deref()
    }

    /// What they have registered.
    pub(super) fn further(&self) -> &FurtherNics {
        &self.further
    }

    /// The same memory as the further NICs of the engine have registered it: each has this region's id.
    pub fn on_further_nics(&self) -> Vec<Arc<Self>> {
        self.further.regions()
    }

    /// The GPU that has its memory, of a region that further NICs can register and as far as the runtime says.
    pub(crate) fn gpu(&self) -> Option<i32> {
        self.recipe.as_ref()?.gpu()
    }

    /// The file of the allocation that it is in.
    pub(super) fn allocated_file(&self) -> Option<SharedFile> {
        self.allocation.as_ref().and_then(AllocationUse::file)
    }

    /// Whether the engine has allocated its memory.
    pub(crate) fn is_allocated(&self) -> bool {
        self.allocation.is_some()
    }

    /// Deregistered: it keeps its memory mapped no longer. `confirmed`: no other process accesses it any more.
    pub(crate) fn end_allocation_use(&self, confirmed: bool) {
        if let Some(allocation) = &self.allocation {
            allocation.end(confirmed);
        }
    }

    /// Ends a registration that nothing was told of.
    pub(super) fn discard(&self) {
        self.revoke();
        self.sharing.end();
        let now = Instant::now();
        // Of all of them, whatever becomes of one.
        let left = self.segments().filter(|segment| segment.revoke(now).is_err()).count();
        self.end_allocation_use(left == 0);
    }

    /// Whether a transfer uses it now, over whichever NIC, or a further NIC is registering it.
    pub fn in_use(&self) -> bool {
        self.uses.are_left() || self.further.in_use()
    }

    /// What uses it, in words.
    pub(crate) fn user(&self) -> &'static str {
        match self.uses.are_left() || !self.further.is_under_way() {
            true => "a transfer of this process",
            false => "a NIC that is registering it",
        }
    }
}

impl Drop for Region {
    /// Of a registry that ends with regions in it.
    fn drop(&mut self) {
        self.leave_process();
        self.end_allocation_use(false);
    }
}

/// Keeps a region registered while a part of a transfer uses it.
#[derive(Debug)]
pub struct Hold {
    region: Arc<Region>,
}

impl Hold {
    /// Which region.
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }
}

impl Drop for Hold {
    #[inline]
    fn drop(&mut self) {
        self.region.uses.end();
    }
}
