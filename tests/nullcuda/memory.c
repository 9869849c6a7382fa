// SPDX-License-Identifier: Apache-2.0
//
// Memory: GPU memory has addresses that the CPU cannot access; its bytes are in a memfd, which other processes
// open by its IPC handle.
#define _GNU_SOURCE
#include "nullcuda.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum Kind { FREE, DEVICE, PINNED, MANAGED, OPENED };

typedef struct {
  enum Kind kind;
  Pointer start;
  size_t length;
  // Where the CPU reaches it.
  char *cpu;
  int fd, device;
  // In which it was allocated.
  Context *context;
} Allocation;

enum { MOST = 4096 };
static Allocation allocations[MOST];

// The content of a handle of 64 bytes.
typedef struct {
  uint64_t magic;
  int pid, fd, device;
  uint64_t length;
} Named;
typedef struct {
  char bytes[64];
} IpcMemHandle;
static const uint64_t MAGIC = 0x6e756c6c63756461;

static Allocation *holding(Pointer address, size_t length) {
  for (Allocation *a = allocations; a < allocations + MOST; ++a)
    if (a->kind != FREE && address >= a->start && address - a->start < a->length &&
        length <= a->length - (address - a->start))
      return a;
  return NULL;
}

static Allocation *starting_at(Pointer address, enum Kind kind) {
  for (Allocation *a = allocations; a < allocations + MOST; ++a)
    if (a->kind == kind && a->start == address)
      return a;
  return NULL;
}

void *behind(Pointer address, size_t length) {
  const Allocation *a = holding(address, length == 0 ? 1 : length);
  if (a != NULL)
    return a->cpu + (address - a->start);
  // Part of an allocation, or of none: the latter is any memory of the host.
  return holding(address, 1) != NULL ? NULL : (void *)address; // NOLINT
}

int copy_now(Pointer to, Pointer from, size_t length) {
  void *target = behind(to, length), *source = behind(from, length);
  if (target == NULL || source == NULL)
    return INVALID_VALUE;
  memmove(target, source, length);
  return OK;
}

static void *map(size_t length, int protection, int flags, int fd) {
  void *start = mmap(NULL, length, protection, flags | MAP_NORESERVE, fd, 0);
  return start == MAP_FAILED ? NULL : start;
}

