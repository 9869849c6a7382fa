// SPDX-License-Identifier: Apache-2.0
//
// Invalid arguments: each call answers as the header documents, with a reason, and changes nothing.
#include <functional>

#include "support.h"

using namespace support;

namespace {

// A call that must be refused, and a part of the reason that it must give.
struct Case {
  const char *what;
  std::function<int()> call;
  const char *reason;
};

const int kNoPiece = 0;

} // namespace

class BadInput : public Pair {
 protected:
  using Regions = std::vector<FlagcxP2pMr>;
  using Addresses = std::vector<void *>;
  using Sizes = std::vector<size_t>;
  using Descs = std::vector<FlagcxP2pRdmaDesc>;

  void SetUp() override {
    Pair::SetUp();
    if (HasFatalFailure())
      return;
    desc = remote->desc(0, 64);
    remote->scramble(1);
    local->scramble(2);
    before = bytes(*remote, 0, kBytes);
    beforeLocal = bytes(*local, 0, kBytes);
  }

  // Every call is refused, gives its reason, writes no output and moves no byte.
  void refused(const std::vector<Case> &cases) {
    for (const Case &test : cases) {
      SCOPED_TRACE(test.what);
      transfer = kUntouched;
      EXPECT_EQ(flagcxP2pEngineGetRpcPort(nullptr), -1); // another last error
      EXPECT_EQ(test.call(), -1);
      EXPECT_EQ(transfer, kUntouched) << "an id was given out";
      EXPECT_NE(std::string(flagcxP2pEngineLastError()).find(test.reason), std::string::npos)
          << flagcxP2pEngineLastError();
    }
    EXPECT_TRUE(bytes(*remote, 0, kBytes) == before) << "bytes moved";
    EXPECT_TRUE(bytes(*local, 0, kBytes) == beforeLocal) << "bytes moved";
    // And the connection still works.
    ASSERT_EQ(flagcxP2pEngineWrite(conn, 0, local->data(), 64, desc, &transfer), 0) << flagcxP2pEngineLastError();
    EXPECT_TRUE(succeeds(conn, transfer));
    before = bytes(*remote, 0, kBytes);
  }

  static constexpr uint64_t kUntouched = 0x1122334455667788;
  FlagcxP2pRdmaDesc desc;
  uint64_t transfer = kUntouched;
  std::string before, beforeLocal;
};

TEST_F(BadInput, Scalar) {
  using Scalar = int (*)(FlagcxP2pConn *, FlagcxP2pMr, const void *, size_t, FlagcxP2pRdmaDesc, uint64_t *);
  uint8_t *const data = local->data();
  const Memory unregistered(4096);
  for (const Scalar start : {&flagcxP2pEngineRead, &flagcxP2pEngineWrite}) {
    refused({
        {"no connection", [&] { return start(nullptr, 0, data, 64, desc, &transfer); }, "conn is NULL"},
        {"no data", [&] { return start(conn, 0, nullptr, 64, desc, &transfer); }, "data is NULL"},
        {"no place for the id", [&] { return start(conn, 0, data, 64, desc, nullptr); }, "transferId is NULL"},
        {"local range in no region", [&] { return start(conn, 0, unregistered.data(), 64, desc, &transfer); },
         "local"},
        {"local range sticks out", [&] { return start(conn, 0, data + kBytes - 63, 64, desc, &transfer); }, "local"},
        {"local range starts before", [&] { return start(conn, 0, data - 1, 64, desc, &transfer); }, "local"},
        {"local range wraps", [&] { return start(conn, 0, data + 1, SIZE_MAX, desc, &transfer); }, "piece 0"},
        {"longer than 4 GiB", [&] { return start(conn, 0, data, (size_t(1) << 32) + 64, desc, &transfer); },
         "piece 0"},
        {"longer than the descriptor", [&] { return start(conn, 0, data, 65, desc, &transfer); }, "remote"},
        {"remote range beyond the peer's region",
         [&] {
           FlagcxP2pRdmaDesc beyond = desc;
           beyond.addr = remote->address() + kBytes - 32;
           return start(conn, 0, data, 64, beyond, &transfer);
         },
         "remote"},
        {"remote range before the peer's region",
         [&] {
           FlagcxP2pRdmaDesc beyond = desc;
           beyond.addr = remote->address() - 1;
           return start(conn, 0, data, 64, beyond, &transfer);
         },
         "remote"},
        {"remote range wraps",
         [&] {
           FlagcxP2pRdmaDesc beyond = desc;
           beyond.addr = UINT64_MAX - 10;
           return start(conn, 0, data, 64, beyond, &transfer);
         },
         "remote"},
    });
  }
}

