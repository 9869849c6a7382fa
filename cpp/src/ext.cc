// SPDX-License-Identifier: Apache-2.0
//
// flagcx_p2p_ext.h.
#include "flagcx_p2p_ext.h"

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <new>
#include <string>

#include "accl.h"
#include "facade.h"
#include "internal.h"

using namespace flagcx::p2p;

namespace {

// The two sides number the states and paths alike.
template <typename T>
constexpr uint32_t number(T value) {
  return static_cast<uint32_t>(value);
}
static_assert(number(ffi::XferState::Pending) == FLAGCX_P2P_XFER_PENDING, "");
static_assert(number(ffi::XferState::Done) == FLAGCX_P2P_XFER_DONE, "");
static_assert(number(ffi::XferState::Failed) == FLAGCX_P2P_XFER_FAILED, "");
static_assert(number(ffi::XferState::TimedOut) == FLAGCX_P2P_XFER_TIMED_OUT, "");
static_assert(number(ffi::XferState::Cancelled) == FLAGCX_P2P_XFER_CANCELLED, "");
static_assert(number(ffi::XferState::Unknown) == FLAGCX_P2P_XFER_UNKNOWN, "");
static_assert(number(ffi::Path::None) == FLAGCX_P2P_PATH_NONE, "");
static_assert(number(ffi::Path::Rdma) == FLAGCX_P2P_PATH_RDMA, "");
static_assert(number(ffi::Path::InProcess) == FLAGCX_P2P_PATH_IN_PROCESS, "");
static_assert(number(ffi::Path::CrossMemory) == FLAGCX_P2P_PATH_CROSS_MEMORY, "");
static_assert(number(ffi::Path::Tcp) == FLAGCX_P2P_PATH_TCP, "");
static_assert(number(ffi::Path::Shared) == FLAGCX_P2P_PATH_SHARED, "");

// Copies as much of `full` as the caller's version of the struct holds, and writes that number to its `size`.
template <typename T>
int copyOut(const char *call, const T &full, T *out) {
  if (out->size < sizeof(out->size))
    return refuse(call, "the struct's size is not set");
  const auto size = static_cast<uint32_t>(std::min<size_t>(out->size, sizeof(T)));
  std::memcpy(static_cast<void *>(out), &full, size);
  out->size = size;
  return 0;
}

FlagcxP2pXferResult toC(const ffi::XferResult &from) {
  FlagcxP2pXferResult to = {};
  to.state = number(from.state);
  to.iov = from.iov;
  to.status = from.status;
  to.vendorError = from.vendor_error;
  copyText(from.peer, to.peer, sizeof(to.peer));
  copyText(from.reason, to.reason, sizeof(to.reason));
  return to;
}

// Of a transfer that the call which started it has done: its id is 0.
constexpr FlagcxP2pXferResult kCompleted = {0, FLAGCX_P2P_XFER_DONE, 0, 0, 0, {}, {}};

int tryStart(const char *call, ffi::Operation operation, FlagcxP2pConn *conn, const uint64_t *mrIds,
             void *const *local, const size_t *sizes, const FlagcxP2pRdmaDesc *descs, size_t count,
             uint64_t *transferId) {
  if (conn == nullptr || transferId == nullptr)
    return refuseNull(call, conn == nullptr ? "conn" : "transferId");
  if (const char *const array = firstNullArray(mrIds, local, sizes, descs))
    return refuseNull(call, array);
  REFUSE_ACCL(conn, call);
  if (count > INT_MAX)
    return refuseCount(call, count);
  const ffi::Pieces pieces{mrIds, addresses(local), sizes, descs, nullptr, count, count, count, count, 0};
  return ffi::conn_try_start(*conn, operation, pieces, *transferId);
}

int tryStartRanges(const char *call, ffi::Operation operation, FlagcxP2pConn *conn, const uint64_t *mrIds,
                   void *const *local, const size_t *sizes, const uint64_t *remote, size_t count,
                   uint64_t *transferId) {
  if (conn == nullptr || mrIds == nullptr || local == nullptr || sizes == nullptr || remote == nullptr ||
      transferId == nullptr)
    return refuseNull(call, conn == nullptr     ? "conn"
                            : mrIds == nullptr  ? "mrIds"
                            : local == nullptr  ? "the array of local addresses"
                            : sizes == nullptr  ? "sizes"
                            : remote == nullptr ? "remoteAddresses"
                                                : "transferId");
  REFUSE_ACCL(conn, call);
  if (count > INT_MAX)
    return refuseCount(call, count);
  const ffi::Pieces pieces{mrIds, addresses(local), sizes, nullptr, nullptr, count, count, count, 0, 0};
  return ffi::conn_try_start_ranges(*conn, operation, pieces, slice(remote, count), *transferId);
}

} // namespace

