//! The topology rules on recorded machines.
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside #[test] functions")]

use std::path::{Path, PathBuf};

use flagcx_p2p::internals::topology::{Distance, Nic, Sysfs, choose_nic, distance};

/// Two sockets. On the first, GPU `1a:00.0` shares a switch with mlx5_0, and mlx5_1 hangs on the host bridge; on the
/// second are GPU `b3:00.0`, mlx5_2, and a card in a narrow slot. A soft-RoCE device sits on a virtio interface.
fn two_sockets() -> Sysfs {
    Sysfs::at(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sysfs/two_sockets"))
}

fn path(name: &str) -> PathBuf {
    two_sockets().rdma_device_path(name).unwrap()
}

fn nics(names: &[&str]) -> Vec<Nic> {
    names.iter().map(|name| Nic { pci_path: Some(path(name)), speed_mbps: 200_000 }).collect()
}

fn choose(gpu: Option<&str>, index: i32, nics: &[Nic]) -> Option<usize> {
    let sysfs = two_sockets();
    let gpu = gpu.map(|gpu| sysfs.pci_path(gpu).unwrap());
    choose_nic(&sysfs, gpu.as_deref(), index, nics)
}

#[test]
fn devices_are_found_by_every_spelling() {
    let sysfs = two_sockets();
    let gpu = sysfs.pci_path("0000:1a:00.0").unwrap();
    for spelling in ["0000:1A:00.0", "1a:00.0", "00000000:1A:00.0", "0000:1a:00.0\0\0"] {
        assert_eq!(sysfs.pci_path(spelling).as_ref(), Some(&gpu), "{spelling:?}");
    }
    for nonsense in ["", "..", "0000:ff:00.0", "../../../etc", "\0"] {
        assert_eq!(sysfs.pci_path(nonsense), None, "{nonsense:?}");
    }
    assert_eq!(sysfs.rdma_device_path("mlx5_9"), None);
    assert_eq!(sysfs.interface_path("lo"), None);
}

#[test]
fn attributes_of_devices() {
    let sysfs = two_sockets();
    let cpus = |name| sysfs.local_cpus(&path(name)).map(|set| set.to_string());
    assert_eq!(cpus("mlx5_0").as_deref(), Some("0-3,8-11"));
    assert_eq!(cpus("slow").as_deref(), Some("4-7,12-15"));
    assert_eq!(cpus("rxe0").as_deref(), Some("0-1"), "from the interface's device");
    assert_eq!(sysfs.numa_node(&path("mlx5_2")), Some(1));
    assert_eq!(sysfs.numa_node(&path("rxe0")), None);
    assert_eq!(sysfs.link_mbps(&path("mlx5_0")), Some(504_123));
    assert_eq!(sysfs.link_mbps(&path("slow")), Some(63_015));
    assert_eq!(sysfs.link_mbps(&path("rxe0")), None);
}

#[test]
fn distances() {
    let gpu = two_sockets().pci_path("1a:00.0").unwrap();
    let to = |name| distance(&gpu, &path(name), false);
    assert_eq!(to("mlx5_0"), Distance::Switch);
    assert_eq!(to("mlx5_1"), Distance::HostBridge);
    assert_eq!(to("mlx5_2"), Distance::System);
}

#[test]
fn the_nearest_of_equally_fast_nics() {
    let all = nics(&["mlx5_0", "mlx5_1", "mlx5_2"]);
    for index in 0..4 {
        assert_eq!(choose(Some("1a:00.0"), index, &all), Some(0));
        assert_eq!(choose(Some("b3:00.0"), index, &all), Some(2));
    }
}

#[test]
fn bandwidth_comes_before_nearness() {
    let mut all = nics(&["mlx5_0", "mlx5_2"]);
    all[0].speed_mbps = 100_000;
    assert_eq!(choose(Some("1a:00.0"), 0, &all), Some(1));
    // A port is no faster than its slot.
    assert_eq!(choose(Some("b3:00.0"), 0, &nics(&["slow", "mlx5_0"])), Some(1));
}

#[test]
fn equals_are_spread_over_gpus() {
    let four = nics(&["mlx5_0", "mlx5_0", "mlx5_0", "mlx5_0"]);
    let chosen: Vec<_> = (0..4).map(|index| choose(Some("1a:00.0"), index, &four)).collect();
    assert_eq!(chosen, [Some(0), Some(2), Some(1), Some(3)]);
    let three = nics(&["mlx5_0", "mlx5_1", "mlx5_2"]);
    let chosen: Vec<_> = (0..4).map(|index| choose(None, index, &three)).collect();
    assert_eq!(chosen, [Some(0), Some(1), Some(2), Some(0)]);
}

#[test]
fn odd_input_still_gets_a_nic_if_there_is_one() {
    let bare = [Nic { pci_path: None, speed_mbps: 10_000 }];
    assert_eq!(choose(Some("1a:00.0"), -1, &bare), Some(0));
    assert_eq!(choose(None, i32::MAX, &bare), Some(0));
    assert_eq!(choose(None, 0, &[]), None);
    let elsewhere = Sysfs::at("/nonexistent");
    assert_eq!(choose_nic(&elsewhere, Some(Path::new("/nonexistent/gpu")), 0, &bare), Some(0));
}
