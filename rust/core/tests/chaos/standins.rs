//! Stand-ins of NICs: eight at each end, of which one is silent, one slow and one fails, now these and now those.

use std::sync::OnceLock;
use std::time::Duration;

use flagcx_p2p::internals::connection::Connection;

use super::nullverbs::{Live, Standin};
use super::random::Random;

/// NICs of each end, and rails of each connection that can have several.
pub const COUNT: u64 = 8;

/// Those of each end, by their names.
const NAMES: [&str; 2] = ["=nv0,nv1,nv2,nv3,nv4,nv5,nv6,nv7", "=nv8,nv9,nv10,nv11,nv12,nv13,nv14,nv15"];

/// How much later a slow one completes.
const SLOW: Duration = Duration::from_millis(2);

/// In one of so many rounds others are in trouble than before: some stay for a while, some are back soon.
const ROUNDS_OF_A_TROUBLE: u64 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Here,
    There,
}

/// Whether the suite runs over them: `FLAGCX_P2P_TEST_STANDINS`, beside `FLAGCX_P2P_FABRIC=verbs`.
pub fn of_run() -> bool {
    std::env::var_os("FLAGCX_P2P_TEST_STANDINS").is_some()
}

/// What an engine is to be told so that it has those of `end`; nothing where the run has none.
pub fn settings_of(end: End) -> Vec<(&'static str, &'static str)> {
    if !of_run() {
        return Vec::new();
    }
    let library = standin().file().to_str().unwrap();
    vec![("FLAGCX_P2P_IBVERBS", library), ("FLAGCX_IB_HCA", names_of(end))]
}

pub fn names_of(end: End) -> &'static str {
    NAMES[end as usize]
}

/// The number of an end's NIC among all.
pub fn device_of(end: End, nic: u64) -> u64 {
    end as u64 * COUNT + nic
}

/// A copy with NICs for two ends that are all well.
pub fn open() -> Standin {
    Standin::playing("eight_devices", &of_two_ends())
}

fn of_two_ends() -> [(&'static str, u64); 3] {
    [("devs", 2 * COUNT), ("troubles", 1), ("slow_ns", SLOW.as_nanos() as u64)]
}

/// Those that all rigs have.
fn standin() -> &'static Standin {
    static STANDIN: OnceLock<Standin> = OnceLock::new();
    STANDIN.get_or_init(|| Standin::in_place("eight_devices", &of_two_ends()))
}

/// Before a round: puts three NICs in trouble, if the connection has rails over the others; for how many rounds is left to chance.
pub fn trouble(connection: &Connection, random: &mut Random) {
    if !of_run() || connection.rails().len() < COUNT as usize || random.below(ROUNDS_OF_A_TROUBLE) != 0 {
        return;
    }
    let first = random.below(COUNT);
    let next = |number: u64| (first + number) % COUNT;
    // A request meets its failure or its delay where it is posted, silence at either end.
    let silent = device_of(*random.pick(&[End::Here, End::There]), next(0));
    standin().set("silent_devices", 1 << silent);
    standin().set("slow_devices", 1 << next(1));
    standin().set("fail_every", 1 + random.below(3));
    standin().set("failing_devices", 1 << next(2));
}

/// Every request takes so much longer, until [`heal`].
pub fn delay(time: Duration) {
    if of_run() {
        standin().set("delay_ns", time.as_nanos() as u64);
    }
}

/// Whether requests succeed of which nothing is copied. Nothing is under way meanwhile.
pub fn lie(lies: bool) {
    if of_run() {
        standin().set("copy", u64::from(!lies));
    }
}

/// All NICs are well again.
pub fn heal() {
    if of_run() {
        let settings = ["silent_devices", "slow_devices", "failing_devices", "delay_ns"];
        settings.iter().for_each(|setting| standin().set(setting, 0));
    }
}

/// What is alive in them.
pub fn objects() -> i64 {
    let Live { contexts, domains, regions, completion_queues, queue_pairs } = standin().live();
    contexts + domains + regions + completion_queues + queue_pairs
}
