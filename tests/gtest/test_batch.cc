// SPDX-License-Identifier: Apache-2.0
//
// Asking about many transfers in one call.
#include "support.h"

using namespace support;
using namespace std::chrono_literals;

class Batch : public Pair {
 protected:
  // Starts `count` writes of `size` bytes.
  std::vector<uint64_t> start(size_t count, size_t size) {
    std::vector<uint64_t> transfers(count);
    for (size_t i = 0; i < count; ++i)
      EXPECT_EQ(
          flagcxP2pEngineWrite(conn, 0, local->data() + i * size, size, remote->desc(i * size, size), &transfers[i]),
          0)
          << flagcxP2pEngineLastError();
    return transfers;
  }

  // Asks until all have ended; false after 10 s.
  bool awaitAll(const std::vector<uint64_t> &transfers, std::vector<uint32_t> &states) {
    states.assign(transfers.size(), 99);
    const auto deadline = std::chrono::steady_clock::now() + 10s;
    size_t ended = 0, before = 0;
    do {
      EXPECT_EQ(flagcxP2pEngineTestBatch(conn, transfers.data(), transfers.size(), states.data(), &ended), 0);
      EXPECT_GE(ended, before) << "an ended transfer came back to life";
      before = ended;
    } while (ended < transfers.size() && std::chrono::steady_clock::now() < deadline);
    return ended == transfers.size();
  }
};

TEST_F(Batch, OfEverySizeEndsWhole) {
  local->scramble(1);
  for (const size_t count : {1, 2, 63, 64, 65, 128, 200}) {
    std::vector<uint32_t> states;
    ASSERT_TRUE(awaitAll(start(count, 512), states)) << count;
    EXPECT_EQ(states, std::vector<uint32_t>(count, FLAGCX_P2P_XFER_DONE)) << count;
  }
  EXPECT_TRUE(bytes(*remote, 0, 200 * 512) == bytes(*local, 0, 200 * 512));
}

TEST_F(Batch, AskedAgainGivesTheSameAnswer) {
  const std::vector<uint64_t> transfers = start(8, 4096);
  std::vector<uint32_t> states;
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(awaitAll(transfers, states));
    EXPECT_EQ(states, std::vector<uint32_t>(8, FLAGCX_P2P_XFER_DONE)) << i;
  }
}

TEST_F(Batch, OfNothingIsNothing) {
  size_t ended = 99;
  EXPECT_EQ(flagcxP2pEngineTestBatch(conn, nullptr, 0, nullptr, &ended), 0);
  EXPECT_EQ(ended, 0u);
}

TEST_F(Batch, TellsGoodFromBadAndUnknown) {
  std::vector<uint64_t> transfers = start(1, 64);
  std::vector<uint32_t> states;
  ASSERT_TRUE(awaitAll(transfers, states)); // before the bad one breaks the way
  transfers.push_back(0);
  ASSERT_EQ(flagcxP2pEngineWrite(conn, 0, local->data(), 64, unknownDesc(), &transfers.back()), 0);
  transfers.push_back(0);          // complete
  transfers.push_back(UINT64_MAX); // never given out
  ASSERT_TRUE(awaitAll(transfers, states));
  EXPECT_EQ(states, (std::vector<uint32_t>{FLAGCX_P2P_XFER_DONE, FLAGCX_P2P_XFER_FAILED, FLAGCX_P2P_XFER_DONE,
                                           FLAGCX_P2P_XFER_UNKNOWN}));
}
