// SPDX-License-Identifier: Apache-2.0
//
// Regions and descriptors, on the engine that owns them and on a peer that was told of them.
#include "support.h"

using namespace support;

TEST(Regions, HaveIdsThatAreNeverReused) {
  const Engine engine = createEngine();
  const Memory memory(16384);
  FlagcxP2pMr first = 0, second = 0, third = 0;
  ASSERT_EQ(flagcxP2pEngineReg(engine.get(), memory.address(), 4096, first), 0);
  ASSERT_EQ(flagcxP2pEngineReg(engine.get(), memory.address() + 4096, 4096, second), 0);
  EXPECT_NE(first, 0u);
  EXPECT_NE(first, second);
  flagcxP2pEngineMrDestroy(engine.get(), first);
  ASSERT_EQ(flagcxP2pEngineReg(engine.get(), memory.address(), 4096, third), 0);
  EXPECT_NE(third, first);
  EXPECT_NE(third, second);
}

TEST(Regions, RegisteredTwiceMustBeDestroyedTwice) {
  const Engine engine = createEngine();
  const Memory memory(4096);
  char desc[FLAGCX_P2P_DESC_SIZE];
  FlagcxP2pMr first = 0, second = 0;
  ASSERT_EQ(flagcxP2pEngineReg(engine.get(), memory.address(), 4096, first), 0);
  ASSERT_EQ(flagcxP2pEngineReg(engine.get(), memory.address(), 4096, second), 0);
  EXPECT_EQ(first, second);
  flagcxP2pEngineMrDestroy(engine.get(), first);
  EXPECT_EQ(flagcxP2pEnginePrepareDesc(engine.get(), first, memory.data(), 1, desc), 0);
  flagcxP2pEngineMrDestroy(engine.get(), first);
  EXPECT_EQ(flagcxP2pEnginePrepareDesc(engine.get(), first, memory.data(), 1, desc), -1);
}

TEST(Regions, WithOneStartHaveOneSize) {
  const Engine engine = createEngine();
  const Memory memory(8192);
  FlagcxP2pMr first = 0, second = 77;
  ASSERT_EQ(flagcxP2pEngineReg(engine.get(), memory.address(), 4096, first), 0);
  EXPECT_EQ(flagcxP2pEngineReg(engine.get(), memory.address(), 8192, second), -1);
  EXPECT_EQ(second, 77u);
}

TEST(Regions, MayOverlap) {
  const Engine engine = createEngine();
  const Memory memory(8192);
  FlagcxP2pMr whole = 0, half = 0;
  ASSERT_EQ(flagcxP2pEngineReg(engine.get(), memory.address(), 8192, whole), 0);
  ASSERT_EQ(flagcxP2pEngineReg(engine.get(), memory.address() + 4096, 4096, half), 0);
  EXPECT_NE(whole, half);
}

TEST(Regions, OfOneRangeOnTwoEnginesAreTwo) {
  const Engine first = createEngine(), second = createEngine();
  const Memory memory(4096);
  char desc[FLAGCX_P2P_DESC_SIZE];
  FlagcxP2pMr one = 0, two = 0;
  ASSERT_EQ(flagcxP2pEngineReg(first.get(), memory.address(), 4096, one), 0);
  ASSERT_EQ(flagcxP2pEngineReg(second.get(), memory.address(), 4096, two), 0);
  EXPECT_NE(one, two);
  flagcxP2pEngineMrDestroy(first.get(), two); // not its own: nothing happens
  EXPECT_EQ(flagcxP2pEnginePrepareDesc(second.get(), two, memory.data(), 1, desc), 0);
  EXPECT_EQ(flagcxP2pEnginePrepareDesc(first.get(), two, memory.data(), 1, desc), -1);
}

TEST(Descriptors, NameWhatTheyWereMadeFor) {
  const Engine engine = createEngine();
  const Buffer buffer(engine, 4096);
  const FlagcxP2pRdmaDesc desc = buffer.desc(16, 100);
  EXPECT_EQ(desc.addr, buffer.address() + 16);
  EXPECT_EQ(desc.size, 100u);
  EXPECT_EQ(desc.rkey, buffer.desc(0, 4096).rkey);
  EXPECT_EQ(desc.nmsgs, 0u);
  EXPECT_EQ(desc.rid, 0u);
  EXPECT_EQ(desc.idx, 0u);
  EXPECT_EQ(std::string(desc.padding, 32), std::string(32, '\0'));
}

