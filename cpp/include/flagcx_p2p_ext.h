/* SPDX-License-Identifier: Apache-2.0
 *
 * What flagcx_p2p.h cannot report: how a transfer ended, why a call was refused, the state of a connection. And, for C
 * and other languages that cannot use a C++ header, the functions of flagcx_p2p.h in C form: their names begin with
 * flagcxP2pC, and the last part of this header has a list. Plain C types throughout; handles and ids are those of
 * flagcx_p2p.h, and calls of the two headers may be mixed. This header is C99 and C++11.
 *
 * Every function may be called from any thread at any time, except that a handle must not be used while or after it is
 * destroyed. Addresses are virtual addresses, sizes are bytes. Nothing throws, and errno means nothing.
 *
 * Answers: 0, or -1 for a refused call (flagcxP2pEngineLastError tells why), or a positive code where a function
 * names one. Structs begin with `size`: set it to sizeof the struct before the call. An older program passes a
 * smaller size and gets that many bytes; a newer one finds in `size` how many bytes were filled. Handles that FlagCX's
 * ACCL transport has made are refused, except by flagcxP2pEngineRegFlags without FLAGCX_P2P_REG_UNANNOUNCED and
 * FLAGCX_P2P_REG_READ_ONLY, and by the functions in C form.
 *
 * In a forked child every handle of the parent's is refused ("this process was forked from process ..."), except to be
 * destroyed, which does nothing; flagcxP2pEngineXferStatus answers false. Create an engine there.
 */
#ifndef FLAGCX_P2P_EXT_H_
#define FLAGCX_P2P_EXT_H_

#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#else
#include <stdbool.h>
#endif

/* An engine: flagcxP2pCEngineCreate to flagcxP2pCEngineDestroy. */
typedef struct FlagcxP2pEngine FlagcxP2pEngine;
/* A connection to one peer; either end may read, write and notify over it. */
typedef struct FlagcxP2pConn FlagcxP2pConn;
typedef struct FlagcxP2pRdmaDesc FlagcxP2pRdmaDesc;
typedef struct FlagcxP2pNotifyMsg FlagcxP2pNotifyMsg;

#ifndef __cplusplus /* C++ has them from flagcx_p2p.h, with the same layout */

/* Bytes of a notification's name, and of its text. */
#define FLAGCX_P2P_MSG_SIZE 256
/* Bytes of a serialized descriptor. */
#define FLAGCX_P2P_DESC_SIZE 64
/* Bytes of the information by which another process of this host opens GPU memory. */
#define FLAGCX_P2P_IPC_INFO_SIZE 128

/* Names a range of a peer's memory and the key to it. Its 64 bytes are its serialized form, in host byte order: they may
 * be sent to a peer by any means, and copied back into such a struct there. */
struct FlagcxP2pRdmaDesc {
  uint64_t addr;    /* first byte, an address of the peer */
  uint32_t size;    /* bytes from there on */
  uint32_t rkey;    /* the peer's key for the region that holds the range */
  uint32_t nmsgs;   /* reserved, 0 */
  uint32_t rid;     /* reserved, 0 */
  uint64_t idx;     /* reserved, 0 */
  char padding[32]; /* reserved, 0 */
};

/* A notification of fixed size: two byte fields, NUL-terminated only if the sender did so. */
struct FlagcxP2pNotifyMsg {
  char name[FLAGCX_P2P_MSG_SIZE]; /* the sender, or the subject */
  char msg[FLAGCX_P2P_MSG_SIZE];  /* the content */
};

#endif

/* ---------------------------------------------------------------------------------------------------------------- */
/* Errors and identity                                                                                              */

/* Why the last refused call of the calling thread was refused; "" before the first. Valid until the thread's next
 * call of this function. Never NULL. */
const char *flagcxP2pEngineLastError(void);

/* The library's version, "major.minor.patch". */
const char *flagcxP2pVersion(void);

/* Which fabric moves the bytes in this process, and why. */
typedef struct FlagcxP2pFabricInfo {
  uint32_t size;     /* in: sizeof; out: bytes filled */
  uint32_t devices;  /* devices in use */
  char provider[16]; /* "verbs", "software", or "" when there is none */
  char reason[488];  /* in words for an operator, cut to fit */
} FlagcxP2pFabricInfo;

/* Fills `out`. Opens the devices if nothing has yet. */
int flagcxP2pGetFabricInfo(FlagcxP2pFabricInfo *out);

/* ---------------------------------------------------------------------------------------------------------------- */
/* Transfers                                                                                                        */

