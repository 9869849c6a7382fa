//! Clients that try to access memory that was not announced to them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::Iov;

use crate::victim::{HIDDEN, Victim};
use crate::wire::{self, Client, FakeDevice, PATIENCE, READ, request};
use crate::{support, tables};

const LANES: u32 = 4;
/// Wrong keys that cost nothing.
const FREE: usize = 16;

/// What comes back for one READ of 64 bytes until the first frame that ends it, and whether it failed.
fn answer(socket: &mut TcpStream) -> (Vec<u8>, bool) {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let header = wire::read_array::<16>(socket).unwrap();
    if header[1] == 2 {
        return (Vec::new(), true);
    }
    assert_eq!(header[1], 3, "neither data nor a failure");
    let mut bytes = vec![0; u32::from_le_bytes(header[4..8].try_into().unwrap()) as usize];
    socket.read_exact(&mut bytes).unwrap();
    (bytes, false)
}

/// Guesses a key on a lane of its own: the lane does not outlive it.
fn guess(client: &Client, lane: usize, key: u32, address: u64) -> TcpStream {
    let mut socket = client.data(lane).unwrap();
    socket.write_all(&request(READ, key, address, 64, 0)).unwrap();
    socket
}

fn clients(victim: &Victim, device: &FakeDevice, count: u32) -> Vec<Client> {
    (0..count)
        .map(|number| Client::connect(victim.port, device, LANES, 1000 + 100 * number).unwrap())
        .collect()
}

#[test]
fn a_key_near_to_a_known_one_opens_nothing() {
    let mut victim = Victim::start(&[("FLAGCX_P2P_PATH", "tcp")]);
    // Registered right after the buffer that is announced, and the address is known.
    let (address, hidden) = victim.hide();
    let device = FakeDevice::start();
    let clients = clients(&victim, &device, 4);
    let known = clients[0].regions.iter().find(|region| region.base == victim.address).unwrap().rkey;
    assert!(clients[0].regions.iter().all(|region| region.base != address));
    let steps = [1, 2, 1 << 18, 1 << 19, 1 << 18 | 1, 1 << 14, 1 << 16, 1 << 8];
    let keys: Vec<_> =
        steps.iter().flat_map(|step| [known.wrapping_add(*step), known.wrapping_sub(*step)]).collect();
    assert!(!keys.contains(&hidden));
    for (place, key) in keys.into_iter().enumerate() {
        let lanes = LANES as usize;
        let mut socket = guess(&clients[place / lanes], place % lanes, key, address);
        let mut all = Vec::new();
        assert!(answer(&mut socket).1, "{key:#x} gave bytes");
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = socket.read_to_end(&mut all);
        assert!(!all.contains(&HIDDEN));
    }
    assert!(victim.is_alive());
}

/// Latency of writes of an honest peer at the same address, while `done` is not set.
fn slowest_write(victim: &Victim, done: &AtomicBool) -> (usize, Duration) {
    let engine = support::engine(&[("FLAGCX_P2P_PATH", "tcp")]);
    let source = engine.allocate(4096).unwrap();
    let connection = engine.session(&format!("127.0.0.1:{}", victim.port)).unwrap();
    let remote = connection.describe_remote(victim.address, 64).unwrap();
    let (mut count, mut slowest) = (0, Duration::ZERO);
    while !done.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let iov = Iov { local: source.address(), length: 64, region: None, remote };
        let id = connection.submit(Opcode::Write, &[iov][..]).unwrap();
        assert_eq!(support::outcome(&connection, id), flagcx_p2p::internals::transfer::Outcome::Done);
        slowest = slowest.max(begin.elapsed());
        count += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    (count, slowest)
}

/// Also the one that is right: or a client would only have to make many connections and look which one answers at once.
#[test]
fn sixteen_wrong_keys_are_free_and_each_further_guess_costs_a_second_and_others_nothing() {
    let mut victim = Victim::start(&[("FLAGCX_P2P_PATH", "tcp")]);
    let (address, hidden) = victim.hide();
    let device = FakeDevice::start();
    let clients = clients(&victim, &device, 5);
    let known = *clients[0].regions.iter().find(|region| region.base == victim.address).unwrap();
    let begin = Instant::now();
    for place in 0..FREE {
        let mut socket = guess(&clients[place / 4], place % 4, hidden ^ (1 + place as u32), address);
        assert!(answer(&mut socket).1);
    }
    assert!(begin.elapsed() < Duration::from_secs(1), "the first cost {:?}", begin.elapsed());
    let done = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (victim, flag) = (&victim, Arc::clone(&done));
        let honest = scope.spawn(move || slowest_write(victim, &flag));
        let begin = Instant::now();
        let mut wrong = guess(&clients[4], 0, hidden ^ 99, address);
        // Behind a key that is known, in one group.
        let mut right = clients[4].data(1).unwrap();
        let mut first = request(READ, known.rkey, known.base, 64, 0);
        first[2] = 1;
        right.write_all(&[first, request(READ, hidden, address, 64, 1)].concat()).unwrap();
        // What is announced is not delayed.
        let (bytes, failed) = answer(&mut right);
        assert!(!failed && bytes.len() == 64 && !bytes.contains(&HIDDEN));
        assert!(begin.elapsed() < Duration::from_millis(900), "{:?}", begin.elapsed());
        wire::read_array::<16>(&mut right).unwrap();
        assert!(answer(&mut wrong).1);
        assert!(begin.elapsed() >= Duration::from_secs(1), "the 17th cost {:?}", begin.elapsed());
        assert_eq!(answer(&mut right), (vec![HIDDEN; 64], false));
        assert!(begin.elapsed() >= Duration::from_secs(2), "the 18th cost {:?}", begin.elapsed());
        done.store(true, Ordering::Relaxed);
        let (writes, slowest) = honest.join().unwrap();
        println!("{writes} writes of another peer meanwhile, the slowest took {slowest:?}");
        assert!(writes > 10 && slowest < Duration::from_millis(900), "{writes} writes, {slowest:?}");
    });
}

