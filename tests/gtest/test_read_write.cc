// SPDX-License-Identifier: Apache-2.0
//
// Scalar reads and writes: exactly the bytes asked for, nothing beside them.
#include "support.h"

using namespace support;

class ReadWrite : public Pair {
 protected:
  void SetUp() override {
    Pair::SetUp();
    if (HasFatalFailure())
      return;
    local->scramble(1);
    remote->scramble(2);
  }

  // Starts a transfer of `size` bytes between the two offsets and waits for it.
  testing::AssertionResult move(bool write, size_t localOffset, size_t remoteOffset, size_t size) {
    uint64_t transfer = 0;
    const FlagcxP2pRdmaDesc desc = remote->desc(remoteOffset, size);
    const auto start = write ? flagcxP2pEngineWrite : flagcxP2pEngineRead;
    if (start(conn, local->region(), local->data() + localOffset, size, desc, &transfer) != 0)
      return testing::AssertionFailure() << flagcxP2pEngineLastError();
    return succeeds(conn, transfer);
  }
};

TEST_F(ReadWrite, WritesAWholeBuffer) {
  const std::string before = bytes(*local, 0, kBytes);
  ASSERT_TRUE(move(true, 0, 0, kBytes));
  EXPECT_TRUE(bytes(*remote, 0, kBytes) == before);
  EXPECT_TRUE(bytes(*local, 0, kBytes) == before) << "the source changed";
}

TEST_F(ReadWrite, ReadsAWholeBuffer) {
  const std::string before = bytes(*remote, 0, kBytes);
  ASSERT_TRUE(move(false, 0, 0, kBytes));
  EXPECT_TRUE(bytes(*local, 0, kBytes) == before);
  EXPECT_TRUE(bytes(*remote, 0, kBytes) == before) << "the source changed";
}

TEST_F(ReadWrite, LeavesWhatIsAroundTheWindowAlone) {
  // Odd offsets and lengths, across page and cache line borders.
  const struct {
    size_t local, remote, size;
  } windows[] = {{0, 0, 1},         {1, 2, 3},      {63, 65, 64},      {4095, 1, 2},
                 {100, 4000, 5000}, {7, 11, 65537}, {0, 1, kBytes - 1}};
  for (const bool write : {true, false})
    for (const auto &window : windows) {
      local->scramble(3);
      remote->scramble(4);
      std::string expectedLocal = bytes(*local, 0, kBytes), expectedRemote = bytes(*remote, 0, kBytes);
      if (write)
        expectedRemote.replace(window.remote, window.size, expectedLocal, window.local, window.size);
      else
        expectedLocal.replace(window.local, window.size, expectedRemote, window.remote, window.size);
      ASSERT_TRUE(move(write, window.local, window.remote, window.size));
      EXPECT_TRUE(bytes(*local, 0, kBytes) == expectedLocal) << write << " " << window.size;
      EXPECT_TRUE(bytes(*remote, 0, kBytes) == expectedRemote) << write << " " << window.size;
    }
}

TEST_F(ReadWrite, ReadsARetargetedSubRange) {
  FlagcxP2pRdmaDesc desc = remote->desc(0, kBytes);
  const size_t offset = 1000, size = 192;
  ASSERT_EQ(flagcxP2pEngineUpdateDesc(desc, remote->address() + offset, size), 0);
  std::string expected = bytes(*local, 0, kBytes);
  expected.replace(512, size, bytes(*remote, offset, size));
  uint64_t transfer = 0;
  ASSERT_EQ(flagcxP2pEngineRead(conn, local->region(), local->data() + 512, size, desc, &transfer), 0);
  ASSERT_TRUE(await(conn, transfer));
  EXPECT_TRUE(bytes(*local, 0, kBytes) == expected);
}

TEST_F(ReadWrite, WorksFromTheAcceptingSideAsWell) {
  FlagcxP2pConn *const accepted = ends.accepted.get();
  uint64_t transfer = 0;
  ASSERT_EQ(flagcxP2pEngineWrite(accepted, 0, remote->data(), 5000, local->desc(10, 5000), &transfer), 0);
  ASSERT_TRUE(succeeds(accepted, transfer));
  EXPECT_EQ(bytes(*local, 10, 5000), bytes(*remote, 0, 5000));
  ASSERT_EQ(flagcxP2pEngineRead(accepted, 0, remote->data() + 8192, 77, local->desc(20000, 77), &transfer), 0);
  ASSERT_TRUE(succeeds(accepted, transfer));
  EXPECT_EQ(bytes(*remote, 8192, 77), bytes(*local, 20000, 77));
}

TEST_F(ReadWrite, FindsTheLocalRegionByAddressWhateverIdIsGiven) {
  for (const FlagcxP2pMr id : {FlagcxP2pMr(0), FlagcxP2pMr(123456789), local->region()}) {
    uint64_t transfer = 0;
    ASSERT_EQ(flagcxP2pEngineWrite(conn, id, local->data(), 64, remote->desc(0, 64), &transfer), 0);
    EXPECT_TRUE(succeeds(conn, transfer));
  }
}

TEST_F(ReadWrite, MovesNothingWhenAskedTo) {
  const std::string before = bytes(*remote, 0, kBytes);
  ASSERT_TRUE(move(true, 0, 0, 0));
  ASSERT_TRUE(move(false, 0, 0, 0));
  EXPECT_TRUE(bytes(*remote, 0, kBytes) == before);
}

TEST_F(ReadWrite, SeesTheBytesOfEachTransferInTurn) {
  for (int round = 0; round < 200; ++round) {
    local->data()[round] = static_cast<uint8_t>(round);
    ASSERT_TRUE(move(true, round, round, 1)) << round;
    ASSERT_EQ(remote->data()[round], static_cast<uint8_t>(round));
  }
}

TEST_F(ReadWrite, TransferIdsAreNotReusedAtOnce) {
  uint64_t first = 0, second = 0;
  ASSERT_EQ(flagcxP2pEngineWrite(conn, 0, local->data(), 64, remote->desc(0, 64), &first), 0);
  ASSERT_TRUE(await(conn, first));
  ASSERT_EQ(flagcxP2pEngineWrite(conn, 0, local->data(), 64, remote->desc(0, 64), &second), 0);
  ASSERT_TRUE(await(conn, second));
  EXPECT_TRUE(first == 0 || first != second);
  EXPECT_TRUE(flagcxP2pEngineXferStatus(conn, first)) << "a released id reads as ended";
}

TEST_F(ReadWrite, ManyTransfersMayBeInFlight) {
  constexpr size_t kCount = 500, kSize = 2000;
  std::vector<uint64_t> transfers(kCount);
  for (size_t i = 0; i < kCount; ++i)
    ASSERT_EQ(flagcxP2pEngineWrite(conn, 0, local->data() + i * kSize, kSize, remote->desc(i * kSize, kSize),
                                   &transfers[i]),
              0)
        << i << ": " << flagcxP2pEngineLastError();
  for (const uint64_t transfer : transfers) EXPECT_TRUE(succeeds(conn, transfer));
  EXPECT_TRUE(bytes(*remote, 0, kCount * kSize) == bytes(*local, 0, kCount * kSize));
}
