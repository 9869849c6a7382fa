// SPDX-License-Identifier: Apache-2.0
//
// GPU memory of a stand-in, a table of callbacks: registration, IPC information, and the copies between two ends of a host.
#include <thread>

#include "fake_gpu.h"
#include "support.h"

using namespace support;

namespace {

constexpr size_t kHalf = FakeGpu::kBytes / 2;

// A registered range of the stand-in's memory.
struct GpuBuffer {
  GpuBuffer(const Engine &engine, size_t offset, size_t bytes) : engine(engine.get()), offset(offset), bytes(bytes) {
    EXPECT_EQ(flagcxP2pEngineReg(this->engine, address(), bytes, region), 0) << flagcxP2pEngineLastError();
  }
  ~GpuBuffer() { flagcxP2pEngineMrDestroy(engine, region); }
  uintptr_t address(size_t from = 0) const { return FakeGpu::address(offset + from); }
  void *pointer(size_t from = 0) const { return reinterpret_cast<void *>(address(from)); }
  std::string read(size_t from, size_t count) const { return FakeGpu::read(offset + from, count); }
  FlagcxP2pRdmaDesc desc(size_t from, size_t count) const {
    char image[FLAGCX_P2P_DESC_SIZE];
    EXPECT_EQ(flagcxP2pEnginePrepareDesc(engine, region, pointer(from), count, image), 0);
    FlagcxP2pRdmaDesc desc;
    flagcxP2pDeserializeRdmaDesc(image, &desc);
    return desc;
  }

  FlagcxP2pEngine *engine;
  size_t offset, bytes;
  FlagcxP2pMr region = 0;
};

// What the owner of GPU memory sends to a peer of this host.
struct Ipc {
  Ipc(const GpuBuffer &buffer, size_t from, size_t count) {
    bool found = false;
    EXPECT_EQ(flagcxP2pEngineGetIpcInfo(buffer.engine, buffer.address(), bytes, &found), 0);
    EXPECT_TRUE(found);
    EXPECT_EQ(flagcxP2pEngineUpdateIpcInfo(bytes, buffer.address(from), buffer.address(), count), 0);
  }
  char bytes[FLAGCX_P2P_IPC_INFO_SIZE] = {};
};

// Client and server, each with half of the GPU's memory and with host memory.
class Gpu : public testing::Test {
 protected:
  virtual bool sameProcess() const { return false; }
  void SetUp() override {
    setenv("FLAGCX_P2P_FABRIC", "software", 1); // no NIC can reach the stand-in's memory
    FakeGpu::reset();
    const FlagcxP2pDeviceTable table = FakeGpu::table();
    ASSERT_EQ(flagcxP2pSetDeviceTable(&table), 0);
    client = createEngine();
    server = createEngine();
    ASSERT_TRUE(client && server);
    host = std::make_unique<Buffer>(client, kHalf);
    gpu = std::make_unique<GpuBuffer>(client, 0, kHalf);
    remoteHost = std::make_unique<Buffer>(server, kHalf);
    remoteGpu = std::make_unique<GpuBuffer>(server, kHalf, kHalf);
    host->scramble(1);
    FakeGpu::write(0, bytes(*host, 0, kHalf));
    ends = connect(client, server, sameProcess());
    conn = ends.connected.get();
    ASSERT_NE(conn, nullptr) << flagcxP2pEngineLastError();
  }
  void TearDown() override {
    FakeGpu::fail("");
    FakeGpu::delay(0);
    ends = {};
    remoteGpu.reset();
    gpu.reset();
    remoteHost.reset();
    host.reset();
    client.reset();
    server.reset();
    flagcxP2pSetDeviceTable(nullptr);
    EXPECT_EQ(FakeGpu::handles, 0);
    EXPECT_EQ(FakeGpu::opened, 0);
    EXPECT_EQ(FakeGpu::streams, 0);
    EXPECT_EQ(FakeGpu::events, 0);
  }
  // One piece of `count` bytes with the peer's GPU.
  int move(bool write, FlagcxP2pMr region, void *local, size_t remoteFrom, size_t count, uint64_t *id) {
    Ipc ipc(*remoteGpu, remoteFrom, count);
    return write ? flagcxP2pEngineWriteVector(conn, {region}, {local}, {count}, {remoteGpu->desc(remoteFrom, count)},
                                              1, id, {ipc.bytes})
                 : flagcxP2pEngineReadVector(conn, {region}, {local}, {count}, {remoteGpu->desc(remoteFrom, count)},
                                             1, id, {ipc.bytes});
  }

