// SPDX-License-Identifier: Apache-2.0
//
// flagcx_p2p.h in C form: plain types in, the C++ functions behind them. Calls with arrays go to the bridge directly, so
// that no vector is built for them.
#include <climits>
#include <memory>

#include "accl.h"
#include "facade.h"

using namespace flagcx::p2p;

namespace {

ffi::Pieces arrays(const uint64_t *mrIds, void *const *local, const size_t *sizes, const FlagcxP2pRdmaDesc *descs,
                   size_t count, char *const *ipcBufs) {
  return {mrIds,
          addresses(local),
          sizes,
          descs,
          addresses(ipcBufs),
          count,
          count,
          count,
          count,
          ipcBufs == nullptr ? 0 : count};
}

int startVector(const char *call, ffi::Operation operation, FlagcxP2pConn *conn, const uint64_t *mrIds,
                void *const *local, const size_t *sizes, const FlagcxP2pRdmaDesc *descs, size_t count,
                uint64_t *transferId, char *const *ipcBufs) {
  if (conn == nullptr || transferId == nullptr)
    return refuseNull(call, conn == nullptr ? "conn" : "transferId");
  if (const char *const array = firstNullArray(mrIds, local, sizes, descs))
    return refuseNull(call, array);
  REFUSE_ACCL(conn, call);
  if (count > INT_MAX)
    return refuseCount(call, count);
  return ffi::conn_start(*conn, operation, arrays(mrIds, local, sizes, descs, count, ipcBufs),
                         static_cast<int32_t>(count), *transferId);
}

} // namespace

