// SPDX-License-Identifier: Apache-2.0
//
// Shared memory: flagcxP2pEngineAllocShared, FreeShared and RegShared.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <thread>

#include "peer_process.h"
#include "support.h"

using namespace support;

namespace {

constexpr size_t kPage = 4096;
constexpr uint64_t kUntouched = 0x1122334455667788u;

// A device needs no file to reach the memory: it is private then, unless huge pages are asked for.
const bool overVerbs = [] {
  const char *const fabric = std::getenv("FLAGCX_P2P_FABRIC");
  return fabric != nullptr && std::string(fabric) == "verbs";
}();

std::string lastError() {
  return flagcxP2pEngineLastError();
}

// Refused with this reason, and nothing written.
#define EXPECT_REFUSED(call, reason)                                       \
  do {                                                                     \
    void *const before = address;                                          \
    id = kUntouched;                                                       \
    EXPECT_EQ((call), -1);                                                 \
    EXPECT_NE(lastError().find(reason), std::string::npos) << lastError(); \
    EXPECT_EQ(id, kUntouched);                                             \
    EXPECT_EQ(address, before);                                            \
  } while (0)

// Memory of AllocShared, freed with its end.
struct Shared {
  Shared(const Engine &engine, size_t bytes, uint32_t flags = 0) : engine(engine.get()) {
    EXPECT_EQ(flagcxP2pEngineAllocShared(this->engine, bytes, flags, &address, &id), 0) << lastError();
  }
  ~Shared() { EXPECT_EQ(flagcxP2pEngineFreeShared(engine, address), 0) << lastError(); }
  Shared(const Shared &) = delete;
  Shared &operator=(const Shared &) = delete;
  uint8_t *data() const { return static_cast<uint8_t *>(address); }
  uintptr_t start() const { return reinterpret_cast<uintptr_t>(address); }

