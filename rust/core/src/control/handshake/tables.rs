//! The bootstrap socket's second part: control metas and region tables.

use super::dialogue::Dialogue;
use super::error::{HandshakeError, Step};
use super::{LocalSide, Role, authenticate};
use crate::control::wire::{
    ControlMeta, Features, MAX_REGIONS, META_SIZE, REGION_SIZE, RegionEntry, Tag, WireError, decode_regions,
    encode_regions,
};

/// The peer's control meta and the locality that both sides have agreed on.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerMeta {
    pub(super) gpu_index: i32,
    pub(super) notify_port: u16,
    pub(super) local: bool,
    pub(super) same_process: bool,
}

/// Exchanges control metas. The initiator combines both sides' views of locality; the responder adopts the result.
pub(super) async fn exchange_metas(
    dialogue: &Dialogue<'_>,
    local: &LocalSide<'_>,
    features: Option<&Features>,
    looks_local: bool,
) -> Result<PeerMeta, HandshakeError> {
    let in_this_process = features.is_some_and(|features| features.process == authenticate::process_token());
    let same_process = local.same_process && in_this_process;
    if local.same_process && !in_this_process {
        tracing::warn!(
            "peer {} is not in this process, although the caller stated so; it is treated as another process",
            dialogue.peer
        );
    }
    let ours = |theirs: Option<ControlMeta>| ControlMeta {
        gpu_index: local.gpu_index,
        notify_port: local.notify_port,
        local: looks_local || theirs.is_some_and(|theirs| theirs.local),
        same_process: same_process || in_this_process && theirs.is_some_and(|theirs| theirs.same_process),
    };
    let decode = |bytes: &[u8]| ControlMeta::decode(bytes).map_err(|error| dialogue.fail(Step::Meta, error));
    let bytes = dialogue.exchange_frames(Step::Meta, Tag::Meta, META_SIZE, |theirs| {
        let theirs = theirs.and_then(|bytes| ControlMeta::decode(bytes).ok());
        ours(theirs).encode().to_vec()
    });
    let bytes = bytes.await?;
    let theirs = decode(&bytes)?;
    let local = match dialogue.role {
        Role::Initiator => looks_local || theirs.local,
        Role::Responder => theirs.local,
    };
    let same_process = match dialogue.role {
        Role::Initiator => same_process,
        Role::Responder => in_this_process && theirs.same_process,
    };
    Ok(PeerMeta { gpu_index: theirs.gpu_index, notify_port: theirs.notify_port, local, same_process })
}

/// What entries of region tables say beyond those of the original.
#[derive(Clone, Copy, Debug)]
pub(super) struct RegionExtras {
    /// The ids of regions, and which are for reading only: both sides announce changes.
    pub(super) named: bool,
    /// Which entries are further segments of the region before.
    pub(super) segments: bool,
    /// Which WRITEs are to be flushed. A peer that does not know the mark would take it for a part of the id.
    pub(super) gpu_flushes: bool,
}

/// Exchanges region tables.
pub(super) async fn exchange_regions(
    dialogue: &Dialogue<'_>,
    local: &LocalSide<'_>,
    extras: RegionExtras,
) -> Result<Vec<RegionEntry>, HandshakeError> {
    let step = Step::Regions;
    let mut ours = (local.regions)();
    if ours.len() > MAX_REGIONS {
        if !extras.named {
            let count = ours.len();
            tracing::warn!("{count} regions, of which {MAX_REGIONS} are announced to {}", dialogue.peer);
        }
        ours.truncate(MAX_REGIONS);
    }
    if extras.named {
        // A region without an id could not be removed later: it is announced afterwards, with its long id.
        ours.retain(|entry| entry.id != 0);
    }
    extras.restrict(&mut ours);
    let count = (ours.len() as u32).to_le_bytes();
    let count = dialogue.exchange_frames(step, Tag::RegionCount, count.len(), |_| count.to_vec()).await?;
    let count = <[u8; 4]>::try_from(count)
        .map(u32::from_le_bytes)
        .map_err(|_| dialogue.fail(step, WireError::new("number of regions", "expected 4 bytes")))?;
    let size = usize::try_from(count)
        .ok()
        .filter(|count| *count <= MAX_REGIONS)
        .ok_or_else(|| {
            let problem = format!("the peer announces {count}, expected at most {MAX_REGIONS}");
            dialogue.fail(step, WireError::new("number of regions", problem))
        })?
        .saturating_mul(REGION_SIZE);
    let table = dialogue.exchange_frames(step, Tag::Regions, size, |_| encode_regions(&ours)).await?;
    let mut theirs = decode_regions(&table).map_err(|error| dialogue.fail(step, error))?;
    extras.restrict(&mut theirs);
    Ok(theirs)
}

impl RegionExtras {
    /// Takes off what is not of both sides.
    fn restrict(self, regions: &mut [RegionEntry]) {
        for region in regions {
            if !self.named {
                (region.id, region.read_only) = (0, false);
            }
            region.continues &= self.segments;
            region.gpu_flush &= self.gpu_flushes;
        }
    }
}
