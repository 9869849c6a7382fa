// How a transfer ended, for a program that is built against FlagCX's own headers and may run over a libflagcx.so without
// flagcx_p2p_ext.h: the symbol is weak, and where it is missing there is only flagcxP2pEngineXferStatus to ask.
#pragma once

#include "flagcx_p2p.h"

#ifndef FLAGCX_P2P_EXT_H_ // a program that has that header includes it before this
struct FlagcxP2pXferResult {
  uint32_t size, state;
  uint64_t iov;
  uint32_t status, vendorError;
  char peer[64], reason[168];
};
#endif
extern "C" __attribute__((weak)) int flagcxP2pEngineXferResult(FlagcxP2pConn *, uint64_t, FlagcxP2pXferResult *);

enum class Transfer { Pending, Done, Failed };

inline Transfer howItEnded(FlagcxP2pConn *conn, uint64_t id) {
  FlagcxP2pXferResult result{};
  result.size = sizeof(result);
  // Refused for a connection of another transport (ACCL).
  if (flagcxP2pEngineXferResult == nullptr || flagcxP2pEngineXferResult(conn, id, &result) != 0)
    return flagcxP2pEngineXferStatus(conn, id) ? Transfer::Done : Transfer::Pending;
  return result.state == 0 ? Transfer::Pending : result.state == 1 ? Transfer::Done : Transfer::Failed;
}
