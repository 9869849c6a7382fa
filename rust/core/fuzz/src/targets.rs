//! One function per decoder. Each must survive any input, and what it accepts must survive being written again.

use flagcx_p2p::internals::auth::{AuthKey, Initiator, Nonces, PROOF_SIZE, Purpose, Responder};
use flagcx_p2p::internals::config::{Config, Files, NameList, parse_integer};
use flagcx_p2p::internals::control::wire::notification::{Header, decode_message};
use flagcx_p2p::internals::control::wire::{
    ControlMeta, Features, FrameHeader, Handle, Hello, LaneRecord, RegionChanges, RegionEntry, SliceSettings,
    SocketKind, Tag, decode_address, decode_regions, encode_address, encode_regions,
};
use flagcx_p2p::internals::control::{
    Metadata, Received, encode_acknowledgement, encode_nics, encode_offer, numeric, parse_address,
    split_session,
};
use flagcx_p2p::internals::endpoint::{MAX_HEAD, Parsed, parse};
use flagcx_p2p::internals::fabric::software::replies_to;
use flagcx_p2p::internals::fabric::{HcaFilter, Opcode};
use flagcx_p2p::internals::memory::{RemoteCheck, RemoteRegions};
use flagcx_p2p::internals::notify::{Decoder, SenderPolicy};
use flagcx_p2p::internals::topology::{CpuSet, gid_interface, roce_version};

/// A target: its name, which is that of its corpus and of its file under `fuzz_targets/`, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Targets of the tool's decoders, with corpora here as well. Its own tests run these: the engine does not depend on it.
pub const OF_THE_TOOL: &[&str] = &["bench_frame"];

/// Every other target.
pub const TARGETS: &[Target] = &[
    ("address", address),
    ("auth", auth),
    ("channel", channel),
    ("config", config),
    ("config_file", config_file),
    ("cpu_list", cpu_list),
    ("frame", frame),
    ("gid_attributes", gid_attributes),
    ("handle", handle),
    ("hca_list", hca_list),
    ("hello", hello),
    ("http_request", http_request),
    ("lane", lane),
    ("meta", meta),
    ("metadata", metadata),
    ("name_list", name_list),
    ("notification", notification),
    ("opening", opening),
    ("preamble", preamble),
    ("region_changes", region_changes),
    ("regions", regions),
    ("runtime_control", runtime_control),
    ("session", session),
];

/// The socket preamble.
pub fn preamble(data: &[u8]) {
    if let Ok(Ok(kind)) = SocketKind::decode(data) {
        assert!(data.starts_with(&kind.encode()));
    }
}

/// The socket address union.
pub fn address(data: &[u8]) {
    if let Ok(address) = decode_address(data) {
        assert_eq!(decode_address(&encode_address(&address)), Ok(address));
    }
}

/// The listen handle and the features behind it.
pub fn handle(data: &[u8]) {
    let _ = Features::decode(data);
    if let Ok(handle) = Handle::decode(data) {
        assert_eq!(Handle::decode(&handle.encode()), Ok(handle));
        assert_eq!(Handle::decode_raw(data), Ok(handle.address));
    }
}

/// The header of bootstrap frames.
pub fn frame(data: &[u8]) {
    if let Ok(header) = FrameHeader::decode(data) {
        assert!(data.starts_with(&header.encode()));
        if let Ok(size) = header.expect(Tag::Regions, 1000) {
            assert!(size <= 1000);
        }
    }
}

/// The hello of FlagCX's next version.
pub fn opening(data: &[u8]) {
    if let Ok(hello) = Hello::decode(data) {
        assert!(data.starts_with(&hello.encode()));
        assert_eq!(hello.check().is_ok(), hello == Hello::OURS);
    }
}

/// Requests of the runtime control, and answers that repeat what they say.
pub fn runtime_control(data: &[u8]) {
    match SliceSettings::parse_request(data) {
        Ok(SliceSettings { slice_size, fragment_limit }) => {
            assert!(slice_size == 0 || (4096..=1 << 30).contains(&slice_size));
            assert!(fragment_limit <= 1 << 30);
        }
        Err(error) => {
            let answer = SliceSettings::default().encode_answer(&error.to_string());
            assert!(!answer.contains(char::is_control) && answer.len() < 4096, "{answer}");
        }
    }
}

/// The control meta.
pub fn meta(data: &[u8]) {
    if let Ok(meta) = ControlMeta::decode(data) {
        assert_eq!(ControlMeta::decode(&meta.encode()), Ok(meta));
    }
}

