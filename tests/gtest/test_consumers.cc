// SPDX-License-Identifier: Apache-2.0
//
// Consumers of flagcx_p2p.h that know nothing of flagcx_p2p_ext.h, each by its sequence of calls: none takes a failed
// transfer for done. docs/consumers.md.
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

#include "peer_process.h"
#include "support.h"

#include "../../cpp/examples/how_it_ended.h"

using namespace support;
using namespace std::chrono;
using namespace std::chrono_literals;

namespace {

// In the order of the real ones, which are 30 s, 30 s and 35 s. A device that is emulated takes its time.
const bool overVerbs = [] {
  const char *const fabric = getenv("FLAGCX_P2P_FABRIC");
  return fabric != nullptr && std::string(fabric) == "verbs";
}();
const auto kTransferLimit = overVerbs ? 8000ms : 200ms;
const auto kMooncakeLimit = overVerbs ? 9000ms : 300ms; // from its call on
const auto kHold = overVerbs ? 12000ms : 900ms;

// Before main, so before anything reads the configuration.
const bool prepared = [] {
  setenv("FLAGCX_P2P_BIND", "127.0.0.1", 1);
  setenv("FLAGCX_P2P_PATH", "tcp", 1);
  setenv("FLAGCX_P2P_XFER_TIMEOUT_MS", std::to_string(kTransferLimit / 1ms).c_str(), 1);
  setenv("FLAGCX_P2P_FAILED_HOLD_MS", std::to_string(kHold / 1ms).c_str(), 1);
  return true;
}();

enum class Told { Done, Failed, Refused };

// Times that a transfer names its range. A device moves bytes to a stopped process too, and soft-RoCE moves them while they are
// posted: once the range was nearly done when the call returned, before a signal could end the peer.
constexpr size_t kTimes = 8;

// Starts a transfer of `bytes` from the start of `local` to `desc`; false when the call is refused.
bool start(FlagcxP2pConn *conn, const Buffer &local, size_t bytes, FlagcxP2pRdmaDesc desc, uint64_t *id) {
  const std::vector<uint64_t> regions(kTimes, local.region());
  const std::vector<void *> from(kTimes, local.data());
  return flagcxP2pEngineWriteVector(conn, regions, from, std::vector<size_t>(kTimes, bytes),
                                    std::vector<FlagcxP2pRdmaDesc>(kTimes, desc), kTimes, id) == 0;
}

// FlagCX's plugin for NIXL: it sends a notification after each transfer that has ended, and takes a failure of that for
// the transfer's.
Told nixl(FlagcxP2pConn *conn, const Buffer &local, size_t bytes, const FlagcxP2pRdmaDesc &desc) {
  uint64_t id = 0;
  if (!start(conn, local, bytes, desc, &id))
    return Told::Refused;
  while (!flagcxP2pEngineXferStatus(conn, id)) std::this_thread::sleep_for(100us);
  FlagcxP2pNotifyMsg message = {};
  return flagcxP2pEngineSendNotif(conn, &message) < 0 ? Told::Failed : Told::Done;
}

// Mooncake's transport over FlagCX: true within its limit is success.
Told mooncake(FlagcxP2pConn *conn, const Buffer &local, size_t bytes, const FlagcxP2pRdmaDesc &desc) {
  const auto limit = steady_clock::now() + kMooncakeLimit;
  uint64_t id = 0;
  if (!start(conn, local, bytes, desc, &id))
    return Told::Refused;
  while (!flagcxP2pEngineXferStatus(conn, id)) {
    if (steady_clock::now() >= limit)
      return Told::Failed;
    std::this_thread::sleep_for(100us);
  }
  return Told::Done;
}

// Users of the C functions through ctypes: 0 is success. Addresses are all that they name.
Told ctypes(FlagcxP2pConn *conn, const Buffer &local, size_t bytes, const FlagcxP2pRdmaDesc &desc) {
  const std::vector<uint64_t> from(kTimes, local.address()), to(kTimes, desc.addr), sizes(kTimes, bytes);
  return flagcxP2pRpcBatchWriteSync(conn, kTimes, from.data(), to.data(), sizes.data()) == 0 ? Told::Done
                                                                                             : Told::Failed;
}

// With the lines of docs/consumers.md added.
Told informed(FlagcxP2pConn *conn, const Buffer &local, size_t bytes, const FlagcxP2pRdmaDesc &desc) {
  uint64_t id = 0;
  if (!start(conn, local, bytes, desc, &id))
    return Told::Refused;
  Transfer transfer;
  while ((transfer = howItEnded(conn, id)) == Transfer::Pending) std::this_thread::sleep_for(100us);
  return transfer == Transfer::Done ? Told::Done : Told::Failed;
}

using Consumer = std::function<Told(FlagcxP2pConn *, const Buffer &, size_t, const FlagcxP2pRdmaDesc &)>;

class Consumers : public testing::Test {
 protected:
  static constexpr size_t kThreads = 4;

  // Larger than what the sockets of a connection take from a process that does not read.
  static constexpr size_t kBytes = PeerProcess::kBytes;

  void SetUp() override {
    engine = createEngine();
    local = std::make_unique<Buffer>(engine, kBytes, 7);
    conn = flagcxP2pEngineGetConn(engine.get(), peer.session().c_str());
    ASSERT_NE(conn, nullptr) << flagcxP2pEngineLastError();
  }

