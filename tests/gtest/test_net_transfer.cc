// SPDX-License-Identifier: Apache-2.0
//
// The net adaptor's one-sided transfers and their requests.
#include <climits>
#include <thread>

#include "net_support.h"

using namespace support;

namespace {

// Sender and receiver are one process, so both handles are at hand, as in FlagCX's own tests.
class NetTransfer : public NetPair {
 protected:
  void SetUp() override {
    NetPair::SetUp();
    if (HasFatalFailure())
      return;
    local = std::make_unique<NetMemory>(sendComm, kBytes);
    remote = std::make_unique<NetMemory>(recvComm, kBytes);
    local->scramble(1);
    remote->scramble(2);
  }
  void TearDown() override {
    remote.reset();
    local.reset();
    NetPair::TearDown();
  }
  void *put(uint64_t from, uint64_t to, size_t size) {
    void *request = nullptr;
    EXPECT_EQ(net.iput(sendComm, from, to, size, 0, 1, local->handles(), remote->handles(), &request), flagcxSuccess)
        << flagcxP2pEngineLastError();
    EXPECT_NE(request, nullptr);
    return request;
  }

  std::unique_ptr<NetMemory> local, remote;
};

TEST_F(NetTransfer, PutMovesItsWindow) {
  const std::string before = bytes(*remote, 0, kBytes), source = bytes(*local, 0, kBytes);
  int size = -1;
  EXPECT_EQ(finish(put(100, 5000, 4096), &size), flagcxSuccess);
  EXPECT_EQ(size, 4096);
  EXPECT_EQ(bytes(*remote, 5000, 4096), source.substr(100, 4096));
  EXPECT_EQ(bytes(*remote, 0, 5000), before.substr(0, 5000));
  EXPECT_EQ(bytes(*remote, 9096, kBytes - 9096), before.substr(9096));
  EXPECT_EQ(bytes(*local, 0, kBytes), source);
}

TEST_F(NetTransfer, GetMovesItsWindow) {
  const std::string before = bytes(*local, 0, kBytes);
  void *request = nullptr;
  ASSERT_EQ(net.iget(sendComm, 7, 3000, kBytes - 3000, 1, 0, remote->handles(), local->handles(), &request),
            flagcxSuccess);
  int size = -1;
  EXPECT_EQ(finish(request, &size), flagcxSuccess);
  EXPECT_EQ(size, static_cast<int>(kBytes - 3000));
  EXPECT_EQ(bytes(*local, 3000, kBytes - 3000), bytes(*remote, 7, kBytes - 3000));
  EXPECT_EQ(bytes(*local, 0, 3000), before.substr(0, 3000));
}

TEST_F(NetTransfer, EitherEndMayStart) {
  void *request = nullptr;
  ASSERT_EQ(net.iput(recvComm, 0, 0, kBytes, 1, 0, remote->handles(), local->handles(), &request), flagcxSuccess);
  EXPECT_EQ(finish(request), flagcxSuccess);
  EXPECT_EQ(bytes(*local, 0, kBytes), bytes(*remote, 0, kBytes));
}

TEST_F(NetTransfer, NoBytesAreATransfer) {
  int size = -1;
  EXPECT_EQ(finish(put(0, 0, 0), &size), flagcxSuccess);
  EXPECT_EQ(size, 0);
}

TEST_F(NetTransfer, ARemoteHandleNeedsOnlyAddressAndKey) {
  // As one that came over the wire.
  MemoryHandle foreign = {remote->view().base, 0, remote->view().rkey, nullptr, -1};
  MemoryHandle own = {local->view().base, local->view().lkey, 0, nullptr, 0};
  void *request = nullptr;
  ASSERT_EQ(net.iput(sendComm, 0, 0, 4096, 0, 1, reinterpret_cast<void **>(&own), reinterpret_cast<void **>(&foreign),
                     &request),
            flagcxSuccess);
  EXPECT_EQ(finish(request), flagcxSuccess);
  EXPECT_EQ(bytes(*remote, 0, 4096), bytes(*local, 0, 4096));
}

TEST_F(NetTransfer, WhatMakesNoSenseIsRefused) {
  void *request = nullptr;
  void **const from = local->handles(), **const to = remote->handles();
  EXPECT_EQ(net.iput(sendComm, 0, 0, size_t{UINT32_MAX} + 1, 0, 1, from, to, &request), flagcxInternalError);
  EXPECT_EQ(net.iget(sendComm, 0, 0, SIZE_MAX, 1, 0, to, from, &request), flagcxInternalError);
  EXPECT_EQ(net.iput(nullptr, 0, 0, 8, 0, 1, from, to, &request), flagcxInternalError);
  EXPECT_EQ(net.iput(sendComm, 0, 0, 8, 0, 1, nullptr, to, &request), flagcxInternalError);
  EXPECT_EQ(net.iput(sendComm, 0, 0, 8, 0, 1, from, nullptr, &request), flagcxInternalError);
  EXPECT_EQ(net.iput(sendComm, 0, 0, 8, 0, 1, from, to, nullptr), flagcxInternalError);
  EXPECT_EQ(net.iput(sendComm, kBytes - 7, 0, 8, 0, 1, from, to, &request), flagcxInternalError) << "local range";
  EXPECT_EQ(net.iput(sendComm, UINT64_MAX, 0, 8, 0, 1, from, to, &request), flagcxInternalError);
  EXPECT_EQ(net.iput(sendComm, 0, UINT64_MAX, 8, 0, 1, from, to, &request), flagcxInternalError);
  EXPECT_EQ(request, nullptr);
}

TEST_F(NetTransfer, AFailureIsToldAndEndsTheRequest) {
  MemoryHandle wrong = remote->view();
  wrong.rkey ^= 0x00ff00ff;
  const std::string before = bytes(*remote, 0, kBytes);
  void *request = nullptr;
  ASSERT_EQ(net.iput(sendComm, 0, 0, 512, 0, 1, local->handles(), reinterpret_cast<void **>(&wrong), &request),
            flagcxSuccess);
  int size = -1;
  EXPECT_EQ(finish(request, &size), flagcxInternalError);
  EXPECT_EQ(size, 0);
  EXPECT_EQ(bytes(*remote, 0, kBytes), before);
  void *good = put(0, 0, 512);
  EXPECT_EQ(finish(good), flagcxSuccess);
  EXPECT_EQ(finish(request), flagcxInternalError) << "asked again";
  EXPECT_EQ(finish(good, &size), flagcxSuccess);
  EXPECT_EQ(size, 0) << "counted already";
}

TEST_F(NetTransfer, ACommSurvivesFailures) {
  MemoryHandle wrong = remote->view();
  wrong.rkey ^= 0x00ff00ff;
  for (int i = 0; i < 8; ++i) { // more than it has queue pairs
    void *bad = nullptr;
    ASSERT_EQ(net.iput(sendComm, 0, 0, 64, 0, 1, local->handles(), reinterpret_cast<void **>(&wrong), &bad),
              flagcxSuccess)
        << flagcxP2pEngineLastError();
    EXPECT_EQ(finish(bad), flagcxInternalError);
  }
  EXPECT_EQ(finish(put(0, 0, 4096)), flagcxSuccess);
  EXPECT_EQ(bytes(*remote, 0, 4096), bytes(*local, 0, 4096));
}

TEST_F(NetTransfer, AfterThePeerClosedTransfersFail) {
  EXPECT_EQ(net.closeRecv(recvComm), flagcxSuccess);
  recvComm = nullptr;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  flagcxResult_t answer = flagcxSuccess;
  while (answer == flagcxSuccess && std::chrono::steady_clock::now() < deadline) {
    void *request = nullptr;
    answer = net.iput(sendComm, 0, 0, 64, 0, 1, local->handles(), remote->handles(), &request);
    if (answer == flagcxSuccess)
      answer = finish(request);
  }
  EXPECT_NE(answer, flagcxSuccess);
  void *request = nullptr;
  EXPECT_EQ(net.iput(sendComm, 0, 0, 64, 0, 1, local->handles(), remote->handles(), &request), flagcxRemoteError);
}

TEST_F(NetTransfer, ARangeBeyondTheRemoteRegionFails) {
  void *request = nullptr;
  ASSERT_EQ(net.iput(sendComm, 0, kBytes - 7, 8, 0, 1, local->handles(), remote->handles(), &request), flagcxSuccess);
  EXPECT_EQ(finish(request), flagcxInternalError);
}

TEST_F(NetTransfer, ARequestPolledAfterItWasDoneIsDone) {
  void *const request = put(0, 0, 64);
  EXPECT_EQ(finish(request), flagcxSuccess);
  for (int i = 0; i < 3; ++i) {
    int done = 0, size = -1;
    EXPECT_EQ(net.test(request, &done, &size), flagcxSuccess);
    EXPECT_EQ(done, 1);
    EXPECT_EQ(size, 0);
  }
  // Nor does the old one reach what uses its place now.
  void *const next = put(0, 128, 64);
  EXPECT_NE(next, request);
  int done = 0;
  EXPECT_EQ(net.test(request, &done, nullptr), flagcxSuccess);
  EXPECT_EQ(done, 1);
  int size = -1;
  EXPECT_EQ(finish(next, &size), flagcxSuccess);
  EXPECT_EQ(size, 64);
}

TEST_F(NetTransfer, RequestsOutliveTheirComm) {
  void *const request = put(0, 0, kBytes);
  EXPECT_EQ(net.closeSend(sendComm), flagcxSuccess);
  sendComm = nullptr;
  const auto ended = finish(request); // done or cancelled; nothing hangs, nothing is freed twice
  int done = 0;
  EXPECT_EQ(net.test(request, &done, nullptr), ended);
  EXPECT_EQ(done, 1);
}

TEST_F(NetTransfer, MoreRequestsThanTheQueuesHold) {
  constexpr size_t kCount = 3000;
  std::vector<void *> requests;
  for (size_t i = 0; i < kCount; ++i) requests.push_back(put(i * 64, (kCount - 1 - i) * 64, 64));
  EXPECT_EQ(finishAll(requests), flagcxSuccess);
  for (size_t i = 0; i < kCount; ++i)
    ASSERT_EQ(bytes(*remote, (kCount - 1 - i) * 64, 64), bytes(*local, i * 64, 64)) << i;
}

TEST_F(NetTransfer, ThreadsDoNotDisturbEachOther) {
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t)
    threads.emplace_back([this, t] {
      for (size_t i = 0; i < 200; ++i) EXPECT_EQ(finish(put(t * 1000, t * 1000, 1000)), flagcxSuccess);
    });
  for (std::thread &thread : threads) thread.join();
  EXPECT_EQ(bytes(*remote, 0, 4000), bytes(*local, 0, 4000));
}

