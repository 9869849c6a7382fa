//! Which of several addresses is tried when: staggered within a round (RFC 8305), growing pauses between rounds.

use std::time::{Duration, Instant};

/// The schedule of one connect: a pure state machine over reported events and times.
#[derive(Debug)]
pub(super) struct Schedule {
    /// By the index of the address.
    standings: Vec<AddressState>,
    stagger: Duration,
    refusals: RefusalPolicy,
    /// The address that was started last, and when.
    latest: Option<(usize, Instant)>,
    /// When the next round begins, once this one is over.
    resume: Option<Instant>,
    /// The pause before the next round.
    pause: Duration,
}

/// How refused connects are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalPolicy {
    /// They are tried again until the deadline, so that peers may start in any order.
    UntilDeadline,
    /// Each address is tried once.
    Once,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Try this address now; it is under way from here on.
    Start(usize),
    /// Wait until this time, or until an attempt under way ends.
    WaitUntil(Instant),
    /// Wait until an attempt under way ends.
    Wait,
    /// No address is left to try.
    Over,
}

/// The state of an address in this round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AddressState {
    Due,
    /// Possibly since an earlier round: the kernel repeats its SYN to a silent address.
    UnderWay,
    Failed {
        /// Whether it may succeed later.
        hopeful: bool,
    },
}

impl Schedule {
    /// A schedule for `count` addresses within `time`. All of them are started even when the time is short.
    pub(super) fn new(count: usize, time: Duration, refusals: RefusalPolicy) -> Self {
        let share = time / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
        Self {
            standings: vec![AddressState::Due; count],
            stagger: STAGGER.min(share),
            refusals,
            latest: None,
            resume: None,
            pause: FIRST_PAUSE,
        }
    }

