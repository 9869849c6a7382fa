/* SPDX-License-Identifier: Apache-2.0
 *
 * The rails of a connection. A part of flagcx_p2p_ext.h, which includes it: what is said there of structs, answers and
 * threads holds here. */
#ifndef FLAGCX_P2P_RAILS_H_
#define FLAGCX_P2P_RAILS_H_

#include "flagcx_p2p_ext.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rails that a connection has at most. */
#define FLAGCX_P2P_MAX_RAILS 8

enum FlagcxP2pRailState {
  FLAGCX_P2P_RAIL_UP = 0,     /* transfers go over it */
  FLAGCX_P2P_RAIL_PAUSED = 1, /* none do for `pausedMs`; then it is tried again */
  FLAGCX_P2P_RAIL_DOWN = 2    /* none do until its port is up or its lanes are rebuilt; or its device is lost */
};

/* Why a rail was paused or went down. */
enum FlagcxP2pRailPause {
  FLAGCX_P2P_RAIL_NEVER_PAUSED = 0,
  FLAGCX_P2P_RAIL_SILENT = 1,     /* it completed nothing and did not answer a probe */
  FLAGCX_P2P_RAIL_ERRORS = 2,     /* too many of its requests failed */
  FLAGCX_P2P_RAIL_PORT_DOWN = 3,  /* the port at one of its ends went down */
  FLAGCX_P2P_RAIL_DEVICE_LOST = 4 /* the device at one of its ends is lost */
};

/* A rail: a NIC of this host, a NIC of the peer, and the lanes between them. Counts are those since it was made. */
typedef struct FlagcxP2pRailInfo {
  uint32_t size;           /* in, of the first element: sizeof; out: bytes filled */
  uint32_t rail;           /* its number in the connection; 0 is the one that the connection was made with */
  uint32_t state;          /* a FlagcxP2pRailState, now */
  uint32_t pausedMs;       /* PAUSED: milliseconds until it is tried again, at least; else 0 */
  uint32_t lanes;          /* queue pairs that it has */
  uint32_t healthyLanes;   /* of these, in working order now */
  uint32_t lastPause;      /* a FlagcxP2pRailPause */
  uint32_t reserved;       /* 0 */
  uint64_t lastPauseMs;    /* how many milliseconds ago that was; 0 if it never was */
  uint64_t pauses;         /* how often it was paused or went down */
  uint64_t writtenBytes;   /* of parts of WRITEs that ended on it as done */
  uint64_t readBytes;      /* of parts of READs that ended on it as done */
  uint64_t inFlightBytes;  /* of parts on it that have not ended */
  uint64_t bytesPerSecond; /* that it was measured to carry while it was busy; 0: not measured, or not lately */
  uint64_t movedParts;     /* parts of transfers that were taken from it and posted on another rail */
  uint64_t latencyNs;      /* the shortest of its last answers to probes, in nanoseconds; 0: not probed */
  char nic[80];            /* NIC of this host: name and port, "mlx5_0:1"; cut to fit */
  char peerNic[80];        /* NIC of the peer, in the peer's words; "" if it has not told; cut to fit */
} FlagcxP2pRailInfo;

/* Tells the rails of a connection as they are now, by their numbers. Writes at most `capacity` of them to `out`, an array of
 * which `out[0].size` tells the size of each element, and to `count` how many there are: 1 to FLAGCX_P2P_MAX_RAILS, which may be
 * more than were written. `capacity` 0: `out` may be NULL. A peer that runs the original engine has one. Takes
 * microseconds, waits for no transfer, and helps none along. */
int flagcxP2pEngineGetRails(FlagcxP2pConn *conn, FlagcxP2pRailInfo *out, size_t capacity, size_t *count);

#ifdef __cplusplus
}
#endif

#endif /* FLAGCX_P2P_RAILS_H_ */
