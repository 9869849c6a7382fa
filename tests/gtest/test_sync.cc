// SPDX-License-Identifier: Apache-2.0
//
// Calls that answer when the bytes are at the peer, or that they are not.
#include <atomic>
#include <thread>

#include "support.h"

using namespace support;

class Sync : public Pair {
 protected:
  int write(size_t offset, size_t size) {
    return flagcxP2pEngineWriteVectorSync(conn, {local->region()}, {local->data() + offset}, {size},
                                          {remote->desc(offset, size)});
  }

  int batch(std::vector<uint64_t> from, std::vector<uint64_t> to, std::vector<uint64_t> sizes) {
    return flagcxP2pRpcBatchWriteSync(conn, static_cast<int>(from.size()), from.data(), to.data(), sizes.data());
  }
};

TEST_F(Sync, WriteVectorSyncAnswersWithTheBytesThere) {
  local->scramble(1);
  for (size_t i = 0; i < 50; ++i) {
    ASSERT_EQ(write(i * 1000, 1000), 0) << flagcxP2pEngineLastError();
    ASSERT_EQ(bytes(*remote, i * 1000, 1000), bytes(*local, i * 1000, 1000)) << i;
  }
}

TEST_F(Sync, NoPiecesAreDoneAtOnce) {
  EXPECT_EQ(flagcxP2pEngineWriteVectorSync(conn, {}, {}, {}, {}), 0);
  EXPECT_EQ(flagcxP2pEngineWriteVectorSync(conn, {1}, {}, {7}, {}), 0);
}

TEST_F(Sync, AFailedTransferIsNoSuccess) {
  // The key of a deregistered region: the call must answer -1, refused by the fabric, or here if the client has heard of it.
  FlagcxP2pRdmaDesc stale;
  {
    const Buffer gone(server, 4096);
    stale = gone.desc(0, 4096);
  }
  EXPECT_EQ(flagcxP2pEngineWriteVectorSync(conn, {local->region()}, {local->data()}, {4096}, {stale}), -1);
  EXPECT_STRNE(flagcxP2pEngineLastError(), "");
}

TEST_F(Sync, BatchWritesEveryPiece) {
  local->scramble(2);
  std::vector<uint64_t> from, to, sizes;
  std::string expected = bytes(*remote, 0, kBytes);
  for (size_t i = 0; i < 100; ++i) {
    from.push_back(local->address() + i * 300);
    to.push_back(remote->address() + (99 - i) * 500);
    sizes.push_back(i * 3);
    expected.replace((99 - i) * 500, i * 3, bytes(*local, i * 300, i * 3));
  }
  ASSERT_EQ(batch(from, to, sizes), 0) << flagcxP2pEngineLastError();
  EXPECT_TRUE(bytes(*remote, 0, kBytes) == expected);
}

TEST_F(Sync, BatchIsAllOrNothing) {
  local->scramble(3);
  const std::string before = bytes(*remote, 0, kBytes);
  const uint64_t from = local->address(), to = remote->address();
  const struct {
    const char *what;
    uint64_t from, to, size;
  } bad[] = {
      {"local range beyond its region", from + kBytes - 10, to, 11},
      {"local address in no region", 0x1000, to, 10},
      {"remote range beyond its region", from, to + kBytes - 10, 11},
      {"remote address in no region", from, 0x1000, 10},
      {"a size that would fit if cut to its low 32 bits", from, to, (uint64_t(1) << 32) + 10},
      {"a size that wraps the address", from + 10, to + 10, UINT64_MAX},
  };
  for (const auto &test : bad) {
    EXPECT_EQ(batch({from, test.from, from}, {to, test.to, to}, {10, test.size, 10}), -1) << test.what;
    EXPECT_TRUE(bytes(*remote, 0, kBytes) == before) << test.what;
    EXPECT_NE(std::string(flagcxP2pEngineLastError()).find("1"), std::string::npos)
        << test.what << ": the piece is not named: " << flagcxP2pEngineLastError();
  }
}

TEST_F(Sync, BatchFindsMemoryThatWasRegisteredAgain) {
  Memory memory(4096), other(64);
  FlagcxP2pMr region = 0;
  ASSERT_EQ(flagcxP2pEngineReg(server.get(), memory.address(), memory.size(), region), 0);
  for (uint8_t round = 0; round < 20; ++round) {
    local->scramble(round);
    // After one announcement the next waits for a millisecond: the call comes before that of the memory's end and its new region.
    FlagcxP2pMr first = 0;
    ASSERT_EQ(flagcxP2pEngineReg(server.get(), other.address(), other.size(), first), 0);
    flagcxP2pEngineMrDestroy(server.get(), first);
    flagcxP2pEngineMrDestroy(server.get(), region);
    ASSERT_EQ(flagcxP2pEngineReg(server.get(), memory.address(), memory.size(), region), 0);
    ASSERT_EQ(batch({local->address()}, {memory.address()}, {memory.size()}), 0)
        << int{round} << ": " << flagcxP2pEngineLastError();
    ASSERT_EQ(bytes(memory, 0, memory.size()), bytes(*local, 0, memory.size()));
  }
  flagcxP2pEngineMrDestroy(server.get(), region);
}

TEST_F(Sync, BatchOfNothingIsDone) {
  EXPECT_EQ(flagcxP2pRpcBatchWriteSync(conn, 0, nullptr, nullptr, nullptr), 0);
  EXPECT_EQ(batch({local->address()}, {remote->address()}, {0}), 0);
}

TEST_F(Sync, BatchOfEmptyPiecesIsDoneWhereverTheyAre) {
  const uint64_t from = local->address(), to = remote->address();
  const std::string before = bytes(*remote, 0, kBytes);
  EXPECT_EQ(batch({0, 0x1000, UINT64_MAX}, {UINT64_MAX, 0, 0x1000}, {0, 0, 0}), 0) << flagcxP2pEngineLastError();
  // Beside a piece with bytes each address counts.
  EXPECT_EQ(batch({from, 0x1000}, {to, to}, {10, 0}), -1);
  EXPECT_EQ(batch({from, from}, {to, 0x1000}, {10, 0}), -1);
  EXPECT_TRUE(bytes(*remote, 0, kBytes) == before);
}

TEST_F(Sync, ManyThreadsMayWriteOverOneConnection) {
  constexpr size_t kThreads = 4, kRounds = 50, kPart = kBytes / kThreads;
  local->scramble(4);
  std::atomic<int> refused{0};
  std::vector<std::thread> threads;
  for (size_t thread = 0; thread < kThreads; ++thread)
    threads.emplace_back([&, thread] {
      for (size_t round = 0; round < kRounds; ++round) refused += write(thread * kPart + round * 1000, 1000) != 0;
    });
  for (std::thread &thread : threads) thread.join();
  EXPECT_EQ(refused, 0);
  for (size_t thread = 0; thread < kThreads; ++thread)
    EXPECT_TRUE(bytes(*remote, thread * kPart, kRounds * 1000) == bytes(*local, thread * kPart, kRounds * 1000));
}
