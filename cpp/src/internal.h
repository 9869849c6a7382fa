// SPDX-License-Identifier: Apache-2.0
//
// Exported functions that no public header declares: other sources of FlagCX declare them by themselves.
#ifndef FLAGCX_P2P_FACADE_INTERNAL_H_
#define FLAGCX_P2P_FACADE_INTERNAL_H_

#include "flagcx_p2p.h"

// flagcxP2pEngineReg with a hint on the kind of memory: FlagCX's FLAGCX_PTR_HOST (1) or FLAGCX_PTR_CUDA (2), which
// are the values of FLAGCX_P2P_REG_HOST and FLAGCX_P2P_REG_DEVICE; 0 queries the GPU runtime.
int flagcxP2pEngineRegEx(FlagcxP2pEngine *engine, uintptr_t data, size_t size, int hintType, FlagcxP2pMr &mrId);

// Adds a message to those that flagcxP2pEngineGetNotifs takes. For FlagCX's other transport.
void flagcxP2pNotifyAppend(const FlagcxP2pNotifyMsg &msg);

#endif // FLAGCX_P2P_FACADE_INTERNAL_H_
