// SPDX-License-Identifier: Apache-2.0
//
// Inside FlagCX, over verbs: GPU memory is registered by the mapping that FlagCX's device adaptor makes of it, through
// the net adaptor's table and through the engine's functions alike.
#include "fake_gpu.h"
#include "net_support.h"

using namespace support;

namespace {

// FlagCX's struct flagcxDeviceAdaptor: the name, and the callbacks by their offsets.
struct Adaptor {
  char bytes[512] = "fake";
  template <typename Callback>
  void set(size_t offset, Callback callback) {
    memcpy(bytes + offset, &callback, sizeof(callback));
  }
};

Adaptor adaptor;

} // namespace

extern "C" {
void *deviceAdaptor = &adaptor;
}

namespace {

class NetGdr : public NetPair {
 protected:
  void SetUp() override {
    const char *const fabric = getenv("FLAGCX_P2P_FABRIC");
    if (fabric == nullptr || std::string(fabric) != "verbs")
      GTEST_SKIP() << "only the verbs provider registers by a mapping: FLAGCX_P2P_FABRIC=verbs";
    FakeGpu::reset();
    const FlagcxP2pDeviceTable table = FakeGpu::table();
    adaptor.set(160, table.gdrPtrMmap);
    adaptor.set(168, table.gdrPtrMunmap);
    adaptor.set(296, table.ipcMemHandleCreate);
    adaptor.set(304, table.ipcMemHandleGet);
    adaptor.set(328, table.ipcMemHandleFree);
    NetPair::SetUp();
  }
  void TearDown() override {
    EXPECT_EQ(FakeGpu::mappings, 0) << "each mapping is ended when its memory is registered";
    EXPECT_EQ(FakeGpu::handles, 0);
    if (sendComm != nullptr)
      NetPair::TearDown();
  }
  void *registerGpu(size_t offset, size_t bytes) {
    void *handle = nullptr;
    void *const pointer = reinterpret_cast<void *>(FakeGpu::address(offset));
    EXPECT_EQ(net.regMr(recvComm, pointer, bytes, FLAGCX_PTR_CUDA, 0, &handle), flagcxSuccess)
        << flagcxP2pEngineLastError();
    return handle;
  }
  // Without a mapping the GPU's address itself is tried. A real NIC cannot register it; the stand-in can.
  void registerByAddress() {
    void *handle = nullptr;
    void *const pointer = reinterpret_cast<void *>(FakeGpu::address());
    const flagcxResult_t answer = net.regMr(recvComm, pointer, 4096, FLAGCX_PTR_CUDA, 0, &handle);
    EXPECT_TRUE(answer == flagcxSuccess || answer == flagcxSystemError) << answer;
    EXPECT_EQ(FakeGpu::maps, 0);
    if (answer == flagcxSuccess) {
      EXPECT_EQ(net.deregMr(recvComm, handle), flagcxSuccess);
    }
  }
};

TEST_F(NetGdr, AMappedRangeIsWrittenAndRead) {
  NetMemory local(sendComm, 8192);
  local.scramble(5);
  void *const gpu = registerGpu(4096, 8192);
  EXPECT_EQ(FakeGpu::maps, 1);
  EXPECT_EQ(FakeGpu::mappings, 0);
  void *request = nullptr;
  ASSERT_EQ(net.iput(sendComm, 0, 0, 8192, 0, 1, local.handles(), static_cast<void **>(gpu), &request),
            flagcxSuccess);
  EXPECT_EQ(finish(request), flagcxSuccess);
  EXPECT_EQ(FakeGpu::read(4096, 8192), bytes(local, 0, 8192));
  EXPECT_EQ(FakeGpu::read(0, 4096), std::string(4096, 0));
  EXPECT_EQ(FakeGpu::read(12288, 4096), std::string(4096, 0));

  FakeGpu::write(4096, std::string(100, 'g'));
  ASSERT_EQ(net.iget(sendComm, 0, 50, 100, 1, 0, static_cast<void **>(gpu), local.handles(), &request),
            flagcxSuccess);
  EXPECT_EQ(finish(request), flagcxSuccess);
  EXPECT_EQ(bytes(local, 50, 100), std::string(100, 'g'));
  EXPECT_EQ(net.deregMr(recvComm, gpu), flagcxSuccess);
  EXPECT_EQ(FakeGpu::maps, 1) << "only registering maps";
}

TEST_F(NetGdr, AnEngineMapsToo) {
  const Engine engine = createEngine();
  ASSERT_TRUE(engine);
  FlagcxP2pMr region = 0;
  ASSERT_EQ(flagcxP2pEngineReg(engine.get(), FakeGpu::address(), 4096, region), 0) << flagcxP2pEngineLastError();
  EXPECT_EQ(FakeGpu::maps, 1);
  flagcxP2pEngineMrDestroy(engine.get(), region);
}

TEST_F(NetGdr, ARefusedMappingLeavesTheAddress) {
  FakeGpu::fail("gdrPtrMmap");
  registerByAddress();
}

TEST_F(NetGdr, BothMembersAreNeeded) {
  const FlagcxP2pDeviceTable table = FakeGpu::table();
  for (size_t missing : {160, 168}) {
    adaptor.set(160, table.gdrPtrMmap);
    adaptor.set(168, table.gdrPtrMunmap);
    adaptor.set(missing, static_cast<void *>(nullptr));
    registerByAddress();
  }
}

TEST_F(NetGdr, HostMemoryIsLeftAlone) {
  const NetMemory local(sendComm, 4096);
  EXPECT_EQ(FakeGpu::maps, 0);
}

} // namespace
