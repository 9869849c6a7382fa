//! Where followers are dialled again: one listener of an engine, and an entry for each of its connections.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::entries::{Entries, Known};
use super::exchange::{ENDED, ResumeError, ResumeRequest, Secret, answer_ended, keep};
use super::offer::TOKEN_SIZE;
use super::{MAX_RESUME_ADDRESSES, OwnAddresses, ResumeOffer};
use crate::admission::{self, SILENCE_LIMIT};
use crate::auth::{AuthKey, Proof, random};
use crate::config::Config;
use crate::control::{Abort, AllowList, Listener, LocalAddress, Stream};
use crate::events::{EventLoop, EventLoopHandle, Task, Waiter, Wakeup};
use crate::observe::report;
use crate::sync::{Mutex, lock};

/// Requests that are served at one time; others wait in the backlog.
const REQUESTS: usize = 64;
/// While others wait, one that has lasted longer is dropped: silent clients must not hold all places.
const TURN: Duration = Duration::from_millis(250);

/// The listener for channels that are made anew. It is there for as long as a connection has an entry, or the engine keeps it.
#[derive(Debug)]
pub struct ResumeListener {
    port: u16,
    /// What is told to leaders; empty for those of the host.
    addresses: Vec<IpAddr>,
    own: OwnAddresses,
    bind: IpAddr,
    /// That of a forwarder in front of this host.
    advertised: Option<IpAddr>,
    entries: Arc<Mutex<Entries>>,
    /// For how long a leader may dial.
    limit: Duration,
    task: Option<(Task, Arc<EventLoop>)>,
}

/// One connection of which the channel can be made anew.
#[derive(Debug)]
pub struct ResumeEntry {
    name: u64,
    token: [u8; TOKEN_SIZE],
    secret: Secret,
    taken: Mutex<Taken>,
    /// Wakes the task of the connection.
    wakeup: Arc<Wakeup>,
    entries: Weak<Mutex<Entries>>,
    limit: Duration,
}

#[derive(Debug, Default)]
struct Taken {
    /// The newest generation that was proven. Older requests are void.
    generation: u64,
    offered: Option<Offered>,
}

/// What the leader has dialled for, and has proven that it is the one.
#[derive(Debug)]
pub enum Offered {
    /// A socket that is a channel once `proof` and the number of received frames are sent.
    Channel {
        /// The socket.
        stream: Stream,
        /// How many frames the leader has received.
        received: u64,
        /// The first bytes for the leader.
        proof: Proof,
    },
    /// The connection has ended there.
    Ended,
}

impl ResumeListener {
    /// Listens where `FLAGCX_P2P_BIND` says; else on all addresses of the family of `local`, because it is not known which ones will be
    /// left.
    pub fn open(config: &Config, local: &LocalAddress) -> io::Result<Arc<Self>> {
        let abort = Abort::new()?;
        let bind = redial_bind(config, local.own);
        let own = OwnAddresses::from_config(config);
        let listener = Listener::bind(bind, config.port_range, &abort)?;
        let listener = listener.with_allow_list(AllowList::new(&config.allow));
        let listener = listener.with_interfaces(own.interfaces(local.own).iter().map(String::as_str));
        let port = listener.local().port();
        let (entries, events) = (Arc::<Mutex<Entries>>::default(), EventLoop::acquire()?);
        let (known, keepalive) = (Arc::clone(&entries), config.keepalive);
        let task = events.spawn(move |handle| serve(listener, known, keepalive, handle.clone()));
        let addresses = config.control_redial_addresses.clone();
        let advertised = local.advertised.map(|advertised| advertised.ip);
        let (limit, task) = (config.control_redial.unwrap_or_default(), Some((task, events)));
        Ok(Arc::new(Self { port, addresses, own, bind, advertised, entries, limit, task }))
    }

    /// Adds a connection of which both ends have proven `psk`, if there is one.
    pub(crate) fn add(&self, psk: Option<&AuthKey>, wakeup: &Arc<Wakeup>) -> io::Result<Arc<ResumeEntry>> {
        let token = random()?;
        let mut entries = lock(&self.entries);
        let name = loop {
            let name = u64::from_le_bytes(random()?);
            if !entries.contains(name) {
                break name;
            }
        };
        let entry = Arc::new(ResumeEntry {
            name,
            token,
            secret: Secret::new(psk, &token),
            taken: Mutex::default(),
            wakeup: Arc::clone(wakeup),
            entries: Arc::downgrade(&self.entries),
            limit: self.limit,
        });
        entries.add(name, Arc::downgrade(&entry));
        Ok(entry)
    }