TEST_F(NetTransfer, TestBatchOfOneAndOfSeveral) {
  for (size_t count : {1, 4}) {
    std::vector<void *> requests;
    for (size_t i = 0; i < count; ++i) requests.push_back(put(i * 1024, i * 1024, 1024));
    EXPECT_EQ(finishAll(requests), flagcxSuccess);
    // Asked once more: slots that were done stay done.
    std::vector<int> flags(count, 0);
    int done = -1;
    EXPECT_EQ(net.testBatch(requests.data(), static_cast<int>(count), flags.data(), &done), flagcxSuccess);
    EXPECT_EQ(done, static_cast<int>(count));
    EXPECT_EQ(flags, std::vector<int>(count, 1));
  }
  EXPECT_EQ(bytes(*remote, 0, 4096), bytes(*local, 0, 4096));
}

TEST_F(NetTransfer, TestBatchTellsThatOneFailed) {
  MemoryHandle wrong = remote->view();
  wrong.rkey ^= 0x00ff00ff;
  void *good = put(0, 0, 64), *bad = nullptr;
  EXPECT_EQ(finish(good), flagcxSuccess);
  ASSERT_EQ(net.iput(sendComm, 0, 0, 64, 0, 1, local->handles(), reinterpret_cast<void **>(&wrong), &bad),
            flagcxSuccess);
  std::vector<void *> requests = {nullptr, bad};
  EXPECT_EQ(finishAll(requests), flagcxInternalError);
}

