//! `doctor topology`: which NIC is how far from which GPU, and which one an engine uses.

use std::fmt::Write;
use std::path::PathBuf;

use flagcx_p2p::internals::config::{self, Config};
use flagcx_p2p::internals::engine::{choose_nic, operators_map};
use flagcx_p2p::internals::fabric::HcaFilter;
use flagcx_p2p::internals::gpu;
use flagcx_p2p::internals::topology::{Distance, Gpu, HostTopology, MemoryPlace, Nic, NicMap, Sysfs};
use serde::Serialize;

use super::system::SystemRoot;
use crate::error::{CliError, Result};
use crate::output;

/// `flagcx-p2p doctor topology`.
#[derive(Clone, Debug)]
pub(crate) struct TopologyOptions {
    /// Print JSON.
    pub(crate) json: bool,
    /// Where the `sys` of the machine is.
    pub(crate) root: PathBuf,
}

/// Runs it. Fails for a map that names no NIC.
pub(super) fn run(options: &TopologyOptions) -> Result<()> {
    let config = config::global();
    let topology = Topology::read(config, &SystemRoot::at(&options.root).sysfs())?;
    if options.json {
        output::json(&topology);
    } else {
        output::line(topology.text().trim_end());
    }
    Ok(())
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Topology {
    gpus: Vec<GpuRow>,
    /// Host memory, by NUMA node; of no particular one where there are none.
    host_memory: Vec<HostRow>,
    nics: Vec<NicRow>,
    /// What the link between sockets is taken to carry; `None` if the processor is not known.
    socket_mbps: Option<u32>,
    /// No GPU shares a switch with a NIC.
    flat: bool,
}

#[derive(Debug, Serialize)]
struct GpuRow {
    index: i32,
    bus_id: String,
    numa_node: Option<u32>,
    /// In the order of `nics`, without those that are not used.
    paths: Vec<Path>,
    choice: Option<NicChoice>,
}

#[derive(Debug, Serialize)]
struct Path {
    nic: String,
    class: &'static str,
    mbps: u32,
}

#[derive(Debug, Serialize)]
struct HostRow {
    numa_node: Option<u32>,
    choice: Option<NicChoice>,
}

#[derive(Debug, Serialize)]
struct NicRow {
    /// `mlx5_0:1`.
    nic: String,
    mbps: u32,
    numa_node: Option<u32>,
    /// Whether it is a virtual function or a subfunction.
    is_virtual: bool,
    /// False: FLAGCX_IB_HCA or FLAGCX_P2P_IB_PORT leaves it out.
    used: bool,
}

#[derive(Debug, Serialize)]
struct NicChoice {
    nic: String,
    reason: String,
}

impl Topology {
    fn read(config: &Config, sysfs: &Sysfs) -> Result<Self> {
        config.check().map_err(|error| CliError::other(error.to_string()))?;
        let filter = HcaFilter::parse(&config.ib_hca).map_err(|error| CliError::other(error.to_string()))?;
        let is_used =
            |name: &str, port| filter.allows(name, port) && config.ib_port.is_none_or(|one| one == port);
        let all = HostTopology::read(sysfs, &gpus(sysfs), sysfs.nic_ports());
        let mut machine = all.clone();
        machine.nics.retain(|nic| is_used(&nic.name, nic.port));
        let map = if machine.nics.is_empty() {
            NicMap::default()
        } else {
            operators_map(config, &machine.nics).map_err(|error| CliError::other(error.to_string()))?
        };
        let choose = |place| {
            let choice = choose_nic(config, &machine, &map, place, &[])?;
            let nic = machine.nics.get(choice.nic)?;
            Some(NicChoice { nic: name(nic), reason: choice.reason.to_string() })
        };
        let gpu = |gpu: &Gpu| GpuRow {
            index: gpu.index,
            bus_id: gpu.bus_id.clone(),
            numa_node: gpu.place.node,
            paths: machine.nics.iter().map(|nic| path(&machine, gpu, nic)).collect(),
            choice: choose(MemoryPlace::Gpu(gpu.index)),
        };
        let mut nodes: Vec<_> = machine.numa.iter().map(|node| Some(node.id)).collect();
        if nodes.is_empty() {
            nodes.push(None);
        }
        let host = |node| HostRow { numa_node: node, choice: choose(MemoryPlace::Host(node)) };
        let nic = |nic: &Nic| NicRow {
            nic: name(nic),
            mbps: nic.speed_mbps,
            numa_node: nic.place.node,
            is_virtual: nic.is_virtual,
            used: is_used(&nic.name, nic.port),
        };
        Ok(Self {
            gpus: machine.gpus.iter().map(gpu).collect(),
            host_memory: nodes.into_iter().map(host).collect(),
            nics: all.nics.iter().map(nic).collect(),
            socket_mbps: machine.socket_mbps,
            flat: machine.is_flat(),
        })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        self.matrix(&mut text);
        self.choices(&mut text);
        text
    }

    fn matrix(&self, text: &mut String) {
        let used = self.nics.iter().filter(|nic| nic.used);
        let names: Vec<_> = used.map(|nic| nic.nic.as_str()).collect();
        if self.gpus.is_empty() || names.is_empty() {
            return;
        }
        let cells: Vec<Vec<String>> = self.gpus.iter().map(GpuRow::cells).collect();
        let widths: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(at, name)| {
                cells
                    .iter()
                    .filter_map(|row| row.get(at))
                    .map(String::len)
                    .chain([name.len()])
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut row = |first: &str, cells: &[String]| {
            let mut line = format!("{first:<8}");
            for (cell, width) in cells.iter().zip(&widths) {
                let _ = write!(line, "  {cell:<width$}");
            }
            let _ = writeln!(text, "{}", line.trim_end());
        };
        row("", &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        for (gpu, cells) in self.gpus.iter().zip(&cells) {
            row(&format!("GPU {}", gpu.index), cells);
        }
        let mut classes: Vec<_> = CLASSES
            .iter()
            .filter(|class| {
                self.gpus.iter().any(|gpu| gpu.paths.iter().any(|path| path.class == class.short()))
            })
            .map(|class| format!("{} {class}", class.short()))
            .collect();
        classes.push("numbers: Gbit/s that the path carries".to_owned());
        let _ = writeln!(text, "{}\n", classes.join("; "));
    }

    fn choices(&self, text: &mut String) {
        for gpu in &self.gpus {
            let _ = writeln!(text, "GPU {} ({}): {}", gpu.index, gpu.bus_id, shown(gpu.choice.as_ref()));
        }
        for HostRow { numa_node, choice } in &self.host_memory {
            let node = numa_node.map_or_else(String::new, |node| format!(" of NUMA node {node}"));
            let _ = writeln!(text, "host memory{node}: {}", shown(choice.as_ref()));
        }
        let left_out: Vec<_> = self.nics.iter().filter(|nic| !nic.used).map(|nic| nic.nic.as_str()).collect();
        if !left_out.is_empty() {
            let _ =
                writeln!(text, "left out by FLAGCX_IB_HCA or FLAGCX_P2P_IB_PORT: {}", left_out.join(", "));
        }
        match self.socket_mbps {
            Some(mbps) => {
                let _ = writeln!(text, "between sockets: {} Gbit/s, by the kind of processor", mbps / 1000);
            }
            None => text.push_str("between sockets: not known for this processor\n"),
        }
        if self.flat && !self.nics.is_empty() {
            text.push_str(
                "no GPU shares a PCI switch with a NIC: GPUs have equally good NICs in their order\n",
            );
        }
        if !self.gpus.is_empty() {
            text.push_str(
                "GPUs are numbered by PCI address; CUDA_DEVICE_ORDER and CUDA_VISIBLE_DEVICES of a program may number them otherwise\n",
            );
        }
    }
}

impl GpuRow {
    fn cells(&self) -> Vec<String> {
        self.paths.iter().map(|path| format!("{} {}", path.class, path.mbps / 1000)).collect()
    }
}

/// The GPUs of the runtime in this process, which has none as a rule; else those that the kernel shows.
pub(super) fn gpus(sysfs: &Sysfs) -> Vec<(i32, String)> {
    let ids = (0..).zip(sysfs.gpus()).collect();
    if *sysfs != Sysfs::default() {
        return ids;
    }
    let runtime = gpu::runtime();
    let count = runtime.gpu_count().ok().and_then(|count| i32::try_from(count).ok()).unwrap_or(0);
    let of_runtime: Vec<_> =
        (0..count).filter_map(|gpu| Some((gpu, runtime.pci_bus_id(gpu).ok()?))).collect();
    if of_runtime.is_empty() { ids } else { of_runtime }
}

fn path(machine: &HostTopology, gpu: &Gpu, nic: &Nic) -> Path {
    Path { nic: name(nic), class: machine.distance(gpu, nic).short(), mbps: machine.path_mbps(gpu, nic) }
}

fn name(nic: &Nic) -> String {
    format!("{}:{}", nic.name, nic.port)
}

fn shown(choice: Option<&NicChoice>) -> String {
    choice.map_or_else(|| "no NIC".to_owned(), |choice| format!("{}, {}", choice.nic, choice.reason))
}

const CLASSES: [Distance; 7] = [
    Distance::Same,
    Distance::Switch,
    Distance::Switches,
    Distance::HostBridge,
    Distance::Node,
    Distance::System,
    Distance::Unknown,
];