  FlagcxP2pEngine *engine;
  void *address = nullptr;
  uint64_t id = 0;
};

bool isMapped(const void *address) {
  unsigned char resident;
  return mincore(const_cast<void *>(address), kPage, &resident) == 0;
}

size_t openDescriptors() {
  size_t count = 0;
  for (int fd = 0; fd < 1024; ++fd) count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

// Runs `call` with a lower limit.
void withLimit(__rlimit_resource resource, rlim_t limit, const std::function<void()> &call) {
  rlimit before = {};
  ASSERT_EQ(getrlimit(resource, &before), 0);
  const rlimit lower = {limit, before.rlim_max};
  ASSERT_EQ(setrlimit(resource, &lower), 0);
  call();
  ASSERT_EQ(setrlimit(resource, &before), 0);
}

class SharedMemory : public testing::Test {
 protected:
  Engine engine = createEngine();
  void *address = nullptr;
  uint64_t id = 0;
};

} // namespace

TEST_F(SharedMemory, IsZeroedAndReturnedWithItsRegion) {
  ASSERT_EQ(flagcxP2pEngineAllocShared(engine.get(), 100000, 0, &address, &id), 0) << lastError();
  ASSERT_NE(address, nullptr);
  EXPECT_NE(id, 0u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(address) % kPage, 0u);
  uint8_t *const bytes = static_cast<uint8_t *>(address);
  for (size_t i = 0; i < 100000; ++i) ASSERT_EQ(bytes[i], 0) << i;
  memset(address, 1, 100000);
  char desc[64];
  EXPECT_EQ(flagcxP2pEnginePrepareDesc(engine.get(), id, bytes + 99999, 1, desc), 0) << lastError();
  EXPECT_EQ(flagcxP2pEnginePrepareDesc(engine.get(), id, bytes + 100000, 1, desc), -1) << "no more than asked for";
  ASSERT_EQ(flagcxP2pEngineFreeShared(engine.get(), address), 0) << lastError();
  EXPECT_FALSE(isMapped(address));
}

TEST_F(SharedMemory, EachArgumentIsChecked) {
  FlagcxP2pEngine *const e = engine.get();
  EXPECT_REFUSED(flagcxP2pEngineAllocShared(nullptr, 1, 0, &address, &id), "AllocShared: engine is NULL");
  EXPECT_REFUSED(flagcxP2pEngineAllocShared(e, 1, 0, nullptr, &id), "AllocShared: address is NULL");
  EXPECT_REFUSED(flagcxP2pEngineAllocShared(e, 1, 0, &address, nullptr), "AllocShared: mrId is NULL");
  EXPECT_REFUSED(flagcxP2pEngineAllocShared(e, 0, 0, &address, &id), "0 bytes: ask for at least one");
  for (const uint32_t flag : {uint32_t(FLAGCX_P2P_REG_DEVICE), 4u, 128u, 4096u, 1u << 31})
    EXPECT_REFUSED(flagcxP2pEngineAllocShared(e, 1, flag, &address, &id), "allocation flags 0x");
  EXPECT_REFUSED(flagcxP2pEngineAllocShared(e, SIZE_MAX, 0, &address, &id), "18446744073709551615 bytes");
  EXPECT_REFUSED(flagcxP2pEngineAllocShared(e, size_t(1) << 46, 0, &address, &id),
                 overVerbs ? "mmap: Cannot allocate memory" : "are left of");
  EXPECT_REFUSED(flagcxP2pEngineAllocShared(e, size_t(1) << 40, FLAGCX_P2P_ALLOC_HUGE, &address, &id),
                 "vm.nr_hugepages");

  EXPECT_REFUSED(flagcxP2pEngineFreeShared(e, nullptr), "FreeShared: address is NULL");
  EXPECT_REFUSED(flagcxP2pEngineFreeShared(e, &id), "is not the start of memory that this engine has allocated");
  EXPECT_REFUSED(flagcxP2pEngineFreeShared(nullptr, &id), "is not the start of memory");
}

TEST_F(SharedMemory, FlagsAreThoseOfARegistration) {
  const Shared all(engine, kPage, FLAGCX_P2P_REG_HOST | FLAGCX_P2P_REG_UNANNOUNCED | FLAGCX_P2P_REG_READ_ONLY);
  all.data()[0] = 1; // this process writes it all the same
  uint64_t other = 0;
  EXPECT_EQ(flagcxP2pEngineRegFlags(engine.get(), all.start(), kPage, FLAGCX_P2P_REG_READ_ONLY, &other), 0);
  EXPECT_EQ(other, all.id) << "the same range has one region";
  EXPECT_EQ(flagcxP2pEngineRegFlags(engine.get(), all.start(), kPage, 0, &other), -1);
  EXPECT_NE(lastError().find("other rights"), std::string::npos) << lastError();
  flagcxP2pEngineMrDestroy(engine.get(), all.id);
}

TEST_F(SharedMemory, IsFreedOnceAndByItsStart) {
  const Engine other = createEngine();
  ASSERT_EQ(flagcxP2pEngineAllocShared(engine.get(), 3 * kPage, 0, &address, &id), 0) << lastError();
  uint8_t *const bytes = static_cast<uint8_t *>(address);
  const char *const reason = "is not the start of memory that this engine has allocated";
  EXPECT_REFUSED(flagcxP2pEngineFreeShared(engine.get(), bytes + kPage), reason);
  EXPECT_REFUSED(flagcxP2pEngineFreeShared(other.get(), address), reason);
  EXPECT_REFUSED(flagcxP2pEngineFreeShared(nullptr, address),
                 "is not the start of memory that has outlived its engine");
  bytes[2 * kPage] = 3; // all of it is still there
  ASSERT_EQ(flagcxP2pEngineFreeShared(engine.get(), address), 0) << lastError();
  EXPECT_REFUSED(flagcxP2pEngineFreeShared(engine.get(), address), reason);
}

TEST_F(SharedMemory, IsNotFreedUnderARegistrationOfTheProgram) {
  const Engine other = createEngine();
  ASSERT_EQ(flagcxP2pEngineAllocShared(engine.get(), 4 * kPage, 0, &address, &id), 0) << lastError();
  const uintptr_t start = reinterpret_cast<uintptr_t>(address);
  uint64_t inside = 0, same = 0, foreign = 0;
  ASSERT_EQ(flagcxP2pEngineRegFlags(engine.get(), start + kPage, 100, 0, &inside), 0) << lastError();
  ASSERT_EQ(flagcxP2pEngineRegFlags(engine.get(), start, 4 * kPage, 0, &same), 0) << lastError();
  ASSERT_EQ(flagcxP2pEngineRegFlags(other.get(), start, kPage, 0, &foreign), 0) << lastError();
  EXPECT_EQ(same, id);
  EXPECT_REFUSED(flagcxP2pEngineFreeShared(engine.get(), address), "2 further registrations");
  flagcxP2pEngineMrDestroy(engine.get(), inside);
  EXPECT_REFUSED(flagcxP2pEngineFreeShared(engine.get(), address), "1 further registrations");
  flagcxP2pEngineMrDestroy(other.get(), foreign);
  EXPECT_REFUSED(flagcxP2pEngineFreeShared(engine.get(), address), "1 further registrations");
  memset(address, 1, 4 * kPage); // all of it is still there
  flagcxP2pEngineMrDestroy(engine.get(), same);
  EXPECT_EQ(flagcxP2pEngineFreeShared(engine.get(), address), 0) << lastError();
  EXPECT_FALSE(isMapped(address));
}

TEST_F(SharedMemory, AnEngineFreesWhatIsLeft) {
  size_t before = 0;
  for (int round = 0; round < 2; ++round) {
    before = openDescriptors(); // of the second round: the first opens what the process keeps
    void *kept = nullptr;
    {
      const Engine first = createEngine();
      ASSERT_EQ(flagcxP2pEngineAllocShared(first.get(), kPage, 0, &address, &id), 0);
      ASSERT_EQ(flagcxP2pEngineAllocShared(first.get(), kPage, FLAGCX_P2P_ALLOC_OUTLIVE, &kept, &id), 0);
      EXPECT_REFUSED(flagcxP2pEngineFreeShared(nullptr, kept), "is not the start");
      // With its registration ended before.
      void *ended = nullptr;
      ASSERT_EQ(flagcxP2pEngineAllocShared(first.get(), kPage, 0, &ended, &id), 0);
      flagcxP2pEngineMrDestroy(first.get(), id);
      static_cast<uint8_t *>(ended)[0] = 1;
      ASSERT_EQ(flagcxP2pEngineFreeShared(first.get(), ended), 0) << lastError();
    }
    EXPECT_FALSE(isMapped(address));
    static_cast<uint8_t *>(kept)[0] = 1;
    EXPECT_EQ(flagcxP2pEngineFreeShared(nullptr, kept), 0) << lastError();
    EXPECT_FALSE(isMapped(kept));
    EXPECT_REFUSED(flagcxP2pEngineFreeShared(nullptr, kept), "is not the start");
  }
  EXPECT_EQ(openDescriptors(), before);
}

TEST_F(SharedMemory, OneOfManyThreadsFrees) {
  for (int round = 0; round < 50; ++round) {
    ASSERT_EQ(flagcxP2pEngineAllocShared(engine.get(), kPage, 0, &address, &id), 0) << lastError();
    std::array<int, 4> answers = {};
    std::vector<std::thread> threads;
    for (int &answer : answers)
      threads.emplace_back([&] { answer = flagcxP2pEngineFreeShared(engine.get(), address); });
    for (std::thread &thread : threads) thread.join();
    EXPECT_EQ(std::count(answers.begin(), answers.end(), 0), 1);
  }
}

TEST_F(SharedMemory, LimitsAreNamed) {
  if (overVerbs)
    GTEST_SKIP() << "not run over verbs: private memory needs no descriptor and no file";
  FlagcxP2pEngine *const e = engine.get();
  // No members of the fixture: to check accesses to them, a sanitizer needs a descriptor.
  void *address = nullptr;
  uint64_t id = 0;
  withLimit(RLIMIT_NOFILE, 0, [&] {
    EXPECT_REFUSED(flagcxP2pEngineAllocShared(e, kPage, 0, &address, &id), "Too many open files");
    EXPECT_NE(lastError().find("ulimit -n"), std::string::npos) << lastError();
  });
  // Without SIGXFSZ, which would end the program.
  withLimit(RLIMIT_FSIZE, kPage, [&] {
    EXPECT_REFUSED(flagcxP2pEngineAllocShared(e, kPage + 1, 0, &address, &id), "ulimit -f");
    const Shared fits(engine, kPage);
  });
  size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  withLimit(RLIMIT_AS, (pages + 16384) * kPage, [&] {
    EXPECT_REFUSED(flagcxP2pEngineAllocShared(e, size_t(256) << 20, 0, &address, &id), "mmap: ");
    EXPECT_NE(lastError().find("ulimit -v"), std::string::npos) << lastError();
  });
  const Shared still(engine, kPage);
}

TEST_F(SharedMemory, DescriptorsAreChecked) {
  const size_t bytes = 4 * kPage;
  const int fd = memfd_create("mine", MFD_CLOEXEC);
  ASSERT_EQ(ftruncate(fd, bytes), 0);
  void *const mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  void *const privately = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  const uintptr_t at = reinterpret_cast<uintptr_t>(mapped);
  FlagcxP2pEngine *const e = engine.get();
  const auto reg = [&](FlagcxP2pEngine *engine, uintptr_t start, size_t size, int file, uint64_t offset,
                       uint32_t flags = 0) {
    return flagcxP2pEngineRegShared(engine, start, size, file, offset, flags, &id);
  };
  EXPECT_REFUSED(reg(nullptr, at, bytes, fd, 0), "RegShared: engine is NULL");
  EXPECT_REFUSED(reg(e, 0, bytes, fd, 0), "RegShared: address is NULL");
  EXPECT_REFUSED(flagcxP2pEngineRegShared(e, at, bytes, fd, 0, 0, nullptr), "RegShared: mrId is NULL");
  EXPECT_REFUSED(reg(e, at, 0, fd, 0), "must be more than zero");
  EXPECT_REFUSED(reg(e, at, SIZE_MAX, fd, 0), "the range ends at 18446744073709551615");
  EXPECT_REFUSED(reg(e, UINTPTR_MAX, bytes, fd, 0), "wraps");
  EXPECT_REFUSED(reg(e, at, bytes, -1, 0), "not negative");
  EXPECT_REFUSED(reg(e, at, bytes, 999, 0), "Bad file descriptor");
  EXPECT_REFUSED(reg(e, at, bytes, fd, kPage), "the file has 16384 bytes and the range ends at 20480");
  EXPECT_REFUSED(reg(e, at, kPage, fd, kPage), "from offset 0, not 4096");
  EXPECT_REFUSED(reg(e, at, 1, fd, 1), "from offset 0, not 1");
  EXPECT_REFUSED(reg(e, at, bytes, fd, UINT64_MAX), "wraps");
  EXPECT_REFUSED(reg(e, reinterpret_cast<uintptr_t>(privately), bytes, fd, 0), "MAP_PRIVATE");
  EXPECT_REFUSED(reg(e, reinterpret_cast<uintptr_t>(&id), 8, fd, 0), "without a file");
  for (const uint32_t flag : {uint32_t(FLAGCX_P2P_REG_DEVICE), uint32_t(FLAGCX_P2P_ALLOC_HUGE), 4u, 1u << 31})
    EXPECT_REFUSED(reg(e, at, bytes, fd, 0, flag), "registration flags 0x");
  int pipes[2], sockets[2];
  ASSERT_EQ(pipe(pipes), 0);
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
  const int folder = open("/", O_RDONLY | O_DIRECTORY),
            readOnly = open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_RDONLY);
  EXPECT_REFUSED(reg(e, at, bytes, pipes[0], 0), "is a pipe");
  EXPECT_REFUSED(reg(e, at, bytes, sockets[0], 0), "is a socket");
  EXPECT_REFUSED(reg(e, at, bytes, folder, 0), "is a directory");
  EXPECT_REFUSED(reg(e, at, bytes, readOnly, 0), "could only read it");
  ASSERT_EQ(reg(e, at, bytes, readOnly, 0, FLAGCX_P2P_REG_READ_ONLY), 0) << lastError();
  flagcxP2pEngineMrDestroy(e, id);
  ASSERT_EQ(reg(e, at + 7, bytes - 8, fd, 7), 0) << lastError();
  flagcxP2pEngineMrDestroy(e, id);
  // Memory of the engine needs no descriptor.
  const Shared own(engine, kPage);
  ASSERT_EQ(reg(e, own.start() + 1, 10, -1, 77), 0) << lastError();
  flagcxP2pEngineMrDestroy(e, id);
  for (const int each : {pipes[0], pipes[1], sockets[0], sockets[1], folder, readOnly, fd}) close(each);
  munmap(mapped, bytes);
  munmap(privately, bytes);
}