enum FlagcxP2pXferState {
  FLAGCX_P2P_XFER_PENDING = 0,   /* still running */
  FLAGCX_P2P_XFER_DONE = 1,      /* all bytes are where they belong */
  FLAGCX_P2P_XFER_FAILED = 2,    /* something failed; the destination ranges hold anything */
  FLAGCX_P2P_XFER_TIMED_OUT = 3, /* not finished within the transfer deadline, and stopped */
  FLAGCX_P2P_XFER_CANCELLED = 4, /* stopped by flagcxP2pEngineXferCancel or by closing */
  FLAGCX_P2P_XFER_UNKNOWN = 5    /* id never given out, or too long ago */
};

/* How a transfer stands. Once ended, nothing touches its memory any more, whatever the state. */
typedef struct FlagcxP2pXferResult {
  uint32_t size;        /* in: sizeof; out: bytes filled */
  uint32_t state;       /* a FlagcxP2pXferState */
  uint64_t iov;         /* FAILED: index of the first piece that failed, or may have: see the reason */
  uint32_t status;      /* FAILED: completion status, numbered as enum ibv_wc_status */
  uint32_t vendorError; /* FAILED: the vendor's own code, 0 if none */
  char peer[64];        /* FAILED: control address of the peer, "ip:port" */
  char reason[168];     /* FAILED: what happened, in words, cut to fit */
} FlagcxP2pXferResult;

/* Writes how a transfer stands to `out` and helps it along. As with flagcxP2pEngineXferStatus, the first answer other than
 * PENDING releases the id; the outcome stays readable for the engine's last 4,096 transfers. Id 0 is DONE.
 *
 * Of a transfer that failed or timed out, this and the other calls that report how transfers ended make
 * flagcxP2pEngineXferStatus read true at once; otherwise it reads false for FLAGCX_P2P_FAILED_HOLD_MS, and the
 * notification that follows is refused. When 1,048,576 failed transfers of a connection are within that time, it starts no
 * others. */
int flagcxP2pEngineXferResult(FlagcxP2pConn *conn, uint64_t transferId, FlagcxP2pXferResult *out);

/* Waits until a transfer has ended, for at most `timeoutMs` milliseconds (negative: without limit, but transfers end
 * at their deadline). 0: it has, see `out` (which may be NULL); 1: still pending. */
int flagcxP2pEngineXferWait(FlagcxP2pConn *conn, uint64_t transferId, int timeoutMs, FlagcxP2pXferResult *out);

/* Ends a transfer early. 0: it has ended, as CANCELLED unless it was over before, and nothing touches its memory. One that
 * had failed is not held any longer: flagcxP2pEngineXferStatus reads true. */
int flagcxP2pEngineXferCancel(FlagcxP2pConn *conn, uint64_t transferId);

/* Polls `count` transfers in one pass: writes a FlagcxP2pXferState for each to `states`, and how many are not
 * PENDING to `ended`. Releases ids as flagcxP2pEngineXferResult does. `count` 0: 0 with `*ended` 0. */
int flagcxP2pEngineTestBatch(FlagcxP2pConn *conn, const uint64_t *transferIds, size_t count, uint32_t *states,
                             size_t *ended);

/* Transfers that one engine may have at a time. One counts from the call that starts it until its end has been polled:
 * the first answer of flagcxP2pEngineXferStatus, XferResult, XferWait or TestBatch that it has ended releases its
 * place. Beyond this many the calls of flagcx_p2p.h that start transfers sleep until a place is free, at most for
 * FLAGCX_P2P_XFER_TIMEOUT_MS, and are then refused with this reason; those below answer FLAGCX_P2P_WOULD_BLOCK. A
 * single-threaded program that starts more without polling waits until that refusal. 64 of the places for each worker are
 * only taken by transfers of one piece. */
#define FLAGCX_P2P_MAX_TRANSFERS 1048512

/* The answer of the calls below when the submission queue is full or FLAGCX_P2P_MAX_TRANSFERS is reached: try again after
 * some transfer has ended and has been polled. */
#define FLAGCX_P2P_WOULD_BLOCK 1

/* flagcxP2pEngineReadVector and flagcxP2pEngineWriteVector that never wait. `count` of at least 1 pieces: region,
 * local address, bytes, and the peer's range of each. As there, a piece may have 4 GiB and more. A `count`
 * of more than INT32_MAX is refused. A small transfer to memory of this host may end inside the call, with id 0, which all
 * calls that take an id know as a transfer that is done. */
