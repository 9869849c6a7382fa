// SPDX-License-Identifier: Apache-2.0
//
// FlagCX's struct flagcxDeviceAdaptor: where its callbacks are, and how many of its bytes there are.
#ifndef FLAGCX_P2P_SRC_ADAPTOR_H_
#define FLAGCX_P2P_SRC_ADAPTOR_H_

#include <cstddef>

namespace flagcx::p2p {

// The callbacks that the engine uses, as they follow `size` and `reserved` in FlagcxP2pDeviceTable.
constexpr size_t kCallbacks = 24;
using Callbacks = void *[kCallbacks];

// Reads them out of the struct at `adaptor`. Those that its version does not have are NULL.
void readCallbacks(const char *adaptor, Callbacks &out);

} // namespace flagcx::p2p

#endif // FLAGCX_P2P_SRC_ADAPTOR_H_
