// SPDX-License-Identifier: Apache-2.0
#include "fake_gpu.h"

#include <cstring>
#include <mutex>
#include <vector>

#include <sys/mman.h>

namespace support {

namespace {

constexpr int kDone = 0, kFailed = 1, kRunning = 7;

std::mutex mutex;
std::string failing;
int callsBeforeFailure, queriesPerRecord;
thread_local int device;

uintptr_t reserve(int protection) {
  return reinterpret_cast<uintptr_t>(
      mmap(nullptr, FakeGpu::kBytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
}
// Never accessible: the GPU's own addresses, and where other processes see its memory.
const uintptr_t own = reserve(PROT_NONE);
const uintptr_t mapped = reserve(PROT_NONE);
// What lies behind them, in whole pages like theirs.
uint8_t *const memory = reinterpret_cast<uint8_t *>(reserve(PROT_READ | PROT_WRITE));

struct Copy {
  void *to, *from;
  size_t bytes;
};
struct Stream {
  std::vector<Copy> queue;
};
struct Event {
  Stream *stream;
  int queries;
};
// As the runtime fills it; travels as bytes.
struct Handle {
  uint64_t address, check;
};
constexpr uint64_t kCheck = 0x5afe5afe5afe5afe;

bool fails(const char *callback) {
  return failing == callback && callsBeforeFailure-- <= 0;
}

bool inside(uintptr_t base, const void *pointer) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
  return address >= base && address < base + FakeGpu::kBytes;
}

bool onDevice(const void *pointer) {
  return inside(own, pointer) || inside(mapped, pointer);
}

uint8_t *behind(void *pointer) {
  for (uintptr_t base : {own, mapped})
    if (inside(base, pointer))
      return memory + (reinterpret_cast<uintptr_t>(pointer) - base);
  return static_cast<uint8_t *>(pointer);
}

int deviceMemcpy(void *dst, void *src, size_t size, int type, void *stream, void *args) {
  const std::lock_guard<std::mutex> guard(mutex);
  const bool directions[3][2] = {{false, true}, {true, false}, {true, true}};
  if (fails("deviceMemcpy") || args != nullptr || type < 0 || type > 2 || onDevice(src) != directions[type][0] ||
      onDevice(dst) != directions[type][1])
    return kFailed;
  static_cast<Stream *>(stream)->queue.push_back({dst, src, size});
  return kDone;
}
int setDevice(int dev) {
  const std::lock_guard<std::mutex> guard(mutex);
  ++FakeGpu::deviceChanges;
  device = dev;
  return kDone;
}
int getDevice(int *dev) {
  *dev = device;
  return kDone;
}
int getDeviceCount(int *count) {
  *count = 2;
  return kDone;
}
int streamCreate(void **stream) {
  const std::lock_guard<std::mutex> guard(mutex);
  if (fails("streamCreate"))
    return kFailed;
  ++FakeGpu::streams, ++FakeGpu::streamsMade;
  *stream = new Stream;
  return kDone;
}
int streamDestroy(void *stream) {
  const std::lock_guard<std::mutex> guard(mutex);
  --FakeGpu::streams;
  delete static_cast<Stream *>(stream);
  return kDone;
}
int eventCreate(void **event, int type) {
  const std::lock_guard<std::mutex> guard(mutex);
  if (type != 1)
    return kFailed;
  ++FakeGpu::events;
  *event = new Event{nullptr, 0};
  return kDone;
}
int eventDestroy(void *event) {
  const std::lock_guard<std::mutex> guard(mutex);
  --FakeGpu::events;
  delete static_cast<Event *>(event);
  return kDone;
}
int eventRecord(void *event, void *stream) {
  const std::lock_guard<std::mutex> guard(mutex);
  if (fails("eventRecord"))
    return kFailed;
  *static_cast<Event *>(event) = {static_cast<Stream *>(stream), queriesPerRecord};
  return kDone;
}
int eventQuery(void *event) {
  const std::lock_guard<std::mutex> guard(mutex);
  if (fails("eventQuery"))
    return kFailed;
  Event &recorded = *static_cast<Event *>(event);
  if (recorded.queries-- > 0)
    return kRunning;
  for (const Copy &copy : recorded.stream->queue) memmove(behind(copy.to), behind(copy.from), copy.bytes);
  recorded.stream->queue.clear();
  return kDone;
}
int ipcMemHandleCreate(void **handle, size_t *size) {
  const std::lock_guard<std::mutex> guard(mutex);
  if (fails("ipcMemHandleCreate"))
    return kFailed;
  ++FakeGpu::handles;
  *handle = new Handle{};
  *size = sizeof(Handle);
  return kDone;
}
int ipcMemHandleGet(void *handle, void *pointer) {
  if (!inside(own, pointer))
    return kFailed;
  *static_cast<Handle *>(handle) = {reinterpret_cast<uintptr_t>(pointer) - own, kCheck};
  return kDone;
}
int ipcMemHandleOpen(void *handle, void **pointer) {
  const std::lock_guard<std::mutex> guard(mutex);
  const Handle &named = *static_cast<Handle *>(handle);
  if (fails("ipcMemHandleOpen") || named.check != kCheck)
    return kFailed;
  ++FakeGpu::opened, ++FakeGpu::opens;
  *pointer = reinterpret_cast<void *>(mapped + named.address);
  return kDone;
}
int ipcMemHandleClose(void *pointer) {
  const std::lock_guard<std::mutex> guard(mutex);
  if (!inside(mapped, pointer))
    return kFailed;
  --FakeGpu::opened;
  return kDone;
}
int ipcMemHandleFree(void *handle) {
  const std::lock_guard<std::mutex> guard(mutex);
  --FakeGpu::handles;
  delete static_cast<Handle *>(handle);
  return kDone;
}
int gdrPtrMmap(void **cpuPtr, void *devPtr, size_t size) {
  const std::lock_guard<std::mutex> guard(mutex);
  if (fails("gdrPtrMmap") || !inside(own, devPtr) ||
      reinterpret_cast<uintptr_t>(devPtr) - own + size > FakeGpu::kBytes)
    return kFailed;
  ++FakeGpu::mappings, ++FakeGpu::maps;
  *cpuPtr = behind(devPtr);
  return kDone;
}
int gdrPtrMunmap(void *cpuPtr, size_t) {
  const std::lock_guard<std::mutex> guard(mutex);
  if (fails("gdrPtrMunmap") || cpuPtr == nullptr)
    return kFailed;
  --FakeGpu::mappings;
  return kDone;
}
int getDevicePciBusId(char *, int, int) {
  return kFailed;
}
int getDeviceByPciBusId(int *, const char *) {
  return kFailed;
}
int getLastError() {
  return kDone;
}

} // namespace

int FakeGpu::streams, FakeGpu::events, FakeGpu::handles, FakeGpu::opened, FakeGpu::mappings;
int FakeGpu::streamsMade, FakeGpu::deviceChanges, FakeGpu::opens, FakeGpu::maps;

FlagcxP2pDeviceTable FakeGpu::table() {
  FlagcxP2pDeviceTable table = {};
  table.size = sizeof(table);
  table.deviceMemcpy = deviceMemcpy;
  table.setDevice = setDevice;
  table.getDevice = getDevice;
  table.getDeviceCount = getDeviceCount;
  table.gdrPtrMmap = gdrPtrMmap;
  table.gdrPtrMunmap = gdrPtrMunmap;
  table.streamCreate = streamCreate;
  table.streamDestroy = streamDestroy;
  table.eventCreate = eventCreate;
  table.eventDestroy = eventDestroy;
  table.eventRecord = eventRecord;
  table.eventQuery = eventQuery;
  table.ipcMemHandleCreate = ipcMemHandleCreate;
  table.ipcMemHandleGet = ipcMemHandleGet;
  table.ipcMemHandleOpen = ipcMemHandleOpen;
  table.ipcMemHandleClose = ipcMemHandleClose;
  table.ipcMemHandleFree = ipcMemHandleFree;
  table.getDevicePciBusId = getDevicePciBusId;
  table.getDeviceByPciBusId = getDeviceByPciBusId;
  table.getLastError = getLastError;
  return table;
}

void FakeGpu::reset() {
  const std::lock_guard<std::mutex> guard(mutex);
  memset(memory, 0, kBytes);
  failing.clear();
  queriesPerRecord = 0;
  device = 0;
  streamsMade = deviceChanges = opens = maps = 0;
}

uintptr_t FakeGpu::address(size_t offset) {
  return own + offset;
}

std::string FakeGpu::read(size_t offset, size_t bytes) {
  const std::lock_guard<std::mutex> guard(mutex);
  return std::string(reinterpret_cast<char *>(memory) + offset, bytes);
}

void FakeGpu::write(size_t offset, const std::string &bytes) {
  const std::lock_guard<std::mutex> guard(mutex);
  memcpy(memory + offset, bytes.data(), bytes.size());
}

void FakeGpu::fail(const char *callback, int failAfter) {
  const std::lock_guard<std::mutex> guard(mutex);
  failing = callback;
  callsBeforeFailure = failAfter;
}

void FakeGpu::delay(int queries) {
  const std::lock_guard<std::mutex> guard(mutex);
  queriesPerRecord = queries;
}

int FakeGpu::currentDevice() {
  return device;
}

void FakeGpu::setCurrentDevice(int dev) {
  device = dev;
}

} // namespace support