  Engine client, server;
  std::unique_ptr<Buffer> host, remoteHost;
  std::unique_ptr<GpuBuffer> gpu, remoteGpu;
  Ends ends;
  FlagcxP2pConn *conn = nullptr;
};

TEST_F(Gpu, IpcInformationIsForGpuMemory) {
  char info[FLAGCX_P2P_IPC_INFO_SIZE];
  memset(info, 0x5a, sizeof(info));
  bool found = true;
  EXPECT_EQ(flagcxP2pEngineGetIpcInfo(nullptr, host->address(), info, &found), 0);
  EXPECT_FALSE(found);
  EXPECT_EQ(info[0], 0x5a) << "untouched";
  found = true;
  EXPECT_EQ(flagcxP2pEngineGetIpcInfo(nullptr, 0x1000, info, &found), -1);
  EXPECT_FALSE(found);
  EXPECT_EQ(flagcxP2pEngineGetIpcInfo(nullptr, gpu->address(64), info, &found), 0);
  EXPECT_TRUE(found);
  const auto field = [&](size_t offset) {
    uint64_t value;
    memcpy(&value, info + offset, sizeof(value));
    return value;
  };
  EXPECT_EQ(field(64), gpu->address());
  EXPECT_EQ(field(72), 64u);
  EXPECT_EQ(field(80), kHalf - 64);
  EXPECT_EQ(info[88], 1);
  EXPECT_EQ(flagcxP2pEngineGetIpcInfo(nullptr, gpu->address(), nullptr, &found), -1);
  EXPECT_EQ(flagcxP2pEngineGetIpcInfo(nullptr, gpu->address(), info, nullptr), -1);
}

TEST_F(Gpu, TheCallersGpuIsRestored) {
  FakeGpu::setCurrentDevice(1);
  const Engine other = createEngine(); // of device 1
  FakeGpu::setCurrentDevice(0);
  FakeGpu::deviceChanges = 0;
  FlagcxP2pMr region = 0;
  EXPECT_EQ(flagcxP2pEngineReg(other.get(), FakeGpu::address(), 64, region), 0);
  EXPECT_EQ(FakeGpu::currentDevice(), 0);
  EXPECT_EQ(FakeGpu::deviceChanges, 2) << "there and back";
  flagcxP2pEngineMrDestroy(other.get(), region);
  uint64_t id = 0;
  FakeGpu::setCurrentDevice(1);
  EXPECT_EQ(move(true, host->region(), host->data(), 0, 64, &id), 0) << flagcxP2pEngineLastError();
  EXPECT_TRUE(succeeds(conn, id));
  EXPECT_EQ(FakeGpu::currentDevice(), 1);
}

TEST_F(Gpu, EveryDirectionIsCopied) {
  uint64_t id = 0;
  ASSERT_EQ(move(true, host->region(), host->data() + 100, 10, 1000, &id), 0) << flagcxP2pEngineLastError();
  EXPECT_TRUE(succeeds(conn, id));
  EXPECT_EQ(remoteGpu->read(10, 1000), bytes(*host, 100, 1000));
  EXPECT_EQ(remoteGpu->read(0, 10), std::string(10, '\0'));

  ASSERT_EQ(move(true, gpu->region, gpu->pointer(5000), 2000, 3000, &id), 0);
  EXPECT_TRUE(succeeds(conn, id));
  EXPECT_EQ(remoteGpu->read(2000, 3000), gpu->read(5000, 3000));

  FakeGpu::write(kHalf + 9000, "from the peer");
  ASSERT_EQ(move(false, host->region(), host->data(), 9000, 13, &id), 0);
  EXPECT_TRUE(succeeds(conn, id));
  EXPECT_EQ(bytes(*host, 0, 13), "from the peer");

  ASSERT_EQ(move(false, gpu->region, gpu->pointer(7), 9000, 13, &id), 0);
  EXPECT_TRUE(succeeds(conn, id));
  EXPECT_EQ(gpu->read(7, 13), "from the peer");
  EXPECT_EQ(FakeGpu::opened, 1) << "kept open for the next transfer";
  ends.connected.reset();
  EXPECT_EQ(FakeGpu::opened, 0);
}

TEST_F(Gpu, CopiesRunOnWhileTheCallerDoesOtherThings) {
  FakeGpu::delay(20);
  uint64_t id = 0;
  ASSERT_EQ(move(true, host->region(), host->data(), 0, 4096, &id), 0);
  EXPECT_NE(id, 0u);
  EXPECT_FALSE(flagcxP2pEngineXferStatus(conn, id));
  EXPECT_NE(remoteGpu->read(0, 4096), bytes(*host, 0, 4096));
  EXPECT_TRUE(await(conn, id));
  EXPECT_EQ(remoteGpu->read(0, 4096), bytes(*host, 0, 4096));
  EXPECT_TRUE(flagcxP2pEngineXferStatus(conn, id)) << "once more";
  EXPECT_EQ(resultOf(conn, id).state, FLAGCX_P2P_XFER_DONE + 0u);
}

TEST_F(Gpu, StreamsAreReusedAndAllocationsOpenedOnce) {
  for (int i = 0; i < 5; ++i) {
    const size_t from = 64 * i;
    Ipc first(*remoteGpu, from, 64), second(*remoteGpu, 8192 + from, 64);
    uint64_t id = 0;
    ASSERT_EQ(flagcxP2pEngineWriteVector(conn, {host->region(), gpu->region}, {host->data(), gpu->pointer()},
                                         {64, 64}, {remoteGpu->desc(from, 64), remoteGpu->desc(8192 + from, 64)}, 2,
                                         &id, {first.bytes, second.bytes}),
              0)
        << flagcxP2pEngineLastError();
    EXPECT_TRUE(succeeds(conn, id));
    EXPECT_EQ(remoteGpu->read(8192 + from, 64), gpu->read(0, 64));
  }
  EXPECT_EQ(FakeGpu::streamsMade, 1);
  EXPECT_EQ(FakeGpu::opens, 1);
}

TEST_F(Gpu, OneBadPieceMovesNothing) {
  Ipc good(*remoteGpu, 0, 64), shorter(*remoteGpu, 64, 63);
  char host_info[FLAGCX_P2P_IPC_INFO_SIZE] = {};
  const FlagcxP2pRdmaDesc first = remoteGpu->desc(0, 64), second = remoteGpu->desc(64, 64);
  const auto write = [&](std::vector<void *> local, std::vector<size_t> sizes, std::vector<char *> ipc) {
    uint64_t id = 77;
    const int answer = flagcxP2pEngineWriteVector(conn, {host->region(), host->region()}, local, sizes,
                                                  {first, second}, 2, &id, ipc);
    EXPECT_EQ(id, 77u);
    return answer;
  };
  const std::vector<void *> local = {host->data(), host->data() + 64};
  EXPECT_EQ(write(local, {64, 64}, {good.bytes, nullptr}), -1);
  EXPECT_EQ(write(local, {64, 64}, {good.bytes}), -1) << "too few";
  EXPECT_EQ(write(local, {64, 64}, {good.bytes, host_info}), -1) << "not of GPU memory";
  EXPECT_EQ(write(local, {64, 64}, {good.bytes, shorter.bytes}), -1) << "longer than the information";
  EXPECT_EQ(write(local, {64, 65}, {good.bytes, good.bytes}), -1) << "longer than the descriptor";
  EXPECT_EQ(write({host->data(), host->data() + kHalf - 63}, {64, 64}, {good.bytes, good.bytes}), -1)
      << "local range";
  EXPECT_EQ(write({host->data(), nullptr}, {64, 64}, {good.bytes, good.bytes}), -1);
  EXPECT_EQ(FakeGpu::opens, 0);
  EXPECT_EQ(remoteGpu->read(0, 128), std::string(128, '\0'));
}

// A copy that the runtime refuses to start: the call says so, or, if a worker started it, the transfer's end does.
void expectRefusedBy(const char *callback, FlagcxP2pConn *conn, int answer, uint64_t id) {
  if (answer != 0) {
    EXPECT_NE(strstr(flagcxP2pEngineLastError(), callback), nullptr) << flagcxP2pEngineLastError();
    return;
  }
  const FlagcxP2pXferResult result = resultOf(conn, id);
  EXPECT_EQ(result.state, FLAGCX_P2P_XFER_FAILED + 0u) << callback;
  EXPECT_NE(strstr(result.reason, callback), nullptr) << result.reason;
}

TEST_F(Gpu, FailuresOfTheRuntimeRefuseTheCall) {
  uint64_t id = 77;
  for (const char *callback : {"ipcMemHandleOpen", "streamCreate"}) {
    FakeGpu::fail(callback);
    EXPECT_EQ(move(true, host->region(), host->data(), 0, 64, &id), -1) << callback;
    EXPECT_NE(strstr(flagcxP2pEngineLastError(), callback), nullptr) << flagcxP2pEngineLastError();
  }
  EXPECT_EQ(id, 77u);
  FakeGpu::fail("deviceMemcpy");
  const int answer = move(true, host->region(), host->data(), 0, 64, &id);
  expectRefusedBy("deviceMemcpy", conn, answer, id);
  EXPECT_EQ(remoteGpu->read(0, 64), std::string(64, '\0'));
  FakeGpu::fail("");
  EXPECT_EQ(move(true, host->region(), host->data(), 0, 64, &id), 0);
  EXPECT_TRUE(succeeds(conn, id));
}

TEST_F(Gpu, ACopyIsNotTakenForDoneIfItsEndCannotBeMarked) {
  FakeGpu::fail("eventRecord");
  uint64_t id = 0;
  ASSERT_EQ(move(true, host->region(), host->data(), 0, 64, &id), 0);
  EXPECT_EQ(flagcxP2pEngineXferWait(conn, id, 20, nullptr), 1) << "pending";
  EXPECT_FALSE(flagcxP2pEngineXferStatus(conn, id)) << "the copy was started, and its end is not known";
  FakeGpu::fail("");
  EXPECT_TRUE(await(conn, id));
  EXPECT_EQ(remoteGpu->read(0, 64), bytes(*host, 0, 64));
}

TEST_F(Gpu, ACopyThatFailsHalfwayRefusesTheCall) {
  Ipc first(*remoteGpu, 0, 64), second(*remoteGpu, 64, 64);
  FakeGpu::fail("deviceMemcpy", 1);
  uint64_t id = 0;
  const int answer = flagcxP2pEngineWriteVector(conn, {host->region(), host->region()}, {host->data(), host->data()},
                                                {64, 64}, {remoteGpu->desc(0, 64), remoteGpu->desc(64, 64)}, 2, &id,
                                                {first.bytes, second.bytes});
  expectRefusedBy("deviceMemcpy", conn, answer, id);
  FakeGpu::fail("");
  EXPECT_EQ(move(true, host->region(), host->data(), 0, 64, &id), 0) << "the stream was replaced";
  EXPECT_TRUE(succeeds(conn, id));
}

TEST_F(Gpu, AFailureOnTheWayEndsTheTransfer) {
  FakeGpu::delay(3);
  uint64_t id = 0;
  ASSERT_EQ(move(true, host->region(), host->data(), 0, 64, &id), 0);
  FakeGpu::fail("eventQuery");
  const FlagcxP2pXferResult result = resultOf(conn, id);
  EXPECT_EQ(result.state, FLAGCX_P2P_XFER_FAILED + 0u);
  EXPECT_NE(strstr(result.reason, "eventQuery"), nullptr) << result.reason;
  EXPECT_TRUE(flagcxP2pEngineXferStatus(conn, id));
}

TEST_F(Gpu, ForgedInformationIsRefused) {
  Ipc ipc(*remoteGpu, 0, 64);
  ipc.bytes[9] ^= 1; // the runtime's own check
  uint64_t id = 0;
  const auto write = [&] {
    return flagcxP2pEngineWriteVector(conn, {host->region()}, {host->data()}, {64}, {remoteGpu->desc(0, 64)}, 1, &id,
                                      {ipc.bytes});
  };
  EXPECT_EQ(write(), -1);
  ipc.bytes[9] ^= 1;
  memset(ipc.bytes + 72, 0xff, 8); // offset
  EXPECT_EQ(write(), -1);
}

TEST_F(Gpu, EndsWaitForCopies) {
  FakeGpu::delay(50);
  uint64_t first = 0, second = 0, third = 0;
  ASSERT_EQ(move(true, host->region(), host->data(), 0, 64, &first), 0);
  flagcxP2pEngineMrDestroy(client.get(), host->region()); // Buffer destroys it once more, which is harmless
  EXPECT_EQ(remoteGpu->read(0, 64), bytes(*host, 0, 64));
  EXPECT_TRUE(flagcxP2pEngineXferStatus(conn, first));

  ASSERT_EQ(move(true, gpu->region, gpu->pointer(64), 64, 64, &second), 0);
  EXPECT_EQ(flagcxP2pEngineXferCancel(conn, second), 0);
  EXPECT_EQ(resultOf(conn, second).state, FLAGCX_P2P_XFER_CANCELLED + 0u);

  ASSERT_EQ(move(true, gpu->region, gpu->pointer(128), 128, 64, &third), 0);
  ends.connected.reset();
  EXPECT_EQ(FakeGpu::opened, 0);
  EXPECT_EQ(remoteGpu->read(128, 64), gpu->read(128, 64));
}

TEST_F(Gpu, ADestroyedEngineKeepsNoStreams) {
  uint64_t id = 0;
  ASSERT_EQ(move(true, host->region(), host->data(), 0, 64, &id), 0);
  EXPECT_TRUE(succeeds(conn, id));
  EXPECT_EQ(FakeGpu::streams, 1) << "kept for the next transfer";
  gpu.reset();
  host.reset();
  client.reset();
  EXPECT_EQ(FakeGpu::streams, 0) << "although the connection's handle still exists";
}

TEST_F(Gpu, ThreadsCopyAtOnce) {
  FakeGpu::delay(2);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t)
    threads.emplace_back([this, t] {
      for (int i = 0; i < 50; ++i) {
        uint64_t id = 0;
        EXPECT_EQ(move(true, host->region(), host->data() + t * 1000, t * 1000, 1000, &id), 0);
        EXPECT_TRUE(await(conn, id));
      }
    });
  for (std::thread &thread : threads) thread.join();
  EXPECT_EQ(remoteGpu->read(0, 4000), bytes(*host, 0, 4000));
}

