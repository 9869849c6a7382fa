//! Configuration: one table of variables, from which come the parser, `docs/configuration.md` and `doctor`.
//!
//! [`Config::from_source`] is pure, so that engines of one process can be opened with different settings;
//! [`global`] is the process's own, from the environment with the configuration files under it.

mod device_settings;
mod docs;
mod files;
mod hidden;
mod home;
mod key_file;
mod log_settings;
mod metrics_address;
mod name_list;
mod number;
mod parse;
mod rail_settings;
mod reader;
mod table;
mod unknown;
mod variable;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use once_cell::sync::OnceCell;

use crate::auth::AuthKey;
use crate::control::Advertise;
use crate::fabric::{FabricChoice, FabricOptions, PathKind, SoftwareOptions, VerbsOptions};
use crate::fork::PerProcess;
use crate::rails::RailMap;
use crate::topology::NicMap;

pub(crate) use device_settings::DeviceSettings;
pub use docs::markdown;
pub use files::{Files, Origin};
pub use hidden::Hidden;
pub use key_file::{MAX_KEY, MIN_KEY, read_key_file};
pub use log_settings::{LogSettings, subsystem_of};
pub use metrics_address::MetricsAddress;
pub use name_list::NameList;
pub use number::parse_integer;
pub use reader::{Setting, Severity, Warning};
pub use table::{RETIRED, VariableGroup, groups};
pub use unknown::closest_variable;
pub use variable::{Kind, Variable};

/// All settings of an engine. Each field names the variable that it comes from; `docs/configuration.md` says what each means,
/// with its unit, range and default.
#[derive(Clone, Debug)]
pub struct Config {
    /// `FLAGCX_P2P_FABRIC`.
    pub fabric: FabricChoice,
    /// `FLAGCX_P2P_PATH`; `None` chooses the best that works.
    pub path: Option<PathKind>,
    /// `FLAGCX_P2P_SOFTWARE_DEVICES`.
    pub software_devices: u32,
    /// `FLAGCX_P2P_FAULTS`, empty for none.
    pub faults: String,
    /// `FLAGCX_P2P_TRANSPORT`.
    pub transport: Transport,

    /// `FLAGCX_IB_DISABLE`.
    pub ib_disable: bool,
    /// `FLAGCX_P2P_IBVERBS`; `None` is `libibverbs.so.1`.
    pub ibverbs: Option<String>,
    /// `FLAGCX_IB_HCA`, in the syntax of [`NameList`]; empty for all.
    pub ib_hca: String,
    /// `FLAGCX_P2P_IB_PORT`, if it is set.
    pub ib_port: Option<u8>,
    /// `FLAGCX_P2P_GID_INDEX`, else `FLAGCX_IB_GID_INDEX`; `None` chooses.
    pub gid_index: Option<u8>,
    /// `FLAGCX_P2P_GID_INDEX` alone, -1 if unset: what the C++ configuration struct shows.
    pub p2p_gid_index: i32,
    /// `FLAGCX_IB_ROCE_VERSION_NUM`.
    pub roce_version: u8,
    /// `FLAGCX_IB_ADDR_FAMILY` is `AF_INET6`.
    pub prefer_ipv6: bool,
    /// `FLAGCX_IB_ADDR_RANGE`, empty for any.
    pub ib_addr_range: String,
    /// `FLAGCX_P2P_MTU`, bytes.
    pub mtu: u32,
    /// `FLAGCX_P2P_IB_TC`, else `FLAGCX_IB_TC`; `None` if neither is set: the device's default.
    pub traffic_class: Option<u8>,
    /// `FLAGCX_P2P_IB_TC` alone, -1 if unset: what the C++ configuration struct shows.
    pub p2p_traffic_class: i32,
    /// `FLAGCX_P2P_RETRY_CNT`, else `FLAGCX_IB_RETRY_CNT`.
    pub retry_count: u8,
    /// `FLAGCX_IB_TIMEOUT`, exponent.
    pub ib_timeout: u8,
    /// `FLAGCX_IB_PKEY`, an index.
    pub pkey_index: u16,
    /// `FLAGCX_IB_SL`.
    pub service_level: u8,
    /// `FLAGCX_IB_PCI_RELAXED_ORDERING` is not 0.
    pub relaxed_ordering: bool,
    /// `FLAGCX_GDR_WRITE_REQUIRES_FLUSH`; `None`: as the GPU needs it.
    pub flush_writes: Option<bool>,
    /// `FLAGCX_GDR_READ_REQUIRES_FLUSH` is 1.
    pub flush_reads: bool,
    /// `FLAGCX_P2P_DEST_DEV_AFFINITY`: the NIC is chosen by the GPU's number alone.
    pub dest_dev_affinity: bool,
    /// `FLAGCX_P2P_NIC_MAP`.
    #[doc(hidden)]
    pub nic_map: NicMap,
    /// `FLAGCX_TOPO_FILE`.
    pub topology_file: Option<PathBuf>,

