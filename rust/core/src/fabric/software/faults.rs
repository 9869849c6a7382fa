//! Faults to order, the same ones every time.
//!
//! # Grammar
//!
//! A plan is a list of `key=value` separated by `;`, in any order, each key at most once but for `fail`:
//!
//! | part | effect |
//! |---|---|
//! | `seed=N` | start of the random numbers of `chance`; 0 when absent |
//! | `fail=at:N:STATUS` | the N-th request of each queue pair (from 1) completes with STATUS |
//! | `fail=every:N:STATUS` | so does each request with a number that is a multiple of N |
//! | `fail=chance:P:STATUS` | so does each request with probability P (0..=1), drawn from the seed |
//! | `refuse=at:N` | the N-th request given to `post` (refused ones count) is refused with `ENOMEM` |
//! | `refuse=every:N` | so is each request with a number that is a multiple of N |
//! | `lie=every:N` | each such request is said to have succeeded, and moves nothing: what a test suite must notice |
//! | `delay=us:N` | each request takes at least N microseconds |
//! | `hold=us:N` | each copy keeps its regions pinned N microseconds longer |
//! | `slow=factor:N` | bytes move as if memory moved 10 GB/s divided by N |
//! | `drop-peer=after:N` | after N requests the path to the peer is cut |
//!
//! STATUS is one of `local-length`, `local-protection`, `remote-access`, `remote-operation`, `remote-invalid`,
//! `retry-exceeded`, `fatal`, `general`. Numbers count per queue pair, so they do not depend on how threads run.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::switches::Switches;
use crate::fabric::CompletionStatus;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which faults to inject. See the grammar above; [`FromStr`] reads it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultPlan {
    seed: u64,
    failures: Vec<(When, CompletionStatus)>,
    refusals: Option<When>,
    lies: Option<u64>,
    delay: Duration,
    hold: Duration,
    slow: u32,
    drop_peer_after: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    At(u64),
    Every(u64),
    /// Probability in units of 2^-32.
    Chance(u64),
}

impl When {
    /// Whether request `number` is meant; `random` is its number drawn from 0 to 2^32 - 1.
    fn hits(self, number: u64, random: u64) -> bool {
        match self {
            Self::At(at) => number == at,
            Self::Every(every) => every != 0 && number.is_multiple_of(every),
            Self::Chance(chance) => random < chance,
        }
    }
}

/// Why a text is not a fault plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultPlanError {
    /// A part is not `key=value` with a known key.
    #[error("fault plan: `{0}` is not one of seed=, fail=, refuse=, lie=, delay=, hold=, slow=, drop-peer=")]
    UnknownPart(String),
    /// The value of a part cannot be read.
    #[error("fault plan: `{part}`: expected {expected}")]
    BadValue {
        /// The part as given.
        part: String,
        /// What it should look like.
        expected: &'static str,
    },
    /// A part that may be given once was given twice.
    #[error("fault plan: `{0}` is given twice")]
    Repeated(String),
}

impl FromStr for FaultPlan {
    type Err = FaultPlanError;

    fn from_str(text: &str) -> Result<Self, FaultPlanError> {
        let mut plan = Self::default();
        let mut seen = Vec::new();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let Some((key, value)) = part.split_once('=') else {
                return Err(FaultPlanError::UnknownPart(part.to_owned()));
            };
            if key != "fail" && seen.contains(&key) {
                return Err(FaultPlanError::Repeated(key.to_owned()));
            }
            seen.push(key);
            plan.set(part, key, value)?;
        }
        Ok(plan)
    }
}

