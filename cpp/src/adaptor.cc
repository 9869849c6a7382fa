// SPDX-License-Identifier: Apache-2.0
//
// The struct has no size field, and has grown: what lies behind the end of a shorter one must not be read. The symbol table
// of its library has the size of a struct that is a variable, as all of FlagCX's own are. A struct without a symbol is a
// plugin's, which FlagCX has copied to the heap, or one of a program that exports no symbols.
#include "adaptor.h"

#include <atomic>
#include <cstring>

#include <dlfcn.h>
#include <link.h>

namespace flagcx::p2p {

namespace {

// Sizes of the struct at which members were added behind those of before.
constexpr size_t kVersion1 = 416;      // launchHostFunc, dmaSupport and getHandleForAddressRange are the last
constexpr size_t kWithLastError = 512; // getLastError is the last
constexpr size_t kWithAddresses = 528; // getPointerType and getAddressRange

struct Member {
  size_t offset;
  // The least size of a struct with this member at this offset: versions between had others here.
  size_t from;
};
// In the order of the callbacks.
constexpr Member kMembers[] = {
    {40, kVersion1},  {72, kVersion1},  {80, kVersion1},  {88, kVersion1},       {160, kVersion1},
    {168, kVersion1}, {176, kVersion1}, {184, kVersion1}, {248, kVersion1},      {256, kVersion1},
    {264, kVersion1}, {280, kVersion1}, {296, kVersion1}, {304, kVersion1},      {312, kVersion1},
    {320, kVersion1}, {328, kVersion1}, {376, kVersion1}, {384, kVersion1},      {504, kWithLastError},
    {392, kVersion1}, {400, kVersion1}, {408, kVersion1}, {512, kWithAddresses},
};
static_assert(sizeof(kMembers) / sizeof(*kMembers) == kCallbacks, "");

// The size by the symbol table. Where that has none the struct is taken as the shortest: a member that is missing
// costs a look-up, one that is read behind the end is called.
size_t askForSize(const char *adaptor) {
#ifdef __GLIBC__
  Dl_info info = {};
  void *entry = nullptr;
  if (dladdr1(adaptor, &info, &entry, RTLD_DL_SYMENT) == 0)
    return kVersion1; // On the heap: a copy of a plugin's, of which all members behind those of version 1 are NULL.
  const auto *const symbol = static_cast<const ElfW(Sym) *>(entry);
  if (symbol != nullptr && info.dli_saddr == adaptor && symbol->st_size != 0)
    return symbol->st_size;
#else
  (void)adaptor;
#endif
  return kVersion1;
}

// The structs that were read, because the symbol table takes long to search. Their bytes are compared as well as their addresses: where
// a library was unloaded another may be loaded, of which the struct has other functions. A list that only grows, by one entry per
// struct: it is read without a lock, which another thread could hold when the process is forked. FlagCX has one adaptor or two.
struct Known {
  const char *adaptor;
  size_t bytes;
  const Known *older;
  char content[kVersion1];
};
// Written by the thread that meets a struct for the first time, with release; read by all with acquire, which shows the entry whole.
std::atomic<const Known *> known{nullptr};

size_t sizeOf(const char *adaptor) {
  const Known *const newest = known.load(std::memory_order_acquire);
  for (const Known *one = newest; one != nullptr; one = one->older)
    if (one->adaptor == adaptor && std::memcmp(one->content, adaptor, kVersion1) == 0)
      return one->bytes;
  auto *const found = new Known{adaptor, askForSize(adaptor), newest, {}};
  std::memcpy(found->content, adaptor, kVersion1);
  // Two threads that meet one struct at the same moment enter it twice, which costs its bytes and nothing else.
  while (!known.compare_exchange_weak(found->older, found, std::memory_order_release, std::memory_order_relaxed))
    ;
  return found->bytes;
}

} // namespace

void readCallbacks(const char *adaptor, Callbacks &out) {
  const size_t bytes = sizeOf(adaptor);
  for (size_t i = 0; i < kCallbacks; ++i) {
    out[i] = nullptr;
    if (bytes >= kMembers[i].from)
      std::memcpy(&out[i], adaptor + kMembers[i].offset, sizeof(out[i]));
  }
}

} // namespace flagcx::p2p
