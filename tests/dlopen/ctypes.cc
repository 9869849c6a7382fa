// SPDX-License-Identifier: Apache-2.0
//
// The `extern "C"` functions of a library that is loaded at run time: what ctypes does, without Python. This program knows
// neither the headers nor the library; FLAGCX_P2P_LIBRARY names the file.
#include <dlfcn.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace {

struct Library {
  void *handle = dlopen(std::getenv("FLAGCX_P2P_LIBRARY"), RTLD_NOW | RTLD_LOCAL);

  template <typename Function>
  Function *find(const char *name) const {
    void *const found = handle == nullptr ? nullptr : dlsym(handle, name);
    EXPECT_NE(found, nullptr) << dlerror();
    return reinterpret_cast<Function *>(found);
  }
};

} // namespace

TEST(Dlopen, MovesBlocksThroughNamesAlone) {
  const Library library;
  ASSERT_NE(library.handle, nullptr) << dlerror();
  const auto create = library.find<void *()>("flagcxP2pRpcEngineCreate");
  const auto destroy = library.find<void(void *)>("flagcxP2pRpcEngineDestroy");
  const auto port = library.find<int(void *)>("flagcxP2pRpcGetPort");
  const auto serve = library.find<int(void *)>("flagcxP2pRpcStartServer");
  const auto reg = library.find<int(void *, uint64_t, uint64_t, uint64_t *)>("flagcxP2pRpcRegister");
  const auto regHost = library.find<int(void *, uint64_t, uint64_t, uint64_t *)>("flagcxP2pRpcRegisterHost");
  const auto conn = library.find<void *(void *, const char *)>("flagcxP2pRpcGetConn");
  const auto write = library.find<int(void *, int, const uint64_t *, const uint64_t *, const uint64_t *)>(
      "flagcxP2pRpcBatchWriteSync");
  ASSERT_FALSE(HasFailure());

  const size_t blocks = 64, block = 4096;
  std::vector<uint8_t> source(blocks * block), pool(blocks * block, 0xee);
  for (size_t i = 0; i < source.size(); ++i) source[i] = static_cast<uint8_t>(i * 131 + i / block);
  const auto address = [](const std::vector<uint8_t> &bytes) { return reinterpret_cast<uintptr_t>(bytes.data()); };

  void *const server = create(), *const client = create();
  ASSERT_TRUE(server != nullptr && client != nullptr);
  uint64_t region = 0;
  ASSERT_EQ(regHost(server, address(pool), pool.size(), &region), 0);
  ASSERT_EQ(reg(client, address(source), source.size(), &region), 0);
  ASSERT_EQ(serve(server), 0);
  const std::string session = "127.0.0.1:" + std::to_string(port(server));
  void *const peer = conn(client, session.c_str());
  ASSERT_NE(peer, nullptr) << session;

  // All but the first and the last block, in the opposite order.
  std::vector<uint64_t> from, to, sizes;
  for (size_t i = 1; i + 1 < blocks; ++i) {
    from.push_back(address(source) + i * block);
    to.push_back(address(pool) + (blocks - 1 - i) * block);
    sizes.push_back(block);
  }
  ASSERT_EQ(write(peer, static_cast<int>(sizes.size()), from.data(), to.data(), sizes.data()), 0);
  EXPECT_EQ(write(peer, -1, from.data(), to.data(), sizes.data()), -1);
  for (size_t i = 0; i < blocks; ++i) {
    const bool moved = i > 0 && i + 1 < blocks;
    for (size_t at = 0; at < block; ++at)
      ASSERT_EQ(pool[i * block + at], moved ? source[(blocks - 1 - i) * block + at] : 0xee) << i << ", " << at;
  }
  destroy(client);
  destroy(server);
}