TEST_F(BadInput, Vectors) {
  using Vector = std::function<int(FlagcxP2pConn *, Regions, Addresses, Sizes, Descs, int, uint64_t *)>;
  const Vector calls[] = {
      [](FlagcxP2pConn *c, Regions r, Addresses a, Sizes s, Descs d, int n, uint64_t *id) {
        return flagcxP2pEngineReadVector(c, r, a, s, d, n, id);
      },
      [](FlagcxP2pConn *c, Regions r, Addresses a, Sizes s, Descs d, int n, uint64_t *id) {
        return flagcxP2pEngineWriteVector(c, r, a, s, d, n, id);
      },
  };
  const FlagcxP2pMr mr = local->region();
  void *const data = local->data();
  const Regions two{mr, mr};
  const Addresses twoData{data, data};
  const Sizes twoSizes{64, 64};
  const Descs twoDescs{desc, desc};
  const Buffer foreign(server, 4096); // a region, but another engine's
  FlagcxP2pMr stale = 0;
  {
    const Buffer gone(client, 4096);
    stale = gone.region();
  }
  for (const Vector &start : calls) {
    refused({
        {"no connection", [&] { return start(nullptr, two, twoData, twoSizes, twoDescs, 2, &transfer); },
         "conn is NULL"},
        {"no place for the id", [&] { return start(conn, two, twoData, twoSizes, twoDescs, 2, nullptr); },
         "transferId is NULL"},
        {"no pieces", [&] { return start(conn, two, twoData, twoSizes, twoDescs, kNoPiece, &transfer); },
         "at least one"},
        {"fewer than no pieces", [&] { return start(conn, two, twoData, twoSizes, twoDescs, -1, &transfer); },
         "at least one"},
        {"fewest pieces", [&] { return start(conn, two, twoData, twoSizes, twoDescs, INT32_MIN, &transfer); },
         "at least one"},
        {"empty vectors", [&] { return start(conn, {}, {}, {}, {}, 1, &transfer); }, "0 elements"},
        {"short regions", [&] { return start(conn, {mr}, twoData, twoSizes, twoDescs, 2, &transfer); }, "mrIds"},
        {"short addresses", [&] { return start(conn, two, {data}, twoSizes, twoDescs, 2, &transfer); }, "addresses"},
        {"short sizes", [&] { return start(conn, two, twoData, {64}, twoDescs, 2, &transfer); }, "sizeVec"},
        {"short descriptors", [&] { return start(conn, two, twoData, twoSizes, {desc}, 2, &transfer); }, "descs"},
        {"most pieces", [&] { return start(conn, two, twoData, twoSizes, twoDescs, INT32_MAX, &transfer); },
         "elements"},
        {"unknown region",
         [&] {
           return start(conn, {mr, 987654321}, twoData, twoSizes, twoDescs, 2, &transfer);
         },
         "piece 1"},
        {"region 0",
         [&] {
           return start(conn, {0, mr}, twoData, twoSizes, twoDescs, 2, &transfer);
         },
         "piece 0"},
        {"another engine's region",
         [&] { return start(conn, {foreign.region()}, {foreign.data()}, {64}, {desc}, 1, &transfer); }, "piece 0"},
        {"a region that is gone", [&] { return start(conn, {stale}, {data}, {64}, {desc}, 1, &transfer); },
         "piece 0"},
        {"NULL address",
         [&] {
           return start(conn, two, {data, nullptr}, twoSizes, twoDescs, 2, &transfer);
         },
         "piece 1"},
        {"local range sticks out",
         [&] {
           return start(conn, two, {data, local->data() + kBytes - 1}, twoSizes, twoDescs, 2, &transfer);
         },
         "piece 1"},
        {"size wraps",
         [&] {
           return start(conn, two, twoData, {64, SIZE_MAX}, twoDescs, 2, &transfer);
         },
         "piece 1"},
        {"longer than 4 GiB",
         [&] {
           return start(conn, two, twoData, {64, (size_t(1) << 32) + 64}, twoDescs, 2, &transfer);
         },
         "piece 1"},
        {"longer than its descriptor",
         [&] {
           return start(conn, two, twoData, {64, 65}, twoDescs, 2, &transfer);
         },
         "piece 1"},
    });
  }
}

