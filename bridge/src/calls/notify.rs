//! Notifications.

use flagcx_p2p::notify::{self, LargeMessage, Message};

use crate::ffi::LargeNotification;
use crate::handles::{Conn, Engine, NotifyMessage};
use crate::refusal::{OK, OrRefuse, REFUSED};

pub(crate) fn conn_notify(conn: &Conn, message: &NotifyMessage) -> i32 {
    match conn.connection().send_notification(&message.0).or_refuse("flagcxP2pEngineSendNotif") {
        Some(_) => Message::SIZE as i32,
        None => REFUSED,
    }
}

pub(crate) fn conn_notify_large(conn: &Conn, name: &[u8], content: &[u8]) -> i32 {
    let message = LargeMessage::new(name, content.to_vec());
    match conn.connection().send_large_notification(&message).or_refuse("flagcxP2pEngineSendNotifBytes") {
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

pub(crate) fn engine_take_notifications(engine: &Engine) -> Vec<NotifyMessage> {
    engine.state().core().take_notifications().into_iter().map(NotifyMessage).collect()
}

pub(crate) fn engine_take_large_notifications(engine: &Engine) -> Vec<LargeNotification> {
    engine
        .state()
        .core()
        .take_large_notifications()
        .into_iter()
        .map(|message| LargeNotification { name: message.name, content: message.content })
        .collect()
}
