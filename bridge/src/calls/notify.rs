//! Notifications.

use flagcx_p2p::notify::NotifyError;

use crate::handles::{Conn, Engine, NotifyMessage};
use crate::refusal::{OK, OrRefuse, REFUSED};

pub(crate) fn conn_notify(conn: &Conn, message: &NotifyMessage) -> i32 {
    let sent: Result<usize, NotifyError> = conn.connection().send_notification(&message.0);
    sent.or_refuse("flagcxP2pEngineSendNotif").and_then(|bytes| i32::try_from(bytes).ok()).unwrap_or(REFUSED)
}

pub(crate) fn take_notifications() -> Vec<NotifyMessage> {
    Vec::new()
}

pub(crate) fn engine_take_notifications(
    _engine: &Engine,
    _out: &mut [NotifyMessage],
    taken: &mut usize,
) -> i32 {
    *taken = 0;
    OK
}

pub(crate) fn append_notification(_message: &NotifyMessage) {}
