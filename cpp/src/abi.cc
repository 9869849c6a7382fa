// SPDX-License-Identifier: Apache-2.0
//
// The binary interface of flagcx_p2p.h, as programs compiled against the original engine's header rely on it. Nothing
// is compiled from here but the checks.
#include <type_traits>

#include "flagcx_p2p.h"
#include "flagcx_p2p_ext.h"

#define CHECK_SIZE(type, bytes) static_assert(sizeof(type) == (bytes), #type)
#define CHECK_ALIGN(type, bytes) static_assert(alignof(type) == (bytes), #type)
#define CHECK_FIELD(type, field, offset, fieldType)                    \
  static_assert(offsetof(type, field) == (offset), #type "::" #field); \
  static_assert(std::is_same<decltype(type::field), fieldType>::value, #type "::" #field)

using Chars32 = char[32];
using Chars256 = char[256];

static_assert(FLAGCX_P2P_MSG_SIZE == 256 && FLAGCX_P2P_DESC_SIZE == 64 && FLAGCX_P2P_IPC_INFO_SIZE == 128, "");
static_assert(kFlagcxP2pMaxQpsPerEngine == 8, "");
static_assert(std::is_same<FlagcxP2pMr, uint64_t>::value, "");

CHECK_SIZE(FlagcxP2pRdmaDesc, 64);
CHECK_ALIGN(FlagcxP2pRdmaDesc, 8);
CHECK_FIELD(FlagcxP2pRdmaDesc, addr, 0, uint64_t);
CHECK_FIELD(FlagcxP2pRdmaDesc, size, 8, uint32_t);
CHECK_FIELD(FlagcxP2pRdmaDesc, rkey, 12, uint32_t);
CHECK_FIELD(FlagcxP2pRdmaDesc, nmsgs, 16, uint32_t);
CHECK_FIELD(FlagcxP2pRdmaDesc, rid, 20, uint32_t);
CHECK_FIELD(FlagcxP2pRdmaDesc, idx, 24, uint64_t);
CHECK_FIELD(FlagcxP2pRdmaDesc, padding, 32, Chars32);
static_assert(std::is_trivial<FlagcxP2pRdmaDesc>::value, "");

CHECK_SIZE(FlagcxTransferTask, 48);
CHECK_ALIGN(FlagcxTransferTask, 8);
CHECK_FIELD(FlagcxTransferTask, sliceCount, 0, std::atomic<uint64_t>);
CHECK_FIELD(FlagcxTransferTask, doneSliceCount, 8, std::atomic<uint64_t>);
CHECK_FIELD(FlagcxTransferTask, failedCount, 16, std::atomic<uint64_t>);
CHECK_FIELD(FlagcxTransferTask, sliceList, 24, std::vector<FlagcxSlice *>);

CHECK_SIZE(FlagcxSliceOp, 1);
static_assert(FLAGCX_SLICE_OP_WRITE == 0 && FLAGCX_SLICE_OP_READ == 1, "");

CHECK_SIZE(FlagcxSlice, 48);
CHECK_ALIGN(FlagcxSlice, 8);
CHECK_FIELD(FlagcxSlice, srcVa, 0, uint64_t);
CHECK_FIELD(FlagcxSlice, dstVa, 8, uint64_t);
CHECK_FIELD(FlagcxSlice, length, 16, uint32_t);
CHECK_FIELD(FlagcxSlice, lkey, 20, uint32_t);
CHECK_FIELD(FlagcxSlice, rkey, 24, uint32_t);
CHECK_FIELD(FlagcxSlice, opcode, 28, uint8_t);
CHECK_FIELD(FlagcxSlice, task, 32, FlagcxTransferTask *);
CHECK_FIELD(FlagcxSlice, qpDepth, 40, volatile int *);

CHECK_SIZE(FlagcxP2pNotifyMsg, 512);
CHECK_ALIGN(FlagcxP2pNotifyMsg, 1);
CHECK_FIELD(FlagcxP2pNotifyMsg, name, 0, Chars256);
CHECK_FIELD(FlagcxP2pNotifyMsg, msg, 256, Chars256);
static_assert(std::is_trivial<FlagcxP2pNotifyMsg>::value, "");
CHECK_SIZE(FlagcxP2pMd, 512);
CHECK_FIELD(FlagcxP2pMd, notifyData, 0, FlagcxP2pNotifyMsg);

CHECK_SIZE(FlagcxP2pGlobalConfig, 112);
CHECK_ALIGN(FlagcxP2pGlobalConfig, 8);
CHECK_FIELD(FlagcxP2pGlobalConfig, qpsPerConn, 0, int);
CHECK_FIELD(FlagcxP2pGlobalConfig, workersPerPool, 4, int);
CHECK_FIELD(FlagcxP2pGlobalConfig, shardCount, 8, int);
CHECK_FIELD(FlagcxP2pGlobalConfig, sharedCqDepth, 16, size_t);
CHECK_FIELD(FlagcxP2pGlobalConfig, maxWrPerPost, 24, size_t);
CHECK_FIELD(FlagcxP2pGlobalConfig, maxRequests, 32, size_t);
CHECK_FIELD(FlagcxP2pGlobalConfig, batchPollSize, 40, size_t);
CHECK_FIELD(FlagcxP2pGlobalConfig, sliceSize, 48, size_t);
CHECK_FIELD(FlagcxP2pGlobalConfig, fragmentLimit, 56, size_t);
CHECK_FIELD(FlagcxP2pGlobalConfig, maxSge, 64, size_t);
CHECK_FIELD(FlagcxP2pGlobalConfig, maxInline, 72, size_t);
CHECK_FIELD(FlagcxP2pGlobalConfig, ibPort, 80, uint8_t);
CHECK_FIELD(FlagcxP2pGlobalConfig, gidIndex, 84, int);
CHECK_FIELD(FlagcxP2pGlobalConfig, mtuLength, 88, int);
CHECK_FIELD(FlagcxP2pGlobalConfig, ibTrafficClass, 92, int);
CHECK_FIELD(FlagcxP2pGlobalConfig, retryCnt, 96, int);
CHECK_FIELD(FlagcxP2pGlobalConfig, notifMaxPeers, 100, int);
CHECK_FIELD(FlagcxP2pGlobalConfig, enableDestDeviceAffinity, 104, bool);

// flagcx_p2p_ext.h: fields may be added at the end, nothing may move.
CHECK_SIZE(FlagcxP2pXferResult, 256);
CHECK_FIELD(FlagcxP2pXferResult, state, 4, uint32_t);
CHECK_FIELD(FlagcxP2pXferResult, iov, 8, uint64_t);
CHECK_FIELD(FlagcxP2pXferResult, status, 16, uint32_t);
CHECK_FIELD(FlagcxP2pXferResult, vendorError, 20, uint32_t);
static_assert(offsetof(FlagcxP2pXferResult, peer) == 24 && offsetof(FlagcxP2pXferResult, reason) == 88, "");
CHECK_SIZE(FlagcxP2pConnInfo, 88);
CHECK_FIELD(FlagcxP2pConnInfo, path, 4, uint32_t);
CHECK_FIELD(FlagcxP2pConnInfo, lanes, 8, uint32_t);
CHECK_FIELD(FlagcxP2pConnInfo, healthyLanes, 12, uint32_t);
CHECK_FIELD(FlagcxP2pConnInfo, gpuIndex, 16, int32_t);
CHECK_FIELD(FlagcxP2pConnInfo, local, 20, uint8_t);
CHECK_FIELD(FlagcxP2pConnInfo, ours, 21, uint8_t);
CHECK_FIELD(FlagcxP2pConnInfo, readPath, 22, uint8_t);
CHECK_FIELD(FlagcxP2pConnInfo, writePath, 23, uint8_t);
static_assert(offsetof(FlagcxP2pConnInfo, peer) == 24, "");
CHECK_SIZE(FlagcxP2pRailInfo, 256);
CHECK_FIELD(FlagcxP2pRailInfo, rail, 4, uint32_t);
CHECK_FIELD(FlagcxP2pRailInfo, state, 8, uint32_t);
CHECK_FIELD(FlagcxP2pRailInfo, pausedMs, 12, uint32_t);
CHECK_FIELD(FlagcxP2pRailInfo, lanes, 16, uint32_t);
CHECK_FIELD(FlagcxP2pRailInfo, healthyLanes, 20, uint32_t);
CHECK_FIELD(FlagcxP2pRailInfo, lastPause, 24, uint32_t);
CHECK_FIELD(FlagcxP2pRailInfo, lastPauseMs, 32, uint64_t);
CHECK_FIELD(FlagcxP2pRailInfo, pauses, 40, uint64_t);
CHECK_FIELD(FlagcxP2pRailInfo, writtenBytes, 48, uint64_t);
CHECK_FIELD(FlagcxP2pRailInfo, readBytes, 56, uint64_t);
CHECK_FIELD(FlagcxP2pRailInfo, inFlightBytes, 64, uint64_t);
CHECK_FIELD(FlagcxP2pRailInfo, bytesPerSecond, 72, uint64_t);
CHECK_FIELD(FlagcxP2pRailInfo, movedParts, 80, uint64_t);
CHECK_FIELD(FlagcxP2pRailInfo, latencyNs, 88, uint64_t);
static_assert(offsetof(FlagcxP2pRailInfo, nic) == 96 && offsetof(FlagcxP2pRailInfo, peerNic) == 176, "");
CHECK_SIZE(FlagcxP2pFabricInfo, 512);
CHECK_FIELD(FlagcxP2pFabricInfo, devices, 4, uint32_t);
static_assert(offsetof(FlagcxP2pFabricInfo, provider) == 8 && offsetof(FlagcxP2pFabricInfo, reason) == 24, "");
