// SPDX-License-Identifier: Apache-2.0
//
// Inside FlagCX: this program has a deviceAdaptor, and the engine uses its callbacks, as they are at each use.
#include "fake_gpu.h"
#include "support.h"

#include <filesystem>

#include <dlfcn.h>

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

Adaptor empty, full;

} // namespace

// A struct of FlagCX's version 1, with its size in the symbol table, and of the one with getPointerType; and one of version 1 that no
// symbol names outside. Behind those of version 1 are bytes that are no callbacks: to call one of them crashes.
asm(R"(
  .pushsection .data.adaptors, "aw", @progbits
  .globl adaptorOfVersion1, adaptorWithPointerType, adaptorWithoutSymbol
  .hidden adaptorWithoutSymbol
  .type adaptorOfVersion1, @object
  .size adaptorOfVersion1, 416
  .type adaptorWithPointerType, @object
  .size adaptorWithPointerType, 640
  .balign 16
adaptorOfVersion1:
  .zero 416
  .fill 224, 1, 0x5a
adaptorWithPointerType:
  .zero 640
adaptorWithoutSymbol:
  .zero 416
  .fill 224, 1, 0x5a
  .popsection
)");
extern "C" {
extern char adaptorOfVersion1[], adaptorWithPointerType[], adaptorWithoutSymbol[];
}

extern "C" {
void *deviceAdaptor = &empty;
}

namespace {

void fill(Adaptor &full) {
  const FlagcxP2pDeviceTable table = FakeGpu::table();
  full.set(40, table.deviceMemcpy);
  full.set(72, table.setDevice);
  full.set(80, table.getDevice);
  full.set(88, table.getDeviceCount);
  full.set(176, table.streamCreate);
  full.set(184, table.streamDestroy);
  full.set(248, table.eventCreate);
  full.set(256, table.eventDestroy);
  full.set(264, table.eventRecord);
  full.set(280, table.eventQuery);
  full.set(296, table.ipcMemHandleCreate);
  full.set(304, table.ipcMemHandleGet);
  full.set(312, table.ipcMemHandleOpen);
  full.set(320, table.ipcMemHandleClose);
  full.set(328, table.ipcMemHandleFree);
  full.set(504, table.getLastError);
}

TEST(FlagcxGpu, TheAdaptorIsReadAtEachUse) {
  FakeGpu::reset();
  fill(full);
  setenv("FLAGCX_P2P_FABRIC", "software", 1);
  const Engine engine = createEngine();
  char info[FLAGCX_P2P_IPC_INFO_SIZE];
  bool found = true;
  FlagcxP2pMr region = 0;
  for (void *adaptor : {static_cast<void *>(&empty), static_cast<void *>(nullptr)}) {
    deviceAdaptor = adaptor;
    // Nothing identifies this as GPU memory, and host memory must be accessible.
    ASSERT_EQ(flagcxP2pEngineReg(engine.get(), FakeGpu::address(), 4096, region), -1);
    EXPECT_NE(std::string(flagcxP2pEngineLastError()).find("EFAULT"), std::string::npos)
        << flagcxP2pEngineLastError();
  }
  deviceAdaptor = &full;
  ASSERT_EQ(flagcxP2pEngineReg(engine.get(), FakeGpu::address(), 4096, region), 0) << flagcxP2pEngineLastError();
  EXPECT_EQ(flagcxP2pEngineGetIpcInfo(engine.get(), FakeGpu::address(), info, &found), 0);
  EXPECT_TRUE(found);

  const Engine peer = createEngine();
  Ends ends = connect(peer, engine);
  const Buffer source(peer, 4096, 7);
  FlagcxP2pRdmaDesc desc;
  ASSERT_EQ(flagcxP2pEngineMakeDesc(ends.connected.get(), FakeGpu::address(), 4096, &desc), 0);
  uint64_t id = 0;
  ASSERT_EQ(flagcxP2pEngineWriteVector(ends.connected.get(), {source.region()}, {source.data()}, {4096}, {desc}, 1,
                                       &id, {info}),
            0)
      << flagcxP2pEngineLastError();
  EXPECT_TRUE(succeeds(ends.connected.get(), id));
  EXPECT_EQ(FakeGpu::read(0, 4096), std::string(4096, 7));
}

// Both structs are 416 bytes long: getLastError and getPointerType, which registering would call, are none of it.
TEST(FlagcxGpu, NothingIsReadBehindTheEndOfAnOlderStruct) {
  FakeGpu::reset();
  fill(full);
  setenv("FLAGCX_P2P_FABRIC", "software", 1);
  const Engine engine = createEngine();
  for (char *adaptor : {adaptorOfVersion1, adaptorWithoutSymbol}) {
    memcpy(adaptor, full.bytes, 416);
    deviceAdaptor = adaptor;
    FlagcxP2pMr region = 0;
    const Buffer host(engine, 4096, 7);
    ASSERT_EQ(flagcxP2pEngineReg(engine.get(), FakeGpu::address(), 4096, region), 0) << flagcxP2pEngineLastError();
    flagcxP2pEngineMrDestroy(engine.get(), region);
  }
}

// A library that was loaded for a while, with its adaptor in use.
class Plugin {
 public:
  explicit Plugin(const char *name) {
    // Beside this program.
    const auto file = std::filesystem::read_symlink("/proc/self/exe").replace_filename(name);
    library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr)
      adaptor = static_cast<char *>(dlsym(library, "pluginAdaptor"));
  }
  Plugin(const Plugin &) = delete;
  ~Plugin() {
    deviceAdaptor = &empty;
    if (library != nullptr)
      dlclose(library);
  }
  char *adaptor = nullptr;

