//! The wire of every listener, spoken by hand: as far as any client gets without a key, and, where a key is given, with it.
#![allow(dead_code, unreachable_pub, reason = "each attack uses its share")]

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flagcx_p2p::internals::auth::{AuthKey, Initiator, Nonces, PROOF_SIZE, Purpose, random};
use flagcx_p2p::internals::control::wire::{
    ControlMeta, Features, FrameHeader, HANDLE_SIZE, Handle, LANE_RECORD_SIZE, LaneCapabilities, LaneRecord,
    REGION_SIZE, RegionEntry, SocketKind, Tag, decode_regions, notification,
};
use flagcx_p2p::internals::fabric::{LINK_SOFTWARE, QpAddress};

/// No answer takes longer unless there is none.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A socket to a listener of this host; nothing has been sent.
pub fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A socket that has sent the preamble of its kind.
pub fn open(port: u16, kind: SocketKind) -> io::Result<TcpStream> {
    let mut stream = connect(port)?;
    stream.write_all(&kind.encode())?;
    Ok(stream)
}

pub fn frame(tag: Tag, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader { tag: tag as i32, size: payload.len() as i32 }.encode();
    [&header[..], payload].concat()
}

pub fn read_array<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The payload of the next frame, which must have this tag.
pub fn read_frame(stream: &mut TcpStream, tag: Tag) -> io::Result<Vec<u8>> {
    let header = FrameHeader::decode(&read_array::<8>(stream)?).map_err(io::Error::other)?;
    let size = header.expect(tag, 64 << 20).map_err(io::Error::other)?;
    let mut payload = vec![0; size];
    stream.read_exact(&mut payload)?;
    Ok(payload)
}

/// Whether the other end has closed, after reading its earlier data.
pub fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let closed = loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => break true,
            Ok(_) => {}
            Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
        }
    };
    stream.set_nonblocking(false).unwrap();
    closed
}

/// The features of a client in its handle, without a key.
pub fn features() -> Features {
    Features {
        bits: Features::CHANNEL | Features::REBUILD | Features::REGIONS,
        max_notification: 1 << 20,
        incarnation: u64::from_le_bytes(random().unwrap()),
        process: u64::from_le_bytes(random().unwrap()),
        nonce: random().unwrap(),
        ..Features::default()
    }
}

/// Answers data hellos without a key, as a device's data listener does, and then does nothing: without it no engine ends a
/// handshake, because that connects its queue pairs to the client's.
pub struct FakeDevice {
    pub port: u16,
    sockets: Arc<Mutex<Vec<TcpStream>>>,
}

