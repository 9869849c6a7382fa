//! One run: a scenario, a policy and a seed.

use fastrand::Rng;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::rails::{
    Flow, NicEnd, PlanLimits, RailCounts, RailLimits, RailSet, RateMeter, match_nics,
};

use crate::agenda::{Agenda, Event};
use crate::connection::{Connection, LANES};
use crate::measure::{Measure, Outcome};
use crate::network::{Group, Network, Nic, Report};
use crate::policy::{Dealing, Policy};
use crate::scenario::{Fault, Load, MS, Scenario};

/// All that there is in a run.
#[derive(Debug)]
pub(crate) struct Simulation<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) policy: Policy,
    pub(crate) agenda: Agenda,
    pub(crate) network: Network,
    pub(crate) connections: Vec<Connection>,
    pub(crate) transfers: Vec<Transfer>,
    /// What all connections have under way on each NIC.
    pub(crate) flows: Vec<NicFlow>,
    pub(crate) measure: Measure,
    pub(crate) rng: Rng,
    pub(crate) opcode: Opcode,
    pub(crate) limits: PlanLimits,
    /// The NIC that something is wrong with.
    pub(crate) bad: Option<u32>,
    /// When it is silent.
    silent: Option<(u64, u64)>,
    /// Load of each GPU in NICs.
    pub(crate) classes: Vec<f64>,
    /// The connections that have their turn next, shuffled.
    pub(crate) turns: Vec<u32>,
    /// Where the next slice goes: for rivals.
    pub(crate) next_rail: usize,
}

#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) source: u32,
    pub(crate) class: usize,
    pub(crate) bytes: u64,
    /// Groups that have not ended; 0: it has.
    pub(crate) left: u32,
    pub(crate) since: u64,
}

/// A transfer that has not ended so long after it began counts as failed at the end of a run: twice what any takes that is only slow.
const OVERDUE: u64 = 100 * MS;

#[derive(Debug)]
pub(crate) struct NicFlow {
    pub(crate) counts: RailCounts,
    pub(crate) meter: RateMeter,
    pub(crate) looked_at: u64,
}

/// Runs a scenario under a policy.
pub(crate) fn run(scenario: &Scenario, policy: Policy, seed: u64) -> Outcome {
    let mut simulation = Simulation::new(scenario, policy, seed);
    simulation.schedule_faults();
    simulation.begin_load();
    let end = scenario.window.1 + if matches!(scenario.fault, Fault::Silent(..)) { 30 * MS } else { 0 };
    while let Some(event) = simulation.agenda.next(end) {
        simulation.handle(event);
    }
    simulation.end()
}

