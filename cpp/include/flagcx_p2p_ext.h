/* SPDX-License-Identifier: Apache-2.0
 *
 * What flagcx_p2p.h cannot say: how a transfer ended, why a call was refused, how a connection fares. Plain C types
 * throughout, so that C, ctypes and other languages can use it; handles and ids are those of flagcx_p2p.h.
 *
 * Answers: 0, or -1 for a refused call (flagcxP2pEngineLastError tells why), or a positive code where a function
 * names one. Structs begin with `size`: set it to sizeof the struct before the call. An older program passes a
 * smaller size and gets that many bytes; a newer one finds in `size` how many bytes were filled. Handles that FlagCX's
 * ACCL transport has made are refused, except by flagcxP2pEngineRegFlags without FLAGCX_P2P_REG_UNANNOUNCED and
 * FLAGCX_P2P_REG_READ_ONLY.
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
#endif

typedef struct FlagcxP2pEngine FlagcxP2pEngine;
typedef struct FlagcxP2pConn FlagcxP2pConn;
/* 64 bytes, as flagcxP2pEnginePrepareDesc writes them. */
struct FlagcxP2pRdmaDesc;

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
  uint64_t iov;         /* FAILED: index of the first piece known to have failed */
  uint32_t status;      /* FAILED: completion status, numbered as enum ibv_wc_status */
  uint32_t vendorError; /* FAILED: the vendor's own code, 0 if none */
  char peer[64];        /* FAILED: control address of the peer, "ip:port" */
  char reason[168];     /* FAILED: what happened, in words, cut to fit */
} FlagcxP2pXferResult;

/* Tells how a transfer stands and helps it along. As with flagcxP2pEngineXferStatus, the first answer other than
 * PENDING releases the id; the outcome stays readable for the engine's last 4,096 transfers. Id 0 is DONE.
 *
 * Of a transfer that failed or timed out, this and the other calls that tell how transfers ended let
 * flagcxP2pEngineXferStatus read true at once, which otherwise reads false for FLAGCX_P2P_FAILED_HOLD_MS, and refuses the
 * notification that follows. When 1,048,576 failed transfers of a connection are within that time, it starts no others. */
int flagcxP2pEngineXferResult(FlagcxP2pConn *conn, uint64_t transferId, FlagcxP2pXferResult *out);

/* Waits until a transfer has ended, for at most `timeoutMs` milliseconds (negative: without limit, but transfers end
 * at their deadline). 0: it has, see `out` (which may be NULL); 1: still pending. */
int flagcxP2pEngineXferWait(FlagcxP2pConn *conn, uint64_t transferId, int timeoutMs, FlagcxP2pXferResult *out);

/* Ends a transfer early. 0: it has ended, as CANCELLED unless it was over before, and nothing touches its memory. One that
 * had failed is not held any longer: flagcxP2pEngineXferStatus reads true. */
int flagcxP2pEngineXferCancel(FlagcxP2pConn *conn, uint64_t transferId);

/* Asks about `count` transfers in one pass: writes a FlagcxP2pXferState for each to `states`, and how many are not
 * PENDING to `ended`. Releases ids as flagcxP2pEngineXferResult does. `count` 0: 0 with `*ended` 0. */
int flagcxP2pEngineTestBatch(FlagcxP2pConn *conn, const uint64_t *transferIds, size_t count, uint32_t *states,
                             size_t *ended);

/* Transfers that one engine may have at a time. One counts from the call that starts it until its end has been asked for:
 * the first answer of flagcxP2pEngineXferStatus, XferResult, XferWait or TestBatch that says that it is over gives its
 * place back. Beyond this many the calls of flagcx_p2p.h that start transfers sleep until a place is free, at most for
 * FLAGCX_P2P_XFER_TIMEOUT_MS, and are then refused with this reason; those below answer FLAGCX_P2P_WOULD_BLOCK. A
 * program whose only thread starts more without asking waits in vain. 64 of the places for each worker are only taken by
 * transfers of one piece. */
#define FLAGCX_P2P_MAX_TRANSFERS 1048512

/* The answer of the calls below when the submission queue is full or FLAGCX_P2P_MAX_TRANSFERS is reached: try again after
 * some transfer has ended and has been asked about. */
#define FLAGCX_P2P_WOULD_BLOCK 1

/* flagcxP2pEngineReadVector and flagcxP2pEngineWriteVector that never wait. `count` of at least 1 pieces: region,
 * local address, bytes, and the peer's range of each. As there, a piece may have 4 GiB and more. Of a list that mixes GPU
 * memory and host memory, between two ends of one process, the pieces of host memory are moved before the call returns. */