int flagcxP2pEngineTryReadVector(FlagcxP2pConn *conn, const uint64_t *mrIds, void *const *destinations,
                                 const size_t *sizes, const FlagcxP2pRdmaDesc *descs, size_t count,
                                 uint64_t *transferId);
int flagcxP2pEngineTryWriteVector(FlagcxP2pConn *conn, const uint64_t *mrIds, void *const *sources,
                                  const size_t *sizes, const FlagcxP2pRdmaDesc *descs, size_t count,
                                  uint64_t *transferId);

/* The two above for memory that the peer has announced, by addresses: what flagcxP2pEngineMakeDesc does for each range is
 * part of the call. Where none of the announced regions holds a range the peer is asked, for a second at most, and then
 * nothing is started: -1. */
int flagcxP2pEngineTryReadRanges(FlagcxP2pConn *conn, const uint64_t *mrIds, void *const *destinations,
                                 const size_t *sizes, const uint64_t *remoteAddresses, size_t count,
                                 uint64_t *transferId);
int flagcxP2pEngineTryWriteRanges(FlagcxP2pConn *conn, const uint64_t *mrIds, void *const *sources,
                                  const size_t *sizes, const uint64_t *remoteAddresses, size_t count,
                                  uint64_t *transferId);

/* ---------------------------------------------------------------------------------------------------------------- */
/* Connections                                                                                                      */

enum FlagcxP2pPath {
  FLAGCX_P2P_PATH_NONE = 0,         /* not connected */
  FLAGCX_P2P_PATH_RDMA = 1,         /* an RDMA device */
  FLAGCX_P2P_PATH_IN_PROCESS = 2,   /* both ends in one process: copies */
  FLAGCX_P2P_PATH_CROSS_MEMORY = 3, /* two processes of one host: cross-memory copies */
  FLAGCX_P2P_PATH_TCP = 4,          /* a TCP stream */
  FLAGCX_P2P_PATH_SHARED = 5        /* two processes of one host: copies to and from memory that both map */
};

typedef struct FlagcxP2pConnInfo {
  uint32_t size;         /* in: sizeof; out: bytes filled */
  uint32_t path;         /* a FlagcxP2pPath, now: the slower one where READs and WRITEs differ */
  uint32_t lanes;        /* queue pairs, of all rails */
  uint32_t healthyLanes; /* of these, in working order now */
  int32_t gpuIndex;      /* the peer's GPU index */
  uint8_t local;         /* 1: the peer is on this host */
  uint8_t ours;          /* 1: the peer runs this engine, 0: the original one */
  uint8_t readPath;      /* a FlagcxP2pPath: that of READs. It differs from the other, or changes, */
  uint8_t writePath;     /* where a sandbox denies one of the copies between two processes */
  char peer[64];         /* control address of the peer, "ip:port" */
} FlagcxP2pConnInfo;

/* Writes the state of a connection, as it is now, to `out`. Its rails: flagcxP2pEngineGetRails of flagcx_p2p_rails.h. */
int flagcxP2pEngineGetConnInfo(FlagcxP2pConn *conn, FlagcxP2pConnInfo *out);

/* ---------------------------------------------------------------------------------------------------------------- */
/* Memory                                                                                                           */

/* For flagcxP2pEngineRegFlags. Neither HOST nor DEVICE: the GPU runtime is queried. */
#define FLAGCX_P2P_REG_HOST 1u          /* host memory */
#define FLAGCX_P2P_REG_DEVICE 2u        /* GPU memory */
#define FLAGCX_P2P_REG_UNANNOUNCED 256u /* not announced to peers: only a descriptor opens it */
#define FLAGCX_P2P_REG_READ_ONLY \
  512u /* peers may READ it, and WRITEs may take their bytes from it; nothing changes it */

/* flagcxP2pEngineReg with flags: the kind of memory, whether it is announced to peers, and what it may be used for.
 *
 * -1, with EFAULT, the offset of the first such byte and the reason in flagcxP2pEngineLastError, for memory of the host
 * that cannot be accessed: not mapped, without PROT_READ, beyond the end of its file. Memory that is not writable, or of
 * which a page is not, is registered as with READ_ONLY whatever the flags say. To such a region a peer's WRITE ends as
 * FAILED with status 10, a remote access error (or is refused at once by a peer that knows of it), and a READ of
 * this engine into it is refused.
 *
 * The same range again answers the same id and counts one more owner; not if it was registered with READ_ONLY and is
 * now asked for without, or the other way round: -1, unless the memory is not writable anyway. */
