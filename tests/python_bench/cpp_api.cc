// SPDX-License-Identifier: Apache-2.0
//
// This engine through flagcx_p2p.h, for comparison with the same engine through Python: the samples of side.py.
//
//   cpp_api target shared|private | cpp_api initiator shared|private LINE
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include "flagcx_p2p.h"
#include "flagcx_p2p_ext.h"

namespace {

constexpr size_t POOL = size_t{1} << 30, BLOCK = 4096, BLOCKS = 4096;
// After the pool of the initiator: where the target's is read to, part by part.
constexpr size_t SCRATCH = size_t{16} << 20, MEMORY = POOL + SCRATCH;
constexpr size_t WORDS = BLOCK / sizeof(uint64_t);
constexpr uint64_t GENERATION = uint64_t{1} << 40;

void require(bool fine, const char *what) {
  if (fine)
    return;
  std::fprintf(stderr, "cpp_api: %s: %s\n", what, flagcxP2pEngineLastError());
  std::exit(1);
}

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

struct Side {
  FlagcxP2pEngine *engine = flagcxP2pEngineCreate();
  unsigned char *pool = nullptr;
  FlagcxP2pMr region = 0;

  uint64_t *words() { return reinterpret_cast<uint64_t *>(pool); }

  explicit Side(bool shared) {
    require(engine != nullptr, "create an engine");
    void *memory = nullptr;
    if (shared) {
      require(flagcxP2pEngineAllocShared(engine, MEMORY, 0, &memory, &region) == 0, "allocate");
    } else {
      memory = mmap(nullptr, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      require(memory != MAP_FAILED, "mmap");
      require(flagcxP2pEngineReg(engine, reinterpret_cast<uintptr_t>(memory), MEMORY, region) == 0, "register");
    }
    pool = static_cast<unsigned char *>(memory);
    for (size_t word = 0; word < MEMORY / sizeof(uint64_t); ++word)
      words()[word] = word / WORDS * BLOCK + word % WORDS;
  }
};

// The initiator's pool, and what the target's holds if all writes moved what they should: as content.py has it.
class Content {
 public:
  explicit Content(Side &side) : side_(side), there_(POOL / BLOCK) {
    for (size_t block = 0; block < there_.size(); ++block) there_[block] = block * BLOCK;
  }

  // Changes every word here, so that the writes to come differ from those before.
  void renew() {
    for (size_t word = 0; word < POOL / sizeof(uint64_t); ++word) side_.words()[word] += GENERATION;
    generation_ += GENERATION;
  }

  void written(size_t here, size_t there) { there_[there] = here * BLOCK + generation_; }

  // Whether the target has all that was written, and nothing else. `read(offset, size)` puts its bytes after the pool.
  template <typename Read>
  bool isThere(Read read) const {
    const uint64_t *const scratch = side_.words() + POOL / sizeof(uint64_t);
    for (size_t offset = 0; offset < POOL; offset += SCRATCH) {
      std::memset(side_.pool + POOL, 0, SCRATCH);
      read(offset, SCRATCH);
      for (size_t word = 0; word < SCRATCH / sizeof(uint64_t); ++word) {
        if (scratch[word] != there_[offset / BLOCK + word / WORDS] + word % WORDS)
          return false;
      }
    }
    return true;
  }

 private:
  Side &side_;
  uint64_t generation_ = 0;
  // The first word of each block of the target.
  std::vector<uint64_t> there_;
};

class Initiator {
 public:
  Initiator(Side &side, FlagcxP2pConn *conn, uint64_t remote)
      : side_(side), conn_(conn), remote_(remote), content_(side) {}

  // Before a kind of measurement, and after it.
  void renew() { content_.renew(); }
  const char *verified() {
    const bool fine = content_.isThere([this](size_t offset, size_t size) { read(offset, size); });
    return fine ? "true" : "false";
  }

  double writeMicroseconds() {
    std::vector<double> times;
    for (size_t number = 0; number < 2200; ++number) {
      const size_t here = number * 37 % (POOL / BLOCK), there = here ^ 1;
      const double begin = seconds();
      write(here * BLOCK, there * BLOCK, BLOCK);
      if (number >= 200)
        times.push_back(seconds() - begin);
      content_.written(here, there);
    }
    return median(times) * 1e6;
  }