int flagcxP2pEngineTryReadVector(FlagcxP2pConn *conn, const uint64_t *mrIds, void *const *destinations,
                                 const size_t *sizes, const struct FlagcxP2pRdmaDesc *descs, size_t count,
                                 uint64_t *transferId);
int flagcxP2pEngineTryWriteVector(FlagcxP2pConn *conn, const uint64_t *mrIds, void *const *sources,
                                  const size_t *sizes, const struct FlagcxP2pRdmaDesc *descs, size_t count,
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
  FLAGCX_P2P_PATH_TCP = 4           /* a TCP stream */
};

typedef struct FlagcxP2pConnInfo {
  uint32_t size;         /* in: sizeof; out: bytes filled */
  uint32_t path;         /* a FlagcxP2pPath, now: the slower one where READs and WRITEs differ */
  uint32_t lanes;        /* queue pairs agreed with the peer */
  uint32_t healthyLanes; /* of these, in working order now */
  int32_t gpuIndex;      /* the peer's GPU index */
  uint8_t local;         /* 1: the peer is on this host */
  uint8_t ours;          /* 1: the peer runs this engine, 0: the original one */
  uint8_t readPath;      /* a FlagcxP2pPath: that of READs. It differs from the other, or changes, */
  uint8_t writePath;     /* where a sandbox denies one of the copies between two processes */
  char peer[64];         /* control address of the peer, "ip:port" */
} FlagcxP2pConnInfo;

/* Tells how a connection fares. */
int flagcxP2pEngineGetConnInfo(FlagcxP2pConn *conn, FlagcxP2pConnInfo *out);

/* ---------------------------------------------------------------------------------------------------------------- */
/* Memory                                                                                                           */

/* For flagcxP2pEngineRegFlags. Neither HOST nor DEVICE: the device runtime is asked. */
#define FLAGCX_P2P_REG_HOST 1u          /* host memory */
#define FLAGCX_P2P_REG_DEVICE 2u        /* device memory */
#define FLAGCX_P2P_REG_UNANNOUNCED 256u /* peers are not told of it: only a descriptor opens it */
#define FLAGCX_P2P_REG_READ_ONLY \
  512u /* peers may READ it, and WRITEs may take their bytes from it; nothing changes it */

/* flagcxP2pEngineReg with a word on the kind of memory, on who may find it, and on what it may be used for.
 *
 * -1, with EFAULT, the offset of the first such byte and the reason in flagcxP2pEngineLastError, for memory of the host
 * that cannot be accessed: not mapped, without PROT_READ, beyond the end of its file. Memory that is not writable, or of
 * which a page is not, is registered as with READ_ONLY whatever the flags say. To such a region a peer's WRITE ends as
 * FAILED with status 10, a remote access error (or is refused at once by a peer that has been told of it), and a READ of
 * this engine into it is refused.
 *
 * The same range again answers the same id and counts one more owner; not if it was registered with READ_ONLY and is
 * now asked for without, or the other way round: -1, unless the memory is not writable anyway. */
int flagcxP2pEngineRegFlags(FlagcxP2pEngine *engine, uint64_t address, size_t bytes, uint32_t flags, uint64_t *mrId);

/* ---------------------------------------------------------------------------------------------------------------- */
/* GPU memory                                                                                                       */

/* What the engine asks of a GPU runtime, for programs that are not FlagCX and whose GPU is not driven by CUDA. Any
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
  int (*ipcMemHandleGet)(void *handle, void *devPtr);     /* 0: `devPtr` is device memory */
  int (*ipcMemHandleOpen)(void *handle, void **devPtr);
  int (*ipcMemHandleClose)(void *devPtr);
  int (*ipcMemHandleFree)(void *handle);
  int (*getDevicePciBusId)(char *busId, int length, int dev);
  int (*getDeviceByPciBusId)(int *dev, const char *busId);
  int (*getLastError)(void); /* clears what a failed probe left behind */
  /* Has fn(args) called once everything on the stream before it is done. Without it the engine asks again and again. */
  int (*launchHostFunc)(void *stream, void (*fn)(void *), void *args);
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

/* Takes one notification: 256 bytes of name, not necessarily NUL-terminated, and its content. Both are gone when it
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

/* Writes the metrics of the process in the Prometheus text format, NUL-terminated, to `text` when `capacity` bytes
 * suffice, and the bytes that it takes, with the NUL, to `needed`. 1: too small, nothing written. */
int flagcxP2pMetricsText(char *text, size_t capacity, size_t *needed);

#ifdef __cplusplus
}
#endif

#endif /* FLAGCX_P2P_EXT_H_ */
