//! The tokens by which welcomed peers ask for the shared tables: each is used once.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::auth::random;
use crate::sync::{Mutex, lock};

/// How long a token is good for: longer than a handshake may take.
const LIFETIME: Duration = Duration::from_secs(60);
/// Tokens that wait to be used; the oldest go first.
const MOST: usize = 4096;

/// Tokens given out and not used.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    given: Mutex<VecDeque<Given>>,
}

/// The peer that a token was given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    /// Where it has connected from.
    pub(super) ip: IpAddr,
    /// The data listener of its device.
    pub(super) listener: SocketAddr,
}

#[derive(Clone, Copy, Debug)]
struct Given {
    token: u64,
    to: Asker,
    until: Instant,
}

impl Tokens {
    /// A new token for a peer, never 0; an error when the system has no random numbers.
    pub(super) fn give(&self, to: Asker, now: Instant) -> io::Result<u64> {
        let token = u64::from_ne_bytes(random()?) | 1;
        let mut given = lock(&self.given);
        if given.len() >= MOST {
            given.pop_front();
        }
        given.push_back(Given { token, to, until: now + LIFETIME });
        Ok(token)
    }

    /// Uses a token up; says to which peer it was given. `None`: it is not good, or not any more.
    pub(super) fn redeem(&self, token: u64, now: Instant) -> Option<Asker> {
        let mut given = lock(&self.given);
        given.retain(|other| now < other.until);
        let place = given.iter().position(|other| other.token == token)?;
        given.remove(place).map(|given| given.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const HERE: Asker = Asker { ip: IP, listener: SocketAddr::new(IP, 1) };

    #[test]
    fn a_token_is_good_once_and_for_a_minute() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let [first, second] = [(); 2].map(|()| tokens.give(HERE, now).unwrap());
        assert!(first != 0 && first != second);
        assert_eq!(tokens.redeem(first, now), Some(HERE));
        assert_eq!(tokens.redeem(first, now), None);
        assert_eq!(tokens.redeem(0, now), None);
        assert_eq!(tokens.redeem(second, now + LIFETIME), None);
    }

    #[test]
    fn unused_tokens_make_room() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let given: Vec<_> = (0..=MOST).map(|_| tokens.give(HERE, now).unwrap()).collect();
        assert_eq!(tokens.redeem(given[0], now), None);
        assert_eq!(tokens.redeem(given[1], now), Some(HERE));
    }
}
