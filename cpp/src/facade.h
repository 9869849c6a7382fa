// SPDX-License-Identifier: Apache-2.0
//
// What the files of the facade share: the bridge, vectors as slices, and how a call with a null argument is refused.
#ifndef FLAGCX_P2P_FACADE_H_
#define FLAGCX_P2P_FACADE_H_

#include <string>

#include "flagcx_p2p.h"
#include "flagcx_p2p_ext.h"
#include "flagcx_p2p/src/lib.rs.h"
#include "rust/cxx.h"

namespace flagcx::p2p {

// Sends the engine's log lines where this program wants them. Cheap after the first call; every function that can be
// the first of a process calls it.
void startLogging();

// Installs FlagCX's device adaptor as the GPU runtime, if this is FlagCX. Cheap after the first call; every function that
// may be the first to query the kind of memory calls it.
void startGpu();

// flagcxP2pSetDeviceTable.
int setGpuTable(const FlagcxP2pDeviceTable *table);

// Logs and remembers that `call` was refused, and why; answers -1.
int refuse(const char *call, const std::string &reason);

// refuse, because `argument` is NULL.
int refuseNull(const char *call, const char *argument);

// refuse, because `count` is more than INT_MAX.
int refuseCount(const char *call, size_t count);

// The elements of an array or a vector as the bridge takes them: not copied.
template <typename T>
rust::Slice<const T> slice(const T *elements, size_t count) {
  return {elements, count};
}
template <typename T>
rust::Slice<const T> slice(const std::vector<T> &elements) {
  return {elements.data(), elements.size()};
}

// The name of the first array that is NULL, of those that describe a transfer's pieces; nullptr if none is.
inline const char *firstNullArray(const uint64_t *mrIds, void *const *local, const size_t *sizes,
                                  const FlagcxP2pRdmaDesc *descs) {
  return mrIds == nullptr   ? "mrIds"
         : local == nullptr ? "the array of local addresses"
         : sizes == nullptr ? "sizes"
         : descs == nullptr ? "descs"
                            : nullptr;
}

// Local addresses. The bridge has no `void *`; both pointers have one representation, and nothing is read through
// them on this side.
inline const uint8_t *const *addresses(const void *pointers) {
  return static_cast<const uint8_t *const *>(pointers);
}

// The bytes of a C string, without the NUL. They need not be UTF-8.
inline rust::Slice<const uint8_t> text(const char *string) {
  return {reinterpret_cast<const uint8_t *>(string), std::strlen(string)};
}

// Copies `from` with a NUL into `capacity` bytes, cut if it must be. Capacity 0: nothing is written.
void copyText(rust::Str from, char *to, size_t capacity);

} // namespace flagcx::p2p

#endif // FLAGCX_P2P_FACADE_H_
