//! The meaning of libibverbs' asynchronous events, as pure functions of their numbers.

use super::sys::ibv_event_type as kind;
use crate::fabric::DeviceEvent;

/// An event and, where it concerns one port of the device only, that port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AsyncEvent {
    pub(super) port: Option<u8>,
    pub(super) event: DeviceEvent,
    /// The queue pair has failed because it has refused a request of the peer.
    pub(super) is_refusal: bool,
}

/// Which member of the event's union is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    QueuePair,
    Port,
    Other,
}

const CQ_ERR: u32 = kind::IBV_EVENT_CQ_ERR as u32;
const QP_FATAL: u32 = kind::IBV_EVENT_QP_FATAL as u32;
const QP_REQ_ERR: u32 = kind::IBV_EVENT_QP_REQ_ERR as u32;
const QP_ACCESS_ERR: u32 = kind::IBV_EVENT_QP_ACCESS_ERR as u32;
const COMM_EST: u32 = kind::IBV_EVENT_COMM_EST as u32;
const SQ_DRAINED: u32 = kind::IBV_EVENT_SQ_DRAINED as u32;
const PATH_MIG: u32 = kind::IBV_EVENT_PATH_MIG as u32;
const PATH_MIG_ERR: u32 = kind::IBV_EVENT_PATH_MIG_ERR as u32;
const DEVICE_FATAL: u32 = kind::IBV_EVENT_DEVICE_FATAL as u32;
const PORT_ACTIVE: u32 = kind::IBV_EVENT_PORT_ACTIVE as u32;
const PORT_ERR: u32 = kind::IBV_EVENT_PORT_ERR as u32;
const LID_CHANGE: u32 = kind::IBV_EVENT_LID_CHANGE as u32;
const PKEY_CHANGE: u32 = kind::IBV_EVENT_PKEY_CHANGE as u32;
const SM_CHANGE: u32 = kind::IBV_EVENT_SM_CHANGE as u32;
const LAST_WQE_REACHED: u32 = kind::IBV_EVENT_QP_LAST_WQE_REACHED as u32;
const CLIENT_REREGISTER: u32 = kind::IBV_EVENT_CLIENT_REREGISTER as u32;
const GID_CHANGE: u32 = kind::IBV_EVENT_GID_CHANGE as u32;

/// The subject of an event with this number.
pub(super) fn subject(number: u32) -> Subject {
    match number {
        QP_FATAL | QP_REQ_ERR | QP_ACCESS_ERR | COMM_EST | SQ_DRAINED | PATH_MIG | PATH_MIG_ERR
        | LAST_WQE_REACHED => Subject::QueuePair,
        PORT_ACTIVE | PORT_ERR | LID_CHANGE | PKEY_CHANGE | SM_CHANGE | CLIENT_REREGISTER | GID_CHANGE => {
            Subject::Port
        }
        _ => Subject::Other,
    }
}

impl AsyncEvent {
    /// An event of queue pair `qpn`. Only those that leave it in ERROR are fatal to it.
    pub(super) fn of_queue_pair(number: u32, qpn: u32) -> Self {
        let event = match number {
            QP_FATAL | QP_REQ_ERR | QP_ACCESS_ERR | PATH_MIG_ERR => DeviceEvent::QueuePairFatal(qpn),
            other => DeviceEvent::Other(other),
        };
        Self { port: None, event, is_refusal: matches!(number, QP_REQ_ERR | QP_ACCESS_ERR) }
    }

    /// An event of a port.
    pub(super) fn of_port(number: u32, port: i32) -> Self {
        let event = match number {
            PORT_ACTIVE => DeviceEvent::PortUp,
            PORT_ERR => DeviceEvent::PortDown,
            LID_CHANGE | PKEY_CHANGE | GID_CHANGE | CLIENT_REREGISTER => DeviceEvent::AddressChange,
            other => DeviceEvent::Other(other),
        };
        Self { port: u8::try_from(port).ok(), event, is_refusal: false }
    }

    /// An event of the whole device, or of an object that this crate never makes.
    pub(super) fn other(number: u32) -> Self {
        let event = match number {
            CQ_ERR => DeviceEvent::CompletionQueueFatal,
            DEVICE_FATAL => DeviceEvent::DeviceFatal,
            other => DeviceEvent::Other(other),
        };
        Self { port: None, event, is_refusal: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_pair_errors_are_fatal_to_that_queue_pair() {
        for number in [QP_FATAL, QP_REQ_ERR, QP_ACCESS_ERR] {
            assert_eq!(subject(number), Subject::QueuePair);
            let seen = AsyncEvent::of_queue_pair(number, 77);
            assert_eq!((seen.event, seen.is_refusal), (DeviceEvent::QueuePairFatal(77), number != QP_FATAL));
        }
        assert_eq!(AsyncEvent::of_queue_pair(COMM_EST, 77).event, DeviceEvent::Other(COMM_EST));
    }

    #[test]
    fn port_events_name_their_port() {
        assert_eq!(
            AsyncEvent::of_port(PORT_ERR, 2),
            AsyncEvent { port: Some(2), event: DeviceEvent::PortDown, is_refusal: false }
        );
        assert_eq!(AsyncEvent::of_port(GID_CHANGE, 1).event, DeviceEvent::AddressChange);
        assert_eq!(subject(PORT_ACTIVE), Subject::Port);
    }

    #[test]
    fn unknown_numbers_pass_through_without_touching_the_element() {
        assert_eq!(subject(4711), Subject::Other);
        let other = AsyncEvent { port: None, event: DeviceEvent::Other(4711), is_refusal: false };
        assert_eq!(AsyncEvent::other(4711), other);
    }
}
