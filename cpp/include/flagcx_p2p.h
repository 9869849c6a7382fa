// SPDX-License-Identifier: Apache-2.0
//
// FlagCX point-to-point engine: one-sided READ and WRITE of registered memory between two processes.
//
// An *engine* registers memory and connects to peers; a *connection* belongs to one peer; a *transfer* moves bytes
// between local and remote ranges, one pair of which is an *iov*. A remote range is named by a 64-byte *descriptor*, which
// either the peer made (flagcxP2pEnginePrepareDesc) and sent here by any means, or which is looked up in the table of regions
// that the peer announces (flagcxP2pEngineMakeDesc).
//
//   FlagcxP2pEngine *engine = flagcxP2pEngineCreate();
//   FlagcxP2pMr region;
//   flagcxP2pEngineReg(engine, (uintptr_t)data, size, region);
//   FlagcxP2pConn *conn = flagcxP2pEngineGetConn(engine, "192.0.2.7:40123");
//   FlagcxP2pRdmaDesc desc;
//   flagcxP2pEngineMakeDesc(conn, remoteAddress, size, &desc);
//   uint64_t transfer;
//   flagcxP2pEngineWrite(conn, region, data, size, desc, &transfer);
//   while (!flagcxP2pEngineXferStatus(conn, transfer)) {}
//
// Common rules, unless a function says otherwise:
//  - `int` functions return 0, or -1 when they refuse; then nothing was done and no output was written. The reason
//    goes to the log and to flagcxP2pEngineLastError() of flagcx_p2p_ext.h. Nothing throws, and errno is not set.
//  - Every function may be called from any thread at any time, except that a handle must not be used while or after
//    it is destroyed.
//  - Addresses are virtual addresses, sizes are bytes.
#ifndef FLAGCX_P2P_H_
#define FLAGCX_P2P_H_

#include <atomic>
#include <cstring>
#include <stddef.h>
#include <stdint.h>
#include <vector>

// Bytes of a notification's name, and of its text.
#define FLAGCX_P2P_MSG_SIZE 256
// Bytes of a serialized descriptor.
#define FLAGCX_P2P_DESC_SIZE 64
// Bytes of the information by which another process of this host opens GPU memory.
#define FLAGCX_P2P_IPC_INFO_SIZE 128

// Most queue pairs that one connection may have per engine.
constexpr int kFlagcxP2pMaxQpsPerEngine = 8;

// An engine; flagcxP2pEngineCreate to flagcxP2pEngineDestroy.
typedef struct FlagcxP2pEngine FlagcxP2pEngine;
// A connection to one peer; either end may read, write and notify over it.
typedef struct FlagcxP2pConn FlagcxP2pConn;
// The id of a registered region. Unique in the process, never 0, never used twice.
typedef uint64_t FlagcxP2pMr;

// -------------------------------------------------------------------------------------------------------------------
// Descriptors

// Names a range of a peer's memory and the key to it.
struct FlagcxP2pRdmaDesc {
  uint64_t addr;    // first byte, an address of the peer
  uint32_t size;    // bytes from there on
  uint32_t rkey;    // the peer's key for the region that holds the range
  uint32_t nmsgs;   // reserved, 0
  uint32_t rid;     // reserved, 0
  uint64_t idx;     // reserved, 0
  char padding[32]; // reserved, 0
};
static_assert(sizeof(FlagcxP2pRdmaDesc) == FLAGCX_P2P_DESC_SIZE, "a descriptor and its serialized image are equal");

// Writes the 64-byte image of `desc` to `buf`, in host byte order. `buf` needs no alignment.
inline void flagcxP2pSerializeRdmaDesc(const FlagcxP2pRdmaDesc &desc, char *buf) {
  std::memcpy(buf, &desc, sizeof(desc));
}

// Reads a descriptor from the 64 bytes at `buf`. Any image is accepted: a transfer checks the range that it names.
inline void flagcxP2pDeserializeRdmaDesc(const char *buf, FlagcxP2pRdmaDesc *desc) {
  std::memcpy(desc, buf, sizeof(*desc));
}

