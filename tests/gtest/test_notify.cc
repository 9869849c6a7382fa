// SPDX-License-Identifier: Apache-2.0
//
// Notifications: small messages beside the data.
#include <cstdio>
#include <map>
#include <thread>

#include "support.h"

using namespace support;
using namespace std::chrono_literals;

namespace {

FlagcxP2pNotifyMsg message(const std::string &name, const std::string &text) {
  FlagcxP2pNotifyMsg message = {};
  name.copy(message.name, sizeof(message.name));
  text.copy(message.msg, sizeof(message.msg));
  return message;
}

// Takes notifications until there are `count`, or 10 s have passed.
std::vector<FlagcxP2pNotifyMsg> take(size_t count) {
  std::vector<FlagcxP2pNotifyMsg> all;
  const auto deadline = std::chrono::steady_clock::now() + 10s;
  while (all.size() < count && std::chrono::steady_clock::now() < deadline) {
    for (const FlagcxP2pNotifyMsg &message : flagcxP2pEngineGetNotifs()) all.push_back(message);
    std::this_thread::sleep_for(1ms);
  }
  return all;
}

// One notification as the extension gives it.
struct Received {
  std::string name, content;
};

// Takes one engine's notifications until there are `count`, or 10 s have passed; with `count` 0 those of 50 ms.
std::vector<Received> takeOf(const Engine &engine, size_t count) {
  std::vector<Received> all;
  const auto keep = [](void *context, const char *name, const void *content, size_t bytes) {
    static_cast<std::vector<Received> *>(context)->push_back(
        {std::string(name, FLAGCX_P2P_MSG_SIZE), std::string(static_cast<const char *>(content), bytes)});
  };
  const auto deadline = std::chrono::steady_clock::now() + (count == 0 ? 50ms : 10000ms);
  while ((count == 0 || all.size() < count) && std::chrono::steady_clock::now() < deadline) {
    EXPECT_EQ(flagcxP2pEngineGetNotifsOf(engine.get(), keep, &all), 0);
    std::this_thread::sleep_for(1ms);
  }
  return all;
}

} // namespace

class Notify : public Pair {
 protected:
  void SetUp() override {
    flagcxP2pEngineGetNotifs(); // what an earlier test left
    Pair::SetUp();
  }

  int send(FlagcxP2pConn *over, const std::string &name, const std::string &text) {
    FlagcxP2pNotifyMsg out = message(name, text);
    return flagcxP2pEngineSendNotif(over, &out);
  }
};

TEST_F(Notify, ArrivesOnce) {
  ASSERT_EQ(send(conn, "agent", "hello"), 512) << flagcxP2pEngineLastError();
  const auto received = take(1);
  ASSERT_EQ(received.size(), 1u);
  EXPECT_STREQ(received[0].name, "agent");
  EXPECT_STREQ(received[0].msg, "hello");
  EXPECT_TRUE(flagcxP2pEngineGetNotifs().empty());
}

TEST_F(Notify, GoesBothWays) {
  ASSERT_EQ(send(ends.accepted.get(), "server", "from the accepting side"), 512);
  const auto received = take(1);
  ASSERT_EQ(received.size(), 1u);
  EXPECT_STREQ(received[0].msg, "from the accepting side");
}

TEST_F(Notify, KeepsEveryByte) {
  FlagcxP2pNotifyMsg out;
  for (int i = 0; i < FLAGCX_P2P_MSG_SIZE; ++i) {
    out.name[i] = static_cast<char>(i);
    out.msg[i] = static_cast<char>(255 - i);
  }
  ASSERT_EQ(flagcxP2pEngineSendNotif(conn, &out), 512);
  const auto received = take(1);
  ASSERT_EQ(received.size(), 1u);
  EXPECT_EQ(memcmp(&received[0], &out, sizeof(out)), 0);
}

TEST_F(Notify, KeepsTheOrderOfOneSender) {
  constexpr size_t kCount = 200;
  for (size_t i = 0; i < kCount; ++i) ASSERT_EQ(send(conn, "n", std::to_string(i)), 512) << i;
  const auto received = take(kCount);
  ASSERT_EQ(received.size(), kCount);
  for (size_t i = 0; i < kCount; ++i) EXPECT_EQ(std::string(received[i].msg), std::to_string(i));
}

TEST_F(Notify, FromManyThreadsAllArriveWhole) {
  constexpr size_t kThreads = 4, kEach = 50;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kThreads; ++i)
    threads.emplace_back([&, i] {
      const std::string text(FLAGCX_P2P_MSG_SIZE, static_cast<char>('a' + i));
      for (size_t n = 0; n < kEach; ++n) EXPECT_EQ(send(conn, "t", text), 512);
    });
  for (std::thread &thread : threads) thread.join();
  const auto received = take(kThreads * kEach);
  ASSERT_EQ(received.size(), kThreads * kEach);
  for (const FlagcxP2pNotifyMsg &message : received)
    EXPECT_EQ(std::string(message.msg, sizeof(message.msg)), std::string(sizeof(message.msg), message.msg[0]));
}

