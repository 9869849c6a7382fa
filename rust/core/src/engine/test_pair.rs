//! Two connected engines over the software fabric, for unit tests that look inside an engine.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::fabric::{DeviceList, FabricChoice, FabricOptions, SoftwareOptions};

/// Two engines, each with 4 KiB, and a connection from the client to the server.
pub(super) struct TestPair {
    pub(super) client: Arc<Engine>,
    pub(super) server: Arc<Engine>,
    pub(super) here: Arc<Connection>,
    pub(super) source: RegisteredBuffer,
    pub(super) target: RegisteredBuffer,
}

impl TestPair {
    /// With these variables, and with these faults of the fabric.
    pub(super) fn new(variables: &[(&str, &str)], faults: &str) -> Self {
        let config = Config::from_source(&|name| {
            let set = variables.iter().chain(&[("FLAGCX_P2P_BIND", "127.0.0.1")]);
            set.into_iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        });
        let software = SoftwareOptions { faults: faults.to_owned(), ..SoftwareOptions::default() };
        let fabric = FabricOptions { choice: FabricChoice::Software, software, ..FabricOptions::default() };
        let devices = Some(Arc::new(DeviceList::open(&fabric).unwrap()));
        let (config, options) = (Arc::new(config), EngineOptions { gpu_index: 0, devices });
        let client = Engine::open(Arc::clone(&config), options.clone()).unwrap();
        let server = Engine::open(config, options).unwrap();
        let (source, target) = (client.allocate(4096).unwrap(), server.allocate(4096).unwrap());
        server.start_rpc_server().unwrap();
        let here =
            client.connect(&server.address().to_string(), server.rpc_port().unwrap(), 0, false).unwrap();
        Self { client, server, here, source, target }
    }
}
