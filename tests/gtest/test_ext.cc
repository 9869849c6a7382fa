// SPDX-License-Identifier: Apache-2.0
//
// flagcx_p2p_ext.h.
#include <sys/mman.h>

#include <cstdio>
#include <cstring>
#include <optional>
#include <thread>

#include "support.h"

using namespace support;
using namespace std::chrono_literals;

TEST(Ext, TheVersionHasThreeNumbers) {
  int major, minor, patch, length = 0;
  ASSERT_EQ(sscanf(flagcxP2pVersion(), "%d.%d.%d%n", &major, &minor, &patch, &length), 3) << flagcxP2pVersion();
  EXPECT_EQ(length, static_cast<int>(strlen(flagcxP2pVersion())));
}

TEST(Ext, TellsWhichFabricRuns) {
  FlagcxP2pFabricInfo info = {};
  info.size = sizeof(info);
  ASSERT_EQ(flagcxP2pGetFabricInfo(&info), 0) << flagcxP2pEngineLastError();
  EXPECT_EQ(info.size, sizeof(info));
  EXPECT_GE(info.devices, 1u);
  EXPECT_TRUE(std::string(info.provider) == "software" || std::string(info.provider) == "verbs") << info.provider;
  EXPECT_STRNE(info.reason, "");
}

TEST(Ext, FillsNoMoreThanTheCallersVersionOfAStruct) {
  FlagcxP2pFabricInfo info;
  memset(&info, 0x5a, sizeof(info));
  info.size = 8;
  ASSERT_EQ(flagcxP2pGetFabricInfo(&info), 0);
  EXPECT_EQ(info.size, 8u);
  EXPECT_GE(info.devices, 1u);
  EXPECT_EQ(info.provider[0], 0x5a);
  info.size = 0;
  EXPECT_EQ(flagcxP2pGetFabricInfo(&info), -1);
  info.size = sizeof(info) + 100; // a caller with a newer header
  ASSERT_EQ(flagcxP2pGetFabricInfo(&info), 0);
  EXPECT_EQ(info.size, sizeof(info));
}

TEST(Ext, TheLastErrorIsEachThreadsOwn) {
  EXPECT_EQ(flagcxP2pEngineGetRpcPort(nullptr), -1);
  EXPECT_STREQ(flagcxP2pEngineLastError(), "flagcxP2pEngineGetRpcPort: engine is NULL");
  std::thread([] { EXPECT_STREQ(flagcxP2pEngineLastError(), ""); }).join();
  EXPECT_STREQ(flagcxP2pEngineLastError(), "flagcxP2pEngineGetRpcPort: engine is NULL");
}

TEST(Ext, MetricsAreText) {
  const Engine engine = createEngine();
  size_t needed = 0;
  ASSERT_EQ(flagcxP2pMetricsText(nullptr, 0, &needed), 1) << flagcxP2pEngineLastError();
  std::vector<char> text(needed + 4096);
  ASSERT_EQ(flagcxP2pMetricsText(text.data(), text.size(), &needed), 0);
  EXPECT_EQ(strlen(text.data()) + 1, needed);
  EXPECT_NE(strstr(text.data(), "flagcx_p2p"), nullptr) << text.data();
}

TEST(Ext, NothingIsSlowInAnIdleEngine) {
  const Engine engine = createEngine();
  size_t count = 7;
  EXPECT_EQ(flagcxP2pEngineGetSlowTransfers(engine.get(), 0, nullptr, 0, &count), 0) << flagcxP2pEngineLastError();
  EXPECT_EQ(count, 0u);
  FlagcxP2pSlowTransfer slow = {};
  EXPECT_EQ(flagcxP2pEngineGetSlowTransfers(engine.get(), 0, &slow, 1, &count), -1) << "its size is not set";
  slow.size = sizeof(slow);
  EXPECT_EQ(flagcxP2pEngineGetSlowTransfers(engine.get(), 0, &slow, 1, &count), 0) << flagcxP2pEngineLastError();
  EXPECT_EQ(flagcxP2pEngineGetSlowTransfers(nullptr, 0, &slow, 1, &count), -1);
  EXPECT_EQ(flagcxP2pEngineGetSlowTransfers(engine.get(), 0, nullptr, 1, &count), -1);
  EXPECT_EQ(flagcxP2pEngineGetSlowTransfers(engine.get(), 0, &slow, 1, nullptr), -1);
}

