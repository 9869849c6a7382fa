//! A peer that answers requests on its data socket, and means harm by it.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::fabric::{
    Access, Backing, Batch, Completion, CompletionQueue, CompletionStatus, Device, MemoryRange, MemoryRegion,
    Opcode, PathOptions, QueuePair, QueuePairCaps, Sge, SoftwareOptions, WorkRequest, software,
};

use crate::support;
use crate::wire::{self, FakeDevice};

/// Frames that one poll may take. The lock of a worker is held meanwhile.
const FRAMES: usize = 512;
const LENGTH: usize = 16 * FRAMES;

/// A frame with one byte of the READ with sequence number 0.
const BYTE: [u8; 17] = [0xf2, 3, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

/// A queue pair with READs of one buffer under way, which the other side has received and not answered.
struct Reading {
    completions: Box<dyn CompletionQueue>,
    queue_pair: Box<dyn QueuePair>,
    region: Arc<dyn MemoryRegion>,
    buffer: Vec<u8>,
    /// The other side's end.
    socket: TcpStream,
}

impl Reading {
    /// READs of `length` bytes each, `count` of them, posted at once; their ids begin at `first_id`.
    fn start(length: usize, count: usize, first_id: u64) -> Self {
        let device: Arc<dyn Device> = software::open_software(&SoftwareOptions::default()).unwrap().remove(0);
        let fake = FakeDevice::start();
        let mut completions = Arc::clone(&device).create_completion_queue(16).unwrap();
        let caps = QueuePairCaps { send_depth: 16, max_sge: 4, max_inline: 0 };
        let mut queue_pair = Arc::clone(&device).create_queue_pair(&completions.handle(), &caps).unwrap();
        let deadline = Instant::now() + wire::PATIENCE;
        let path = PathOptions { rd_atomic_initiator: 16, rd_atomic_responder: 16, deadline };
        queue_pair.connect(&wire::address(7, fake.port), &path).unwrap();
        let buffer = vec![0_u8; length];
        let range = MemoryRange {
            address: buffer.as_ptr() as u64,
            length: length as u64,
            access: Access::FULL,
            dma_buf: None,
            file: None,
            cpu_address: None,
            backing: Backing::Anonymous,
            announced: true,
        };
        let region = device.register(&range).unwrap();
        let entries = [Sge { address: range.address, length: length as u32, lkey: region.lkey() }];
        let request = WorkRequest {
            remote_address: 4096,
            rkey: 1,
            first_sge: 0,
            origin: 0,
            sge_count: 1,
            inline: false,
        };
        let requests = vec![request; count];
        queue_pair.post(&Batch {
            opcode: Opcode::Read,
            first_id,
            signal_every: 1,
            requests: &requests,
            entries: &entries,
            one_each: false,
        });
        assert_eq!(completions.poll(&mut [Completion::default(); 4]).unwrap(), 0);
        let mut socket = None;
        support::eventually("the data socket is open", || {
            socket = fake.take_socket();
            socket.is_some()
        });
        let mut socket = socket.unwrap();
        for _ in 0..count {
            wire::read_array::<32>(&mut socket).unwrap();
        }
        Self { completions, queue_pair, region, buffer, socket }
    }

    fn end(self) {
        drop(self.queue_pair);
        self.region.revoke(Instant::now() + wire::PATIENCE).unwrap();
    }
}

/// Each byte costs a header and a system call: a poll that counted payload only would take a million of them.
#[test]
fn a_read_that_is_answered_a_byte_at_a_time_keeps_no_caller() {
    // The answer to one alone may only come whole: below.
    let mut reading = Reading::start(LENGTH, 2, 0);
    let mut socket = reading.socket.try_clone().unwrap();
    let answering = std::thread::spawn(move || {
        socket.write_all(&BYTE.repeat(LENGTH)).unwrap();
    });
    std::thread::sleep(Duration::from_millis(50));
    let (mut before, mut polls, mut most, begin) = (0, 0, 0, Instant::now());
    let mut out = [Completion::default(); 4];
    while before < LENGTH {
        assert!(begin.elapsed() < support::LIMIT, "{before} of {LENGTH} bytes");
        assert_eq!(reading.completions.poll(&mut out).unwrap(), 0);
        let now = std::hint::black_box(&reading.buffer).iter().filter(|byte| **byte == 7).count();
        (polls, most, before) = (polls + 1, most.max(now - before), now);
    }
    println!("{LENGTH} bytes, each in a frame of its own, in {polls} polls, at most {most} in one");
    assert!(most <= FRAMES, "{most} frames in one poll");
    answering.join().unwrap();
    reading.end();
}

/// A READ that was sent alone is received together with the header before it. An answer that stops in the middle would leave the next
/// header in the place of its bytes, so it is none.
#[test]
fn an_answer_in_pieces_to_a_read_that_was_sent_alone_fails_it() {
    let mut reading = Reading::start(64, 1, 9);
    reading.socket.write_all(&BYTE.repeat(64)).unwrap();
    let mut out = [Completion::default(); 4];
    support::eventually("the READ has failed", || reading.completions.poll(&mut out).unwrap() == 1);
    assert_eq!((out[0].id, out[0].status), (9, CompletionStatus::BadResponse));
    reading.end();
}