// -------------------------------------------------------------------------------------------------------------------
// Slices and tasks: counters of the ended parts of a transfer. Kept for source compatibility; the engine does not use
// them.

// Counts the slices of one task. Any number of threads may mark slices while others read the counters.
struct FlagcxTransferTask {
  std::atomic<uint64_t> sliceCount{0};     // slices that the task consists of
  std::atomic<uint64_t> doneSliceCount{0}; // slices that ended, either way
  std::atomic<uint64_t> failedCount{0};    // slices that ended by failure
  std::vector<struct FlagcxSlice *> sliceList;

  // True once there are slices and all of them ended.
  bool isAllDone() const {
    const uint64_t total = sliceCount.load(std::memory_order_acquire);
    return total > 0 && doneSliceCount.load(std::memory_order_acquire) >= total;
  }

  // True once a slice failed.
  bool hasErrors() const { return failedCount.load(std::memory_order_acquire) > 0; }
};

enum FlagcxSliceOp : uint8_t { FLAGCX_SLICE_OP_WRITE = 0, FLAGCX_SLICE_OP_READ = 1 };

// One part of a transfer.
struct FlagcxSlice {
  uint64_t srcVa = 0;                     // local address: source of a WRITE, destination of a READ
  uint64_t dstVa = 0;                     // remote address
  uint32_t length = 0;                    // bytes
  uint32_t lkey = 0;                      // key of the local region
  uint32_t rkey = 0;                      // key of the remote region
  uint8_t opcode = FLAGCX_SLICE_OP_WRITE; // a FlagcxSliceOp
  FlagcxTransferTask *task = nullptr;     // where to count; may be null
  volatile int *qpDepth = nullptr;        // requests outstanding on the queue pair; may be null

  // Counts this slice as done. Call once per slice, and not after markFailed.
  inline void markSuccess() {
    if (task != nullptr)
      task->doneSliceCount.fetch_add(1, std::memory_order_release);
  }

  // Counts this slice as failed and done. The failure is counted first: a thread that reads the task as done reads it too.
  inline void markFailed() {
    if (task != nullptr) {
      task->failedCount.fetch_add(1, std::memory_order_release);
      task->doneSliceCount.fetch_add(1, std::memory_order_release);
    }
  }
};

// -------------------------------------------------------------------------------------------------------------------
// Notifications and configuration: the types

// A message beside the data: two byte fields, NUL-terminated only if the sender did so.
struct FlagcxP2pNotifyMsg {
  char name[FLAGCX_P2P_MSG_SIZE]; // name of the sender or the subject
  char msg[FLAGCX_P2P_MSG_SIZE];  // text
};

// Metadata that may travel with a transfer. Not used by the engine.
struct FlagcxP2pMd {
  FlagcxP2pNotifyMsg notifyData;
};

// The settings in effect, read-only. docs/configuration.md explains each variable, with its range.
struct FlagcxP2pGlobalConfig {
  int qpsPerConn = 4;                    // FLAGCX_P2P_QPS_PER_CONN: queue pairs offered per connection
  int workersPerPool = 4;                // FLAGCX_P2P_WORKERS_PER_POOL: worker threads per device
  int shardCount = 8;                    // FLAGCX_P2P_SHARD_COUNT: submission queues per device
  size_t sharedCqDepth = 4096;           // FLAGCX_P2P_CQ_DEPTH: completion queue entries per device
  size_t maxWrPerPost = 256;             // FLAGCX_P2P_MAX_WR_PER_POST: work requests per post
  size_t maxRequests = 256;              // FLAGCX_P2P_MAX_REQUESTS: a quarter of the posted requests allowed
  size_t batchPollSize = 64;             // FLAGCX_P2P_BATCH_POLL_SIZE: completions per poll
  size_t sliceSize = 1ull << 30;         // FLAGCX_P2P_SLICE_SIZE: bytes of the longest work request, 0 for no cutting
  size_t fragmentLimit = 4 * 1024;       // FLAGCX_P2P_FRAGMENT_LIMIT: bytes that the last work request may be longer
  size_t maxSge = 4;                     // FLAGCX_P2P_MAX_SGE: scatter/gather entries per work request
  size_t maxInline = 64;                 // FLAGCX_P2P_MAX_INLINE: bytes that a small WRITE may carry inline
  uint8_t ibPort = 1;                    // FLAGCX_P2P_IB_PORT: device port
  int gidIndex = -1;                     // FLAGCX_P2P_GID_INDEX: index of the GID, -1 to choose
  int mtuLength = 4096;                  // FLAGCX_P2P_MTU: largest path MTU in bytes
  int ibTrafficClass = -1;               // FLAGCX_P2P_IB_TC: traffic class, -1 for FLAGCX_IB_TC
  int retryCnt = 7;                      // FLAGCX_P2P_RETRY_CNT: transport retries
  int notifMaxPeers = 64;                // FLAGCX_P2P_NOTIF_MAX_PEERS: unauthenticated notification senders
  bool enableDestDeviceAffinity = false; // FLAGCX_P2P_DEST_DEV_AFFINITY: NIC number = GPU number, one rail everywhere
};

