// SPDX-License-Identifier: Apache-2.0
//
// FLAGCX_IB_DISABLE=1: init fails, at each call.
#include <cstdlib>

#include "net_support.h"

namespace {

TEST(NetDisabled, InitFailsEachTime) {
  setenv("FLAGCX_P2P_FABRIC", "auto", 1);
  setenv("FLAGCX_IB_DISABLE", "1", 1);
  for (int attempt = 0; attempt < 3; ++attempt) {
    EXPECT_EQ(flagcxNetIbP2p.init(), flagcxInternalError);
    EXPECT_NE(strstr(flagcxP2pEngineLastError(), "FLAGCX_IB_DISABLE"), nullptr) << flagcxP2pEngineLastError();
  }
  int count = 7;
  EXPECT_EQ(flagcxNetIbP2p.devices(&count), flagcxSuccess);
  EXPECT_EQ(count, -1);
}

} // namespace
