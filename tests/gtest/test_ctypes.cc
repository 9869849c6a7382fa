// SPDX-License-Identifier: Apache-2.0
//
// The `extern "C"` functions, used as ctypes uses them: handles are bare addresses.
#include "support.h"

using namespace support;

namespace {

// A ctypes-like caller knows C prototypes only.
struct Library {
  void *(*create)(void) = flagcxP2pRpcEngineCreate;
  void (*destroy)(void *) = flagcxP2pRpcEngineDestroy;
  int (*port)(void *) = flagcxP2pRpcGetPort;
  int (*serve)(void *) = flagcxP2pRpcStartServer;
  int (*reg)(void *, uint64_t, uint64_t, uint64_t *) = flagcxP2pRpcRegister;
  int (*regHost)(void *, uint64_t, uint64_t, uint64_t *) = flagcxP2pRpcRegisterHost;
  void *(*conn)(void *, const char *) = flagcxP2pRpcGetConn;
  int (*write)(void *, int, const uint64_t *, const uint64_t *, const uint64_t *) = flagcxP2pRpcBatchWriteSync;
};
const Library lib;

std::string sessionOf(void *engine) {
  char *metadata = nullptr;
  EXPECT_EQ(flagcxP2pEngineGetMetadata(static_cast<FlagcxP2pEngine *>(engine), &metadata), 0);
  const std::unique_ptr<char[]> owned(metadata);
  const std::string text = metadata;
  return text.substr(0, text.find('?'));
}

} // namespace

TEST(Ctypes, MovesScatteredBlocksBetweenTwoEngines) {
  void *const server = lib.create();
  void *const client = lib.create();
  ASSERT_TRUE(server && client);
  ASSERT_EQ(lib.serve(server), 0);
  ASSERT_GT(lib.port(server), 0);

  Memory pool(1 << 20), source(1 << 20);
  source.scramble(7);
  // The pool is registered in chunks, all before the first connection.
  for (uint64_t chunk = 0; chunk < 4; ++chunk) {
    uint64_t region = 0;
    ASSERT_EQ(lib.regHost(server, pool.address() + (chunk << 18), 1 << 18, &region), 0);
    EXPECT_NE(region, 0u);
  }
  uint64_t region = 0;
  ASSERT_EQ(lib.reg(client, source.address(), source.size(), &region), 0);

  void *const conn = lib.conn(client, sessionOf(server).c_str());
  ASSERT_NE(conn, nullptr) << flagcxP2pEngineLastError();
  std::vector<uint64_t> from, to, sizes;
  for (uint64_t block = 0; block < 256; ++block) {
    from.push_back(source.address() + block * 4096);
    to.push_back(pool.address() + (255 - block) * 4096);
    sizes.push_back(4096);
  }
  ASSERT_EQ(lib.write(conn, 256, from.data(), to.data(), sizes.data()), 0) << flagcxP2pEngineLastError();
  for (uint64_t block = 0; block < 256; ++block)
    ASSERT_TRUE(bytes(pool, (255 - block) * 4096, 4096) == bytes(source, block * 4096, 4096)) << block;
  lib.destroy(client);
  lib.destroy(server);
}

TEST(Ctypes, HandlesAreThoseOfTheCppFunctions) {
  void *const engine = lib.create();
  ASSERT_NE(engine, nullptr);
  EXPECT_EQ(flagcxP2pEngineGetRpcPort(static_cast<FlagcxP2pEngine *>(engine)), lib.port(engine));
  flagcxP2pEngineDestroy(static_cast<FlagcxP2pEngine *>(engine));
}

TEST(Ctypes, RefusesNull) {
  const Engine engine = createEngine();
  const Memory memory(4096);
  const uint64_t one = 1;
  EXPECT_EQ(lib.port(nullptr), -1);
  EXPECT_EQ(lib.serve(nullptr), -1);
  EXPECT_EQ(lib.reg(engine.get(), memory.address(), 4096, nullptr), -1);
  EXPECT_EQ(lib.regHost(engine.get(), memory.address(), 4096, nullptr), -1);
  uint64_t region = 55;
  EXPECT_EQ(lib.reg(nullptr, memory.address(), 4096, &region), -1);
  EXPECT_EQ(lib.reg(engine.get(), 0, 4096, &region), -1);
  EXPECT_EQ(lib.reg(engine.get(), memory.address(), 0, &region), -1);
  EXPECT_EQ(region, 55u);
  EXPECT_EQ(lib.conn(nullptr, "127.0.0.1:1"), nullptr);
  EXPECT_EQ(lib.conn(engine.get(), nullptr), nullptr);
  EXPECT_EQ(lib.write(nullptr, 1, &one, &one, &one), -1);
  EXPECT_EQ(lib.write(nullptr, 0, nullptr, nullptr, nullptr), -1);
  lib.destroy(nullptr);
}

class CtypesPair : public Pair {};

TEST_F(CtypesPair, RefusesBadBatches) {
  const uint64_t from = local->address(), to = remote->address(), size = 16;
  EXPECT_EQ(lib.write(conn, -1, &from, &to, &size), -1);
  EXPECT_EQ(lib.write(conn, 1, nullptr, &to, &size), -1);
  EXPECT_EQ(lib.write(conn, 1, &from, nullptr, &size), -1);
  EXPECT_EQ(lib.write(conn, 1, &from, &to, nullptr), -1);
  EXPECT_EQ(lib.write(conn, 0, nullptr, nullptr, nullptr), 0);
  EXPECT_EQ(lib.write(conn, 1, &from, &to, &size), 0);
}