// With `sameProcess`: addresses are used as they are.
class GpuInProcess : public Gpu {
  bool sameProcess() const override { return true; }
};

TEST_F(GpuInProcess, ScalarsAreCopiedByAddress) {
  uint64_t id = 0;
  ASSERT_EQ(flagcxP2pEngineWrite(conn, 0, host->data(), 4096, remoteGpu->desc(100, 4096), &id), 0)
      << flagcxP2pEngineLastError();
  EXPECT_TRUE(succeeds(conn, id));
  EXPECT_EQ(remoteGpu->read(100, 4096), bytes(*host, 0, 4096));
  ASSERT_EQ(flagcxP2pEngineWrite(conn, 0, gpu->pointer(), 4096, remoteHost->desc(0, 4096), &id), 0);
  EXPECT_TRUE(succeeds(conn, id));
  EXPECT_EQ(bytes(*remoteHost, 0, 4096), gpu->read(0, 4096));
  ASSERT_EQ(flagcxP2pEngineRead(conn, 0, gpu->pointer(8192), 100, remoteGpu->desc(100, 100), &id), 0);
  EXPECT_TRUE(succeeds(conn, id));
  EXPECT_EQ(gpu->read(8192, 100), bytes(*host, 0, 100));
  EXPECT_EQ(FakeGpu::opens, 0);
}