/// The region table.
pub fn regions(data: &[u8]) {
    if let Ok(regions) = decode_regions(data) {
        assert_eq!(decode_regions(&encode_regions(&regions)), Ok(regions.clone()));
        look_up(
            &RemoteRegions::new(&regions),
            regions.iter().map(|entry| (entry.rkey, entry.base, entry.size)),
        );
    }
}

/// What a peer's table says of its ranges, and of those that reach into the next: a range in segments is all of them, each byte once.
fn look_up(regions: &RemoteRegions, ranges: impl Iterator<Item = (u32, u64, u64)>) {
    let table = regions.table();
    for (rkey, base, size) in ranges.take(64) {
        for (address, length) in
            [(base, size), (base, size.wrapping_add(1)), (base.wrapping_add(size), 0), (base, 0)]
        {
            let _ = (table.find(address, length), table.boundary_in(address, length));
            for opcode in [Opcode::Write, Opcode::Read] {
                if let Some((first, part)) = table.first_key_at(rkey, address, length)
                    && let Some((found, part)) = table.key_at(first, address, part, opcode)
                {
                    assert!(
                        part <= length
                            && found.holds(found.rkey, address, part)
                            && !(found.read_only && opcode == Opcode::Write)
                    );
                }
                if let Some(found) = table.key_across(&table, rkey, address, length, opcode) {
                    assert!(table.segments(found, address, length).is_some());
                }
            }
            let is_across = matches!(table.check(rkey, address, length), RemoteCheck::InSegments { .. });
            let segments = table.segments(rkey, address, length);
            assert!(!is_across || segments.is_some());
            let mut at = address;
            for segment in segments.into_iter().flatten().filter(|_| length > 0) {
                assert!(segment.base <= at && at - segment.base < segment.size, "{at:#x} {segment:?}");
                at = segment.base + segment.size;
            }
            assert!(!is_across || length == 0 || at >= address + length);
        }
    }
}

/// Changes of regions, and a peer's table that takes them.
pub fn region_changes(data: &[u8]) {
    if let Ok(changes) = RegionChanges::decode(data) {
        assert_eq!(RegionChanges::decode(&changes.encode()), Ok(changes.clone()));
        // Beside regions that the handshake has told, which the changes may continue.
        let told = |id: u32| RegionEntry {
            base: u64::from(id) << 12,
            size: 1 << 12,
            rkey: id,
            id,
            read_only: false,
            continues: id > 1,
            gpu_flush: id == 2,
        };
        let regions = RemoteRegions::new(&[1, 2, 3].map(told));
        if regions.apply(&changes).is_ok() {
            let ranges =
                changes.entries.iter().filter_map(|entry| Some((entry.rkey?, entry.base, entry.size)));
            look_up(&regions, ranges);
        }
    }
}

/// Requests of the metrics endpoint. What is complete stays so, whatever follows, and was incomplete before its last byte.
pub fn http_request(data: &[u8]) {
    let parsed = parse(data);
    if data.len() >= MAX_HEAD {
        assert_ne!(parsed, Parsed::Incomplete);
    }
    if let Parsed::Complete(_) = parsed {
        assert_eq!(parse(&[data, b"GET /"].concat()), parsed);
        let mut parts = (0..=data.len()).map(|end| data.get(..end).map_or(Parsed::Incomplete, parse));
        assert_eq!(parts.find(|part| *part != Parsed::Incomplete), Some(parsed));
    }
}

/// The record of a lane.
pub fn lane(data: &[u8]) {
    if let Ok(record) = LaneRecord::decode(data) {
        assert_eq!(LaneRecord::decode(&record.encode()), Ok(record));
    }
}

/// A notification socket; the first byte chooses the receiver's policy.
pub fn notification(data: &[u8]) {
    let _ = Header::decode(data).map(Header::body_size);
    let _ = decode_message(data);
    let Some((policy, mut rest)) = data.split_first() else { return };
    let key = (policy & 1 != 0).then(|| AuthKey::new(&[7; 32]));
    let policy = SenderPolicy { key, allow_original: policy & 2 != 0, max_bytes: 1000 };
    let mut decoder = Decoder::new([1; 16]);
    while let Ok(Some((_, size))) = decoder.next(rest, &policy) {
        rest = rest.get(size..).unwrap_or_default();
    }
}