impl FaultPlan {
    /// True when it injects nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self { seed: self.seed, ..Self::default() }
    }

    fn set(&mut self, part: &str, key: &str, value: &str) -> Result<(), FaultPlanError> {
        let number = |prefix: &str, expected: &'static str| {
            let digits = value.strip_prefix(prefix);
            digits.and_then(|digits| digits.parse::<u64>().ok()).ok_or_else(|| bad(part, expected))
        };
        match key {
            "seed" => self.seed = number("", "seed=NUMBER")?,
            "fail" => self.failures.push(parse_failure(part, value)?),
            "refuse" => {
                let at = number("at:", "refuse=at:NUMBER").map(When::At);
                let every = || number("every:", "refuse=at:NUMBER or refuse=every:NUMBER").map(When::Every);
                self.refusals = Some(at.or_else(|_| every())?);
            }
            "lie" => self.lies = Some(number("every:", "lie=every:NUMBER")?),
            "delay" => self.delay = Duration::from_micros(number("us:", "delay=us:NUMBER")?),
            "hold" => self.hold = Duration::from_micros(number("us:", "hold=us:NUMBER")?),
            "slow" => {
                let expected = "slow=factor:NUMBER, at most 4294967295";
                self.slow = u32::try_from(number("factor:", expected)?).map_err(|_| bad(part, expected))?;
            }
            "drop-peer" => self.drop_peer_after = Some(number("after:", "drop-peer=after:NUMBER")?),
            _ => return Err(FaultPlanError::UnknownPart(part.to_owned())),
        }
        Ok(())
    }
}

fn parse_failure(part: &str, value: &str) -> Result<(When, CompletionStatus), FaultPlanError> {
    const EXPECTED: &str =
        "fail=at:N:STATUS, fail=every:N:STATUS or fail=chance:P:STATUS, N at least 1, P in 0..=1";
    let mut fields = value.split(':');
    let (Some(kind), Some(amount), Some(status), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(bad(part, EXPECTED));
    };
    let count = || amount.parse::<u64>().ok().filter(|count| *count > 0).ok_or_else(|| bad(part, EXPECTED));
    let when = match kind {
        "at" => When::At(count()?),
        "every" => When::Every(count()?),
        "chance" => {
            let chance = amount.parse::<f64>().ok().filter(|chance| (0.0..=1.0).contains(chance));
            When::Chance((chance.ok_or_else(|| bad(part, EXPECTED))? * 4_294_967_296.0) as u64)
        }
        _ => return Err(bad(part, EXPECTED)),
    };
    Ok((when, parse_status(part, status)?))
}

fn parse_status(part: &str, text: &str) -> Result<CompletionStatus, FaultPlanError> {
    Ok(match text {
        "local-length" => CompletionStatus::LocalLength,
        "local-protection" => CompletionStatus::LocalProtection,
        "remote-access" => CompletionStatus::RemoteAccess,
        "remote-operation" => CompletionStatus::RemoteOperation,
        "remote-invalid" => CompletionStatus::RemoteInvalidRequest,
        "retry-exceeded" => CompletionStatus::RetryExceeded,
        "fatal" => CompletionStatus::Fatal,
        "general" => CompletionStatus::General,
        _ => {
            return Err(bad(
                part,
                "a status: local-length, local-protection, remote-access, remote-operation, remote-invalid, retry-exceeded, fatal or general",
            ));
        }
    })
}

fn bad(part: &str, expected: &'static str) -> FaultPlanError {
    FaultPlanError::BadValue { part: part.to_owned(), expected }
}

/// Faults injected by all devices of the process: a counter, Relaxed.
static INJECTED: AtomicU64 = AtomicU64::new(0);

/// Faults that all software devices of this process have injected so far.
pub fn faults_injected() -> u64 {
    INJECTED.load(Ordering::Relaxed)
}

/// What a request meets before it is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Injection {
    Go,
    /// Not before this time.
    Wait(Instant),
    /// It fails with this status.
    Fail(CompletionStatus),
    /// The path to the peer is cut before it.
    DropPeer,
}

/// The plan at work on one queue pair.
#[derive(Debug)]
pub(super) struct Faults {
    plan: FaultPlan,
    /// Nothing to inject: asked for every request.
    idle: bool,
    /// Faults injected by all queue pairs of the device: added to by them, read by tests; Relaxed, it is a counter.
    injected: Arc<AtomicU64>,
    switches: Switches,
    random: u64,
    offered: u64,
    /// Requests judged so far, and what the last of them meets.
    judged: u64,
    injection: Injection,
    not_before: Option<Instant>,
}

