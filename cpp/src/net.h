// SPDX-License-Identifier: Apache-2.0
//
// What the files of the net adaptor share: answers, and the members that live in files of their own.
#ifndef FLAGCX_P2P_FACADE_NET_H_
#define FLAGCX_P2P_FACADE_NET_H_

#include "facade.h"
#include "flagcx_p2p/src/net/mod.rs.h"
#include "net_types.h"

namespace flagcx::p2p::net {

static_assert(static_cast<int>(Answer::Success) == flagcxSuccess, "");
static_assert(static_cast<int>(Answer::SystemError) == flagcxSystemError, "");
static_assert(static_cast<int>(Answer::InternalError) == flagcxInternalError, "");
static_assert(static_cast<int>(Answer::InvalidArgument) == flagcxInvalidArgument, "");
static_assert(static_cast<int>(Answer::RemoteError) == flagcxRemoteError, "");

inline flagcxResult_t result(Answer answer) {
  return static_cast<flagcxResult_t>(answer);
}

// Logs and remembers why `member` refuses, and answers `result`.
flagcxResult_t refuse(const char *member, const char *reason, flagcxResult_t result = flagcxInvalidArgument);

// Members, with the table's signatures.
flagcxResult_t regMr(void *comm, void *data, size_t size, int type, int mrFlags, void **mhandle);
flagcxResult_t regMrDmaBuf(void *comm, void *data, size_t size, int type, uint64_t offset, int fd, int mrFlags,
                           void **mhandle);
flagcxResult_t deregMr(void *comm, void *mhandle);
flagcxResult_t iput(void *sendComm, uint64_t srcOff, uint64_t dstOff, size_t size, int srcRank, int dstRank,
                    void **srcHandles, void **dstHandles, void **request);
flagcxResult_t iget(void *sendComm, uint64_t srcOff, uint64_t dstOff, size_t size, int srcRank, int dstRank,
                    void **srcHandles, void **dstHandles, void **request);
flagcxResult_t iputBatch(void *sendComm, int count, const uint64_t *srcOffs, const uint64_t *dstOffs,
                         const size_t *sizes, int srcRank, int dstRank, void **srcHandles, void **dstHandles,
                         void **requests, int *posted);
flagcxResult_t igetBatch(void *sendComm, int count, const uint64_t *srcOffs, const uint64_t *dstOffs,
                         const size_t *sizes, int srcRank, int dstRank, void *const *srcHandles,
                         void *const *dstHandles, void **request);
flagcxResult_t test(void *request, int *done, int *sizes);
flagcxResult_t testBatch(void **requests, int nRequests, int *doneFlags, int *doneCount);

} // namespace flagcx::p2p::net

#endif // FLAGCX_P2P_FACADE_NET_H_
