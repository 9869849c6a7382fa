//! One direction of a forwarded connection.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::Rules;
use super::random::Random;

/// Bytes that are held at most; the sender's window does the rest.
const HELD: usize = 256 << 10;
/// Reads of one direction before others have their turn.
const TURNS: usize = 4;

#[derive(Default)]
pub(super) struct Flow {
    /// What has been read, and when it is due.
    held: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// The sender has ended.
    ended: bool,
    /// The receiver has been told.
    shut: bool,
    /// Bytes, or the end, have vanished.
    pub(super) has_lost: bool,
    /// Stalled, whatever the rules are.
    pub(super) is_frozen: bool,
    /// The receiver's window is closed.
    blocked: bool,
    /// Bytes that the rate allows now.
    allowance: f64,
    refilled: Option<Instant>,
    until_flip: u64,
}

impl Flow {
    /// Reads and sends what can be; an error is the end of the connection.
    pub(super) fn advance(
        &mut self,
        (from, to): (&TcpStream, &TcpStream),
        rules: &Rules,
        random: &mut Random,
    ) -> io::Result<()> {
        let now = Instant::now();
        self.refill(rules, now);
        if self.stalls(rules) {
            return Ok(());
        }
        self.read(from, rules, now, random)?;
        self.send(to, rules, now, random)
    }

    /// Whether nothing more will come of it.
    pub(super) fn is_over(&self) -> bool {
        self.shut
    }

    pub(super) fn wants_to_read(&self, rules: &Rules) -> bool {
        !self.stalls(rules) && !self.ended && self.bytes < HELD
    }

    pub(super) fn wants_to_write(&self, rules: &Rules) -> bool {
        !self.stalls(rules) && self.blocked
    }

    /// How long until it can go on without an event.
    pub(super) fn waits_for_time(&self, rules: &Rules, now: Instant) -> Option<Duration> {
        let (due, _) = self.held.front().filter(|_| !self.stalls(rules) && !self.blocked)?;
        Some(due.saturating_duration_since(now).max(Duration::from_millis(1)))
    }

    fn stalls(&self, rules: &Rules) -> bool {
        rules.stalled || self.is_frozen
    }

    fn refill(&mut self, rules: &Rules, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled.unwrap_or(now));
        self.refilled = Some(now);
        self.allowance = match rules.rate {
            Some(rate) => {
                let most = (rate as f64 / 50.0).max(1.0);
                (self.allowance.min(most) + rate as f64 * passed.as_secs_f64()).min(most)
            }
            None => f64::MAX,
        };
    }

    fn read(
        &mut self,
        mut from: &TcpStream,
        rules: &Rules,
        now: Instant,
        random: &mut Random,
    ) -> io::Result<()> {
        if !rules.losing
            && let Some(error) = from.take_error()?
        {
            // What the sender had not sent on when it reset the connection does not reach the receiver.
            return Err(error);
        }
        let mut buffer = [0; 64 << 10];
        for _ in 0..TURNS {
            if !self.wants_to_read(rules) {
                break;
            }
            match from.read(&mut buffer) {
                Ok(0) => {
                    self.ended = true;
                    self.has_lost |= rules.losing;
                }
                Ok(_) if rules.losing => self.has_lost = true,
                Ok(count) => {
                    let mut bytes = buffer[..count].to_vec();
                    self.flip(&mut bytes, rules, random);
                    self.bytes += count;
                    self.held.push_back((now + rules.delay, bytes));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) if rules.losing => {
                    self.ended = true;
                    self.has_lost = true;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn send(
        &mut self,
        mut to: &TcpStream,
        rules: &Rules,
        now: Instant,
        random: &mut Random,
    ) -> io::Result<()> {
        self.blocked = false;
        while let Some((due, bytes)) = self.held.front_mut() {
            let most = rules.segment.map_or(usize::MAX, |most| 1 + random.below(most as u64) as usize);
            let length = bytes.len().min(most).min(self.allowance as usize);
            if *due > now || length == 0 {
                return Ok(());
            }
            match to.write(&bytes[..length]) {
                Ok(count) => {
                    bytes.drain(..count);
                    self.bytes -= count;
                    self.allowance -= count as f64;
                    if bytes.is_empty() {
                        self.held.pop_front();
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.ended && !self.shut && !self.has_lost {
            self.shut = true;
            // It fails where the receiver has ended as well, which the other direction shows.
            let _ = to.shutdown(Shutdown::Write);
        }
        Ok(())
    }

    fn flip(&mut self, bytes: &mut [u8], rules: &Rules, random: &mut Random) {
        let Some(every) = rules.flip_every else { return };
        let mut at = self.until_flip;
        if at == 0 {
            at = random.below(every);
        }
        while at < bytes.len() as u64 {
            bytes[at as usize] ^= 1 << random.below(8);
            at += 1 + random.below(2 * every);
        }
        self.until_flip = at - bytes.len() as u64;
    }
}