TEST_F(GpuInProcess, HostMemoryIsMovedWithinTheCall) {
  uint64_t id = 77;
  ASSERT_EQ(flagcxP2pEngineWrite(conn, 0, host->data(), 4096, remoteHost->desc(0, 4096), &id), 0);
  EXPECT_EQ(id, 0u);
  EXPECT_EQ(bytes(*remoteHost, 0, 4096), bytes(*host, 0, 4096));
  EXPECT_TRUE(flagcxP2pEngineXferStatus(conn, 0));
  EXPECT_EQ(FakeGpu::streamsMade, 0);
}

TEST_F(GpuInProcess, KindsOfMemoryMayBeMixed) {
  uint64_t id = 0;
  ASSERT_EQ(
      flagcxP2pEngineWriteVector(conn, {host->region(), gpu->region, host->region()},
                                 {host->data(), gpu->pointer(), host->data() + 64}, {64, 64, 64},
                                 {remoteHost->desc(0, 64), remoteGpu->desc(0, 64), remoteGpu->desc(64, 64)}, 3, &id),
      0)
      << flagcxP2pEngineLastError();
  EXPECT_TRUE(succeeds(conn, id));
  EXPECT_EQ(bytes(*remoteHost, 0, 64), bytes(*host, 0, 64));
  EXPECT_EQ(remoteGpu->read(0, 64), gpu->read(0, 64));
  EXPECT_EQ(remoteGpu->read(64, 64), bytes(*host, 64, 64));
}