// -------------------------------------------------------------------------------------------------------------------
// Engine

// Creates an engine. Of several NICs it uses the nearest to the GPU of the GPU memory that is registered first; if host
// memory or a peer comes before, to the current GPU, which the log then names. Without any NIC it uses the software
// fabric; with FLAGCX_P2P_FABRIC=verbs it then has metadata and refuses everything else, with the reason. NULL when
// that variable requires libibverbs and it cannot be loaded, or a setting is invalid. Takes milliseconds.
// The caller owns the engine: flagcxP2pEngineDestroy.
FlagcxP2pEngine *flagcxP2pEngineCreate();

// Ends an engine: stops accepting, ends its transfers (the NIC is done with their memory when this returns),
// deregisters its regions, and destroys the connections that it owns (flagcxP2pEngineGetConn and those that the RPC
// server accepted). Connections from Connect and Accept belong to the caller: they are closed, and still have to be passed
// to flagcxP2pEngineConnDestroy, before or after. Other engines are not affected. NULL is a no-op.
void flagcxP2pEngineDestroy(FlagcxP2pEngine *engine);

// Stops accepting permanently: a blocked flagcxP2pEngineAccept returns NULL promptly, later ones do so at once, the RPC
// server ends. Connections and notifications continue. Idempotent; NULL is a no-op.
void flagcxP2pEngineStopAccept(FlagcxP2pEngine *engine);

// -------------------------------------------------------------------------------------------------------------------
// Connections

// Connects to the engine with RPC port (flagcxP2pEngineGetRpcPort, or its metadata) `ipAddr`:`remotePort`.
// `ipAddr`: an IPv4 or IPv6 literal (brackets optional), or a name. `remoteGpuIdx` is used only if the peer does not
// report it. `sameProcess`: the peer is an engine of this process; transfers over
// such a connection may end inside the call, with id 0. A refused port is retried for
// FLAGCX_P2P_CONNECT_TIMEOUT_MS; a name is resolved and all of its addresses are tried within that time, and the
// call ends within that plus FLAGCX_P2P_HANDSHAKE_TIMEOUT_MS. NULL on any failure. The connection has the regions that the
// peer has registered by now; flagcxP2pEngineMakeDesc queries later ones. The caller owns the connection:
// flagcxP2pEngineConnDestroy.
FlagcxP2pConn *flagcxP2pEngineConnect(FlagcxP2pEngine *engine, const char *ipAddr, int remoteGpuIdx, int remotePort,
                                      bool sameProcess = false);

// Waits for one peer to connect. On success `ipAddrBuf` receives its numeric address, truncated to `ipAddrBufLen` bytes
// including the NUL, and `*remoteGpuIdx` its GPU index. NULL, with neither written, when the handshake with a peer
// failed (call again) or after flagcxP2pEngineStopAccept. The caller owns the connection.
FlagcxP2pConn *flagcxP2pEngineAccept(FlagcxP2pEngine *engine, char *ipAddrBuf, size_t ipAddrBufLen,
                                     int *remoteGpuIdx);

