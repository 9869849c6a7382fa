//! The part of the handshake on the lane socket: agree on a number, exchange records, connect, report ready.

use super::dialogue::Dialogue;
use super::error::{HandshakeError, Reason, Step};
use super::{LaneSetup, PeerCapabilities, Role};
use crate::control::wire::{LANE_RECORD_SIZE, LaneCapabilities, LaneRecord, MAX_LANES, WireError};
use crate::fabric::{LINK_ETHERNET, LINK_INFINIBAND, LINK_SOFTWARE, QpAddress, link_name};

/// Sets up the lanes of a connection; returns the peer's capabilities and the number of lanes. `received` is the
/// peer's offer if it has been read already.
pub(super) async fn set_up(
    dialogue: &Dialogue<'_>,
    lanes: &mut dyn LaneSetup,
    received: Option<u32>,
) -> Result<(PeerCapabilities, u32), HandshakeError> {
    let agreed = agree_on_count(dialogue, lanes.offer(), received).await?;
    let ours = lanes
        .create(agreed, dialogue.waiter)
        .await
        .map_err(|error| dialogue.fail(Step::LaneCreation, error))?;
    let theirs = exchange_records(dialogue, &ours, lanes.capabilities()).await?;
    check_link_layers(&ours, &theirs).map_err(|reason| dialogue.fail(Step::LaneRecords, reason))?;
    let peer = capabilities(&theirs);
    let addresses: Vec<_> = theirs.iter().map(|record| record.address).collect();
    lanes
        .connect(&addresses, peer, dialogue.deadline, dialogue.waiter)
        .await
        .map_err(|error| dialogue.fail(Step::LaneConnection, error))?;
    say_ready(dialogue).await?;
    Ok((peer, agreed))
}

async fn agree_on_count(
    dialogue: &Dialogue<'_>,
    offer: u32,
    received: Option<u32>,
) -> Result<u32, HandshakeError> {
    let offer = offer.clamp(1, MAX_LANES);
    let theirs = match received {
        Some(theirs) => {
            dialogue.write(Step::LaneCount, &offer.to_le_bytes()).await?;
            theirs
        }
        None => u32::from_le_bytes(exchange(dialogue, Step::LaneCount, offer.to_le_bytes()).await?),
    };
    if !(1..=MAX_LANES).contains(&theirs) {
        let problem = format!("the peer offers {theirs}, expected 1 to {MAX_LANES}");
        return Err(dialogue.fail(Step::LaneCount, WireError::new("number of lanes", problem)));
    }
    Ok(offer.min(theirs))
}

async fn exchange_records(
    dialogue: &Dialogue<'_>,
    ours: &[QpAddress],
    capabilities: LaneCapabilities,
) -> Result<Vec<LaneRecord>, HandshakeError> {
    let step = Step::LaneRecords;
    let sent: Vec<u8> = ours
        .iter()
        .flat_map(|&address| LaneRecord { address, capabilities: Some(capabilities) }.encode())
        .collect();
    let size = ours.len() * LANE_RECORD_SIZE;
    let received = match dialogue.role {
        Role::Initiator => {
            dialogue.write(step, &sent).await?;
            dialogue.read_vec(step, size).await?
        }
        Role::Responder => {
            let received = dialogue.read_vec(step, size).await?;
            dialogue.write(step, &sent).await?;
            received
        }
    };
    received
        .chunks_exact(LANE_RECORD_SIZE)
        .map(LaneRecord::decode)
        .collect::<Result<_, _>>()
        .map_err(|error| dialogue.fail(step, error))
}

/// Both ends must have the same link layer: others cannot connect.
fn check_link_layers(ours: &[QpAddress], theirs: &[LaneRecord]) -> Result<(), Reason> {
    for (our, their) in ours.iter().zip(theirs) {
        let (our, their) = (our.link_layer, their.address.link_layer);
        if our != their || !matches!(their, LINK_INFINIBAND | LINK_ETHERNET | LINK_SOFTWARE) {
            return Err(Reason::LinkLayer { theirs: link_name(their), ours: link_name(our) });
        }
    }
    Ok(())
}

/// A peer is an engine of this kind only if every lane record says so.
fn capabilities(records: &[LaneRecord]) -> PeerCapabilities {
    let announced: Option<Vec<_>> = records.iter().map(|record| record.capabilities).collect();
    match announced.and_then(|all| all.into_iter().reduce(smaller)) {
        Some(lanes) => PeerCapabilities { ours: true, lanes },
        None => PeerCapabilities { ours: false, lanes: LaneCapabilities::ORIGINAL },
    }
}

fn smaller(one: LaneCapabilities, other: LaneCapabilities) -> LaneCapabilities {
    LaneCapabilities {
        rd_atomic_initiator: one.rd_atomic_initiator.min(other.rd_atomic_initiator),
        rd_atomic_responder: one.rd_atomic_responder.min(other.rd_atomic_responder),
    }
}

/// The value has no meaning: its arrival shows that the peer's lanes are connected.
async fn say_ready(dialogue: &Dialogue<'_>) -> Result<(), HandshakeError> {
    exchange(dialogue, Step::Ready, 1_i32.to_le_bytes()).await.map(|_| ())
}

async fn exchange<const N: usize>(
    dialogue: &Dialogue<'_>,
    step: Step,
    ours: [u8; N],
) -> Result<[u8; N], HandshakeError> {
    match dialogue.role {
        Role::Initiator => {
            dialogue.write(step, &ours).await?;
            dialogue.read(step).await
        }
        Role::Responder => {
            let theirs = dialogue.read(step).await?;
            dialogue.write(step, &ours).await?;
            Ok(theirs)
        }
    }
}