TEST_F(NetTransfer, ABatchOfGetsIsOneRequest) {
  NetMemory other(recvComm, 8192);
  other.scramble(3);
  const uint64_t from[] = {0, 4096, 16}, to[] = {2048, 1024, 0};
  const size_t sizes[] = {512, 1024, 2048 - 1024};
  void *const sources[] = {remote->handle(), remote->handle(), other.handle()};
  void *const targets[] = {local->handle(), local->handle(), local->handle()};
  void *request = nullptr;
  ASSERT_EQ(net.igetBatch(sendComm, 3, from, to, sizes, 1, 0, sources, targets, &request), flagcxSuccess);
  int size = -1;
  EXPECT_EQ(finish(request, &size), flagcxSuccess);
  EXPECT_EQ(size, 512 + 1024 + 1024);
  EXPECT_EQ(bytes(*local, 2048, 512), bytes(*remote, 0, 512));
  EXPECT_EQ(bytes(*local, 1024, 1024), bytes(*remote, 4096, 1024));
  EXPECT_EQ(bytes(*local, 0, 1024), bytes(other, 16, 1024));
}

TEST_F(NetTransfer, ABatchOfOneGet) {
  const uint64_t from = 0, to = 64;
  const size_t size = 4096;
  void *const source = remote->handle(), *const target = local->handle();
  void *request = nullptr;
  ASSERT_EQ(net.igetBatch(sendComm, 1, &from, &to, &size, 1, 0, &source, &target, &request), flagcxSuccess);
  EXPECT_EQ(finish(request), flagcxSuccess);
  EXPECT_EQ(bytes(*local, 64, 4096), bytes(*remote, 0, 4096));
}

