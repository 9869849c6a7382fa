// SPDX-License-Identifier: Apache-2.0
//
// Every call that moves bytes, with host memory and GPU memory at either end. The GPU is a stand-in; two processes, and the
// calls of Rust, are in rust/core/tests/gpu.rs.
#include <functional>
#include <map>

#include "fake_gpu.h"
#include "net_support.h"

using namespace support;

namespace {

constexpr size_t kHalf = FakeGpu::kBytes / 2;

// With FLAGCX_P2P_PATH=tcp both ends are known to be in one process only by the caller's `sameProcess`.
bool overTcp() {
  const char *const path = getenv("FLAGCX_P2P_PATH");
  return path != nullptr && std::string(path) == "tcp";
}

// One end's memory: half of the GPU's, or the host's.
struct End {
  bool onGpu;
  size_t offset; // of the GPU's memory
  Buffer *host;
  FlagcxP2pMr gpuRegion;

  void *pointer(size_t from = 0) const {
    return onGpu ? reinterpret_cast<void *>(FakeGpu::address(offset + from)) : host->data() + from;
  }
  FlagcxP2pMr region() const { return onGpu ? gpuRegion : host->region(); }
  std::string read(size_t from, size_t count) const {
    return onGpu ? FakeGpu::read(offset + from, count) : bytes(*host, from, count);
  }
  void write(const std::string &content) const {
    if (onGpu)
      FakeGpu::write(offset, content);
    else
      memcpy(host->data(), content.data(), content.size());
  }
};

struct Call {
  FlagcxP2pConn *conn;
  FlagcxP2pMr region;
  void *local;
  FlagcxP2pRdmaDesc desc;
  size_t bytes;
  uint64_t id = 0;
};

uint64_t asNumber(void *pointer) {
  return reinterpret_cast<uintptr_t>(pointer);
}

// By name; those that wait leave id 0.
const std::map<std::string, std::function<int(Call &)>> kWrites = {
    {"Write", [](Call &c) { return flagcxP2pEngineWrite(c.conn, c.region, c.local, c.bytes, c.desc, &c.id); }},
    {"WriteVector",
     [](Call &c) {
       return flagcxP2pEngineWriteVector(c.conn, {c.region}, {c.local}, {c.bytes}, {c.desc}, 1, &c.id);
     }},
    {"TryWriteVector",
     [](Call &c) { return flagcxP2pEngineTryWriteVector(c.conn, &c.region, &c.local, &c.bytes, &c.desc, 1, &c.id); }},
    {"WriteVectorSync",
     [](Call &c) { return flagcxP2pEngineWriteVectorSync(c.conn, {c.region}, {c.local}, {c.bytes}, {c.desc}); }},
    {"RpcBatchWriteSync",
     [](Call &c) {
       const uint64_t from = asNumber(c.local), to = c.desc.addr, size = c.bytes;
       return flagcxP2pRpcBatchWriteSync(c.conn, 1, &from, &to, &size);
     }},
};
const std::map<std::string, std::function<int(Call &)>> kReads = {
    {"Read", [](Call &c) { return flagcxP2pEngineRead(c.conn, c.region, c.local, c.bytes, c.desc, &c.id); }},
    {"ReadVector",
     [](Call &c) { return flagcxP2pEngineReadVector(c.conn, {c.region}, {c.local}, {c.bytes}, {c.desc}, 1, &c.id); }},
    {"TryReadVector",
     [](Call &c) { return flagcxP2pEngineTryReadVector(c.conn, &c.region, &c.local, &c.bytes, &c.desc, 1, &c.id); }},
};

// The caller's `sameProcess`.
class EntryPoints : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    setenv("FLAGCX_P2P_FABRIC", "software", 1); // no NIC can reach the stand-in's memory
    FakeGpu::reset();
    FakeGpu::delay(2);
    const FlagcxP2pDeviceTable table = FakeGpu::table();
    ASSERT_EQ(flagcxP2pSetDeviceTable(&table), 0);
    client = createEngine();
    server = createEngine();
    ASSERT_TRUE(client && server);
    host = std::make_unique<Buffer>(client, kHalf);
    remoteHost = std::make_unique<Buffer>(server, kHalf);
    ASSERT_EQ(flagcxP2pEngineReg(client.get(), FakeGpu::address(), kHalf, gpu), 0);
    ASSERT_EQ(flagcxP2pEngineReg(server.get(), FakeGpu::address(kHalf), kHalf, remoteGpu), 0);
    ends = connect(client, server, GetParam());
    ASSERT_NE(ends.connected, nullptr) << flagcxP2pEngineLastError();
  }
  void TearDown() override {
    FakeGpu::delay(0);
    ends = {};
    flagcxP2pEngineMrDestroy(client.get(), gpu);
    flagcxP2pEngineMrDestroy(server.get(), remoteGpu);
    host.reset();
    remoteHost.reset();
    client.reset();
    server.reset();
    flagcxP2pSetDeviceTable(nullptr);
    EXPECT_EQ(FakeGpu::streams, streams);
    EXPECT_EQ(FakeGpu::events, streams);
    EXPECT_EQ(FakeGpu::handles, 0);
    EXPECT_EQ(FakeGpu::opened, 0);
  }
  End here(bool onGpu) const { return {onGpu, 0, host.get(), gpu}; }
  End there(bool onGpu) const { return {onGpu, kHalf, remoteHost.get(), remoteGpu}; }

  // One transfer of `count` bytes at odd offsets, by `call`: its bytes and no others.
  void expectBytes(const std::string &name, const std::function<int(Call &)> &call, bool write, bool localGpu,
                   bool remoteGpu) {
    SCOPED_TRACE(name + (localGpu ? " GPU" : " host") + (write ? " -> " : " <- ") + (remoteGpu ? "GPU" : "host"));
    const End local = here(localGpu), remote = there(remoteGpu), from = write ? local : remote,
              to = write ? remote : local;
    for (size_t count : {1, 3000, 400000}) {
      std::string content(kHalf, 0);
      for (size_t i = 0; i < kHalf; ++i) content[i] = static_cast<char>(i * 31 + count);
      from.write(content);
      to.write(std::string(kHalf, '\x5a'));
      char image[FLAGCX_P2P_DESC_SIZE];
      ASSERT_EQ(flagcxP2pEnginePrepareDesc(server.get(), remote.region(), remote.pointer(77), count, image), 0);
      Call one{ends.connected.get(), local.region(), local.pointer(5), {}, count};
      flagcxP2pDeserializeRdmaDesc(image, &one.desc);
      const size_t sent = write ? 5 : 77, landed = write ? 77 : 5;
      if (overTcp() && !GetParam() && !ipcGiven && (localGpu || remoteGpu)) {
        EXPECT_EQ(call(one), -1);
        EXPECT_NE(strstr(flagcxP2pEngineLastError(), "GPU memory"), nullptr) << flagcxP2pEngineLastError();
        EXPECT_EQ(to.read(0, kHalf), std::string(kHalf, '\x5a')) << "refused, and nothing was moved";
        continue;
      }
      ASSERT_EQ(call(one), 0) << flagcxP2pEngineLastError();
      EXPECT_TRUE(succeeds(one.conn, one.id));
      EXPECT_EQ(to.read(landed, count), content.substr(sent, count));
      EXPECT_EQ(to.read(0, landed), std::string(landed, '\x5a'));
      EXPECT_EQ(to.read(landed + count, kHalf - landed - count), std::string(kHalf - landed - count, '\x5a'));
    }
  }

  const int streams = FakeGpu::streams; // of the net adaptor, which keeps its devices
  Engine client, server;
  std::unique_ptr<Buffer> host, remoteHost;
  FlagcxP2pMr gpu = 0, remoteGpu = 0;
  Ends ends;
  bool ipcGiven = false;
};