int flagcxP2pEngineRegFlags(FlagcxP2pEngine *engine, uint64_t address, size_t bytes, uint32_t flags, uint64_t *mrId);

/* Shared memory: a process of this host and of the same user maps it and copies by itself, without a system call, where it
 * would otherwise call process_vm_readv and process_vm_writev (FLAGCX_P2P_PATH_SHARED). Only the memory of the peer has to be
 * shared for that. RDMA devices take it as any other. docs/user-guide.md tells when it pays.
 *
 * For flagcxP2pEngineAllocShared, beside those above without DEVICE. Other bits are refused. */
#define FLAGCX_P2P_ALLOC_HUGE 1024u /* in huge pages of the default size, from the pool of vm.nr_hugepages */
#define FLAGCX_P2P_ALLOC_OUTLIVE \
  2048u /* flagcxP2pCEngineDestroy does not free it: flagcxP2pEngineFreeShared with engine NULL does, afterwards */

/* Allocates `bytes` bytes of zeroed shared memory, 1 to what the host and the container have left, and registers them: writes
 * the first address, which begins a page, to `*address`, and the id of the registration to `*mrId`. Its pages are reserved
 * and of fixed size, so that no access fails; they take whole (huge) pages of memory until flagcxP2pEngineFreeShared or
 * flagcxP2pCEngineDestroy. The engine owns it.
 *
 * The memory is a memfd, for which no file system has to be mounted: /dev/shm and its size do not matter. It takes one
 * descriptor, and a second one on the software fabric, however many ranges of it are registered. Where a sandbox denies
 * memfd_create, and on an RDMA device without FLAGCX_P2P_ALLOC_HUGE, it is private memory that no peer maps, unless
 * FLAGCX_P2P_PATH is `shared`: -1. -1 too, with neither written and with errno and what to change in
 * flagcxP2pEngineLastError, when there is not as much memory, no descriptor is left, or the pool has not as many huge pages
 * free.
 *
 * Ranges inside may be registered as well, as with flagcxP2pEngineRegFlags: they are shared memory as well.
 *
 * A forked child shares the bytes: what it writes, its parent and the peers see. It cannot free them. */
int flagcxP2pEngineAllocShared(FlagcxP2pEngine *engine, size_t bytes, uint32_t flags, void **address, uint64_t *mrId);

/* Ends the registration of memory of flagcxP2pEngineAllocShared, waiting for transfers as flagcxP2pCEngineMrDestroy does, and
 * gives the memory back. -1, with nothing changed, for an address that this engine has not returned or that is freed already,
 * and while the program has registered the range once more, or parts of it, with any engine. Of two threads that free the
 * same address, one is refused. `engine` NULL: for memory with FLAGCX_P2P_ALLOC_OUTLIVE, after the end of its engine.
 *
 * The pages serve nothing else before this call. A peer that was stopped in the middle of a copy writes the rest of it to pages
 * that nothing uses any more. */
int flagcxP2pEngineFreeShared(FlagcxP2pEngine *engine, void *address);

/* Registers memory that the caller has mapped from a file of its own, with mmap and MAP_SHARED: `address` is where the byte at
 * `offset` of `fd` is mapped. The file is a memfd or a regular one, such as of /dev/shm, and has at least `offset` + `bytes`
 * bytes. `flags` as for flagcxP2pEngineRegFlags, without DEVICE. `fd` may be closed when this returns; the memory stays the
 * caller's, to be unmapped after flagcxP2pCEngineMrDestroy.
 *
 * Anything may cut such a file short or punch a hole into it. So a peer that maps it has the kernel copy, which answers an
 * error where an instruction would be a signal: the transfer fails.
 *
 * -1, with the reason in flagcxP2pEngineLastError, for a descriptor of anything else, a file that is shorter, a range that is
 * not a shared mapping of that file from that offset on, and a descriptor that is open for reading only or sealed against
 * writing, without FLAGCX_P2P_REG_READ_ONLY. Memory of flagcxP2pEngineAllocShared needs no descriptor: `fd` and `offset` are
 * not looked at. */
int flagcxP2pEngineRegShared(FlagcxP2pEngine *engine, uintptr_t address, size_t bytes, int fd, uint64_t offset,
                             uint32_t flags, uint64_t *mrId);

/* ---------------------------------------------------------------------------------------------------------------- */
/* GPU memory                                                                                                       */

/* What the engine needs of a GPU runtime, for programs outside FlagCX with a GPU that CUDA does not drive. Any
 * callback may be NULL: what needs it is then not offered. Names, arguments and meaning are those of FlagCX's device
 * adaptor. Answers: 0 done, 7 still running (eventQuery only), anything else a failure. Streams, events and handles are
 * the runtime's own objects. The callbacks are called from any thread and must outlive the process's last engine. */
