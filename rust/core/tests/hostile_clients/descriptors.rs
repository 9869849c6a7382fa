//! Clients that hold descriptors.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::control::wire::{Handle, SocketKind, Tag};
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::{Iov, Outcome};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::support;
use crate::victim::{LENGTH, Victim};
use crate::wire::{self, Client, FakeDevice};

/// What the attacks of this program rest on: the wire that they speak is the engine's.
#[test]
fn a_client_without_a_key_speaks_the_whole_wire() {
    let mut victim = Victim::start(&[]);
    let device = FakeDevice::start();
    let client = Client::connect(victim.port, &device, 2, 1000).unwrap();
    assert_eq!(client.notify_port, victim.notify_port);
    let region = client.regions.iter().find(|region| region.base == victim.address).unwrap();
    assert_eq!(region.size, LENGTH as u64);
    let mut data = client.data(0).unwrap();
    data.write_all(&wire::request(wire::WRITE, region.rkey, region.base, 8, 0)).unwrap();
    data.write_all(&[7; 8]).unwrap();
    // The header of an answer: done.
    wire::read_array::<16>(&mut data).unwrap();
    assert_eq!(victim.byte(7), 7);
    let mut notifications = wire::notifications(victim.notify_port).unwrap();
    notifications.write_all(&wire::message(b"name", b"text")).unwrap();
    support::eventually("the notification arrives", || victim.notifications() == 1);
}

/// Sockets of the attacker at each listener.
const SOCKETS: usize = 1100;
/// The victim's limit of descriptors, the usual default.
const NOFILE: usize = 1024;
/// Peers that connect meanwhile.
const PEERS: usize = 20;
/// Within this time they have all connected and transferred. An idle machine takes half a second to three.
const SOON: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Data,
    Control,
    Notifications,
    Unix,
}

#[test]
fn peers_connect_beside_a_thousand_silent_clients_at_any_listener() {
    for target in [Target::Data, Target::Control, Target::Notifications, Target::Unix] {
        besiege(target, None);
    }
}

#[test]
fn with_a_key_too() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, "correct horse battery staple").unwrap();
    for target in [Target::Data, Target::Control, Target::Notifications, Target::Unix] {
        besiege(target, key.to_str());
    }
}

/// Peers connect while an attacker behind the same address has opened [`SOCKETS`] silent sockets at one listener.
fn besiege(target: Target, key: Option<&str>) {
    let _alone = alone();
    raise_own_limit();
    let nofile = NOFILE.to_string();
    let mut settings = vec![("FLAGCX_P2P_CONNECT_TIMEOUT_MS", "15000")];
    settings.extend(key.map(|key| ("FLAGCX_P2P_AUTH_KEY_FILE", key)));
    let engine = support::engine(&settings);
    settings.push(("nofile", &nofile));
    let mut victim = Victim::start(&settings);
    let source = engine.allocate(LENGTH).unwrap();
    // What is opened with the first peer stays.
    drop(engine.connect("127.0.0.1", victim.port, 0, false).unwrap());
    std::thread::sleep(Duration::from_millis(200));
    let before = victim.descriptors();

    let attacker = attack(&victim, target);
    let begin = Instant::now();
    let (most, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let connections: Vec<_> = std::thread::scope(|scope| {
        let watched = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(victim.descriptors(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let peers: Vec<_> =
            (0..PEERS).map(|_| scope.spawn(|| engine.connect("127.0.0.1", victim.port, 0, false))).collect();
        let connections = peers.into_iter().map(|peer| peer.join().unwrap()).collect();
        over.store(true, Ordering::Relaxed);
        watched.join().unwrap();
        connections
    });
    let mut paths = Vec::new();
    for (index, connection) in connections.into_iter().enumerate() {
        let connection = connection.unwrap_or_else(|error| panic!("{target:?}: peer {index}: {error}"));
        assert!(source.write(index, &[index as u8 + 1]));
        let remote = connection.describe_remote(victim.address + index as u64, 1).unwrap();
        let (local, region) = (source.address() + index as u64, Some(source.region()));
        let id = connection.submit(Opcode::Write, &[Iov { local, length: 1, region, remote }][..]).unwrap();
        assert_eq!(support::outcome(&connection, id), Outcome::Done);
        assert_eq!(victim.byte(index), index as u8 + 1);
        paths.push(connection);
    }
    let (took, most) = (begin.elapsed(), most.into_inner());
    println!(
        "{target:?}, key: {}: {} hostile sockets, {PEERS} peers in {took:?}; the victim had {before} to {most} descriptors",
        key.is_some(),
        attacker.len()
    );
    assert!(took < SOON, "{target:?}: {took:?}");
    assert!(
        most < before + NOFILE / 4 + PEERS * EACH + SPARE,
        "{target:?}: {before} descriptors became {most}"
    );
    drop((attacker, paths));
    support::eventually("the victim has closed everything", || victim.descriptors() <= before);
    assert!(victim.is_alive());
}

/// Descriptors of a connection of a peer of this host at most: two sockets, two for each of up to four lanes, the shared
/// tables.
const EACH: usize = 16;
/// What handshakes under way hold beyond their permits for a moment.
const SPARE: usize = 32;

/// Opens [`SOCKETS`] silent sockets, as another user of the host where that is possible.
fn attack(victim: &Victim, target: Target) -> Vec<OwnedFd> {
    let ports = (victim.port, victim.notify_port, victim.data_port());
    let name = victim.unix_name();
    let attacker = std::thread::spawn(move || {
        become_another_user();
        let open = || match target {
            Target::Control => dial_tcp(ports.0),
            Target::Notifications => dial_tcp(ports.1),
            Target::Data => dial_tcp(ports.2),
            Target::Unix => dial_unix(&name),
        };
        let mut sockets = Vec::new();
        // A Unix socket with a full backlog refuses; TCP repeats its SYN.
        for _ in 0..4 * SOCKETS {
            match open() {
                Ok(socket) => sockets.push(socket),
                Err(_) => std::thread::sleep(Duration::from_micros(200)),
            }
            if sockets.len() == SOCKETS {
                break;
            }
        }
        sockets
    });
    attacker.join().unwrap()
}

/// This thread alone; the process keeps its user.
fn become_another_user() {
    const UNPRIVILEGED: libc::uid_t = 65_534;
    // SAFETY: the raw call changes the credentials of the calling thread and touches no memory.
    let answer = unsafe { libc::syscall(libc::SYS_setresuid, UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED) };
    if answer != 0 {
        println!("the attacker is the victim's user: not root ({})", io::Error::last_os_error());
    }
}

fn dial_tcp(port: u16) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    match socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

fn dial_unix(name: &[u8]) -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    connect(&socket, &SocketAddrUnix::new_abstract_name(name)?)?;
    Ok(socket)
}

/// The machine's time and this process's descriptors are measured: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The attacker is in this process.
fn raise_own_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(u64::MAX).min(8192);
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).unwrap();
}