    /// `FLAGCX_P2P_QPS_PER_CONN`.
    pub qps_per_conn: u32,
    /// `FLAGCX_P2P_RAILS`.
    pub rails: usize,
    /// `FLAGCX_P2P_WORKERS_PER_POOL`, at most `qps_per_conn`.
    pub workers_per_pool: usize,
    /// `FLAGCX_P2P_SHARD_COUNT`, at least `workers_per_pool`.
    pub shard_count: usize,
    /// `FLAGCX_P2P_QUEUE_DEPTH`, transfers per submission queue.
    pub queue_depth: usize,
    /// `FLAGCX_P2P_CQ_DEPTH`, entries per NIC.
    pub cq_depth: u32,
    /// `FLAGCX_P2P_MAX_WR_PER_POST`.
    pub max_wr_per_post: usize,
    /// `FLAGCX_P2P_MAX_REQUESTS`; four times this many requests may be posted per NIC.
    pub max_requests: usize,
    /// `FLAGCX_P2P_BATCH_POLL_SIZE`.
    pub batch_poll_size: usize,
    /// `FLAGCX_P2P_SPIN_US`.
    pub spin: Duration,

    /// `FLAGCX_P2P_SLICE_SIZE`, bytes; 0 cuts only at what the device can carry.
    pub slice_size: u64,
    /// `FLAGCX_P2P_FRAGMENT_LIMIT`, bytes.
    pub fragment_limit: u64,
    /// `FLAGCX_P2P_MAX_SGE`.
    pub max_sge: u32,
    /// `FLAGCX_P2P_MAX_INLINE`, bytes; 0 when only `FLAGCX_IB_USE_INLINE` is set, and off.
    pub max_inline: u32,

    /// `FLAGCX_P2P_RAIL_MAP`.
    #[doc(hidden)]
    pub rail_map: RailMap,
    /// `FLAGCX_P2P_RAIL_SILENCE_MS`.
    pub rail_silence: Duration,
    /// `FLAGCX_P2P_RAIL_SILENCE_GAPS`.
    pub rail_silence_gaps: u64,
    /// `FLAGCX_P2P_RAIL_ANSWER_MS`.
    pub rail_answer: Duration,
    /// `FLAGCX_P2P_RAIL_PAUSE_MS`.
    pub rail_pause: Duration,
    /// `FLAGCX_P2P_RAIL_LONGEST_PAUSE_MS`.
    pub rail_longest_pause: Duration,
    /// `FLAGCX_P2P_RAIL_FAILURES`.
    pub rail_failures: u32,
    /// `FLAGCX_P2P_RAIL_FAILURE_WINDOW_MS`.
    pub rail_failure_window: Duration,
    /// `FLAGCX_P2P_RAIL_MIN_BYTES`.
    pub rail_min_bytes: u64,

