// SPDX-License-Identifier: Apache-2.0
//
// Connecting by name: several addresses, an IPv6 address without a listener, name servers that never answer.
//
// The names are those of a hosts file and the name server that of a resolv.conf, both laid over the machine's in a mount
// namespace of this program. That takes root; without it the tests are skipped.
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <thread>

#include <arpa/inet.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"

using namespace support;

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr char kHosts[] =
    "127.0.0.1 localhost\n"
    "::1 localhost\n"
    "::1 both\n"
    "127.0.0.1 both\n"
    "127.0.0.9 four\n"
    "127.0.0.8 four\n"
    "127.0.0.7 four\n"
    "127.0.0.1 four\n";
// Asked for all of its names, and silent: a look-up takes 25 s.
constexpr char kNameServer[] = "127.0.0.2";
constexpr char kResolver[] = "nameserver 127.0.0.2\noptions timeout:5 attempts:5\n";
// What a call may take on top of its limit; a machine that stalls takes some.
constexpr milliseconds kSlack(900);
// What a connect may take where every address answers at once, on an emulated machine too. Of several calls the quickest
// counts.
constexpr milliseconds kAtOnce(250);
// The limit of every connect. Before the library is used: it reads its configuration once. Names have nothing to do with
// the fabric, so it is the one that needs no more than loopback.
const milliseconds kLimit = [] {
  setenv("FLAGCX_P2P_FABRIC", "software", 1);
  setenv("FLAGCX_P2P_CONNECT_TIMEOUT_MS", "1000", 1);
  setenv("FLAGCX_P2P_BIND", "127.0.0.1", 1);
  return milliseconds(1000);
}();
// Names that the library looks up at a time.
constexpr int kPlaces = 16;

// Lays a file with this content over `path`; false with errno when it cannot.
bool cover(const char *path, const char *content) {
  char name[] = "/tmp/flagcx-p2p-names-XXXXXX";
  const int file = mkstemp(name);
  if (file < 0)
    return false;
  const ssize_t size = static_cast<ssize_t>(strlen(content));
  const bool covered = write(file, content, size) == size && fchmod(file, 0644) == 0 &&
                       mount(name, path, nullptr, MS_BIND, nullptr) == 0;
  const int error = errno;
  close(file);
  unlink(name);
  errno = error;
  return covered;
}

// A UDP socket at the name server's port; -1 with errno when there can be none.
int silentNameServer() {
  const int server = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(53);
  inet_pton(AF_INET, kNameServer, &address.sin_addr);
  if (bind(server, reinterpret_cast<sockaddr *>(&address), sizeof(address)) == 0)
    return server;
  const int error = errno;
  close(server);
  errno = error;
  return -1;
}

// A TCP server that is no engine, at `port` of ::1; -1 with errno when there can be none. Its clients get no
// answer until it is closed.
int foreignServer(int port) {
  const int server = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in6 address = {};
  address.sin6_family = AF_INET6;
  address.sin6_port = htons(static_cast<uint16_t>(port));
  address.sin6_addr = in6addr_loopback;
  if (bind(server, reinterpret_cast<sockaddr *>(&address), sizeof(address)) == 0 && listen(server, 8) == 0)
    return server;
  const int error = errno;
  close(server);
  errno = error;
  return -1;
}

// Why the names cannot be had, empty if they can.
std::string prepare() {
  const auto failed = [](const char *what) { return std::string(what) + ": " + strerror(errno); };
  if (unshare(CLONE_NEWNS) != 0)
    return failed("no mount namespace of our own (needs root)");
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return failed("cannot make the mounts private");
  if (!cover("/etc/hosts", kHosts))
    return failed("cannot cover /etc/hosts");
  if (!cover("/etc/resolv.conf", kResolver))
    return failed("cannot cover /etc/resolv.conf");
  // Where there is none, glibc asks the same two.
  if (!cover("/etc/nsswitch.conf", "hosts: files dns\n") && errno != ENOENT)
    return failed("cannot cover nsswitch.conf");
  if (silentNameServer() < 0)
    return failed("no socket at 127.0.0.2:53");
  return "";
}

// What a call to connect came to, and how long it took.
struct Result {
  bool connected;
  std::string error;
  milliseconds took;
};

template <typename Call>
Result timed(Call call) {
  const Clock::time_point begin = Clock::now();
  const bool connected = call();
  const auto took = std::chrono::duration_cast<milliseconds>(Clock::now() - begin);
  return {connected, connected ? "" : flagcxP2pEngineLastError(), took};
}

class Names : public testing::Test {
 protected:
  static void SetUpTestSuite() { obstacle = prepare(); }