/// Clients without a key that have ended their handshakes, and then sit there.
#[test]
fn complete_handshakes_without_a_key_are_bounded_and_end_with_their_channel() {
    const NOFILE: usize = 256;
    const LANES: usize = 4;
    // Of one address: seven eighths of what all of them may hold.
    const MOST: usize = NOFILE / 2 / 8 * 7 / (3 + LANES);
    let _alone = alone();
    let victim = Victim::start(&[("nofile", "256")]);
    let device = FakeDevice::start();
    let open = |index: u32| Client::connect(victim.port, &device, LANES as u32, 1000 + 10 * index);
    drop(open(0).unwrap());
    std::thread::sleep(Duration::from_millis(300));
    let before = victim.descriptors();
    // The handshake of one too many ends as well; then the victim closes them and logs the reason.
    let mut clients: Vec<_> = (1..=MOST as u32 + 3).filter_map(|index| open(index).ok()).collect();
    support::eventually("the surplus is dropped", || {
        clients.retain_mut(|client| !wire::is_closed(&mut client.channel));
        clients.len() == MOST
    });
    let held = victim.descriptors();
    assert!(held < NOFILE * 3 / 4, "{held} descriptors for {MOST} clients");
    // Their other sockets stay open: the end of the channel alone is the end of the connection.
    let begin = Instant::now();
    for client in &clients {
        client.channel.shutdown(std::net::Shutdown::Both).unwrap();
    }
    support::eventually("their descriptors are free", || victim.descriptors() <= before);
    println!("{MOST} clients held {held} descriptors, {before} remain after {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    // And there is room for others.
    assert!(open(500).is_ok());
}

/// Clients that send a valid hello and a byte more, and never open the lane socket: that byte keeps their sockets
/// readable, so that their end does not show by reading.
#[test]
fn unfinished_handshakes_with_unread_bytes_make_room() {
    const NOFILE: usize = 256;
    // More than twice what those without proof may hold, three descriptors each.
    const CLIENTS: usize = 60;
    let _alone = alone();
    let victim = Victim::start(&[("nofile", "256"), ("FLAGCX_P2P_CONNECT_TIMEOUT_MS", "30000")]);
    let open = || {
        let mut stream = wire::open(victim.port, SocketKind::Bootstrap).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        let handle = Handle { address, features: Some(wire::features()) };
        stream.write_all(&[&wire::frame(Tag::Handle, &handle.encode())[..], &[0]].concat()).unwrap();
        stream
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| open()).collect();
    // The handshake of a peer behind the same address takes its turn.
    let engine = support::engine(&[("FLAGCX_P2P_CONNECT_TIMEOUT_MS", "15000")]);
    let begin = Instant::now();
    let connection = engine.connect("127.0.0.1", victim.port, 0, false);
    println!("a peer behind {CLIENTS} such clients: {:?}", begin.elapsed());
    assert!(connection.is_ok(), "{:?}", connection.err());
    assert!(victim.descriptors() < NOFILE * 3 / 4, "{}", victim.descriptors());
    drop(clients);
}

/// One handshake, then many data connections of the same sender to the same queue pair.
#[test]
fn a_sender_has_one_data_connection_to_a_queue_pair() {
    const CONNECTIONS: usize = 40;
    let _alone = alone();
    let mut victim = Victim::start(&[]);
    let device = FakeDevice::start();
    let client = Client::connect(victim.port, &device, 1, 1000).unwrap();
    let mut newest = client.data(0).unwrap();
    let before = victim.descriptors();
    let mut older = Vec::new();
    for _ in 0..CONNECTIONS {
        older.push(std::mem::replace(&mut newest, client.data(0).unwrap()));
    }
    support::eventually("the older ones are closed", || older.iter_mut().all(wire::is_closed));
    support::eventually("their descriptors are free", || victim.descriptors() <= before + 1);
    // The newest is served.
    let region = client.regions.iter().find(|region| region.base == victim.address).unwrap();
    newest.write_all(&wire::request(wire::WRITE, region.rkey, region.base, 1, 0)).unwrap();
    newest.write_all(&[7]).unwrap();
    wire::read_array::<16>(&mut newest).unwrap();
    assert_eq!(victim.byte(0), 7);
}
