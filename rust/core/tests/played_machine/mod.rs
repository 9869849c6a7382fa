//! Machines to choose NICs on: a text in `fixtures/machines` says what a machine has and which NIC is right, and is laid out as a
//! sysfs tree in a temporary directory.
//!
//! A line of the text is one of `# title`, `cpu IDS`, `node N CPUS`, `filter HCA`, `expect PLACE = NIC:PORT CLASS MBPS`,
//! `path GPU NIC CLASS MBPS`, or a device of the tree, indented by two below the one that it is on: its name, then `link=GTSxLANES` (the
//! largest; `?` if it does not say), `now=` (the current one), `node=`, `gpu`, `nic=NAME`, `rate=GBITS`, `ports=N`, `physfn`.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a module of each test that includes it, which uses its share; a panic is how a test fails"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A machine that was laid out.
pub(crate) struct PlayedMachine {
    /// What it is.
    pub(crate) title: String,
    /// Its HCA filter.
    pub(crate) filter: String,
    /// Which NIC is right: the place (`gpu 0`, `host 1`), and `mlx5_0:1 PIX 400000` or `none`.
    pub(crate) expected: Vec<(String, String)>,
    /// Paths: the GPU's number, the NIC's name, and `PIX 400000`.
    pub(crate) paths: Vec<(i32, String, String)>,
    root: TempDir,
}

/// The names of all machines.
pub(crate) fn machines() -> Vec<String> {
    let files = fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path());
    let mut names: Vec<_> =
        files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

impl PlayedMachine {
    pub(crate) fn new(name: &str) -> Self {
        let text = fs::read_to_string(folder().join(format!("{name}.machine"))).unwrap();
        let root = tempfile::tempdir().unwrap();
        let (title, filter) = (String::new(), String::new());
        let mut machine = Self { title, filter, expected: Vec::new(), paths: Vec::new(), root };
        for folder in ["bus/pci/devices", "class/infiniband", "class/net", "devices/system/node"] {
            fs::create_dir_all(machine.sys().join(folder)).unwrap();
        }
        // What a line is indented below: its folder, and its NUMA node.
        let mut above: Vec<(PathBuf, String)> = Vec::new();
        for line in text.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                ["#", ..] => machine.title = line[2..].to_owned(),
                ["cpu", ids] => {
                    machine.write("devices/system/cpu/modalias", &format!("cpu:type:x86,{ids}:feature:,0000"))
                }
                ["node", id, cpus] => machine.write(&format!("devices/system/node/node{id}/cpulist"), cpus),
                ["filter", filter] => machine.filter = filter.to_owned(),
                ["expect", kind, number, "=", ..] => {
                    machine.expected.push((format!("{kind} {number}"), words[4..].join(" ")));
                }
                ["path", gpu, nic, ..] => {
                    machine.paths.push((gpu.parse().unwrap(), nic.to_owned(), words[3..].join(" ")));
                }
                _ => {
                    above.truncate((line.len() - line.trim_start().len()) / 2);
                    let parent = above
                        .last()
                        .cloned()
                        .unwrap_or_else(|| (machine.sys().join("devices"), "-1".to_owned()));
                    above.push(machine.device(&parent, &words));
                }
            }
        }
        machine
    }

    /// The directory that has `sys`.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// Its /sys.
    pub(crate) fn sys(&self) -> PathBuf {
        self.root.path().join("sys")
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.sys().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    fn device(&self, (parent, node): &(PathBuf, String), words: &[&str]) -> (PathBuf, String) {
        let value = |key: &str| words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let at = parent.join(words[0]);
        let node = value("node").unwrap_or(node).to_owned();
        fs::create_dir_all(&at).unwrap();
        let attribute = |name: &str, text: &str| fs::write(at.join(name), format!("{text}\n")).unwrap();
        let is_pci = words[0].matches(':').count() == 2;
        if is_pci {
            attribute("numa_node", &node);
            symlink(&at, self.sys().join("bus/pci/devices").join(words[0])).unwrap();
            let link = value("link").unwrap();
            for (prefix, link) in [("max", link), ("current", value("now").unwrap_or(link))] {
                let (speed, width) = match link.split_once('x') {
                    Some((speed, width)) => {
                        (format!("{:.1} GT/s PCIe", speed.parse::<f64>().unwrap()), width)
                    }
                    None => ("Unknown".to_owned(), "0"),
                };
                attribute(&format!("{prefix}_link_speed"), &speed);
                attribute(&format!("{prefix}_link_width"), width);
            }
        }
        if words.contains(&"gpu") {
            attribute("class", "0x030200");
            attribute("vendor", "0x10de");
        }
        if words.contains(&"physfn") {
            symlink(parent, at.join("physfn")).unwrap();
        }
        if let Some(name) = value("nic") {
            attribute("class", "0x020700");
            let class = self.sys().join("class/infiniband").join(name);
            fs::create_dir_all(&class).unwrap();
            symlink(&at, class.join("device")).unwrap();
            for port in 1..=value("ports").unwrap_or("1").parse().unwrap() {
                let folder = format!("class/infiniband/{name}/ports/{port}");
                self.write(&format!("{folder}/state"), "4: ACTIVE");
                self.write(&format!("{folder}/rate"), &format!("{} Gb/sec (4X)", value("rate").unwrap()));
            }
        }
        (at, node)
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/fixtures/machines")
}