  // Milliseconds until the call returns, and until the bytes are there.
  std::pair<double, double> scattered() {
    std::vector<double> submitted, arrived;
    std::mt19937_64 random(7);
    std::vector<uint64_t> here(POOL / BLOCK), there(POOL / BLOCK);
    std::iota(here.begin(), here.end(), 0);
    there = here;
    for (int round = 0; round < 12; ++round) {
      std::shuffle(here.begin(), here.end(), random);
      std::shuffle(there.begin(), there.end(), random);
      std::vector<FlagcxP2pMr> regions(BLOCKS, side_.region);
      std::vector<void *> local(BLOCKS);
      std::vector<size_t> sizes(BLOCKS, BLOCK);
      std::vector<FlagcxP2pRdmaDesc> descs(BLOCKS);
      const double begin = seconds();
      for (size_t i = 0; i < BLOCKS; ++i) {
        local[i] = side_.pool + here[i] * BLOCK;
        require(flagcxP2pEngineMakeDesc(conn_, remote_ + there[i] * BLOCK, BLOCK, &descs[i]) == 0, "describe");
      }
      uint64_t id = 0;
      require(flagcxP2pEngineWriteVector(conn_, regions, local, sizes, descs, BLOCKS, &id) == 0, "write");
      if (round >= 2)
        submitted.push_back(seconds() - begin);
      wait(id);
      if (round >= 2)
        arrived.push_back(seconds() - begin);
      for (size_t i = 0; i < BLOCKS; ++i) content_.written(here[i], there[i]);
    }
    return {median(submitted) * 1e3, median(arrived) * 1e3};
  }

  double gigabytesASecond() {
    double best = 0;
    for (int round = 0; round < 3; ++round) {
      const double begin = seconds();
      write(0, 0, POOL);
      best = std::max(best, POOL / (seconds() - begin) / 1e9);
    }
    for (size_t block = 0; block < POOL / BLOCK; ++block) content_.written(block, block);
    return best;
  }

 private:
  void write(size_t here, size_t there, size_t size) {
    FlagcxP2pRdmaDesc desc;
    require(flagcxP2pEngineMakeDesc(conn_, remote_ + there, size, &desc) == 0, "describe");
    uint64_t id = 0;
    require(flagcxP2pEngineWrite(conn_, side_.region, side_.pool + here, size, desc, &id) == 0, "write");
    wait(id);
  }

  // To after the pool.
  void read(size_t there, size_t size) {
    FlagcxP2pRdmaDesc desc;
    require(flagcxP2pEngineMakeDesc(conn_, remote_ + there, size, &desc) == 0, "describe");
    uint64_t id = 0;
    require(flagcxP2pEngineRead(conn_, side_.region, side_.pool + POOL, size, desc, &id) == 0, "read");
    wait(id);
  }

  void wait(uint64_t id) {
    FlagcxP2pXferResult result{};
    result.size = sizeof(result);
    require(flagcxP2pEngineXferWait(conn_, id, 30000, &result) == 0 && result.state == 1, "wait");
  }

  Side &side_;
  FlagcxP2pConn *conn_;
  uint64_t remote_;
  Content content_;
};

} // namespace

int main(int count, char **words) {
  if (count < 3)
    return 2;
  const bool target = std::string(words[1]) == "target";
  Side side(std::string(words[2]) == "shared");
  if (target) {
    require(flagcxP2pEngineStartRpcServer(side.engine) == 0, "listen");
    std::printf("127.0.0.1:%d,%llu\n", flagcxP2pEngineGetRpcPort(side.engine),
                static_cast<unsigned long long>(reinterpret_cast<uintptr_t>(side.pool)));
    std::fflush(stdout);
    while (getchar() != EOF) {
    }
    std::_Exit(0);
  }
  const std::string line = words[3];
  const size_t comma = line.find(',');
  FlagcxP2pConn *const conn = flagcxP2pEngineGetConn(side.engine, line.substr(0, comma).c_str());
  require(conn != nullptr, "connect");
  Initiator initiator(side, conn, std::stoull(line.substr(comma + 1)));
  std::puts("C++");
  std::fflush(stdout);
  char text[64];
  while (std::fgets(text, sizeof(text), stdin) != nullptr) {
    initiator.renew();
    const double one = initiator.writeMicroseconds();
    std::printf("{\"write_us\": %g, \"verified\": {\"one_write\": %s", one, initiator.verified());
    initiator.renew();
    const auto scattered = initiator.scattered();
    std::printf(", \"scattered\": %s", initiator.verified());
    initiator.renew();
    const double rate = initiator.gigabytesASecond();
    std::printf(", \"large\": %s}, \"submit_ms\": %g, \"scattered_ms\": %g, \"gib_gbps\": %g}\n",
                initiator.verified(), scattered.first, scattered.second, rate);
    std::fflush(stdout);
  }
  std::_Exit(0);
}