class ExtPair : public Pair {};

TEST_F(ExtPair, TheStateOfAConnectionIsReported) {
  FlagcxP2pConnInfo info = {};
  info.size = sizeof(info);
  ASSERT_EQ(flagcxP2pEngineGetConnInfo(conn, &info), 0);
  EXPECT_NE(info.path, uint32_t(FLAGCX_P2P_PATH_NONE));
  EXPECT_EQ(info.readPath, info.path);
  EXPECT_EQ(info.writePath, info.path);
  EXPECT_GE(info.lanes, 1u);
  EXPECT_LE(info.lanes, uint32_t(kFlagcxP2pMaxQpsPerEngine));
  EXPECT_EQ(info.healthyLanes, info.lanes);
  EXPECT_EQ(info.local, 1);
  EXPECT_EQ(info.ours, 1);
  EXPECT_GE(info.gpuIndex, -1);
  EXPECT_EQ(std::string(info.peer), addressOf(server).session());
}

TEST_F(ExtPair, TheRailsOfAConnectionAreReported) {
  FlagcxP2pRailInfo rails[FLAGCX_P2P_MAX_RAILS] = {};
  size_t count = 0;
  EXPECT_EQ(flagcxP2pEngineGetRails(conn, rails, FLAGCX_P2P_MAX_RAILS, &count), -1) << "its size is not set";
  rails[0].size = sizeof(rails[0]);
  ASSERT_EQ(flagcxP2pEngineGetRails(conn, rails, FLAGCX_P2P_MAX_RAILS, &count), 0) << flagcxP2pEngineLastError();
  FlagcxP2pConnInfo info = {};
  info.size = sizeof(info);
  ASSERT_EQ(flagcxP2pEngineGetConnInfo(conn, &info), 0);
  ASSERT_EQ(count, 1u);
  EXPECT_EQ(rails[0].size, sizeof(rails[0]));
  EXPECT_EQ(rails[0].rail, 0u);
  EXPECT_EQ(rails[0].state, uint32_t(FLAGCX_P2P_RAIL_UP));
  EXPECT_EQ(rails[0].lanes, info.lanes);
  EXPECT_EQ(rails[0].healthyLanes, info.lanes);
  EXPECT_EQ(rails[0].lastPause, uint32_t(FLAGCX_P2P_RAIL_NEVER_PAUSED));
  EXPECT_NE(std::string(rails[0].nic), "");
  EXPECT_EQ(rails[1].size, 0u) << "what is behind the last one is not touched";

  uint64_t transfer = 0;
  ASSERT_EQ(flagcxP2pEngineWrite(conn, 0, local->data(), 64, remote->desc(0, 64), &transfer), 0);
  ASSERT_EQ(resultOf(conn, transfer).state, uint32_t(FLAGCX_P2P_XFER_DONE));
  ASSERT_EQ(flagcxP2pEngineGetRails(conn, rails, 1, &count), 0) << flagcxP2pEngineLastError();
  EXPECT_EQ(rails[0].writtenBytes, 64u);
  EXPECT_EQ(rails[0].inFlightBytes, 0u);
}

TEST_F(ExtPair, RailsAreReportedToOlderProgramsAndRefusedWithoutAPlace) {
  size_t count = 0;
  EXPECT_EQ(flagcxP2pEngineGetRails(conn, nullptr, 0, &count), 0) << flagcxP2pEngineLastError();
  EXPECT_EQ(count, 1u);
  FlagcxP2pRailInfo rail;
  std::memset(&rail, 0x5A, sizeof(rail));
  rail.size = offsetof(FlagcxP2pRailInfo, lanes);
  ASSERT_EQ(flagcxP2pEngineGetRails(conn, &rail, 1, &count), 0) << flagcxP2pEngineLastError();
  EXPECT_EQ(rail.size, offsetof(FlagcxP2pRailInfo, lanes));
  EXPECT_EQ(rail.rail, 0u);
  EXPECT_EQ(rail.lanes, 0x5A5A5A5Au) << "beyond the size that the program knows";
  EXPECT_EQ(flagcxP2pEngineGetRails(nullptr, &rail, 1, &count), -1);
  EXPECT_EQ(flagcxP2pEngineGetRails(conn, nullptr, 1, &count), -1);
  EXPECT_EQ(flagcxP2pEngineGetRails(conn, &rail, 1, nullptr), -1);
}

