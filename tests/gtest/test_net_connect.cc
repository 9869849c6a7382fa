// SPDX-License-Identifier: Apache-2.0
//
// The net adaptor's listen, connect, accept and their ends.
#include <atomic>
#include <thread>

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net_support.h"

using namespace support;
using namespace std::chrono_literals;

namespace {

using NetConnect = NetPair;

TEST_F(NetConnect, CommsBeginWithTheirDevice) {
  EXPECT_EQ(*static_cast<int *>(sendComm), 0);
  EXPECT_EQ(*static_cast<int *>(recvComm), 0);
}

TEST_F(NetConnect, ListenWritesFortyBytes) {
  char fresh[128];
  memset(fresh, 0x5a, sizeof(fresh));
  void *listener = nullptr;
  ASSERT_EQ(net.listen(0, fresh, &listener), flagcxSuccess);
  const unsigned char magic[8] = {0x6c, 0x9d, 0x4b, 0xfc, 0xf2, 0xb9, 0x4a, 0x56};
  EXPECT_EQ(memcmp(fresh + 32, magic, sizeof(magic)), 0);
  for (int i = 40; i < 128; ++i) EXPECT_EQ(fresh[i], 0x5a) << "byte " << i;
  EXPECT_EQ(net.closeListen(listener), flagcxSuccess);
}

TEST_F(NetConnect, OneListenerAcceptsManyPeers) {
  memset(handle + 40, 0xff, sizeof(handle) - 40); // means nothing
  for (int i = 0; i < 3; ++i) {
    void *send = nullptr, *recv = nullptr;
    connectTo(listenComm, handle, &send, &recv);
    EXPECT_TRUE(send != nullptr && recv != nullptr);
    EXPECT_EQ(net.closeRecv(recv), flagcxSuccess);
    EXPECT_EQ(net.closeSend(send), flagcxSuccess);
  }
}

TEST_F(NetConnect, AHandleWithAWrongMagicIsRefused) {
  handle[33] ^= 1;
  void *comm = nullptr;
  EXPECT_EQ(net.connect(0, handle, &comm), flagcxInvalidArgument);
  EXPECT_EQ(comm, nullptr);
}

TEST_F(NetConnect, MissingArgumentsAreRefused) {
  void *comm = nullptr;
  EXPECT_EQ(net.listen(0, nullptr, &comm), flagcxInvalidArgument);
  EXPECT_EQ(net.listen(0, handle, nullptr), flagcxInvalidArgument);
  EXPECT_EQ(net.connect(0, nullptr, &comm), flagcxInvalidArgument);
  EXPECT_EQ(net.connect(0, handle, nullptr), flagcxInvalidArgument);
  EXPECT_EQ(net.accept(nullptr, &comm), flagcxInternalError);
  EXPECT_EQ(net.accept(listenComm, nullptr), flagcxInvalidArgument);
  EXPECT_EQ(comm, nullptr);
}

TEST_F(NetConnect, AbortEndsABlockedAccept) {
  std::atomic<bool> ended{false};
  flagcxResult_t answer = flagcxSuccess;
  void *comm = nullptr;
  std::thread acceptor([&] {
    answer = net.accept(listenComm, &comm);
    ended = true;
  });
  std::this_thread::sleep_for(50ms);
  EXPECT_FALSE(ended);
  EXPECT_EQ(flagcxNetIbP2pAbortListen(listenComm), flagcxSuccess);
  acceptor.join();
  EXPECT_EQ(answer, flagcxInternalError);
  EXPECT_EQ(comm, nullptr);
  EXPECT_EQ(flagcxNetIbP2pAbortListen(listenComm), flagcxSuccess);
  EXPECT_EQ(net.accept(listenComm, &comm), flagcxInternalError);
}

TEST_F(NetConnect, ClosingAListenerEndsABlockedAccept) {
  char other[128] = {};
  void *listener = nullptr, *comm = nullptr;
  ASSERT_EQ(net.listen(0, other, &listener), flagcxSuccess);
  flagcxResult_t answer = flagcxSuccess;
  std::thread acceptor([&] { answer = net.accept(listener, &comm); });
  std::this_thread::sleep_for(50ms);
  EXPECT_EQ(net.closeListen(listener), flagcxSuccess);
  acceptor.join();
  EXPECT_EQ(answer, flagcxInternalError);
}

TEST_F(NetConnect, AnAbortedListenerCannotBeConnectedTo) {
  ASSERT_EQ(flagcxNetIbP2pAbortListen(listenComm), flagcxSuccess);
  void *comm = nullptr;
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(net.connect(0, handle, &comm), flagcxSystemError);
  EXPECT_EQ(comm, nullptr);
  EXPECT_LT(std::chrono::steady_clock::now() - start, 5s);
}

TEST_F(NetConnect, ConnectingToAListenerThatDoesNotAcceptTimesOut) {
  void *comm = nullptr;
  EXPECT_EQ(net.connect(0, handle, &comm), flagcxSystemError);
  EXPECT_EQ(comm, nullptr);
}

// The socket address is the first thing in a handle.
int dial(const char *handle) {
  sockaddr_in address;
  memcpy(&address, handle, sizeof(address));
  address.sin_family = AF_INET;
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr *>(&address), sizeof(address)), 0);
  return fd;
}

TEST_F(NetConnect, OtherClientsAreClosed) {
  const int silent = dial(handle);
  const int malformed = dial(handle);
  ASSERT_EQ(write(malformed, "GET / HTTP/1.1\r\n\r\n", 18), 18);
  void *send = nullptr, *recv = nullptr;
  connectTo(listenComm, handle, &send, &recv);
  EXPECT_TRUE(send != nullptr && recv != nullptr);
  net.closeSend(send);
  net.closeRecv(recv);
  close(silent);
  close(malformed);
}

TEST_F(NetConnect, APeerThatClosesItsSocketIsARemoteError) {
  const int listening = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(bind(listening, reinterpret_cast<sockaddr *>(&address), sizeof(address)), 0);
  ASSERT_EQ(listen(listening, 1), 0);
  socklen_t length = sizeof(address);
  ASSERT_EQ(getsockname(listening, reinterpret_cast<sockaddr *>(&address), &length), 0);
  memset(handle, 0, 32);
  memcpy(handle, &address, 8);
  std::thread peer([&] {
    const int fd = accept(listening, nullptr, nullptr);
    char hello[12];
    EXPECT_EQ(recv(fd, hello, sizeof(hello), MSG_WAITALL), static_cast<ssize_t>(sizeof(hello)));
    close(fd);
  });
  void *comm = nullptr;
  EXPECT_EQ(net.connect(0, handle, &comm), flagcxRemoteError);
  EXPECT_EQ(comm, nullptr);
  peer.join();
  close(listening);
}

} // namespace
