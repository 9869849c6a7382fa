// SPDX-License-Identifier: Apache-2.0
#include "support.h"

#include <cstdio>
#include <cstdlib>
#include <thread>

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

namespace support {

namespace {

using namespace std::chrono_literals;

// A test that has not ended by then hangs: print which, and stop the program with a core of all its threads.
constexpr unsigned kTestSeconds = 60;
constexpr auto kPatience = 10s;

char runningTest[256];

void onAlarm(int) {
  static const char text[] = "\nhangs: ";
  (void)!write(STDERR_FILENO, text, sizeof(text) - 1);
  (void)!write(STDERR_FILENO, runningTest, strlen(runningTest));
  (void)!write(STDERR_FILENO, "\n", 1);
  abort();
}

class Watchdog : public testing::EmptyTestEventListener {
  void OnTestStart(const testing::TestInfo &test) override {
    std::snprintf(runningTest, sizeof(runningTest), "%s.%s", test.test_suite_name(), test.name());
    alarm(kTestSeconds);
  }
  void OnTestEnd(const testing::TestInfo &) override { alarm(0); }
};

// Before main, so before anything reads the configuration.
const bool prepared = [] {
  setenv("FLAGCX_P2P_FABRIC", "software", 0);
  setenv("FLAGCX_P2P_CONNECT_TIMEOUT_MS", "1000", 0);
  setenv("FLAGCX_P2P_HANDSHAKE_TIMEOUT_MS", "2000", 0);
  signal(SIGALRM, onAlarm);
  testing::UnitTest::GetInstance()->listeners().Append(new Watchdog);
  return true;
}();

} // namespace

Engine createEngine() {
  Engine engine(flagcxP2pEngineCreate());
  EXPECT_NE(engine, nullptr) << flagcxP2pEngineLastError();
  return engine;
}

Memory::Memory(size_t bytes, uint8_t value)
    : size_(bytes),
      data_(static_cast<uint8_t *>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)),
            Unmap{bytes}) {
  memset(data_.get(), value, bytes);
}

void Memory::Unmap::operator()(uint8_t *data) const {
  munmap(data, bytes);
}

void Memory::scramble(uint32_t seed) {
  uint32_t state = seed * 2654435761u + 1;
  for (size_t i = 0; i < size_; ++i) {
    state = state * 1664525u + 1013904223u;
    data()[i] = static_cast<uint8_t>(state >> 24);
  }
}

Buffer::Buffer(const Engine &engine, size_t bytes, uint8_t value) : Memory(bytes, value), engine_(engine.get()) {
  EXPECT_EQ(flagcxP2pEngineReg(engine_, address(), bytes, region_), 0) << flagcxP2pEngineLastError();
  EXPECT_NE(region_, 0u);
}

Buffer::~Buffer() {
  flagcxP2pEngineMrDestroy(engine_, region_);
}

FlagcxP2pRdmaDesc Buffer::desc(size_t offset, size_t bytes) const {
  char image[FLAGCX_P2P_DESC_SIZE] = {};
  EXPECT_EQ(flagcxP2pEnginePrepareDesc(engine_, region_, data() + offset, bytes, image), 0)
      << flagcxP2pEngineLastError();
  FlagcxP2pRdmaDesc desc;
  flagcxP2pDeserializeRdmaDesc(image, &desc);
  return desc;
}

std::string bytes(const Memory &memory, size_t offset, size_t count) {
  return std::string(reinterpret_cast<const char *>(memory.data()) + offset, count);
}

std::string metadataOf(const Engine &engine) {
  char *text = nullptr;
  EXPECT_EQ(flagcxP2pEngineGetMetadata(engine.get(), &text), 0) << flagcxP2pEngineLastError();
  const std::unique_ptr<char[]> owned(text);
  return text == nullptr ? "" : text;
}

Address addressOf(const Engine &engine) {
  const std::string metadata = metadataOf(engine);
  const std::string session = metadata.substr(0, metadata.find('?'));
  const size_t colon = session.rfind(':');
  if (colon == std::string::npos)
    return {};
  return {session.substr(0, colon), std::atoi(session.c_str() + colon + 1)};
}

