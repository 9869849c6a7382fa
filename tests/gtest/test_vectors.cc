// SPDX-License-Identifier: Apache-2.0
//
// Transfers of many pieces.
#include "support.h"

using namespace support;

namespace {

// The arguments of a vector call.
struct Pieces {
  std::vector<FlagcxP2pMr> regions;
  std::vector<void *> local;
  std::vector<size_t> sizes;
  std::vector<FlagcxP2pRdmaDesc> descs;
  int count() const { return static_cast<int>(local.size()); }
};

} // namespace

class Vectors : public Pair {
 protected:
  void SetUp() override {
    Pair::SetUp();
    if (HasFatalFailure())
      return;
    local->scramble(5);
    remote->scramble(6);
  }

  void add(Pieces &pieces, size_t localOffset, size_t remoteOffset, size_t size) {
    pieces.regions.push_back(local->region());
    pieces.local.push_back(local->data() + localOffset);
    pieces.sizes.push_back(size);
    pieces.descs.push_back(remote->desc(remoteOffset, size));
  }

  testing::AssertionResult write(const Pieces &pieces, int count) {
    uint64_t transfer = 0;
    if (flagcxP2pEngineWriteVector(conn, pieces.regions, pieces.local, pieces.sizes, pieces.descs, count,
                                   &transfer) != 0)
      return testing::AssertionFailure() << flagcxP2pEngineLastError();
    return succeeds(conn, transfer);
  }

  testing::AssertionResult read(const Pieces &pieces, int count) {
    uint64_t transfer = 0;
    if (flagcxP2pEngineReadVector(conn, pieces.regions, pieces.local, pieces.sizes, pieces.descs, count, &transfer) !=
        0)
      return testing::AssertionFailure() << flagcxP2pEngineLastError();
    return succeeds(conn, transfer);
  }
};

class VectorsOfCount : public Vectors, public testing::WithParamInterface<int> {
 protected:
  // Pieces of uneven sizes; local ones in order, remote ones in reverse, with a gap of a byte between all of them.
  Pieces make(int count, std::string &expected, bool write) {
    const size_t stride = kBytes / count;
    Pieces pieces;
    for (int i = 0; i < count; ++i) {
      const size_t size = 1 + (i * 37) % (stride - 1);
      const size_t from = i * stride, to = (count - 1 - i) * stride;
      add(pieces, from, to, size);
      if (write)
        expected.replace(to, size, bytes(*local, from, size));
      else
        expected.replace(from, size, bytes(*remote, to, size));
    }
    return pieces;
  }
};

TEST_P(VectorsOfCount, WriteEveryPieceAndNothingElse) {
  std::string expected = bytes(*remote, 0, kBytes);
  const Pieces pieces = make(GetParam(), expected, true);
  ASSERT_TRUE(write(pieces, pieces.count()));
  EXPECT_TRUE(bytes(*remote, 0, kBytes) == expected);
}

TEST_P(VectorsOfCount, ReadEveryPieceAndNothingElse) {
  std::string expected = bytes(*local, 0, kBytes);
  const Pieces pieces = make(GetParam(), expected, false);
  ASSERT_TRUE(read(pieces, pieces.count()));
  EXPECT_TRUE(bytes(*local, 0, kBytes) == expected);
}

INSTANTIATE_TEST_SUITE_P(Counts, VectorsOfCount,
                         testing::Values(1, 2, 3, 4, 5, 31, 64, 255, 256, 257, 1024, 4095, 4096),
                         testing::PrintToStringParamName());

TEST_F(Vectors, NeighbouringPiecesArriveWhole) {
  Pieces pieces;
  for (size_t i = 0; i < 256; ++i) add(pieces, i * 4096, i * 4096, 4096);
  ASSERT_TRUE(write(pieces, pieces.count()));
  EXPECT_TRUE(bytes(*remote, 0, kBytes) == bytes(*local, 0, kBytes));
}

TEST_F(Vectors, ScatteredOnOneSideContiguousOnTheOther) {
  Pieces pieces;
  for (size_t i = 0; i < 64; ++i) add(pieces, i * 8192, i * 100, 100);
  ASSERT_TRUE(write(pieces, pieces.count()));
  for (size_t i = 0; i < 64; ++i) ASSERT_EQ(bytes(*remote, i * 100, 100), bytes(*local, i * 8192, 100)) << i;
}

TEST_F(Vectors, ElementsBeyondTheCountAreIgnored) {
  Pieces pieces;
  for (size_t i = 0; i < 4; ++i) add(pieces, i * 100, i * 100, 100);
  pieces.regions.back() = 0; // would be refused if it were looked at
  std::string expected = bytes(*remote, 0, kBytes);
  expected.replace(0, 300, bytes(*local, 0, 300));
  ASSERT_TRUE(write(pieces, 3));
  EXPECT_TRUE(bytes(*remote, 0, kBytes) == expected);
}

TEST_F(Vectors, EmptyPiecesAreAllowed) {
  Pieces pieces;
  add(pieces, 0, 0, 0);
  add(pieces, 10, 20, 30);
  add(pieces, 40, 60, 0);
  std::string expected = bytes(*remote, 0, kBytes);
  expected.replace(20, 30, bytes(*local, 10, 30));
  ASSERT_TRUE(write(pieces, pieces.count()));
  EXPECT_TRUE(bytes(*remote, 0, kBytes) == expected);
}

TEST_F(Vectors, PiecesMayUseManyRegions) {
  std::vector<std::unique_ptr<Buffer>> sources;
  Pieces pieces;
  for (uint8_t i = 0; i < 16; ++i) {
    sources.push_back(std::make_unique<Buffer>(client, 4096, i + 1));
    pieces.regions.push_back(sources.back()->region());
    pieces.local.push_back(sources.back()->data());
    pieces.sizes.push_back(4096);
    pieces.descs.push_back(remote->desc(4096 * i, 4096));
  }
  ASSERT_TRUE(write(pieces, pieces.count()));
  for (uint8_t i = 0; i < 16; ++i)
    EXPECT_EQ(bytes(*remote, 4096 * i, 4096), std::string(4096, static_cast<char>(i + 1)));
}

TEST_F(Vectors, OneBadPieceStopsAllOfThem) {
  for (const int bad : {0, 1, 2}) {
    Pieces pieces;
    for (size_t i = 0; i < 3; ++i) add(pieces, i * 100, i * 100, 100);
    pieces.local[bad] = local->data() + kBytes - 50; // 50 bytes stick out
    const std::string before = bytes(*remote, 0, kBytes);
    uint64_t transfer = 4711;
    EXPECT_EQ(
        flagcxP2pEngineWriteVector(conn, pieces.regions, pieces.local, pieces.sizes, pieces.descs, 3, &transfer), -1)
        << bad;
    EXPECT_EQ(transfer, 4711u);
    EXPECT_TRUE(bytes(*remote, 0, kBytes) == before) << bad;
  }
}