    /// `FLAGCX_P2P_XFER_TIMEOUT_MS`; `None` for no limit.
    pub xfer_timeout: Option<Duration>,
    /// `FLAGCX_P2P_FAILED_HOLD_MS`.
    pub failed_hold: Duration,
    /// `FLAGCX_P2P_CONNECT_TIMEOUT_MS`.
    pub connect_timeout: Duration,
    /// `FLAGCX_P2P_HANDSHAKE_TIMEOUT_MS`.
    pub handshake_timeout: Duration,
    /// `FLAGCX_P2P_CONTROL_REDIAL`; `None`: never.
    pub control_redial: Option<Duration>,
    /// `FLAGCX_P2P_CONTROL_REDIAL_ADDRESSES`, empty for those of the host.
    pub control_redial_addresses: Vec<IpAddr>,
    /// `FLAGCX_P2P_KEEPALIVE_MS`; `None` for off.
    pub keepalive: Option<Duration>,

    /// `FLAGCX_P2P_BIND`.
    pub bind: Option<IpAddr>,
    /// `FLAGCX_P2P_ADVERTISE`; its name is looked up when an engine opens.
    pub advertise: Option<Advertise>,
    /// `FLAGCX_P2P_PORT_RANGE`, inclusive.
    pub port_range: Option<(u16, u16)>,
    /// `FLAGCX_SOCKET_IFNAME`, in the syntax of [`NameList`]; `None` chooses.
    pub socket_ifname: Option<String>,
    /// `FLAGCX_SOCKET_FAMILY`; `None` for any.
    pub socket_family: Option<AddressFamily>,
    /// `FLAGCX_COMM_ID`.
    pub comm_id: Option<String>,

    /// `FLAGCX_P2P_NOTIF_MAX_PEERS`.
    pub notif_max_peers: usize,
    /// `FLAGCX_P2P_NOTIF_QUEUE`, messages.
    pub notif_queue: usize,
    /// `FLAGCX_P2P_NOTIF_MAX_BYTES`.
    pub notif_max_bytes: usize,

    /// `FLAGCX_P2P_AUTH_KEY_FILE`; read by [`Config::auth_key`].
    pub auth_key_file: Option<PathBuf>,
    /// `FLAGCX_P2P_AUTH_ALLOW_ORIGINAL`.
    pub auth_allow_original: bool,
    /// `FLAGCX_P2P_RUNTIME_CONTROL`.
    pub runtime_control: bool,
    /// `FLAGCX_P2P_ALLOW`; empty for every address.
    pub allow: Vec<IpNet>,

    /// `FLAGCX_P2P_METRICS`; `None` for no endpoint.
    pub metrics: Option<MetricsAddress>,

    /// `FLAGCX_P2P_DIRECTORY`, which the engine itself does not read: the tool and the Python package do.
    pub directory: Option<Hidden>,
    /// `FLAGCX_P2P_DIRECTORY_PASSWORD`.
    pub directory_password: Option<Hidden>,
    /// `FLAGCX_P2P_DIRECTORY_PASSWORD_FILE`.
    pub directory_password_file: Option<PathBuf>,

    /// `FLAGCX_DEBUG`.
    pub debug: Option<String>,
    /// `FLAGCX_DEBUG_SUBSYS`.
    pub debug_subsys: Option<String>,
    /// `FLAGCX_DEBUG_FILE`.
    pub debug_file: Option<String>,

    warnings: Vec<Warning>,
    settings: Vec<Setting>,
}

/// `FLAGCX_P2P_TRANSPORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// This engine.
    Ibrc,
    /// FlagCX's ACCL transport, to which the C++ facade hands over.
    Accl,
}

/// `FLAGCX_SOCKET_FAMILY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFamily {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`.
    V6,
}

/// A setting with which no engine may open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ConfigError {
    /// Name of the variable.
    pub variable: &'static str,
    /// What is wrong with it.
    pub text: String,
}

