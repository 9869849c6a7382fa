//! An etcd of three members, of which one is killed and another one loses the network.
//!
//! Each member has a network namespace of its own behind a bridge, in a namespace that the test makes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod etcd_server;
#[path = "../../core/tests/namespaces/mod.rs"]
mod namespaces;
mod peer;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etcd_server::{ARCHITECTURE, is_installed};
use flagcx_p2p_directory::{Change, open};
use namespaces::Namespaces;
use peer::{address_of, change, eventually, name, publish, record, soon};

#[test]
fn names_survive_the_loss_of_a_member() {
    play("names_survive_the_loss_of_a_member", |members| {
        let url = members.url("p?lease=4");
        let directory = open(&url).unwrap();
        let lease = publish(&directory, "a", &record(1));
        let mut watch = directory.watch("").unwrap();
        assert!(matches!(change(&mut watch), Change::Published(..)));

        // The one that is in use: the first of the list.
        members.kill(0);
        let begun = Instant::now();
        assert!(address_of(&directory, "a").is_some());
        println!("looked up {:?} after the first member was killed", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
        let second = publish(&directory, "b", &record(1));
        let begun = Instant::now();
        assert_eq!(change(&mut watch), Change::Published(name("b"), record(1)));
        println!("watched {:?} after that", begun.elapsed());
        stays(Duration::from_secs(6), || address_of(&directory, "a").is_some() && !lease.lost());
        members.start(0);
        drop(second);
        assert_eq!(change(&mut watch), Change::Withdrawn(name("b")));
    });
}

#[test]
fn names_survive_a_member_without_a_network() {
    play("names_survive_a_member_without_a_network", |members| {
        // The member in use keeps its clients and loses the other members: it answers, and has no majority.
        let url = members.url("p?lease=4");
        let directory = open(&url).unwrap();
        let lease = publish(&directory, "a", &record(1));
        let mut watch = directory.watch("").unwrap();
        assert!(matches!(change(&mut watch), Change::Published(..)));
        members.part(0);
        let begun = Instant::now();
        assert!(address_of(&directory, "a").is_some());
        println!("looked up {:?} after the first member lost the others", begun.elapsed());
        let second = publish(&directory, "b", &record(1));
        let begun = Instant::now();
        assert_eq!(change(&mut watch), Change::Published(name("b"), record(1)));
        println!("watched {:?} after that", begun.elapsed());
        stays(Duration::from_secs(6), || address_of(&directory, "a").is_some() && !lease.lost());
        members.join(0);
        drop(second);
        assert_eq!(change(&mut watch), Change::Withdrawn(name("b")));

        // Out of reach altogether, so that packets get no answer.
        let fresh = open(&url).unwrap();
        members.link(0, "down");
        let begun = Instant::now();
        assert!(address_of(&fresh, "a").is_some());
        println!("looked up {:?} by a new client with the first member out of reach", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
        stays(Duration::from_secs(6), || address_of(&directory, "a").is_some() && !lease.lost());

        // Two of three gone: nothing can be said, and it is said so; the names come back.
        members.link(1, "down");
        let begun = Instant::now();
        let error = directory.look_up(&name("a"), begun + Duration::from_secs(3)).unwrap_err();
        println!("without a majority: {error}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        eventually("the lease runs out", Duration::from_secs(10), || lease.lost());
        members.link(1, "up");
        members.link(0, "up");
        let back = eventually("the name is back", Duration::from_secs(20), || {
            !lease.lost() && address_of(&directory, "a").is_some()
        });
        println!("back {back:?} after the majority");
    });
}

/// Runs `body`, of the test called `test`, with three members.
fn play(test: &str, body: impl FnOnce(&mut Members)) {
    if namespaces::is_inside() {
        let mut members = Members::new();
        return body(&mut members);
    }
    if std::env::var_os("FLAGCX_P2P_TEST_SHARE").is_none() {
        println!("not run: elections of a leader take their time, 40 s together: ./x proofs");
        return;
    }
    if !is_installed() {
        return;
    }
    let choices: [Namespaces; 2] =
        [&["--user", "--map-root-user", "--net", "--mount"], &["--net", "--mount"]];
    let script = "ip link add try0 type veth peer name try1 && ip link add try2 type bridge";
    match namespaces::first_of(&choices, &["sh", "-c", script]) {
        Ok(namespaces) => namespaces::run(test, namespaces),
        Err(reason) => println!("not run: no network namespace can be made: {reason}"),
    }
}

fn stays(time: Duration, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        assert!(condition(), "{:?} after the beginning", begun.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Three members with addresses of a network of the test.
struct Members {
    folder: tempfile::TempDir,
    hosts: Vec<Host>,
}

/// A network namespace, and the member in it.
struct Host {
    /// A shell that holds the namespace, and ends when its input does.
    shell: Child,
    pid: u32,
    member: Option<Child>,
}

impl Members {
    fn new() -> Self {
        ip("link add br0 type bridge; addr add 192.0.2.1/24 dev br0; link set br0 up; link set lo up");
        let folder = tempfile::tempdir().unwrap();
        let hosts = (0..3).map(Host::new).collect();
        let mut members = Self { folder, hosts };
        (0..3).for_each(|index| members.start(index));
        let all = members.url("start");
        let directory = open(&all).unwrap();
        // They elect a leader.
        eventually("the members answer", Duration::from_secs(30), || {
            directory.list("", Instant::now() + Duration::from_secs(5)).is_ok()
        });
        for index in 0..3 {
            let one = open(&format!("etcd://{}:2379/start", address(index))).unwrap();
            eventually("each member answers", Duration::from_secs(30), || one.list("", soon()).is_ok());
        }
        members
    }

    fn url(&self, rest: &str) -> String {
        let hosts: Vec<_> = (0..3).map(|index| format!("{}:2379", address(index))).collect();
        format!("etcd://{}/{rest}", hosts.join(","))
    }

    fn start(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let all: Vec<_> = (0..3).map(|index| format!("m{index}=http://{}:2380", address(index))).collect();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join(format!("log{index}")))
            .unwrap();
        let member = Command::new("nsenter")
            .args([&format!("--net=/proc/{}/ns/net", host.pid), "etcd"])
            .envs(ARCHITECTURE)
            .arg(format!("--name=m{index}"))
            .arg(format!("--data-dir={}", self.folder.path().join(format!("m{index}")).display()))
            .args(["--heartbeat-interval=100", "--election-timeout=1000", "--unsafe-no-fsync"])
            .args(["--strict-reconfig-check=false", "--initial-cluster-state=new"])
            .arg("--listen-client-urls=http://0.0.0.0:2379")
            .arg(format!("--advertise-client-urls=http://{}:2379", address(index)))
            .arg("--listen-peer-urls=http://0.0.0.0:2380")
            .arg(format!("--initial-advertise-peer-urls=http://{}:2380", address(index)))
            .arg(format!("--initial-cluster={}", all.join(",")))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        host.member = Some(member);
    }

    fn kill(&mut self, index: usize) {
        let mut member = self.hosts[index].member.take().unwrap();
        member.kill().unwrap();
        member.wait().unwrap();
    }

    /// The member loses the other ones, and keeps its clients.
    fn part(&self, index: usize) {
        for other in (0..3).filter(|other| *other != index) {
            self.ip(index, &format!("route add blackhole {}", address(other)));
        }
    }

    fn join(&self, index: usize) {
        for other in (0..3).filter(|other| *other != index) {
            self.ip(index, &format!("route del blackhole {}", address(other)));
        }
    }

    fn link(&self, index: usize, state: &str) {
        ip(&format!("link set m{index} {state}"));
    }

    fn ip(&self, index: usize, command: &str) {
        let net = format!("--net=/proc/{}/ns/net", self.hosts[index].pid);
        run(Command::new("nsenter").arg(net).arg("ip").args(command.split_whitespace()));
    }
}

impl Host {
    fn new(index: usize) -> Self {
        let mut shell = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up; echo $$; read -r _"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pid = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        let pid: u32 = pid.trim().parse().unwrap();
        assert!(Path::new(&format!("/proc/{pid}/ns/net")).exists());
        ip(&format!(
            "link add m{index} type veth peer name eth0 netns {pid}; link set m{index} master br0; link set m{index} up"
        ));
        let net = format!("--net=/proc/{pid}/ns/net");
        for command in [&format!("addr add {}/24 dev eth0", address(index)), "link set eth0 up"] {
            run(Command::new("nsenter").arg(&net).arg("ip").args(command.split_whitespace()));
        }
        Self { shell, pid, member: None }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for process in self.member.iter_mut().chain([&mut self.shell]) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn address(index: usize) -> String {
    format!("192.0.2.{}", index + 10)
}

/// Runs `ip` for each command of a list with semicolons.
fn ip(commands: &str) {
    for command in commands.split(';') {
        run(Command::new("ip").args(command.split_whitespace()));
    }
}

fn run(command: &mut Command) {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}
