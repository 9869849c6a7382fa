//! `flagcx-p2p doctor topology` on described machines.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

mod common;
#[path = "../../core/tests/played_machine/mod.rs"]
mod played_machine;

use std::process::Output;

use played_machine::PlayedMachine;
use serde_json::Value;

fn topology(machine: &PlayedMachine, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = common::program();
    command.args(["doctor", "topology", "--root"]).arg(machine.root()).args(arguments);
    for variable in
        ["FLAGCX_P2P_NIC_MAP", "FLAGCX_TOPO_FILE", "FLAGCX_P2P_DEST_DEV_AFFINITY", "FLAGCX_P2P_IB_PORT"]
    {
        command.env_remove(variable);
    }
    command.env("FLAGCX_IB_HCA", &machine.filter).envs(settings.iter().copied()).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn json_has_the_expected_choice_of_each_machine() {
    for name in played_machine::machines() {
        let machine = PlayedMachine::new(&name);
        let found: Value = serde_json::from_str(&text(&topology(&machine, &["--json"], &[]))).unwrap();
        for (place, expected) in &machine.expected {
            let (kind, number) = place.split_once(' ').unwrap();
            let (rows, key) = if kind == "gpu" { ("gpus", "index") } else { ("host_memory", "numa_node") };
            let number: u64 = number.parse().unwrap();
            let row = found[rows].as_array().unwrap().iter().find(|row| row[key] == number).unwrap();
            let nic = row["choice"]["nic"].as_str().unwrap_or("none");
            assert_eq!(nic, expected.split(' ').next().unwrap(), "{name}: {place}");
            if let ("gpu", [_, class, mbps]) = (kind, &expected.split(' ').collect::<Vec<_>>()[..]) {
                let path = row["paths"].as_array().unwrap().iter().find(|path| path["nic"] == nic).unwrap();
                assert_eq!(
                    (path["class"].as_str(), path["mbps"].to_string().as_str()),
                    (Some(*class), *mbps)
                );
                assert!(!row["choice"]["reason"].as_str().unwrap().is_empty());
            }
        }
    }
}

#[test]
fn the_matrix_the_choices_and_the_reasons() {
    let found = text(&topology(&PlayedMachine::new("hgx_far_nic"), &[], &[]));
    let expected = "          mlx5_0:1  mlx5_1:1  mlx5_2:1
GPU 0     PIX 200   SYS 80    NODE 252
GPU 1     PIX 200   SYS 80    NODE 252
PIX one PCI switch; NODE same NUMA node; SYS across NUMA nodes; numbers: Gbit/s that the path carries

GPU 0 (0000:1a:00.0): mlx5_0:1, the best path: one PCI switch, 200 Gbit/s
GPU 1 (0000:1c:00.0): mlx5_0:1, the best path: one PCI switch, 200 Gbit/s
host memory of NUMA node 0: mlx5_2:1, the best path: same NUMA node, 400 Gbit/s
host memory of NUMA node 1: mlx5_1:1, the best path: same NUMA node, 400 Gbit/s
between sockets: 80 Gbit/s, by the kind of processor
";
    assert!(found.starts_with(expected), "{found}");
}

#[test]
fn settings_count_as_for_an_engine() {
    let machine = PlayedMachine::new("hgx_far_nic");
    let map = text(&topology(&machine, &[], &[("FLAGCX_P2P_NIC_MAP", "1=mlx5_1")]));
    assert!(map.contains("GPU 1 (0000:1c:00.0): mlx5_1:1, the map names it"), "{map}");
    let filter = text(&topology(&machine, &[], &[("FLAGCX_IB_HCA", "mlx5_1")]));
    assert!(filter.contains("GPU 0 (0000:1a:00.0): mlx5_1:1, the best path: across NUMA nodes"), "{filter}");
    assert!(
        filter.contains("left out by FLAGCX_IB_HCA or FLAGCX_P2P_IB_PORT: mlx5_0:1, mlx5_2:1"),
        "{filter}"
    );
    let rail = text(&topology(&machine, &[], &[("FLAGCX_P2P_DEST_DEV_AFFINITY", "1")]));
    assert!(rail.contains("GPU 1 (0000:1c:00.0): mlx5_1:1, it has the number of the GPU"), "{rail}");
    let nothing = text(&topology(&PlayedMachine::new("no_nic"), &[], &[]));
    assert!(nothing.contains("GPU 0 (0000:18:00.0): no NIC"), "{nothing}");
}

#[test]
fn a_map_that_names_nothing_fails_with_what_is_there() {
    let machine = PlayedMachine::new("two_ports");
    for (name, text, expected) in [
        (
            "FLAGCX_P2P_NIC_MAP",
            "0=mlx5_7",
            "0=mlx5_7 names no NIC that this process uses: there are mlx5_0:1, mlx5_0:2",
        ),
        ("FLAGCX_P2P_NIC_MAP", "mlx5_0", "is not GPU=name"),
    ] {
        let output = topology(&machine, &[], &[(name, text)]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && error.contains(expected), "{error}");
    }
}

#[test]
fn this_machine_has_an_answer() {
    let mut command = common::program();
    let output = command.args(["doctor", "topology", "--json"]).output().unwrap();
    let found: Value = serde_json::from_str(&text(&output)).unwrap();
    assert!(found["gpus"].is_array() && found["nics"].is_array(), "{found}");
}