TEST_F(ExtPair, ADoneTransferSaysSo) {
  uint64_t transfer = 0;
  ASSERT_EQ(flagcxP2pEngineWrite(conn, 0, local->data(), 64, remote->desc(0, 64), &transfer), 0);
  const FlagcxP2pXferResult result = resultOf(conn, transfer);
  EXPECT_EQ(result.state, uint32_t(FLAGCX_P2P_XFER_DONE));
  EXPECT_EQ(result.status, 0u);
  EXPECT_STREQ(result.reason, "");
}

TEST_F(ExtPair, AFailedTransferSaysWhy) {
  // The second of three pieces names a region that the server does not have.
  uint64_t transfer = 0;
  ASSERT_EQ(flagcxP2pEngineWriteVector(conn, std::vector<FlagcxP2pMr>(3, local->region()),
                                       std::vector<void *>(3, local->data()), {64, 64, 64},
                                       {remote->desc(0, 64), unknownDesc(), remote->desc(64, 64)}, 3, &transfer),
            0)
      << flagcxP2pEngineLastError();
  const FlagcxP2pXferResult result = resultOf(conn, transfer);
  EXPECT_EQ(result.state, uint32_t(FLAGCX_P2P_XFER_FAILED));
  EXPECT_EQ(result.iov, 1u);
  EXPECT_EQ(result.status, 10u) << "remote access error";
  EXPECT_STRNE(result.reason, "");
  EXPECT_EQ(std::string(result.peer), addressOf(server).session());
}

TEST_F(ExtPair, AWriteToARegionThatHasGoneIsNotDone) {
  std::optional<Buffer> gone(std::in_place, server, 4096);
  const FlagcxP2pRdmaDesc desc = gone->desc(0, 4096);
  gone.reset();
  uint64_t transfer = 0;
  // Where the client has heard of it the call is refused; until then the server refuses the access.
  if (flagcxP2pEngineWrite(conn, 0, local->data(), 64, desc, &transfer) != 0) {
    EXPECT_STRNE(flagcxP2pEngineLastError(), "");
    return;
  }
  const FlagcxP2pXferResult result = resultOf(conn, transfer);
  EXPECT_EQ(result.state, uint32_t(FLAGCX_P2P_XFER_FAILED));
  EXPECT_EQ(result.status, 10u) << "remote access error";
}

TEST_F(ExtPair, AnOutcomeStaysReadableAfterXferStatus) {
  uint64_t transfer = 0;
  ASSERT_EQ(flagcxP2pEngineWrite(conn, 0, local->data(), 64, unknownDesc(), &transfer), 0);
  ASSERT_EQ(resultOf(conn, transfer).state, uint32_t(FLAGCX_P2P_XFER_FAILED));
  for (int i = 0; i < 3; ++i) {
    FlagcxP2pXferResult result = {};
    result.size = sizeof(result);
    ASSERT_EQ(flagcxP2pEngineXferResult(conn, transfer, &result), 0);
    EXPECT_EQ(result.state, uint32_t(FLAGCX_P2P_XFER_FAILED)) << i;
    EXPECT_TRUE(flagcxP2pEngineXferStatus(conn, transfer));
  }
}