TEST_F(NetTransfer, TheLongestBatchOfGets) {
  const size_t count = flagcxP2pGlobalConfig().maxWrPerPost;
  std::vector<uint64_t> from, to;
  for (size_t i = 0; i < count; ++i) {
    from.push_back(i * 128);
    to.push_back((count - 1 - i) * 128);
  }
  std::vector<size_t> sizes(count + 1, 100);
  std::vector<void *> sources(count + 1, remote->handle()), targets(count + 1, local->handle());
  const auto get = [&](size_t pieces, void **request) {
    return net.igetBatch(sendComm, static_cast<int>(pieces), from.data(), to.data(), sizes.data(), 1, 0,
                         sources.data(), targets.data(), request);
  };
  void *request = nullptr;
  from.push_back(0);
  to.push_back(0);
  EXPECT_EQ(get(count + 1, &request), flagcxInternalError);
  EXPECT_EQ(request, nullptr);
  ASSERT_EQ(get(count, &request), flagcxSuccess);
  EXPECT_EQ(finish(request), flagcxSuccess);
  for (size_t i = 0; i < count; ++i) ASSERT_EQ(bytes(*local, to[i], 100), bytes(*remote, from[i], 100)) << i;
}

TEST_F(NetTransfer, BadBatchesOfGetsPostNothing) {
  const uint64_t offsets[2] = {0, 0};
  const size_t sizes[2] = {8, 8}, large[2] = {8, size_t{UINT32_MAX} + 1};
  void *const sources[2] = {remote->handle(), remote->handle()}, *const targets[2] = {local->handle(),
                                                                                      local->handle()};
  void *const holes[2] = {remote->handle(), nullptr};
  const std::string before = bytes(*local, 0, kBytes);
  void *request = nullptr;
  for (int count : {0, -1, INT_MIN, INT_MAX})
    EXPECT_EQ(net.igetBatch(sendComm, count, offsets, offsets, sizes, 1, 0, sources, targets, &request),
              flagcxInternalError);
  EXPECT_EQ(net.igetBatch(nullptr, 2, offsets, offsets, sizes, 1, 0, sources, targets, &request),
            flagcxInternalError);
  EXPECT_EQ(net.igetBatch(sendComm, 2, nullptr, offsets, sizes, 1, 0, sources, targets, &request),
            flagcxInternalError);
  EXPECT_EQ(net.igetBatch(sendComm, 2, offsets, nullptr, sizes, 1, 0, sources, targets, &request),
            flagcxInternalError);
  EXPECT_EQ(net.igetBatch(sendComm, 2, offsets, offsets, nullptr, 1, 0, sources, targets, &request),
            flagcxInternalError);
  EXPECT_EQ(net.igetBatch(sendComm, 2, offsets, offsets, sizes, 1, 0, nullptr, targets, &request),
            flagcxInternalError);
  EXPECT_EQ(net.igetBatch(sendComm, 2, offsets, offsets, sizes, 1, 0, sources, nullptr, &request),
            flagcxInternalError);
  EXPECT_EQ(net.igetBatch(sendComm, 2, offsets, offsets, sizes, 1, 0, sources, targets, nullptr),
            flagcxInternalError);
  EXPECT_EQ(net.igetBatch(sendComm, 2, offsets, offsets, sizes, 1, 0, holes, targets, &request), flagcxInternalError);
  EXPECT_EQ(net.igetBatch(sendComm, 2, offsets, offsets, large, 1, 0, sources, targets, &request),
            flagcxInternalError);
  EXPECT_EQ(request, nullptr);
  EXPECT_EQ(bytes(*local, 0, kBytes), before);
}

