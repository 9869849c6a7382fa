//! Control channels that die in the middle of transfers and notifications, with `FLAGCX_P2P_CONTROL_REDIAL` at both ends: the connection
//! goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::fabric::PathKind;

use crate::chaos::echo::{Echo, Numbers};
use crate::chaos::network::{Network, PEER, Towards};
use crate::chaos::nics::{Nics, up};
use crate::chaos::peer::{ECHO, Peer};
use crate::chaos::proxy::Rules;
use crate::chaos::random::Random;
use crate::chaos::rig::{Rig, Settings, Way, settings_for};
use crate::chaos::round::{FAMILIES, Family, Round};
use crate::chaos::tally::Tally;
use crate::chaos::{share, watchdog};
use crate::support::{self, eventually};

/// Faults of each family.
const QUOTA: u64 = 500;

/// After how many rounds both ends begin anew: new engines, new proxies, and a new process where there are two.
const ROUNDS_OF_A_RIG: u64 = 50;

/// Bytes of each buffer of two ends in one process: a transfer takes both rails.
const LENGTH: usize = 256 << 10;

/// A connection has so many channels at most, before another one takes its place: behind more that die young it pauses before it dials.
const CHANNELS: u64 = 8;

/// Bytes of a notification, at most.
const NOTIFICATION: u64 = 2000;

const SETTINGS: &Settings<'static> = &[
    ("FLAGCX_P2P_CONTROL_REDIAL", "15000"),
    ("FLAGCX_P2P_CONTROL_REDIAL_ADDRESSES", PEER),
    ("FLAGCX_P2P_XFER_TIMEOUT_MS", "8000"),
    ("FLAGCX_P2P_WORKERS_PER_POOL", "2"),
    ("FLAGCX_P2P_QPS_PER_CONN", "2"),
    ("FLAGCX_P2P_RAIL_MIN_BYTES", "4096"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// An end shuts its socket down.
    Ended,
    /// The same, and the notification sockets as well.
    EndedWithNotifications,
    /// Everything is reset that leads through the network, between two processes the lanes as well.
    Cut,
    /// What is sent towards one end vanishes for a while; then everything is reset.
    Lost(Towards),
    /// Everything is reset, and new sockets are refused for a while.
    Refused,
    /// One channel after the other, each soon after it is made.
    Flapping,
    /// A NIC of an end fails before it.
    WithNic,
}

const DEATHS: [Death; 16] = [
    Death::Ended,
    Death::Ended,
    Death::EndedWithNotifications,
    Death::EndedWithNotifications,
    Death::Cut,
    Death::Cut,
    Death::Lost(Towards::Peer),
    Death::Lost(Towards::Here),
    Death::Refused,
    Death::Flapping,
    Death::Flapping,
    Death::Flapping,
    Death::Flapping,
    Death::WithNic,
    Death::WithNic,
    Death::WithNic,
];

/// A fault is a channel that dies before or during a round of transfers, and is made anew. Every transfer is done, every notification
/// arrives once and in order, and a region that was registered meanwhile is found.
pub fn die(seed: u64, tally: &mut Tally) {
    let mut random = Random::new(seed);
    let quota = share(QUOTA);
    let mut turn = 0;
    while FAMILIES.iter().any(|family| tally.of_family(*family) < quota) {
        watchdog::step("making a connection with a channel that can be made anew");
        let mut rig = match turn % 4 {
            0 => ChannelRig::in_one_process(None, random.next()),
            2 => ChannelRig::in_one_process(Some(PathKind::Tcp), random.next()),
            _ => ChannelRig::between_processes(random.next()),
        };
        turn += 1;
        for _ in 0..ROUNDS_OF_A_RIG {
            // The one that has had the fewest.
            let family = FAMILIES.into_iter().min_by_key(|family| tally.of_family(*family)).unwrap();
            if tally.of_family(family) < quota {
                rig.strike_a_round(family, &mut random, tally);
            }
        }
    }
}

