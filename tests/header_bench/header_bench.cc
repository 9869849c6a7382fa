// SPDX-License-Identifier: Apache-2.0
//
// Measures an implementation of flagcx_p2p.h through that header alone: two engines of this process, one writes
// to the other.
//
//   header_bench rate IOVS CALLS SIZE GAP   one thread, CALLS calls of IOVS iovs under way: million iovs per
//                                             second, CPU time of the process per iov in nanoseconds
//   header_bench sync IOVS THREADS SIZE GAP the same for synchronous calls, one after the other on each thread
//   header_bench latency                      one write of 4 KiB, submit to seen: p50 and p99 in microseconds; the p50
//                                             of writes after 300 ms of silence; CPU time when idle, in cores
//   header_bench count IOVS CALLS SIZE GAP RAILS ROUNDS
//                                             as `rate`, over so many rails, but each of the calls so many times, all
//                                             in countedWrites: for instructions.py
//
// GAP bytes lie between iovs; with none, iovs touch and may be joined. Unless NULLVERBS_COPY=0 says that the device
// moves nothing, all bytes are compared at the end, gaps too.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/resource.h>
#include <thread>
#include <vector>

#include "flagcx_p2p.h"
#include "flagcx_p2p_ext.h"

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::duration;
using std::chrono::milliseconds;

constexpr size_t kMemory = size_t(256) << 20;
// Of `count`, which is slow under callgrind.
constexpr size_t kLittleMemory = size_t(8) << 20;
constexpr double kSeconds = 0.5;
constexpr unsigned char kUntouched = 0xA5;

void require(bool fine, const char *what) {
  if (fine)
    return;
  std::fprintf(stderr, "header_bench: %s: %s\n", what, flagcxP2pEngineLastError());
  std::exit(1);
}

double since(Clock::time_point begin) {
  return duration<double>(Clock::now() - begin).count();
}

double cpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](timeval time) { return static_cast<double>(time.tv_sec) + 1e-6 * time.tv_usec; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Two engines, connected, with as much memory each.
struct Setup {
  FlagcxP2pEngine *server = flagcxP2pEngineCreate();
  FlagcxP2pEngine *client = flagcxP2pEngineCreate();
  FlagcxP2pConn *conn = nullptr;
  size_t memory;
  unsigned char *source = static_cast<unsigned char *>(std::aligned_alloc(4096, memory));
  unsigned char *target = static_cast<unsigned char *>(std::aligned_alloc(4096, memory));
  FlagcxP2pMr region = 0;

  explicit Setup(size_t bytes = kMemory) : memory(bytes) {
    require(server != nullptr && client != nullptr && source != nullptr && target != nullptr, "create");
    for (size_t i = 0; i < memory; ++i) source[i] = static_cast<unsigned char>(i * 131 + (i >> 12) + 1);
    std::memset(target, kUntouched, memory);
    FlagcxP2pMr other = 0;
    require(flagcxP2pEngineReg(server, reinterpret_cast<uintptr_t>(target), memory, other) == 0, "register");
    require(flagcxP2pEngineReg(client, reinterpret_cast<uintptr_t>(source), memory, region) == 0, "register");
    require(flagcxP2pEngineStartRpcServer(server) == 0, "start the server");
    char *metadata = nullptr;
    require(flagcxP2pEngineGetMetadata(server, &metadata) == 0, "metadata");
    const std::string session(metadata, std::strcspn(metadata, "?"));
    delete[] metadata;
    conn = flagcxP2pEngineGetConn(client, session.c_str());
    require(conn != nullptr, "connect");
  }

  ~Setup() {
    flagcxP2pEngineDestroy(client);
    flagcxP2pEngineDestroy(server);
    std::free(source);
    std::free(target);
  }
};

// One call's iovs, as each of the calls wants them.
struct Call {
  std::vector<FlagcxP2pMr> regions;
  std::vector<void *> sources;
  std::vector<size_t> sizes;
  std::vector<FlagcxP2pRdmaDesc> descs;
  std::vector<uint64_t> sourceAddresses, targetAddresses, sizes64;
  uint64_t id = 0;

  void write(FlagcxP2pConn *conn) {
    const int count = static_cast<int>(sizes.size());
    require(flagcxP2pEngineWriteVector(conn, regions, sources, sizes, descs, count, &id) == 0, "write");
  }

  void writeSync(FlagcxP2pConn *conn) {
    require(flagcxP2pRpcBatchWriteSync(conn, sizes.size(), sourceAddresses.data(), targetAddresses.data(),
                                       sizes64.data()) == 0,
            "synchronous write");
  }
};

// So many calls of so many iovs each, over the memory and around.
std::vector<Call> makeCalls(const Setup &setup, size_t calls, size_t iovs, size_t size, size_t gap) {
  std::vector<Call> made(calls);
  size_t offset = 0;
  for (Call &call : made) {
    for (size_t i = 0; i < iovs; ++i, offset += size + gap) {
      if (offset + size > setup.memory)
        offset = 0;
      FlagcxP2pRdmaDesc desc;
      const uint64_t target = reinterpret_cast<uintptr_t>(setup.target + offset);
      require(flagcxP2pEngineMakeDesc(setup.conn, target, static_cast<uint32_t>(size), &desc) == 0, "descriptor");
      call.regions.push_back(setup.region);
      call.sources.push_back(setup.source + offset);
      call.sizes.push_back(size);
      call.descs.push_back(desc);
      call.sourceAddresses.push_back(reinterpret_cast<uintptr_t>(setup.source + offset));
      call.targetAddresses.push_back(target);
      call.sizes64.push_back(size);
    }
  }
  return made;
}

// Every iov has arrived, and nothing else was touched.
void verify(const Setup &setup, const std::vector<Call> &calls) {
  const char *const copies = std::getenv("NULLVERBS_COPY");
  if (copies != nullptr && std::strcmp(copies, "0") == 0)
    return;
  std::vector<unsigned char> expected(setup.memory, kUntouched);
  for (const Call &call : calls)
    for (size_t i = 0; i < call.sizes.size(); ++i) {
      const size_t offset = static_cast<unsigned char *>(call.sources[i]) - setup.source;
      std::memcpy(&expected[offset], setup.source + offset, call.sizes[i]);
    }
  require(std::memcmp(expected.data(), setup.target, setup.memory) == 0, "THE BYTES DIFFER");
}

void waitFor(FlagcxP2pConn *conn, const Call &call) {
  const Clock::time_point begin = Clock::now();
  while (!flagcxP2pEngineXferStatus(conn, call.id)) require(since(begin) < 30, "a transfer does not end");
  FlagcxP2pXferResult result;
  result.size = sizeof(result);
  require(flagcxP2pEngineXferResult(conn, call.id, &result) == 0, "result");
  require(result.state == FLAGCX_P2P_XFER_DONE, result.reason);
}

void report(double iovs, double seconds, double cpu) {
  std::printf("%.4f %.3f\n", iovs / seconds / 1e6, cpu / iovs * 1e9);
}

void measureRate(size_t iovs, size_t inFlight, size_t size, size_t gap) {
  const Setup setup;
  std::vector<Call> calls = makeCalls(setup, inFlight, iovs, size, gap);
  for (Call &call : calls) {
    call.write(setup.conn);
    waitFor(setup.conn, call);
  }
  const double cpu = cpuSeconds();
  const Clock::time_point begin = Clock::now();
  size_t ended = 0;
  for (Call &call : calls) call.write(setup.conn);
  while (since(begin) < kSeconds)
    for (Call &call : calls)
      if (flagcxP2pEngineXferStatus(setup.conn, call.id)) {
        ended += 1;
        call.write(setup.conn);
      }
  for (const Call &call : calls) waitFor(setup.conn, call);
  report(static_cast<double>((ended + inFlight) * iovs), since(begin), cpuSeconds() - cpu);
  verify(setup, calls);
}

void measureSync(size_t iovs, size_t threads, size_t size, size_t gap) {
  const Setup setup;
  std::vector<Call> calls = makeCalls(setup, threads, iovs, size, gap);
  const double cpu = cpuSeconds();
  const Clock::time_point begin = Clock::now();
  std::atomic<size_t> ended{0};
  std::vector<std::thread> running;
  for (Call &call : calls)
    running.emplace_back([&] {
      for (; since(begin) < kSeconds; ++ended) call.writeSync(setup.conn);
    });
  for (std::thread &thread : running) thread.join();
  report(static_cast<double>(ended * iovs), since(begin), cpuSeconds() - cpu);
  verify(setup, calls);
}

double microsecondsOfOne(FlagcxP2pConn *conn, Call &call) {
  const Clock::time_point begin = Clock::now();
  call.write(conn);
  while (!flagcxP2pEngineXferStatus(conn, call.id)) {
  }
  return since(begin) * 1e6;
}

void measureLatency() {
  const Setup setup;
  Call call = makeCalls(setup, 1, 1, 4096, 0).front();
  std::vector<double> busy(20000), paused(15);
  for (double &one : busy) one = microsecondsOfOne(setup.conn, call);
  for (double &one : paused) {
    std::this_thread::sleep_for(milliseconds(300));
    one = microsecondsOfOne(setup.conn, call);
  }
  const double cpu = cpuSeconds();
  std::this_thread::sleep_for(milliseconds(3000));
  const double idle = (cpuSeconds() - cpu) / 3;
  std::sort(busy.begin(), busy.end());
  std::sort(paused.begin(), paused.end());
  std::printf("%.3f %.3f %.3f %.4f\n", busy[busy.size() / 2], busy[busy.size() * 99 / 100], paused[paused.size() / 2],
              idle);
  verify(setup, {call});
}

// The bytes that each rail of a connection has written.
std::vector<uint64_t> writtenBy(FlagcxP2pConn *conn) {
  FlagcxP2pRailInfo rails[FLAGCX_P2P_MAX_RAILS];
  rails[0].size = sizeof(rails[0]);
  size_t count = 0;
  require(flagcxP2pEngineGetRails(conn, rails, FLAGCX_P2P_MAX_RAILS, &count) == 0, "rails");
  std::vector<uint64_t> bytes(FLAGCX_P2P_MAX_RAILS);
  for (size_t i = 0; i < count; ++i) bytes[i] = rails[i].writtenBytes;
  return bytes;
}

// How many rails have written since.
size_t railsUsed(FlagcxP2pConn *conn, const std::vector<uint64_t> &before) {
  const std::vector<uint64_t> now = writtenBy(conn);
  size_t used = 0;
  for (size_t i = 0; i < now.size(); ++i) used += now[i] > before[i];
  return used;
}

// So many times each of the calls, as soon as its last time has ended; all have ended when it returns. The last time that it
// is called is the one that counts.
extern "C" __attribute__((noinline)) void countedWrites(FlagcxP2pConn *conn, std::vector<Call> &calls,
                                                        size_t rounds) {
  const auto await = [conn](const Call &call) {
    while (!flagcxP2pEngineXferStatus(conn, call.id)) {
    }
  };
  for (Call &call : calls) call.write(conn);
  for (size_t round = 1; round < rounds; ++round)
    for (Call &call : calls) {
      await(call);
      call.write(conn);
    }
  for (const Call &call : calls) await(call);
}

void countWrites(size_t iovs, size_t inFlight, size_t size, size_t gap, size_t rails, size_t rounds) {
  const Setup setup(kLittleMemory);
  std::vector<Call> calls = makeCalls(setup, inFlight, iovs, size, gap);
  const auto carryOut = [&](size_t times) {
    const std::vector<uint64_t> before = writtenBy(setup.conn);
    countedWrites(setup.conn, calls, times);
    for (const Call &call : calls) waitFor(setup.conn, call);
    return railsUsed(setup.conn, before);
  };
  // Writes make the connection add the rails.
  const Clock::time_point begin = Clock::now();
  while (carryOut(1) != rails) require(since(begin) < 60, "the connection does not use so many rails");
  require(carryOut(rounds) == rails, "not all rails were used");
  verify(setup, calls);
}

} // namespace

int main(int argc, char **argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  const auto number = [&](int at) { return std::strtoull(argv[at], nullptr, 0); };
  if (what == "latency" && argc == 2)
    measureLatency();
  else if (what == "rate" && argc == 6)
    measureRate(number(2), number(3), number(4), number(5));
  else if (what == "sync" && argc == 6)
    measureSync(number(2), number(3), number(4), number(5));
  else if (what == "count" && argc == 8)
    countWrites(number(2), number(3), number(4), number(5), number(6), number(7));
  else {
    std::fprintf(stderr,
                 "usage: header_bench rate|sync IOVS CALLS|THREADS SIZE GAP, header_bench latency,\n"
                 "or header_bench count IOVS CALLS SIZE GAP RAILS ROUNDS\n");
    return 2;
  }
  return 0;
}