TEST_F(BadInput, SyncVectors) {
  const FlagcxP2pMr mr = local->region();
  void *const data = local->data();
  refused({
      {"no connection", [&] { return flagcxP2pEngineWriteVectorSync(nullptr, {mr}, {data}, {64}, {desc}); },
       "conn is NULL"},
      {"short regions", [&] { return flagcxP2pEngineWriteVectorSync(conn, {}, {data}, {64}, {desc}); }, "mrIds"},
      {"short sizes", [&] { return flagcxP2pEngineWriteVectorSync(conn, {mr}, {data}, {}, {desc}); }, "sizeVec"},
      {"short descriptors", [&] { return flagcxP2pEngineWriteVectorSync(conn, {mr}, {data}, {64}, {}); }, "descs"},
      {"unknown region", [&] { return flagcxP2pEngineWriteVectorSync(conn, {4711}, {data}, {64}, {desc}); },
       "piece 0"},
      {"NULL address", [&] { return flagcxP2pEngineWriteVectorSync(conn, {mr}, {nullptr}, {64}, {desc}); },
       "piece 0"},
      {"longer than its descriptor", [&] { return flagcxP2pEngineWriteVectorSync(conn, {mr}, {data}, {65}, {desc}); },
       "piece 0"},
  });
}

TEST_F(BadInput, NonBlockingVectors) {
  const uint64_t mr = local->region();
  void *const data = local->data();
  const size_t size = 64;
  const auto start = flagcxP2pEngineTryWriteVector;
  refused({
      {"no connection", [&] { return start(nullptr, &mr, &data, &size, &desc, 1, &transfer); }, "conn"},
      {"no regions", [&] { return start(conn, nullptr, &data, &size, &desc, 1, &transfer); }, "mrIds"},
      {"no addresses", [&] { return start(conn, &mr, nullptr, &size, &desc, 1, &transfer); }, "addresses"},
      {"no sizes", [&] { return start(conn, &mr, &data, nullptr, &desc, 1, &transfer); }, "sizes"},
      {"no descriptors", [&] { return start(conn, &mr, &data, &size, nullptr, 1, &transfer); }, "descs"},
      {"no place for the id", [&] { return start(conn, &mr, &data, &size, &desc, 1, nullptr); }, "transferId"},
      {"no pieces", [&] { return start(conn, &mr, &data, &size, &desc, 0, &transfer); }, "at least one"},
  });
}