TEST_F(GpuInProcess, AFailureNamesThePieceOfTheWhole) {
  const FlagcxP2pRdmaDesc gone = remoteHost->desc(0, 64);
  flagcxP2pEngineMrDestroy(server.get(), remoteHost->region()); // Buffer destroys it once more, which is harmless
  uint64_t id = 0;
  EXPECT_EQ(flagcxP2pEngineWriteVector(conn, {gpu->region, host->region()}, {gpu->pointer(), host->data()}, {64, 64},
                                       {remoteGpu->desc(0, 64), gone}, 2, &id),
            -1);
  EXPECT_NE(strstr(flagcxP2pEngineLastError(), "piece 1"), nullptr) << flagcxP2pEngineLastError();
}

TEST_F(GpuInProcess, SyncCallsWaitForTheCopies) {
  FakeGpu::delay(10);
  EXPECT_EQ(flagcxP2pEngineWriteVectorSync(conn, {host->region()}, {host->data()}, {64}, {remoteGpu->desc(0, 64)}),
            0);
  EXPECT_EQ(remoteGpu->read(0, 64), bytes(*host, 0, 64));
  const uint64_t from = gpu->address(), to = remoteGpu->address(64), size = 64;
  EXPECT_EQ(flagcxP2pRpcBatchWriteSync(conn, 1, &from, &to, &size), 0);
  EXPECT_EQ(remoteGpu->read(64, 64), gpu->read(0, 64));
  FakeGpu::fail("eventQuery", 2);
  EXPECT_EQ(flagcxP2pRpcBatchWriteSync(conn, 1, &from, &to, &size), -1);
}

