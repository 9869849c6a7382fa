// SPDX-License-Identifier: Apache-2.0
//
// Registered memory, descriptors, and GPU memory of the same host.
#include "accl.h"
#include "facade.h"
#include "internal.h"

using namespace flagcx::p2p;

namespace {

// The part of the 128 bytes of IPC information that narrows the range; the rest names the memory.
struct IpcRange {
  uint64_t baseAddress;
  uint64_t offset;
  uint64_t size;
};
constexpr size_t kIpcRangeOffset = 64; // after the GPU runtime's handle

} // namespace

int flagcxP2pEngineReg(FlagcxP2pEngine *engine, uintptr_t data, size_t size, FlagcxP2pMr &mrId) {
  return flagcxP2pEngineRegEx(engine, data, size, 0, mrId);
}

int flagcxP2pEngineRegEx(FlagcxP2pEngine *engine, uintptr_t data, size_t size, int hintType, FlagcxP2pMr &mrId) {
  FORWARD_TO_ACCL(engine, flagcxAcclEngineReg(engine, data, size, mrId));
  if (engine == nullptr || data == 0)
    return refuseNull("flagcxP2pEngineReg", engine == nullptr ? "engine" : "data");
  return ffi::engine_register(*engine, data, size, static_cast<uint32_t>(hintType), mrId);
}

void flagcxP2pEngineMrDestroy(FlagcxP2pEngine *engine, FlagcxP2pMr mr) {
  FORWARD_TO_ACCL(engine, flagcxAcclEngineMrDestroy(engine, mr));
  if (engine != nullptr)
    ffi::engine_deregister(*engine, mr);
}

int flagcxP2pEnginePrepareDesc(FlagcxP2pEngine *engine, FlagcxP2pMr mr, const void *data, size_t size,
                               char *descBuf) {
  FORWARD_TO_ACCL(engine, flagcxAcclEnginePrepareDesc(engine, mr, data, size, descBuf));
  if (engine == nullptr || data == nullptr || descBuf == nullptr)
    return refuseNull("flagcxP2pEnginePrepareDesc", engine == nullptr ? "engine"
                                                    : data == nullptr ? "data"
                                                                      : "descBuf");
  FlagcxP2pRdmaDesc desc;
  if (ffi::engine_describe(*engine, mr, reinterpret_cast<uintptr_t>(data), size, desc) != 0)
    return -1;
  flagcxP2pSerializeRdmaDesc(desc, descBuf);
  return 0;
}

int flagcxP2pEngineUpdateDesc(FlagcxP2pRdmaDesc &desc, uint64_t remoteAddr, uint32_t size) {
  // In this order no subtraction wraps, whatever the descriptor's fields are.
  const bool inside =
      remoteAddr >= desc.addr && size <= desc.size && remoteAddr - desc.addr <= uint64_t(desc.size - size);
  if (!inside) {
    startLogging();
    ffi::refuse_call("flagcxP2pEngineUpdateDesc", "the range is not inside the descriptor's");
    return -1;
  }
  desc.addr = remoteAddr;
  desc.size = size;
  return 0;
}

int flagcxP2pEngineMakeDesc(FlagcxP2pConn *conn, uint64_t remoteVa, uint32_t size, FlagcxP2pRdmaDesc *desc) {
  FORWARD_TO_ACCL(conn, flagcxAcclEngineMakeDesc(conn, remoteVa, size, desc));
  if (conn == nullptr || desc == nullptr)
    return refuseNull("flagcxP2pEngineMakeDesc", conn == nullptr ? "conn" : "desc");
  return ffi::conn_describe_remote(*conn, remoteVa, size, *desc);
}

int flagcxP2pEngineGetIpcInfo(FlagcxP2pEngine *engine, uintptr_t addr, char *ipcBuf, bool *hasIpc) {
  FORWARD_TO_ACCL(engine, flagcxAcclEngineGetIpcInfo(engine, addr, ipcBuf, hasIpc));
  (void)engine; // any engine of the process may hold the region
  if (ipcBuf == nullptr || hasIpc == nullptr)
    return refuseNull("flagcxP2pEngineGetIpcInfo", ipcBuf == nullptr ? "ipcBuf" : "hasIpc");
  std::array<uint8_t, FLAGCX_P2P_IPC_INFO_SIZE> info;
  const int answer = ffi::ipc_info(addr, info, *hasIpc);
  if (*hasIpc)
    std::memcpy(ipcBuf, info.data(), info.size());
  return answer;
}

int flagcxP2pEngineUpdateIpcInfo(char *ipcBuf, uintptr_t addr, uintptr_t baseAddr, size_t size) {
  if (ipcBuf == nullptr)
    return refuseNull("flagcxP2pEngineUpdateIpcInfo", "ipcBuf");
  IpcRange range;
  std::memcpy(&range, ipcBuf + kIpcRangeOffset, sizeof(range));
  if (addr < baseAddr || range.offset + (addr - baseAddr) < range.offset) {
    startLogging();
    ffi::refuse_call("flagcxP2pEngineUpdateIpcInfo", "addr lies before baseAddr, or the offset is out of range");
    return -1;
  }
  range.offset += addr - baseAddr;
  range.size = size;
  std::memcpy(ipcBuf + kIpcRangeOffset, &range, sizeof(range));
  return 0;
}
