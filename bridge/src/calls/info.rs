//! What operators and tools ask: settings, devices, connections, metrics.

use flagcx_p2p::config::{self, Config};
use flagcx_p2p::engine::EngineError;
use flagcx_p2p::fabric::{self, PathKind};

use crate::ffi::{ConnInfo, FabricInfo, GlobalConfig, Path};
use crate::handles::Conn;
use crate::refusal::OrRefuse;

pub(crate) fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

pub(crate) fn global_config() -> GlobalConfig {
    let config = config::global();
    GlobalConfig {
        qps_per_conn: clamp(config.qps_per_conn),
        workers_per_pool: clamp(config.workers_per_pool),
        shard_count: clamp(config.shard_count),
        shared_cq_depth: config.cq_depth as usize,
        max_wr_per_post: config.max_wr_per_post,
        max_requests: config.max_requests,
        batch_poll_size: config.batch_poll_size,
        slice_size: clamp(config.slice_size),
        fragment_limit: clamp(config.fragment_limit),
        max_sge: config.max_sge as usize,
        max_inline: config.max_inline as usize,
        ib_port: config.ib_port.unwrap_or(1),
        gid_index: config.p2p_gid_index,
        mtu_length: clamp(config.mtu),
        ib_traffic_class: config.p2p_traffic_class,
        retry_cnt: i32::from(config.retry_count),
        notif_max_peers: clamp(config.notif_max_peers),
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

pub(crate) fn fabric_info(out: &mut FabricInfo) -> i32 {
    devices(config::global()).status("flagcxP2pGetFabricInfo", |list| {
        let selection = list.selection();
        *out = FabricInfo {
            devices: clamp(list.devices().len()),
            provider: selection.provider.map_or_else(String::new, |provider| provider.to_string()),
            reason: selection.reason.clone(),
        };
    })
}

pub(crate) fn metrics_text(_out: &mut String) -> i32 {
    Err::<(), _>("metrics are not built yet").status("flagcxP2pMetricsText", drop)
}

pub(crate) fn conn_info(conn: &Conn) -> ConnInfo {
    let info = conn.connection().info();
    ConnInfo {
        path: match info.path {
            PathKind::None => Path::None,
            PathKind::Rdma => Path::Rdma,
            PathKind::InProcess => Path::InProcess,
            PathKind::CrossMemory => Path::CrossMemory,
            PathKind::Tcp => Path::Tcp,
        },
        lanes: clamp(info.lanes),
        healthy_lanes: clamp(info.healthy_lanes),
        gpu_index: info.gpu_index,
        local: info.local,
        ours: info.ours,
        peer: info.peer,
    }
}

fn devices(config: &Config) -> Result<&'static fabric::DeviceList, EngineError> {
    let options = config.fabric_options().map_err(|error| EngineError::Invalid(error.to_string()))?;
    Ok(fabric::devices(&options)?)
}

/// A number in the type that C++ shows it with; the parser's ranges keep all of them small.
fn clamp<From, To: TryFrom<From> + Bounded>(number: From) -> To {
    To::try_from(number).unwrap_or(To::MAX)
}

/// Types with a largest value.
trait Bounded {
    const MAX: Self;
}

impl Bounded for i32 {
    const MAX: Self = Self::MAX;
}

impl Bounded for u32 {
    const MAX: Self = Self::MAX;
}

impl Bounded for usize {
    const MAX: Self = Self::MAX;
}