typedef struct FlagcxP2pDeviceTable {
  uint32_t size; /* in: sizeof */
  uint32_t reserved;
  /* type: 0 host to device, 1 device to host, 2 device to device; args is NULL. */
  int (*deviceMemcpy)(void *dst, void *src, size_t size, int type, void *stream, void *args);
  int (*setDevice)(int dev);
  int (*getDevice)(int *dev);
  int (*getDeviceCount)(int *count);
  int (*gdrPtrMmap)(void **cpuPtr, void *devPtr, size_t size);
  int (*gdrPtrMunmap)(void *cpuPtr, size_t size);
  int (*streamCreate)(void **stream);
  int (*streamDestroy)(void *stream);
  int (*eventCreate)(void **event, int type); /* type: 1, without timing */
  int (*eventDestroy)(void *event);
  int (*eventRecord)(void *event, void *stream);
  int (*eventQuery)(void *event);
  int (*ipcMemHandleCreate)(void **handle, size_t *size); /* an empty object of at most 64 bytes */
  int (*ipcMemHandleGet)(void *handle, void *devPtr);     /* 0: `devPtr` is GPU memory */
  int (*ipcMemHandleOpen)(void *handle, void **devPtr);
  int (*ipcMemHandleClose)(void *devPtr);
  int (*ipcMemHandleFree)(void *handle);
  int (*getDevicePciBusId)(char *busId, int length, int dev);
  int (*getDeviceByPciBusId)(int *dev, const char *busId);
  int (*getLastError)(void); /* clears what a failed probe left behind */
  /* Has fn(args) called once everything on the stream before it is done. Without it the engine asks again and again. */
  int (*launchHostFunc)(void *stream, void (*fn)(void *), void *args);
  /* Whether the current device exports dma-bufs, and one of whole pages of the host as an int; `flags` is 0. */
  int (*dmaSupport)(bool *supported);
  int (*getHandleForAddressRange)(void *handleOut, void *buffer, size_t size, unsigned long long flags);
  /* ptrType: 1 host memory, 2 GPU memory, whether or not it has an IPC handle. Asked before ipcMemHandleGet. */
  int (*getPointerType)(const void *ptr, int *ptrType);
} FlagcxP2pDeviceTable;

/* Takes a copy of `table` for the whole process, before the first engine is created. NULL goes back to what there was:
 * FlagCX's device adaptor inside FlagCX, else the CUDA driver if the process has it loaded, else none. */
int flagcxP2pSetDeviceTable(const FlagcxP2pDeviceTable *table);

/* ---------------------------------------------------------------------------------------------------------------- */
/* Notifications and metrics                                                                                        */

/* Sends a notification of 0 to FLAGCX_P2P_NOTIF_MAX_BYTES (of the peer) bytes. The peer's flagcxP2pEngineGetNotifsOf gets
 * exactly these bytes, in the order in which this connection's notifications of both kinds were sent; its
 * flagcxP2pEngineGetNotifs does not take it. `name` ends at its NUL and has at most 256 bytes. -1, before anything is read
 * of the content, for sizes beyond these. A peer that runs the original engine gets at most 256 bytes, as from
 * flagcxP2pEngineSendNotif: filled up with zeros. Not ordered with transfers. Refused after a failed transfer as
 * flagcxP2pEngineSendNotif is. */
int flagcxP2pEngineSendNotifBytes(FlagcxP2pConn *conn, const char *name, const void *content, size_t bytes);

/* Takes one notification: 256 bytes of name, not necessarily NUL-terminated, and its content. Both are freed when it
 * returns. It must not throw. */
typedef void (*FlagcxP2pNotifSink)(void *context, const char *name, const void *content, size_t bytes);

/* Hands every notification that this engine has received and no call has taken to `sink`, on the calling thread, in order of
 * arrival: those of flagcxP2pEngineSendNotif with 256 bytes of content, those of flagcxP2pEngineSendNotifBytes with what
 * was sent. Safe from several threads: each notification goes to one of them.
 *
 * flagcxP2pEngineGetNotifs takes those of flagcxP2pEngineSendNotif, of all engines. Those of flagcxP2pEngineSendNotifBytes
 * wait beside them, up to four times FLAGCX_P2P_NOTIF_MAX_BYTES and FLAGCX_P2P_NOTIF_QUEUE messages; beyond that the peer's
 * sends wait. In a program that has called flagcxP2pEngineGetNotifs, and never this function for the engine, the oldest of
 * them are dropped instead, with a warning, so that they hold nothing else back. What waits when the engine is destroyed is
 * freed, except for what flagcxP2pEngineGetNotifs takes. */
