// SPDX-License-Identifier: Apache-2.0
//
// Registration through the net adaptor's table. An mhandle is a block of 32 bytes of malloc, as in the original engine,
// because FlagCX reads and copies its first 16.
#include <cstdlib>

#include "net.h"

namespace flagcx::p2p::net {

static_assert(sizeof(MemoryHandle) == 32, "");
static_assert(offsetof(MemoryHandle, base) == 0 && offsetof(MemoryHandle, lkey) == 8, "");
static_assert(offsetof(MemoryHandle, rkey) == 12 && offsetof(MemoryHandle, region) == 16, "");
static_assert(offsetof(MemoryHandle, device) == 24, "");

flagcxResult_t regMr(void *comm, void *data, size_t size, int type, int mrFlags, void **mhandle) {
  return regMrDmaBuf(comm, data, size, type, 0, -1, mrFlags, mhandle);
}

flagcxResult_t regMrDmaBuf(void *comm, void *data, size_t size, int type, uint64_t offset, int fd, int mrFlags,
                           void **mhandle) {
  if (comm == nullptr || data == nullptr || size == 0 || mhandle == nullptr)
    return refuse("regMr", comm == nullptr   ? "comm is NULL"
                           : data == nullptr ? "data is NULL"
                           : size == 0       ? "size is 0"
                                             : "mhandle is NULL");
  // Anything that begins with the index of a device will do.
  const int device = *static_cast<const int *>(comm);
  const Range range = {reinterpret_cast<uintptr_t>(data),
                       size,
                       type == FLAGCX_PTR_HOST,
                       (mrFlags & FLAGCX_NET_MR_FLAG_FORCE_SO) == 0,
                       fd,
                       offset};
  MemoryHandle *const handle = static_cast<MemoryHandle *>(std::malloc(sizeof(MemoryHandle)));
  if (handle == nullptr)
    return refuse("regMr", "no memory for the handle", flagcxSystemError);
  const flagcxResult_t answer = result(register_memory(device, range, *handle));
  if (answer != flagcxSuccess) {
    std::free(handle);
    return answer;
  }
  keep_handle(reinterpret_cast<size_t>(handle));
  *mhandle = handle;
  return flagcxSuccess;
}

flagcxResult_t deregMr(void *, void *mhandle) {
  if (mhandle == nullptr || !take_handle(reinterpret_cast<size_t>(mhandle)))
    return refuse("deregMr", mhandle == nullptr ? "mhandle is NULL" : "mhandle is not registered, or not any more");
  MemoryHandle *const handle = static_cast<MemoryHandle *>(mhandle);
  const flagcxResult_t answer = result(deregister_memory(*handle));
  std::free(handle);
  return answer;
}

} // namespace flagcx::p2p::net