TEST_F(BadInput, Registration) {
  FlagcxP2pEngine *const engine = client.get();
  FlagcxP2pMr region = 77;
  char image[FLAGCX_P2P_DESC_SIZE];
  refused({
      {"no engine", [&] { return flagcxP2pEngineReg(nullptr, local->address(), 64, region); }, "engine is NULL"},
      {"address 0", [&] { return flagcxP2pEngineReg(engine, 0, 64, region); }, "data is NULL"},
      {"size 0", [&] { return flagcxP2pEngineReg(engine, local->address() + 64, 0, region); }, "0"},
      {"wraps", [&] { return flagcxP2pEngineReg(engine, UINTPTR_MAX - 4095, 8192, region); }, "memory"},
      {"nothing mapped there", [&] { return flagcxP2pEngineReg(engine, 4096, 4096, region); }, "0x1000"},
      {"no engine to describe", [&] { return flagcxP2pEnginePrepareDesc(nullptr, 1, local->data(), 1, image); },
       "engine is NULL"},
      {"no data to describe", [&] { return flagcxP2pEnginePrepareDesc(engine, local->region(), nullptr, 1, image); },
       "data is NULL"},
      {"no place for the descriptor",
       [&] { return flagcxP2pEnginePrepareDesc(engine, local->region(), local->data(), 1, nullptr); },
       "descBuf is NULL"},
      {"unknown region to describe",
       [&] { return flagcxP2pEnginePrepareDesc(engine, 123456, local->data(), 1, image); }, "PrepareDesc"},
      {"another engine's region to describe",
       [&] { return flagcxP2pEnginePrepareDesc(engine, remote->region(), remote->data(), 1, image); }, "PrepareDesc"},
      {"no connection to look up", [&] { return flagcxP2pEngineMakeDesc(nullptr, remote->address(), 1, &desc); },
       "conn is NULL"},
      {"no place for what is found", [&] { return flagcxP2pEngineMakeDesc(conn, remote->address(), 1, nullptr); },
       "desc is NULL"},
  });
  EXPECT_EQ(region, 77u);
}

TEST_F(BadInput, RegionsThatAreNoneAreDestroyedQuietly) {
  flagcxP2pEngineMrDestroy(nullptr, local->region());
  flagcxP2pEngineMrDestroy(client.get(), 0);
  flagcxP2pEngineMrDestroy(client.get(), 424242);
  flagcxP2pEngineMrDestroy(client.get(), remote->region()); // the other engine's
  refused({});
}

TEST_F(BadInput, TransferIdsThatAreNoneHaveEnded) {
  for (const uint64_t id : {uint64_t(0), uint64_t(1), uint64_t(0xdeadbeef), uint64_t(1) << 63, UINT64_MAX})
    EXPECT_TRUE(flagcxP2pEngineXferStatus(conn, id)) << id;
  EXPECT_TRUE(flagcxP2pEngineXferStatus(nullptr, 1));

  // Released, asked again and again.
  uint64_t stale = 0;
  ASSERT_EQ(flagcxP2pEngineWrite(conn, 0, local->data(), 64, desc, &stale), 0);
  ASSERT_TRUE(await(conn, stale));
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(flagcxP2pEngineXferStatus(conn, stale));
}

TEST_F(BadInput, NullHandles) {
  char address[16];
  int gpu = 0;
  char *metadata = nullptr;
  FlagcxP2pNotifyMsg message = {};
  const auto isNull = [](const void *handle) { return handle == nullptr ? -1 : 0; };
  FlagcxP2pEngine *const engine = client.get();
  refused({
      {"port", [&] { return flagcxP2pEngineGetRpcPort(nullptr); }, "engine is NULL"},
      {"rpc server", [&] { return flagcxP2pEngineStartRpcServer(nullptr); }, "engine is NULL"},
      {"connect", [&] { return isNull(flagcxP2pEngineConnect(nullptr, "127.0.0.1", 0, 1)); }, "engine is NULL"},
      {"connect to", [&] { return isNull(flagcxP2pEngineConnect(engine, nullptr, 0, 1)); }, "ipAddr is NULL"},
      {"accept", [&] { return isNull(flagcxP2pEngineAccept(nullptr, address, 16, &gpu)); }, "engine is NULL"},
      {"accept, no buffer", [&] { return isNull(flagcxP2pEngineAccept(engine, nullptr, 16, &gpu)); },
       "ipAddrBuf is NULL"},
      {"accept, no index", [&] { return isNull(flagcxP2pEngineAccept(engine, address, 16, nullptr)); },
       "remoteGpuIdx is NULL"},
      {"session", [&] { return isNull(flagcxP2pEngineGetConn(nullptr, "127.0.0.1:1")); }, "engine is NULL"},
      {"no session", [&] { return isNull(flagcxP2pEngineGetConn(engine, nullptr)); }, "session is NULL"},
      {"metadata", [&] { return flagcxP2pEngineGetMetadata(nullptr, &metadata); }, "engine is NULL"},
      {"no place for metadata", [&] { return flagcxP2pEngineGetMetadata(engine, nullptr); }, "metadataStr is NULL"},
      {"notify", [&] { return flagcxP2pEngineSendNotif(nullptr, &message); }, "conn is NULL"},
      {"no message", [&] { return flagcxP2pEngineSendNotif(conn, nullptr); }, "notifyMsg is NULL"},
  });
  EXPECT_EQ(metadata, nullptr);
}

