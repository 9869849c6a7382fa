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

typedef struct Context {
  int device;
  bool alive;
} Context;

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
// Copies at once. Under the mutex.
int copy_now(Pointer to, Pointer from, size_t length);
// Frees what was allocated in the context. Under the mutex.
void free_memory_of(const Context *context);
// Performs the pending copies of every stream. Under the mutex.
void finish_streams(void);

#endif
