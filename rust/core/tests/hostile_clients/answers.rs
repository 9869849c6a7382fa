//! A peer that answers requests on its data socket, and means harm by it.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::fabric::{
    Access, Backing, Batch, Completion, CompletionStatus, Device, MemoryRange, Opcode, PathOptions,
    QueuePairCaps, Sge, SoftwareOptions, WorkRequest, software,
};

use crate::support;
use crate::wire::{self, FakeDevice};

/// Frames that one poll may take. The lock of a worker is held meanwhile.
const FRAMES: usize = 512;
const LENGTH: usize = 16 * FRAMES;

/// A frame with one byte of the READ with sequence number 0.
const BYTE: [u8; 17] = [0xf2, 3, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

/// Each byte costs a header and a system call: a poll that counted payload only would take a million of them.
#[test]
fn a_read_that_is_answered_a_byte_at_a_time_keeps_no_caller() {
    let device: Arc<dyn Device> = software::open_software(&SoftwareOptions::default()).unwrap().remove(0);
    let fake = FakeDevice::start();
    let mut completions = Arc::clone(&device).create_completion_queue(16).unwrap();
    let caps = QueuePairCaps { send_depth: 16, max_sge: 4, max_inline: 0 };
    let mut queue_pair = Arc::clone(&device).create_queue_pair(&completions.handle(), &caps).unwrap();
    let path = PathOptions {
        rd_atomic_initiator: 16,
        rd_atomic_responder: 16,
        deadline: Instant::now() + wire::PATIENCE,
    };
    queue_pair.connect(&wire::address(7, fake.port), &path).unwrap();
    let buffer = vec![0_u8; LENGTH];
    let range = MemoryRange {
        address: buffer.as_ptr() as u64,
        length: LENGTH as u64,
        access: Access::FULL,
        dma_buf: None,
        file: None,
        cpu_address: None,
        backing: Backing::Anonymous,
        announced: true,
    };
    let region = device.register(&range).unwrap();
    let entries = [Sge { address: range.address, length: LENGTH as u32, lkey: region.lkey() }];
    // The answer to one alone may only come whole: below.
    let request =
        WorkRequest { remote_address: 4096, rkey: 1, first_sge: 0, origin: 0, sge_count: 1, inline: false };
    let requests = [request, request];
    let batch = Batch {
        opcode: Opcode::Read,
        first_id: 0,
        signal_every: 1,
        requests: &requests,
        entries: &entries,
        one_each: false,
    };
    queue_pair.post(&batch);
    let mut out = [Completion::default(); 4];
    assert_eq!(completions.poll(&mut out).unwrap(), 0);
    let mut socket = None;
    support::eventually("the data socket is open", || {
        socket = fake.take_socket();
        socket.is_some()
    });
    let mut socket = socket.unwrap();
    wire::read_array::<64>(&mut socket).unwrap();
    let answering = std::thread::spawn(move || {
        socket.write_all(&BYTE.repeat(LENGTH)).unwrap();
        socket
    });
    std::thread::sleep(Duration::from_millis(50));
    let arrived = || std::hint::black_box(&buffer).iter().filter(|byte| **byte == 7).count();
    let (mut before, mut polls, mut most, begin) = (0, 0, 0, Instant::now());
    while before < LENGTH {
        assert!(begin.elapsed() < support::LIMIT, "{before} of {LENGTH} bytes");
        assert_eq!(completions.poll(&mut out).unwrap(), 0);
        let now = arrived();
        (polls, most, before) = (polls + 1, most.max(now - before), now);
    }
    println!("{LENGTH} bytes, each in a frame of its own, in {polls} polls, at most {most} in one");
    assert!(most <= FRAMES, "{most} frames in one poll");
    drop(answering.join().unwrap());
    drop(queue_pair);
    region.revoke(Instant::now() + wire::PATIENCE).unwrap();
}

/// A READ that was sent alone is received together with the header before it. An answer that stops in the middle would leave the next
/// header in the place of its bytes, so it is none.
#[test]
fn an_answer_in_pieces_to_a_read_that_was_sent_alone_fails_it() {
    let device: Arc<dyn Device> = software::open_software(&SoftwareOptions::default()).unwrap().remove(0);
    let fake = FakeDevice::start();
    let mut completions = Arc::clone(&device).create_completion_queue(16).unwrap();
    let caps = QueuePairCaps { send_depth: 16, max_sge: 4, max_inline: 0 };
    let mut queue_pair = Arc::clone(&device).create_queue_pair(&completions.handle(), &caps).unwrap();
    let deadline = Instant::now() + wire::PATIENCE;
    let path = PathOptions { rd_atomic_initiator: 16, rd_atomic_responder: 16, deadline };
    queue_pair.connect(&wire::address(7, fake.port), &path).unwrap();
    let buffer = [0_u8; 64];
    let range = MemoryRange {
        address: buffer.as_ptr() as u64,
        length: 64,
        access: Access::FULL,
        dma_buf: None,
        file: None,
        cpu_address: None,
        backing: Backing::Anonymous,
        announced: true,
    };
    let region = device.register(&range).unwrap();
    let entries = [Sge { address: range.address, length: 64, lkey: region.lkey() }];
    let requests =
        [WorkRequest { remote_address: 4096, rkey: 1, first_sge: 0, origin: 0, sge_count: 1, inline: false }];
    let batch = Batch {
        opcode: Opcode::Read,
        first_id: 9,
        signal_every: 1,
        requests: &requests,
        entries: &entries,
        one_each: false,
    };
    queue_pair.post(&batch);
    let mut out = [Completion::default(); 4];
    assert_eq!(completions.poll(&mut out).unwrap(), 0);
    let mut socket = None;
    support::eventually("the data socket is open", || {
        socket = fake.take_socket();
        socket.is_some()
    });
    let mut socket = socket.unwrap();
    wire::read_array::<32>(&mut socket).unwrap();
    socket.write_all(&BYTE.repeat(64)).unwrap();
    support::eventually("the READ has failed", || completions.poll(&mut out).unwrap() == 1);
    assert_eq!((out[0].id, out[0].status), (9, CompletionStatus::BadResponse));
    drop(queue_pair);
    region.revoke(Instant::now() + wire::PATIENCE).unwrap();
}