// Acquires an entry for memory of this kind. Under the mutex.
static int allocate(Pointer *address, size_t length, enum Kind kind, int fd, int device) {
  Allocation *place = allocations;
  while (place < allocations + MOST && place->kind != FREE) ++place;
  if (place == allocations + MOST)
    return OUT_OF_MEMORY;
  const bool on_gpu = kind == DEVICE || kind == OPENED;
  char *cpu = fd >= 0 ? map(length, PROT_READ | PROT_WRITE, MAP_SHARED, fd)
                      : map(length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  char *shown = on_gpu ? map(length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1) : cpu;
  if (cpu == NULL || shown == NULL)
    return OUT_OF_MEMORY;
  *place = (Allocation){kind, (Pointer)shown, length, cpu, fd, device, current_context()};
  *address = (Pointer)shown;
  return OK;
}

static int make(Pointer *address, size_t length, enum Kind kind) {
  const int code = need_context();
  if (code != OK)
    return code;
  if (length == 0)
    return INVALID_VALUE;
  int fd = -1;
  if (kind == DEVICE && ((fd = memfd_create("nullcuda", MFD_CLOEXEC)) < 0 || ftruncate(fd, (off_t)length) != 0))
    return OUT_OF_MEMORY;
  pthread_mutex_lock(&nullcuda_mutex);
  const int made = allocate(address, length, kind, fd, current_context()->device);
  pthread_mutex_unlock(&nullcuda_mutex);
  return made;
}

static void unmap(Allocation *a) {
  munmap(a->cpu, a->length);
  if (a->start != (Pointer)a->cpu)
    munmap((void *)a->start, a->length); // NOLINT
  if (a->fd >= 0)
    close(a->fd);
  a->kind = FREE;
}

void free_memory_of(const Context *context) {
  finish_streams();
  for (Allocation *a = allocations; a < allocations + MOST; ++a)
    if (a->kind != FREE && a->context == context)
      unmap(a);
}

// `other` may be the kind as well.
static int release(Pointer address, enum Kind kind, enum Kind other) {
  const int code = need_context();
  if (code != OK)
    return code;
  pthread_mutex_lock(&nullcuda_mutex);
  finish_streams();
  Allocation *a = starting_at(address, kind);
  if (a == NULL)
    a = starting_at(address, other);
  if (a != NULL)
    unmap(a);
  pthread_mutex_unlock(&nullcuda_mutex);
  return a != NULL ? OK : INVALID_VALUE;
}

EXPORT int cuMemAlloc_v2(Pointer *address, size_t length) {
  return make(address, length, DEVICE);
}
EXPORT int cuMemFree_v2(Pointer address) {
  return release(address, DEVICE, MANAGED);
}
EXPORT int cuMemAllocHost_v2(void **address, size_t length) {
  return make((Pointer *)address, length, PINNED);
}
EXPORT int cuMemFreeHost(void *address) {
  return release((Pointer)address, PINNED, PINNED);
}
EXPORT int cuMemAllocManaged(Pointer *address, size_t length, unsigned flags) {
  return flags == 1 ? make(address, length, MANAGED) : INVALID_VALUE;
}

EXPORT int cuPointerGetAttribute(void *value, int attribute, Pointer address) {
  if (!is_initialised())
    return NOT_INITIALIZED;
  pthread_mutex_lock(&nullcuda_mutex);
  const Allocation *a = holding(address, 1);
  int code = a == NULL ? INVALID_VALUE : OK;
  if (a != NULL) {
    if (attribute == 1)
      *(Context **)value = a->context;
    else if (attribute == 2)
      *(unsigned *)value = a->kind == PINNED ? 1 : 2;
    else if (attribute == 8)
      *(char *)value = a->kind == MANAGED;
    else if (attribute == 9)
      *(int *)value = a->device;
    else if (attribute == 10)
      *(char *)value = a->kind == DEVICE;
    else
      code = INVALID_VALUE;
  }
  pthread_mutex_unlock(&nullcuda_mutex);
  return code;
}

// Whether the current context is one of the device that has the memory.
static bool is_here(const Allocation *a) {
  return a != NULL && a->device == current_context()->device;
}

EXPORT int cuMemGetAddressRange_v2(Pointer *start, size_t *length, Pointer address) {
  const int code = need_context();
  if (code != OK)
    return code;
  pthread_mutex_lock(&nullcuda_mutex);
  const Allocation *a = holding(address, 1);
  const bool found = is_here(a);
  if (found) {
    *start = a->start;
    *length = a->length;
  }
  pthread_mutex_unlock(&nullcuda_mutex);
  return found ? OK : INVALID_VALUE;
}

EXPORT int cuIpcGetMemHandle(IpcMemHandle *handle, Pointer address) {
  const int code = need_context();
  if (code != OK)
    return code;
  pthread_mutex_lock(&nullcuda_mutex);
  const Allocation *a = starting_at(address, DEVICE);
  const bool found = is_here(a);
  if (found) {
    const Named named = {MAGIC, getpid(), a->fd, a->device, a->length};
    memset(handle, 0, sizeof(*handle));
    memcpy(handle, &named, sizeof(named));
  }
  pthread_mutex_unlock(&nullcuda_mutex);
  return found ? OK : INVALID_VALUE;
}

// Like the driver, it refuses handles of its own process, and of freed memory.
EXPORT int cuIpcOpenMemHandle_v2(Pointer *address, IpcMemHandle handle, unsigned flags) {
  int code = need_context();
  Named named;
  memcpy(&named, &handle, sizeof(named));
  if (code != OK)
    return code;
  if (named.magic != MAGIC || flags != 1)
    return INVALID_VALUE;
  if (named.pid == getpid())
    return INVALID_CONTEXT;
  char path[64];
  snprintf(path, sizeof(path), "/proc/%d/fd/%d", named.pid, named.fd);
  const int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0)
    return INVALID_VALUE;
  pthread_mutex_lock(&nullcuda_mutex);
  code = allocate(address, named.length, OPENED, fd, named.device);
  pthread_mutex_unlock(&nullcuda_mutex);
  return code;
}

EXPORT int cuIpcCloseMemHandle(Pointer address) {
  return release(address, OPENED, OPENED);
}