TEST_F(NetTransfer, ABatchOfPutsIsARequestEach) {
  constexpr int kCount = 5;
  const uint64_t from[kCount] = {0, 100, 200, 300, 400}, to[kCount] = {4000, 3000, 2000, 1000, 0};
  const size_t sizes[kCount] = {100, 50, 0, 100, 7};
  std::vector<void *> requests(kCount, this);
  int posted = -1;
  ASSERT_EQ(net.iputBatch(sendComm, kCount, from, to, sizes, 0, 1, local->handles(), remote->handles(),
                          requests.data(), &posted),
            flagcxSuccess);
  EXPECT_EQ(posted, kCount);
  for (int i = 0; i < kCount; ++i) {
    int size = -1;
    EXPECT_EQ(finish(requests[i], &size), flagcxSuccess);
    EXPECT_EQ(size, static_cast<int>(sizes[i]));
    EXPECT_EQ(bytes(*remote, to[i], sizes[i]), bytes(*local, from[i], sizes[i]));
  }
}

TEST_F(NetTransfer, BadBatchesOfPutsPostNothing) {
  const uint64_t offsets[2] = {0, 64};
  const size_t sizes[2] = {8, 8}, large[2] = {8, SIZE_MAX};
  void *requests[2] = {this, this};
  int posted = 7;
  const auto put = [&](void *comm, int count, const size_t *bytes, void **to) {
    return net.iputBatch(comm, count, offsets, offsets, bytes, 0, 1, local->handles(), to, requests, &posted);
  };
  EXPECT_EQ(put(sendComm, 0, sizes, remote->handles()), flagcxSuccess);
  EXPECT_EQ(posted, 0);
  EXPECT_EQ(put(sendComm, -1, sizes, remote->handles()), flagcxSuccess);
  EXPECT_EQ(requests[0], this);
  EXPECT_EQ(put(sendComm, INT_MAX, sizes, remote->handles()), flagcxInvalidArgument);
  EXPECT_EQ(put(nullptr, 2, sizes, remote->handles()), flagcxInvalidArgument);
  EXPECT_EQ(put(sendComm, 2, nullptr, remote->handles()), flagcxInvalidArgument);
  EXPECT_EQ(put(sendComm, 2, sizes, nullptr), flagcxInternalError);
  EXPECT_EQ(put(sendComm, 2, large, remote->handles()), flagcxInternalError);
  EXPECT_EQ(posted, 0);
  EXPECT_EQ(requests[0], nullptr);
  EXPECT_EQ(requests[1], nullptr);
  EXPECT_EQ(net.iputBatch(sendComm, 1, offsets, offsets, sizes, 0, 1, local->handles(), remote->handles(), nullptr,
                          &posted),
            flagcxInvalidArgument);
  EXPECT_EQ(net.iputBatch(sendComm, 1, offsets, offsets, sizes, 0, 1, local->handles(), remote->handles(), requests,
                          nullptr),
            flagcxInvalidArgument);
}

} // namespace