impl<'a> Simulation<'a> {
    fn new(scenario: &'a Scenario, policy: Policy, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut speeds = Vec::new();
        (0..scenario.hosts).for_each(|_| speeds.extend(&scenario.here));
        let first_there = speeds.len();
        (0..scenario.peers).for_each(|_| speeds.extend(&scenario.there));
        let mut network = Network::new(speeds.iter().map(|speed| Nic::new(*speed)).collect(), rng.u64(..));
        if !scenario.pauses {
            network.jitter = 0;
        }
        let flow = |speed: &u64| NicFlow {
            counts: RailCounts::default(),
            meter: RateMeter::new(*speed),
            looked_at: 0,
        };
        let mut connections = Vec::new();
        let pairs = match_nics(&nics(scenario.here.len()), &nics(scenario.there.len()));
        for index in 0..scenario.hosts * scenario.peers {
            let mut connection = Connection::new(index as u32, RailLimits::default());
            let here = (index % scenario.hosts) * scenario.here.len();
            let there = first_there + (index / scenario.hosts) * scenario.there.len();
            for pair in &pairs {
                let speed = scenario.here[pair.own].min(scenario.there[pair.peer]);
                connection.add_rail((here + pair.own) as u32, (there + pair.peer) as u32, speed);
            }
            let rails = connection.rails.len();
            // Of many peers each has its first rail; of one, all rails are made by earlier transfers. Rivals have all of them.
            let made = if scenario.peers > 1 && policy.dealing() == Dealing::Plan {
                index % rails..index % rails + 1
            } else {
                0..rails
            };
            made.for_each(|rail| connection.make_rail(rail, LANES, &mut network, 0));
            connections.push(connection);
        }
        let classes = match scenario.load {
            Load::Gpus { gpus, load, factor, .. } => {
                (0..gpus).map(|gpu| if gpu == 0 { load * factor } else { load }).collect()
            }
            _ => vec![1.0],
        };
        Self {
            scenario,
            policy,
            agenda: Agenda::default(),
            measure: Measure::new(scenario, connections.len(), classes.len()),
            flows: speeds.iter().take(first_there).map(flow).collect(),
            network,
            connections,
            transfers: Vec::new(),
            opcode: if scenario.reads && rng.bool() { Opcode::Read } else { Opcode::Write },
            limits: PlanLimits::default(),
            bad: None,
            silent: None,
            classes,
            turns: Vec::new(),
            next_rail: 0,
            rng,
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Start { source } => self.start(source),
            Event::Look { connection } => self.look_due(connection),
            Event::ProbeAnswered { connection, rail, number, sent } => {
                self.probe_answered(connection, rail, number, sent)
            }
            Event::DrainedHere { connection, rail, lane } => self.drained_here(connection, rail, lane),
            Event::Asked { connection, rail, lane, number } => self.asked(connection, rail, lane, number),
            Event::DrainedThere { connection, rail, lane } => self.drained_there(connection, rail, lane),
            Event::Quiesced { connection, rail, lane, number } => {
                self.quiesced(connection, rail, lane, number)
            }
            Event::Rebuilt { connection, rail, number } => self.rebuilt(connection, rail, number),
            Event::RailMade { connection, rail } => self.rail_made(connection, rail),
            Event::LanesMade { connection, rail } => self.lanes_made(connection, rail),
            Event::PortChanged { connection, rail, up } => self.port_changed(connection, rail, up),
            Event::Stop { silent: false, nic } if self.scenario.pauses => {
                // A pause begins. Its end and the next one are drawn.
                self.network.handle(event, &mut self.agenda);
                self.agenda.after(self.rng.u64(20_000..100_000), Event::Resume { nic, silent: false });
                self.agenda.after(self.rng.u64(5 * MS..15 * MS), Event::Stop { nic, silent: false });
            }
            _ => match self.network.handle(event, &mut self.agenda) {
                Report::Nothing => {}
                Report::Executed(group) => {
                    self.measure.late += u64::from(self.transfers[group.transfer as usize].left == 0);
                }
                Report::Completed(group) => self.completed(&group),
            },
        }
    }

    fn schedule_faults(&mut self) {
        // Pauses of NICs that have much to do: those of the peers of one host have not.
        let busy = if self.scenario.peers > 1 { self.flows.len() } else { self.network.nics.len() };
        if self.scenario.pauses {
            for nic in 0..busy as u32 {
                self.agenda.at(self.rng.u64(..10 * MS), Event::Stop { nic, silent: false });
            }
        }
        let (here, there) = (self.scenario.here.len(), self.scenario.there.len());
        let first_there = here * self.scenario.hosts;
        let bad = if self.rng.bool() { here - 1 } else { first_there + there - 1 } as u32;
        match self.scenario.fault {
            Fault::None => return,
            Fault::Slow(part) => {
                let speed = crate::scenario::FULL as f64 * part;
                self.network.nics[bad as usize] = Nic::new(speed as u64);
            }
            Fault::Late(extra) => {
                self.network.nics[bad as usize].extra_latency = extra;
                // The rails were made before, and asked then.
                for connection in &mut self.connections {
                    for rail in &mut connection.rails {
                        rail.latency = Default::default();
                        if let Some(answer) = self.network.probe(rail.here, rail.there, 0) {
                            rail.latency.answered(answer);
                        }
                    }
                }
            }
            Fault::Silent(from, to) => {
                // At any time between two looks.
                let from = from + self.rng.u64(..MS);
                self.silent = Some((from, to));
                self.agenda.at(from, Event::Stop { nic: bad, silent: true });
                self.agenda.at(to, Event::Resume { nic: bad, silent: true });
            }
            Fault::PeerSilent(from, to) => {
                let (from, to) = (from + self.rng.u64(..MS), to + self.rng.u64(..MS));
                for nic in first_there..first_there + there {
                    let nic = nic as u32;
                    let (begin, end) = (self.rng.u64(..500_000), self.rng.u64(..500_000));
                    self.agenda.at(from + begin, Event::Stop { nic, silent: true });
                    self.agenda.at(to + end, Event::Resume { nic, silent: true });
                }
                return;
            }
            Fault::Flaps(from, every) => {
                let mut at = from + self.rng.u64(..MS);
                while at < self.scenario.window.1 {
                    for (at, up) in [(at, false), (at + every / 2, true)] {
                        let silent = true;
                        self.agenda.at(
                            at,
                            if up {
                                Event::Resume { nic: bad, silent }
                            } else {
                                Event::Stop { nic: bad, silent }
                            },
                        );
                        self.tell_of_port(bad, at, up);
                    }
                    at += every;
                }
            }
        }
        self.bad = Some(bad);
    }

