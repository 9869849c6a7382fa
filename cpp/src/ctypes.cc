// SPDX-License-Identifier: Apache-2.0
//
// The `extern "C"` functions: plain types in, the C++ functions behind them.
#include "accl.h"
#include "facade.h"
#include "flagcx_p2p_ext.h"
#include "internal.h"

using namespace flagcx::p2p;

namespace {

int registerFor(const char *call, void *engine, uint64_t address, uint64_t size, int kind, uint64_t *mrIdOut) {
  if (mrIdOut == nullptr)
    return refuseNull(call, "mrIdOut");
  return flagcxP2pEngineRegEx(static_cast<FlagcxP2pEngine *>(engine), address, size, kind, *mrIdOut);
}

#ifdef USE_ACCL_BAREX
// The batch through ACCL's functions, which look local memory up by address.
int acclBatchWriteSync(FlagcxP2pConn *conn, size_t count, const uint64_t *srcVa, const uint64_t *dstVa,
                       const uint64_t *sizes) {
  std::vector<void *> sources;
  std::vector<FlagcxP2pRdmaDesc> descs(count);
  for (size_t i = 0; i < count; ++i) {
    sources.push_back(reinterpret_cast<void *>(srcVa[i]));
    if (sizes[i] > UINT32_MAX ||
        flagcxAcclEngineMakeDesc(conn, dstVa[i], static_cast<uint32_t>(sizes[i]), &descs[i]) != 0)
      return -1;
  }
  return flagcxAcclEngineWriteVectorSync(conn, std::vector<FlagcxP2pMr>(count), sources, {sizes, sizes + count},
                                         descs);
}
#endif

} // namespace

extern "C" {

void *flagcxP2pRpcEngineCreate(void) {
  return flagcxP2pEngineCreate();
}

void flagcxP2pRpcEngineDestroy(void *engine) {
  flagcxP2pEngineDestroy(static_cast<FlagcxP2pEngine *>(engine));
}

int flagcxP2pRpcGetPort(void *engine) {
  return flagcxP2pEngineGetRpcPort(static_cast<FlagcxP2pEngine *>(engine));
}

int flagcxP2pRpcStartServer(void *engine) {
  return flagcxP2pEngineStartRpcServer(static_cast<FlagcxP2pEngine *>(engine));
}

int flagcxP2pRpcRegister(void *engine, uint64_t addr, uint64_t size, uint64_t *mrIdOut) {
  return registerFor("flagcxP2pRpcRegister", engine, addr, size, 0, mrIdOut);
}

int flagcxP2pRpcRegisterHost(void *engine, uint64_t addr, uint64_t size, uint64_t *mrIdOut) {
  return registerFor("flagcxP2pRpcRegisterHost", engine, addr, size, FLAGCX_P2P_REG_HOST, mrIdOut);
}

void *flagcxP2pRpcGetConn(void *engine, const char *session) {
  return flagcxP2pEngineGetConn(static_cast<FlagcxP2pEngine *>(engine), session);
}

int flagcxP2pRpcBatchWriteSync(void *conn, int count, const uint64_t *srcVa, const uint64_t *dstVa,
                               const uint64_t *sizes) {
  const char *const call = "flagcxP2pRpcBatchWriteSync";
  if (conn == nullptr)
    return refuseNull(call, "conn");
  if (count < 0) {
    ffi::refuse_call(call, "count is negative");
    return -1;
  }
  if (count == 0)
    return 0;
  if (srcVa == nullptr || dstVa == nullptr || sizes == nullptr)
    return refuseNull(call, srcVa == nullptr ? "srcVa" : dstVa == nullptr ? "dstVa" : "sizes");
  FlagcxP2pConn *const connection = static_cast<FlagcxP2pConn *>(conn);
  const size_t pieces = static_cast<size_t>(count);
  FORWARD_TO_ACCL(connection, acclBatchWriteSync(connection, pieces, srcVa, dstVa, sizes));
  return ffi::conn_batch_write_sync(*connection, slice(srcVa, pieces), slice(dstVa, pieces), slice(sizes, pieces));
}

} // extern "C"