TEST_F(BadInput, TwoSidedCallsAlwaysRefuse) {
  const FlagcxP2pMr region = local->region();
  void *const data = local->data();
  const char *const reason = "two-sided";
  refused({
      {"send", [&] { return flagcxP2pEngineSend(conn, region, data, 64, &transfer); }, reason},
      {"vector", [&] { return flagcxP2pEngineSendVector(conn, {region}, {data}, {64}, 1, &transfer); }, reason},
      {"receive", [&] { return flagcxP2pEngineRecv(conn, region, data, 64); }, reason},
  });
}

TEST_F(BadInput, IpcInformation) {
  char info[FLAGCX_P2P_IPC_INFO_SIZE] = {};
  bool has = true;
  refused({
      {"no buffer", [&] { return flagcxP2pEngineGetIpcInfo(client.get(), local->address(), nullptr, &has); },
       "ipcBuf is NULL"},
      {"no answer", [&] { return flagcxP2pEngineGetIpcInfo(client.get(), local->address(), info, nullptr); },
       "hasIpc is NULL"},
      {"memory in no region", [&] { return flagcxP2pEngineGetIpcInfo(nullptr, 0x1000, info, &has); }, "0x1000"},
      {"nothing to update", [&] { return flagcxP2pEngineUpdateIpcInfo(nullptr, 1, 1, 1); }, "ipcBuf is NULL"},
      {"before the base", [&] { return flagcxP2pEngineUpdateIpcInfo(info, 1, 2, 1); }, "baseAddr"},
  });
  EXPECT_FALSE(has);
}

TEST_F(BadInput, IpcInformationOfHostMemoryIsThatThereIsNone) {
  char info[FLAGCX_P2P_IPC_INFO_SIZE];
  memset(info, 0x5a, sizeof(info));
  for (FlagcxP2pEngine *engine : {client.get(), static_cast<FlagcxP2pEngine *>(nullptr)}) {
    bool has = true;
    EXPECT_EQ(flagcxP2pEngineGetIpcInfo(engine, local->address() + 100, info, &has), 0) << flagcxP2pEngineLastError();
    EXPECT_FALSE(has);
  }
  EXPECT_EQ(std::string(info, sizeof(info)), std::string(sizeof(info), 0x5a));
}

TEST(IpcInfo, UpdatesAddUp) {
  uint64_t info[16] = {};
  info[8] = 0x10000; // base
  info[9] = 16;      // offset
  info[10] = 4096;   // size
  char *const buffer = reinterpret_cast<char *>(info);
  EXPECT_EQ(flagcxP2pEngineUpdateIpcInfo(buffer, 0x10100, 0x10000, 512), 0);
  EXPECT_EQ(flagcxP2pEngineUpdateIpcInfo(buffer, 0x10010, 0x10000, 100), 0);
  EXPECT_EQ(info[8], 0x10000u);
  EXPECT_EQ(info[9], 16u + 0x100 + 0x10);
  EXPECT_EQ(info[10], 100u);
}
