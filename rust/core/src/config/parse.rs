//! From the table's variables to the typed fields, with the rules that tie several of them together.

use std::net::IpAddr;
use std::time::Duration;

use super::reader::{Reader, Setting, Severity, Warning};
use super::table::{
    RETIRED, deadlines, directory, fabric, groups, logging, metrics, network, notifications, queues, rails,
    rdma, security, slices,
};
use super::variable::{Kind, Variable};
use super::{AddressFamily, Config, MetricsAddress, NameList, Transport, hidden};
use crate::control::resume::MAX_RESUME_ADDRESSES;
use crate::control::{Advertise, parse_networks};
use crate::fabric::{FabricChoice, PathKind};
use crate::rails::RailMap;
use crate::topology::NicMap;

pub(super) fn config(source: &dyn Fn(&str) -> Option<String>) -> Config {
    let mut reader = Reader::new(source);
    let read = &mut reader;

    let fabric = match read.word(&fabric::FABRIC) {
        "verbs" => FabricChoice::Verbs,
        "software" => FabricChoice::Software,
        _ => FabricChoice::Auto,
    };
    let path = match read.word(&fabric::PATH) {
        "in-process" => Some(PathKind::InProcess),
        "cross-memory" => Some(PathKind::CrossMemory),
        "tcp" => Some(PathKind::Tcp),
        "shared" => Some(PathKind::Shared),
        _ => None,
    };
    let gid_index = read.set_integer(&rdma::GID_INDEX);
    let ib_gid_index = read.integer(&rdma::IB_GID_INDEX);
    let traffic_class = read.set_integer(&rdma::TRAFFIC_CLASS);
    let ib_traffic_class = read.set_integer(&rdma::IB_TC);
    let retry_count = read.set_integer(&rdma::RETRY_CNT);
    let ib_retry_count = read.integer(&rdma::IB_RETRY_CNT);

    let qps_per_conn: u32 = read.number(&queues::QPS_PER_CONN);
    let workers_per_pool = read.number::<usize>(&queues::WORKERS_PER_POOL).min(qps_per_conn as usize);
    let shard_count = read.number::<usize>(&queues::SHARD_COUNT).max(workers_per_pool);
    let slice_size: u64 = read.number(&slices::SLICE_SIZE);
    let fragment_limit = fragment_limit(read, slice_size);
    let use_inline = read.set_integer(&slices::IB_USE_INLINE);
    let max_inline = read.set_integer(&slices::MAX_INLINE).and_then(|bytes| u32::try_from(bytes).ok());
    let default_inline = if use_inline == Some(0) { 0 } else { 64 };

    let mut config = Config {
        fabric,
        path,
        software_devices: read.number(&fabric::SOFTWARE_DEVICES),
        faults: read.text(&fabric::FAULTS).unwrap_or_default(),
        transport: match read.word(&fabric::TRANSPORT) {
            "accl" => Transport::Accl,
            _ => Transport::Ibrc,
        },
        ib_disable: read.switch(&rdma::IB_DISABLE),
        ibverbs: read.text(&rdma::IBVERBS),
        ib_hca: read.parsed(&rdma::IB_HCA, NameList::check).unwrap_or_default(),
        ib_port: read.set_integer(&rdma::IB_PORT).and_then(|port| u8::try_from(port).ok()),
        gid_index: u8::try_from(gid_index.unwrap_or(ib_gid_index)).ok(),
        p2p_gid_index: gid_index.and_then(|index| i32::try_from(index).ok()).unwrap_or(-1),
        roce_version: read.number(&rdma::ROCE_VERSION),
        prefer_ipv6: read.word(&rdma::IB_ADDR_FAMILY) == "AF_INET6",
        ib_addr_range: read.parsed(&rdma::IB_ADDR_RANGE, parse_range).unwrap_or_default(),
        mtu: read.number(&rdma::MTU),
        traffic_class: [traffic_class, ib_traffic_class]
            .into_iter()
            .find_map(|class| u8::try_from(class?).ok()),
        p2p_traffic_class: traffic_class.and_then(|class| i32::try_from(class).ok()).unwrap_or(-1),
        retry_count: u8::try_from(retry_count.unwrap_or(ib_retry_count)).unwrap_or(7),
        ib_timeout: read.number(&rdma::IB_TIMEOUT),
        pkey_index: read.number(&rdma::IB_PKEY),
        service_level: read.number(&rdma::IB_SL),
        relaxed_ordering: read.integer(&rdma::RELAXED_ORDERING) != 0,
        flush_writes: tristate(read.integer(&rdma::GDR_WRITE_FLUSH)),
        flush_reads: read.integer(&rdma::GDR_READ_FLUSH) == 1,
        dest_dev_affinity: read.switch(&rdma::DEST_DEV_AFFINITY),
        nic_map: read.parsed(&rdma::NIC_MAP, NicMap::parse).unwrap_or_default(),
        topology_file: read.text(&rdma::TOPO_FILE).map(Into::into),
        qps_per_conn,
        rails: read.number(&queues::RAILS),
        workers_per_pool,
        shard_count,
        queue_depth: read.number(&queues::QUEUE_DEPTH),
        cq_depth: read.number(&queues::CQ_DEPTH),
        max_wr_per_post: read.number(&queues::MAX_WR_PER_POST),
        max_requests: read.number(&queues::MAX_REQUESTS),
        batch_poll_size: read.number(&queues::BATCH_POLL_SIZE),
        spin: Duration::from_micros(read.number(&queues::SPIN_US)),
        slice_size,
        fragment_limit,
        max_sge: read.number(&slices::MAX_SGE),
        max_inline: max_inline.unwrap_or(default_inline),
        rail_map: read.parsed_or_none(&rails::RAIL_MAP, RailMap::parse).unwrap_or_default(),
        rail_silence: Duration::from_millis(read.number(&rails::RAIL_SILENCE_MS)),
        rail_silence_gaps: read.number(&rails::RAIL_SILENCE_GAPS),
        rail_answer: Duration::from_millis(read.number(&rails::RAIL_ANSWER_MS)),
        rail_pause: Duration::from_millis(read.number(&rails::RAIL_PAUSE_MS)),
        rail_longest_pause: Duration::from_millis(read.number(&rails::RAIL_LONGEST_PAUSE_MS)),
        rail_failures: read.number(&rails::RAIL_FAILURES),
        rail_failure_window: Duration::from_millis(read.number(&rails::RAIL_FAILURE_WINDOW_MS)),
        rail_min_bytes: read.number(&rails::RAIL_MIN_BYTES),
        xfer_timeout: optional_millis(read, &deadlines::XFER_TIMEOUT_MS),
        failed_hold: Duration::from_millis(read.number(&deadlines::FAILED_HOLD_MS)),
        connect_timeout: Duration::from_millis(read.number(&deadlines::CONNECT_TIMEOUT_MS)),
        handshake_timeout: Duration::from_millis(read.number(&deadlines::HANDSHAKE_TIMEOUT_MS)),
        control_redial: optional_millis(read, &deadlines::CONTROL_REDIAL),
        control_redial_addresses: read
            .parsed_or_none(&network::CONTROL_REDIAL_ADDRESSES, parse_addresses)
            .unwrap_or_default(),
        keepalive: optional_millis(read, &deadlines::KEEPALIVE_MS),
        bind: read.parsed(&network::BIND, parse_address),
        advertise: read.parsed(&network::ADVERTISE, Advertise::parse),
        port_range: read.parsed(&network::PORT_RANGE, parse_port_range),
        socket_ifname: read.parsed(&network::SOCKET_IFNAME, NameList::check),
        socket_family: match read.word(&network::SOCKET_FAMILY) {
            "AF_INET" => Some(AddressFamily::V4),
            "AF_INET6" => Some(AddressFamily::V6),
            _ => None,
        },
        comm_id: read.text(&network::COMM_ID),
        notif_max_peers: read.number(&notifications::NOTIF_MAX_PEERS),
        notif_queue: read.number(&notifications::NOTIF_QUEUE),
        notif_max_bytes: read.number(&notifications::NOTIF_MAX_BYTES),
        auth_key_file: read.text(&security::AUTH_KEY_FILE).map(Into::into),
        auth_allow_original: read.switch(&security::AUTH_ALLOW_ORIGINAL),
        runtime_control: read.switch(&security::RUNTIME_CONTROL),
        allow: read.parsed(&security::ALLOW, parse_networks).unwrap_or_default(),
        metrics: read.parsed_or_none(&metrics::METRICS, MetricsAddress::parse),
        directory: read.hidden(&directory::DIRECTORY, hidden::url_without_password),
        directory_password: read.hidden(&directory::DIRECTORY_PASSWORD, hidden::set),
        directory_password_file: read.text(&directory::DIRECTORY_PASSWORD_FILE).map(Into::into),
        debug: read.text(&logging::DEBUG),
        debug_subsys: read.text(&logging::DEBUG_SUBSYS),
        debug_file: read.text(&logging::DEBUG_FILE),
        warnings: Vec::new(),
        settings: Vec::new(),
    };
    note_retired(&mut reader);
    config.warnings = reader.warnings;
    config.settings = in_order_of_table(&reader.settings);
    config
}