TEST_F(ExtPair, UnknownTransfersAreUnknownAndIdZeroIsDone) {
  EXPECT_EQ(resultOf(conn, 0xdeadbeef).state, uint32_t(FLAGCX_P2P_XFER_UNKNOWN));
  EXPECT_EQ(resultOf(conn, UINT64_MAX).state, uint32_t(FLAGCX_P2P_XFER_UNKNOWN));
  EXPECT_EQ(resultOf(conn, 0).state, uint32_t(FLAGCX_P2P_XFER_DONE));
  EXPECT_TRUE(flagcxP2pEngineXferStatus(conn, 0));
  EXPECT_EQ(flagcxP2pEngineXferWait(conn, 0, -1, nullptr), 0);
  // As much as the caller's struct holds.
  FlagcxP2pXferResult result;
  std::memset(static_cast<void *>(&result), 0x5a, sizeof(result));
  result.size = 8;
  ASSERT_EQ(flagcxP2pEngineXferWait(conn, 0, -1, &result), 0);
  EXPECT_EQ(result.size, 8u);
  EXPECT_EQ(result.state, uint32_t(FLAGCX_P2P_XFER_DONE));
  EXPECT_EQ(result.reason[0], 0x5a);
  result.size = 0;
  EXPECT_EQ(flagcxP2pEngineXferWait(conn, 0, -1, &result), -1);
}

TEST_F(ExtPair, WaitingNeedsNoResult) {
  uint64_t transfer = 0;
  ASSERT_EQ(flagcxP2pEngineWrite(conn, 0, local->data(), kBytes, remote->desc(0, kBytes), &transfer), 0);
  EXPECT_EQ(flagcxP2pEngineXferWait(conn, transfer, -1, nullptr), 0);
  EXPECT_TRUE(flagcxP2pEngineXferStatus(conn, transfer));
}

TEST_F(ExtPair, ACancelledTransferHasEnded) {
  // Whether the bytes or the cancelling come first is open; that it has ended is not.
  for (int round = 0; round < 20; ++round) {
    uint64_t transfer = 0;
    ASSERT_EQ(flagcxP2pEngineWrite(conn, 0, local->data(), kBytes, remote->desc(0, kBytes), &transfer), 0)
        << flagcxP2pEngineLastError();
    EXPECT_EQ(flagcxP2pEngineXferCancel(conn, transfer), 0) << flagcxP2pEngineLastError();
    FlagcxP2pXferResult result = {};
    result.size = sizeof(result);
    ASSERT_EQ(flagcxP2pEngineXferResult(conn, transfer, &result), 0);
    EXPECT_TRUE(result.state == FLAGCX_P2P_XFER_DONE || result.state == FLAGCX_P2P_XFER_CANCELLED) << result.state;
    if (result.state == FLAGCX_P2P_XFER_CANCELLED)
      break; // the connection may have been reset for it
  }
  EXPECT_EQ(flagcxP2pEngineXferCancel(conn, 0xdeadbeef), -1);
}

TEST_F(ExtPair, NonBlockingVectorsMoveData) {
  local->scramble(1);
  const uint64_t regions[] = {local->region(), local->region()};
  void *const addresses[] = {local->data(), local->data() + 5000};
  const size_t sizes[] = {100, 200};
  const FlagcxP2pRdmaDesc descs[] = {remote->desc(10, 100), remote->desc(7000, 200)};
  uint64_t transfer = 0;
  ASSERT_EQ(flagcxP2pEngineTryWriteVector(conn, regions, addresses, sizes, descs, 2, &transfer), 0)
      << flagcxP2pEngineLastError();
  ASSERT_TRUE(succeeds(conn, transfer));
  EXPECT_EQ(bytes(*remote, 10, 100), bytes(*local, 0, 100));
  EXPECT_EQ(bytes(*remote, 7000, 200), bytes(*local, 5000, 200));
  local->scramble(2);
  ASSERT_EQ(flagcxP2pEngineTryReadVector(conn, regions, addresses, sizes, descs, 2, &transfer), 0);
  ASSERT_TRUE(succeeds(conn, transfer));
  EXPECT_EQ(bytes(*local, 0, 100), bytes(*remote, 10, 100));
}

