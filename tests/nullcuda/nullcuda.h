// SPDX-License-Identifier: Apache-2.0
//
// A stand-in for the CUDA driver's library: GPUs simulated by host memory. README.md lists what it is strict about.
#ifndef NULLCUDA_H
#define NULLCUDA_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

// CUresult, as far as it is used.
enum {
  OK = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  INVALID_DEVICE = 101,
  INVALID_CONTEXT = 201,
  INVALID_HANDLE = 400,
  NOT_READY = 600,
};

enum { DEVICES = 2 };

typedef uint64_t Pointer;

// What cuMemCreate makes comes in multiples of this; of 2 MiB on GPUs.
enum { GRANULARITY = 64 << 10 };

// CUmemLocation, CUmemAllocationProp and CUmemAccessDesc.
typedef struct {
  int type, id;
} Location;
typedef struct {
  int type, requestedHandleTypes;
  Location location;
  void *windows;
  char flags[8];
} AllocationProperties;
typedef struct {
  Location location;
  int flags;
} AccessDescription;

typedef struct Pool Pool;

// Calls so far, each kind by itself. For tests.
struct nullcuda_calls {
  uint64_t copies, copied_bytes, events_recorded, host_calls, streams, contexts_set;
};
extern struct nullcuda_calls nullcuda_counted;

typedef struct Context {
  int device;
  bool alive;
} Context;

// Ends the process where the driver would access memory that it has freed, or a GPU would fault.
void require(bool holds, const char *call, const char *problem);

// Guards all that the files share.
extern pthread_mutex_t nullcuda_mutex;

// NOT_INITIALIZED, INVALID_CONTEXT where the calling thread has no context that is alive, or OK. What the driver does not
// do without a context begins with this.
int need_context(void);
bool is_initialised(void);
Context *current_context(void);

// Where the CPU finds `length` bytes of the device's or the host's memory; NULL if they are not inside one allocation.
// Under the mutex.
void *behind(Pointer address, size_t length);
// Ends the process if the device of the current context may not access the range. Under the mutex.
void check_access(Pointer address, size_t length);
// Copies at once. Under the mutex.
int copy_now(Pointer to, Pointer from, size_t length);
// Frees what was allocated in the context. Under the mutex.
void free_memory_of(const Context *context);
// Whether addresses of cuMemAddressReserve hold this one. Under the mutex.
bool is_reserved(Pointer address);
// Where the CPU finds memory of cuMemCreate for a copy of this device, or of any by -1; NULL if a byte of it is not mapped. Under the mutex.
void *behind_mappings(Pointer address, size_t length, int device);
// The mapping that holds an address, and of its allocation the device, whether it may be exported, and the file. Under the mutex.
bool find_mapping(Pointer address, Pointer *start, size_t *length, int *device, bool *exportable, int *fd);
// Memory that is part of a pool's file. Under the mutex.
int allocate_of_pool(Pointer *address, size_t length, Pool *pool, int fd, long offset, int device);
// Where the allocation of a pool that starts at an address is in the pool's file. Under the mutex.
bool find_of_pool(Pointer address, uint64_t *offset, uint64_t *length);
// Performs the pending copies of every stream. Under the mutex.
void finish_streams(void);

#endif
