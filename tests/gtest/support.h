// SPDX-License-Identifier: Apache-2.0
//
// What the suites share: owned handles, registered buffers, a connected pair of engines. support.cc also sets the
// software fabric for every test unless FLAGCX_P2P_FABRIC is set, and ends a test that hangs.
#ifndef FLAGCX_P2P_TESTS_SUPPORT_H_
#define FLAGCX_P2P_TESTS_SUPPORT_H_

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "flagcx_p2p.h"
#include "flagcx_p2p_ext.h"

// AddressSanitizer's: what its allocator has given out and not got back. Null in a program without it.
extern "C" __attribute__((weak)) size_t __sanitizer_get_current_allocated_bytes();

namespace support {

struct DestroyEngine {
  void operator()(FlagcxP2pEngine *engine) const { flagcxP2pEngineDestroy(engine); }
};
struct DestroyConn {
  void operator()(FlagcxP2pConn *conn) const { flagcxP2pEngineConnDestroy(conn); }
};
using Engine = std::unique_ptr<FlagcxP2pEngine, DestroyEngine>;
using Conn = std::unique_ptr<FlagcxP2pConn, DestroyConn>;

// A new engine; fails the test if there is none.
Engine createEngine();

// Page-aligned memory filled with a value, not registered.
class Memory {
 public:
  explicit Memory(size_t bytes, uint8_t value = 0);
  uint8_t *data() const { return data_.get(); }
  size_t size() const { return size_; }
  uintptr_t address() const { return reinterpret_cast<uintptr_t>(data()); }
  // Fills the memory with bytes that depend on `seed` and position.
  void scramble(uint32_t seed);

 private:
  struct Unmap {
    size_t bytes;
    void operator()(uint8_t *data) const;
  };
  size_t size_;
  std::unique_ptr<uint8_t, Unmap> data_;
};

// Memory that is registered with an engine for as long as it lives. The engine must live longer.
class Buffer : public Memory {
 public:
  Buffer(const Engine &engine, size_t bytes, uint8_t value = 0);
  ~Buffer();
  Buffer(const Buffer &) = delete;
  Buffer &operator=(const Buffer &) = delete;
  FlagcxP2pMr region() const { return region_; }
  // The descriptor of a part of it, for a peer.
  FlagcxP2pRdmaDesc desc(size_t offset, size_t bytes) const;

 private:
  FlagcxP2pEngine *engine_;
  FlagcxP2pMr region_ = 0;
};

// The bytes of `memory` from `offset` on, for comparisons that print well.
std::string bytes(const Memory &memory, size_t offset, size_t count);

// "host:port" and its parts, from an engine's metadata.
struct Address {
  std::string host;
  int port = 0;
  std::string session() const { return host + ":" + std::to_string(port); }
};
Address addressOf(const Engine &engine);
std::string metadataOf(const Engine &engine);

// Both ends of a connection.
struct Ends {
  Conn connected;
  Conn accepted;
  std::string peerAddress; // as Accept told it
  int peerGpu = -2;        // as Accept told it
};
// Connects `from` to `to`, which accepts in a thread. An end that failed is null.
Ends connect(const Engine &from, const Engine &to, bool sameProcess = false);

// Polls until a transfer has ended; false when it has not within 10 s.
bool await(FlagcxP2pConn *conn, uint64_t transfer);
// How a transfer ended, waiting for it at most 10 s.
FlagcxP2pXferResult resultOf(FlagcxP2pConn *conn, uint64_t transfer);
// True when it is done; otherwise the reason.
testing::AssertionResult succeeds(FlagcxP2pConn *conn, uint64_t transfer);

// Two connected engines, each with a registered buffer that the other one knows of.
class Pair : public testing::Test {
 protected:
  static constexpr size_t kBytes = 1 << 20;
  void SetUp() override;
  // Of a region that the server does not have: the transfer fails. With one that it has deregistered the call itself fails where the client
  // has heard of that in time.
  FlagcxP2pRdmaDesc unknownDesc() const;

  Engine client, server;
  std::unique_ptr<Buffer> local;  // the client's
  std::unique_ptr<Buffer> remote; // the server's
  Ends ends;
  FlagcxP2pConn *conn = nullptr; // the client's end
};

} // namespace support

#endif // FLAGCX_P2P_TESTS_SUPPORT_H_
