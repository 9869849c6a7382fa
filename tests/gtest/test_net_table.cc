// SPDX-License-Identifier: Apache-2.0
//
// The net adaptor's table as such: its members, its devices, and invalid arguments.
#include <climits>
#include <cstdlib>

#include <sys/stat.h>

#include "net_support.h"

using namespace support;

namespace {

flagcxNetAdaptor_latest &net = flagcxNetIbP2p;

TEST(NetTable, HasEveryMember) {
  EXPECT_STREQ(net.name, "IB_P2P");
  const auto *members = reinterpret_cast<void *const *>(&net);
  for (size_t i = 0; i < sizeof(net) / sizeof(void *); ++i) EXPECT_NE(members[i], nullptr) << "member " << i;
}

TEST(NetTable, IsData) {
  const auto original = net.iputBatch;
  net.iputBatch = nullptr;
  EXPECT_EQ(flagcxNetIbP2p.iputBatch, nullptr);
  net.iputBatch = original;
}

TEST(NetTable, TwoSidedMembersAreNotOffered) {
  EXPECT_EQ(net.isend(nullptr, nullptr, 0, 0, nullptr, nullptr, nullptr), flagcxInternalError);
  EXPECT_NE(strstr(flagcxP2pEngineLastError(), "isend"), nullptr) << flagcxP2pEngineLastError();
  EXPECT_EQ(net.irecv(nullptr, 0, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr), flagcxInternalError);
  EXPECT_EQ(net.iflush(nullptr, 0, nullptr, nullptr, nullptr, nullptr), flagcxInternalError);
  EXPECT_EQ(net.iputSignal(nullptr, 0, 0, 0, 0, 0, nullptr, nullptr, 0, nullptr, 0, nullptr), flagcxInternalError);
}

TEST(NetTable, ClosingNothingSucceeds) {
  EXPECT_EQ(net.closeSend(nullptr), flagcxSuccess);
  EXPECT_EQ(net.closeRecv(nullptr), flagcxSuccess);
  EXPECT_EQ(net.closeListen(nullptr), flagcxSuccess);
  EXPECT_EQ(flagcxNetIbP2pAbortListen(nullptr), flagcxSuccess);
}

TEST(NetTable, NoRequestIsDone) {
  int done = 0, size = -1;
  EXPECT_EQ(net.test(nullptr, &done, &size), flagcxSuccess);
  EXPECT_EQ(done, 1);
  EXPECT_EQ(size, 0);
  done = 0;
  EXPECT_EQ(net.test(nullptr, &done, nullptr), flagcxSuccess);
  EXPECT_EQ(done, 1);
  EXPECT_EQ(net.test(nullptr, nullptr, nullptr), flagcxInvalidArgument);
}

TEST(NetTable, AnythingThatWasNeverARequestIsDone) {
  for (uintptr_t number : {uintptr_t{1}, uintptr_t{2}, uintptr_t{0x7fff12345678}, UINTPTR_MAX}) {
    int done = 0, size = -1;
    EXPECT_EQ(net.test(reinterpret_cast<void *>(number), &done, &size), flagcxSuccess);
    EXPECT_EQ(done, 1);
    EXPECT_EQ(size, 0);
  }
}

TEST(NetTable, BatchesOfNoRequestsAreDone) {
  void *requests[3] = {};
  int flags[3] = {}, count = -1;
  EXPECT_EQ(net.testBatch(requests, 3, flags, &count), flagcxSuccess);
  EXPECT_EQ(count, 3);
  for (int flag : flags) EXPECT_EQ(flag, 1);
  count = -1;
  EXPECT_EQ(net.testBatch(nullptr, 0, nullptr, &count), flagcxSuccess);
  EXPECT_EQ(count, 0);
  EXPECT_EQ(net.testBatch(nullptr, 1, flags, &count), flagcxInvalidArgument);
  EXPECT_EQ(net.testBatch(requests, 1, nullptr, &count), flagcxInvalidArgument);
  EXPECT_EQ(net.testBatch(requests, -1, flags, &count), flagcxInvalidArgument);
  EXPECT_EQ(net.testBatch(requests, 1, flags, nullptr), flagcxInvalidArgument);
}

// First of the device tests: nothing in this program has called init before it.
TEST(NetDevices, AreUnknownBeforeInit) {
  int count = 7;
  EXPECT_EQ(net.devices(&count), flagcxSuccess);
  EXPECT_EQ(count, -1);
  flagcxNetProperties_t properties;
  EXPECT_EQ(net.getProperties(0, &properties), flagcxInternalError);
}

TEST(NetDevices, InitMayBeRepeated) {
  int first = -1, second = -1;
  ASSERT_EQ(net.init(), flagcxSuccess) << flagcxP2pEngineLastError();
  EXPECT_EQ(net.devices(&first), flagcxSuccess);
  EXPECT_GT(first, 0);
  EXPECT_EQ(net.init(), flagcxSuccess);
  EXPECT_EQ(net.devices(&second), flagcxSuccess);
  EXPECT_EQ(first, second);
  EXPECT_EQ(net.devices(nullptr), flagcxInvalidArgument);
}

TEST(NetDevices, HaveProperties) {
  ASSERT_EQ(net.init(), flagcxSuccess);
  int count = 0;
  ASSERT_EQ(net.devices(&count), flagcxSuccess);
  for (int dev = 0; dev < count; ++dev) {
    flagcxNetProperties_t properties;
    memset(&properties, 0xee, sizeof(properties));
    ASSERT_EQ(net.getProperties(dev, &properties), flagcxSuccess);
    ASSERT_NE(properties.name, nullptr);
    EXPECT_GT(strlen(properties.name), 0u);
    EXPECT_NE(properties.guid, 0u);
    EXPECT_GT(properties.speed, 0);
    EXPECT_GE(properties.port, 1);
    EXPECT_GT(properties.maxComms, 0);
    EXPECT_EQ(properties.maxRecvs, 8);
    EXPECT_EQ(properties.regIsGlobal, 1);
    EXPECT_EQ(properties.latency, 0);
    EXPECT_TRUE(properties.ptrSupport & FLAGCX_PTR_HOST);
    EXPECT_EQ(properties.netDeviceType, FLAGCX_NET_DEVICE_HOST);
    EXPECT_EQ(properties.netDeviceVersion, 0);
    struct stat status;
    if (properties.pciPath != nullptr) {
      EXPECT_EQ(stat(properties.pciPath, &status), 0) << properties.pciPath;
    }
    int found = -1;
    EXPECT_EQ(net.getDevFromName(properties.name, &found), flagcxSuccess);
    EXPECT_EQ(found, dev);
    if (strcmp(getenv("FLAGCX_P2P_FABRIC"), "software") == 0) {
      EXPECT_EQ(properties.speed, 10000);
      EXPECT_EQ(properties.ptrSupport, FLAGCX_PTR_HOST);
      ASSERT_NE(properties.pciPath, nullptr);
      EXPECT_EQ(std::string(properties.name), "sw" + std::to_string(dev));
    }
  }
}

TEST(NetDevices, ThatDoNotExistAreRefused) {
  ASSERT_EQ(net.init(), flagcxSuccess);
  int count = 0;
  ASSERT_EQ(net.devices(&count), flagcxSuccess);
  char handle[128] = {};
  for (int dev : {-1, count, INT_MAX, INT_MIN}) {
    flagcxNetProperties_t properties;
    EXPECT_EQ(net.getProperties(dev, &properties), flagcxInvalidArgument);
    void *comm = nullptr;
    EXPECT_EQ(net.listen(dev, handle, &comm), flagcxInvalidArgument);
    EXPECT_EQ(net.connect(dev, handle, &comm), flagcxInvalidArgument);
    EXPECT_EQ(comm, nullptr);
    char byte = 0;
    void *mhandle = nullptr;
    EXPECT_EQ(net.regMr(&dev, &byte, 1, FLAGCX_PTR_HOST, 0, &mhandle), flagcxInvalidArgument);
    EXPECT_EQ(mhandle, nullptr);
  }
  EXPECT_EQ(net.getProperties(0, nullptr), flagcxInvalidArgument);
}

TEST(NetDevices, AreFoundByTheirWholeName) {
  ASSERT_EQ(net.init(), flagcxSuccess);
  flagcxNetProperties_t properties;
  ASSERT_EQ(net.getProperties(0, &properties), flagcxSuccess);
  const std::string name = properties.name;
  int dev = 41;
  for (std::string other :
       {name.substr(0, name.size() - 1), name + "0", std::string(), std::string("no_such_device")})
    EXPECT_EQ(net.getDevFromName(&other[0], &dev), flagcxInternalError) << other;
  EXPECT_EQ(dev, 41);
  EXPECT_EQ(net.getDevFromName(nullptr, &dev), flagcxInvalidArgument);
  EXPECT_EQ(net.getDevFromName(properties.name, nullptr), flagcxInvalidArgument);
}

} // namespace
