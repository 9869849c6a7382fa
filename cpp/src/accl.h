// SPDX-License-Identifier: Apache-2.0
//
// FlagCX's other transport, ACCL, is reached by the same public functions: a handle that it made starts with its own
// tag, and the call is forwarded. Only builds with USE_ACCL_BAREX have it.
#ifndef FLAGCX_P2P_FACADE_ACCL_H_
#define FLAGCX_P2P_FACADE_ACCL_H_

#ifdef USE_ACCL_BAREX
#include "flagcx_p2p_accl.h"
// Returns what `call` returns if ACCL made `handle`.
#define FORWARD_TO_ACCL(handle, call) \
  do {                                \
    if (flagcxP2pIsAccl(handle))      \
      return call;                    \
  } while (0)
// Refuses `call`, which ACCL has nothing like, if it made `handle`.
#define REFUSE_ACCL(handle, call)                                                         \
  do {                                                                                    \
    if (flagcxP2pIsAccl(handle))                                                          \
      return flagcx::p2p::refuse(call, "ACCL has made this handle: it has no such call"); \
  } while (0)
#else
#define REFUSE_ACCL(handle, call) \
  do {                            \
  } while (0)
#define FORWARD_TO_ACCL(handle, call) \
  do {                                \
  } while (0)
#endif

#endif // FLAGCX_P2P_FACADE_ACCL_H_
