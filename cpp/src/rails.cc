// SPDX-License-Identifier: Apache-2.0
//
// flagcx_p2p_rails.h.
#include "flagcx_p2p_rails.h"

#include <algorithm>
#include <cstring>

#include "accl.h"
#include "facade.h"

using namespace flagcx::p2p;

namespace {

// The two sides number states and reasons alike.
template <typename T>
constexpr uint32_t number(T value) {
  return static_cast<uint32_t>(value);
}
static_assert(number(ffi::RailState::Up) == FLAGCX_P2P_RAIL_UP, "");
static_assert(number(ffi::RailState::Paused) == FLAGCX_P2P_RAIL_PAUSED, "");
static_assert(number(ffi::RailState::Down) == FLAGCX_P2P_RAIL_DOWN, "");
static_assert(number(ffi::RailPause::Never) == FLAGCX_P2P_RAIL_NEVER_PAUSED, "");
static_assert(number(ffi::RailPause::Silent) == FLAGCX_P2P_RAIL_SILENT, "");
static_assert(number(ffi::RailPause::Errors) == FLAGCX_P2P_RAIL_ERRORS, "");
static_assert(number(ffi::RailPause::PortDown) == FLAGCX_P2P_RAIL_PORT_DOWN, "");
static_assert(number(ffi::RailPause::DeviceLost) == FLAGCX_P2P_RAIL_DEVICE_LOST, "");

FlagcxP2pRailInfo toC(const ffi::RailInfo &from) {
  FlagcxP2pRailInfo to = {};
  to.rail = from.rail;
  to.state = number(from.state);
  to.pausedMs = from.paused_ms;
  to.lanes = from.lanes;
  to.healthyLanes = from.healthy_lanes;
  to.lastPause = number(from.last_pause);
  to.lastPauseMs = from.last_pause_ms;
  to.pauses = from.pauses;
  to.writtenBytes = from.written_bytes;
  to.readBytes = from.read_bytes;
  to.inFlightBytes = from.in_flight_bytes;
  to.bytesPerSecond = from.bytes_per_second;
  to.movedParts = from.moved_parts;
  to.latencyNs = from.latency_ns;
  copyText(from.nic, to.nic, sizeof(to.nic));
  copyText(from.peer_nic, to.peerNic, sizeof(to.peerNic));
  return to;
}

} // namespace

extern "C" {

int flagcxP2pEngineGetRails(FlagcxP2pConn *conn, FlagcxP2pRailInfo *out, size_t capacity, size_t *count) {
  const char *const call = "flagcxP2pEngineGetRails";
  if (conn == nullptr || count == nullptr || (out == nullptr && capacity > 0))
    return refuseNull(call, conn == nullptr ? "conn" : count == nullptr ? "count" : "out");
  REFUSE_ACCL(conn, call);
  if (ffi::conn_here(*conn, call) != 0)
    return -1;
  const size_t stride = capacity > 0 ? out->size : 0;
  if (capacity > 0 && stride < sizeof(out->size))
    return refuse(call, "the size of the first struct is not set");
  const rust::Vec<ffi::RailInfo> rails = ffi::conn_rails(*conn);
  *count = rails.size();
  char *place = reinterpret_cast<char *>(out);
  for (size_t index = 0; index < std::min<size_t>(capacity, rails.size()); index++, place += stride) {
    FlagcxP2pRailInfo full = toC(rails[index]);
    full.size = static_cast<uint32_t>(std::min(stride, sizeof(full)));
    std::memcpy(place, &full, full.size);
  }
  return 0;
}

} // extern "C"