TEST(GpuTable, WithoutASizeItIsRefused) {
  FlagcxP2pDeviceTable table = {};
  EXPECT_EQ(flagcxP2pSetDeviceTable(&table), -1);
  EXPECT_EQ(flagcxP2pSetDeviceTable(nullptr), 0);
}

// Without handles the table has no way to tell GPU memory, nor to share it.
TEST(GpuTable, MemoryThatTheCpuCannotAccessIsTheGpusOfATableThatOnlyCopies) {
  FakeGpu::reset();
  FlagcxP2pDeviceTable table = FakeGpu::table();
  table.size = offsetof(FlagcxP2pDeviceTable, ipcMemHandleCreate); // an older program's
  ASSERT_EQ(flagcxP2pSetDeviceTable(&table), 0);
  const Engine client = createEngine(), server = createEngine();
  FlagcxP2pMr region = 0;
  ASSERT_EQ(flagcxP2pEngineReg(server.get(), FakeGpu::address(), 4096, region), 0) << flagcxP2pEngineLastError();
  char info[FLAGCX_P2P_IPC_INFO_SIZE];
  bool found = true;
  EXPECT_EQ(flagcxP2pEngineGetIpcInfo(server.get(), FakeGpu::address(), info, &found), 0);
  EXPECT_FALSE(found) << "no callback makes a handle";
  const Buffer source(client, 4096, 3);
  {
    const Ends ends = connect(client, server, true);
    const uint64_t from = reinterpret_cast<uintptr_t>(source.data()), to = FakeGpu::address(), size = 4096;
    EXPECT_EQ(flagcxP2pRpcBatchWriteSync(ends.connected.get(), 1, &from, &to, &size), 0)
        << flagcxP2pEngineLastError();
  }
  EXPECT_EQ(FakeGpu::read(0, 4096), std::string(4096, 3));
  EXPECT_EQ(flagcxP2pSetDeviceTable(nullptr), 0);
}

