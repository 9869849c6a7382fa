//! The way to a [`Client`]: the session first, while the engine opens, and the rings once it is known what is to be moved.

use std::cell::Cell;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use flagcx_p2p::{Config, Engine, EngineOptions, PathKind, RemoteRange};

use super::{Client, receive};
use crate::error::{CliError, Result, While};
use crate::ring::{Ring, Shape};
use crate::settings;
use crate::wire::control::Control;
use crate::wire::{Frame, authenticate};

/// A session without a ring.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) control: Control,
    /// Opens while a folder is listed.
    engine: JoinHandle<Result<Arc<Engine>>>,
}

impl Opening {
    /// Connects to `server` (`HOST:PORT`), over one path of the software fabric; `None` is the path that the engine chooses.
    pub(super) fn connect(server: &str, path: Option<PathKind>) -> Result<Self> {
        let control = Control::connect(server)?;
        let config = settings::config(Some(control.local().ip()))?;
        let (own, local) = (Arc::clone(&config), control.local().ip());
        let open = move || {
            let options = match path {
                Some(path) => settings::engine_options_over(path, &own, local)?,
                None => EngineOptions::default(),
            };
            Engine::open(own, options).doing(|| "open the engine".into())
        };
        let engine = thread::Builder::new().name("engine-open".into()).spawn(open);
        let engine =
            engine.map_err(|error| CliError::other(error.to_string())).doing(|| "start a thread".into())?;
        open_session(&control, &config)?;
        Ok(Self { control, engine })
    }

    /// Agrees on a ring of about `shape`, and connects the engines.
    pub(super) fn allocate(self, shape: Shape) -> Result<Client> {
        let Self { control, engine } = self;
        control.send(&Frame::Allocate { chunk: shape.chunk, slots: shape.slots })?;
        let engine = engine.join().unwrap_or_else(|_| Err(CliError::other("a thread ended by a panic")))?;
        let Frame::Ring { metadata, chunk, slots } = receive(&control)? else {
            return Err(CliError::protocol("expected Ring as the answer to Allocate"));
        };
        let agreed = Shape { chunk, slots: u16::try_from(slots.len()).unwrap_or(0) };
        if agreed != agreed.fitted(u64::from(u32::MAX)) {
            return Err(CliError::protocol(format!("malformed ring: {agreed}")));
        }
        let ring = Ring::allocate(&engine, agreed)?;
        let reached = control.peer().ip();
        let peer = settings::PeerAddress::parse(&metadata, reached)?;
        let connection =
            engine.connect(&peer.host, peer.port, peer.gpu, false).doing(|| peer.connecting(reached))?;
        let slots = slots.into_iter().map(RemoteRange::from).collect();
        let counter = || Cell::new(0);
        let (requests, next_put, next_get) = (counter(), counter(), counter());
        Ok(Client { control, connection, ring, slots, requests, next_put, next_get, _engine: engine })
    }
}

/// Opens a session, and proves the key where one is set.
pub(super) fn open_session(control: &Control, config: &Config) -> Result<()> {
    let nonce = authenticate::nonce()?;
    control.send(&Frame::Open { nonce })?;
    let key = settings::auth_key(config)?;
    match authenticate::initiate(key.as_ref(), control, nonce)? {
        Frame::Opened => Ok(()),
        other => Err(CliError::protocol(format!("expected Opened as the answer to Open, not {other:?}"))),
    }
}