// Does nothing and returns 0 for any `conn`: a connection is ready when Connect or Accept returns it.
int flagcxP2pEngineStartListener(FlagcxP2pConn *conn);

// Closes a connection from Connect or Accept. Transfers in flight on it end first; the NIC is done with their memory
// when this returns. A connection that the engine owns is not closed, with a warning. NULL is a no-op.
void flagcxP2pEngineConnDestroy(FlagcxP2pConn *conn);

// Whether the peer is on this host. NULL: false.
bool flagcxP2pEngineConnIsLocal(FlagcxP2pConn *conn);

// The TCP port that peers connect to, also after flagcxP2pEngineStopAccept; -1 when there is none.
int flagcxP2pEngineGetRpcPort(FlagcxP2pEngine *engine);

// Starts a thread that accepts peers and keeps their connections until the engine ends: peers may then read and write
// this engine's regions without further calls here. A second call is a no-op.
int flagcxP2pEngineStartRpcServer(FlagcxP2pEngine *engine);

// The engine's own connection to `session`, "host:port" or "[v6]:port", connecting at the first call with exactly this
// string. Later calls return that pointer while the connection works; after it broke, the next call connects again
// and may return another one. The engine owns it: a pointer stays usable (its calls then fail) until the engine ends.
FlagcxP2pConn *flagcxP2pEngineGetConn(FlagcxP2pEngine *engine, const char *session);

// -------------------------------------------------------------------------------------------------------------------
// Memory

// Registers `size` bytes at `data`, host or GPU memory, for reads and writes by this engine and its peers, and
// writes the region's id to `mrId`. The memory must stay mapped until flagcxP2pEngineMrDestroy has returned. Registering a
// range again returns its id and counts: as many destroys end it. A registered address with another size, size 0
// and address 0 are refused, and so is host memory that cannot be read. Memory that is not writable can be read by
// peers and sent by this engine; see flagcxP2pEngineRegFlags.
int flagcxP2pEngineReg(FlagcxP2pEngine *engine, uintptr_t data, size_t size, FlagcxP2pMr &mrId);

// Ends a registration. Waits for local transfers in flight on it, at most for their deadline. An unknown id, or one
// of another engine, is a logged no-op.
void flagcxP2pEngineMrDestroy(FlagcxP2pEngine *engine, FlagcxP2pMr mr);

// Writes a descriptor for `size` bytes at `data` within region `mr` to the 64 bytes at `descBuf`, for a peer to use.
// Refused when the range is not inside the region or is longer than 4 GiB - 1, or, of a region that is larger than the NIC can
// register at once, crosses from one of its segments to the next: the log names the address between them. `size` 0 is allowed.
int flagcxP2pEnginePrepareDesc(FlagcxP2pEngine *engine, FlagcxP2pMr mr, const void *data, size_t size, char *descBuf);

// Narrows `desc` to a range inside the one that it names: sets its address and size, keeps the key. Refused, with
// `desc` unchanged, when the range is not inside.
int flagcxP2pEngineUpdateDesc(FlagcxP2pRdmaDesc &desc, uint64_t remoteAddr, uint32_t size);

// Makes a descriptor for `size` bytes at the peer's address `remoteVa` from the regions that the peer announces.
// Refused when none of them contains the whole range. Before that, it queries a peer that runs this engine for regions
// registered since, and waits at most a second for the answer; an original engine announces none after the connect.
int flagcxP2pEngineMakeDesc(FlagcxP2pConn *conn, uint64_t remoteVa, uint32_t size, FlagcxP2pRdmaDesc *desc);