    /// The next step.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        if self.resume.is_some_and(|resume| resume <= now) {
            self.begin_round();
        }
        if let Some(due) = self.standings.iter().position(|standing| *standing == AddressState::Due) {
            return self.start_in_turn(due, now);
        }
        let is_under_way = self.standings.contains(&AddressState::UnderWay);
        let is_hopeful = self.standings.contains(&AddressState::Failed { hopeful: true });
        let has_failed = is_hopeful || self.standings.contains(&AddressState::Failed { hopeful: false });
        match self.refusals {
            _ if !is_under_way && !is_hopeful => Next::Over,
            RefusalPolicy::UntilDeadline if has_failed => {
                Next::WaitUntil(*self.resume.get_or_insert(now + self.pause))
            }
            _ if is_under_way => Next::Wait,
            _ => Next::Over,
        }
    }

    /// The address has failed; `hopeful` if another try may succeed.
    pub(super) fn failed(&mut self, index: usize, hopeful: bool) {
        if let Some(standing) = self.standings.get_mut(index) {
            *standing = AddressState::Failed { hopeful };
        }
    }

    /// An address is started when the one before it has failed, or has been silent for the delay.
    fn start_in_turn(&mut self, due: usize, now: Instant) -> Next {
        if let Some((latest, begun)) = self.latest {
            let turn = begun + self.stagger;
            if self.standings.get(latest) == Some(&AddressState::UnderWay) && now < turn {
                return Next::WaitUntil(turn);
            }
        }
        if let Some(standing) = self.standings.get_mut(due) {
            *standing = AddressState::UnderWay;
        }
        self.latest = Some((due, now));
        Next::Start(due)
    }

    /// Every address that has failed, for whatever reason, is tried again.
    fn begin_round(&mut self) {
        for standing in &mut self.standings {
            if *standing != AddressState::UnderWay {
                *standing = AddressState::Due;
            }
        }
        self.resume = None;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// The Connection Attempt Delay that RFC 8305 recommends.
const STAGGER: Duration = Duration::from_millis(250);
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const TIME: Duration = Duration::from_secs(10);

    fn schedule(count: usize, refusals: RefusalPolicy) -> (Schedule, Instant) {
        (Schedule::new(count, TIME, refusals), Instant::now())
    }

    #[test]
    fn silent_addresses_are_staggered() {
        let (mut schedule, start) = schedule(3, RefusalPolicy::UntilDeadline);
        assert_eq!(schedule.next(start), Next::Start(0));
        assert_eq!(schedule.next(start), Next::WaitUntil(start + STAGGER));
        assert_eq!(schedule.next(start + STAGGER), Next::Start(1));
        assert_eq!(schedule.next(start + STAGGER), Next::WaitUntil(start + STAGGER * 2));
        assert_eq!(schedule.next(start + STAGGER * 2), Next::Start(2));
        assert_eq!(schedule.next(start + STAGGER * 3), Next::Wait);
    }

    #[test]
    fn a_failure_gives_the_turn_to_the_next() {
        let (mut schedule, start) = schedule(3, RefusalPolicy::UntilDeadline);
        for index in 0..3 {
            assert_eq!(schedule.next(start), Next::Start(index));
            schedule.failed(index, true);
        }
        // The rounds after it come at growing distances.
        let mut now = start;
        for pause in [1, 2, 4, 8, 16, 32, 64, 100, 100] {
            assert_eq!(schedule.next(now), Next::WaitUntil(now + pause * MS));
            now += pause * MS;
            for index in 0..3 {
                assert_eq!(schedule.next(now), Next::Start(index));
                schedule.failed(index, index == 1);
            }
        }
    }

    #[test]
    fn a_silent_address_does_not_hold_up_the_rounds_of_the_others() {
        let (mut schedule, start) = schedule(2, RefusalPolicy::UntilDeadline);
        assert_eq!(schedule.next(start), Next::Start(0));
        assert_eq!(schedule.next(start + STAGGER), Next::Start(1));
        schedule.failed(1, true);
        let mut now = start + STAGGER;
        for pause in [1, 2, 4] {
            assert_eq!(schedule.next(now), Next::WaitUntil(now + pause * MS));
            now += pause * MS;
            assert_eq!(schedule.next(now), Next::Start(1));
            schedule.failed(1, true);
        }
    }

    #[test]
    fn it_is_over_when_nothing_can_change() {
        let (mut schedule, start) = schedule(2, RefusalPolicy::UntilDeadline);
        for index in 0..2 {
            assert_eq!(schedule.next(start), Next::Start(index));
            schedule.failed(index, false);
        }
        assert_eq!(schedule.next(start), Next::Over);
        assert_eq!(Schedule::new(0, TIME, RefusalPolicy::UntilDeadline).next(start), Next::Over);
    }

    #[test]
    fn with_a_single_try_there_is_one_round() {
        let (mut schedule, start) = schedule(2, RefusalPolicy::Once);
        assert_eq!(schedule.next(start), Next::Start(0));
        assert_eq!(schedule.next(start + STAGGER), Next::Start(1));
        schedule.failed(1, true);
        assert_eq!(schedule.next(start + TIME), Next::Wait);
        schedule.failed(0, true);
        assert_eq!(schedule.next(start + TIME), Next::Over);
    }

    /// How long an address takes to refuse; `None` never answers.
    type Refusal = Option<u8>;

    /// Runs a schedule in virtual time: the starts, as (time since the beginning, address).
    fn run(refusals: &[Refusal], time: Duration) -> Vec<(Duration, usize)> {
        let start = Instant::now();
        let mut schedule = Schedule::new(refusals.len(), time, RefusalPolicy::UntilDeadline);
        let (mut now, mut starts, mut failing) = (start, Vec::new(), Vec::<(Instant, usize)>::new());
        while now < start + time {
            failing.retain(|&(at, index)| {
                if at <= now {
                    schedule.failed(index, true);
                }
                at > now
            });
            let until = match schedule.next(now) {
                Next::Start(index) => {
                    starts.push((now - start, index));
                    if let Some(delay) = refusals[index] {
                        failing.push((now + u32::from(delay) * MS, index));
                    }
                    continue;
                }
                Next::WaitUntil(until) => until,
                Next::Wait => start + time,
                Next::Over => panic!("over, although every address may succeed later"),
            };
            assert!(until > now, "it must not run in circles");
            now = failing.iter().map(|(at, _)| *at).min().map_or(until, |at| at.min(until));
        }
        starts
    }

    proptest::proptest! {
        #[test]
        fn every_address_has_its_turns(
            refusals in proptest::collection::vec(proptest::option::of(0u8..), 1..12),
            seconds in 1u32..20,
        ) {
            let time = seconds * Duration::from_secs(1);
            let (count, starts) = (refusals.len(), run(&refusals, time));
            let stagger = STAGGER.min(time / count as u32);
            let first = |address| starts.iter().find(|start| start.1 == address).map(|start| start.0);
            for (address, refusal) in refusals.iter().enumerate() {
                // Each is tried in time, in the order of the list, and none twice at a time.
                proptest::prop_assert!(first(address).is_some_and(|first| first <= stagger * address as u32));
                let own: Vec<_> = starts.iter().filter(|start| start.1 == address).map(|start| start.0).collect();
                let &Some(refusal) = refusal else {
                    proptest::prop_assert_eq!(own.len(), 1);
                    continue;
                };
                // Once a round, and the first eight pauses are shorter than the others.
                proptest::prop_assert!(own.len() as u128 <= 9 + time.as_millis() / LONGEST_PAUSE.as_millis());
                for pair in own.windows(2) {
                    let apart = pair[1] - pair[0];
                    proptest::prop_assert!(apart >= u32::from(refusal) * MS);
                    // The rest of its round, the pause, and those before it in the next round.
                    proptest::prop_assert!(apart <= LONGEST_PAUSE + stagger * count as u32 * 2 + u32::from(refusal) * MS);
                }
            }
            // Two starts are close together only if the first has failed by the second.
            for pair in starts.windows(2) {
                let failed = refusals[pair[0].1].is_some_and(|delay| pair[0].0 + u32::from(delay) * MS <= pair[1].0);
                proptest::prop_assert!(failed || pair[1].0 - pair[0].0 >= stagger);
            }
        }
    }
}
