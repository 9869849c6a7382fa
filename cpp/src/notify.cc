// SPDX-License-Identifier: Apache-2.0
//
// Notifications.
#include "accl.h"
#include "facade.h"
#include "internal.h"

using namespace flagcx::p2p;

std::vector<FlagcxP2pNotifyMsg> flagcxP2pEngineGetNotifs() {
  const rust::Vec<FlagcxP2pNotifyMsg> messages = ffi::take_notifications();
  return {messages.begin(), messages.end()};
}

int flagcxP2pEngineSendNotif(FlagcxP2pConn *conn, FlagcxP2pNotifyMsg *notifyMsg) {
  FORWARD_TO_ACCL(conn, flagcxAcclEngineSendNotif(conn, notifyMsg));
  if (conn == nullptr || notifyMsg == nullptr)
    return refuseNull("flagcxP2pEngineSendNotif", conn == nullptr ? "conn" : "notifyMsg");
  return ffi::conn_notify(*conn, *notifyMsg);
}

void flagcxP2pNotifyAppend(const FlagcxP2pNotifyMsg &msg) {
  ffi::append_notification(msg);
}
