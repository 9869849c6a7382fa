//! Two engines of this process, and what is moved between them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::config::Config;
use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::{Engine, EngineOptions, RegisteredBuffer};
use flagcx_p2p::internals::fabric::{
    DeviceList, FabricChoice, FabricOptions, Opcode, PathKind, SoftwareOptions, software,
};
use flagcx_p2p::internals::observe::RailStatus;
use flagcx_p2p::internals::transfer::{Iov, Outcome, Status, TransferId};

/// The devices of both engines.
#[derive(Clone, Copy)]
pub(crate) enum Devices {
    /// Of the stand-in library.
    StandIns,
    /// So many software devices; bytes go through memory that both ends have mapped, as between two processes of a host.
    Software(u32),
}

impl Devices {
    fn open(self) -> Arc<DeviceList> {
        match self {
            Self::StandIns => {
                let library = std::env::var("FLAGCX_P2P_NULLVERBS")
                    .expect("FLAGCX_P2P_NULLVERBS names the stand-in library");
                let mut options = FabricOptions { choice: FabricChoice::Verbs, ..FabricOptions::default() };
                options.verbs.library = Some(library);
                Arc::new(DeviceList::open(&options).expect("the stand-in opens"))
            }
            Self::Software(device_count) => {
                let options = SoftwareOptions {
                    device_count,
                    force: Some(PathKind::Shared),
                    ..SoftwareOptions::default()
                };
                Arc::new(DeviceList::of(software::open(&options).expect("the software fabric opens")))
            }
        }
    }
}

/// A connection, and memory at both ends.
pub(crate) struct Ends {
    pub(crate) connection: Arc<Connection>,
    client: Arc<Engine>,
    server: Arc<Engine>,
    source: RegisteredBuffer,
    target: RegisteredBuffer,
}

impl Ends {
    /// With so many rails, which are up.
    pub(crate) fn new(devices: Devices, rails: usize, pool: usize, settings: &[(&str, &str)]) -> Self {
        let config = |name: &str| match name {
            "FLAGCX_P2P_BIND" => Some("127.0.0.1".to_owned()),
            "FLAGCX_P2P_RAILS" => Some(rails.to_string()),
            _ => settings.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()),
        };
        let config = Arc::new(Config::from_source(&config));
        let open = || {
            let options = EngineOptions { gpu_index: 0, devices: Some(devices.open()) };
            Engine::open(Arc::clone(&config), options).unwrap()
        };
        let (client, server) = (open(), open());
        let (source, target) = (client.allocate(pool).unwrap(), server.allocate(pool).unwrap());
        // Touched, so that no run pays for page faults.
        for offset in (0..pool).step_by(4096) {
            assert!(source.write(offset, &[1]) && target.write(offset, &[2]));
        }
        server.start_rpc_server().unwrap();
        let connection = connect(&client, &server);
        let ends = Self { connection, client, server, source, target };
        ends.make_rails(&ends.connection, rails);
        ends
    }

    /// Another connection, with as many rails.
    pub(crate) fn connect(&self, rails: usize) -> Arc<Connection> {
        let connection = connect(&self.client, &self.server);
        self.make_rails(&connection, rails);
        connection
    }

    fn make_rails(&self, connection: &Connection, rails: usize) {
        let begin = Instant::now();
        let up = || connection.rails().iter().filter(|rail| rail.status == RailStatus::Up).count();
        while up() < rails {
            assert!(begin.elapsed() < Duration::from_secs(20), "{:#?}", connection.rails());
            connection.add_rails_now();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// So many pieces, each behind the one before, with a gap that keeps them from being joined.
    pub(crate) fn iovs(&self, count: usize, bytes: u64, offset: &mut u64) -> Vec<Iov> {
        const GAP: u64 = 64;
        (0..count)
            .map(|_| {
                if *offset + bytes > self.source.len() as u64 {
                    *offset = 0;
                }
                let at = *offset;
                *offset += bytes + GAP;
                Iov {
                    local: self.source.address() + at,
                    length: bytes,
                    region: Some(self.source.region()),
                    remote: self
                        .connection
                        .describe_remote(self.target.address() + at, bytes as u32)
                        .unwrap(),
                }
            })
            .collect()
    }

    /// So many calls of `load`, for a tool that counts instructions.
    #[inline(never)]
    pub(crate) fn calls(&self, load: &Load, count: u64) {
        let mut offset = 0;
        let sets: Vec<_> =
            (0..load.in_flight).map(|_| self.iovs(load.pieces, load.bytes, &mut offset)).collect();
        let mut ids = vec![TransferId::COMPLETE; sets.len()];
        for _ in 0..count.div_ceil(sets.len() as u64) {
            for (id, iovs) in ids.iter_mut().zip(&sets) {
                while self.connection.status(*id) == Status::Pending {}
                *id = self.connection.submit(Opcode::Write, &iovs[..]).unwrap();
            }
        }
        for id in ids {
            while self.connection.status(id) == Status::Pending {}
        }
    }

    /// Nanoseconds for each call of `load`, of as many as end in `time`.
    pub(crate) fn time(&self, load: &Load, time: Duration) -> f64 {
        let mut offset = 0;
        let sets: Vec<_> =
            (0..load.in_flight).map(|_| self.iovs(load.pieces, load.bytes, &mut offset)).collect();
        let mut ids = vec![TransferId::COMPLETE; sets.len()];
        let (start, mut ended) = (Instant::now(), 0_u64);
        while start.elapsed() < time {
            for (id, iovs) in ids.iter_mut().zip(&sets) {
                match self.connection.status(*id) {
                    Status::Pending => {}
                    Status::Ended(Outcome::Done) => {
                        ended += 1;
                        *id = self.connection.submit(Opcode::Write, &iovs[..]).unwrap();
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        let taken = start.elapsed();
        for id in ids {
            while self.connection.status(id) == Status::Pending {}
        }
        taken.as_nanos() as f64 / ended as f64
    }
}

fn connect(client: &Arc<Engine>, server: &Arc<Engine>) -> Arc<Connection> {
    client.connect(&server.address().to_string(), server.rpc_port().unwrap(), 0, false).unwrap()
}

/// Equal calls.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) pieces: usize,
    pub(crate) bytes: u64,
    pub(crate) in_flight: usize,
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