  // What each consumer is told of one transfer, all of them at once and then the same by several threads of each.
  std::vector<Told> ask(
      const FlagcxP2pRdmaDesc &desc, const std::vector<Consumer> &consumers,
      const std::function<void()> &meanwhile = [] {}) {
    std::vector<Told> told(consumers.size() * kThreads);
    std::vector<std::thread> threads;
    for (size_t i = 0; i < told.size(); ++i)
      threads.emplace_back([&, i] { told[i] = consumers[i / kThreads](conn, *local, kBytes, desc); });
    meanwhile();
    for (std::thread &thread : threads) thread.join();
    return told;
  }

  static size_t successes(const std::vector<Told> &told) {
    return static_cast<size_t>(std::count(told.begin(), told.end(), Told::Done));
  }

  const PeerProcess peer;
  Engine engine;
  std::unique_ptr<Buffer> local;
  FlagcxP2pConn *conn = nullptr;
};

TEST_F(Consumers, AStoppedPeerHasNoSuccess) {
  if (overVerbs)
    GTEST_SKIP() << "not run over verbs: a device moves bytes from and to a process that is stopped";
  peer.signal(SIGSTOP);
  EXPECT_EQ(successes(ask(peer.desc(), {nixl, mooncake, ctypes, informed})), 0u);
}

TEST_F(Consumers, APeerThatGoesOnAfterTheDeadlineHasNoSuccess) {
  if (overVerbs)
    GTEST_SKIP() << "not run over verbs: a device moves bytes from and to a process that is stopped";
  peer.signal(SIGSTOP);
  const auto goOn = [this] {
    std::this_thread::sleep_for(kTransferLimit + 200ms);
    peer.signal(SIGCONT);
  };
  EXPECT_EQ(successes(ask(peer.desc(), {nixl, mooncake, ctypes, informed}, goOn)), 0u);
}

TEST_F(Consumers, AKilledPeerHasNoSuccess) {
  if (overVerbs) {
    // A device moves bytes to a stopped process too, and may have moved all of one transfer before the process is killed, which is
    // a true success. So it has ended before the calls; that it has is noticed after some of them began.
    peer.killAndWait();
    EXPECT_EQ(successes(ask(peer.desc(), {nixl, mooncake, ctypes, informed})), 0u);
    return;
  }
  // It must not be done before it is killed.
  peer.signal(SIGSTOP);
  const auto killIt = [this] {
    std::this_thread::sleep_for(50ms);
    peer.signal(SIGKILL);
  };
  EXPECT_EQ(successes(ask(peer.desc(), {nixl, mooncake, ctypes, informed}, killIt)), 0u);
}

TEST_F(Consumers, AKilledPeerHasNoSuccessForOneThread) {
  peer.signal(SIGSTOP);
  // While it is posted, which takes a while over verbs.
  std::thread killer([this] {
    std::this_thread::sleep_for(50ms);
    peer.signal(SIGKILL);
  });
  uint64_t id = 0;
  const bool started = start(conn, *local, kBytes, peer.desc(), &id);
  killer.join();
  ASSERT_TRUE(started) << flagcxP2pEngineLastError();
  const auto begin = steady_clock::now();
  while (!flagcxP2pEngineXferStatus(conn, id)) std::this_thread::sleep_for(100us);
  EXPECT_GE(steady_clock::now() - begin, kHold);
  FlagcxP2pNotifyMsg message = {};
  EXPECT_EQ(flagcxP2pEngineSendNotif(conn, &message), -1);
  EXPECT_NE(std::string(flagcxP2pEngineLastError()).find("is not done"), std::string::npos)
      << flagcxP2pEngineLastError();
}

TEST_F(Consumers, ABadKeyHasNoSuccessBesideGoodTransfers) {
  constexpr size_t kPiece = 4096;
  FlagcxP2pRdmaDesc bad = peer.desc();
  bad.rkey ^= 0x5555;
  const std::string session = peer.session();
  const int port = std::stoi(session.substr(session.rfind(':') + 1));
  std::vector<std::thread> threads;
  std::vector<Conn> connections;
  for (size_t t = 0; t < kThreads; ++t) {
    // Each failure interrupts what is on its lane, which is repeated three times at most: so three failures for each connection.
    connections.emplace_back(flagcxP2pEngineConnect(engine.get(), "127.0.0.1", 0, port, false));
    ASSERT_NE(connections.back(), nullptr) << flagcxP2pEngineLastError();
  }
  for (const Consumer &consumer : {Consumer(nixl), Consumer(mooncake), Consumer(informed)}) {
    for (const Conn &connection : connections) {
      FlagcxP2pConn *const conn = connection.get();
      const size_t place = threads.size() * kPiece;
      threads.emplace_back([=] {
        Buffer mine(engine, kPiece), back(engine, kPiece);
        FlagcxP2pRdmaDesc good = peer.desc();
        flagcxP2pEngineUpdateDesc(good, good.addr + place, kPiece);
        for (uint32_t round = 0; round < 10; ++round) {
          mine.scramble(static_cast<uint32_t>(place) + round);
          if (round % 10 == 5) {
            EXPECT_NE(consumer(conn, mine, kPiece, bad), Told::Done);
            continue;
          }
          EXPECT_EQ(consumer(conn, mine, kPiece, good), Told::Done) << "round " << round;
          uint64_t id = 0;
          EXPECT_EQ(flagcxP2pEngineRead(conn, 0, back.data(), kPiece, good, &id), 0) << flagcxP2pEngineLastError();
          EXPECT_TRUE(succeeds(conn, id));
          EXPECT_TRUE(bytes(back, 0, kPiece) == bytes(mine, 0, kPiece)) << "round " << round;
        }
      });
    }
  }
  for (std::thread &thread : threads) thread.join();
}

} // namespace
