// SPDX-License-Identifier: Apache-2.0
//
// Two engines connect; other clients at an engine's port, and other servers.
#include <atomic>
#include <thread>

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support.h"

using namespace support;

namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

sockaddr_in inetAddress(const std::string &host, int port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  EXPECT_EQ(inet_pton(AF_INET, host.c_str(), &address.sin_addr), 1) << host;
  return address;
}

// A client that is no engine: connects, sends `bytes`, and closes its socket when destroyed.
class OtherClient {
 public:
  OtherClient(const Address &to, const std::string &bytes) : socket_(socket(AF_INET, SOCK_STREAM, 0)) {
    const sockaddr_in address = inetAddress(to.host, to.port);
    EXPECT_EQ(connect(socket_, reinterpret_cast<const sockaddr *>(&address), sizeof(address)), 0);
    EXPECT_EQ(send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  ~OtherClient() { close(socket_); }

 private:
  int socket_;
};

// A TCP server that is no engine.
class OtherServer {
 public:
  OtherServer() : socket_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = inetAddress("127.0.0.1", 0);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(socket_, reinterpret_cast<sockaddr *>(&address), size), 0);
    EXPECT_EQ(listen(socket_, 8), 0);
    EXPECT_EQ(getsockname(socket_, reinterpret_cast<sockaddr *>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
  }
  ~OtherServer() { close(socket_); }
  int port() const { return port_; }
  // Takes one client and answers it.
  void answerOne(const std::string &answer) {
    const int client = accept(socket_, nullptr, nullptr);
    EXPECT_EQ(send(client, answer.data(), answer.size(), MSG_NOSIGNAL), static_cast<ssize_t>(answer.size()));
    close(client);
  }

 private:
  int socket_;
  int port_ = 0;
};

// Accepts until a peer is there, as servers do: a failed handshake answers NULL and is not the end. Null once `stop`
// is set and accepting is stopped.
Conn acceptAny(const Engine &engine, const std::atomic<bool> &stop) {
  Conn conn;
  while (conn == nullptr && !stop) {
    char address[64];
    int gpu = 0;
    conn.reset(flagcxP2pEngineAccept(engine.get(), address, sizeof(address), &gpu));
  }
  return conn;
}

} // namespace

TEST(ConnectAccept, BothSidesGetAConnection) {
  const Engine client = createEngine(), server = createEngine();
  const Ends ends = connect(client, server);
  ASSERT_NE(ends.connected, nullptr) << flagcxP2pEngineLastError();
  ASSERT_NE(ends.accepted, nullptr);
  EXPECT_EQ(ends.peerAddress, addressOf(client).host);
  EXPECT_GE(ends.peerGpu, -1);
  EXPECT_EQ(flagcxP2pEngineStartListener(ends.accepted.get()), 0);
}

TEST(ConnectAccept, OneHostIsLocalOnBothSides) {
  const Engine client = createEngine(), server = createEngine();
  const Ends ends = connect(client, server);
  ASSERT_TRUE(ends.connected && ends.accepted);
  EXPECT_TRUE(flagcxP2pEngineConnIsLocal(ends.connected.get()));
  EXPECT_TRUE(flagcxP2pEngineConnIsLocal(ends.accepted.get()));
  EXPECT_FALSE(flagcxP2pEngineConnIsLocal(nullptr));
}

TEST(ConnectAccept, SameProcessConnectionsMoveData) {
  const Engine client = createEngine(), server = createEngine();
  const Buffer local(client, 8192, 5), remote(server, 8192);
  const Ends ends = connect(client, server, true);
  ASSERT_TRUE(ends.connected && ends.accepted);
  uint64_t transfer = 0;
  ASSERT_EQ(flagcxP2pEngineWrite(ends.connected.get(), 0, local.data(), 8192, remote.desc(0, 8192), &transfer), 0);
  EXPECT_TRUE(succeeds(ends.connected.get(), transfer));
  EXPECT_EQ(bytes(remote, 0, 8192), std::string(8192, 5));
}

TEST(ConnectAccept, ManyConnectionsBetweenTwoEngines) {
  const Engine client = createEngine(), server = createEngine();
  std::vector<Ends> all;
  for (int i = 0; i < 5; ++i) {
    all.push_back(connect(client, server));
    ASSERT_TRUE(all.back().connected && all.back().accepted) << i;
  }
}

TEST(ConnectAccept, ConcurrentClientsAllGetTheirOwn) {
  constexpr int kClients = 4;
  const Engine server = createEngine();
  const Buffer remote(server, 4096 * kClients);
  const Address address = addressOf(server);
  std::vector<Conn> accepted;
  std::atomic<bool> stop{false};
  std::thread acceptor([&] {
    for (int i = 0; i < kClients; ++i) accepted.push_back(acceptAny(server, stop));
  });
  std::atomic<int> succeeded{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < kClients; ++i)
    clients.emplace_back([&, i] {
      const Engine client = createEngine();
      const Buffer local(client, 4096, static_cast<uint8_t>(i + 1));
      const Conn conn(flagcxP2pEngineConnect(client.get(), address.host.c_str(), 0, address.port));
      uint64_t transfer = 0;
      if (conn != nullptr &&
          flagcxP2pEngineWrite(conn.get(), 0, local.data(), 4096, remote.desc(4096 * i, 4096), &transfer) == 0 &&
          succeeds(conn.get(), transfer))
        ++succeeded;
    });
  for (std::thread &client : clients) client.join();
  stop = true;
  flagcxP2pEngineStopAccept(server.get());
  acceptor.join();
  EXPECT_EQ(succeeded, kClients);
  for (int i = 0; i < kClients; ++i)
    EXPECT_EQ(bytes(remote, 4096 * i, 4096), std::string(4096, static_cast<char>(i + 1))) << "client " << i;
}

TEST(ConnectAccept, AConnectionMayBeDestroyedWhileThePeerKeepsItsEnd) {
  const Engine client = createEngine(), server = createEngine();
  Ends ends = connect(client, server);
  ASSERT_TRUE(ends.connected && ends.accepted);
  ends.connected.reset();
  ends.accepted.reset();
  const Ends again = connect(client, server);
  EXPECT_TRUE(again.connected && again.accepted);
}

TEST(ConnectAccept, TheAddressIsCutToTheBuffer) {
  const Engine client = createEngine(), server = createEngine();
  const Address address = addressOf(server);
  char buffer[5] = {'x', 'x', 'x', 'x', 'x'};
  Conn accepted;
  int gpu = 0;
  std::thread acceptor([&] { accepted.reset(flagcxP2pEngineAccept(server.get(), buffer, 4, &gpu)); });
  const Conn conn(flagcxP2pEngineConnect(client.get(), address.host.c_str(), 0, address.port));
  acceptor.join();
  ASSERT_NE(accepted, nullptr);
  EXPECT_EQ(std::string(buffer), addressOf(client).host.substr(0, 3));
  EXPECT_EQ(buffer[4], 'x');
}

TEST(ConnectAccept, AnUnknownHostAnswersNullAtOnce) {
  const Engine client = createEngine();
  const auto start = Clock::now();
  EXPECT_EQ(flagcxP2pEngineConnect(client.get(), "256.256.256.256", 0, 12345), nullptr);
  EXPECT_LT(Clock::now() - start, 5s);
}

TEST(ConnectAccept, ARefusedPortAnswersNullWithinTheConnectTimeout) {
  const Engine client = createEngine();
  const auto start = Clock::now();
  EXPECT_EQ(flagcxP2pEngineConnect(client.get(), "127.0.0.1", 0, 1), nullptr);
  EXPECT_LT(Clock::now() - start, 5s);
}

TEST(ConnectAccept, PortsThatCannotBeAreRefused) {
  const Engine client = createEngine();
  for (const int port : {0, -1, 65536, 70000, INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(flagcxP2pEngineConnect(client.get(), "127.0.0.1", 0, port), nullptr) << port;
    EXPECT_NE(std::string(flagcxP2pEngineLastError()).find("port"), std::string::npos);
  }
}

TEST(ConnectAccept, APortWhereSomethingElseListensAnswersNull) {
  const Engine client = createEngine();
  for (const char *answer : {"", "HTTP/1.1 400 Bad Request\r\n\r\n"}) {
    OtherServer other;
    std::thread server([&] { other.answerOne(answer); });
    const auto start = Clock::now();
    EXPECT_EQ(flagcxP2pEngineConnect(client.get(), "127.0.0.1", 0, other.port()), nullptr);
    EXPECT_LT(Clock::now() - start, 10s);
    EXPECT_STRNE(flagcxP2pEngineLastError(), "");
    server.join();
  }
}

TEST(ConnectAccept, OtherClientsDoNotBlockPeers) {
  const Engine client = createEngine(), server = createEngine();
  const Address address = addressOf(server);
  Conn accepted;
  std::atomic<bool> stop{false};
  std::thread acceptor([&] { accepted = acceptAny(server, stop); });
  { const OtherClient closes(address, ""); }
  { const OtherClient malformed(address, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); }
  const OtherClient silent(address, "");
  const Conn conn(flagcxP2pEngineConnect(client.get(), address.host.c_str(), 0, address.port));
  EXPECT_NE(conn, nullptr) << flagcxP2pEngineLastError();
  if (conn == nullptr) {
    stop = true;
    flagcxP2pEngineStopAccept(server.get());
  }
  acceptor.join();
  EXPECT_NE(accepted, nullptr);
}