/// Two random numbers and a proof: no bytes are a proof of a key that the input was not made with.
pub fn auth(data: &[u8]) {
    let Some((initiator, rest)) = data.split_first_chunk() else { return };
    let Some((responder, rest)) = rest.split_first_chunk() else { return };
    let Some(proof) = rest.first_chunk::<PROOF_SIZE>() else { return };
    let (key, nonces) = (AuthKey::new(&[7; 32]), Nonces { initiator: *initiator, responder: *responder });
    for purpose in [Purpose::CONTROL, Purpose::DATA, Purpose::NOTIFICATIONS, Purpose::RESUME] {
        assert!(Responder::new(&key, purpose, nonces).verify(proof).is_err());
        assert!(Initiator::prove(&key, purpose, nonces).0.verify(proof).is_err());
    }
}

/// A client of the data listener; the first byte chooses whether there is a key. All that it gets is a greeting.
pub fn hello(data: &[u8]) {
    let Some((keyed, rest)) = data.split_first() else { return };
    let key = (keyed & 1 != 0).then(|| AuthKey::new(&[7; 32]));
    assert!(replies_to(rest, key.as_ref(), [1; 16]).len() <= 32);
}

/// Frames of the control channel.
pub fn channel(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some((heard, size))) = Received::decode(rest) {
        let again = match &heard {
            Received::Frame(frame) => frame.encode(),
            Received::Regions(frame) => frame.encode(),
            Received::Nics(nics) => encode_nics(nics),
            Received::Offer(offer) => encode_offer(offer),
            Received::Acknowledgement(count) => encode_acknowledgement(*count),
            Received::Unknown | Received::Nothing => Vec::new(),
        };
        if !again.is_empty() {
            assert_eq!(Received::decode(&again), Ok(Some((heard, again.len()))));
        }
        rest = rest.get(size..).unwrap_or_default();
    }
}

/// `host:port` and numeric addresses.
pub fn session(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok((host, port)) = split_session(&text) {
        assert!(!host.is_empty() && port != 0);
    }
    if let Some(address) = parse_address(&text) {
        let mut expected = address;
        expected.set_port(9);
        assert_eq!(numeric(&text, 9), Ok(Some(expected)));
    }
}

/// The metadata string.
pub fn metadata(data: &[u8]) {
    if let Ok(metadata) = String::from_utf8_lossy(data).parse::<Metadata>() {
        assert_eq!(metadata.to_string().parse(), Ok(metadata));
    }
}

/// Values of variables: the same text for each of them.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = parse_integer(&text);
    let config = Config::from_source(&|_| Some(text.clone().into_owned()));
    assert!(config.workers_per_pool <= config.qps_per_conn as usize);
    assert!(config.shard_count >= config.workers_per_pool);
    let _ = config.check();
}

/// A configuration file.
pub fn config_file(data: &[u8]) {
    let mut files = Files::default();
    files.add("/etc/flagcx.conf".as_ref(), &String::from_utf8_lossy(data));
    let config = Config::from_source(&|name| files.layered(name));
    let _ = config.check();
}

/// Lists of devices or interfaces; the first line is the list, the second a name.
pub fn name_list(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (list, name) = text.split_once('\n').unwrap_or((&text, "mlx5_0"));
    let list = NameList::parse(list);
    if list.is_empty() {
        assert!(list.matches(name, Some(1)));
    }
    let _ = list.matches(name, None);
}

/// The list of RDMA devices; the first line is the list, the second a device.
pub fn hca_list(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (list, device) = text.split_once('\n').unwrap_or((&text, "mlx5_0"));
    let _ = HcaFilter::parse(list).map(|filter| filter.allows(device, 1));
    // With a `^` in front it allows what it did not, unless it names nothing: that allows everything.
    let list = list.replace('^', "");
    let list = list.trim();
    if let (Ok(these), Ok(others)) = (HcaFilter::parse(list), HcaFilter::parse(&format!("^{list}"))) {
        let names_something = list.contains(|c: char| !c.is_whitespace() && c != '=' && c != ',');
        assert!(these.allows(device, 1) != others.allows(device, 1) || !names_something);
    }
}

/// What sysfs says of a GID; the first line is its type, the second its interface.
pub fn gid_attributes(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (version, interface) = text.split_once('\n').unwrap_or((&text, ""));
    assert!(roce_version(version).is_none_or(|version| version == 1 || version == 2));
    assert!(gid_interface(interface).is_none_or(|name| !name.is_empty() && interface.contains(name)));
}

/// CPU lists of sysfs.
pub fn cpu_list(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(set) = CpuSet::parse_list(&text) {
        let list: Vec<_> = set.iter().map(|cpu| cpu.to_string()).collect();
        assert_eq!(CpuSet::parse_list(&list.join(",")), Ok(set));
    }
}