#[test]
fn a_refused_offer_learns_nothing_of_the_process() {
    let victim = Victim::start(&[]);
    let device = FakeDevice::start();
    let client = Client::connect(victim.port, &device, LANES, 1000).unwrap();
    let other = Client::connect(victim.port, &device, 1, 2000).unwrap().lanes[0].1.qpn;
    for target in [0, 0xff_fff0, other] {
        let (_, answer) = client.hello(0, Some(target)).unwrap();
        assert_ne!(answer.reception, 0, "queue pair {target}");
        assert_eq!(answer.token, 0);
        assert!(answer.body[1..].iter().all(|byte| *byte == 0), "{:?}", answer.body);
    }
    let (_socket, welcome) = client.hello(0, None).unwrap();
    assert_eq!(welcome.reception, 0);
    assert_ne!(welcome.token, 0);
}

#[test]
fn the_tables_are_given_for_a_token_once_and_show_what_is_announced() {
    let mut victim = Victim::start(&[]);
    let (address, hidden) = victim.hide();
    let device = FakeDevice::start();
    let client = Client::connect(victim.port, &device, LANES, 1000).unwrap();
    let (_socket, welcome) = client.hello(0, None).unwrap();
    for wrong in [0, welcome.token ^ 1, welcome.token.wrapping_add(2)] {
        assert!(tables::open(&welcome.name, wrong).is_none());
    }
    let given = tables::open(&welcome.name, welcome.token).unwrap();
    assert!(tables::open(&welcome.name, welcome.token).is_none(), "a token was good twice");
    let (_other, welcome) = client.hello(1, None).unwrap();
    let second = tables::open(&welcome.name, welcome.token).unwrap();
    let known: Vec<_> = client.regions.iter().map(|region| (region.rkey, region.base)).collect();
    let mut shown = given.regions(0);
    shown.sort_unstable();
    assert!(known.iter().all(|region| shown.contains(region)));
    assert!(!shown.iter().any(|(key, base)| *key == hidden || *base == address), "{shown:x?}");
    assert_eq!(given.regions(2), []);
    // The file of what it does not see yet is not given; that of what it sees is, with a descriptor.
    assert_eq!((given.ask_for_file(hidden), given.ask_for_file(known[0].0)), (Some((0, 0)), Some((1, 1))));
    // Asked for by its key, it is shown to the one that has asked.
    assert_eq!(given.ask(hidden), Some(true));
    assert_eq!(given.regions(2), [(hidden, address)]);
    assert!(second.regions(2).is_empty() && given.regions(0).len() == shown.len());
    // Guesses count here too, whatever link they come by.
    let begin = Instant::now();
    for place in 0..FREE as u32 {
        let link = if place % 2 == 0 { &given } else { &second };
        match place % 3 {
            0 => assert_eq!(link.ask_for_file(hidden ^ (1 + place)), Some((0, 0))),
            _ => assert_eq!(link.ask(hidden ^ (1 + place)), Some(false)),
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(1), "the first cost {:?}", begin.elapsed());
    let begin = Instant::now();
    assert_eq!(second.ask(hidden), Some(true));
    assert!(begin.elapsed() >= Duration::from_secs(1), "the 17th cost {:?}", begin.elapsed());
    assert_eq!(second.regions(2), [(hidden, address)]);
}

#[test]
fn another_user_is_refused_before_it_has_said_anything() {
    // SAFETY: takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        println!("not run: only root can be another user");
        return;
    }
    let victim = Victim::start(&[]);
    let device = FakeDevice::start();
    let client = Client::connect(victim.port, &device, LANES, 1000).unwrap();
    let (_socket, welcome) = client.hello(0, None).unwrap();
    let (before, name, token) = (victim.descriptors(), welcome.name.clone(), welcome.token);
    let others = std::thread::spawn(move || {
        // SAFETY: changes the users of this thread alone; the C library would change those of all.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, 4321, 4321, 4321) };
        assert_eq!(changed, 0);
        let silent: Vec<_> = (0..40).map(|_| tables::dial(&name)).collect();
        (tables::open(&name, token).is_none(), silent)
    });
    let (refused, _silent) = others.join().unwrap();
    assert!(refused, "another user was given the tables");
    support::eventually("it holds no descriptor for them", || victim.descriptors() <= before);
    assert!(tables::open(&welcome.name, welcome.token).is_some(), "root itself is refused");
}
