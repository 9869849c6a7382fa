// SPDX-License-Identifier: Apache-2.0
//
// Transfers through the net adaptor's table. A request is a number in the place of a pointer: nothing is allocated for
// it, and asking about one that is done is harmless.
#include <algorithm>
#include <cstdint>

#include "net.h"

namespace flagcx::p2p::net {

namespace {

// The table calls it an array of handles, one per rank; of this transport it always was one handle.
const MemoryHandle *oneHandle(void **handles) {
  return reinterpret_cast<const MemoryHandle *>(handles);
}

rust::Slice<const MemoryHandle *const> handles(void *const *array, size_t count) {
  return {reinterpret_cast<const MemoryHandle *const *>(array), count};
}

flagcxResult_t startBatch(void *comm, Direction direction, const Batch &batch, void **request) {
  size_t made = 0;
  const Answer answer = start(*static_cast<const Comm *>(comm), direction, batch, made);
  if (answer == Answer::Success)
    *request = reinterpret_cast<void *>(made);
  return result(answer);
}

flagcxResult_t startOne(const char *member, void *comm, Direction direction, void **localHandle, uint64_t localOffset,
                        void **remoteHandle, uint64_t remoteOffset, size_t size, void **request) {
  if (comm == nullptr || request == nullptr)
    return refuse(member, comm == nullptr ? "sendComm is NULL" : "request is NULL", flagcxInternalError);
  const MemoryHandle *const local = oneHandle(localHandle);
  const MemoryHandle *const remote = oneHandle(remoteHandle);
  const Batch batch = {{&local, 1}, {&localOffset, 1}, {&remote, 1}, {&remoteOffset, 1}, {&size, 1}};
  return startBatch(comm, direction, batch, request);
}

bool fitsOnePost(int count) {
  return count > 0 && static_cast<size_t>(count) <= flagcxP2pGlobalConfig().maxWrPerPost;
}

} // namespace

flagcxResult_t iput(void *sendComm, uint64_t srcOff, uint64_t dstOff, size_t size, int, int, void **srcHandles,
                    void **dstHandles, void **request) {
  return startOne("iput", sendComm, Direction::Put, srcHandles, srcOff, dstHandles, dstOff, size, request);
}

flagcxResult_t iget(void *sendComm, uint64_t srcOff, uint64_t dstOff, size_t size, int, int, void **srcHandles,
                    void **dstHandles, void **request) {
  return startOne("iget", sendComm, Direction::Get, dstHandles, dstOff, srcHandles, srcOff, size, request);
}

// One request for each piece, all between the same two regions.
flagcxResult_t iputBatch(void *sendComm, int count, const uint64_t *srcOffs, const uint64_t *dstOffs,
                         const size_t *sizes, int, int, void **srcHandles, void **dstHandles, void **requests,
                         int *posted) {
  if (posted == nullptr || requests == nullptr)
    return refuse("iputBatch", posted == nullptr ? "posted is NULL" : "requests is NULL");
  *posted = 0;
  if (count <= 0)
    return flagcxSuccess;
  if (!fitsOnePost(count))
    return refuse("iputBatch", "more pieces than FLAGCX_P2P_MAX_WR_PER_POST");
  std::fill_n(requests, count, nullptr);
  if (sendComm == nullptr || srcOffs == nullptr || dstOffs == nullptr || sizes == nullptr)
    return refuse("iputBatch", "an argument is NULL");
  const size_t pieces = static_cast<size_t>(count);
  const MemoryHandle *const local = oneHandle(srcHandles);
  const MemoryHandle *const remote = oneHandle(dstHandles);
  const Batch batch = {{&local, 1}, {srcOffs, pieces}, {&remote, 1}, {dstOffs, pieces}, {sizes, pieces}};
  size_t started = 0;
  const Answer answer = start_each(*static_cast<const Comm *>(sendComm), batch,
                                   {reinterpret_cast<size_t *>(requests), pieces}, started);
  *posted = static_cast<int>(started);
  return result(answer);
}

// One request for all pieces, each between regions of its own.
flagcxResult_t igetBatch(void *sendComm, int count, const uint64_t *srcOffs, const uint64_t *dstOffs,
                         const size_t *sizes, int, int, void *const *srcHandles, void *const *dstHandles,
                         void **request) {
  if (!fitsOnePost(count))
    return refuse("igetBatch", "count is not within 1 and FLAGCX_P2P_MAX_WR_PER_POST", flagcxInternalError);
  if (sendComm == nullptr || srcOffs == nullptr || dstOffs == nullptr || sizes == nullptr || srcHandles == nullptr ||
      dstHandles == nullptr || request == nullptr)
    return refuse("igetBatch", "an argument is NULL", flagcxInternalError);
  const size_t pieces = static_cast<size_t>(count);
  const Batch batch = {handles(dstHandles, pieces),
                       {dstOffs, pieces},
                       handles(srcHandles, pieces),
                       {srcOffs, pieces},
                       {sizes, pieces}};
  return startBatch(sendComm, Direction::Get, batch, request);
}

flagcxResult_t test(void *request, int *done, int *sizes) {
  if (done == nullptr)
    return refuse("test", "done is NULL");
  bool ended = true;
  uint64_t bytes = 0;
  Answer answer = Answer::Success;
  if (request != nullptr)
    answer = net::test(reinterpret_cast<uintptr_t>(request), ended, bytes);
  *done = ended;
  if (sizes != nullptr && ended)
    *sizes = static_cast<int>(std::min<uint64_t>(bytes, INT32_MAX));
  return result(answer);
}

flagcxResult_t testBatch(void **requests, int nRequests, int *doneFlags, int *doneCount) {
  if (doneCount == nullptr || nRequests < 0)
    return refuse("testBatch", doneCount == nullptr ? "doneCount is NULL" : "nRequests is negative");
  if (nRequests > 0 && (requests == nullptr || doneFlags == nullptr))
    return refuse("testBatch", requests == nullptr ? "requests is NULL" : "doneFlags is NULL");
  const size_t count = static_cast<size_t>(nRequests);
  return result(test_batch({reinterpret_cast<size_t *>(requests), count}, {doneFlags, count}, *doneCount));
}

} // namespace flagcx::p2p::net
