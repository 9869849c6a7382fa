//! One port of one device, as the engine sees it.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use once_cell::sync::OnceCell;

use super::completion_queue::RawCompletionQueue;
use super::context::VerbsContext;
use super::failure_reports::FailureReports;
use super::gid::GidPreference;
use super::memory::{VerbsMemoryRegion, takes_dma_bufs};
use super::opened::{OpenDevice, open_context};
use super::port::{LocalPort, gid_table, mtu_bytes};
use super::queue_pair::VerbsQueuePair;
use super::sys::{Library, ibv_atomic_cap, ibv_device_attr};
use super::sysfs::DeviceFiles;
use super::transitions::{DeviceLimits, QueuePairSettings};
use crate::fabric::{
    Capabilities, CompletionQueue, Device, DeviceAttributes, DeviceEvent, FabricError, GidEntry, MAX_SGE,
    MemoryRange, MemoryRegion, PortAttributes, Provider, QueueHandle, QueuePair, QueuePairCaps, VerbsOptions,
};

/// A device's port. Listing it reads what it is; the device is opened by the first use, for good.
#[derive(Debug)]
pub(super) struct VerbsDevice {
    library: &'static Library,
    files: DeviceFiles,
    attributes: DeviceAttributes,
    /// The port when the device was listed.
    listed: PortAttributes,
    failures: FailureReports,
    settings: QueuePairSettings,
    preference: GidPreference,
    max_mtu: u8,
    relaxed_ordering: bool,
    /// The port as last read: when it was listed, when it was opened, and again after an event that may have changed its
    /// address.
    port: Mutex<LocalPort>,
    /// Empty until the first use, and while each one fails.
    opened: OnceCell<OpenDevice>,
    /// A refusal was told. Written by threads that need a NIC, Relaxed: it stands alone.
    refusal_told: AtomicBool,
}

impl VerbsDevice {
    /// A device for an active port. `context` is asked now and not kept.
    pub(super) fn new(
        context: &VerbsContext,
        files: DeviceFiles,
        port: LocalPort,
        options: &VerbsOptions,
        preference: GidPreference,
        max_mtu: u8,
    ) -> Result<Self, FabricError> {
        let limits = context.query_device()?;
        let attributes = attributes(context, &files, port.number, &limits);
        let device = DeviceLimits {
            max_initiator: attributes.max_rd_atomic_initiator,
            max_responder: attributes.max_rd_atomic_responder,
            atomics: limits.atomic_cap != ibv_atomic_cap::IBV_ATOMIC_NONE,
            traffic_class: files.traffic_class(port.number),
        };
        let settings = QueuePairSettings::new(options, device);
        if options.traffic_class.is_none() && device.traffic_class.is_some() {
            let (name, class) = (&attributes.name, settings.traffic_class);
            tracing::info!(device = %name, "traffic class {class}, as the NIC was given; FLAGCX_P2P_IB_TC sets another");
        }
        let library = context.library;
        Ok(Self {
            library,
            files,
            preference,
            max_mtu,
            relaxed_ordering: options.relaxed_ordering && library.ibv_reg_mr_iova2.is_some(),
            failures: FailureReports::of(&limits),
            listed: port.describe(&context.query_port(attributes.port)?, settings.traffic_class),
            port: Mutex::new(port),
            settings,
            attributes,
            opened: OnceCell::new(),
            refusal_told: AtomicBool::new(false),
        })
    }

    /// The device, opened by the first call that succeeds. Others wait for that, which is a command of the device or several.
    fn opened(&self) -> Result<&OpenDevice, FabricError> {
        self.opened.get_or_try_init(|| {
            let opened = OpenDevice::open(self.library, &self.attributes.name)?;
            // It may have been listed long ago.
            self.refresh(&opened.context);
            let port = self.local_port();
            tracing::info!(
                device = self.attributes.name,
                port = port.number,
                gid_index = port.gid.index,
                mtu = mtu_bytes(port.mtu),
                "RDMA port opened; GID {}",
                port.gid.reason
            );
            Ok(opened)
        })
    }

    fn local_port(&self) -> LocalPort {
        self.port.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the port again. New queue pairs use the result; existing ones keep their address.
    fn refresh(&self, context: &VerbsContext) {
        let read =
            LocalPort::read(context, &self.files, self.attributes.port, &self.preference, self.max_mtu);
        match read {
            Ok(Some(port)) => {
                let mut current = self.port.lock().unwrap_or_else(PoisonError::into_inner);
                if current.gid.gid != port.gid.gid {
                    tracing::info!(
                        device = self.attributes.name,
                        "GID {}: {}",
                        port.gid.index,
                        port.gid.reason
                    );
                }
                *current = port;
            }
            // Not active: another event follows when it is.
            Ok(None) => {}
            Err(error) => {
                tracing::warn!("cannot read a port that has changed, its former address is kept: {error}")
            }
        }
    }

    fn check_caps(&self, caps: &QueuePairCaps) -> Result<(), FabricError> {
        let name = &self.attributes.name;
        let (depth, sge) = (self.attributes.max_queue_depth, self.attributes.max_sge);
        if !(1..=depth).contains(&caps.send_depth) {
            return Err(FabricError::Unsupported(format!(
                "a queue pair of {} requests was asked for, {name} supports 1 to {depth} (max_qp_wr)",
                caps.send_depth
            )));
        }
        if !(1..=sge).contains(&caps.max_sge) {
            return Err(FabricError::Unsupported(format!(
                "requests of {} scatter/gather entries were asked for, {name} supports 1 to {sge} (max_sge)",
                caps.max_sge
            )));
        }
        Ok(())
    }
}

impl Device for VerbsDevice {
    fn attributes(&self) -> &DeviceAttributes {
        &self.attributes
    }

