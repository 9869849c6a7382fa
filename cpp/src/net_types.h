// SPDX-License-Identifier: Apache-2.0
//
// The types of FlagCX's net adaptor interface, as its programs were compiled with them: `struct flagcxNetAdaptor` in its
// latest version, results, flags and device properties. Names and layout are FlagCX's; abi checks follow each.
#ifndef FLAGCX_P2P_FACADE_NET_TYPES_H_
#define FLAGCX_P2P_FACADE_NET_TYPES_H_

#include <stddef.h>
#include <stdint.h>

typedef enum {
  flagcxSuccess = 0,
  flagcxUnhandledDeviceError = 1,
  flagcxSystemError = 2,
  flagcxInternalError = 3,
  flagcxInvalidArgument = 4,
  flagcxInvalidUsage = 5,
  flagcxRemoteError = 6,
  flagcxInProgress = 7,
  flagcxUnhandledCCLError = 8,
  flagcxNotSupported = 9,
  flagcxNumResults = 10
} flagcxResult_t;

// Kinds of memory, and bits of flagcxNetProperties_t::ptrSupport.
#define FLAGCX_PTR_HOST 0x1
#define FLAGCX_PTR_CUDA 0x2
#define FLAGCX_PTR_DMABUF 0x4

// Bits of regMr's mrFlags: no relaxed ordering.
#define FLAGCX_NET_MR_FLAG_FORCE_SO 0x1

// Most receives that one irecv may post; shown in the properties, though irecv is not offered here.
#define FLAGCX_NET_IB_MAX_RECVS 8

typedef enum { FLAGCX_NET_DEVICE_HOST = 0 } flagcxNetDeviceType;

typedef struct {
  char *name;
  char *pciPath;
  uint64_t guid;
  int ptrSupport;
  int regIsGlobal;
  int speed; // Mbit/s
  int port;
  float latency;
  int maxComms;
  int maxRecvs;
  flagcxNetDeviceType netDeviceType;
  int netDeviceVersion;
} flagcxNetProperties_t;

static_assert(sizeof(flagcxNetProperties_t) == 64, "flagcxNetProperties_t");
static_assert(offsetof(flagcxNetProperties_t, ptrSupport) == 24 &&
                  offsetof(flagcxNetProperties_t, netDeviceVersion) == 56,
              "flagcxNetProperties_t");

extern "C" {

struct flagcxNetAdaptor_latest {
  const char *name;
  flagcxResult_t (*init)();
  flagcxResult_t (*devices)(int *ndev);
  flagcxResult_t (*getProperties)(int dev, void *props);

  flagcxResult_t (*listen)(int dev, void *handle, void **listenComm);
  flagcxResult_t (*connect)(int dev, void *handle, void **sendComm);
  flagcxResult_t (*accept)(void *listenComm, void **recvComm);
  flagcxResult_t (*closeSend)(void *sendComm);
  flagcxResult_t (*closeRecv)(void *recvComm);
  flagcxResult_t (*closeListen)(void *listenComm);

  flagcxResult_t (*regMr)(void *comm, void *data, size_t size, int type, int mrFlags, void **mhandle);
  flagcxResult_t (*regMrDmaBuf)(void *comm, void *data, size_t size, int type, uint64_t offset, int fd, int mrFlags,
                                void **mhandle);
  flagcxResult_t (*deregMr)(void *comm, void *mhandle);

  flagcxResult_t (*isend)(void *sendComm, void *data, size_t size, int tag, void *mhandle, void *phandle,
                          void **request);
  flagcxResult_t (*irecv)(void *recvComm, int n, void **data, size_t *sizes, int *tags, void **mhandles,
                          void **phandles, void **request);
  flagcxResult_t (*iflush)(void *recvComm, int n, void **data, int *sizes, void **mhandles, void **request);
  flagcxResult_t (*test)(void *request, int *done, int *sizes);

  flagcxResult_t (*iput)(void *sendComm, uint64_t srcOff, uint64_t dstOff, size_t size, int srcRank, int dstRank,
                         void **srcHandles, void **dstHandles, void **request);
  flagcxResult_t (*iget)(void *sendComm, uint64_t srcOff, uint64_t dstOff, size_t size, int srcRank, int dstRank,
                         void **srcHandles, void **dstHandles, void **request);
  flagcxResult_t (*iputSignal)(void *sendComm, uint64_t srcOff, uint64_t dstOff, size_t size, int srcRank,
                               int dstRank, void **srcHandles, void **dstHandles, uint64_t signalOff,
                               void **signalHandles, uint64_t signalValue, void **request);

  flagcxResult_t (*getDevFromName)(char *name, int *dev);

  flagcxResult_t (*iputBatch)(void *sendComm, int count, const uint64_t *srcOffs, const uint64_t *dstOffs,
                              const size_t *sizes, int srcRank, int dstRank, void **srcHandles, void **dstHandles,
                              void **requests, int *posted);
  flagcxResult_t (*testBatch)(void **requests, int nRequests, int *doneFlags, int *doneCount);
  flagcxResult_t (*igetBatch)(void *sendComm, int count, const uint64_t *srcOffs, const uint64_t *dstOffs,
                              const size_t *sizes, int srcRank, int dstRank, void *const *srcHandles,
                              void *const *dstHandles, void **request);
};

// The table of this transport. Data, so that its owner may replace members.
extern struct flagcxNetAdaptor_latest flagcxNetIbP2p;

} // extern "C"

static_assert(sizeof(flagcxNetAdaptor_latest) == 192, "flagcxNetAdaptor_latest");
static_assert(offsetof(flagcxNetAdaptor_latest, listen) == 32, "listen");
static_assert(offsetof(flagcxNetAdaptor_latest, regMr) == 80, "regMr");
static_assert(offsetof(flagcxNetAdaptor_latest, isend) == 104, "isend");
static_assert(offsetof(flagcxNetAdaptor_latest, test) == 128, "test");
static_assert(offsetof(flagcxNetAdaptor_latest, iputSignal) == 152, "iputSignal");
static_assert(offsetof(flagcxNetAdaptor_latest, iputBatch) == 168, "iputBatch");
static_assert(offsetof(flagcxNetAdaptor_latest, igetBatch) == 184, "igetBatch");

// Ends a listener's accepts, now and in future, and closes its port. NULL and repeats are fine. In no header of FlagCX
// either: its callers declare it.
flagcxResult_t flagcxNetIbP2pAbortListen(void *listenComm);

#endif // FLAGCX_P2P_FACADE_NET_TYPES_H_
