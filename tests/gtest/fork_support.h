// SPDX-License-Identifier: Apache-2.0
//
// What the suites of fork() share: children that report what went wrong, and an engine with a peer in another process
// that must not notice them.
#ifndef FLAGCX_P2P_TESTS_FORK_SUPPORT_H_
#define FLAGCX_P2P_TESTS_FORK_SUPPORT_H_

#include <functional>
#include <memory>
#include <string>

#include <sys/types.h>

#include "peer_process.h"
#include "support.h"

namespace support {

// How a child ends after its report of what went wrong.
enum class End {
  Quick,        // by _exit
  ByExit,       // by exit, which runs static destructors and what was given to atexit
  StaticObject, // by exit, with an engine that a static object destroys
};

// A forked process. What `work` returns, and how the process ends, is the answer of `wait`: empty if all was well.
class Child {
 public:
  explicit Child(const std::function<std::string()> &work, End end = End::Quick,
                 FlagcxP2pEngine *destroyed = nullptr);
  ~Child();
  Child(const Child &) = delete;
  Child &operator=(const Child &) = delete;

  pid_t pid() const { return pid_; }
  // Waits for its end, which must come within `seconds`.
  std::string wait(int seconds = 30);
  void kill();

 private:
  pid_t pid_ = -1;
  int report_ = -1;
};

// Waits for a process, at most that long; -1 if it goes on. Otherwise its status.
int awaitEnd(pid_t pid, int seconds);

// "" if the last refusal of this thread names the parent as the reason, else that refusal.
std::string refusedAsForked(const std::string &call, pid_t parent = 0);

// Skips every test of a program that forks where children cannot be relied on. Each such program registers one.
class WholeAllocator : public testing::Environment {
 public:
  void SetUp() override {
    if (__sanitizer_get_current_allocated_bytes != nullptr)
      GTEST_SKIP()
          << "not run under AddressSanitizer: its allocator keeps locks in a child for threads that only the "
             "parent has, so that children hang in malloc";
  }
};

// An engine that accepts peers, connected to a peer process; a forked process must change nothing of that.
class Forked : public testing::Test {
 protected:
  static constexpr size_t kBytes = 1 << 16;
  void SetUp() override;
  void TearDown() override;

  // Writes new bytes to the peer and reads them back. What went wrong, if anything.
  std::string bytesMove(uint32_t seed);
  // What a process that is not the peer sees: it connects to the engine, writes to `target` and reads it back.
  std::string othersAreServed(uint32_t seed);
  // All of this, and that no lane of the connection is broken.
  void parentIsUnharmed();

  std::unique_ptr<PeerProcess> peer;
  Engine engine;
  std::unique_ptr<Buffer> source, target;
  FlagcxP2pConn *conn = nullptr; // to the peer; the engine owns it
  pid_t parent = 0;
};

// Transfers of an engine of the calling process with `session`. The peer's memory at `desc` may be overwritten.
std::string newEngineWorks(const std::string &session, const FlagcxP2pRdmaDesc &desc, uint32_t seed);

} // namespace support

#endif // FLAGCX_P2P_TESTS_FORK_SUPPORT_H_