    fn check_use(&self) -> Result<(), FabricError> {
        self.opened().map(drop)
    }

    fn is_first_refusal(&self) -> bool {
        !self.refusal_told.swap(true, Ordering::Relaxed)
    }

    fn port(&self) -> Result<PortAttributes, FabricError> {
        match self.opened.get() {
            Some(opened) => {
                let attributes = opened.context.query_port(self.attributes.port)?;
                Ok(self.local_port().describe(&attributes, self.settings.traffic_class))
            }
            None => Ok(self.listed.clone()),
        }
    }

    fn gids(&self) -> Result<Vec<GidEntry>, FabricError> {
        let number = self.attributes.port;
        let context = match self.opened.get() {
            Some(opened) => Arc::clone(&opened.context),
            None => open_context(self.library, &self.attributes.name)?,
        };
        let (attributes, link_layer) = (context.query_port(number)?, self.local_port().link_layer);
        let table = gid_table(&context, &self.files, number, link_layer, &attributes);
        Ok(table.into_iter().map(|candidate| candidate.entry).collect())
    }

    fn register(&self, range: &MemoryRange) -> Result<Arc<dyn MemoryRegion>, FabricError> {
        let context = Arc::clone(&self.opened()?.context);
        // A device without atomics may refuse memory that offers them, as it refuses a queue pair that does.
        let mut range = *range;
        range.access.remote_atomic &= self.settings.atomics;
        let region =
            VerbsMemoryRegion::register(context, &range, self.attributes.max_region, self.relaxed_ordering)?;
        Ok(Arc::new(region))
    }

    fn create_completion_queue(self: Arc<Self>, depth: u32) -> Result<Box<dyn CompletionQueue>, FabricError> {
        Ok(Box::new(self.opened()?.create_completion_queue(depth, self.attributes.max_cq_depth)?))
    }

    fn create_queue_pair(
        self: Arc<Self>,
        queue: &QueueHandle,
        caps: &QueuePairCaps,
    ) -> Result<Box<dyn QueuePair>, FabricError> {
        self.check_caps(caps)?;
        let opened = self.opened()?;
        let queue = queue
            .downcast::<RawCompletionQueue>()
            .filter(|queue| Arc::ptr_eq(&queue.context, &opened.context))
            .ok_or_else(|| {
                FabricError::Unsupported(format!(
                    "a queue pair of {} needs a completion queue of {}",
                    self.attributes.name, self.attributes.name
                ))
            })?;
        let (port, settings) = (self.local_port(), self.settings.clone());
        Ok(Box::new(VerbsQueuePair::create(&queue, caps, &opened.granted, port, settings, self.failures)?))
    }

    fn poll_event(&self) -> Option<DeviceEvent> {
        let context = &self.opened.get()?.context;
        loop {
            let event = context.next_event()?;
            if event.port.is_some_and(|port| port != self.attributes.port) {
                continue;
            }
            match event.event {
                DeviceEvent::QueuePairFatal(number) if event.is_refusal => context.mark_refused(number),
                DeviceEvent::QueuePairFatal(number) => context.mark_broken(number),
                DeviceEvent::AddressChange | DeviceEvent::PortUp => {
                    self.refresh(context);
                    context.mark_stale_addresses();
                }
                _ => {}
            }
            return Some(event.event);
        }
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.opened().ok().map(|opened| opened.context.async_fd())
    }
}

fn attributes(
    context: &VerbsContext,
    files: &DeviceFiles,
    port: u8,
    limits: &ibv_device_attr,
) -> DeviceAttributes {
    let count = |value: i32| u32::try_from(value).unwrap_or(0);
    let byte = |value: i32| u8::try_from(value.max(0)).unwrap_or(u8::MAX);
    DeviceAttributes {
        provider: Provider::Verbs,
        name: context.name.clone(),
        port,
        // Never zero, even from a driver that reports zero.
        guid: u64::from_be(limits.node_guid).max(1),
        pci_path: files.device_path(),
        max_queue_depth: count(limits.max_qp_wr),
        max_cq_depth: count(limits.max_cqe),
        max_queue_pairs: count(limits.max_qp),
        // READs may have a lower limit of their own; one number for both keeps the engine simple.
        max_sge: match (count(limits.max_sge), count(limits.max_sge_rd)) {
            (all, 0) => all,
            (all, reads) => all.min(reads),
        }
        .min(MAX_SGE as u32),
        max_region: limits.max_mr_size,
        max_rd_atomic_initiator: byte(limits.max_qp_init_rd_atom),
        max_rd_atomic_responder: byte(limits.max_qp_rd_atom),
        dma_buf: takes_dma_bufs(context),
        capabilities: Capabilities {
            needs_polling: false,
            blocking_commands: true,
            gpu_memory: true,
            shared_files: false,
        },
    }
}