    /// The host that has the port hears of it at once, the other by a frame.
    fn tell_of_port(&mut self, bad: u32, at: u64, up: bool) {
        for connection in &self.connections {
            for (number, rail) in connection.rails.iter().enumerate() {
                if rail.here == bad || rail.there == bad {
                    let frame = if rail.here == bad { 10_000 } else { self.rng.u64(50_000..200_000) };
                    let event = Event::PortChanged { connection: connection.index, rail: number as u8, up };
                    self.agenda.at(at + frame, event);
                }
            }
        }
    }

    fn completed(&mut self, group: &Group) {
        let now = self.agenda.now;
        let place = (group.connection, group.rail);
        let connection = &mut self.connections[group.connection as usize];
        let rail = &mut connection.rails[usize::from(group.rail)];
        // The rate at which the rail serves: for rivals.
        let since = rail.last_completion.max(group.posted);
        let observed = group.bytes as f64 / now.saturating_sub(since).max(1) as f64;
        rail.smoothed = 0.9 * rail.smoothed + 0.1 * observed;
        rail.last_completion = now;
        let here = rail.here;
        rail.ended(group, place, &mut self.network, &mut self.agenda);
        connection.under_way -= group.bytes;
        let flow = &mut self.flows[here as usize].counts;
        flow.bytes_in_flight -= group.bytes;
        flow.bytes_done += group.bytes;
        flow.completions += u64::from(group.count);
        if let Fault::Silent(_, to) = self.scenario.fault
            && self.policy.watches()
            && group.posted >= to
            && self.measure.reused.is_none()
            && [group.from, group.to].iter().any(|nic| Some(*nic) == self.bad)
        {
            self.measure.reused = Some(now);
        }
        let transfer = &mut self.transfers[group.transfer as usize];
        self.measure.moved(now, group.connection, group.rail, transfer.class, group.bytes);
        transfer.left -= 1;
        if transfer.left == 0 {
            let (source, bytes, since) = (transfer.source, transfer.bytes, transfer.since);
            self.measure.ended(now, since, group.connection, bytes);
            self.transfer_ended(source);
        }
    }

    /// What all connections have under way on a NIC of this host.
    pub(crate) fn flow(flows: &[NicFlow], nic: u32) -> Flow {
        let flow = &flows[nic as usize];
        Flow { bytes: flow.counts.bytes_in_flight, rate: flow.meter.rate() }
    }

    fn end(mut self) -> Outcome {
        let now = self.agenda.now;
        let waits = |transfer: &&Transfer| transfer.left > 0 && now - transfer.since > OVERDUE;
        self.measure.failed += self.transfers.iter().filter(waits).count() as u64;
        let made: u32 = self.connections.iter().map(|connection| connection.made.0.count_ones()).sum();
        let rails = self.connections.iter().flat_map(|connection| &connection.rails);
        let lanes: usize = rails.map(|rail| rail.lanes.len()).sum();
        let count = self.connections.len() as f64;
        let (rails_made, queue_pairs) = (f64::from(made) / count, lanes as f64 / count);
        Outcome { rails_made, queue_pairs, ..self.measure.outcome(self.scenario, self.silent, &self.classes) }
    }

    /// The rails that reach the memory of a transfer: of GPUs those of the near NIC and a spare one.
    pub(crate) fn eligible(&self, connection: u32, class: usize) -> RailSet {
        let rails = self.connections[connection as usize].rails.len();
        if self.scenario.is_rude(connection as usize) {
            return RailSet::default().with(rails - 1);
        }
        match self.scenario.load {
            Load::Gpus { .. } => RailSet::default().with(class % rails).with((class + 1) % rails),
            _ => RailSet::first(rails),
        }
    }
}

fn nics(count: usize) -> Vec<NicEnd> {
    (0..count)
        .map(|number| NicEnd { name: format!("mlx5_{number}"), link_layer: 0, networks: Vec::new() })
        .collect()
}