// -------------------------------------------------------------------------------------------------------------------
// One-sided transfers
//
// The calls start a transfer and write its id to `*transferId`; flagcxP2pEngineXferStatus reports its end.
// Everything is checked before the first byte moves: a range outside its region or descriptor refuses the call. An iov
// may have any length: one of 4 GiB or more, which a descriptor's 32-bit `size` cannot express, begins where the
// descriptor does and is checked against the regions that the peer announced, not against `size`; for memory that
// it did not announce, by the fabric. (The original engine refuses it in Read and Write.)
// The calls wait for room in the submission queue and for a free id, at most until the transfer deadline. Local memory
// must not be used, and the regions must stay registered, until the transfer has ended. An order between transfers,
// or between the iovs of one, is not guaranteed. A small transfer to memory of this host may end inside the call, with id 0.
// A transfer may have 0 bytes. For the reason of a failure and the limit of
// transfers see flagcx_p2p_ext.h.

// Reads `size` bytes from the start of `desc` into `data`. The local region is found by address; `mr` is ignored.
int flagcxP2pEngineRead(FlagcxP2pConn *conn, FlagcxP2pMr mr, const void *data, size_t size, FlagcxP2pRdmaDesc desc,
                        uint64_t *transferId);

// Writes `size` bytes from `data` to the start of `desc`. Otherwise as flagcxP2pEngineRead.
int flagcxP2pEngineWrite(FlagcxP2pConn *conn, FlagcxP2pMr mr, const void *data, size_t size, FlagcxP2pRdmaDesc desc,
                         uint64_t *transferId);

// Reads `numIovs` iovs as one transfer: iov i fills `sizeVec[i]` bytes at `dstVec[i]`, inside region `mrIds[i]`,
// from `descs[i]`. Refused when `numIovs` is below 1 or a vector is shorter; elements beyond are ignored.
// `ipcBufs`: for GPU memory of a peer on this host, the information of flagcxP2pEngineGetIpcInfo, one per iov.
int flagcxP2pEngineReadVector(FlagcxP2pConn *conn, std::vector<FlagcxP2pMr> mrIds, std::vector<void *> dstVec,
                              std::vector<size_t> sizeVec, std::vector<FlagcxP2pRdmaDesc> descs, int numIovs,
                              uint64_t *transferId, std::vector<char *> ipcBufs = {});

// Writes `numIovs` iovs as one transfer. `dstVec` has the local addresses, here the sources, in spite of its name.
// Otherwise as flagcxP2pEngineReadVector.
int flagcxP2pEngineWriteVector(FlagcxP2pConn *conn, const std::vector<FlagcxP2pMr> &mrIds,
                               const std::vector<void *> &dstVec, const std::vector<size_t> &sizeVec,
                               const std::vector<FlagcxP2pRdmaDesc> &descs, int numIovs, uint64_t *transferId,
                               const std::vector<char *> &ipcBufs = {});

// Writes `srcVec.size()` iovs and waits: 0 when all bytes are in the peer's memory, -1 when the call was refused or
// anything failed. Without iovs: 0. Ends at the transfer deadline at the latest.
int flagcxP2pEngineWriteVectorSync(FlagcxP2pConn *conn, const std::vector<FlagcxP2pMr> &mrIds,
                                   const std::vector<void *> &srcVec, const std::vector<size_t> &sizeVec,
                                   const std::vector<FlagcxP2pRdmaDesc> &descs);

// Whether a transfer has ended; the call also polls for it. The first true releases the id. True as well for id 0, an id that
// was never used or was released, and a NULL connection.
// A transfer that failed or timed out reads false for FLAGCX_P2P_FAILED_HOLD_MS (35 s) from the first call after its
// failure, unless its outcome is read by flagcx_p2p_ext.h, so that a caller that reads true as success reaches its own
// time limit. After that it reads true, and the calling thread's next notification on this connection is refused, once.
// A cancelled transfer reads true.
bool flagcxP2pEngineXferStatus(FlagcxP2pConn *conn, uint64_t transferId);

// -------------------------------------------------------------------------------------------------------------------
// Two-sided transfers: not offered. Always -1.

int flagcxP2pEngineSend(FlagcxP2pConn *conn, FlagcxP2pMr mr, const void *data, size_t size, uint64_t *transferId);
int flagcxP2pEngineSendVector(FlagcxP2pConn *conn, std::vector<FlagcxP2pMr> mrIds, std::vector<const void *> srcVec,
                              std::vector<size_t> sizeVec, int numIovs, uint64_t *transferId);
