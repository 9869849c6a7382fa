//! Other clients of a listener, and paths that cannot be had.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::*;

#[test]
fn other_clients_of_the_data_listener_disturb_no_peer() {
    let (mut rig, _) = rig(forced(PathKind::Tcp));
    let mut side = Initiator::new(&mut rig);
    let address = side.queue_pair.address();
    let listener = SocketAddr::new(address.ip(), address.lid as u16);
    let mut silent = TcpStream::connect(listener).unwrap();
    for bytes in [b"GET / HTTP/1.1\r\n".repeat(8), vec![0; 4096], vec![0xFF; 1]] {
        let mut client = TcpStream::connect(listener).unwrap();
        client.write_all(&bytes).unwrap();
        if bytes.len() > 100 {
            // Closed without a word.
            client.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
            assert!(matches!(client.read(&mut [0; 64]), Ok(0) | Err(_)));
        }
    }
    let local = Window::patterned(&rig.device, 64);
    let remote = rig.peer.buffer(64, 0, Access::FULL);
    side.post_all(&writes(1, &[request(remote.address, remote.rkey, 0)], &[local.sge(0, 64)]));
    assert_eq!(statuses(&side.wait(1)), [CompletionStatus::Success]);
    // A silent one is closed.
    silent.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(matches!(silent.read(&mut [0; 64]), Ok(0)));
}

#[test]
fn a_path_that_cannot_be_had_is_an_error_that_says_why() {
    let (mut other, _) = remote_rig(PathKind::Tcp);
    let (_, address) = other.peer.queue_pair();
    let connect = |options, address| {
        let device: Arc<dyn Device> = open(options);
        let completions = Arc::clone(&device).create_completion_queue(4).unwrap();
        let mut queue_pair = device.create_queue_pair(&completions.handle(), &caps()).unwrap();
        queue_pair.connect(&address, &peer::path()).map_err(|error| error.to_string())
    };
    let error = connect(forced(PathKind::InProcess), address).unwrap_err();
    assert!(error.contains("forced path in-process"), "{error}");
    let missing = QpAddress { qpn: 0xABCDEF, ..address };
    let error = connect(SoftwareOptions::default(), missing).unwrap_err();
    assert!(error.contains("no such queue pair"), "{error}");
    let closed = QpAddress { lid: 1, ..address };
    let error = connect(SoftwareOptions::default(), closed).unwrap_err();
    assert!(error.contains("refused") && error.contains("the peer announced this address"), "{error}");
    let ethernet = QpAddress { link_layer: 2, ..address };
    let error = connect(SoftwareOptions::default(), ethernet).unwrap_err();
    assert!(error.contains("link layer"), "{error}");
    assert!(software::open(&forced(PathKind::Rdma)).is_err());
}