fn in_order_of_table(settings: &[Setting]) -> Vec<Setting> {
    let order = groups().into_iter().flat_map(|group| group.variables);
    order
        .filter_map(|variable| settings.iter().find(|setting| setting.variable.name == variable.name))
        .cloned()
        .collect()
}

/// A fragment limit beyond the slice size is out of range like any other, and replaced by the default.
fn fragment_limit(read: &mut Reader<'_>, slice_size: u64) -> u64 {
    let limit: u64 = read.number(&slices::FRAGMENT_LIMIT);
    let default = match slices::FRAGMENT_LIMIT.kind {
        Kind::Integer { default, .. } => u64::try_from(default).unwrap_or_default(),
        _ => limit,
    };
    if slice_size == 0 || limit <= slice_size || limit == default {
        return limit;
    }
    let variable = slices::FRAGMENT_LIMIT.name;
    let text =
        format!("{variable}={limit} is beyond the slice size {slice_size}; using the default {default}");
    read.warnings.push(Warning { severity: Severity::Info, variable, text, rejected: true });
    default
}

/// Whether it is 1, where -1 leaves that open.
fn tristate(number: i64) -> Option<bool> {
    (number >= 0).then_some(number != 0)
}

/// Zero means none.
fn optional_millis(read: &mut Reader<'_>, variable: &'static Variable) -> Option<Duration> {
    let millis: u64 = read.number(variable);
    (millis != 0).then(|| Duration::from_millis(millis))
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| "expected a numeric IP address".to_owned())
}

