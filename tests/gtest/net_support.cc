// SPDX-License-Identifier: Apache-2.0
#include "net_support.h"

#include <thread>

namespace support {

using namespace std::chrono_literals;

NetMemory::NetMemory(void *comm, size_t bytes, uint8_t value, int flags) : Memory(bytes, value), comm_(comm) {
  EXPECT_EQ(flagcxNetIbP2p.regMr(comm, data(), bytes, FLAGCX_PTR_HOST, flags, &handle_), flagcxSuccess)
      << flagcxP2pEngineLastError();
}

NetMemory::~NetMemory() {
  if (handle_ != nullptr) {
    EXPECT_EQ(flagcxNetIbP2p.deregMr(comm_, handle_), flagcxSuccess) << flagcxP2pEngineLastError();
  }
}

flagcxResult_t finish(void *request, int *size) {
  const auto deadline = std::chrono::steady_clock::now() + 10s;
  while (std::chrono::steady_clock::now() < deadline) {
    int done = -1;
    const flagcxResult_t answer = flagcxNetIbP2p.test(request, &done, size);
    if (done != 0) {
      EXPECT_EQ(done, 1);
      return answer;
    }
    EXPECT_EQ(answer, flagcxSuccess) << "an unfinished request is no error";
  }
  ADD_FAILURE() << "not done within 10 s";
  return flagcxInProgress;
}

flagcxResult_t finishAll(std::vector<void *> &requests) {
  const auto deadline = std::chrono::steady_clock::now() + 10s;
  std::vector<int> done(requests.size(), -1);
  flagcxResult_t all = flagcxSuccess;
  while (std::chrono::steady_clock::now() < deadline) {
    int count = -1;
    const flagcxResult_t answer =
        flagcxNetIbP2p.testBatch(requests.data(), static_cast<int>(requests.size()), done.data(), &count);
    if (answer != flagcxSuccess)
      all = answer;
    int flagged = 0;
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(done[i] == 1, requests[i] == nullptr) << "request " << i;
      flagged += done[i];
    }
    EXPECT_EQ(count, flagged);
    if (count == static_cast<int>(requests.size()))
      return all;
  }
  ADD_FAILURE() << "not done within 10 s";
  return flagcxInProgress;
}

void NetPair::SetUp() {
  ASSERT_EQ(net.init(), flagcxSuccess) << flagcxP2pEngineLastError();
  int devices = -1;
  ASSERT_EQ(net.devices(&devices), flagcxSuccess);
  ASSERT_GT(devices, 0) << "these tests need a device; FLAGCX_P2P_FABRIC=software always has one";
  ASSERT_EQ(net.listen(0, handle, &listenComm), flagcxSuccess) << flagcxP2pEngineLastError();
  connectTo(listenComm, handle, &sendComm, &recvComm);
  ASSERT_TRUE(sendComm != nullptr && recvComm != nullptr) << flagcxP2pEngineLastError();
}

void NetPair::TearDown() {
  EXPECT_EQ(net.closeSend(sendComm), flagcxSuccess);
  EXPECT_EQ(net.closeRecv(recvComm), flagcxSuccess);
  EXPECT_EQ(net.closeListen(listenComm), flagcxSuccess);
}

void NetPair::connectTo(void *listenComm, void *handle, void **sendComm, void **recvComm) {
  std::thread acceptor([&] { EXPECT_EQ(flagcxNetIbP2p.accept(listenComm, recvComm), flagcxSuccess); });
  EXPECT_EQ(flagcxNetIbP2p.connect(0, handle, sendComm), flagcxSuccess) << flagcxP2pEngineLastError();
  if (*sendComm == nullptr)
    flagcxNetIbP2pAbortListen(listenComm); // or the thread would wait for ever
  acceptor.join();
}

} // namespace support
