//! The tool between two hosts that share nothing but a link: by IPv4, IPv6 and name, with unequal MTUs, with and without the key.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests, outside #[test] functions"
)]

mod common;
mod hosts;

use std::fs;
use std::path::Path;

use common::Ended;
use hosts::{Host, play};

/// `beta` has addresses of both families, as a look-up of most hosts gives.
const NAMES: &str = "192.0.2.1 alpha\n2001:db8::1 alpha\n2001:db8::2 beta\n192.0.2.2 beta\n192.0.2.2 beta4";
const QUICK: [&str; 9] =
    ["--pool", "2M", "--seconds", "0.01", "--repeats", "1", "--cases", "1x4K", "--no-limits"];
const KEY: &str = "FLAGCX_P2P_AUTH_KEY_FILE";

/// Both hosts, and a folder of the machine in which each finds what it needs.
struct Hosts {
    alpha: Host,
    beta: Host,
    temp: tempfile::TempDir,
}

impl Hosts {
    fn new() -> Self {
        let (alpha, beta) = (Host::new("alpha", NAMES), Host::new("beta", NAMES));
        alpha.join(&beta);
        alpha.ip("addr add 192.0.2.1/24 dev eth0; addr add 2001:db8::1/64 dev eth0 nodad; link set eth0 up");
        beta.ip("addr add 192.0.2.2/24 dev eth0; addr add 2001:db8::2/64 dev eth0 nodad; link set eth0 up");
        alpha.wait_until_up();
        beta.wait_until_up();
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("served")).unwrap();
        fs::write(temp.path().join("file"), vec![7; 3_000_000]).unwrap();
        for name in ["right", "wrong"] {
            fs::write(temp.path().join(name), format!("a secret of some length: {name}")).unwrap();
            fs::set_permissions(temp.path().join(name), std::os::unix::fs::PermissionsExt::from_mode(0o600))
                .unwrap();
        }
        Self { alpha, beta, temp }
    }

    fn path(&self, name: &str) -> String {
        self.temp.path().join(name).to_str().unwrap().to_owned()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// `serve`, or `bench serve`, at beta.
    fn serve(&self, command: &[&str], listen: &str, environment: &[(&str, &str)]) -> common::Server {
        let served = self.path("served");
        let folder = if command == ["serve"] { vec![served.as_str()] } else { Vec::new() };
        let arguments = [command, &folder, &["--listen", listen]].concat();
        self.beta.serve(&arguments, environment, Path::new(&self.path("log")))
    }

    /// Puts a file from alpha, lists it and gets it back.
    fn move_a_file(&self, to: &str) {
        let (file, back) = (self.path("file"), self.path("back"));
        let put = self.alpha.run(&["put", &file, to, "--name", "moved", "--force"], &[]).succeeded();
        assert!(put.out.contains("path tcp") || put.err.contains("path tcp"), "{put:?}");
        assert!(self.alpha.run(&["ls", to], &[]).succeeded().out.contains("  moved"));
        self.alpha.run(&["get", "moved", to, "-o", &back, "--force"], &[]).succeeded();
        assert_eq!(fs::read(&file).unwrap(), fs::read(&back).unwrap());
    }

    /// What `doctor` finds at alpha.
    fn doctor(&self, at: &str, environment: &[(&str, &str)]) -> Ended {
        self.alpha.run(&["doctor", at, "--timeout", "10"], environment)
    }
}

#[track_caller]
fn line<'a>(ended: &'a Ended, text: &str) -> &'a str {
    ended.out.lines().find(|line| line.contains(text)).unwrap_or_else(|| panic!("no {text:?}: {ended:?}"))
}

#[test]
fn files_doctor_and_bench_by_address_and_by_name() {
    play("files_doctor_and_bench_by_address_and_by_name", || {
        let hosts = Hosts::new();
        let server = hosts.serve(&["serve"], "::", &[]);
        for to in ["192.0.2.2:7733", "[2001:db8::2]:7733", "beta:7733", "beta4:7733"] {
            let found = hosts.doctor(to, &[]).succeeded();
            assert!(line(&found, "MTU both ways").starts_with("ok  "), "{to}: {found:?}");
            assert!(line(&found, "another host").starts_with("ok    path: tcp, 4 of 4"), "{to}: {found:?}");
            assert_eq!(found.out.matches("address that the peer announces").count(), 1, "{to}: {found:?}");
            assert!(found.out.contains("\n0 to improve, 0 that do not work"), "{to}: {found:?}");
            hosts.move_a_file(to);
        }
        assert!(!hosts.log().contains("not a flagcx-p2p control stream"), "of doctor: {}", hosts.log());
        assert!(!hosts.log().contains("was not connected to"), "of doctor: {}", hosts.log());
        drop(server);
        let _server = hosts.serve(&["bench", "serve"], "::", &[]);
        for to in ["192.0.2.2:7734", "[2001:db8::2]:7734", "beta:7734"] {
            let found = hosts.doctor(to, &[]).succeeded();
            assert!(line(&found, "flagcx-p2p bench serve").starts_with("ok  "), "{found:?}");
            let json = hosts
                .alpha
                .run(&[&["bench", "run", to, "--bidirectional", "--json", "-"], &QUICK[..]].concat(), &[]);
            let document: serde_json::Value = serde_json::from_str(&json.succeeded().out).unwrap();
            assert_eq!(document["rows"][0]["path"], "tcp", "{document:#}");
            assert_eq!(document["rows"][0]["data"], "verified", "{document:#}");
        }
    });
}

