//! Deregistration: all regions of one call together, within one time limit.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::Context;
use crate::fabric::FabricError;
use crate::memory::{Region, RegionId, Segment};

/// How long deregistering waits for transfers that have no time-out.
const NO_TIMEOUT_LIMIT: Duration = Duration::from_secs(30);

/// How long ending the transfers of a region may take: longer than a worker waits for a flush before it destroys the
/// queue pair instead.
const ABORT_LIMIT: Duration = Duration::from_secs(4);

/// How long a wait for transfers sleeps before it looks again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_micros(10);
const LAST_PAUSE: Duration = Duration::from_millis(2);

/// Threads that deregister by commands of a device: one command may take as long as all others together.
const COMMAND_THREADS: usize = 4;

/// Regions named in the log; the others are counted.
const NAMED: usize = 8;

/// A region that is still in use, and its user in words.
type RegionInUse = (Arc<Region>, String);

impl Context {
    /// Waits until nothing uses `regions`, which were taken out of the registry before, on any NIC, at most for the transfer
    /// time-out (else 30 s) after `begun`; then ends their transfers as timed out by moving their queue pairs to ERROR. Takes
    /// 4 s more at most, however many regions there are and whatever peers do.
    ///
    /// False when some of them must stay mapped: a stopped process of this host is in the middle of a copy, or a
    /// device has not confirmed the end of its accesses. One log line names them.
    pub fn retire(&self, regions: Vec<Arc<Region>>, begun: Instant) -> bool {
        if regions.is_empty() {
            return true;
        }
        let limit = self.limit(begun);
        self.forget(regions.iter().map(|region| region.id).collect());
        let allocated: Vec<_> = regions.iter().filter(|region| region.is_allocated()).cloned().collect();
        let regions = on_all_nics(regions);
        let mut left = self.end_registrations(regions, limit, |_| self.drive_all());
        if !left.is_empty() {
            let in_use = left.iter().filter(|(region, _)| region.in_use());
            let in_use = in_use.map(|(region, _)| region.id).collect::<BTreeSet<_>>().len();
            if in_use > 0 {
                crate::observe::report!(
                    warn,
                    DeregistrationForced,
                    "deregistering memory in use, {in_use} regions: its transfers are ended"
                );
            }
            let regions: Vec<_> = left.into_iter().map(|(region, _)| region).collect();
            left = self.end_registrations(regions, limit + ABORT_LIMIT, |used| self.abort_users(used));
        }
        if !left.is_empty() {
            // A region is named once, whatever the number of NICs.
            left.sort_by_key(|(region, _)| region.id);
            left.dedup_by_key(|(region, _)| region.id);
            tracing::warn!("{}", report(&left, begun.elapsed()));
        }
        for region in allocated.iter().filter(|region| !region.in_use()) {
            // Of a region in use, with its last transfer.
            region.end_allocation_use(!left.iter().any(|(other, _)| other.id == region.id));
        }
        left.is_empty()
    }

    /// When transfers that use a region are ended.
    fn limit(&self, begun: Instant) -> Instant {
        begun + self.settings.timeout.unwrap_or(NO_TIMEOUT_LIMIT)
    }

    /// Waits for `patience` until no transfer uses the region, which stays registered. False if one does, before the time of
    /// [`Context::retire`] has passed.
    pub fn wait_for_users(&self, region: &Region, begun: Instant, patience: Duration) -> bool {
        let (limit, turn) = (self.limit(begun), Instant::now() + patience);
        let mut pause = FIRST_PAUSE;
        while region.in_use() && Instant::now() < limit {
            if Instant::now() >= turn {
                return false;
            }
            // A lane that used it last counts as a user.
            self.forget([region.id].into());
            self.drive_all();
            std::thread::sleep(pause);
            pause = (pause * 2).min(LAST_PAUSE);
        }
        true
    }

    fn forget(&self, regions: BTreeSet<RegionId>) {
        for worker in self.opened_nics().flat_map(|nic| nic.pool.all_workers()) {
            worker.with_state(|state| state.forget_regions(&regions));
        }
    }

    /// Deregisters what can be by `deadline`; returns the rest. `help` is called with the regions in use while this
    /// waits for their transfers.
    fn end_registrations(
        &self,
        regions: Vec<Arc<Region>>,
        deadline: Instant,
        help: impl Fn(&[Arc<Region>]),
    ) -> Vec<RegionInUse> {
        let (mut unused, mut used) = (Vec::with_capacity(regions.len()), regions);
        let mut pause = FIRST_PAUSE;
        loop {
            let (still, ended): (Vec<_>, Vec<_>) = used.into_iter().partition(|region| region.in_use());
            // All of them before the first wait: their transfers end meanwhile.
            ended.iter().flat_map(|region| region.segments()).for_each(Segment::close);
            unused.extend(ended);
            used = still;
            if used.is_empty() || Instant::now() >= deadline {
                break;
            }
            help(&used);
            std::thread::sleep(pause);
            pause = (pause * 2).min(LAST_PAUSE);
        }
        let mut left = self.revoke(unused, deadline);
        let user = |region: Arc<Region>| {
            let user = region.user().to_owned();
            (region, user)
        };
        left.extend(used.into_iter().map(user));
        left
    }