TEST(GpuTable, CallbacksThatAreMissingAreNotOffered) {
  FlagcxP2pDeviceTable table = FakeGpu::table();
  table.size = offsetof(FlagcxP2pDeviceTable, ipcMemHandleCreate);
  table.deviceMemcpy = nullptr;
  ASSERT_EQ(flagcxP2pSetDeviceTable(&table), 0);
  const Engine engine = createEngine();
  // Taken for host memory, which cannot be accessed.
  FlagcxP2pMr region = 0;
  EXPECT_EQ(flagcxP2pEngineReg(engine.get(), FakeGpu::address(), 4096, region), -1);
  EXPECT_NE(std::string(flagcxP2pEngineLastError()).find("EFAULT"), std::string::npos) << flagcxP2pEngineLastError();
  // Told what it is, it is registered, and not shared.
  ASSERT_EQ(flagcxP2pEngineRegFlags(engine.get(), FakeGpu::address(), 4096, FLAGCX_P2P_REG_DEVICE, &region), 0)
      << flagcxP2pEngineLastError();
  char info[FLAGCX_P2P_IPC_INFO_SIZE];
  bool found = true;
  EXPECT_EQ(flagcxP2pEngineGetIpcInfo(engine.get(), FakeGpu::address(), info, &found), 0);
  EXPECT_FALSE(found) << "no callback makes a handle";
  EXPECT_EQ(flagcxP2pSetDeviceTable(nullptr), 0);
}

} // namespace