TEST_P(EntryPoints, EveryWriteMovesEveryKindOfMemory) {
  for (const auto &[name, call] : kWrites)
    for (bool local : {false, true})
      for (bool remote : {false, true}) expectBytes(name, call, true, local, remote);
}

TEST_P(EntryPoints, EveryReadMovesEveryKindOfMemory) {
  for (const auto &[name, call] : kReads)
    for (bool local : {false, true})
      for (bool remote : {false, true}) expectBytes(name, call, false, local, remote);
}

// The calls that take IPC information, from and to host and GPU memory. In one process it is not needed, and ignored.
TEST_P(EntryPoints, IpcInformationReachesThePeersGpu) {
  char ipc[FLAGCX_P2P_IPC_INFO_SIZE];
  bool found = false;
  ASSERT_EQ(flagcxP2pEngineGetIpcInfo(server.get(), FakeGpu::address(kHalf + 77), ipc, &found), 0);
  ASSERT_TRUE(found);
  const auto write = [&](Call &c) {
    return flagcxP2pEngineWriteVector(c.conn, {c.region}, {c.local}, {c.bytes}, {c.desc}, 1, &c.id, {ipc});
  };
  const auto read = [&](Call &c) {
    return flagcxP2pEngineReadVector(c.conn, {c.region}, {c.local}, {c.bytes}, {c.desc}, 1, &c.id, {ipc});
  };
  ipcGiven = true;
  for (bool local : {false, true}) {
    expectBytes("WriteVector with IPC", write, true, local, true);
    expectBytes("ReadVector with IPC", read, false, local, true);
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, EntryPoints, testing::Bool());

// A transfer right after the registration, of which the peer's news may not have come yet.
TEST(GpuEntryPoints, ARegionIsKnownAsSoonAsItIsRegistered) {
  FakeGpu::reset();
  const FlagcxP2pDeviceTable table = FakeGpu::table();
  ASSERT_EQ(flagcxP2pSetDeviceTable(&table), 0);
  {
    const Engine client = createEngine(), server = createEngine();
    const Ends ends = connect(client, server, true);
    const Buffer host(client, 4096, 7);
    for (int i = 0; i < 50; ++i) {
      FlagcxP2pMr region = 0;
      ASSERT_EQ(flagcxP2pEngineReg(server.get(), FakeGpu::address(4096 * i), 4096, region), 0);
      char image[FLAGCX_P2P_DESC_SIZE];
      void *const to = reinterpret_cast<void *>(FakeGpu::address(4096 * i));
      ASSERT_EQ(flagcxP2pEnginePrepareDesc(server.get(), region, to, 4096, image), 0);
      FlagcxP2pRdmaDesc desc;
      flagcxP2pDeserializeRdmaDesc(image, &desc);
      uint64_t id = 0;
      ASSERT_EQ(flagcxP2pEngineWrite(ends.connected.get(), 0, host.data(), 4096, desc, &id), 0)
          << flagcxP2pEngineLastError();
      EXPECT_TRUE(succeeds(ends.connected.get(), id));
      EXPECT_EQ(FakeGpu::read(4096 * i, 4096), bytes(host, 0, 4096));
      flagcxP2pEngineMrDestroy(server.get(), region);
    }
  }
  flagcxP2pSetDeviceTable(nullptr);
}

// The net adaptor's table: both comms are of this process, and its regions are not announced.
class NetEntryPoints : public NetPair {
 protected:
  void SetUp() override {
    FakeGpu::reset();
    FakeGpu::delay(2);
    const FlagcxP2pDeviceTable table = FakeGpu::table();
    ASSERT_EQ(flagcxP2pSetDeviceTable(&table), 0);
    NetPair::SetUp();
  }
  void TearDown() override {
    NetPair::TearDown();
    FakeGpu::delay(0);
    flagcxP2pSetDeviceTable(nullptr);
  }
  void *registerGpu(void *comm, size_t offset) {
    void *handle = nullptr;
    void *const pointer = reinterpret_cast<void *>(FakeGpu::address(offset));
    EXPECT_EQ(net.regMr(comm, pointer, kHalf, FLAGCX_PTR_CUDA, 0, &handle), flagcxSuccess)
        << flagcxP2pEngineLastError();
    return handle;
  }
};

TEST_F(NetEntryPoints, EveryCallMovesEveryKindOfMemory) {
  NetMemory host(sendComm, kHalf), remoteHost(recvComm, kHalf);
  void *const gpu = registerGpu(sendComm, 0), *const remoteGpu = registerGpu(recvComm, kHalf);
  struct NetEnd {
    void *handle;
    NetMemory *host;
    size_t offset;
    std::string read() const { return host ? bytes(*host, 0, kHalf) : FakeGpu::read(offset, kHalf); }
    void write(const std::string &content) const {
      if (host)
        memcpy(host->data(), content.data(), content.size());
      else
        FakeGpu::write(offset, content);
    }
  };
  const NetEnd here[] = {{host.handle(), &host, 0}, {gpu, nullptr, 0}},
               there[] = {{remoteHost.handle(), &remoteHost, kHalf}, {remoteGpu, nullptr, kHalf}};
  const auto expect = [&](const char *name, const NetEnd &from, const NetEnd &to, auto start) {
    SCOPED_TRACE(std::string(name) + (from.host ? " host" : " GPU") + " -> " + (to.host ? "host" : "GPU"));
    std::string content(kHalf, 0);
    for (size_t i = 0; i < kHalf; ++i) content[i] = static_cast<char>(i * 7 + 3);
    from.write(content);
    to.write(std::string(kHalf, 'x'));
    void *request = nullptr;
    ASSERT_EQ(start(&request), flagcxSuccess) << flagcxP2pEngineLastError();
    EXPECT_EQ(finish(request), flagcxSuccess) << flagcxP2pEngineLastError();
    EXPECT_EQ(to.read(), std::string(9, 'x') + content.substr(5, 70000) + std::string(kHalf - 70009, 'x'));
  };
  for (const NetEnd &local : here)
    for (const NetEnd &remote : there) {
      void **const ours = static_cast<void **>(local.handle), **const theirs = static_cast<void **>(remote.handle);
      expect("iput", local, remote,
             [&](void **request) { return net.iput(sendComm, 5, 9, 70000, 0, 1, ours, theirs, request); });
      expect("iputBatch", local, remote, [&](void **request) {
        const uint64_t from = 5, to = 9;
        const size_t size = 70000;
        int posted = 0;
        return net.iputBatch(sendComm, 1, &from, &to, &size, 0, 1, ours, theirs, request, &posted);
      });
      expect("iget", remote, local,
             [&](void **request) { return net.iget(sendComm, 5, 9, 70000, 1, 0, theirs, ours, request); });
    }
  // A batch of all kinds, 64 bytes each.
  const uint64_t from[] = {0, 64, 128, 192}, to[] = {256, 320, 384, 448};
  const size_t sizes[] = {64, 64, 64, 64};
  void *const ours[] = {host.handle(), host.handle(), gpu, gpu};
  void *const theirs[] = {remoteHost.handle(), remoteGpu, remoteHost.handle(), remoteGpu};
  const auto content = [](const NetEnd &end, size_t offset) { return end.read().substr(offset, 64); };
  for (const NetEnd *end : {&here[0], &here[1], &there[0], &there[1]})
    end->write(std::string(256, 'x') + std::string(256, end->host ? 'h' : 'g'));
  void *request = nullptr;
  ASSERT_EQ(net.igetBatch(sendComm, 4, to, from, sizes, 1, 0, theirs, ours, &request), flagcxSuccess)
      << flagcxP2pEngineLastError();
  EXPECT_EQ(finish(request), flagcxSuccess);
  EXPECT_EQ(content(here[0], 0) + content(here[1], 128), std::string(128, 'h')) << "from the host's";
  EXPECT_EQ(content(here[0], 64) + content(here[1], 192), std::string(128, 'g')) << "from the GPU's";
  EXPECT_EQ(net.deregMr(sendComm, gpu), flagcxSuccess);
  EXPECT_EQ(net.deregMr(recvComm, remoteGpu), flagcxSuccess);
}

} // namespace