  void SetUp() override {
    if (!obstacle.empty())
      GTEST_SKIP() << obstacle;
    client = createEngine();
    server = createEngine();
    ASSERT_EQ(flagcxP2pEngineStartRpcServer(server.get()), 0);
    port = flagcxP2pEngineGetRpcPort(server.get());
  }

  Result connect(const std::string &host, int to) const {
    return timed([&] { return Conn(flagcxP2pEngineConnect(client.get(), host.c_str(), 0, to)) != nullptr; });
  }

  // Bounds of a call that can only fail.
  static testing::AssertionResult tookTheLimit(const Result &result) {
    if (!result.connected && result.took >= kLimit && result.took < kLimit + kSlack)
      return testing::AssertionSuccess();
    return testing::AssertionFailure() << (result.connected ? "connected" : result.error) << ", after "
                                       << result.took.count() << " ms";
  }

  // The quickest of several connects.
  milliseconds quickest(const std::string &host) const {
    milliseconds least = milliseconds::max();
    for (int i = 0; i < 5; ++i) {
      const Result result = connect(host, port);
      EXPECT_TRUE(result.connected) << result.error;
      least = std::min(least, result.took);
    }
    return least;
  }

  static std::string obstacle;
  Engine client, server;
  int port = 0;
};

std::string Names::obstacle;

constexpr int kDeadPort = 1;

} // namespace

TEST_F(Names, RefusedAddressesCostNoTime) {
  for (const char *host : {"localhost", "both", "four"}) {
    EXPECT_LT(quickest(host).count(), kAtOnce.count()) << host;
    const std::string session = std::string(host) + ":" + std::to_string(port);
    const Result result = timed([&] { return flagcxP2pEngineGetConn(client.get(), session.c_str()) != nullptr; });
    EXPECT_TRUE(result.connected) << result.error;
    EXPECT_LT(result.took.count(), kLimit.count()) << host;
  }
}

TEST_F(Names, OneLimitHoldsForAllAddresses) {
  const Result result = connect("four", kDeadPort);
  EXPECT_TRUE(tookTheLimit(result));
  for (const char *address : {"127.0.0.9:1", "127.0.0.8:1", "127.0.0.7:1", "127.0.0.1:1"})
    EXPECT_NE(result.error.find(address + std::string(" refused")), std::string::npos) << result.error;
  EXPECT_TRUE(tookTheLimit(connect("both", kDeadPort)));
  EXPECT_TRUE(tookTheLimit(timed([&] { return flagcxP2pEngineGetConn(client.get(), "four:1") != nullptr; })));
}

TEST_F(Names, AnAddressWithoutAPeerLeadsToTheNext) {
  const int foreign = foreignServer(port);
  if (foreign < 0)
    GTEST_SKIP() << "no socket at ::1: " << strerror(errno);
  // One that sends nothing takes its share of the time for the handshake.
  const Result silent = connect("both", port);
  EXPECT_TRUE(silent.connected) << silent.error;
  EXPECT_GE(silent.took.count(), 1000);
  // One that closes the socket takes none.
  std::thread closing([&] {
    int client;
    while ((client = accept(foreign, nullptr, nullptr)) >= 0) close(client);
  });
  EXPECT_LT(quickest("both").count(), kAtOnce.count());
  shutdown(foreign, SHUT_RDWR);
  closing.join();
  close(foreign);
}

// The last one: what it begins hangs for 25 s.
TEST_F(Names, NameServersThatNeverAnswerDelayOnlyCallsThatNeedThem) {
  const Result silent = connect("silent-0.example.org", port);
  EXPECT_TRUE(tookTheLimit(silent));
  EXPECT_NE(silent.error.find("no answer from the system's resolver"), std::string::npos) << silent.error;

  std::vector<std::thread> others;
  for (int i = 1; i < kPlaces - 1; ++i)
    others.emplace_back(
        [&, i] { EXPECT_TRUE(tookTheLimit(connect("silent-" + std::to_string(i) + ".example.org", port))); });
  for (std::thread &other : others) other.join();
  // There is one place left.
  EXPECT_LT(quickest("both").count(), kAtOnce.count());
  EXPECT_TRUE(tookTheLimit(connect("silent-last.example.org", port)));

  // Now there is none. Calls that name an address need none.
  EXPECT_LT(quickest("127.0.0.1").count(), kAtOnce.count());
  const Result late = connect("both", port);
  EXPECT_TRUE(tookTheLimit(late));
  EXPECT_NE(late.error.find("16 other names are being looked up"), std::string::npos) << late.error;
}