impl Faults {
    /// `ordinal` numbers the queue pairs of a device, so that each draws its own random numbers.
    pub(super) fn new(plan: FaultPlan, ordinal: u64, injected: Arc<AtomicU64>) -> Self {
        let random = plan.seed ^ ordinal.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let idle = plan.is_empty();
        Self {
            plan,
            idle,
            injected,
            switches: None,
            random,
            offered: 0,
            judged: 0,
            injection: Injection::Go,
            not_before: None,
        }
    }

    /// Also those that `switches` are on for.
    pub(super) fn with_switches(self, switches: Switches) -> Self {
        Self { idle: self.idle && switches.is_none(), switches, ..self }
    }

    /// Whether the next request given to `post` is to be refused.
    pub(super) fn refuses_post(&mut self) -> bool {
        let Some(when) = self.plan.refusals else { return false };
        self.offered += 1;
        let refused = when.hits(self.offered, u64::MAX);
        if refused {
            self.count();
        }
        refused
    }

    /// Whether the request accepted as number `number` (from 1) is to move nothing and be called a success.
    pub(super) fn lies_about(&mut self, number: u64) -> bool {
        let lies = self.plan.lies.is_some_and(|every| When::Every(every).hits(number, u64::MAX));
        if lies {
            self.count();
        }
        lies
    }

    /// What is injected into the `index`-th request (from 0) of the queue pair. Asked again for the same one, it does not
    /// draw again.
    pub(super) fn judge(&mut self, index: u64) -> Injection {
        if self.idle {
            return Injection::Go;
        }
        if index >= self.judged {
            self.judged = index + 1;
            self.injection = self.draw(index + 1);
            if !self.plan.delay.is_zero() {
                self.count();
                self.push_back(self.plan.delay);
            }
            self.draw_from_switches();
        }
        match self.not_before {
            Some(time) if Instant::now() < time => Injection::Wait(time),
            _ => self.injection,
        }
    }

    /// Told of every copy; makes the next one wait when memory is to seem slow.
    pub(super) fn moved(&mut self, bytes: u64) {
        let switched = self.switches.as_ref().map_or(0, |switches| switches.slowness());
        let slow = switched.max(self.plan.slow.into());
        if slow > 1 {
            let nanoseconds = u128::from(bytes) * u128::from(slow) / 10;
            self.push_back(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)));
        }
    }

    /// Called while regions are pinned.
    pub(super) fn hold(&self) {
        if !self.plan.hold.is_zero() {
            self.count();
            std::thread::sleep(self.plan.hold);
        }
    }

    fn draw_from_switches(&mut self) {
        let Some(switches) = &self.switches else { return };
        let (delay, failure) = switches.draw();
        if let Some(status) = failure {
            self.injection = Injection::Fail(status);
        }
        if !delay.is_zero() {
            self.push_back(delay);
        }
    }

    fn push_back(&mut self, time: Duration) {
        let now = Instant::now();
        let base = self.not_before.map_or(now, |earlier| earlier.max(now));
        self.not_before = base.checked_add(time);
    }

    fn draw(&mut self, number: u64) -> Injection {
        if self.plan.drop_peer_after.is_some_and(|after| number > after) {
            self.count();
            return Injection::DropPeer;
        }
        let random = self.next_random() >> 32;
        let hit = self.plan.failures.iter().find(|(when, _)| when.hits(number, random));
        let Some((_, status)) = hit else { return Injection::Go };
        self.count();
        Injection::Fail(*status)
    }

    fn count(&self) {
        self.injected.fetch_add(1, Ordering::Relaxed);
        INJECTED.fetch_add(1, Ordering::Relaxed);
    }

    /// SplitMix64.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests;
