//! Two hosts on one machine, as far as their programs see: network, host name, processes, `/dev/shm`, IPC and boot id of their own,
//! with a veth pair between.

use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Ended, Server, run};

/// Set to the name of the test that runs inside.
const INSIDE: &str = "FLAGCX_P2P_TEST_INSIDE_HOSTS";
/// A host's namespaces.
const HOST: [&str; 8] =
    ["--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
/// What a host does first. Its input is kept open for as long as it is to exist.
const SET_UP: &str = r#"
    set -e
    hostname "$1"
    mount -t tmpfs none /dev/shm
    mount -t sysfs none /sys
    cat /proc/sys/kernel/random/uuid > /dev/shm/boot_id
    mount --bind /dev/shm/boot_id /proc/sys/kernel/random/boot_id
    printf '127.0.0.1 localhost\n%s\n' "$2" > /dev/shm/hosts
    mount --bind /dev/shm/hosts /etc/hosts
    ip link set lo up
    echo ready
    exec cat > /dev/null
"#;
/// How long a host may take to be there.
const LIMIT: Duration = Duration::from_secs(10);

/// Runs `body`, of the test called `test`, where hosts can be made; prints the reason where they cannot.
pub(crate) fn play(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let mut reasons = Vec::new();
    for user in [&[][..], &["--user", "--map-root-user"]] {
        let script =
            "ip link add try0 type veth peer name try1 && mount -t sysfs none /sys && hostname tried";
        let tried =
            Command::new("unshare").args(user).arg("unshare").args(HOST).args(["sh", "-c", script]).output();
        match tried {
            Ok(tried) if tried.status.success() => return inside(test, user),
            Ok(tried) => reasons.push(String::from_utf8_lossy(&tried.stderr).trim().to_owned()),
            Err(error) => reasons.push(format!("unshare: {error}")),
        }
    }
    println!("not run: no second host can be made: {}", reasons.join("; as it is: "));
}

fn inside(test: &str, user: &[&str]) {
    let this = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    command.args(user).arg(this).args(["--exact", test, "--nocapture"]).env(INSIDE, test);
    let ended = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    print!("{out}");
    assert!(ended.status.success() && out.contains("1 passed"), "inside:\n{out}\n{err}");
}

/// One host. Gone with all its programs when dropped.
pub(crate) struct Host {
    unshare: Child,
    _open: ChildStdin,
    pid: u32,
}

impl Host {
    /// With these lines in `/etc/hosts`.
    pub(crate) fn new(name: &str, names: &str) -> Self {
        let mut unshare = Command::new("unshare")
            .args(HOST)
            .args(["sh", "-c", SET_UP, "sh", name, names])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = unshare.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
        assert_eq!(line, "ready\n", "the host {name}");
        let of = unshare.id();
        let children = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap();
        let pid = children.trim().parse().unwrap();
        Self { _open: unshare.stdin.take().unwrap(), unshare, pid }
    }

    /// Joins two by a link, called eth0 at both.
    pub(crate) fn join(&self, other: &Self) {
        self.ip(&format!("link add eth0 type veth peer name eth0 netns /proc/{}/ns/net", other.pid));
    }

    /// Runs `ip` there for each command of a list with semicolons.
    pub(crate) fn ip(&self, commands: &str) {
        for command in commands.split(';') {
            // The mounts of here: the other host is named by its process here.
            let pid = self.pid.to_string();
            let mut enter = Command::new("nsenter");
            enter.args(["--target", &pid, "--net", "ip"]).args(command.split_whitespace());
            run(&mut enter).succeeded();
        }
    }

    /// The tool, to be run there.
    pub(crate) fn program(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string(), "--net", "--uts", "--ipc", "--mount", "--pid"]);
        command.arg(env!("CARGO_BIN_EXE_flagcx-p2p")).env("FLAGCX_P2P_FABRIC", "software");
        for variable in ["RUST_LOG", "FLAGCX_DEBUG", "FLAGCX_DEBUG_SUBSYS", "FLAGCX_DEBUG_FILE"] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs the tool there.
    pub(crate) fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
        run(self.program().args(arguments).envs(environment.iter().copied()))
    }

    /// Starts a server there; it ends when dropped. What it logs is in `log`.
    pub(crate) fn serve(
        &self,
        arguments: &[&str],
        environment: &[(&str, &str)],
        log: &std::path::Path,
    ) -> Server {
        let mut command = self.program();
        command.args(arguments).arg("--until-stdin-closes").envs(environment.iter().copied());
        command.stderr(std::fs::File::create(log).unwrap());
        Server::of(&mut command, std::path::PathBuf::new()).unwrap()
    }

    /// Until its interface carries packets.
    pub(crate) fn wait_until_up(&self) {
        let started = Instant::now();
        let state = format!("/proc/{}/root/sys/class/net/eth0/operstate", self.pid);
        while std::fs::read_to_string(&state).unwrap().trim() != "up" {
            assert!(started.elapsed() < LIMIT, "eth0 does not come up");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}