TEST(SharedFork, AChildSharesTheBytesAndFreesNothing) {
  const Engine engine = createEngine();
  const Shared memory(engine, kPage);
  const pid_t child = fork();
  if (child == 0) {
    memory.data()[1] = 7;
    const bool refused = flagcxP2pEngineFreeShared(memory.engine, memory.address) == -1 &&
                         flagcxP2pEngineFreeShared(nullptr, memory.address) == -1;
    memory.data()[2] = 8; // still mapped
    _exit(refused ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  // Private memory is copied for the child.
  EXPECT_EQ(memory.data()[1], overVerbs ? 0 : 7);
  EXPECT_EQ(memory.data()[2], overVerbs ? 0 : 8);
}

// --- two processes ----------------------------------------------------------------------------------------------

namespace {

bool isForced() {
  const char *const path = std::getenv("FLAGCX_P2P_PATH");
  return path != nullptr && std::string(path) == "shared";
}

} // namespace

// What the other process runs: memory of AllocShared, which it serves until its input ends.
TEST(SharedPeer, DISABLED_Serves) {
  const Engine engine = createEngine();
  const Shared memory(engine, PeerProcess::kBytes);
  char desc[64];
  ASSERT_EQ(flagcxP2pEnginePrepareDesc(engine.get(), memory.id, memory.address, PeerProcess::kBytes, desc), 0);
  FlagcxP2pRdmaDesc parts;
  memcpy(&parts, desc, sizeof(parts));
  ASSERT_EQ(flagcxP2pEngineStartRpcServer(engine.get()), 0) << lastError();
  std::printf("serves %d %lx %x %x\n", flagcxP2pEngineGetRpcPort(engine.get()),
              static_cast<unsigned long>(parts.addr), parts.size, parts.rkey);
  std::fflush(stdout);
  alarm(0);
  while (std::getchar() != EOF) {
  }
}

// With FLAGCX_P2P_PATH=shared (gtest.shared_forced) nothing else carries a byte.
TEST(SharedPeer, BytesMoveBothWays) {
  const PeerProcess peer("SharedPeer.*");
  const Engine engine = createEngine();
  FlagcxP2pConn *const conn = flagcxP2pEngineGetConn(engine.get(), peer.session().c_str());
  ASSERT_NE(conn, nullptr) << lastError();
  const size_t sizes[] = {1, 8, 4096, 4097, 65536, (1 << 20) + 5, 16 << 20};
  Shared own(engine, 32 << 20);
  Buffer other(engine, 32 << 20);
  const auto move = [&](uint8_t *local, uint64_t region, size_t bytes, uint32_t seed) {
    FlagcxP2pRdmaDesc desc = peer.desc();
    desc.addr += seed;
    desc.size = bytes;
    Memory expected(bytes);
    expected.scramble(seed);
    memcpy(local, expected.data(), bytes);
    uint64_t transfer = 0;
    ASSERT_EQ(flagcxP2pEngineWrite(conn, region, local, bytes, desc, &transfer), 0) << lastError();
    ASSERT_TRUE(succeeds(conn, transfer));
    memset(local, 0, bytes + 1);
    ASSERT_EQ(flagcxP2pEngineRead(conn, region, local, bytes, desc, &transfer), 0) << lastError();
    ASSERT_TRUE(succeeds(conn, transfer));
    EXPECT_EQ(memcmp(local, expected.data(), bytes), 0) << bytes << " bytes";
    EXPECT_EQ(local[bytes], 0) << "one byte too many of " << bytes;
  };
  uint32_t seed = 0;
  for (const size_t size : sizes) {
    move(own.data() + 3, own.id, size, ++seed);
    move(other.data() + 3, other.region(), size, ++seed);
  }
  FlagcxP2pConnInfo info = {};
  info.size = sizeof(info);
  ASSERT_EQ(flagcxP2pEngineGetConnInfo(conn, &info), 0) << lastError();
  if (isForced()) {
    EXPECT_EQ(info.path, uint32_t(FLAGCX_P2P_PATH_SHARED));
    EXPECT_EQ(info.readPath, FLAGCX_P2P_PATH_SHARED);
    EXPECT_EQ(info.writePath, FLAGCX_P2P_PATH_SHARED);
  }
}

// Transfers under way when their local memory is freed end first, in whatever way; then the memory is gone.
TEST(SharedPeer, MemoryIsFreedDuringTransfers) {
  const PeerProcess peer("SharedPeer.*");
  const Engine engine = createEngine();
  FlagcxP2pConn *const conn = flagcxP2pEngineGetConn(engine.get(), peer.session().c_str());
  ASSERT_NE(conn, nullptr) << lastError();
  for (int round = 0; round < 5; ++round) {
    void *address = nullptr;
    uint64_t id = 0;
    ASSERT_EQ(flagcxP2pEngineAllocShared(engine.get(), 16 << 20, 0, &address, &id), 0) << lastError();
    std::array<uint64_t, 8> transfers = {};
    for (size_t i = 0; i < transfers.size(); ++i) {
      uint8_t *const part = static_cast<uint8_t *>(address) + i * (2 << 20);
      FlagcxP2pRdmaDesc desc = peer.desc();
      desc.size = 2 << 20;
      ASSERT_EQ(flagcxP2pEngineRead(conn, id, part, 2 << 20, desc, &transfers[i]), 0) << lastError();
    }
    ASSERT_EQ(flagcxP2pEngineFreeShared(engine.get(), address), 0) << lastError();
    EXPECT_FALSE(isMapped(address));
    for (const uint64_t transfer : transfers) EXPECT_TRUE(await(conn, transfer));
  }
}