Ends connect(const Engine &from, const Engine &to, bool sameProcess) {
  Ends ends;
  std::thread acceptor([&] {
    char address[64] = {};
    ends.accepted.reset(flagcxP2pEngineAccept(to.get(), address, sizeof(address), &ends.peerGpu));
    ends.peerAddress = address;
  });
  const Address peer = addressOf(to);
  ends.connected.reset(flagcxP2pEngineConnect(from.get(), peer.host.c_str(), 0, peer.port, sameProcess));
  if (ends.connected == nullptr)
    flagcxP2pEngineStopAccept(to.get()); // or the thread would wait without end
  acceptor.join();
  return ends;
}

bool await(FlagcxP2pConn *conn, uint64_t transfer) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!flagcxP2pEngineXferStatus(conn, transfer)) {
    if (std::chrono::steady_clock::now() > deadline)
      return false;
    std::this_thread::yield();
  }
  return true;
}

FlagcxP2pXferResult resultOf(FlagcxP2pConn *conn, uint64_t transfer) {
  FlagcxP2pXferResult result = {};
  result.size = sizeof(result);
  const int timeout = static_cast<int>(std::chrono::milliseconds(kPatience).count());
  const int answer = flagcxP2pEngineXferWait(conn, transfer, timeout, &result);
  EXPECT_GE(answer, 0) << flagcxP2pEngineLastError();
  return result;
}

testing::AssertionResult succeeds(FlagcxP2pConn *conn, uint64_t transfer) {
  const FlagcxP2pXferResult result = resultOf(conn, transfer);
  if (result.state == FLAGCX_P2P_XFER_DONE)
    return testing::AssertionSuccess();
  return testing::AssertionFailure() << "transfer " << transfer << " is in state " << result.state << ": piece "
                                     << result.iov << ", status " << result.status << ", " << result.reason;
}

// How many rails connections are to have: FLAGCX_P2P_TEST_RAILS, one where it is not set.
static size_t wantedRails() {
  const char *const text = std::getenv("FLAGCX_P2P_TEST_RAILS");
  return text ? std::strtoul(text, nullptr, 10) : 1;
}

static size_t railsUp(FlagcxP2pConn *conn) {
  FlagcxP2pRailInfo rails[FLAGCX_P2P_MAX_RAILS] = {};
  rails[0].size = sizeof(rails[0]);
  size_t count = 0, up = 0;
  EXPECT_EQ(flagcxP2pEngineGetRails(conn, rails, FLAGCX_P2P_MAX_RAILS, &count), 0) << flagcxP2pEngineLastError();
  for (size_t rail = 0; rail < count; ++rail) up += rails[rail].state == FLAGCX_P2P_RAIL_UP;
  return up;
}

// Rails are made for bytes under way: moves the same ones many times.
static void makeRails(FlagcxP2pConn *conn, const Buffer &local, const Buffer &remote, size_t bytes) {
  const size_t pieces = 40;
  const std::vector<FlagcxP2pMr> regions(pieces, local.region());
  const std::vector<void *> from(pieces, local.data());
  const std::vector<size_t> sizes(pieces, bytes);
  const std::vector<FlagcxP2pRdmaDesc> to(pieces, remote.desc(0, bytes));
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (railsUp(conn) < wantedRails()) {
    ASSERT_LT(std::chrono::steady_clock::now(), limit) << "only " << railsUp(conn) << " rails are up";
    uint64_t transfer = 0;
    ASSERT_EQ(flagcxP2pEngineWriteVector(conn, regions, from, sizes, to, pieces, &transfer), 0)
        << flagcxP2pEngineLastError();
    ASSERT_TRUE(succeeds(conn, transfer));
  }
}

FlagcxP2pRdmaDesc Pair::unknownDesc() const {
  FlagcxP2pRdmaDesc desc = remote->desc(0, 4096);
  desc.rkey = ~desc.rkey;
  return desc;
}

void Pair::SetUp() {
  client = createEngine();
  server = createEngine();
  ASSERT_TRUE(client && server);
  local = std::make_unique<Buffer>(client, kBytes);
  remote = std::make_unique<Buffer>(server, kBytes);
  ends = connect(client, server);
  conn = ends.connected.get();
  ASSERT_NE(conn, nullptr) << flagcxP2pEngineLastError();
  ASSERT_NE(ends.accepted, nullptr);
  if (wantedRails() > 1) {
    ASSERT_NO_FATAL_FAILURE(makeRails(conn, *local, *remote, kBytes));
  }
}

} // namespace support