int flagcxP2pEngineGetNotifsOf(FlagcxP2pEngine *engine, FlagcxP2pNotifSink sink, void *context);

/* flagcxP2pEngineGetNotifsOf for languages in which a callback may be interrupted: all of them as one block of `*bytes`
 * bytes, which the caller ends with free(). Each is 256 bytes of name, the length of its content as a uint64_t of the host's
 * byte order, and the content; the next one follows without a gap. None: `*block` is NULL and `*bytes` 0. */
int flagcxP2pEngineTakeNotifs(FlagcxP2pEngine *engine, void **block, size_t *bytes);

/* A transfer that has not ended. */
typedef struct FlagcxP2pSlowTransfer {
  uint32_t size;       /* in, of the first element: sizeof; out: bytes filled */
  uint32_t isRead;     /* 1: READ, 0: WRITE */
  uint64_t transferId; /* its id, as the call that started it answered; 0 while that call has not returned */
  uint64_t bytes;      /* of its parts that have not ended; a part is what one lane moves */
  uint64_t ageMs;      /* how long it has been unfinished, in milliseconds, exact to some of them */
  uint64_t pieces;     /* work requests of these parts */
  uint64_t piecesDone; /* how many of these are done */
  uint32_t lanes;      /* the lanes with these parts: bit n is lane n of the connection, 8 to a rail */
  uint32_t moreLanes;  /* those beyond: bit n is lane 32 + n */
  char path[16];       /* "rdma", "tcp", "cross-memory", "shared", "in-process", "gpu"; "none": no lane has it yet */
  char peer[64];       /* control address of the peer, "ip:port" */
} FlagcxP2pSlowTransfer;

/* Finds what is stuck: the transfers of the engine that have not ended for at least `olderThanMs` milliseconds (0: all that have
 * not ended), the oldest first. Writes at most `capacity` of them to `out`, an array of which `out[0].size` tells the size of
 * each element, and to `count` how many there are, which may be more. `capacity` 0: `out` may be NULL. Transfers that end in the
 * call which starts them, and those that wait in a submission queue, are not among them. Helps nothing along, and releases
 * no id. */
int flagcxP2pEngineGetSlowTransfers(FlagcxP2pEngine *engine, uint32_t olderThanMs, FlagcxP2pSlowTransfer *out,
                                    size_t capacity, size_t *count);

/* Writes the metrics of the process in the Prometheus text format, NUL-terminated, to `text` when `capacity` bytes
 * suffice, and the bytes that it takes, with the NUL, to `needed`. 1: too small, nothing written. */
int flagcxP2pMetricsText(char *text, size_t capacity, size_t *needed);

/* ---------------------------------------------------------------------------------------------------------------- */
/* flagcx_p2p.h in C form                                                                                           */

/* flagcxP2pEngineX of flagcx_p2p.h is flagcxP2pCEngineX here, and does the same. Vectors are arrays of `count` elements,
 * references are pointers. A refusal that both share names the C++ function in flagcxP2pEngineLastError.
 *
 * What has no function of this kind:
 *   flagcxP2pEngineReg                 flagcxP2pEngineRegFlags with flags 0
 *   flagcxP2pEngineConnIsLocal         `local` of flagcxP2pEngineGetConnInfo
 *   flagcxP2pEngineGetNotifs           flagcxP2pEngineGetNotifsOf or flagcxP2pEngineTakeNotifs, for each engine
 *   flagcxP2pSerializeRdmaDesc         memcpy: the struct is the serialized form
 *   flagcxP2pGlobalConfig              flagcxP2pCDumpGlobalConfig logs the settings
 *   flagcxP2pEngineStartListener       not needed: it does nothing
 *   Send, SendVector, Recv             not offered: they always refuse
 *   flagcxP2pRpc...                    functions of C linkage in flagcx_p2p.h with void pointers, for ctypes
 *
 * Handles of FlagCX's ACCL transport are taken too, except by the three calls with arrays. */

/* Creates an engine. Of several NICs it uses the nearest to the GPU of the GPU memory that is registered first; if host
 * memory or a peer comes before, to the current GPU, which the log then names. Without a NIC it uses the software fabric.
 * NULL if the fabric that was asked for cannot be loaded or a setting is invalid. Takes milliseconds. The caller owns
 * it: flagcxP2pCEngineDestroy. */