fn parse_addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let addresses: Vec<_> = text.split(',').map(|one| parse_address(one.trim())).collect::<Result<_, _>>()?;
    if addresses.len() > MAX_RESUME_ADDRESSES {
        return Err(format!("{} addresses, at most {MAX_RESUME_ADDRESSES} are told", addresses.len()));
    }
    Ok(addresses)
}

fn parse_range(text: &str) -> Result<String, String> {
    match parse_networks(text)?.len() {
        1 => Ok(text.to_owned()),
        _ => Err("expected one network, address/prefix length".to_owned()),
    }
}

fn parse_port_range(text: &str) -> Result<(u16, u16), String> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (low.trim().parse::<u16>(), high.trim().parse::<u16>()) {
        (Ok(low), Ok(high)) if 0 < low && low <= high => Ok((low, high)),
        _ => Err("expected low-high with 1 <= low <= high <= 65535".to_owned()),
    }
}

fn note_retired(reader: &mut Reader<'_>) {
    for &(variable, reason) in RETIRED {
        if let Some(text) = reader.lookup(variable) {
            let text = format!("{variable}={text} has no effect: {reason}");
            reader.warnings.push(Warning { severity: Severity::Info, variable, text, rejected: false });
        }
    }
}

#[cfg(test)]
mod tests;