TEST_F(Notify, ReachesEveryEngineOfTheProcess) {
  const Engine second = createEngine();
  const Ends more = connect(client, second);
  ASSERT_NE(more.connected, nullptr);
  ASSERT_EQ(send(conn, "to", "server"), 512);
  ASSERT_EQ(send(more.connected.get(), "to", "second"), 512);
  EXPECT_EQ(take(2).size(), 2u);
}

TEST_F(Notify, MayBeTakenPerEngine) {
  ASSERT_EQ(send(conn, "to", "server"), 512);
  const std::vector<Received> received = takeOf(server, 1);
  ASSERT_EQ(received.size(), 1u);
  EXPECT_STREQ(received[0].name.c_str(), "to");
  EXPECT_EQ(received[0].content.size(), size_t(FLAGCX_P2P_MSG_SIZE));
  EXPECT_STREQ(received[0].content.c_str(), "server");
  EXPECT_TRUE(flagcxP2pEngineGetNotifs().empty()) << "taken twice";
}

TEST_F(Notify, ArriveAtNoOtherEngine) {
  ASSERT_EQ(send(conn, "to", "server"), 512);
  ASSERT_EQ(takeOf(server, 1).size(), 1u);
  EXPECT_EQ(takeOf(client, 0).size(), 0u);
}

TEST_F(Notify, MayBeOfAnySize) {
  Memory content(100000);
  content.scramble(1);
  for (const size_t size : {size_t(0), size_t(1), size_t(512), content.size()}) {
    ASSERT_EQ(flagcxP2pEngineSendNotifBytes(conn, "large", content.data(), size), 0) << flagcxP2pEngineLastError();
    const std::vector<Received> received = takeOf(server, 1);
    ASSERT_EQ(received.size(), 1u) << size;
    EXPECT_STREQ(received[0].name.c_str(), "large");
    EXPECT_TRUE(received[0].content == bytes(content, 0, size)) << size;
  }
}

TEST_F(Notify, OfBothKindsArriveExactlyAndInOrder) {
  const std::string contents[] = {"", std::string(1, '\0'), std::string("end\0\0", 5), std::string(256, 'x'),
                                  std::string(1 << 20, 'y')};
  std::vector<std::string> sent;
  for (const std::string &content : contents) {
    ASSERT_EQ(flagcxP2pEngineSendNotifBytes(conn, "n", content.data(), content.size()), 0)
        << flagcxP2pEngineLastError();
    ASSERT_EQ(send(conn, "n", "fixed"), 512);
    sent.push_back(content);
    sent.push_back(std::string("fixed") + std::string(FLAGCX_P2P_MSG_SIZE - 5, '\0'));
  }
  const std::vector<Received> received = takeOf(server, sent.size());
  ASSERT_EQ(received.size(), sent.size());
  for (size_t i = 0; i < sent.size(); ++i) EXPECT_TRUE(received[i].content == sent[i]) << i;
}

TEST_F(Notify, OfAnySizeStayForTheCallThatTakesThem) {
  ASSERT_EQ(flagcxP2pEngineSendNotifBytes(conn, "exact", "1", 1), 0);
  ASSERT_EQ(send(conn, "fixed", "2"), 512);
  const auto fixed = take(1);
  ASSERT_EQ(fixed.size(), 1u);
  EXPECT_STREQ(fixed[0].msg, "2");
  const std::vector<Received> exact = takeOf(server, 1);
  ASSERT_EQ(exact.size(), 1u);
  EXPECT_EQ(exact[0].content, "1");
}

// Bytes of memory that the process has in use.
static size_t used() {
  if (__sanitizer_get_current_allocated_bytes != nullptr)
    return __sanitizer_get_current_allocated_bytes(); // what is freed stays resident for a while
  size_t pages = 0, total = 0;
  std::FILE *file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr || std::fscanf(file, "%zu %zu", &total, &pages) != 2)
    pages = 0;
  if (file != nullptr)
    std::fclose(file);
  return pages * 4096;
}

TEST_F(Notify, OfClosedEnginesAreFreed) {
  const std::string content(1 << 20, 'x');
  size_t before = 0;
  for (int round = 0; round < 24; ++round) {
    if (round == 4)
      before = used();
    const Engine receiver = createEngine();
    const Ends more = connect(client, receiver);
    ASSERT_NE(more.connected, nullptr);
    for (int i = 0; i < 3; ++i)
      ASSERT_EQ(flagcxP2pEngineSendNotifBytes(more.connected.get(), "n", content.data(), content.size()), 0);
  }
  EXPECT_LT(used(), before + (20 << 20)) << "20 engines were closed with 60 MiB";
}

