// SPDX-License-Identifier: Apache-2.0
//
// Engines and connections.
#include "accl.h"
#include "facade.h"

using namespace flagcx::p2p;

FlagcxP2pEngine *flagcxP2pEngineCreate() {
  startLogging();
  startGpu();
  if (ffi::accl_wanted()) {
#ifdef USE_ACCL_BAREX
    return flagcxAcclEngineCreate();
#else
    ffi::refuse_call("flagcxP2pEngineCreate",
                     "FLAGCX_P2P_TRANSPORT=accl, but this library was built without "
                     "USE_ACCL_BAREX; unset the variable to use this engine");
    return nullptr;
#endif
  }
  return ffi::engine_create();
}

void flagcxP2pEngineDestroy(FlagcxP2pEngine *engine) {
  FORWARD_TO_ACCL(engine, flagcxAcclEngineDestroy(engine));
  if (engine != nullptr)
    ffi::engine_destroy(engine);
}

void flagcxP2pEngineStopAccept(FlagcxP2pEngine *engine) {
  FORWARD_TO_ACCL(engine, flagcxAcclEngineStopAccept(engine));
  if (engine != nullptr)
    ffi::engine_stop_accept(*engine);
}

FlagcxP2pConn *flagcxP2pEngineConnect(FlagcxP2pEngine *engine, const char *ipAddr, int remoteGpuIdx, int remotePort,
                                      bool sameProcess) {
  FORWARD_TO_ACCL(engine, flagcxAcclEngineConnect(engine, ipAddr, remoteGpuIdx, remotePort, sameProcess));
  if (engine == nullptr || ipAddr == nullptr) {
    refuseNull("flagcxP2pEngineConnect", engine == nullptr ? "engine" : "ipAddr");
    return nullptr;
  }
  return ffi::engine_connect(*engine, text(ipAddr), remoteGpuIdx, remotePort, sameProcess);
}

FlagcxP2pConn *flagcxP2pEngineAccept(FlagcxP2pEngine *engine, char *ipAddrBuf, size_t ipAddrBufLen,
                                     int *remoteGpuIdx) {
  FORWARD_TO_ACCL(engine, flagcxAcclEngineAccept(engine, ipAddrBuf, ipAddrBufLen, remoteGpuIdx));
  if (engine == nullptr || ipAddrBuf == nullptr || remoteGpuIdx == nullptr) {
    refuseNull("flagcxP2pEngineAccept", engine == nullptr      ? "engine"
                                        : ipAddrBuf == nullptr ? "ipAddrBuf"
                                                               : "remoteGpuIdx");
    return nullptr;
  }
  rust::String address;
  int32_t gpu = 0;
  FlagcxP2pConn *conn = ffi::engine_accept(*engine, address, gpu);
  if (conn != nullptr) {
    copyText(address, ipAddrBuf, ipAddrBufLen);
    *remoteGpuIdx = gpu;
  }
  return conn;
}

int flagcxP2pEngineStartListener(FlagcxP2pConn *) {
  return 0;
}

void flagcxP2pEngineConnDestroy(FlagcxP2pConn *conn) {
  FORWARD_TO_ACCL(conn, flagcxAcclEngineConnDestroy(conn));
  if (conn != nullptr)
    ffi::conn_destroy(conn);
}

bool flagcxP2pEngineConnIsLocal(FlagcxP2pConn *conn) {
  FORWARD_TO_ACCL(conn, flagcxAcclEngineConnIsLocal(conn));
  return conn != nullptr && ffi::conn_is_local(*conn);
}

int flagcxP2pEngineGetRpcPort(FlagcxP2pEngine *engine) {
  FORWARD_TO_ACCL(engine, flagcxAcclEngineGetRpcPort(engine));
  if (engine == nullptr)
    return refuseNull("flagcxP2pEngineGetRpcPort", "engine");
  return ffi::engine_rpc_port(*engine);
}

int flagcxP2pEngineStartRpcServer(FlagcxP2pEngine *engine) {
  FORWARD_TO_ACCL(engine, flagcxAcclEngineStartRpcServer(engine));
  if (engine == nullptr)
    return refuseNull("flagcxP2pEngineStartRpcServer", "engine");
  return ffi::engine_start_rpc_server(*engine);
}

FlagcxP2pConn *flagcxP2pEngineGetConn(FlagcxP2pEngine *engine, const char *session) {
  FORWARD_TO_ACCL(engine, flagcxAcclEngineGetConn(engine, session));
  if (engine == nullptr || session == nullptr) {
    refuseNull("flagcxP2pEngineGetConn", engine == nullptr ? "engine" : "session");
    return nullptr;
  }
  return ffi::engine_session(*engine, text(session));
}

int flagcxP2pEngineGetMetadata(FlagcxP2pEngine *engine, char **metadataStr) {
  FORWARD_TO_ACCL(engine, flagcxAcclEngineGetMetadata(engine, metadataStr));
  if (engine == nullptr || metadataStr == nullptr)
    return refuseNull("flagcxP2pEngineGetMetadata", engine == nullptr ? "engine" : "metadataStr");
  rust::String metadata;
  if (ffi::engine_metadata(*engine, metadata) != 0)
    return -1;
  // The caller frees it with delete[].
  *metadataStr = new char[metadata.size() + 1];
  copyText(metadata, *metadataStr, metadata.size() + 1);
  return 0;
}