int flagcxP2pEngineRecv(FlagcxP2pConn *conn, FlagcxP2pMr mr, void *data, size_t maxSize);

// -------------------------------------------------------------------------------------------------------------------
// Metadata, notifications, GPU memory of one host, configuration

// The address of this engine: "ip:port?gpu?notificationPort", an IPv6 address in brackets. `*metadataStr` comes
// from `new char[]`: the caller frees it with `delete[]`.
int flagcxP2pEngineGetMetadata(FlagcxP2pEngine *engine, char **metadataStr);

// Takes the notifications that all engines of the process received since the last call, in order of arrival.
std::vector<FlagcxP2pNotifyMsg> flagcxP2pEngineGetNotifs();

// Sends a notification and returns the bytes sent, 512, or -1. Not ordered with transfers: notify about one
// only after it has ended. Not acknowledged. After flagcxP2pEngineXferStatus has returned true to the calling thread for a
// failed transfer, the call sends nothing and returns -1, once for each; flagcxP2pEngineLastError names the transfer.
int flagcxP2pEngineSendNotif(FlagcxP2pConn *conn, FlagcxP2pNotifyMsg *notifyMsg);

// Writes to the 128 bytes at `ipcBuf` the information by which another process of this host opens the GPU memory at `addr`,
// and sets `*hasIpc`. Host memory: 0 with `*hasIpc` false and the buffer unchanged. Memory in no region: -1 with
// `*hasIpc` false. `engine` is ignored and may be NULL.
int flagcxP2pEngineGetIpcInfo(FlagcxP2pEngine *engine, uintptr_t addr, char *ipcBuf, bool *hasIpc);

// Narrows the information in `ipcBuf`, made for `baseAddr`, to `size` bytes at `addr`. Each call moves the start
// further by `addr - baseAddr`. Refused when `addr` is below `baseAddr`.
int flagcxP2pEngineUpdateIpcInfo(char *ipcBuf, uintptr_t addr, uintptr_t baseAddr, size_t size);

// The settings in effect: read from the environment at the first call in the process, constant from then on.
const FlagcxP2pGlobalConfig &flagcxP2pGlobalConfig();

// Logs the settings in effect at level INFO.
void flagcxP2pDumpGlobalConfig();

// -------------------------------------------------------------------------------------------------------------------
// The engine through plain C types, for ctypes and similar callers. Handles are those of the functions above and may be
// used with both.

extern "C" {

// flagcxP2pEngineCreate.
void *flagcxP2pRpcEngineCreate(void);

// flagcxP2pEngineDestroy.
void flagcxP2pRpcEngineDestroy(void *engine);

// flagcxP2pEngineGetRpcPort.
int flagcxP2pRpcGetPort(void *engine);

// flagcxP2pEngineStartRpcServer.
int flagcxP2pRpcStartServer(void *engine);

// flagcxP2pEngineReg. `mrIdOut` NULL is refused.
int flagcxP2pRpcRegister(void *engine, uint64_t addr, uint64_t size, uint64_t *mrIdOut);

// flagcxP2pEngineReg for host memory: the GPU runtime is not called.
int flagcxP2pRpcRegisterHost(void *engine, uint64_t addr, uint64_t size, uint64_t *mrIdOut);

// flagcxP2pEngineGetConn.
void *flagcxP2pRpcGetConn(void *engine, const char *session);

// Writes `count` iovs, sizes[i] bytes from the local address srcVa[i] to the peer's address dstVa[i], and waits: 0
// when all bytes are in the peer's memory. Local and remote regions are found by address, the remote ones as by
// flagcxP2pEngineMakeDesc; one iov that is not completely inside a region refuses the call and nothing is sent. `count` 0,
// or only iovs of 0 bytes at any addresses: 0. Below 0, or a NULL array: -1.
int flagcxP2pRpcBatchWriteSync(void *conn, int count, const uint64_t *srcVa, const uint64_t *dstVa,
                               const uint64_t *sizes);

} // extern "C"

#endif // FLAGCX_P2P_H_