TEST(Descriptors, AreMadeOnlyForRangesInsideTheRegion) {
  const Engine engine = createEngine();
  const Buffer buffer(engine, 8192);
  const uint8_t *const start = buffer.data();
  const struct {
    const char *what;
    uintptr_t address;
    size_t size;
    int answer;
  } cases[] = {
      {"all of it", buffer.address(), 8192, 0},
      {"its last byte", buffer.address() + 8191, 1, 0},
      {"nothing at its start", buffer.address(), 0, 0},
      {"nothing at its end", buffer.address() + 8192, 0, 0},
      {"one byte too many", buffer.address(), 8193, -1},
      {"one byte too far", buffer.address() + 1, 8192, -1},
      {"before its start", buffer.address() - 1, 2, -1},
      {"after its end", buffer.address() + 8192, 1, -1},
      {"around the end of the address space", buffer.address() + 1, SIZE_MAX, -1},
      {"more than 32 bits tell", buffer.address(), (size_t(1) << 32) + 16, -1},
  };
  for (const auto &test : cases) {
    char image[FLAGCX_P2P_DESC_SIZE];
    memset(image, 0x5a, sizeof(image));
    EXPECT_EQ(flagcxP2pEnginePrepareDesc(engine.get(), buffer.region(), start + (test.address - buffer.address()),
                                         test.size, image),
              test.answer)
        << test.what;
    if (test.answer != 0) {
      EXPECT_EQ(std::string(image, sizeof(image)), std::string(sizeof(image), 0x5a)) << test.what;
    }
  }
}

TEST(Descriptors, AreRetargetedWithoutTouchingTheKey) {
  FlagcxP2pRdmaDesc desc;
  memset(&desc, 0x11, sizeof(desc));
  const uint64_t base = desc.addr;
  EXPECT_EQ(flagcxP2pEngineUpdateDesc(desc, base + 0xabcdef, 42), 0);
  EXPECT_EQ(desc.addr, base + 0xabcdef);
  EXPECT_EQ(desc.size, 42u);
  EXPECT_EQ(desc.rkey, 0x11111111u);
  EXPECT_EQ(desc.padding[31], 0x11);
}

TEST(Descriptors, AreNotRetargetedBeyondTheirRange) {
  constexpr uint64_t kTop = UINT64_MAX - 99;
  const struct {
    const char *what;
    uint64_t base, address;
    uint32_t held, size;
    bool inside;
  } cases[] = {
      {"all of it", 0x1000, 0x1000, 100, 100, true},
      {"its last byte", 0x1000, 0x1000 + 99, 100, 1, true},
      {"nothing at its end", 0x1000, 0x1000 + 100, 100, 0, true},
      {"one byte too many", 0x1000, 0x1000, 100, 101, false},
      {"one byte too far", 0x1000, 0x1000 + 1, 100, 100, false},
      {"before its start", 0x1000, 0xfff, 100, 1, false},
      {"nothing behind its end", 0x1000, 0x1000 + 101, 100, 0, false},
      {"4 GiB too far", 0x1000, 0x1000 + (uint64_t(1) << 32), 100, 1, false},
      {"nothing of nothing", 0x1000, 0x1000, 0, 0, true},
      {"a byte of nothing", 0x1000, 0x1000, 0, 1, false},
      {"the end of the address space", kTop, UINT64_MAX, 100, 1, true},
      {"around the end of the address space", kTop, 0, 100, 1, false},
      {"a length that wraps", kTop, UINT64_MAX, 100, UINT32_MAX, false},
  };
  for (const auto &test : cases) {
    FlagcxP2pRdmaDesc desc;
    memset(&desc, 0x5a, sizeof(desc));
    desc.addr = test.base;
    desc.size = test.held;
    const FlagcxP2pRdmaDesc before = desc;
    EXPECT_EQ(flagcxP2pEngineUpdateDesc(desc, test.address, test.size), test.inside ? 0 : -1) << test.what;
    if (test.inside) {
      EXPECT_EQ(desc.addr, test.address) << test.what;
      EXPECT_EQ(desc.size, test.size) << test.what;
    } else {
      EXPECT_EQ(memcmp(&desc, &before, sizeof(desc)), 0) << test.what;
      EXPECT_NE(strstr(flagcxP2pEngineLastError(), "UpdateDesc"), nullptr) << test.what;
    }
  }
}

