//! RDMA devices through libibverbs, which is loaded when the first device is opened.
//!
//! ```text
//!   mod ─▶ device ─▶ queue_pair ─▶ send_list, transitions, creation
//!            │  │ └─▶ completion_queue, memory
//!            │  └─▶ opened
//!            └─▶ port ─▶ gid, gid_table, sysfs, routes            context, events ─▶ sys ─▶ libibverbs.so.1
//! ```
//!
//! `sys` alone names `rdma-sys`; the files that call the library say so in their first lines. Every object keeps what
//! it was made from alive, so they may be dropped in any order.

use std::sync::Arc;

use super::registry::Opened;
use super::{Device, FabricError, HcaFilter, VerbsOptions};
use context::{VerbsContext, VerbsDeviceList};
use device::VerbsDevice;
use gid::GidPreference;
use opened::try_queue_pair;
use port::LocalPort;
use sys::Library;
use sysfs::DeviceFiles;

mod completion_queue;
mod context;
mod creation;
mod device;
mod events;
mod failure_reports;
mod gid;
mod gid_table;
mod memory;
mod opened;
mod port;
mod queue_pair;
mod routes;
mod send_list;
mod sys;
mod sysfs;
mod transitions;

/// Lists every active port that the options allow, one [`Device`] each. The devices are opened by their first use.
///
/// An error is one line: what was looked for, what was found, what to set.
pub fn open(options: &VerbsOptions) -> Result<Vec<Arc<dyn Device>>, FabricError> {
    list(options).map(|listed| listed.devices)
}

/// [`open`], with a line for each port that is not used.
pub(super) fn list(options: &VerbsOptions) -> Result<Opened, FabricError> {
    Opener::new(options)?.list()
}

/// [`list`], an error if none of the devices can be used. Those that cannot keep their places behind one that can.
pub(super) fn list_usable(options: &VerbsOptions) -> Result<Opened, FabricError> {
    let mut opener = Opener::new(options)?;
    opener.seeks_usable = true;
    let listed = opener.list()?;
    if opener.unusable.len() == listed.devices.len() {
        let reasons: Vec<_> = opener.unusable.iter().chain(&listed.not_used).cloned().collect();
        return Err(opener.nothing(&opener.table.names(), &reasons));
    }
    Ok(listed)
}

/// The parsed options.
struct Opener<'a> {
    options: &'a VerbsOptions,
    filter: HcaFilter,
    preference: GidPreference,
    max_mtu: u8,
    table: VerbsDeviceList,
    /// One device after the other is tried until one can be used.
    seeks_usable: bool,
    /// Why those cannot be used that were tried, a line for each of their ports.
    unusable: Vec<String>,
}

impl<'a> Opener<'a> {
    fn new(options: &'a VerbsOptions) -> Result<Self, FabricError> {
        let filter = HcaFilter::parse(&options.hca)?;
        let preference = GidPreference::from_options(options)?;
        let max_mtu = port::mtu_code(options.max_mtu).ok_or_else(|| {
            FabricError::Unsupported(format!(
                "unsupported MTU of {} bytes: set FLAGCX_P2P_MTU to 256, 512, 1024, 2048 or 4096",
                options.max_mtu
            ))
        })?;
        let library = Library::load(options.library.as_deref())?;
        let table = VerbsDeviceList::read(library)?;
        Ok(Self { options, filter, preference, max_mtu, table, seeks_usable: false, unusable: Vec::new() })
    }

    fn list(&mut self) -> Result<Opened, FabricError> {
        let names = self.table.names();
        let mut devices: Vec<Arc<dyn Device>> = Vec::new();
        let mut refusals = Vec::new();
        for name in &names {
            self.list_device(name, &mut devices, &mut refusals);
        }
        if devices.is_empty() {
            return Err(self.nothing(&names, &refusals));
        }
        Ok(Opened { devices, not_used: refusals })
    }

    /// Lists each wanted port of `name`; a port that cannot be used adds a line to `refusals`. The device is asked through a
    /// context that is closed again.
    fn list_device(&mut self, name: &str, devices: &mut Vec<Arc<dyn Device>>, refusals: &mut Vec<String>) {
        let asked = self.context(name).and_then(|context| {
            let ports = context.query_device()?.phys_port_cnt;
            Ok((context, ports))
        });
        let (context, ports) = match asked {
            Ok(asked) => asked,
            Err(error) => return refusals.push(error.to_string()),
        };
        let listed_before = devices.len();
        for port in 1..=ports {
            if !self.filter.allows(name, port) {
                refusals.push(format!(
                    "{name} port {port} is left out by FLAGCX_IB_HCA=\"{}\"",
                    self.options.hca
                ));
            } else if self.options.port.is_some_and(|wanted| wanted != port) {
                refusals.push(format!("{name} port {port} is not the port asked for"));
            } else {
                match self.list_port(&context, port) {
                    Ok(device) => devices.push(Arc::new(device)),
                    Err(error) => refusals.push(error.to_string()),
                }
            }
        }
        if self.seeks_usable && devices.len() > listed_before {
            match try_queue_pair(&context) {
                Ok(()) => self.seeks_usable = false,
                Err(error) => {
                    let ports = devices.len() - listed_before;
                    self.unusable.extend(std::iter::repeat_n(error.to_string(), ports));
                }
            }
        }
    }

    /// Each port will have a context of its own, so that its events come to it alone.
    fn list_port(&self, context: &VerbsContext, number: u8) -> Result<VerbsDevice, FabricError> {
        let name = &context.name;
        let files = DeviceFiles::new(&self.options.sysfs, name);
        let Some(port) = LocalPort::read(context, &files, number, &self.preference, self.max_mtu)? else {
            let state = port::state_name(&context.query_port(number)?);
            return Err(FabricError::Unsupported(format!("{name} port {number} is {state}, not ACTIVE")));
        };
        VerbsDevice::new(context, files, port, self.options, self.preference.clone(), self.max_mtu)
    }

    fn context(&self, name: &str) -> Result<Arc<VerbsContext>, FabricError> {
        self.table.open(name).unwrap_or_else(|| Err(FabricError::call("ibv_open_device", name, libc::ENODEV)))
    }

    fn nothing(&self, names: &[String], refusals: &[String]) -> FabricError {
        if names.is_empty() {
            return FabricError::Unsupported(
                "no RDMA device: libibverbs lists none (rdma link shows what the kernel has; load the NIC's driver \
                 and ib_uverbs, and pass /dev/infiniband into a container)"
                    .to_owned(),
            );
        }
        FabricError::Unsupported(format!(
            "no usable RDMA port among {}: {}; bring a port up, or set FLAGCX_IB_HCA to one that is",
            names.join(", "),
            refusals.join("; ")
        ))
    }
}