TEST_F(Notify, BeyondEveryLimitAreRefusedUnread) {
  // Not even mapped: the size is looked at first.
  void *const nowhere = reinterpret_cast<void *>(4096);
  EXPECT_EQ(flagcxP2pEngineSendNotifBytes(conn, "huge", nowhere, size_t(8) << 30), -1);
  EXPECT_NE(std::string(flagcxP2pEngineLastError()).find("at most 1048576"), std::string::npos)
      << flagcxP2pEngineLastError();
  EXPECT_EQ(flagcxP2pEngineSendNotifBytes(conn, std::string(257, 'n').c_str(), "x", 1), -1);
}

TEST_F(Notify, LargerThanThePeerTakesAreRefused) {
  const Memory content(64 << 20);
  EXPECT_EQ(flagcxP2pEngineSendNotifBytes(conn, "huge", content.data(), content.size()), -1);
  EXPECT_STRNE(flagcxP2pEngineLastError(), "");
  EXPECT_EQ(flagcxP2pEngineSendNotifBytes(conn, "null", nullptr, 1), -1);
  EXPECT_EQ(flagcxP2pEngineSendNotifBytes(conn, nullptr, "x", 1), -1);
  EXPECT_EQ(flagcxP2pEngineSendNotifBytes(nullptr, "n", "x", 1), -1);
  EXPECT_EQ(flagcxP2pEngineGetNotifsOf(server.get(), nullptr, nullptr), -1);
  ASSERT_EQ(send(conn, "still", "works"), 512);
  EXPECT_EQ(takeOf(server, 1).size(), 1u);
}

TEST_F(Notify, AreTakenAsOneBlock) {
  const std::string large(1000, 'x');
  ASSERT_EQ(send(conn, "small", "text"), 512);
  ASSERT_EQ(flagcxP2pEngineSendNotifBytes(conn, "large", large.data(), large.size()), 0);
  std::string all;
  const auto deadline = std::chrono::steady_clock::now() + 10s;
  constexpr size_t kHead = FLAGCX_P2P_MSG_SIZE + sizeof(uint64_t);
  while (all.size() < 2 * kHead + FLAGCX_P2P_MSG_SIZE + large.size() && std::chrono::steady_clock::now() < deadline) {
    void *block = nullptr;
    size_t bytes = 0;
    ASSERT_EQ(flagcxP2pEngineTakeNotifs(server.get(), &block, &bytes), 0) << flagcxP2pEngineLastError();
    EXPECT_EQ(block == nullptr, bytes == 0);
    all.append(static_cast<const char *>(block), bytes);
    free(block);
  }
  std::map<std::string, std::string> received;
  for (size_t at = 0; at + kHead <= all.size();) {
    uint64_t length = 0;
    memcpy(&length, &all[at + FLAGCX_P2P_MSG_SIZE], sizeof(length));
    received[all.c_str() + at] = all.substr(at + kHead, length);
    at += kHead + length;
  }
  ASSERT_EQ(received.size(), 2u);
  EXPECT_STREQ(received["small"].c_str(), "text");
  EXPECT_EQ(received["small"].size(), size_t{FLAGCX_P2P_MSG_SIZE});
  EXPECT_EQ(received["large"], large);
  size_t bytes = 0;
  EXPECT_EQ(flagcxP2pEngineTakeNotifs(server.get(), nullptr, &bytes), -1);
}

TEST_F(Notify, OfSameProcessConnectionsArriveAsWell) {
  const Ends same = connect(client, server, true);
  ASSERT_NE(same.connected, nullptr);
  ASSERT_EQ(send(same.connected.get(), "same", "process"), 512);
  EXPECT_EQ(take(1).size(), 1u);
}

TEST_F(Notify, AreStillReceivedAfterStopAccept) {
  flagcxP2pEngineStopAccept(server.get());
  ASSERT_EQ(send(conn, "after", "stop"), 512);
  EXPECT_EQ(take(1).size(), 1u);
}

TEST_F(Notify, ToAPeerThatIsGoneAreRefusedInTheEnd) {
  ends.accepted.reset();
  remote.reset();
  server.reset();
  const auto deadline = std::chrono::steady_clock::now() + 10s;
  int sent = 512;
  while (sent == 512 && std::chrono::steady_clock::now() < deadline) {
    sent = send(conn, "to", "the closed peer");
    std::this_thread::sleep_for(1ms);
  }
  EXPECT_EQ(sent, -1);
}
