// SPDX-License-Identifier: Apache-2.0
//
// The lines of docs/consumers.md over a library that lacks flagcxP2pEngineXferResult: they ask what there is to ask.
#include "how_it_ended.h"

#include <cstddef>

// As flagcx_p2p_ext.h has it.
static_assert(sizeof(FlagcxP2pXferResult) == 256 && offsetof(FlagcxP2pXferResult, reason) == 88, "");

static bool ended;

bool flagcxP2pEngineXferStatus(FlagcxP2pConn *, uint64_t) {
  return ended;
}

int main() {
  const bool pending = howItEnded(nullptr, 1) == Transfer::Pending;
  ended = true;
  return pending && howItEnded(nullptr, 1) == Transfer::Done ? 0 : 1;
}