class RemoteTable : public Pair {
 protected:
  int make(uint64_t address, uint32_t size) { return flagcxP2pEngineMakeDesc(conn, address, size, &desc); }
  FlagcxP2pRdmaDesc desc = {};
};

TEST_F(RemoteTable, ResolvesWhatThePeerRegistered) {
  memset(&desc, 0x5a, sizeof(desc));
  ASSERT_EQ(make(remote->address() + 64, 4096), 0);
  const FlagcxP2pRdmaDesc byPeer = remote->desc(64, 4096);
  EXPECT_EQ(memcmp(&desc, &byPeer, sizeof(desc)), 0);
}

TEST_F(RemoteTable, ResolvesBothWays) {
  ASSERT_EQ(flagcxP2pEngineMakeDesc(ends.accepted.get(), local->address(), kBytes, &desc), 0);
  EXPECT_EQ(desc.rkey, local->desc(0, kBytes).rkey);
}

TEST_F(RemoteTable, RefusesWhatIsInNoRegion) {
  const uint64_t start = remote->address();
  const struct {
    const char *what;
    uint64_t address;
    uint32_t size;
    int answer;
  } cases[] = {
      {"all of it", start, kBytes, 0},
      {"nothing at its end", start + kBytes, 0, 0},
      {"one byte too many", start, kBytes + 1, -1},
      {"before its start", start - 1, 1, -1},
      {"the end of the address space", UINT64_MAX - 15, 32, -1},
      {"the last address", UINT64_MAX, 1, -1},
      {"address 0", 0, 1, -1},
      {"an address never registered", 0x1000, 64, -1},
      {"the largest size", start, UINT32_MAX, -1},
  };
  for (const auto &test : cases) {
    desc.nmsgs = 1234;
    EXPECT_EQ(make(test.address, test.size), test.answer) << test.what;
    if (test.answer != 0) {
      EXPECT_EQ(desc.nmsgs, 1234u) << test.what << ": written although refused";
    }
  }
}

TEST(EmptyTable, ResolvesNothing) {
  const Engine client = createEngine(), server = createEngine();
  const Ends ends = connect(client, server);
  ASSERT_NE(ends.connected, nullptr);
  FlagcxP2pRdmaDesc desc;
  EXPECT_EQ(flagcxP2pEngineMakeDesc(ends.connected.get(), 0x1000, 64, &desc), -1);
}

TEST(UnannouncedRegion, IsOpenedByItsDescriptorOnly) {
  const Engine client = createEngine(), server = createEngine();
  const Buffer local(client, 4096, 9);
  const Memory memory(4096);
  uint64_t region = 0;
  ASSERT_EQ(flagcxP2pEngineRegFlags(server.get(), memory.address(), 4096,
                                    FLAGCX_P2P_REG_HOST | FLAGCX_P2P_REG_UNANNOUNCED, &region),
            0)
      << flagcxP2pEngineLastError();
  const Ends ends = connect(client, server);
  ASSERT_NE(ends.connected, nullptr);
  FlagcxP2pRdmaDesc desc;
  EXPECT_EQ(flagcxP2pEngineMakeDesc(ends.connected.get(), memory.address(), 4096, &desc), -1);

  char image[FLAGCX_P2P_DESC_SIZE];
  ASSERT_EQ(flagcxP2pEnginePrepareDesc(server.get(), region, memory.data(), 4096, image), 0);
  flagcxP2pDeserializeRdmaDesc(image, &desc);
  uint64_t transfer = 0;
  ASSERT_EQ(flagcxP2pEngineWrite(ends.connected.get(), 0, local.data(), 4096, desc, &transfer), 0);
  EXPECT_TRUE(succeeds(ends.connected.get(), transfer));
  EXPECT_EQ(memory.data()[100], 9);
}
