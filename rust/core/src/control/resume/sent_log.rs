//! What is kept of sent frames until the peer has them.

use std::collections::VecDeque;

use crate::control::wire::WireError;

/// Frames that have been sent, and of which it is not known that the peer has received them. They have numbers from 0 on.
#[derive(Debug)]
pub struct SentLog {
    /// The number of the first that is kept.
    first: u64,
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    /// No more are to be sent while as many frames, or bytes, are kept.
    room: (usize, usize),
}

impl SentLog {
    /// An empty log with room for `frames`, and for `bytes`, and what the last of them has more.
    pub fn new(frames: usize, bytes: usize) -> Self {
        Self { first: 0, frames: VecDeque::new(), bytes: 0, room: (frames, bytes) }
    }

    /// Keeps a frame that is being sent.
    pub fn push(&mut self, frame: Vec<u8>) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    /// Whether another frame may be sent before the peer acknowledges some.
    pub fn has_room(&self) -> bool {
        self.frames.len() < self.room.0 && self.bytes < self.room.1
    }

    /// How many frames are kept.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether no frame is kept.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Takes the newest frame out again: nothing of it was sent.
    pub fn take_back(&mut self) {
        if let Some(frame) = self.frames.pop_back() {
            self.bytes -= frame.len();
        }
    }

    /// How many frames have been sent so far.
    pub fn sent(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    /// The peer has received the first `count` frames. Fails if so many have not been sent; a number that is older than one before is
    /// ignored.
    pub fn acknowledge(&mut self, count: u64) -> Result<(), WireError> {
        if count > self.sent() {
            let problem = format!("{count} frames are acknowledged, {} have been sent", self.sent());
            return Err(WireError::new("acknowledgement", problem));
        }
        while self.first < count {
            let Some(frame) = self.frames.pop_front() else { break };
            self.first += 1;
            self.bytes -= frame.len();
        }
        Ok(())
    }

    /// The frames that a peer has not received that has `count` of them, in their order. Fails if some of them are not kept, or if so
    /// many have not been sent: then it is not the peer that has acknowledged the others.
    pub fn missing(&mut self, count: u64) -> Result<Vec<u8>, WireError> {
        if count < self.first {
            let problem = format!("{count} frames are received, {} were acknowledged before", self.first);
            return Err(WireError::new("acknowledgement", problem));
        }
        self.acknowledge(count)?;
        Ok(self.frames.iter().flatten().copied().collect())
    }
}

/// How many frames have been received, and how many of these the peer has been told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceivedCount {
    frames: u64,
    told: u64,
    /// Bytes since.
    bytes: usize,
}

impl ReceivedCount {
    /// Frames after which the peer is told.
    const FRAMES: u64 = 16;
    /// Bytes after which it is.
    const BYTES: usize = 64 << 10;

    /// A frame of `bytes` was received.
    pub fn received(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes;
    }

    /// The number to tell the peer, if it is time.
    pub fn due(&mut self) -> Option<u64> {
        let is_due = self.frames - self.told >= Self::FRAMES || self.bytes >= Self::BYTES;
        is_due.then(|| self.tell())
    }

    /// The number, which the peer is told now.
    pub fn tell(&mut self) -> u64 {
        (self.told, self.bytes) = (self.frames, 0);
        self.frames
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn room_is_bounded_and_comes_back() {
        let mut log = SentLog::new(3, 100);
        for frame in 0..3 {
            assert!(log.has_room());
            log.push(vec![frame]);
        }
        assert!(!log.has_room());
        log.acknowledge(1).unwrap();
        assert!(log.has_room());
        log.push(vec![9; 200]);
        log.acknowledge(3).unwrap();
        assert!(!log.has_room(), "one frame of more bytes than the room");
        log.acknowledge(4).unwrap();
        assert!(log.has_room() && log.sent() == 4);
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let mut log = SentLog::new(8, 100);
        (0..4).for_each(|frame| log.push(vec![frame]));
        assert!(log.acknowledge(5).is_err() && log.missing(5).is_err());
        assert_eq!(log.missing(2).unwrap(), [2, 3]);
        log.acknowledge(1).unwrap();
        assert!(log.missing(1).is_err(), "frame 1 is not kept");
        assert_eq!(log.missing(2).unwrap(), [2, 3], "as often as asked");
    }

    #[test]
    fn the_peer_is_told_before_the_room_is_used_up() {
        let mut count = ReceivedCount::default();
        for frame in 1..=40 {
            count.received(1);
            assert_eq!(count.due(), (frame % 16 == 0).then_some(frame));
        }
        count.received(70 << 10);
        assert_eq!((count.due(), count.due(), count.tell()), (Some(41), None, 41));
    }

    /// What the two ends and the network do, in any order.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Send(u8),
        /// So many bytes arrive.
        Arrive(usize),
        Acknowledge,
        /// The socket fails, and the next one takes its place; or its answer is lost, and the one after that does.
        Fail {
            answer_is_lost: bool,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => any::<u8>().prop_map(Step::Send),
            4 => (1..20_usize).prop_map(Step::Arrive),
            1 => Just(Step::Acknowledge),
            1 => any::<bool>().prop_map(|answer_is_lost| Step::Fail { answer_is_lost }),
        ]
    }

    proptest! {
        /// Each frame arrives once, in order, whatever is lost and when. Frames are their length and as many bytes.
        #[test]
        fn nothing_is_lost_or_doubled(steps in proptest::collection::vec(step(), 0..200)) {
            let (mut log, mut count) = (SentLog::new(8, 64), ReceivedCount::default());
            let (mut network, mut socket): (VecDeque<u8>, Vec<u8>) = Default::default();
            let (mut sent, mut received): (Vec<Vec<u8>>, Vec<Vec<u8>>) = Default::default();
            let mut receive = |count: &mut ReceivedCount, socket: &mut Vec<u8>| {
                while let Some(length) = socket.first().map(|length| usize::from(*length)).filter(|length| *length <= socket.len()) {
                    received.push(socket.drain(..length).collect());
                    count.received(length);
                }
                received.clone()
            };
            for step in steps {
                match step {
                    Step::Send(byte) if log.has_room() => {
                        let frame = vec![byte % 7 + 1; usize::from(byte % 7 + 1)];
                        network.extend(&frame);
                        sent.push(frame.clone());
                        log.push(frame);
                    }
                    Step::Send(_) => {}
                    Step::Arrive(bytes) => {
                        let bytes = bytes.min(network.len());
                        socket.extend(network.drain(..bytes));
                        receive(&mut count, &mut socket);
                    }
                    Step::Acknowledge => if let Some(number) = count.due() { log.acknowledge(number).unwrap() },
                    Step::Fail { answer_is_lost } => {
                        for _ in 0..=usize::from(answer_is_lost) {
                            network.clear();
                            socket.clear();
                            network.extend(log.missing(count.tell()).unwrap());
                        }
                    }
                }
            }
            socket.extend(network.drain(..));
            prop_assert_eq!(receive(&mut count, &mut socket), sent);
            prop_assert!(socket.is_empty());
        }
    }
}
