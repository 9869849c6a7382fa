//! GPUs: which driver is there, and which NIC is nearest to each.

use flagcx_p2p::internals::topology::{PciPlace, distance};

use super::finding::Report;
use super::system::SystemRoot;

/// The bus ids of NVIDIA's GPUs.
const GPUS: &str = "/proc/driver/nvidia/gpus";

/// Reports them.
pub(super) fn report(root: &SystemRoot, report: &mut Report) {
    let (id, subject) = ("gpu-runtime", "GPU runtime");
    let gpus = root.names(GPUS);
    let version =
        root.read("/proc/driver/nvidia/version").and_then(|text| text.lines().next().map(str::to_owned));
    match (version, root.exists("/dev/kfd")) {
        (Some(version), _) if root.exists("/dev/nvidiactl") => {
            report.ok(id, subject, format!("CUDA driver, {} GPUs ({version})", gpus.len()));
        }
        (Some(version), _) => report.warn(
            id,
            subject,
            format!("the CUDA driver is loaded ({version}), but /dev/nvidiactl is not there"),
            "--gpus all for a container, or nvidia-modprobe",
        ),
        (None, true) => report.warn(
            id,
            subject,
            "an AMD GPU (/dev/kfd): its memory moves where the program gives the engine its copy functions",
            "flagcxP2pSetGpuTable of flagcx_p2p_ext.h",
        ),
        (None, false) => report.ok(id, subject, "none; host memory moves"),
    }
    if gpus.is_empty() {
        return;
    }
    if root.exists("/sys/module/nvidia_peermem") {
        report.ok("gpu-nic", "GPU memory on a NIC", "by dma-buf, or by nvidia_peermem, which is loaded");
    } else {
        report.ok(
            "gpu-nic",
            "GPU memory on a NIC",
            "by dma-buf where kernel and NIC offer it; nvidia_peermem is not loaded",
        );
    }
    for gpu in &gpus {
        placement(root, gpu, report);
    }
}

fn placement(root: &SystemRoot, gpu: &str, report: &mut Report) {
    let sysfs = root.sysfs();
    let (id, subject) = ("gpu-placement", format!("GPU {gpu}"));
    let Some(path) = sysfs.pci_path(gpu) else { return report.ok(id, subject, "its place is not known") };
    let (place, one_node) = (PciPlace::read(&sysfs, &path), sysfs.numa_nodes().len() <= 1);
    let node = place.node;
    let nics = root.names("/sys/class/infiniband");
    let near = nics.iter().filter_map(|nic| {
        let nic_path = sysfs.rdma_device_path(nic)?;
        Some((distance(&place, &PciPlace::read(&sysfs, &nic_path), one_node), nic))
    });
    let node = node.map_or_else(String::new, |node| format!("NUMA node {node}, "));
    match near.min() {
        Some((distance, nic)) => report.ok(id, subject, format!("{node}nearest NIC {nic}: {distance}")),
        None => report.ok(id, subject, format!("{node}no NIC")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::system::Fixture;
    use super::*;

    fn of(fixture: &Fixture) -> Report {
        let mut found = Report::default();
        report(&fixture.root, &mut found);
        found
    }

    const VERSION: (&str, &str) = ("proc/driver/nvidia/version", "NVRM version: 560.1\nGCC version: 12\n");

    #[test]
    fn the_nearest_nic_of_each_gpu() {
        let fixture = Fixture::new(&[
            VERSION,
            ("dev/nvidiactl", ""),
            ("proc/driver/nvidia/gpus/0000:1a:00.0/information", ""),
        ]);
        fixture.link("sys", concat!(env!("CARGO_MANIFEST_DIR"), "/../core/tests/fixtures/sysfs/two_sockets"));
        let found = of(&fixture);
        assert_eq!(
            found.seen("gpu-runtime"),
            (Level::Ok, "GPU runtime: CUDA driver, 1 GPUs (NVRM version: 560.1)".to_owned())
        );
        assert_eq!(
            found.seen("gpu-placement").1,
            "GPU 0000:1a:00.0: NUMA node 0, nearest NIC mlx5_0: one PCI switch"
        );
        assert!(found.seen("gpu-nic").1.contains("nvidia_peermem is not loaded"));
    }

    #[test]
    fn drivers_without_devices_and_other_vendors() {
        let (level, line) = of(&Fixture::new(&[VERSION])).seen("gpu-runtime");
        assert!(level == Level::Warn && line.contains("--gpus all"), "{line}");
        assert_eq!(of(&Fixture::new(&[("dev/kfd", "")])).seen("gpu-runtime").0, Level::Warn);
        assert_eq!(of(&Fixture::new(&[])).seen("gpu-runtime").0, Level::Ok);
    }
}
