//! Notifications.

use flagcx_p2p::notify::NotifyError;

use crate::handles::{Conn, NotifyMessage};
use crate::refusal::{OrRefuse, REFUSED};

pub(crate) fn conn_notify(conn: &Conn, message: &NotifyMessage) -> i32 {
    let sent: Result<usize, NotifyError> = conn.connection().send_notification(&message.0);
    sent.or_refuse("flagcxP2pEngineSendNotif").and_then(|bytes| i32::try_from(bytes).ok()).unwrap_or(REFUSED)
}

pub(crate) fn take_notifications() -> Vec<NotifyMessage> {
    Vec::new()
}