extern "C" {

FlagcxP2pEngine *flagcxP2pCEngineCreate(void) {
  return flagcxP2pEngineCreate();
}

void flagcxP2pCEngineDestroy(FlagcxP2pEngine *engine) {
  flagcxP2pEngineDestroy(engine);
}

int flagcxP2pCEngineGetRpcPort(FlagcxP2pEngine *engine) {
  return flagcxP2pEngineGetRpcPort(engine);
}

int flagcxP2pCEngineGetMetadata(FlagcxP2pEngine *engine, char *text, size_t capacity, size_t *needed) {
  if (needed == nullptr || (text == nullptr && capacity > 0))
    return refuseNull("flagcxP2pCEngineGetMetadata", needed == nullptr ? "needed" : "text");
  char *metadata = nullptr;
  if (flagcxP2pEngineGetMetadata(engine, &metadata) != 0)
    return -1;
  const std::unique_ptr<char[]> owned(metadata);
  *needed = std::strlen(metadata) + 1;
  if (capacity < *needed)
    return 1;
  std::memcpy(text, metadata, *needed);
  return 0;
}

int flagcxP2pCEngineStartRpcServer(FlagcxP2pEngine *engine) {
  return flagcxP2pEngineStartRpcServer(engine);
}

void flagcxP2pCEngineStopAccept(FlagcxP2pEngine *engine) {
  flagcxP2pEngineStopAccept(engine);
}

FlagcxP2pConn *flagcxP2pCEngineConnect(FlagcxP2pEngine *engine, const char *ipAddr, int remoteGpuIdx, int remotePort,
                                       bool sameProcess) {
  return flagcxP2pEngineConnect(engine, ipAddr, remoteGpuIdx, remotePort, sameProcess);
}

FlagcxP2pConn *flagcxP2pCEngineAccept(FlagcxP2pEngine *engine, char *ipAddrBuf, size_t ipAddrBufLen,
                                      int *remoteGpuIdx) {
  return flagcxP2pEngineAccept(engine, ipAddrBuf, ipAddrBufLen, remoteGpuIdx);
}

FlagcxP2pConn *flagcxP2pCEngineGetConn(FlagcxP2pEngine *engine, const char *session) {
  return flagcxP2pEngineGetConn(engine, session);
}

void flagcxP2pCEngineConnDestroy(FlagcxP2pConn *conn) {
  flagcxP2pEngineConnDestroy(conn);
}

void flagcxP2pCEngineMrDestroy(FlagcxP2pEngine *engine, uint64_t mrId) {
  flagcxP2pEngineMrDestroy(engine, mrId);
}

int flagcxP2pCEnginePrepareDesc(FlagcxP2pEngine *engine, uint64_t mrId, const void *data, size_t bytes,
                                FlagcxP2pRdmaDesc *desc) {
  if (desc == nullptr)
    return refuseNull("flagcxP2pCEnginePrepareDesc", "desc");
  return flagcxP2pEnginePrepareDesc(engine, mrId, data, bytes, reinterpret_cast<char *>(desc));
}

int flagcxP2pCEngineMakeDesc(FlagcxP2pConn *conn, uint64_t remoteAddress, uint32_t bytes, FlagcxP2pRdmaDesc *desc) {
  return flagcxP2pEngineMakeDesc(conn, remoteAddress, bytes, desc);
}

int flagcxP2pCEngineUpdateDesc(FlagcxP2pRdmaDesc *desc, uint64_t remoteAddress, uint32_t bytes) {
  if (desc == nullptr)
    return refuseNull("flagcxP2pCEngineUpdateDesc", "desc");
  return flagcxP2pEngineUpdateDesc(*desc, remoteAddress, bytes);
}

int flagcxP2pCEngineRead(FlagcxP2pConn *conn, uint64_t mrId, void *data, size_t bytes, const FlagcxP2pRdmaDesc *desc,
                         uint64_t *transferId) {
  if (desc == nullptr)
    return refuseNull("flagcxP2pCEngineRead", "desc");
  return flagcxP2pEngineRead(conn, mrId, data, bytes, *desc, transferId);
}

int flagcxP2pCEngineWrite(FlagcxP2pConn *conn, uint64_t mrId, const void *data, size_t bytes,
                          const FlagcxP2pRdmaDesc *desc, uint64_t *transferId) {
  if (desc == nullptr)
    return refuseNull("flagcxP2pCEngineWrite", "desc");
  return flagcxP2pEngineWrite(conn, mrId, data, bytes, *desc, transferId);
}

int flagcxP2pCEngineReadVector(FlagcxP2pConn *conn, const uint64_t *mrIds, void *const *destinations,
                               const size_t *sizes, const FlagcxP2pRdmaDesc *descs, size_t count,
                               uint64_t *transferId, char *const *ipcBufs) {
  return startVector("flagcxP2pCEngineReadVector", ffi::Operation::Read, conn, mrIds, destinations, sizes, descs,
                     count, transferId, ipcBufs);
}

int flagcxP2pCEngineWriteVector(FlagcxP2pConn *conn, const uint64_t *mrIds, void *const *sources, const size_t *sizes,
                                const FlagcxP2pRdmaDesc *descs, size_t count, uint64_t *transferId,
                                char *const *ipcBufs) {
  return startVector("flagcxP2pCEngineWriteVector", ffi::Operation::Write, conn, mrIds, sources, sizes, descs, count,
                     transferId, ipcBufs);
}

int flagcxP2pCEngineWriteVectorSync(FlagcxP2pConn *conn, const uint64_t *mrIds, void *const *sources,
                                    const size_t *sizes, const FlagcxP2pRdmaDesc *descs, size_t count) {
  const char *const call = "flagcxP2pCEngineWriteVectorSync";
  if (conn == nullptr)
    return refuseNull(call, "conn");
  REFUSE_ACCL(conn, call);
  if (count == 0)
    return 0;
  if (count > INT_MAX)
    return refuseCount(call, count);
  if (const char *const array = firstNullArray(mrIds, sources, sizes, descs))
    return refuseNull(call, array);
  return ffi::conn_write_sync(*conn, arrays(mrIds, sources, sizes, descs, count, nullptr));
}

bool flagcxP2pCEngineXferStatus(FlagcxP2pConn *conn, uint64_t transferId) {
  return flagcxP2pEngineXferStatus(conn, transferId);
}

int flagcxP2pCEngineSendNotif(FlagcxP2pConn *conn, const FlagcxP2pNotifyMsg *notifyMsg) {
  // The message is only read: the C++ function has no const for the sake of its callers' sources.
  return flagcxP2pEngineSendNotif(conn, const_cast<FlagcxP2pNotifyMsg *>(notifyMsg));
}

int flagcxP2pCEngineGetIpcInfo(FlagcxP2pEngine *engine, uint64_t address, char *ipcBuf, bool *hasIpc) {
  return flagcxP2pEngineGetIpcInfo(engine, address, ipcBuf, hasIpc);
}

int flagcxP2pCEngineUpdateIpcInfo(char *ipcBuf, uint64_t addr, uint64_t baseAddr, size_t bytes) {
  return flagcxP2pEngineUpdateIpcInfo(ipcBuf, addr, baseAddr, bytes);
}

void flagcxP2pCDumpGlobalConfig(void) {
  flagcxP2pDumpGlobalConfig();
}

} // extern "C"
