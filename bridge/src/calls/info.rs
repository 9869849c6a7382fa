//! Queries of operators and tools: settings, devices, connections, metrics.

use std::time::Duration;

use flagcx_p2p::internals::config::{self, Transport};
use flagcx_p2p::internals::fabric::PathKind;
use flagcx_p2p::internals::{engine, observe};
use flagcx_p2p::{PauseReason, RailStatus};

use crate::ffi::{ConnInfo, FabricInfo, GlobalConfig, Path, RailInfo, RailPause, RailState, SlowTransfer};
use crate::handles::{Conn, Engine};
use crate::refusal::OrRefuse;

pub(crate) fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

pub(crate) fn global_config() -> GlobalConfig {
    let config = config::global();
    GlobalConfig {
        qps_per_conn: int(config.qps_per_conn),
        workers_per_pool: int(config.workers_per_pool),
        shard_count: int(config.shard_count),
        shared_cq_depth: config.cq_depth as usize,
        max_wr_per_post: config.max_wr_per_post,
        max_requests: config.max_requests,
        batch_poll_size: config.batch_poll_size,
        slice_size: config.slice_size as usize,
        fragment_limit: config.fragment_limit as usize,
        max_sge: config.max_sge as usize,
        max_inline: config.max_inline as usize,
        ib_port: config.ib_port.unwrap_or(1),
        gid_index: config.p2p_gid_index,
        mtu_length: int(config.mtu),
        ib_traffic_class: config.p2p_traffic_class,
        retry_cnt: i32::from(config.retry_count),
        notif_max_peers: int(config.notif_max_peers),
        enable_dest_dev_affinity: config.dest_dev_affinity,
    }
}

pub(crate) fn dump_global_config() {
    for setting in config::global().settings() {
        let name = setting.variable.name;
        match &setting.text {
            Some(text) => tracing::info!(target: "flagcx_p2p::config", "{name}={text}"),
            None => {
                let default = setting.variable.default_text();
                tracing::info!(target: "flagcx_p2p::config", "{name} unset, default {default}");
            }
        }
    }
}

/// Whether FLAGCX_P2P_TRANSPORT selects the transport that the facade forwards to.
pub(crate) fn accl_wanted() -> bool {
    config::global().transport == Transport::Accl
}

pub(crate) fn fabric_info(out: &mut FabricInfo) -> i32 {
    engine::devices(config::global()).status("flagcxP2pGetFabricInfo", |list| {
        let selection = list.selection();
        *out = FabricInfo {
            devices: count(list.devices().len()),
            provider: selection.provider.map_or_else(String::new, |provider| provider.to_string()),
            reason: selection.reason.clone(),
        };
    })
}

pub(crate) fn metrics_text(out: &mut String) -> i32 {
    observe::prometheus_text(&observe::registry().snapshot())
        .status("flagcxP2pMetricsText", |text| *out = text)
}

pub(crate) fn conn_info(conn: &Conn) -> ConnInfo {
    let info = conn.connection().info();
    ConnInfo {
        path: path(info.path),
        read_path: path(info.paths.read),
        write_path: path(info.paths.write),
        lanes: count(info.lanes),
        healthy_lanes: count(info.healthy_lanes),
        gpu_index: info.gpu_index,
        local: info.local,
        ours: info.ours,
        peer: info.peer,
    }
}

pub(crate) fn conn_rails(conn: &Conn) -> Vec<RailInfo> {
    conn.connection().rails().into_iter().map(rail).collect()
}

fn rail(info: flagcx_p2p::RailInfo) -> RailInfo {
    let (state, left) = match info.status {
        RailStatus::Up => (RailState::Up, Duration::ZERO),
        RailStatus::Paused { left } => (RailState::Paused, left),
        RailStatus::Down => (RailState::Down, Duration::ZERO),
    };
    let last = info.last_pause;
    RailInfo {
        rail: u32::from(info.rail),
        state,
        paused_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
        lanes: count(info.lanes),
        healthy_lanes: count(info.healthy_lanes),
        last_pause: last.map_or(RailPause::Never, |pause| match pause.reason {
            PauseReason::Silent => RailPause::Silent,
            PauseReason::Errors => RailPause::Errors,
            PauseReason::PortDown => RailPause::PortDown,
            PauseReason::DeviceLost => RailPause::DeviceLost,
        }),
        last_pause_ms: last.map_or(0, |pause| u64::try_from(pause.ago.as_millis()).unwrap_or(u64::MAX)),
        pauses: info.pauses,
        written_bytes: info.written_bytes,
        read_bytes: info.read_bytes,
        in_flight_bytes: info.in_flight_bytes,
        bytes_per_second: info.rate_bytes_per_second,
        moved_parts: info.moved_parts,
        latency_ns: info.latency.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
        nic: info.nic,
        peer_nic: info.peer_nic,
    }
}

pub(crate) fn engine_slow_transfers(engine: &Engine, older_than_ms: u32) -> Vec<SlowTransfer> {
    let slow = engine.state().core().slow_transfers(Duration::from_millis(u64::from(older_than_ms)));
    slow.into_iter()
        .map(|transfer| SlowTransfer {
            id: transfer.id,
            is_read: transfer.opcode == observe::Direction::Read,
            bytes: transfer.bytes,
            age_ms: u64::try_from(transfer.age.as_millis()).unwrap_or(u64::MAX),
            pieces: transfer.pieces,
            pieces_done: transfer.pieces_done,
            // A connection has eight rails of eight lanes at most. Lanes of a GPU beyond these are not told.
            lanes: transfer.lanes.iter().fold(0, |set, lane| set | 1_u64.checked_shl(*lane).unwrap_or(0)),
            path: transfer.path.to_owned(),
            peer: transfer.peer,
        })
        .collect()
}

fn path(kind: PathKind) -> Path {
    match kind {
        PathKind::None => Path::None,
        PathKind::Rdma => Path::Rdma,
        PathKind::InProcess => Path::InProcess,
        PathKind::CrossMemory => Path::CrossMemory,
        PathKind::Tcp => Path::Tcp,
        PathKind::Shared => Path::Shared,
    }
}

/// A setting or a count as C++ shows it; the parser's ranges keep settings far below the limit.
fn int(number: impl TryInto<i32>) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}

/// A count as C++ shows it.
fn count(number: usize) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}