impl FakeDevice {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let sockets = Arc::<Mutex<Vec<_>>>::default();
        let answered = Arc::clone(&sockets);
        // Ends with the process: a few tests run in it.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let answered = Arc::clone(&answered);
                std::thread::spawn(move || {
                    if let Ok(stream) = answer_data_hello(stream) {
                        answered.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
                    }
                });
            }
        });
        Self { port, sockets }
    }

    /// One that it has answered.
    pub fn take_socket(&self) -> Option<TcpStream> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Hangs up on those that it has answered.
    pub fn close_sockets(&self) {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn answer_data_hello(mut stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    read_array::<GREETING_SIZE>(&mut stream)?;
    stream.write_all(&greeting(false, [0; 16]))?;
    read_array::<OFFER_SIZE>(&mut stream)?;
    // Welcome; slot, token; an identity of no process of this host; no Unix socket.
    let answer =
        [&[0; PROOF_SIZE][..], &[0; 8], &[0; 8], &42_u64.to_le_bytes(), &identity(), &[0; 64]].concat();
    stream.write_all(&answer)?;
    Ok(stream)
}

const GREETING_SIZE: usize = 32;
const OFFER_SIZE: usize = PROOF_SIZE + 32 + 8 + IDENTITY_SIZE;
const ANSWER_SIZE: usize = PROOF_SIZE + 24 + IDENTITY_SIZE + 64;
const IDENTITY_SIZE: usize = 64;

/// Version of the data hello.
pub const DATA_VERSION: u8 = 5;

/// The first message on a data socket, of either side.
pub fn greeting(keyed: bool, nonce: [u8; 16]) -> Vec<u8> {
    [&b"FCXP2Psw"[..], &[DATA_VERSION, 0, u8::from(keyed), 0, 0, 0, 0, 0], &nonce].concat()
}

/// The identity of a process on another host.
fn identity() -> Vec<u8> {
    let (pid, uid) = (1_u32, 0_u32);
    [&pid.to_le_bytes()[..], &uid.to_le_bytes(), &[0xee; 16], &7_u64.to_le_bytes(), &[0; 32]].concat()
}

/// An address of a queue pair of `device` in a data hello.
fn encode_address(address: &QpAddress) -> Vec<u8> {
    let end = [address.port, address.link_layer, address.mtu, 0, 0, 0, 0, 0];
    [&address.qpn.to_le_bytes()[..], &address.gid, &address.lid.to_le_bytes(), &end].concat()
}

/// Of a queue pair of the device with this data listener.
pub fn address(qpn: u32, port: u16) -> QpAddress {
    QpAddress {
        qpn,
        gid: Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets(),
        port: 1,
        link_layer: LINK_SOFTWARE,
        lid: port.into(),
        mtu: 5,
    }
}

/// A connection after a complete handshake without a key, as its initiator has it.
pub struct Client {
    /// Closed by engines at this point; open here until the client closes it.
    pub bootstrap: TcpStream,
    /// The lane socket: the control channel.
    pub channel: TcpStream,
    /// Our queue pair number of each lane, and the victim's queue pair.
    pub lanes: Vec<(u32, QpAddress)>,
    pub notify_port: u16,
    pub regions: Vec<RegionEntry>,
    device: u16,
}

impl Client {
    /// A handshake with the control listener on `port`, with so many lanes to `device`; its queue pairs are numbered
    /// from `first`. Announces nothing.
    pub fn connect(port: u16, device: &FakeDevice, lanes: u32, first: u32) -> io::Result<Self> {
        let mut bootstrap = open(port, SocketKind::Bootstrap)?;
        let handle = Handle {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9),
            features: Some(features()),
        };
        bootstrap.write_all(&frame(Tag::Handle, &handle.encode()))?;
        let answer = read_frame(&mut bootstrap, Tag::Handle)?;
        assert_eq!(answer.len(), HANDLE_SIZE);
        let handle = Handle::decode(&answer).map_err(io::Error::other)?;
        let mut channel = open(handle.address.port(), SocketKind::Lanes)?;
        channel.write_all(&lanes.to_le_bytes())?;
        let count = u32::from_le_bytes(read_array(&mut channel)?).min(lanes);
        for qpn in first..first + count {
            let capabilities = Some(LaneCapabilities { rd_atomic_initiator: 16, rd_atomic_responder: 16 });
            let record = LaneRecord { address: address(qpn, device.port), capabilities };
            channel.write_all(&record.encode())?;
        }
        let mut lanes = Vec::new();
        for qpn in first..first + count {
            let record = read_array::<LANE_RECORD_SIZE>(&mut channel)?;
            lanes.push((qpn, LaneRecord::decode(&record).map_err(io::Error::other)?.address));
        }
        channel.write_all(&1_i32.to_le_bytes())?;
        read_array::<4>(&mut channel)?;
        let meta = ControlMeta { gpu_index: 0, notify_port: 0, local: false, same_process: false };
        bootstrap.write_all(&frame(Tag::Meta, &meta.encode()))?;
        let meta = read_frame(&mut bootstrap, Tag::Meta)?;
        let notify_port = ControlMeta::decode(&meta).map_err(io::Error::other)?.notify_port;
        bootstrap.write_all(&frame(Tag::RegionCount, &0_u32.to_le_bytes()))?;
        read_frame(&mut bootstrap, Tag::RegionCount)?;
        bootstrap.write_all(&frame(Tag::Regions, &[]))?;
        let regions = read_frame(&mut bootstrap, Tag::Regions)?;
        assert_eq!(regions.len() % REGION_SIZE, 0);
        let regions = decode_regions(&regions).map_err(io::Error::other)?;
        Ok(Self { bootstrap, channel, lanes, notify_port, regions, device: device.port })
    }

    /// A data socket of a lane, welcomed by the victim.
    pub fn data(&self, lane: usize) -> io::Result<TcpStream> {
        let (stream, answer) = self.hello(lane, None)?;
        match answer.reception {
            0 => Ok(stream),
            other => Err(io::Error::other(format!("the data listener's reception is {other}"))),
        }
    }

    /// A data socket of a lane, to the victim's queue pair of that lane or of this number, and the answer to its offer.
    pub fn hello(&self, lane: usize, target: Option<u32>) -> io::Result<(TcpStream, DataHelloAnswer)> {
        let (qpn, counterpart) = &self.lanes[lane];
        let mut stream = connect(counterpart.lid as u16)?;
        stream.write_all(&greeting(false, [0; 16]))?;
        read_array::<GREETING_SIZE>(&mut stream)?;
        let sender = encode_address(&address(*qpn, self.device));
        let target = [&target.unwrap_or(counterpart.qpn).to_le_bytes()[..], &[0; 4]].concat();
        let offer = [&[0; PROOF_SIZE][..], &sender, &target, &identity()].concat();
        stream.write_all(&offer)?;
        let answer = read_array::<ANSWER_SIZE>(&mut stream)?;
        let body = answer[PROOF_SIZE..].to_vec();
        let name = body[24 + IDENTITY_SIZE..][..usize::from(body[2])].to_vec();
        let token = u64::from_le_bytes(body[16..24].try_into().unwrap());
        Ok((stream, DataHelloAnswer { reception: body[0], token, name, body }))
    }
}

