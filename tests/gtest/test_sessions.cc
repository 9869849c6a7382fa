// SPDX-License-Identifier: Apache-2.0
//
// The engine's own connections, by "host:port".
#include <thread>

#include "support.h"

using namespace support;

namespace {

Engine createServer() {
  Engine server = createEngine();
  EXPECT_EQ(flagcxP2pEngineStartRpcServer(server.get()), 0);
  return server;
}

} // namespace

TEST(Sessions, AreConnectedOnceAndKept) {
  const Engine client = createEngine(), server = createServer();
  const std::string session = addressOf(server).session();
  FlagcxP2pConn *const conn = flagcxP2pEngineGetConn(client.get(), session.c_str());
  ASSERT_NE(conn, nullptr) << flagcxP2pEngineLastError();
  for (int i = 0; i < 10; ++i) EXPECT_EQ(flagcxP2pEngineGetConn(client.get(), session.c_str()), conn);
}

TEST(Sessions, MoveDataBothWays) {
  const Engine first = createServer(), second = createServer();
  const Buffer one(first, 4096, 1), two(second, 4096, 2);
  FlagcxP2pConn *const there = flagcxP2pEngineGetConn(first.get(), addressOf(second).session().c_str());
  FlagcxP2pConn *const back = flagcxP2pEngineGetConn(second.get(), addressOf(first).session().c_str());
  ASSERT_TRUE(there && back);
  FlagcxP2pRdmaDesc desc;
  uint64_t transfer = 0;
  ASSERT_EQ(flagcxP2pEngineMakeDesc(there, two.address(), 1000, &desc), 0);
  ASSERT_EQ(flagcxP2pEngineWrite(there, 0, one.data(), 1000, desc, &transfer), 0);
  ASSERT_TRUE(succeeds(there, transfer));
  ASSERT_EQ(flagcxP2pEngineMakeDesc(back, one.address() + 2000, 1000, &desc), 0);
  ASSERT_EQ(flagcxP2pEngineWrite(back, 0, two.data() + 2000, 1000, desc, &transfer), 0);
  ASSERT_TRUE(succeeds(back, transfer));
  EXPECT_EQ(bytes(two, 0, 1000), std::string(1000, 1));
  EXPECT_EQ(bytes(one, 2000, 1000), std::string(1000, 2));
}

TEST(Sessions, ToTwoPeersAreTwo) {
  const Engine client = createEngine(), one = createServer(), two = createServer();
  FlagcxP2pConn *const first = flagcxP2pEngineGetConn(client.get(), addressOf(one).session().c_str());
  FlagcxP2pConn *const second = flagcxP2pEngineGetConn(client.get(), addressOf(two).session().c_str());
  ASSERT_TRUE(first && second);
  EXPECT_NE(first, second);
}

TEST(Sessions, RacingFirstCallsGetOneConnection) {
  const Engine client = createEngine(), server = createServer();
  const std::string session = addressOf(server).session();
  std::vector<FlagcxP2pConn *> conns(4);
  std::vector<std::thread> threads;
  for (FlagcxP2pConn *&conn : conns)
    threads.emplace_back([&] { conn = flagcxP2pEngineGetConn(client.get(), session.c_str()); });
  for (std::thread &thread : threads) thread.join();
  ASSERT_NE(conns[0], nullptr);
  const Buffer local(client, 64);
  for (FlagcxP2pConn *conn : conns) EXPECT_EQ(conn, conns[0]);
}

TEST(Sessions, CannotBeDestroyedByTheCaller) {
  const Engine client = createEngine(), server = createServer();
  const Buffer local(client, 64), remote(server, 64);
  const std::string session = addressOf(server).session();
  FlagcxP2pConn *const conn = flagcxP2pEngineGetConn(client.get(), session.c_str());
  ASSERT_NE(conn, nullptr);
  flagcxP2pEngineConnDestroy(conn);
  EXPECT_EQ(flagcxP2pEngineGetConn(client.get(), session.c_str()), conn);
  uint64_t transfer = 0;
  ASSERT_EQ(flagcxP2pEngineWrite(conn, 0, local.data(), 64, remote.desc(0, 64), &transfer), 0);
  EXPECT_TRUE(succeeds(conn, transfer));
}

TEST(Sessions, WithAPeerThatIsGoneFailAndKeepTheirPointerUsable) {
  const Engine client = createEngine();
  Engine server = createServer();
  const Buffer local(client, 64);
  const std::string session = addressOf(server).session();
  FlagcxP2pRdmaDesc desc;
  {
    const Buffer remote(server, 64);
    desc = remote.desc(0, 64);
  }
  FlagcxP2pConn *const conn = flagcxP2pEngineGetConn(client.get(), session.c_str());
  ASSERT_NE(conn, nullptr);
  server.reset();

  // Using it shows the loss, at the latest when every lane has been used; no new connection can be made then.
  uint64_t transfer = 0;
  for (int lane = 0; lane < kFlagcxP2pMaxQpsPerEngine; ++lane) {
    if (flagcxP2pEngineWrite(conn, 0, local.data(), 64, desc, &transfer) == 0) {
      EXPECT_EQ(resultOf(conn, transfer).state, uint32_t(FLAGCX_P2P_XFER_FAILED));
    }
  }
  EXPECT_EQ(flagcxP2pEngineGetConn(client.get(), session.c_str()), nullptr);

  transfer = 77;
  EXPECT_EQ(flagcxP2pEngineWrite(conn, 0, local.data(), 64, desc, &transfer), -1);
  EXPECT_EQ(transfer, 77u);
  EXPECT_TRUE(flagcxP2pEngineXferStatus(conn, 12345));
  EXPECT_EQ(flagcxP2pEngineMakeDesc(conn, 0x1000, 64, &desc), -1);
}

TEST(Sessions, WithAPeerThatIsGoneAreDroppedWithoutBeingUsed) {
  const Engine client = createEngine();
  Engine server = createServer();
  const std::string session = addressOf(server).session();
  ASSERT_NE(flagcxP2pEngineGetConn(client.get(), session.c_str()), nullptr);
  server.reset();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (flagcxP2pEngineGetConn(client.get(), session.c_str()) != nullptr)
    ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "the closed connection is still returned";
}

TEST(Sessions, WithoutHostOrPortAreRefused) {
  const Engine client = createEngine();
  for (const char *session :
       {"", "no_colon", ":", "127.0.0.1:", ":1234", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:12x",
        "127.0.0.1:99999999999999999999", "[::1]", "[::1:80", "\xff\xfe:80", "256.256.256.256:80"}) {
    EXPECT_EQ(flagcxP2pEngineGetConn(client.get(), session), nullptr) << session;
    EXPECT_NE(std::string(flagcxP2pEngineLastError()).find("flagcxP2pEngineGetConn"), std::string::npos) << session;
  }
}