    /// What the leader is told of a connection that it has made over `local`, an address of this host.
    pub fn offer(&self, entry: &ResumeEntry, local: IpAddr) -> ResumeOffer {
        let addresses = match (self.addresses.is_empty(), self.bind.is_unspecified()) {
            (false, _) => self.addresses.clone(),
            (true, true) => {
                let found = self.own.find(local).into_iter().map(|one| one.network.addr());
                self.advertised.into_iter().chain([local]).chain(found).collect()
            }
            (true, false) => self.advertised.into_iter().chain([self.bind]).collect(),
        };
        let mut told = Vec::new();
        for address in addresses {
            if !told.contains(&address) && told.len() < MAX_RESUME_ADDRESSES {
                told.push(address);
            }
        }
        ResumeOffer { name: entry.name, token: entry.token, port: self.port, addresses: told }
    }
}

/// Where an engine listens for what is made anew.
pub fn redial_bind(config: &Config, own: IpAddr) -> IpAddr {
    config.bind.unwrap_or(match own {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    })
}

impl Drop for ResumeListener {
    fn drop(&mut self) {
        if let Some((task, _events)) = self.task.take() {
            task.stop_soon();
        }
    }
}

impl ResumeEntry {
    /// What the leader has dialled for, if it has since the last call.
    pub fn take(&self) -> Option<Offered> {
        lock(&self.taken).offered.take()
    }

    fn is_newer(&self, generation: u64) -> bool {
        generation > lock(&self.taken).generation
    }

    /// A request of that generation is proven; false if another one was meanwhile that is not older.
    fn put(&self, generation: u64, offered: Offered) -> bool {
        let former;
        {
            let mut taken = lock(&self.taken);
            if generation <= taken.generation {
                return false;
            }
            taken.generation = generation;
            former = taken.offered.replace(offered);
        }
        drop(former);
        self.wakeup.wake();
        true
    }
}

impl Drop for ResumeEntry {
    fn drop(&mut self) {
        if let Some(entries) = self.entries.upgrade() {
            lock(&entries).end(self.name, self.secret.clone(), (Instant::now(), self.limit));
        }
    }
}

/// The task of a [`ResumeListener`]. Requests are tasks of their own: a silent client delays none.
async fn serve(
    listener: Listener,
    entries: Arc<Mutex<Entries>>,
    keepalive: Option<Duration>,
    handle: EventLoopHandle,
) {
    let (local, listener) = (listener.local(), Arc::new(listener));
    let mut watched = match handle.watch(Arc::clone(&listener)) {
        Ok(watched) => watched,
        Err(error) => {
            tracing::error!("no channel is made anew here: the event loop cannot watch {local}: {error}");
            return;
        }
    };
    // The oldest first.
    let mut requests: VecDeque<(Instant, Task)> = VecDeque::new();
    loop {
        requests.retain(|(_, request)| !request.is_ended());
        if requests.len() >= REQUESTS {
            // New ones are accepted only when one waits, so the oldest is in the way of that one.
            watched.readable().await;
            match requests.front().map(|(since, _)| since.elapsed()) {
                Some(age) if age >= TURN => drop(requests.pop_front()),
                Some(age) => handle.sleep((TURN - age).min(Duration::from_millis(20))).await,
                None => {}
            }
            continue;
        }
        match listener.try_accept() {
            Ok(Some(stream)) => {
                let task = handle.spawn(answer(stream, Arc::clone(&entries), keepalive, handle.clone()));
                requests.push_back((Instant::now(), task));
            }
            Ok(None) => watched.readable().await,
            Err(error) => handle.sleep(admission::pause_after(local, &error)).await,
        }
        handle.give_way().await;
    }
}

async fn answer(
    stream: Stream,
    entries: Arc<Mutex<Entries>>,
    keepalive: Option<Duration>,
    handle: EventLoopHandle,
) {
    let peer = stream.peer();
    if let Err(error) = take_up(stream, &entries, keepalive, &handle).await {
        report!(info, ClientRefused, peer = peer, "{peer} takes up no connection: {error}");
    }
}

async fn take_up(
    mut stream: Stream,
    entries: &Mutex<Entries>,
    keepalive: Option<Duration>,
    handle: &EventLoopHandle,
) -> Result<(), ResumeError> {
    let (waiter, deadline) = (Waiter::on_loop(handle), Instant::now() + SILENCE_LIMIT);
    let request = ResumeRequest::receive(&stream, deadline, &waiter).await?;
    let known = lock(entries).get(request.name).ok_or(ResumeError::Refused)?;
    let entry = match known {
        Known::Live(entry) => entry,
        Known::Ended(secret) => {
            let (_, proof) = request.verify(&stream, &secret, deadline, &waiter).await?;
            return Ok(answer_ended(&stream, &proof, deadline, &waiter).await?);
        }
    };
    if !entry.is_newer(request.generation) {
        return Err(ResumeError::Refused);
    }
    let (received, proof) = request.verify(&stream, &entry.secret, deadline, &waiter).await?;
    if received == ENDED {
        entry.put(request.generation, Offered::Ended);
        return Ok(answer_ended(&stream, &proof, deadline, &waiter).await?);
    }
    keep(&mut stream, keepalive);
    match entry.put(request.generation, Offered::Channel { stream, received, proof }) {
        true => Ok(()),
        false => Err(ResumeError::Refused),
    }
}

#[cfg(test)]
mod tests;