struct ChannelRig {
    network: Network,
    /// Of both ends, where they are in this process.
    nics: Option<[Nics; 2]>,
    rig: Rig,
    numbers: Numbers,
    /// Of an other end that is in this process.
    echo: Echo,
}

impl ChannelRig {
    /// Two engines with several NICs each, of which the lanes do not lead through the network.
    fn in_one_process(path: Option<PathKind>, seed: u64) -> Self {
        let network = Network::new(seed);
        let nics = [path; 2].map(|path| Nics::on_path(nics(), path));
        let client = nics[0].engine(&network.of_here(SETTINGS));
        let server = nics[1].engine(&network.of_peer(SETTINGS));
        Self::of(network, Some(nics), Rig::between(client, server, LENGTH))
    }

    /// Two processes; everything leads through the network.
    fn between_processes(seed: u64) -> Self {
        let network = Network::new(seed);
        let settings = settings_for(Way::TcpBetweenProcesses, SETTINGS);
        let peer = Peer::start(&network.of_peer(&[&settings[..], &[(ECHO, "1")]].concat()));
        let client = support::engine(&network.of_here(&settings));
        Self::of(network, None, Rig::towards_at(PEER, client, peer))
    }

    fn of(network: Network, nics: Option<[Nics; 2]>, rig: Rig) -> Self {
        let (numbers, echo) = (Numbers::default(), Echo::default());
        let made = Self { network, nics, rig, numbers, echo };
        made.prepare();
        made
    }

    /// A connection is ready once its channel can be made anew, and its rails are up.
    fn prepare(&self) {
        let here = &self.rig.here;
        eventually("this end knows where to dial", || here.channel_record().is_resumable());
        if self.nics.is_some() {
            eventually("all rails are up", || {
                here.add_rails_now();
                up(here).len() == nics() as usize
            });
        }
    }

    /// Another connection takes the place of this one, of which either end may close first.
    fn renew(&mut self, random: &mut Random) {
        let port = self.rig.peer.as_ref().map(|peer| peer.port);
        let ends = [Some(Arc::clone(&self.rig.here)), self.rig.there.take()];
        match (port, self.rig.server.clone()) {
            (Some(port), _) => {
                let here = self.rig.client.connect(PEER, port, 0, false).unwrap();
                self.rig.go_on_with(here);
            }
            (None, server) => {
                let (here, there) = support::connect(&self.rig.client, &server.unwrap());
                self.rig.go_on_with(here);
                self.rig.there = Some(there);
            }
        }
        let first = random.below(2) as usize;
        [first, 1 - first].into_iter().filter_map(|end| ends[end].as_ref()).for_each(|end| end.close());
        self.numbers.go_on();
        self.prepare();
    }

    fn strike_a_round(&mut self, family: Family, random: &mut Random, tally: &mut Tally) {
        if self.lost()[0] >= CHANNELS {
            self.renew(random);
        }
        let before = self.lost();
        let (death, begins_first) = (*random.pick(&DEATHS), random.below(2) == 0);
        let mut round = Round::prepare_large(&self.rig.here, &self.rig.arena, family, random);
        self.numbers.send(&self.rig.here, NOTIFICATION, random);
        let begin = Instant::now();
        let struck_first = begins_first.then(|| self.strike(death, random));
        round.submit(None, tally);
        let before_last = struck_first.unwrap_or_else(|| self.strike(death, random));
        for _ in 0..random.below(4) {
            self.numbers.send(&self.rig.here, NOTIFICATION, random);
        }
        let region = self.rig.server.as_ref().map(|server| server.allocate(4096).unwrap());
        self.mend(death, random);
        self.wait_until_anew(&before_last);
        tally.recovery.push(begin.elapsed());
        self.heal_nics();
        round.finish(tally);
        let (all_done, ends) = (round.all_done(), round.ends());
        drop(round);
        assert!(all_done, "{death:?} spoils a transfer ({family:?}): {ends}: {:#?}", self.rig.here.rails());
        self.numbers.send(&self.rig.here, NOTIFICATION, random);
        eventually("all notifications are back", || {
            if let (Some(server), Some(there)) = (&self.rig.server, &self.rig.there) {
                self.echo.turn(server, |_| Arc::clone(there));
            }
            self.numbers.are_back(&self.rig.client)
        });
        if let Some(region) = region {
            let is_known = || self.rig.here.describe_remote(region.address(), 4096).is_some();
            eventually("the region that was registered meanwhile is known", is_known);
        }
        assert!(self.ends().all(Connection::is_usable), "{death:?} ends the connection ({family:?})");
        tally.fault(family, self.lost()[0] - before[0]);
    }

