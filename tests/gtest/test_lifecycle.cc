// SPDX-License-Identifier: Apache-2.0
//
// Engines: made, stopped and ended in any order.
#include <future>

#include "support.h"

using namespace support;
using namespace std::chrono_literals;

namespace {

std::future<FlagcxP2pConn *> acceptInBackground(FlagcxP2pEngine *engine) {
  return std::async(std::launch::async, [engine] {
    char address[64];
    int gpu = 0;
    return flagcxP2pEngineAccept(engine, address, sizeof(address), &gpu);
  });
}

} // namespace

TEST(Lifecycle, AnEngineComesAndGoes) {
  for (int i = 0; i < 3; ++i) EXPECT_NE(createEngine(), nullptr);
}

TEST(Lifecycle, DestroyingNullIsANoOp) {
  flagcxP2pEngineDestroy(nullptr);
  flagcxP2pEngineDestroy(nullptr);
  flagcxP2pEngineStopAccept(nullptr);
  flagcxP2pEngineConnDestroy(nullptr);
}

TEST(Lifecycle, AnEngineHasAPort) {
  const Engine engine = createEngine();
  const int port = flagcxP2pEngineGetRpcPort(engine.get());
  EXPECT_GT(port, 0);
  EXPECT_LE(port, 65535);
}

TEST(Lifecycle, EnginesAreIndependent) {
  Engine first = createEngine();
  const Engine second = createEngine();
  Engine third = createEngine();
  EXPECT_NE(flagcxP2pEngineGetRpcPort(first.get()), flagcxP2pEngineGetRpcPort(second.get()));

  // A region, a connection and a listener of one engine live on when others end.
  const Buffer remote(second, 4096);
  third.reset();
  first.reset();
  const Engine client = createEngine();
  const Buffer local(client, 4096, 7);
  const Ends ends = connect(client, second);
  ASSERT_NE(ends.connected, nullptr);
  uint64_t transfer = 0;
  ASSERT_EQ(
      flagcxP2pEngineWrite(ends.connected.get(), local.region(), local.data(), 4096, remote.desc(0, 4096), &transfer),
      0);
  EXPECT_TRUE(succeeds(ends.connected.get(), transfer));
  EXPECT_EQ(remote.data()[4095], 7);
}

TEST(Lifecycle, StopAcceptReleasesABlockedAccept) {
  const Engine engine = createEngine();
  auto accepted = acceptInBackground(engine.get());
  EXPECT_EQ(accepted.wait_for(50ms), std::future_status::timeout);
  flagcxP2pEngineStopAccept(engine.get());
  ASSERT_EQ(accepted.wait_for(5s), std::future_status::ready);
  EXPECT_EQ(accepted.get(), nullptr);
}

TEST(Lifecycle, AcceptAfterStopAnswersAtOnceAndLeavesTheOutputs) {
  const Engine engine = createEngine();
  flagcxP2pEngineStopAccept(engine.get());
  flagcxP2pEngineStopAccept(engine.get());
  char address[8] = "before";
  int gpu = 42;
  EXPECT_EQ(flagcxP2pEngineAccept(engine.get(), address, sizeof(address), &gpu), nullptr);
  EXPECT_STREQ(address, "before");
  EXPECT_EQ(gpu, 42);
}

TEST(Lifecycle, PortAndMetadataSurviveStopAccept) {
  const Engine engine = createEngine();
  const int port = flagcxP2pEngineGetRpcPort(engine.get());
  const std::string metadata = metadataOf(engine);
  flagcxP2pEngineStopAccept(engine.get());
  EXPECT_EQ(flagcxP2pEngineGetRpcPort(engine.get()), port);
  EXPECT_EQ(metadataOf(engine), metadata);
}

TEST(Lifecycle, DestroyReleasesABlockedAccept) {
  Engine engine = createEngine();
  auto accepted = acceptInBackground(engine.get());
  EXPECT_EQ(accepted.wait_for(50ms), std::future_status::timeout);
  engine.reset();
  ASSERT_EQ(accepted.wait_for(5s), std::future_status::ready);
  EXPECT_EQ(accepted.get(), nullptr);
}

TEST(Lifecycle, StartRpcServerTwiceIsOnce) {
  const Engine engine = createEngine();
  EXPECT_EQ(flagcxP2pEngineStartRpcServer(engine.get()), 0);
  EXPECT_EQ(flagcxP2pEngineStartRpcServer(engine.get()), 0);
}

TEST(Lifecycle, StartRpcServerAfterStopAcceptIsHarmless) {
  const Engine engine = createEngine();
  EXPECT_EQ(flagcxP2pEngineStartRpcServer(engine.get()), 0);
  flagcxP2pEngineStopAccept(engine.get());
  for (int i = 0; i < 3; ++i) flagcxP2pEngineStartRpcServer(engine.get());
}

TEST(Lifecycle, AnRpcServerEndsWithItsEngine) {
  Engine engine = createEngine();
  ASSERT_EQ(flagcxP2pEngineStartRpcServer(engine.get()), 0);
  engine.reset();
}

TEST(Lifecycle, AConnectionMayOutliveItsEngine) {
  for (const bool clientFirst : {true, false}) {
    Engine client = createEngine();
    Engine server = createEngine();
    Memory memory(4096);
    FlagcxP2pMr region = 0;
    ASSERT_EQ(flagcxP2pEngineReg(client.get(), memory.address(), memory.size(), region), 0);
    Ends ends = connect(client, server);
    ASSERT_TRUE(ends.connected && ends.accepted);
    (clientFirst ? client : server).reset();
    (clientFirst ? server : client).reset();

    uint64_t transfer = 99;
    const FlagcxP2pRdmaDesc desc = {};
    EXPECT_EQ(flagcxP2pEngineWrite(ends.connected.get(), region, memory.data(), 1, desc, &transfer), -1);
    EXPECT_EQ(transfer, 99u);
    EXPECT_TRUE(flagcxP2pEngineXferStatus(ends.connected.get(), 1));
    ends.connected.reset();
    ends.accepted.reset();
  }
}

TEST(Lifecycle, StartListenerAnswersZeroToAnything) {
  EXPECT_EQ(flagcxP2pEngineStartListener(nullptr), 0);
}

TEST(Lifecycle, TheGlobalConfigIsReadOnce) {
  const FlagcxP2pGlobalConfig &config = flagcxP2pGlobalConfig();
  EXPECT_EQ(&config, &flagcxP2pGlobalConfig());
  EXPECT_GE(config.qpsPerConn, 1);
  EXPECT_LE(config.qpsPerConn, kFlagcxP2pMaxQpsPerEngine);
  EXPECT_GE(config.workersPerPool, 1);
  EXPECT_GE(config.shardCount, config.workersPerPool);
  flagcxP2pDumpGlobalConfig();
}