    fn abort_users(&self, regions: &[Arc<Region>]) {
        for worker in self.opened_nics().flat_map(|nic| nic.pool.all_workers()) {
            worker.with_state(|state| regions.iter().for_each(|region| state.abort_users(region.id)));
        }
        self.drive_all();
    }

    /// Ends access by peers. A device takes an uninterruptible command for each segment of each region: with many of them the
    /// caller does not wait for commands beyond the deadline.
    fn revoke(&self, regions: Vec<Arc<Region>>, deadline: Instant) -> Vec<RegionInUse> {
        let by_commands = self.pool.device().attributes().capabilities.blocking_commands;
        let commands: usize = regions.iter().map(|region| region.segment_count()).sum();
        if by_commands && commands > 1 {
            return revoke_by_threads(&regions, deadline);
        }
        revoke_here(&regions, deadline)
    }
}

/// Each region, and behind it what further NICs have registered of it. There the one of the first NIC counts as in use as long as a
/// further one is registering it.
fn on_all_nics(regions: Vec<Arc<Region>>) -> Vec<Arc<Region>> {
    let all = |region: Arc<Region>| {
        let further = region.on_further_nics();
        std::iter::once(region).chain(further)
    };
    regions.into_iter().flat_map(all).collect()
}

fn revoke_here(regions: &[Arc<Region>], deadline: Instant) -> Vec<RegionInUse> {
    // All segments, whatever becomes of one.
    let left_of = |region: &Arc<Region>| {
        let users: Vec<_> = region.segments().filter_map(|segment| revoke_one(segment, deadline)).collect();
        users.into_iter().next().map(|user| (Arc::clone(region), user))
    };
    regions.iter().filter_map(left_of).collect()
}

/// What still uses the segment, if something does.
fn revoke_one(segment: &Segment, deadline: Instant) -> Option<String> {
    match segment.revoke(deadline) {
        Ok(()) => None,
        Err(FabricError::StillInUse { holders, .. }) => Some(holders),
        Err(error) => Some(error.to_string()),
    }
}

fn revoke_by_threads(regions: &[Arc<Region>], deadline: Instant) -> Vec<RegionInUse> {
    let (results, ended) = mpsc::channel();
    let queue: Arc<crossbeam::queue::SegQueue<_>> = Arc::default();
    let of_region = |region: &Arc<Region>| -> Vec<_> {
        region.segments().map(|segment| (Arc::clone(region), segment.clone())).collect()
    };
    let segments: Vec<_> = regions.iter().flat_map(of_region).collect();
    segments.iter().cloned().enumerate().for_each(|segment| queue.push(segment));
    for _ in 0..COMMAND_THREADS.min(segments.len()) {
        let (queue, results) = (Arc::clone(&queue), results.clone());
        let work = move || {
            while let Some((index, (region, segment))) = queue.pop() {
                let left = revoke_one(&segment, deadline).map(|user| (region, user));
                let _ = results.send((index, left));
            }
        };
        let work = Arc::new(work);
        let named = std::thread::Builder::new().name("p2p-deregister".to_owned());
        let by_thread = Arc::clone(&work);
        if named.spawn(move || by_thread()).is_err() {
            // No thread can be started: run it here.
            work();
        }
    }
    drop(results);
    let mut waiting: Vec<Option<RegionInUse>> = segments
        .iter()
        .map(|(region, _)| {
            Some((Arc::clone(region), "its device, which has not ended the registration yet".to_owned()))
        })
        .collect();
    loop {
        let time = deadline.saturating_duration_since(Instant::now());
        match ended.recv_timeout(time) {
            Ok((index, left)) => {
                if let Some(place) = waiting.get_mut(index) {
                    *place = left;
                }
            }
            Err(_) => break,
        }
    }
    let mut left: Vec<_> = waiting.into_iter().flatten().collect();
    // A region is named once, with what uses its first segment in use.
    left.dedup_by_key(|(region, _)| region.id);
    left
}

/// The regions still in use, as one log line.
fn report(left: &[RegionInUse], time: Duration) -> String {
    let mut text = format!(
        "memory of {} regions is still in use {} ms after it was to be given back, and must not be unmapped or used for \
         anything else until the processes named here go on or end:",
        left.len(),
        time.as_millis()
    );
    for (number, (region, holders)) in left.iter().take(NAMED).enumerate() {
        let separator = if number == 0 { "" } else { ";" };
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "{separator} region {} ({:#x}+{}) by {holders}",
            region.id.0, region.address, region.length
        );
    }
    if left.len() > NAMED {
        let _ = write!(text, "; and {} more", left.len() - NAMED);
    }
    text
}
