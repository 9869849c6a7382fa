// SPDX-License-Identifier: Apache-2.0
//
// No libibverbs: the adaptor table cannot be initialised, as with the original engine, while an engine falls back to
// software.
#include <cstdlib>

#include "net_support.h"

namespace {

TEST(NetWithoutLibibverbs, InitFailsEachTimeAndEnginesWork) {
  setenv("FLAGCX_P2P_FABRIC", "auto", 1);
  setenv("FLAGCX_P2P_IBVERBS", "/nonexistent/libibverbs.so.1", 1);
  for (int attempt = 0; attempt < 3; ++attempt) {
    EXPECT_EQ(flagcxNetIbP2p.init(), flagcxInternalError);
    EXPECT_NE(strstr(flagcxP2pEngineLastError(), "/nonexistent/libibverbs.so.1"), nullptr)
        << flagcxP2pEngineLastError();
  }
  int count = 7;
  EXPECT_EQ(flagcxNetIbP2p.devices(&count), flagcxSuccess);
  EXPECT_EQ(count, -1);
  EXPECT_TRUE(support::createEngine()) << flagcxP2pEngineLastError();
}

} // namespace