#[test]
fn mtus_that_differ_are_reported_by_the_end_with_the_larger_one() {
    play("mtus_that_differ_are_reported_by_the_end_with_the_larger_one", || {
        let hosts = Hosts::new();
        let _server = hosts.serve(&["serve"], "::", &[]);
        hosts.alpha.ip("link set eth0 mtu 9000");
        for to in ["192.0.2.2:7733", "[2001:db8::2]:7733"] {
            let found = hosts.doctor(to, &[]).succeeded();
            assert!(line(&found, "MTU both ways").starts_with("warn  "), "{found:?}");
            hosts.move_a_file(to);
        }
        hosts.beta.ip("link set eth0 mtu 9000");
        let found = hosts.doctor("beta4:7733", &[]).succeeded();
        assert!(line(&found, "path MTU 9000, segments of 8948").starts_with("ok  "), "{found:?}");
        hosts.move_a_file("beta:7733");
        hosts.alpha.ip("link set eth0 mtu 1500");
        hosts.move_a_file("beta:7733");
    });
}

#[test]
fn keys() {
    play("keys", || {
        let hosts = Hosts::new();
        let (right, wrong) = (hosts.path("right"), hosts.path("wrong"));
        let bench = [&["bench", "run", "beta:7734"], &QUICK[..]].concat();
        for (command, port) in [(&["serve"][..], 7733), (&["bench", "serve"], 7734)] {
            let _server = hosts.serve(command, "::", &[(KEY, &right)]);
            let at = format!("beta:{port}");
            let try_with = |environment: &[(&str, &str)]| {
                let done = if port == 7734 { bench.clone() } else { vec!["ls", &at] };
                (hosts.alpha.run(&done, environment), hosts.doctor(&at, environment))
            };
            let (done, found) = try_with(&[(KEY, &right)]);
            done.succeeded();
            found.succeeded();
            let (done, found) = try_with(&[(KEY, &wrong)]);
            done.failed(1, "its pre-shared key differs");
            assert_eq!(
                found.code,
                Some(if port == 7734 { 0 } else { 1 }),
                "bench serve opens no engine: {found:?}"
            );
            let (done, found) = try_with(&[]);
            done.failed(1, "the peer requires a key");
            assert_eq!(
                found.code,
                Some(if port == 7734 { 0 } else { 1 }),
                "bench serve opens no engine: {found:?}"
            );
            assert!(port == 7733 || found.out.contains("flagcx-p2p bench serve"), "{found:?}");
        }
        let _server = hosts.serve(&["bench", "serve"], "::", &[]);
        hosts.alpha.run(&bench, &[(KEY, &right)]).failed(1, "the peer has no key");
    });
}

/// A server of both families tells one address, and a host that cannot reach it is told how to change that.
#[test]
fn a_host_without_ipv4() {
    play("a_host_without_ipv4", || {
        let hosts = Hosts::new();
        hosts.alpha.ip("addr del 192.0.2.1/24 dev eth0");
        let server = hosts.serve(&["serve"], "::", &[]);
        let found = hosts.doctor("beta:7733", &[]);
        let cause = "reached at 2001:db8::2, and its engine announces 192.0.2.2; --listen 2001:db8::2,";
        assert!(found.code == Some(1) && line(&found, cause).starts_with("fail  "), "{found:?}");
        let file = hosts.path("file");
        hosts.alpha.run(&["put", &file, "beta:7733"], &[]).failed(1, cause);
        drop(server);
        for (listen, environment) in
            [("2001:db8::2", &[][..]), ("::", &[("FLAGCX_SOCKET_FAMILY", "AF_INET6")])]
        {
            let _server = hosts.serve(&["serve"], listen, environment);
            hosts.move_a_file("beta:7733");
        }
    });
}
