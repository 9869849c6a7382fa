//! Ports that are addressed in other ways than most: each plays one profile of the stand-in libibverbs, which refuses or loses
//! what a port of that kind would.
#![cfg(feature = "verbs")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod conformance;
mod nullverbs;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use conformance::initiator::{request, writes};
use conformance::{Initiator, LocalPeer, Rig, Window};
use flagcx_p2p::internals::fabric::*;
use nullverbs::{Live, Standin};

/// A WRITE each way between two devices of the profile; then nothing may be left of them.
fn transfers_work(standin: &Standin, options: &VerbsOptions) {
    let devices = verbs::open(options).unwrap();
    let [one, other] = &devices[..] else { panic!("two devices, not {}", devices.len()) };
    write(one, other);
    write(other, one);
    drop(devices);
    assert_eq!(standin.live(), Live::default());
}

fn write(from: &Arc<dyn Device>, to: &Arc<dyn Device>) {
    let peer = Box::new(LocalPeer::new(Arc::clone(to)));
    let mut rig = Rig { device: Arc::clone(from), peer, path: PathKind::Rdma };
    let local = Window::patterned(from, 4096);
    let remote = rig.peer.buffer(4096, 0, Access::FULL);
    let mut side = Initiator::new(&mut rig);
    side.post_all(&writes(7, &[request(remote.address, remote.rkey, 0)], &[local.sge(0, 4096)]));
    assert_eq!(side.wait(1)[0].id, 7);
    assert_eq!(rig.peer.bytes(remote.index), local.bytes());
}

fn playing(profile: &str) -> Standin {
    Standin::playing(profile, &[("devs", 2)])
}

fn first(options: &VerbsOptions) -> Arc<dyn Device> {
    verbs::open(options).unwrap().remove(0)
}

/// A folder in place of `/sys` with `files` for each of two devices.
fn sysfs(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for device in ["nv0", "nv1"] {
        for (file, text) in files {
            let file = root.path().join("class/infiniband").join(device).join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
    }
    root
}

fn with_files(standin: &Standin, root: &Path) -> VerbsOptions {
    VerbsOptions { sysfs: root.to_owned(), ..standin.options() }
}

#[test]
fn ports_that_want_a_global_route_header() {
    let standin = playing("grh_required");
    transfers_work(&standin, &standin.options());
}

#[test]
fn ends_in_two_subnets() {
    for profile in ["foreign_prefix", "foreign_prefix_flid"] {
        let standin = playing(profile);
        transfers_work(&standin, &standin.options());
    }
}

#[test]
fn devices_without_atomics() {
    let standin = playing("no_atomics");
    transfers_work(&standin, &standin.options());
}

#[test]
fn ports_without_a_link_layer() {
    let infiniband = playing("link_layer_0");
    assert_eq!(first(&infiniband.options()).port().unwrap().link_layer, LINK_INFINIBAND, "it has a LID");
    transfers_work(&infiniband, &infiniband.options());

    let ethernet = playing("link_layer_0_ethernet");
    assert_eq!(first(&ethernet.options()).port().unwrap().link_layer, LINK_ETHERNET, "it has none");
    transfers_work(&ethernet, &ethernet.options());

    // The kernel's file, where there is one, decides; here it is wrong, and believed.
    let root = sysfs(&[("ports/1/link_layer", "InfiniBand\n")]);
    let port = first(&with_files(&ethernet, root.path())).port().unwrap();
    assert_eq!(port.link_layer, LINK_INFINIBAND);
}

#[test]
fn peers_that_name_no_link_layer() {
    let standin = playing("link_layer_0");
    let device = first(&standin.options());
    let queue = Arc::clone(&device).create_completion_queue(16).unwrap();
    let mut pair = Arc::clone(&device).create_queue_pair(&queue.handle(), &conformance::caps()).unwrap();
    let unspecified = QpAddress { link_layer: 0, ..pair.address() };
    let options = PathOptions {
        rd_atomic_initiator: 1,
        rd_atomic_responder: 1,
        deadline: std::time::Instant::now() + conformance::PATIENCE,
    };
    pair.connect(&unspecified, &options).unwrap();
    assert_eq!(pair.path(), PathKind::Rdma);
}

#[test]
fn ports_that_report_no_largest_message() {
    let standin = playing("max_msg_0");
    assert_eq!(first(&standin.options()).port().unwrap().max_message, 1 << 30);
    transfers_work(&standin, &standin.options());
}

#[test]
fn addresses_of_an_interface_that_is_gone_come_last() {
    // By the table in one call, by entry, and by GIDs alone, which are then compared with the host's addresses.
    for calls in [2, 1, 0] {
        let standin = Standin::playing("stale_gids", &[("devs", 2), ("gid_calls", calls)]);
        let port = first(&standin.options()).port().unwrap();
        assert_eq!(port.gid_index, 3, "{}", port.gid_reason);
        transfers_work(&standin, &standin.options());
    }
    // There is nothing else: used, and said.
    let standin = Standin::playing("stale_gids", &[("address", 0xcb00_71fe)]);
    let options = VerbsOptions { address_range: "203.0.113.0/30".to_owned(), ..standin.options() };
    let reason = first(&options).port().unwrap().gid_reason;
    assert!(reason.contains("interface is gone"), "{reason}");
}

#[test]
fn a_trial_address_decides_among_candidates() {
    let standin = playing("refused_gids");
    let port = first(&standin.options()).port().unwrap();
    assert_eq!(port.gid_index, 0, "{}", port.gid_reason);
    assert!(port.gid_reason.contains("makes no address from [2]"), "{}", port.gid_reason);
    transfers_work(&standin, &standin.options());
}

#[test]
fn old_libraries_and_new_ones_give_the_same_table() {
    let root =
        sysfs(&[("ports/1/gid_attrs/types/0", "RoCE v2\n"), ("ports/1/gid_attrs/types/1", "RoCE v2\n")]);
    let tables: Vec<_> = [2, 1, 0]
        .map(|calls| {
            let standin = Standin::playing("old_gid_library", &[("gids", 5), ("gid_calls", calls)]);
            first(&with_files(&standin, root.path())).gids().unwrap()
        })
        .into();
    let seen = |table: &[GidEntry]| -> Vec<_> {
        table.iter().map(|entry| (entry.index, entry.gid, entry.roce_version)).collect()
    };
    assert_eq!(seen(&tables[0]).len(), 2);
    assert_eq!(tables[0], tables[1]);
    assert_eq!(seen(&tables[0]), seen(&tables[2]));
    assert_eq!(tables[0][1].roce_version, Some(2));
    assert!(tables[0][1].netdev.is_some() && tables[2][1].netdev.is_none(), "{tables:?}");
    let bare = Standin::playing("old_gid_library", &[]);
    assert_eq!(first(&bare.options()).gids().unwrap()[1].roce_version, None, "neither library nor files");
}

#[test]
fn the_traffic_class_that_the_nic_was_given_is_used() {
    let root = sysfs(&[("tc/1/traffic_class", "Global tclass=106\n")]);
    let standin = Standin::new(&[("devs", 2), ("traffic_class", 106)]);
    let given = with_files(&standin, root.path());
    assert_eq!(first(&given).port().unwrap().traffic_class, 106, "before it is opened");
    transfers_work(&standin, &given);
    standin.set("traffic_class", 96);
    let set = VerbsOptions { traffic_class: Some(96), ..with_files(&standin, root.path()) };
    transfers_work(&standin, &set);
}