extern "C" {

const char *flagcxP2pEngineLastError(void) {
  thread_local std::string text;
  const rust::String last = ffi::last_error();
  text.assign(last.data(), last.size());
  return text.c_str();
}

const char *flagcxP2pVersion(void) {
  static const std::string version(ffi::version());
  return version.c_str();
}

int flagcxP2pGetFabricInfo(FlagcxP2pFabricInfo *out) {
  const char *const call = "flagcxP2pGetFabricInfo";
  startLogging();
  if (out == nullptr)
    return refuseNull(call, "out");
  ffi::FabricInfo info;
  if (ffi::fabric_info(info) != 0)
    return -1;
  FlagcxP2pFabricInfo full = {};
  full.devices = info.devices;
  copyText(info.provider, full.provider, sizeof(full.provider));
  copyText(info.reason, full.reason, sizeof(full.reason));
  return copyOut(call, full, out);
}

int flagcxP2pEngineXferResult(FlagcxP2pConn *conn, uint64_t transferId, FlagcxP2pXferResult *out) {
  const char *const call = "flagcxP2pEngineXferResult";
  if (conn == nullptr || out == nullptr)
    return refuseNull(call, conn == nullptr ? "conn" : "out");
  REFUSE_ACCL(conn, call);
  if (!ffi::conn_is_here(*conn))
    return ffi::conn_here(*conn, call);
  if (transferId == 0)
    return copyOut(call, kCompleted, out);
  return copyOut(call, toC(ffi::conn_result(*conn, transferId)), out);
}

int flagcxP2pEngineXferWait(FlagcxP2pConn *conn, uint64_t transferId, int timeoutMs, FlagcxP2pXferResult *out) {
  const char *const call = "flagcxP2pEngineXferWait";
  if (conn == nullptr)
    return refuseNull(call, "conn");
  REFUSE_ACCL(conn, call);
  if (!ffi::conn_is_here(*conn))
    return ffi::conn_here(*conn, call);
  if (transferId == 0)
    return out == nullptr ? 0 : copyOut(call, kCompleted, out);
  const ffi::XferResult result = ffi::conn_wait(*conn, transferId, timeoutMs);
  if (result.state == ffi::XferState::Pending)
    return 1;
  return out == nullptr ? 0 : copyOut(call, toC(result), out);
}

int flagcxP2pEngineXferCancel(FlagcxP2pConn *conn, uint64_t transferId) {
  const char *const call = "flagcxP2pEngineXferCancel";
  if (conn == nullptr)
    return refuseNull(call, "conn");
  REFUSE_ACCL(conn, call);
  return ffi::conn_cancel(*conn, transferId);
}

int flagcxP2pEngineTestBatch(FlagcxP2pConn *conn, const uint64_t *transferIds, size_t count, uint32_t *states,
                             size_t *ended) {
  const char *const call = "flagcxP2pEngineTestBatch";
  if (conn == nullptr || ended == nullptr)
    return refuseNull(call, conn == nullptr ? "conn" : "ended");
  if (count > 0 && (transferIds == nullptr || states == nullptr))
    return refuseNull(call, transferIds == nullptr ? "transferIds" : "states");
  REFUSE_ACCL(conn, call);
  if (count > INT_MAX)
    return refuseCount(call, count);
  if (ffi::conn_here(*conn, call) != 0)
    return -1;
  *ended = ffi::conn_test_batch(*conn, slice(transferIds, count), {states, count});
  return 0;
}

int flagcxP2pEngineTryReadVector(FlagcxP2pConn *conn, const uint64_t *mrIds, void *const *destinations,
                                 const size_t *sizes, const FlagcxP2pRdmaDesc *descs, size_t count,
                                 uint64_t *transferId) {
  return tryStart("flagcxP2pEngineTryReadVector", ffi::Operation::Read, conn, mrIds, destinations, sizes, descs,
                  count, transferId);
}

int flagcxP2pEngineTryWriteVector(FlagcxP2pConn *conn, const uint64_t *mrIds, void *const *sources,
                                  const size_t *sizes, const FlagcxP2pRdmaDesc *descs, size_t count,
                                  uint64_t *transferId) {
  return tryStart("flagcxP2pEngineTryWriteVector", ffi::Operation::Write, conn, mrIds, sources, sizes, descs, count,
                  transferId);
}

int flagcxP2pEngineTryReadRanges(FlagcxP2pConn *conn, const uint64_t *mrIds, void *const *destinations,
                                 const size_t *sizes, const uint64_t *remoteAddresses, size_t count,
                                 uint64_t *transferId) {
  return tryStartRanges("flagcxP2pEngineTryReadRanges", ffi::Operation::Read, conn, mrIds, destinations, sizes,
                        remoteAddresses, count, transferId);
}

int flagcxP2pEngineTryWriteRanges(FlagcxP2pConn *conn, const uint64_t *mrIds, void *const *sources,
                                  const size_t *sizes, const uint64_t *remoteAddresses, size_t count,
                                  uint64_t *transferId) {
  return tryStartRanges("flagcxP2pEngineTryWriteRanges", ffi::Operation::Write, conn, mrIds, sources, sizes,
                        remoteAddresses, count, transferId);
}

int flagcxP2pEngineGetConnInfo(FlagcxP2pConn *conn, FlagcxP2pConnInfo *out) {
  const char *const call = "flagcxP2pEngineGetConnInfo";
  if (conn == nullptr || out == nullptr)
    return refuseNull(call, conn == nullptr ? "conn" : "out");
  REFUSE_ACCL(conn, call);
  if (ffi::conn_here(*conn, call) != 0)
    return -1;
  const ffi::ConnInfo info = ffi::conn_info(*conn);
  FlagcxP2pConnInfo full = {};
  full.path = number(info.path);
  full.lanes = info.lanes;
  full.healthyLanes = info.healthy_lanes;
  full.gpuIndex = info.gpu_index;
  full.local = info.local;
  full.ours = info.ours;
  full.readPath = static_cast<uint8_t>(number(info.read_path));
  full.writePath = static_cast<uint8_t>(number(info.write_path));
  copyText(info.peer, full.peer, sizeof(full.peer));
  return copyOut(call, full, out);
}

int flagcxP2pEngineRegFlags(FlagcxP2pEngine *engine, uint64_t address, size_t bytes, uint32_t flags, uint64_t *mrId) {
  const char *const call = "flagcxP2pEngineRegFlags";
  if (mrId == nullptr)
    return refuseNull(call, "mrId");
  if (engine != nullptr && (flags & (FLAGCX_P2P_REG_UNANNOUNCED | FLAGCX_P2P_REG_READ_ONLY)) != 0)
    REFUSE_ACCL(engine, call);
  return flagcxP2pEngineRegEx(engine, address, bytes, static_cast<int>(flags), *mrId);
}

int flagcxP2pEngineAllocShared(FlagcxP2pEngine *engine, size_t bytes, uint32_t flags, void **address,
                               uint64_t *mrId) {
  const char *const call = "flagcxP2pEngineAllocShared";
  if (engine == nullptr || address == nullptr || mrId == nullptr)
    return refuseNull(call, engine == nullptr ? "engine" : address == nullptr ? "address" : "mrId");
  REFUSE_ACCL(engine, call);
  uintptr_t start = 0;
  const int answer = ffi::engine_allocate(*engine, bytes, flags, start, *mrId);
  if (answer == 0)
    *address = reinterpret_cast<void *>(start);
  return answer;
}

int flagcxP2pEngineFreeShared(FlagcxP2pEngine *engine, void *address) {
  const char *const call = "flagcxP2pEngineFreeShared";
  if (address == nullptr)
    return refuseNull(call, "address");
  const uintptr_t start = reinterpret_cast<uintptr_t>(address);
  if (engine == nullptr)
    return ffi::free_outlived(start);
  REFUSE_ACCL(engine, call);
  return ffi::engine_free(*engine, start);
}

int flagcxP2pEngineRegShared(FlagcxP2pEngine *engine, uintptr_t address, size_t bytes, int fd, uint64_t offset,
                             uint32_t flags, uint64_t *mrId) {
  const char *const call = "flagcxP2pEngineRegShared";
  if (engine == nullptr || address == 0 || mrId == nullptr)
    return refuseNull(call, engine == nullptr ? "engine" : address == 0 ? "address" : "mrId");
  REFUSE_ACCL(engine, call);
  return ffi::engine_register_shared(*engine, address, bytes, fd, offset, flags, *mrId);
}

int flagcxP2pEngineSendNotifBytes(FlagcxP2pConn *conn, const char *name, const void *content, size_t bytes) {
  const char *const call = "flagcxP2pEngineSendNotifBytes";
  if (conn == nullptr || name == nullptr || (content == nullptr && bytes > 0))
    return refuseNull(call, conn == nullptr ? "conn" : name == nullptr ? "name" : "content");
  REFUSE_ACCL(conn, call);
  return ffi::conn_notify_bytes(*conn, text(name), slice(static_cast<const uint8_t *>(content), bytes));
}

int flagcxP2pSetDeviceTable(const FlagcxP2pDeviceTable *table) {
  startLogging();
  return setGpuTable(table);
}

int flagcxP2pEngineGetNotifsOf(FlagcxP2pEngine *engine, FlagcxP2pNotifSink sink, void *context) {
  const char *const call = "flagcxP2pEngineGetNotifsOf";
  if (engine == nullptr || sink == nullptr)
    return refuseNull(call, engine == nullptr ? "engine" : "sink");
  REFUSE_ACCL(engine, call);
  if (ffi::engine_here(*engine, call) != 0)
    return -1;
  for (const ffi::AnyNotification &message : ffi::engine_take_notifications(*engine))
    sink(context, reinterpret_cast<const char *>(message.name.data()), message.content.data(),
         message.content.size());
  return 0;
}

int flagcxP2pEngineTakeNotifs(FlagcxP2pEngine *engine, void **block, size_t *bytes) {
  const char *const call = "flagcxP2pEngineTakeNotifs";
  if (engine == nullptr || block == nullptr || bytes == nullptr)
    return refuseNull(call, engine == nullptr ? "engine" : block == nullptr ? "block" : "bytes");
  REFUSE_ACCL(engine, call);
  std::string all;
  const auto append = [](void *context, const char *name, const void *content, size_t size) {
    const uint64_t length = size;
    std::string &to = *static_cast<std::string *>(context);
    to.append(name, FLAGCX_P2P_MSG_SIZE).append(reinterpret_cast<const char *>(&length), sizeof(length));
    to.append(static_cast<const char *>(content), size);
  };
  if (flagcxP2pEngineGetNotifsOf(engine, append, &all) != 0)
    return -1;
  void *copy = nullptr;
  if (!all.empty()) {
    copy = std::malloc(all.size());
    if (copy == nullptr)
      throw std::bad_alloc(); // as the string above: nothing of the process goes on without memory
    std::memcpy(copy, all.data(), all.size());
  }
  *block = copy;
  *bytes = all.size();
  return 0;
}

int flagcxP2pEngineGetSlowTransfers(FlagcxP2pEngine *engine, uint32_t olderThanMs, FlagcxP2pSlowTransfer *out,
                                    size_t capacity, size_t *count) {
  const char *const call = "flagcxP2pEngineGetSlowTransfers";
  if (engine == nullptr || count == nullptr || (out == nullptr && capacity > 0))
    return refuseNull(call, engine == nullptr ? "engine" : count == nullptr ? "count" : "out");
  REFUSE_ACCL(engine, call);
  if (ffi::engine_here(*engine, call) != 0)
    return -1;
  const size_t stride = capacity > 0 ? out->size : 0;
  if (capacity > 0 && stride < sizeof(out->size))
    return refuse(call, "the size of the first struct is not set");
  const rust::Vec<ffi::SlowTransfer> slow = ffi::engine_slow_transfers(*engine, olderThanMs);
  *count = slow.size();
  char *place = reinterpret_cast<char *>(out);
  for (size_t index = 0; index < std::min<size_t>(capacity, slow.size()); index++, place += stride) {
    const ffi::SlowTransfer &from = slow[index];
    FlagcxP2pSlowTransfer full = {};
    full.size = static_cast<uint32_t>(std::min(stride, sizeof(full)));
    full.isRead = from.is_read ? 1 : 0;
    full.transferId = from.id;
    full.bytes = from.bytes;
    full.ageMs = from.age_ms;
    full.pieces = from.pieces;
    full.piecesDone = from.pieces_done;
    full.lanes = static_cast<uint32_t>(from.lanes);
    full.moreLanes = static_cast<uint32_t>(from.lanes >> 32);
    copyText(from.path, full.path, sizeof(full.path));
    copyText(from.peer, full.peer, sizeof(full.peer));
    std::memcpy(place, &full, full.size);
  }
  return 0;
}

int flagcxP2pMetricsText(char *text, size_t capacity, size_t *needed) {
  startLogging();
  if (needed == nullptr || (text == nullptr && capacity > 0))
    return refuseNull("flagcxP2pMetricsText", needed == nullptr ? "needed" : "text");
  rust::String metrics;
  if (ffi::metrics_text(metrics) != 0)
    return -1;
  *needed = metrics.size() + 1;
  if (capacity < *needed)
    return 1;
  copyText(metrics, text, capacity);
  return 0;
}

} // extern "C"
