//! Notifications.

use flagcx_p2p::internals::notify::{self, Message, Notification};

use crate::ffi::AnyNotification;
use crate::handles::{Conn, Engine, NotifyMessage};
use crate::refusal::{OK, OrRefuse, REFUSED};

pub(crate) fn conn_notify(conn: &Conn, message: &NotifyMessage) -> i32 {
    match conn.connection().send_notification(&message.0).or_refuse("flagcxP2pEngineSendNotif") {
        Some(_) => Message::SIZE as i32,
        None => REFUSED,
    }
}

pub(crate) fn conn_notify_bytes(conn: &Conn, name: &[u8], content: &[u8]) -> i32 {
    let sent = conn.connection().send_notification_bytes(name, content);
    match sent.or_refuse("flagcxP2pEngineSendNotifBytes") {
        Some(_) => OK,
        None => REFUSED,
    }
}

pub(crate) fn take_notifications() -> Vec<NotifyMessage> {
    notify::take_all().into_iter().map(NotifyMessage).collect()
}

pub(crate) fn append_notification(message: &NotifyMessage) {
    notify::append(&message.0);
}

pub(crate) fn engine_take_notifications(engine: &Engine) -> Vec<AnyNotification> {
    let taken = engine.state().core().take_all_notifications().into_iter();
    taken
        .map(|notification| match notification {
            Notification::Fixed(message) => {
                AnyNotification { name: message.name, content: message.text.to_vec() }
            }
            Notification::Exact(message) => AnyNotification { name: message.name, content: message.content },
        })
        .collect()
}