 private:
  void *library = nullptr;
};

int pointerType(const void *pointer, int *type);

// A longer struct, and where its library was a library with a shorter one: getPointerType is not read behind the end of that.
TEST(FlagcxGpu, AnAdaptorInThePlaceOfOneThatWasUnloadedIsReadAnew) {
  FakeGpu::reset();
  fill(full);
  setenv("FLAGCX_P2P_FABRIC", "software", 1);
  const Engine engine = createEngine();
  const Buffer host(engine, 4096, 7);
  const auto use = [&] {
    FlagcxP2pMr region = 0;
    ASSERT_EQ(flagcxP2pEngineReg(engine.get(), FakeGpu::address(), 4096, region), 0) << flagcxP2pEngineLastError();
    flagcxP2pEngineMrDestroy(engine.get(), region);
  };
  const char *place = nullptr;
  {
    const Plugin plugin("plugin_640.so");
    ASSERT_NE(plugin.adaptor, nullptr) << dlerror();
    memcpy(plugin.adaptor, full.bytes, 416);
    memset(plugin.adaptor + 416, 0, 224);
    memcpy(plugin.adaptor, "longer", 7);
    const auto ask = pointerType;
    memcpy(plugin.adaptor + 512, &ask, sizeof(ask));
    deviceAdaptor = plugin.adaptor;
    use();
    place = plugin.adaptor;
  }
  const Plugin plugin("plugin_416.so");
  ASSERT_NE(plugin.adaptor, nullptr) << dlerror();
  if (plugin.adaptor != place)
    GTEST_SKIP() << "not run: the second library was loaded elsewhere";
  memcpy(plugin.adaptor, full.bytes, 416);
  memcpy(plugin.adaptor, "shorter", 8);
  deviceAdaptor = plugin.adaptor;
  use();
}

int pointerType(const void *pointer, int *type) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  *type = address - FakeGpu::address() < FakeGpu::kBytes ? 2 : 1;
  return 0;
}
int notSupported(void **, size_t *) {
  return 9;
}

// As adaptors of HIP: no IPC, but an answer to what a pointer is. GPU memory is registered, and has no IPC information.
TEST(FlagcxGpu, AnAdaptorWithoutIpcSaysWhatAPointerIs) {
  FakeGpu::reset();
  Adaptor withoutIpc;
  fill(withoutIpc);
  withoutIpc.set(296, notSupported);
  memcpy(adaptorWithPointerType, withoutIpc.bytes, sizeof(withoutIpc.bytes));
  const auto ask = pointerType;
  memcpy(adaptorWithPointerType + 512, &ask, sizeof(ask));
  deviceAdaptor = adaptorWithPointerType;
  setenv("FLAGCX_P2P_FABRIC", "software", 1);
  const Engine client = createEngine(), server = createEngine();
  FlagcxP2pMr region = 0;
  ASSERT_EQ(flagcxP2pEngineReg(server.get(), FakeGpu::address(), 4096, region), 0) << flagcxP2pEngineLastError();
  char info[FLAGCX_P2P_IPC_INFO_SIZE];
  bool found = true;
  EXPECT_EQ(flagcxP2pEngineGetIpcInfo(server.get(), FakeGpu::address(), info, &found), 0);
  EXPECT_FALSE(found);
  Ends ends = connect(client, server, true);
  const Buffer source(client, 4096, 9);
  char image[FLAGCX_P2P_DESC_SIZE];
  FlagcxP2pRdmaDesc desc;
  ASSERT_EQ(
      flagcxP2pEnginePrepareDesc(server.get(), region, reinterpret_cast<void *>(FakeGpu::address()), 4096, image), 0);
  flagcxP2pDeserializeRdmaDesc(image, &desc);
  uint64_t id = 0;
  ASSERT_EQ(flagcxP2pEngineWrite(ends.connected.get(), source.region(), source.data(), 4096, desc, &id), 0)
      << flagcxP2pEngineLastError();
  EXPECT_TRUE(succeeds(ends.connected.get(), id));
  EXPECT_EQ(FakeGpu::read(0, 4096), std::string(4096, 9));
}

} // namespace
