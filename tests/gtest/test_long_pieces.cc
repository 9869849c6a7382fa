// SPDX-License-Identifier: Apache-2.0
//
// Pieces of 4 GiB and more, longer than a descriptor's size of 32 bits can express: every call moves all of their bytes.
#include <cstdlib>
#include <cstring>
#include <functional>
#include <sys/mman.h>
#include <unistd.h>

#include "support.h"

using namespace support;

namespace {

constexpr size_t kGiB = size_t(1) << 30;
constexpr size_t kPage = 4096;

// More than 4 GiB that take 2 MiB: one small file, mapped again and again. A page of its own stands at every 256 MiB and
// at the end, so that bytes that were left out or went elsewhere are found there.
class LongMemory {
 public:
  static constexpr size_t kBytes = 4 * kGiB + 4 * kPage;

  LongMemory() {
    const int file = memfd_create("long", MFD_CLOEXEC);
    EXPECT_EQ(ftruncate(file, kShared), 0);
    data_ = static_cast<uint8_t *>(
        mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    EXPECT_NE(data_, MAP_FAILED);
    for (size_t offset = 0; offset < 4 * kGiB; offset += kShared) map(offset, kShared, MAP_SHARED, file);
    for (size_t offset = 0; offset < 4 * kGiB; offset += kStep) map(offset, kPage, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    close(file);
  }
  ~LongMemory() { munmap(data_, kBytes); }
  LongMemory(const LongMemory &) = delete;
  LongMemory &operator=(const LongMemory &) = delete;

  uint8_t *data() const { return data_; }
  uintptr_t address() const { return reinterpret_cast<uintptr_t>(data_); }

  // Other bytes in each page that stands alone, and in the file.
  void fill(uint32_t seed) {
    for (size_t offset : places())
      for (size_t i = 0; i < kPage; i += sizeof(uint32_t)) {
        seed = seed * 1664525 + 1013904223;
        memcpy(data_ + offset + i, &seed, sizeof(seed));
      }
  }

  // The bytes of those places that lie before `length`, and those behind.
  std::string before(size_t length) const { return text(0, length); }
  std::string behind(size_t length) const { return text(length, kBytes); }

 private:
  static constexpr size_t kShared = size_t(2) << 20, kStep = size_t(256) << 20;

  void map(size_t offset, size_t bytes, int flags, int file) {
    EXPECT_NE(mmap(data_ + offset, bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED, file, 0), MAP_FAILED);
  }

  static std::vector<size_t> places() {
    std::vector<size_t> all;
    for (size_t offset = 0; offset < 4 * kGiB; offset += kStep) all.push_back(offset);
    for (size_t offset = kShared; offset < 2 * kShared; offset += kPage) all.push_back(offset);
    for (size_t offset = 4 * kGiB; offset < kBytes; offset += kPage) all.push_back(offset);
    return all;
  }

  std::string text(size_t from, size_t to) const {
    std::string all;
    for (size_t place : places()) {
      const size_t begin = std::max(place, from), end = std::min(place + kPage, to);
      if (begin < end)
        all.append(reinterpret_cast<const char *>(data_ + begin), end - begin);
    }
    return all;
  }

  uint8_t *data_;
};

class LongPieces : public testing::Test {
 protected:
  // Not at the end of a page.
  static constexpr size_t kLength = 4 * kGiB + kPage + 7;

  void SetUp() override {
    client = createEngine();
    server = createEngine();
    ASSERT_EQ(flagcxP2pEngineReg(client.get(), local.address(), LongMemory::kBytes, mr), 0);
    ASSERT_EQ(flagcxP2pEngineReg(server.get(), remote.address(), LongMemory::kBytes, remoteMr), 0);
    ends = connect(client, server);
    conn = ends.connected.get();
    ASSERT_NE(conn, nullptr);
    ASSERT_EQ(flagcxP2pEngineMakeDesc(conn, remote.address(), UINT32_MAX, &desc), 0) << flagcxP2pEngineLastError();
  }

  // `call` moves `kLength` bytes from the start of `from` to the start of `to`, and nothing else.
  void moves(const char *name, LongMemory &from, LongMemory &to, const std::function<int(uint64_t *)> &call) {
    SCOPED_TRACE(name);
    from.fill(++seed);
    to.fill(++seed);
    const std::string guard = to.behind(kLength);
    uint64_t transfer = 0;
    ASSERT_EQ(call(&transfer), 0) << flagcxP2pEngineLastError();
    FlagcxP2pXferResult result;
    result.size = sizeof(result);
    ASSERT_EQ(flagcxP2pEngineXferWait(conn, transfer, -1, &result), 0);
    ASSERT_EQ(result.state, FLAGCX_P2P_XFER_DONE) << result.reason;
    EXPECT_TRUE(to.before(kLength) == from.before(kLength));
    EXPECT_TRUE(to.behind(kLength) == guard);
  }

  Engine client, server;
  LongMemory local, remote;
  FlagcxP2pMr mr = 0, remoteMr = 0;
  Ends ends;
  FlagcxP2pConn *conn = nullptr;
  FlagcxP2pRdmaDesc desc;
  uint32_t seed = 0;
};

TEST_F(LongPieces, AreMovedByEveryCall) {
  const char *const fabric = getenv("FLAGCX_P2P_FABRIC");
  if (fabric != nullptr && strcmp(fabric, "verbs") == 0)
    GTEST_SKIP() << "not run over verbs: a device that is emulated moves 24 GiB for minutes";
  // The second piece moves bytes that the first one moves as well.
  const std::vector<FlagcxP2pMr> regions(2, mr);
  const std::vector<void *> addresses(2, local.data());
  const std::vector<size_t> sizes{kLength, 64};
  const std::vector<FlagcxP2pRdmaDesc> descs(2, desc);
  moves("Write", local, remote,
        [&](uint64_t *id) { return flagcxP2pEngineWrite(conn, mr, local.data(), kLength, desc, id); });
  moves("Read", remote, local,
        [&](uint64_t *id) { return flagcxP2pEngineRead(conn, mr, local.data(), kLength, desc, id); });
  moves("WriteVector", local, remote,
        [&](uint64_t *id) { return flagcxP2pEngineWriteVector(conn, regions, addresses, sizes, descs, 2, id); });
  moves("TryReadVector", remote, local, [&](uint64_t *id) {
    return flagcxP2pEngineTryReadVector(conn, regions.data(), addresses.data(), sizes.data(), descs.data(), 2, id);
  });
  moves("WriteVectorSync", local, remote,
        [&](uint64_t *) { return flagcxP2pEngineWriteVectorSync(conn, regions, addresses, sizes, descs); });
  moves("RpcBatchWriteSync", local, remote, [&](uint64_t *) {
    const uint64_t from = local.address(), to = remote.address(), size = kLength;
    return flagcxP2pRpcBatchWriteSync(conn, 1, &from, &to, &size);
  });
}

// A descriptor cannot express their length, so the announced regions are what counts.
TEST_F(LongPieces, AreRefusedOutsideTheRegions) {
  const Buffer small(server, 1 << 20);
  const size_t beyond = LongMemory::kBytes + 1;
  FlagcxP2pRdmaDesc tooShort = small.desc(0, 1 << 20);
  tooShort.size = UINT32_MAX;
  uint64_t transfer = 0;
  const auto refused = [&](const char *why, size_t size, const FlagcxP2pRdmaDesc &to, const uint8_t *from) {
    const std::vector<FlagcxP2pMr> regions{mr};
    void *const source = const_cast<uint8_t *>(from);
    EXPECT_EQ(flagcxP2pEngineWrite(conn, mr, from, size, to, &transfer), -1);
    EXPECT_NE(std::string(flagcxP2pEngineLastError()).find(why), std::string::npos) << flagcxP2pEngineLastError();
    EXPECT_EQ(flagcxP2pEngineReadVector(conn, regions, {source}, {size}, {to}, 1, &transfer), -1);
    EXPECT_EQ(flagcxP2pEngineTryWriteVector(conn, &mr, &source, &size, &to, 1, &transfer), -1);
    EXPECT_EQ(flagcxP2pEngineWriteVectorSync(conn, regions, {source}, {size}, {to}), -1);
    const uint64_t near = reinterpret_cast<uintptr_t>(from), far = to.addr, length = size;
    EXPECT_EQ(flagcxP2pRpcBatchWriteSync(conn, 1, &near, &far, &length), -1);
  };
  refused("local range", beyond, desc, local.data());
  refused("remote range", kLength, tooShort, local.data());
  FlagcxP2pRdmaDesc late = desc;
  late.addr += 3 * kPage;
  refused("remote range", kLength, late, local.data());
}

} // namespace