TEST_F(ExtPair, NonBlockingRangesMoveDataOfAnnouncedMemory) {
  local->scramble(1);
  const uint64_t regions[] = {local->region(), local->region()};
  void *const addresses[] = {local->data(), local->data() + 5000};
  const size_t sizes[] = {100, 200};
  const uint64_t base = remote->address();
  const uint64_t far[] = {base + 10, base + 7000};
  uint64_t transfer = 0;
  ASSERT_EQ(flagcxP2pEngineTryWriteRanges(conn, regions, addresses, sizes, far, 2, &transfer), 0)
      << flagcxP2pEngineLastError();
  ASSERT_TRUE(succeeds(conn, transfer));
  EXPECT_EQ(bytes(*remote, 10, 100), bytes(*local, 0, 100));
  EXPECT_EQ(bytes(*remote, 7000, 200), bytes(*local, 5000, 200));
  local->scramble(2);
  ASSERT_EQ(flagcxP2pEngineTryReadRanges(conn, regions, addresses, sizes, far, 2, &transfer), 0);
  ASSERT_TRUE(succeeds(conn, transfer));
  EXPECT_EQ(bytes(*local, 5000, 200), bytes(*remote, 7000, 200));
  const uint64_t elsewhere[] = {base, 4096};
  EXPECT_EQ(flagcxP2pEngineTryWriteRanges(conn, regions, addresses, sizes, elsewhere, 2, &transfer), -1);
  EXPECT_NE(std::string(flagcxP2pEngineLastError()).find("piece 1: the peer announced no region"), std::string::npos);
  EXPECT_EQ(flagcxP2pEngineTryReadRanges(conn, regions, addresses, sizes, far, 0, &transfer), -1);
  EXPECT_EQ(flagcxP2pEngineTryReadRanges(conn, regions, addresses, sizes, nullptr, 2, &transfer), -1);
}

TEST_F(ExtPair, NonBlockingCallsNeverBlockAndLoseNothing) {
  // Faster than the fabric: some calls are turned away, all that were taken arrive.
  std::vector<uint64_t> taken;
  const uint64_t region = local->region();
  size_t refusals = 0;
  const FlagcxP2pRdmaDesc desc = remote->desc(0, 65536);
  const size_t size = 65536;
  void *const address = local->data();
  for (int i = 0; i < 20000 && refusals < 3; ++i) {
    uint64_t transfer = 0;
    const int answer = flagcxP2pEngineTryWriteVector(conn, &region, &address, &size, &desc, 1, &transfer);
    ASSERT_TRUE(answer == 0 || answer == FLAGCX_P2P_WOULD_BLOCK) << flagcxP2pEngineLastError();
    if (answer == 0)
      taken.push_back(transfer);
    else
      ++refusals;
  }
  for (const uint64_t transfer : taken) ASSERT_TRUE(succeeds(conn, transfer));
}

TEST_F(ExtPair, RegistrationFlagsAreChecked) {
  const Memory memory(4096);
  uint64_t region = 33;
  EXPECT_EQ(flagcxP2pEngineRegFlags(client.get(), memory.address(), 4096, 0x8000, &region), -1);
  EXPECT_EQ(flagcxP2pEngineRegFlags(client.get(), memory.address(), 4096, FLAGCX_P2P_REG_HOST | FLAGCX_P2P_REG_DEVICE,
                                    &region),
            -1);
  EXPECT_EQ(flagcxP2pEngineRegFlags(client.get(), memory.address(), 4096, FLAGCX_P2P_REG_HOST, nullptr), -1);
  EXPECT_EQ(region, 33u);
  ASSERT_EQ(flagcxP2pEngineRegFlags(client.get(), memory.address(), 4096, FLAGCX_P2P_REG_HOST, &region), 0);
  flagcxP2pEngineMrDestroy(client.get(), region);
}

namespace {

// Registers the memory by the two calls, which must answer alike, and destroys the registration.
void expectRefusal(const Engine &engine, const Memory &memory, const std::string &why) {
  uint64_t region = 33;
  EXPECT_EQ(flagcxP2pEngineReg(engine.get(), memory.address(), memory.size(), region), -1);
  EXPECT_NE(std::string(flagcxP2pEngineLastError()).find(why), std::string::npos) << flagcxP2pEngineLastError();
  EXPECT_NE(std::string(flagcxP2pEngineLastError()).find("EFAULT"), std::string::npos);
  EXPECT_EQ(flagcxP2pEngineRegFlags(engine.get(), memory.address(), memory.size(), FLAGCX_P2P_REG_READ_ONLY, &region),
            -1);
  EXPECT_NE(std::string(flagcxP2pEngineLastError()).find(why), std::string::npos) << flagcxP2pEngineLastError();
  EXPECT_EQ(region, 33u);
}

} // namespace

