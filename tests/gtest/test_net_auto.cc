// SPDX-License-Identifier: Apache-2.0
//
// FLAGCX_P2P_FABRIC=auto on a machine without RDMA: programs that look for devices find none, and no software device
// in its place. Without libibverbs (test_net_no_library.cc) there is nothing to look with, and init fails.
#include <cstdlib>
#include <filesystem>

#include "net_support.h"

namespace {

TEST(NetAuto, CountsRdmaDevicesOnly) {
  setenv("FLAGCX_P2P_FABRIC", "auto", 1);
  const flagcxResult_t answer = flagcxNetIbP2p.init();
  if (answer == flagcxInternalError && strstr(flagcxP2pEngineLastError(), "libibverbs"))
    GTEST_SKIP() << flagcxP2pEngineLastError();
  ASSERT_EQ(answer, flagcxSuccess) << flagcxP2pEngineLastError();
  int count = -1;
  ASSERT_EQ(flagcxNetIbP2p.devices(&count), flagcxSuccess);
  const char *const folder = "/sys/class/infiniband";
  if (std::filesystem::exists(folder) && !std::filesystem::is_empty(folder)) {
    for (int dev = 0; dev < count; ++dev) {
      flagcxNetProperties_t properties;
      ASSERT_EQ(flagcxNetIbP2p.getProperties(dev, &properties), flagcxSuccess);
      EXPECT_TRUE(std::filesystem::exists(std::string(folder) + "/" + properties.name)) << properties.name;
    }
    return;
  }
  EXPECT_EQ(count, 0);
  char handle[128] = {};
  void *comm = nullptr;
  EXPECT_EQ(flagcxNetIbP2p.listen(0, handle, &comm), flagcxInvalidArgument);
  EXPECT_EQ(comm, nullptr);
}

} // namespace