/// The answer of a data listener to an offer.
pub struct DataHelloAnswer {
    /// 0: welcome.
    pub reception: u8,
    pub token: u64,
    /// Abstract name of its Unix socket.
    pub name: Vec<u8>,
    /// All of it, behind the seal.
    pub body: Vec<u8>,
}

pub const WRITE: u64 = 1;
pub const READ: u64 = 2;

/// A request on a data socket, alone in its group; the payload of a WRITE follows it.
pub fn request(action: u64, rkey: u32, address: u64, length: u64, sequence: u64) -> Vec<u8> {
    let first = 0xf1 | action << 8 | u64::from(rkey) << 32;
    [first, address, length, sequence].iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A socket of notifications, without a key.
pub fn notifications(port: u16) -> io::Result<TcpStream> {
    open(port, SocketKind::Notifications)
}

/// The same with a key: both sides have proven it.
pub fn keyed_notifications(port: u16, key: &AuthKey) -> io::Result<TcpStream> {
    let mut stream = notifications(port)?;
    let initiator = random()?;
    stream.write_all(&[&notification::Header::Hello.encode()[..], &initiator].concat())?;
    let responder = read_array(&mut stream)?;
    let nonces = Nonces { initiator, responder };
    let (exchange, proof) = Initiator::prove(key, Purpose::NOTIFICATIONS, nonces);
    stream.write_all(&proof)?;
    exchange.verify(&read_array(&mut stream)?).map_err(io::Error::other)?;
    Ok(stream)
}

/// A notification of at most 256 bytes each.
pub fn message(name: &[u8], text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; notification::MESSAGE_SIZE];
    let (header, rest) = bytes.split_at_mut(notification::HEADER_SIZE);
    let (to_name, to_text) = rest.split_at_mut(notification::NAME_SIZE);
    header.copy_from_slice(&notification::Header::Message.encode());
    to_name[..name.len()].copy_from_slice(name);
    to_text[..text.len()].copy_from_slice(text);
    bytes
}