TEST_F(ExtPair, MemoryThatCannotBeAccessedIsRefused) {
  const Memory memory(4 * 4096);
  ASSERT_EQ(mprotect(memory.data() + 2 * 4096, 4096, PROT_NONE), 0);
  expectRefusal(client, memory, "from byte 8192 on");
  ASSERT_EQ(munmap(memory.data() + 4096, 4096), 0);
  expectRefusal(client, memory, "from byte 4096 on: no memory is mapped");
}

// By the flag, and by being so.
TEST_F(ExtPair, ReadOnlyMemoryIsReadAndNotWritten) {
  const Memory flagged(4096, 7), protectedMemory(4096, 7);
  ASSERT_EQ(mprotect(protectedMemory.data(), 4096, PROT_READ), 0);
  const Buffer local(client, 4096);
  for (const auto &[memory, flags] :
       {std::pair<const Memory *, uint32_t>{&flagged, FLAGCX_P2P_REG_READ_ONLY}, {&protectedMemory, 0}}) {
    uint64_t theirs = 0, ours = 0, transfer = 0;
    ASSERT_EQ(flagcxP2pEngineRegFlags(server.get(), memory->address(), 4096, flags, &theirs), 0)
        << flagcxP2pEngineLastError();
    ASSERT_EQ(flagcxP2pEngineRegFlags(client.get(), memory->address(), 4096, flags, &ours), 0)
        << flagcxP2pEngineLastError();
    FlagcxP2pRdmaDesc desc;
    ASSERT_EQ(flagcxP2pEngineMakeDesc(conn, memory->address(), 4096, &desc), 0);
    std::memset(local.data(), 0, local.size());
    ASSERT_EQ(flagcxP2pEngineRead(conn, local.region(), local.data(), 4096, desc, &transfer), 0);
    ASSERT_TRUE(succeeds(conn, transfer));
    EXPECT_EQ(std::memcmp(local.data(), memory->data(), 4096), 0);
    std::memset(local.data(), 9, local.size());
    EXPECT_EQ(flagcxP2pEngineWrite(conn, local.region(), local.data(), 4096, desc, &transfer), -1);
    EXPECT_NE(std::string(flagcxP2pEngineLastError()).find("for reading only"), std::string::npos);
    EXPECT_EQ(flagcxP2pEngineRead(conn, ours, memory->data(), 4096, desc, &transfer), -1);
    EXPECT_NE(std::string(flagcxP2pEngineLastError()).find("for reading only"), std::string::npos);
    EXPECT_EQ(memory->data()[0], 7);
    EXPECT_EQ(memory->data()[4095], 7);
    flagcxP2pEngineMrDestroy(server.get(), theirs);
    flagcxP2pEngineMrDestroy(client.get(), ours);
  }
}

TEST_F(ExtPair, TheSameRangeIsNotReadOnlyAndWritable) {
  const Memory memory(4096);
  uint64_t first = 0, second = 33;
  ASSERT_EQ(flagcxP2pEngineRegFlags(client.get(), memory.address(), 4096, FLAGCX_P2P_REG_READ_ONLY, &first), 0);
  EXPECT_EQ(flagcxP2pEngineReg(client.get(), memory.address(), 4096, second), -1);
  EXPECT_NE(std::string(flagcxP2pEngineLastError()).find("other rights"), std::string::npos);
  EXPECT_EQ(second, 33u);
  flagcxP2pEngineMrDestroy(client.get(), first);
  ASSERT_EQ(flagcxP2pEngineReg(client.get(), memory.address(), 4096, second), 0);
  flagcxP2pEngineMrDestroy(client.get(), second);
}
