//! The topology rules on recorded and on described machines.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside #[test] functions"
)]

mod played_machine;

use std::fs;
use std::path::{Path, PathBuf};

use flagcx_p2p::internals::fabric::HcaFilter;
use flagcx_p2p::internals::topology::{
    Choice, Distance, HostTopology, MemoryPlace, NicMap, NicPort, Reason, Sysfs, natural_order,
};
use played_machine::PlayedMachine;
use proptest::prelude::*;

/// Two sockets. On the first, GPU `1a:00.0` shares a switch with mlx5_0, and mlx5_1 hangs on the host bridge; on the
/// second are GPU `b3:00.0`, mlx5_2, and a card in a narrow slot. A soft-RoCE device sits on a virtio interface.
fn two_sockets() -> Sysfs {
    Sysfs::at(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sysfs/two_sockets"))
}

fn path(name: &str) -> PathBuf {
    two_sockets().rdma_device_path(name).unwrap()
}

/// The machine with NICs of so many Mbit/s.
fn machine(gpus: &[&str], nics: &[(&str, u32)]) -> HostTopology {
    let gpus: Vec<_> = (0..).zip(gpus).map(|(index, id)| (index, (*id).to_owned())).collect();
    let nic = |&(name, speed_mbps): &(&str, u32)| NicPort {
        name: name.to_owned(),
        port: 1,
        speed_mbps,
        path: Some(path(name)),
    };
    HostTopology::read(&two_sockets(), &gpus, nics.iter().map(nic).collect())
}

fn choose(machine: &HostTopology, gpu: i32) -> Option<usize> {
    machine.choose(MemoryPlace::Gpu(gpu), &NicMap::default()).map(|choice| choice.nic)
}

/// What `flagcx-p2p doctor topology` and an engine see of a described machine.
fn seen(played: &PlayedMachine) -> HostTopology {
    let sysfs = Sysfs::at(played.sys());
    let filter = HcaFilter::parse(&played.filter).unwrap();
    let ports = sysfs.nic_ports().into_iter().filter(|nic| filter.allows(&nic.name, nic.port)).collect();
    let gpus: Vec<_> = (0..).zip(sysfs.gpus()).collect();
    HostTopology::read(&sysfs, &gpus, ports)
}

fn place(text: &str) -> MemoryPlace {
    match text.split_once(' ').unwrap() {
        ("gpu", number) => MemoryPlace::Gpu(number.parse().unwrap()),
        ("host", node) => MemoryPlace::Host(Some(node.parse().unwrap())),
        other => panic!("{other:?}"),
    }
}

fn described(machine: &HostTopology, place: MemoryPlace, choice: Option<Choice>) -> String {
    let Some(Choice { nic, reason }) = choice else { return "none".to_owned() };
    let candidate = machine.rank(place).into_iter().find(|candidate| candidate.nic == nic).unwrap();
    assert_ne!(reason, Reason::Map);
    let nic = &machine.nics[nic];
    format!("{}:{} {} {}", nic.name, nic.port, candidate.distance.short(), candidate.mbps)
}

#[test]
fn each_described_machine_has_the_right_nic_for_each_place() {
    let names = played_machine::machines();
    assert!(names.len() >= 9, "{names:?}");
    for name in names {
        let played = PlayedMachine::new(&name);
        let machine = seen(&played);
        assert!(!played.expected.is_empty() && !played.title.is_empty());
        let gpus = played.expected.iter().filter(|(place, _)| place.starts_with("gpu")).count();
        assert_eq!(gpus, machine.gpus.len(), "{name}: every GPU has its line");
        for (text, expected) in &played.expected {
            let place = place(text);
            let choice = machine.choose(place, &NicMap::default());
            assert_eq!(&described(&machine, place, choice), expected, "{name}: {text}");
        }
        for (gpu, nic, expected) in &played.paths {
            let gpu = machine.gpu(*gpu).unwrap();
            let nic = machine.nics.iter().find(|one| one.name == *nic).unwrap();
            let path = format!("{} {}", machine.distance(gpu, nic).short(), machine.path_mbps(gpu, nic));
            assert_eq!(&path, expected, "{name}: GPU {} to {}", gpu.index, nic.name);
        }
    }
}

/// Each machine and its choices are in docs/topology.md.
#[test]
fn the_page_has_a_row_for_each_machine() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/topology.md")).unwrap();
    for name in played_machine::machines() {
        let played = PlayedMachine::new(&name);
        let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/topology.md has no row of {name}"));
        for (place, choice) in &played.expected {
            let nic = choice.split(' ').next().unwrap().trim_end_matches(":1");
            assert!(row.contains(nic), "{name}: {place} has {nic}, which is not in {row}");
        }
    }
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
    // A domain of more than four digits, as of volume management devices.
    let tree = tempfile::tempdir().unwrap();
    let nvme = tree.path().join("bus/pci/devices/10000:e1:00.0");
    fs::create_dir_all(&nvme).unwrap();
    for spelling in ["10000:e1:00.0", "00010000:E1:00.0"] {
        assert_eq!(Sysfs::at(tree.path()).pci_path(spelling), nvme.canonicalize().ok(), "{spelling:?}");
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
    // Only the current links are recorded there.
    assert_eq!(sysfs.link_mbps(&path("mlx5_0")), Some(504_123));
    assert_eq!(sysfs.link_mbps(&path("slow")), Some(63_015));
    assert_eq!(sysfs.link_mbps(&path("rxe0")), None);
}

#[test]
fn a_machine_in_a_moment() {
    let played = PlayedMachine::new("two_ports");
    let sysfs = Sysfs::at(played.sys());
    assert_eq!(sysfs.gpus(), ["0000:1a:00.0", "0000:1c:00.0"]);
    let ports: Vec<_> =
        sysfs.nic_ports().into_iter().map(|nic| (nic.name, nic.port, nic.speed_mbps)).collect();
    assert_eq!(ports, [("mlx5_0".to_owned(), 1, 100_000), ("mlx5_0".to_owned(), 2, 100_000)]);
    fs::write(played.sys().join("class/infiniband/mlx5_0/ports/2/state"), "1: DOWN\n").unwrap();
    assert_eq!(sysfs.nic_ports().len(), 1, "a port that is down carries nothing");
    let elsewhere = Sysfs::at("/nonexistent");
    assert_eq!(
        (elsewhere.gpus().len(), elsewhere.nic_ports().len(), elsewhere.numa_nodes().len()),
        (0, 0, 0)
    );
}

#[test]
fn distances() {
    let machine = machine(&["1a:00.0"], &[("mlx5_0", 1), ("mlx5_1", 1), ("mlx5_2", 1), ("rxe0", 1)]);
    let to = |nic: usize| {
        let mut ranked = machine.rank(MemoryPlace::Gpu(0)).into_iter();
        ranked.find(|candidate| candidate.nic == nic).unwrap().distance
    };
    assert_eq!([to(0), to(1)], [Distance::Switch, Distance::HostBridge]);
    assert_eq!(
        [to(2), to(3)],
        [Distance::System, Distance::Node],
        "rxe0 has no node, and the tree shows none"
    );
}

#[test]
fn the_nearest_comes_before_the_fastest() {
    let machine =
        machine(&["1a:00.0", "b3:00.0"], &[("mlx5_0", 100_000), ("mlx5_1", 200_000), ("mlx5_2", 400_000)]);
    assert_eq!(choose(&machine, 0), Some(0));
    assert_eq!(choose(&machine, 1), Some(2));
}

#[test]
fn a_port_is_no_faster_than_its_slot() {
    let machine = machine(&["b3:00.0"], &[("slow", 400_000), ("mlx5_2", 200_000)]);
    let ranked = machine.rank(MemoryPlace::Gpu(0));
    let slow = ranked.iter().find(|candidate| candidate.nic == 0).unwrap();
    assert_eq!(slow.mbps, 63_015);
    assert_eq!(choose(&machine, 0), Some(1));
}

#[test]
fn a_nic_that_is_farther_than_another_is_told_apart() {
    let machine = machine(&["1a:00.0"], &[("mlx5_0", 100_000), ("mlx5_2", 200_000)]);
    assert_eq!(machine.nearer(0, 0, &[]), None);
    assert_eq!(machine.nearer(0, 1, &[0]), None, "the nearer one cannot be used");
    let (used, best) = machine.nearer(0, 1, &[]).unwrap();
    assert_eq!((used.distance, best.nic, best.distance), (Distance::System, 0, Distance::Switch));
    let absent = (machine.nearer(1, 1, &[]), machine.nearer(0, 2, &[]));
    assert_eq!(absent, (None, None), "no such GPU, no such NIC");
}

#[test]
fn gpu_memory_is_registered_with_the_near_nics_and_a_spare() {
    let speed = 200_000;
    let near = |nics: &[(&str, u32)], place, unusable: &[usize]| {
        machine(&["1a:00.0", "b3:00.0"], nics).near_and_spare(place, unusable)
    };
    let all = [("mlx5_2", speed), ("mlx5_1", speed), ("mlx5_0", speed)];
    let of_gpu = |gpu| near(&all, MemoryPlace::Gpu(gpu), &[]);
    assert_eq!(of_gpu(0), [2, 1], "the one at its switch, and the next");
    assert_eq!(of_gpu(1)[0], 0, "that of its own socket");
    assert_eq!(near(&all, MemoryPlace::Gpu(0), &[2]), [1, 0], "the best one cannot be used");
    assert_eq!(near(&all[2..], MemoryPlace::Gpu(0), &[]), [0], "there is no spare");
    // Two at the switch are both near.
    let mut twice = machine(&["1a:00.0"], &[all[2], all[1], all[2], all[0]]);
    twice.nics[2].port = 2;
    assert_eq!(twice.near_and_spare(MemoryPlace::Gpu(0), &[]), [0, 2, 1]);
    // Where nothing is known of the GPU all are as near.
    assert_eq!(near(&all, MemoryPlace::Gpu(9), &[]).len(), 3);
    assert_eq!(near(&[], MemoryPlace::Gpu(0), &[]), [0_usize; 0]);
}

#[test]
fn equals_are_spread_over_gpus() {
    let mut machine = machine(&["1a:00.0"], &[("mlx5_0", 200_000); 4]);
    for (port, nic) in (1..).zip(&mut machine.nics) {
        nic.port = port;
    }
    machine.gpus = (0..4)
        .map(|index| flagcx_p2p::internals::topology::Gpu { index, ..machine.gpus[0].clone() })
        .collect();
    let chosen: Vec<_> = (0..4).map(|gpu| choose(&machine, gpu)).collect();
    assert_eq!(chosen, [Some(0), Some(2), Some(1), Some(3)]);
    // One that cannot be used keeps its place: only its own GPU has another one.
    let without = |unusable: &[usize]| {
        let choose = |gpu| machine.choose_without(MemoryPlace::Gpu(gpu), &NicMap::default(), unusable);
        (0..4).map(|gpu| choose(gpu).map(|choice| choice.nic)).collect::<Vec<_>>()
    };
    assert_eq!(without(&[2]), [Some(0), Some(3), Some(1), Some(3)]);
    assert_eq!(without(&[3, 0]), [Some(1), Some(2), Some(1), Some(1)]);
    assert_eq!(without(&[0, 1, 2, 3]), [None; 4]);
    machine.nics.pop();
    let chosen: Vec<_> = (0..4).map(|gpu| choose(&machine, gpu)).collect();
    assert_eq!(chosen, [Some(0), Some(1), Some(2), Some(0)]);
}

#[test]
fn behind_the_best_that_cannot_be_used_comes_the_next_best() {
    let machine = machine(&["1a:00.0"], &[("mlx5_0", 100_000), ("mlx5_1", 200_000), ("mlx5_2", 400_000)]);
    let without = |unusable: &[usize]| {
        let choice = machine.choose_without(MemoryPlace::Gpu(0), &NicMap::default(), unusable);
        choice.map(|choice| choice.nic)
    };
    let ranked: Vec<_> = machine.rank(MemoryPlace::Gpu(0)).iter().map(|candidate| candidate.nic).collect();
    for place in 0..ranked.len() {
        assert_eq!(without(&ranked[..place]), Some(ranked[place]));
    }
    assert_eq!(without(&ranked), None);
}

#[test]
fn odd_input_still_gets_a_nic_if_there_is_one() {
    let bare = NicPort { name: "sw0".to_owned(), port: 1, speed_mbps: 10_000, path: None };
    let machine = HostTopology::read(&Sysfs::at("/nonexistent"), &[(0, "1a:00.0".to_owned())], vec![bare]);
    for gpu in [-1, 0, 5, i32::MAX] {
        assert_eq!(choose(&machine, gpu), Some(0));
    }
    let host = machine.choose(MemoryPlace::Host(None), &NicMap::default());
    assert_eq!(host.map(|choice| choice.nic), Some(0));
    assert_eq!(choose(&HostTopology::default(), 0), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever order the kernel lists devices in, a place has the same NIC.
    #[test]
    fn the_order_of_devices_does_not_matter(
        (machine, shuffled) in any_machine().prop_flat_map(|machine| {
            let nics = Just(machine.nics.clone()).prop_shuffle();
            let gpus = Just(machine.gpus.clone()).prop_shuffle();
            let other = machine.clone();
            (Just(machine), (nics, gpus).prop_map(move |(nics, gpus)| HostTopology { nics, gpus, ..other.clone() }))
        }),
        gpu in 0..9_i32,
    ) {
        let names = |machine: &HostTopology, place| -> Vec<_> {
            machine.rank(place).into_iter().map(|one| machine.nics[one.nic].clone()).collect()
        };
        for place in [MemoryPlace::Gpu(gpu), MemoryPlace::Host(Some(0)), MemoryPlace::Host(None)] {
            prop_assert_eq!(names(&machine, place), names(&shuffled, place));
            let nic = |machine: &HostTopology| {
                machine.choose(place, &NicMap::default()).map(|choice| machine.nics[choice.nic].clone())
            };
            prop_assert_eq!(nic(&machine), nic(&shuffled));
        }
    }

    /// The map decides for its GPU, and for no other one.
    #[test]
    fn the_map_wins(machine in any_machine(), gpu in 0..9_i32, other in 0..9_i32, at: prop::sample::Index) {
        prop_assume!(!machine.nics.is_empty() && gpu != other);
        let nic = &machine.nics[at.index(machine.nics.len())];
        let map = NicMap::parse(&format!("{gpu}={}:{}", nic.name, nic.port)).unwrap();
        let chosen = machine.choose(MemoryPlace::Gpu(gpu), &map).unwrap();
        prop_assert_eq!((&machine.nics[chosen.nic], chosen.reason), (nic, Reason::Map));
        let place = MemoryPlace::Gpu(other);
        prop_assert_eq!(machine.choose(place, &map), machine.choose(place, &NicMap::default()));
        // One that is filtered out is not chosen, whatever the map says.
        let mut filtered = machine.clone();
        filtered.nics.retain(|other| other != nic);
        prop_assert_eq!(filtered.choose(MemoryPlace::Gpu(gpu), &map), filtered.choose(MemoryPlace::Gpu(gpu), &NicMap::default()));
    }

    /// Without the NICs behind the best, the best stays: what the filter leaves out takes no part.
    #[test]
    fn the_filter_comes_first(machine in any_machine(), gpu in 0..9_i32, kept: u16) {
        let mut filtered = machine.clone();
        let mut at = 0;
        filtered.nics.retain(|_| { at += 1; kept >> (at % 16) & 1 == 1 });
        let place = MemoryPlace::Gpu(gpu);
        let of_all: Vec<_> = machine.rank(place).into_iter().map(|one| &machine.nics[one.nic]).filter(|nic| filtered.nics.contains(nic)).collect();
        let of_kept: Vec<_> = filtered.rank(place).into_iter().map(|one| &filtered.nics[one.nic]).collect();
        prop_assert_eq!(of_all, of_kept);
        prop_assert_eq!(filtered.choose(place, &NicMap::default()).is_none(), filtered.nics.is_empty());
    }

    /// Nothing nearer is passed over, and nothing faster of the same class.
    #[test]
    fn no_better_nic_is_passed_over(machine in any_machine(), gpu in 0..9_i32) {
        let ranked = machine.rank(MemoryPlace::Gpu(gpu));
        for pair in ranked.windows(2) {
            prop_assert!(pair[0].distance <= pair[1].distance);
            prop_assert!(pair[0].distance < pair[1].distance || pair[0].mbps >= pair[1].mbps);
        }
        if let Some(chosen) = choose(&machine, gpu) {
            let chosen = ranked.iter().find(|one| one.nic == chosen).unwrap();
            prop_assert_eq!((chosen.distance, chosen.mbps), (ranked[0].distance, ranked[0].mbps));
        }
    }
}

/// One of the described machines, with and without its filter.
fn any_machine() -> impl Strategy<Value = HostTopology> {
    let all: Vec<_> = played_machine::machines()
        .iter()
        .flat_map(|name| {
            let mut played = PlayedMachine::new(name);
            let filtered = seen(&played);
            played.filter.clear();
            [filtered, seen(&played)]
        })
        .collect();
    prop::sample::select(all)
}

#[test]
fn names_are_counted() {
    assert_eq!(natural_order("mlx5_2", "mlx5_10"), std::cmp::Ordering::Less);
}