impl Config {
    /// The settings of the process: its environment, with the configuration files under it, read at the first call.
    pub fn global() -> Arc<Self> {
        Arc::clone(global())
    }

    /// Settings from `source`, which answers the text of a variable by its name, `None` if it is not set.
    ///
    /// Never fails: a text that is no value of its variable is replaced by the default. With some of those
    /// [`Engine::open`](crate::Engine::open) refuses, and says why.
    pub fn from_source(source: &dyn Fn(&str) -> Option<String>) -> Self {
        parse::config(source)
    }

    /// What could not be taken as it was written.
    #[doc(hidden)]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Every variable with the text that it was set to, in the order of the table.
    #[doc(hidden)]
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// An error if a setting is so wrong that no engine may open with it.
    #[doc(hidden)]
    pub fn check(&self) -> Result<(), ConfigError> {
        match self.warnings.iter().find(|warning| warning.severity == Severity::Fatal) {
            Some(warning) => Err(ConfigError { variable: warning.variable, text: warning.text.clone() }),
            None => Ok(()),
        }
    }

    /// Writes the warnings, and the settings that differ from the defaults, to the log.
    #[doc(hidden)]
    pub fn log(&self) {
        for warning in &self.warnings {
            match warning.severity {
                Severity::Info => tracing::info!("{}", warning.text),
                Severity::Warn | Severity::Fatal => tracing::warn!("{}", warning.text),
            }
        }
        for setting in &self.settings {
            if let Some(text) = &setting.text {
                tracing::info!("{}={text}", setting.variable.name);
            }
        }
    }

    /// The pre-shared key, `None` when no file is named. Read anew at each call.
    #[doc(hidden)]
    pub fn auth_key(&self) -> Result<Option<AuthKey>, ConfigError> {
        self.auth_key_file.as_deref().map(read_key_file).transpose()
    }

    /// What the fabric needs to know.
    #[doc(hidden)]
    pub fn fabric_options(&self) -> Result<FabricOptions, ConfigError> {
        Ok(FabricOptions {
            choice: self.fabric,
            verbs_disabled: self.ib_disable,
            verbs: self.verbs_options(),
            software: SoftwareOptions {
                bind: self.bind,
                advertise: None,
                ports: self.port_range,
                force: self.path,
                auth_key: self.auth_key()?,
                allow: self.allow.clone(),
                faults: self.faults.clone(),
                switches: false,
                device_count: self.software_devices,
                sleeps_at_once: self.spin.is_zero(),
                handshake_timeout: self.handshake_timeout,
            },
        })
    }

    fn verbs_options(&self) -> VerbsOptions {
        VerbsOptions {
            hca: self.ib_hca.clone(),
            gid_index: self.gid_index,
            roce_version: self.roce_version,
            prefer_ipv6: self.prefer_ipv6,
            address_range: self.ib_addr_range.clone(),
            timeout: self.ib_timeout,
            retry_count: self.retry_count,
            pkey_index: self.pkey_index,
            service_level: self.service_level,
            traffic_class: self.traffic_class,
            max_mtu: self.mtu,
            port: self.ib_port,
            relaxed_ordering: self.relaxed_ordering,
            library: self.ibverbs.clone(),
            ..VerbsOptions::default()
        }
    }
}

impl Default for Config {
    /// Every variable unset.
    fn default() -> Self {
        Self::from_source(&|_| None)
    }
}

/// The process's configuration: read at the first call, logged once, constant from then on.
pub fn global() -> &'static Arc<Config> {
    static GLOBAL: PerProcess<OnceCell<Arc<Config>>> = PerProcess::new(OnceCell::new);
    GLOBAL.get().get_or_init(|| {
        let files = Files::load();
        let config = Config::from_source(&|name| files.layered(name));
        config.log();
        for remark in files.unknown_names() {
            tracing::warn!("{remark}");
        }
        Arc::new(config)
    })
}
