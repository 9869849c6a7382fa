//! Network namespaces, what is set up in them, and what an engine chooses there.
#![allow(dead_code, unreachable_pub, reason = "a module of one test")]

#[path = "../namespaces/mod.rs"]
mod namespaces;
#[path = "../other_process/mod.rs"]
pub mod other_process;
pub mod peer;
#[path = "../proxy/mod.rs"]
mod proxy;

use std::ffi::c_short;
use std::fs::File;
use std::io;
use std::mem::forget;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::config::Config;
use flagcx_p2p::internals::control::{LinkState, interfaces, local_address};
use namespaces::Namespaces;
use proxy::Proxy;

/// How long the kernel may take to bring a link up.
const UP_LIMIT: Duration = Duration::from_secs(3);

/// Runs `host`, the body of the test called `test`, in a network namespace of its own.
pub fn play(test: &str, host: impl FnOnce()) {
    if namespaces::is_inside() {
        show_own_sysfs();
        return host();
    }
    // In a chroot no user namespace can be made.
    let choices: [Namespaces; 2] =
        [&["--user", "--map-root-user", "--net", "--mount"], &["--net", "--mount"]];
    let script = "ip link add try0 type veth peer name try1 && ip link add try2 type bridge";
    match namespaces::first_of(&choices, &["sh", "-c", script]) {
        Ok(namespaces) => namespaces::run(test, namespaces),
        Err(reason) => println!("not run: no network namespace can be made: {reason}"),
    }
}

/// `/sys` of this namespace, where the kernel lets us: elsewhere the engine has to do without.
pub fn show_own_sysfs() {
    let mounted = Command::new("mount").args(["-t", "sysfs", "none", "/sys"]).output();
    if !mounted.is_ok_and(|mounted| mounted.status.success()) {
        println!("/sys shows another namespace");
    }
}

/// Runs `ip` for each command of a list with semicolons.
pub fn ip(commands: &str) {
    for command in commands.split(';') {
        let done = Command::new("ip").args(command.split_whitespace()).output().unwrap();
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "ip {}: {errors}", command.trim());
    }
}

/// An interface with an address and carrier; nothing listens at its other end.
pub fn link(name: &str, network: &str) {
    ip(&format!(
        "link add {name} type veth peer name far-{name}; link set far-{name} up; \
         addr add {network} dev {name}; link set {name} up"
    ));
    wait_until_up(name);
}

/// Until the interface carries packets.
pub fn wait_until_up(name: &str) {
    let start = Instant::now();
    while !interfaces().iter().any(|one| one.name == name && one.link == LinkState::Up) {
        assert!(start.elapsed() < UP_LIMIT, "{name} does not come up: {:?}", interfaces());
        thread::sleep(Duration::from_millis(2));
    }
}

/// A tunnel with a reader, which has to be kept.
pub fn tunnel(name: &str) -> io::Result<File> {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: `ifreq` is a C struct for which all zeroes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as c_short;
    // SAFETY: the request outlives the call, which reads and writes it.
    let code = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF as _, &raw mut request) };
    if code == 0 { Ok(file) } else { Err(io::Error::last_os_error()) }
}

/// A configuration with nothing but `settings`, on the software fabric.
pub fn config(settings: &[(&str, &str)]) -> Arc<Config> {
    Arc::new(Config::from_source(&|name| {
        let set = settings.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        set.or_else(|| match name {
            "FLAGCX_P2P_FABRIC" => Some("software".to_owned()),
            "FLAGCX_P2P_CONNECT_TIMEOUT_MS" => Some("3000".to_owned()),
            _ => None,
        })
    }))
}

/// The address that is announced to peers, and the reason; or why there is none, as while no link is up.
pub fn chosen(settings: &[(&str, &str)]) -> String {
    match local_address(&config(settings)) {
        Ok(local) => format!("{} {}", local.told(), local.reason),
        Err(error) => error.to_string(),
    }
}

/// Publishes `host:to_port` as `address:port`, until the process ends.
pub fn forward(address: &str, port: u16, host: &str, to_port: u16) {
    let at = |host: &str, port: u16| SocketAddr::new(host.parse().unwrap(), port);
    forget(Proxy::new([(at(address, port), at(host, to_port))], 0).unwrap());
}