FlagcxP2pEngine *flagcxP2pCEngineCreate(void);

/* Ends an engine, its transfers and its registrations: when it returns nothing touches their memory any more. Connections
 * of flagcxP2pCEngineGetConn and of the RPC server end with it. Those of Connect and Accept are closed, and are still to be
 * given to flagcxP2pCEngineConnDestroy, before or after. NULL does nothing. */
void flagcxP2pCEngineDestroy(FlagcxP2pEngine *engine);

/* The TCP port that peers connect to, or -1. */
int flagcxP2pCEngineGetRpcPort(FlagcxP2pEngine *engine);

/* Writes how to reach this engine, "ip:port?gpu?notificationPort" with a NUL and an IPv6 address in brackets, to `text` when
 * `capacity` bytes suffice, and the bytes that it takes, with the NUL, to `needed`. 1: too small, nothing written to `text`,
 * which may be NULL if `capacity` is 0. */
int flagcxP2pCEngineGetMetadata(FlagcxP2pEngine *engine, char *text, size_t capacity, size_t *needed);

/* Starts a thread that accepts peers and keeps their connections until the engine ends: peers may then read and write
 * this engine's regions without further calls here. A second call does nothing. */
int flagcxP2pCEngineStartRpcServer(FlagcxP2pEngine *engine);

/* Ends accepting for good: a blocked flagcxP2pCEngineAccept answers NULL, and so do later ones; the RPC server ends.
 * Connections go on. Repeats and NULL do nothing. */
void flagcxP2pCEngineStopAccept(FlagcxP2pEngine *engine);

/* Connects to the engine with the RPC port `remotePort`, 1 to 65535, at `ipAddr`: an IPv4 or IPv6 address or a name.
 * `remoteGpuIdx` counts only if the peer reports none. `sameProcess`: the peer is an engine of this process. NULL, with the
 * reason, after FLAGCX_P2P_CONNECT_TIMEOUT_MS and FLAGCX_P2P_HANDSHAKE_TIMEOUT_MS at the latest. The caller owns the
 * connection: flagcxP2pCEngineConnDestroy. */
FlagcxP2pConn *flagcxP2pCEngineConnect(FlagcxP2pEngine *engine, const char *ipAddr, int remoteGpuIdx, int remotePort,
                                       bool sameProcess);

/* Waits for one peer to connect. `ipAddrBuf` gets its numeric address with a NUL, cut to `ipAddrBufLen` bytes, and
 * `*remoteGpuIdx` its GPU index. NULL, with neither written, when the handshake with a peer failed (call again) or accepting
 * has been stopped. The caller owns the connection. */
FlagcxP2pConn *flagcxP2pCEngineAccept(FlagcxP2pEngine *engine, char *ipAddrBuf, size_t ipAddrBufLen,
                                      int *remoteGpuIdx);

/* The engine's own connection to `session`, "host:port" or "[v6]:port". The first call with this string connects, as
 * flagcxP2pCEngineConnect does; later ones answer the same connection while it works. The engine owns it. */
FlagcxP2pConn *flagcxP2pCEngineGetConn(FlagcxP2pEngine *engine, const char *session);

/* Closes a connection of Connect or Accept. Its transfers end first: when it returns nothing touches their memory any more.
 * A connection that the engine owns is left alone, with a warning. NULL does nothing. */
void flagcxP2pCEngineConnDestroy(FlagcxP2pConn *conn);

/* Ends a registration, of which the same range may have several. Waits for local transfers in flight on it, at most for
 * their deadline. An id that is not one of this engine's does nothing but a line in the log. */
void flagcxP2pCEngineMrDestroy(FlagcxP2pEngine *engine, uint64_t mrId);

/* Writes a descriptor of `bytes` bytes at `data`, inside region `mrId`, for a peer to use. -1 for a range that is not
 * inside, or longer than 4 GiB - 1. `bytes` may be 0. */
int flagcxP2pCEnginePrepareDesc(FlagcxP2pEngine *engine, uint64_t mrId, const void *data, size_t bytes,
                                FlagcxP2pRdmaDesc *desc);

/* Makes a descriptor of `bytes` bytes at the peer's address `remoteAddress` from the regions that the peer announces. -1 when
 * none of them holds the whole range; a peer that runs this engine is asked first for regions registered since, for a second
 * at most. */
int flagcxP2pCEngineMakeDesc(FlagcxP2pConn *conn, uint64_t remoteAddress, uint32_t bytes, FlagcxP2pRdmaDesc *desc);