    /// Returns how many channels each end had lost before the last one.
    fn strike(&self, death: Death, random: &mut Random) -> Vec<u64> {
        let losing = Rules { losing: true, ..Rules::default() };
        let mut before = self.lost();
        match death {
            Death::Ended => self.pick_end(random).break_channel(),
            Death::EndedWithNotifications => {
                self.ends().for_each(Connection::break_notifications);
                self.pick_end(random).break_channel();
            }
            Death::Lost(towards) => self.network.set(towards, losing),
            Death::Cut => self.network.cut(),
            Death::Refused => {
                self.network.refuse(true);
                self.network.cut();
            }
            Death::Flapping => {
                for _ in 0..random.below(CHANNELS.saturating_sub(self.lost()[0]).max(1)) {
                    self.pick_end(random).break_channel();
                    self.wait_until_anew(&before);
                    before = self.lost();
                    std::thread::sleep(Duration::from_micros(random.below(1000)));
                }
                self.pick_end(random).break_channel();
            }
            Death::WithNic => {
                self.strike_a_nic(random);
                self.pick_end(random).break_channel();
            }
        }
        before
    }

    /// The other NICs work.
    fn strike_a_nic(&self, random: &mut Random) {
        let Some(nics) = &self.nics else { return };
        let nics = &nics[random.below(2) as usize];
        let nic = random.below(nics.devices.len() as u64) as usize;
        match random.below(3) {
            0 => nics.switches(nic).set_silent(true),
            1 => nics.devices[nic].break_queue_pairs(),
            _ => nics.set_port(nic, false),
        }
    }

    /// Ends what keeps the channel from being made anew.
    fn mend(&self, death: Death, random: &mut Random) {
        match death {
            Death::Lost(_) => {
                std::thread::sleep(Duration::from_micros(random.below(5000)));
                self.network.cut();
                self.network.heal();
            }
            Death::Refused => {
                std::thread::sleep(Duration::from_micros(random.below(20_000)));
                self.network.heal();
            }
            _ => {}
        }
    }

    fn heal_nics(&self) {
        self.nics.iter().flatten().for_each(Nics::heal);
    }

    /// The ends that are in this process.
    fn ends(&self) -> impl Iterator<Item = &Connection> {
        std::iter::once(&self.rig.here).chain(&self.rig.there).map(|end| &**end)
    }

    fn pick_end(&self, random: &mut Random) -> &Connection {
        let ends: Vec<_> = self.ends().collect();
        ends[random.below(ends.len() as u64) as usize]
    }

    /// Channels of this connection that each end has lost.
    fn lost(&self) -> Vec<u64> {
        self.ends().map(|end| end.channel_record().lost()).collect()
    }

    /// Waits until each end has lost more than that, and has another one.
    fn wait_until_anew(&self, before: &[u64]) {
        watchdog::step("waiting for the control channel");
        eventually("the channel is made anew", || {
            let mut ends = self.ends().map(Connection::channel_record).zip(before);
            ends.all(|(record, before)| record.lost() > *before && !record.is_away())
        });
    }
}

/// NICs of each end of those in one process.
fn nics() -> u32 {
    support::rails().max(2) as u32
}