/* Narrows `desc` to a range inside the one that it names. -1, and `desc` is left as it is, for a range that is not. */
int flagcxP2pCEngineUpdateDesc(FlagcxP2pRdmaDesc *desc, uint64_t remoteAddress, uint32_t bytes);

/* Start a transfer of `bytes` bytes, of any number, between local memory and the start of `desc`, and write its id to
 * `*transferId`. -1, with nothing moved, when a range is outside its region or its descriptor. They wait for a place, at most
 * for FLAGCX_P2P_XFER_TIMEOUT_MS; FLAGCX_P2P_MAX_TRANSFERS is their number. Until the transfer has ended the local
 * memory must not be touched and must stay registered. Transfers, and the pieces of one, are in no order. The local region is
 * found by the address: `mrId` is not looked at, and may be 0. */
int flagcxP2pCEngineRead(FlagcxP2pConn *conn, uint64_t mrId, void *data, size_t bytes, const FlagcxP2pRdmaDesc *desc,
                         uint64_t *transferId);
int flagcxP2pCEngineWrite(FlagcxP2pConn *conn, uint64_t mrId, const void *data, size_t bytes,
                          const FlagcxP2pRdmaDesc *desc, uint64_t *transferId);

/* Start one transfer of `count` pieces, 1 to INT32_MAX: `sizes[i]` bytes between the local address i, inside region
 * `mrIds[i]`, and the start of `descs[i]`. `ipcBufs`: NULL, or for each piece the information of flagcxP2pCEngineGetIpcInfo,
 * for GPU memory of a peer on this host. Otherwise as above. The arrays may be reused when the call returns. */
int flagcxP2pCEngineReadVector(FlagcxP2pConn *conn, const uint64_t *mrIds, void *const *destinations,
                               const size_t *sizes, const FlagcxP2pRdmaDesc *descs, size_t count,
                               uint64_t *transferId, char *const *ipcBufs);
int flagcxP2pCEngineWriteVector(FlagcxP2pConn *conn, const uint64_t *mrIds, void *const *sources, const size_t *sizes,
                                const FlagcxP2pRdmaDesc *descs, size_t count, uint64_t *transferId,
                                char *const *ipcBufs);

/* Writes `count` pieces and waits: 0 when all bytes are in the peer's memory, -1 when it was refused or anything failed, at
 * the transfer deadline at the latest. `count` 0: 0. */
int flagcxP2pCEngineWriteVectorSync(FlagcxP2pConn *conn, const uint64_t *mrIds, void *const *sources,
                                    const size_t *sizes, const FlagcxP2pRdmaDesc *descs, size_t count);

/* Whether a transfer has ended. Not how: one that failed reads false for FLAGCX_P2P_FAILED_HOLD_MS and then true.
 * flagcxP2pEngineXferResult and flagcxP2pEngineXferWait are the calls to use in new programs. */
bool flagcxP2pCEngineXferStatus(FlagcxP2pConn *conn, uint64_t transferId);

/* Sends a notification of fixed size and answers the bytes handed over, 512, or -1. Not ordered with transfers: notify about
 * one only after it has ended. Not acknowledged. Peers of this kind get it by flagcxP2pEngineGetNotifs,
 * flagcxP2pEngineGetNotifsOf and flagcxP2pEngineTakeNotifs. */
int flagcxP2pCEngineSendNotif(FlagcxP2pConn *conn, const FlagcxP2pNotifyMsg *notifyMsg);

/* Fills the FLAGCX_P2P_IPC_INFO_SIZE bytes at `ipcBuf` with what another process of this host needs to open the GPU memory
 * at `address`, and sets `*hasIpc`. Host memory: 0 with `*hasIpc` false. Memory in no region: -1. `engine` may be NULL. */
int flagcxP2pCEngineGetIpcInfo(FlagcxP2pEngine *engine, uint64_t address, char *ipcBuf, bool *hasIpc);

/* Narrows the information in `ipcBuf`, made for `baseAddr`, to `bytes` bytes at `addr`. -1 when `addr` is below. */
int flagcxP2pCEngineUpdateIpcInfo(char *ipcBuf, uint64_t addr, uint64_t baseAddr, size_t bytes);

/* Logs the settings in force at level INFO. docs/configuration.md explains them. */
void flagcxP2pCDumpGlobalConfig(void);

#ifdef __cplusplus
}
#endif
#include "flagcx_p2p_rails.h" /* flagcxP2pEngineGetRails */
#endif                        /* FLAGCX_P2P_EXT_H_ */
