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

enum Kind { FREE, DEVICE, PINNED, MANAGED, OPENED, OF_POOL };

typedef struct {
  enum Kind kind;
  Pointer start;
  size_t length;
  // Where the CPU reaches it.
  char *cpu;
  int fd, device;
  // In which it was allocated; NULL of kind OF_POOL.
  Context *context;
  // Of kind OF_POOL, and where it is in the pool's file.
  Pool *pool;
  long offset;
} Allocation;

enum { MOST = 4096 };
static Allocation allocations[MOST];
static uint64_t synchronous, exported;

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
  if (is_reserved(address))
    return behind_mappings(address, length == 0 ? 1 : length, -1);
  // Part of an allocation, or of none: the latter is any memory of the host.
  return holding(address, 1) != NULL ? NULL : (void *)address; // NOLINT
}

void check_access(Pointer address, size_t length) {
  if (is_reserved(address))
    behind_mappings(address, length, current_context()->device);
}

int copy_now(Pointer to, Pointer from, size_t length) {
  void *target = behind(to, length), *source = behind(from, length);
  if (target == NULL || source == NULL)
    return INVALID_VALUE;
  memmove(target, source, length);
  return OK;
}

static void *map(size_t length, int protection, int flags, int fd, long offset) {
  void *start = mmap(NULL, length, protection, flags | MAP_NORESERVE, fd, offset);
  return start == MAP_FAILED ? NULL : start;
}

// Acquires an entry for memory of this kind. Under the mutex.
static int allocate_at(Pointer *address, size_t length, enum Kind kind, int fd, long offset, int device) {
  Allocation *place = allocations;
  while (place < allocations + MOST && place->kind != FREE) ++place;
  if (place == allocations + MOST)
    return OUT_OF_MEMORY;
  const bool on_gpu = kind == DEVICE || kind == OPENED || kind == OF_POOL;
  char *cpu = fd >= 0 ? map(length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset)
                      : map(length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  char *shown = on_gpu ? map(length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : cpu;
  if (cpu == NULL || shown == NULL)
    return OUT_OF_MEMORY;
  *place = (Allocation){kind, (Pointer)shown, length, cpu, fd, device, current_context(), NULL, offset};
  *address = (Pointer)shown;
  return OK;
}

static int allocate(Pointer *address, size_t length, enum Kind kind, int fd, int device) {
  return allocate_at(address, length, kind, fd, 0, device);
}

// The file stays the pool's.
int allocate_of_pool(Pointer *address, size_t length, Pool *pool, int fd, long offset, int device) {
  const int code = allocate_at(address, length, OF_POOL, fd, offset, device);
  if (code == OK) {
    Allocation *a = starting_at(*address, OF_POOL);
    a->pool = pool;
    a->context = NULL;
    a->fd = -1;
  }
  return code;
}

bool find_of_pool(Pointer address, uint64_t *offset, uint64_t *length) {
  const Allocation *a = starting_at(address, OF_POOL);
  if (a == NULL)
    return false;
  *offset = (uint64_t)a->offset;
  *length = a->length;
  return true;
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

static bool is_of_pool(Pointer address) {
  pthread_mutex_lock(&nullcuda_mutex);
  const bool is = starting_at(address, OF_POOL) != NULL;
  pthread_mutex_unlock(&nullcuda_mutex);
  return is;
}

EXPORT int cuMemAlloc_v2(Pointer *address, size_t length) {
  return make(address, length, DEVICE);
}
EXPORT int cuMemFree_v2(Pointer address) {
  const bool of_pool = is_of_pool(address);
  return release(address, of_pool ? OF_POOL : DEVICE, MANAGED);
}
EXPORT int cuMemFreeAsync(Pointer address, void *stream) {
  (void)stream;
  return cuMemFree_v2(address);
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

// Everything that is asked about an address.
typedef struct {
  Pointer start;
  size_t length;
  int device;
  enum Kind kind;
  bool mapped, exportable;
  Pool *pool;
  Context *context;
  int fd;
} Known;

static bool know(Pointer address, Known *known) {
  const Allocation *a = holding(address, 1);
  memset(known, 0, sizeof(*known));
  if (a != NULL) {
    *known = (Known){a->start, a->length, a->device, a->kind, false, false, a->pool, a->context, a->fd};
    return true;
  }
  known->kind = DEVICE;
  known->mapped =
      find_mapping(address, &known->start, &known->length, &known->device, &known->exportable, &known->fd);
  return known->mapped;
}

EXPORT int cuPointerGetAttribute(void *value, int attribute, Pointer address) {
  if (!is_initialised())
    return NOT_INITIALIZED;
  pthread_mutex_lock(&nullcuda_mutex);
  Known known;
  int code = know(address, &known) ? OK : INVALID_VALUE;
  if (code == OK) {
    if (attribute == 1)
      *(Context **)value = known.context;
    else if (attribute == 2)
      *(unsigned *)value = known.kind == PINNED ? 1 : 2;
    else if (attribute == 8)
      *(char *)value = known.kind == MANAGED;
    else if (attribute == 9)
      *(int *)value = known.device;
    else if (attribute == 10)
      *(char *)value = known.kind == DEVICE && !known.mapped;
    else if (attribute == 14)
      *(unsigned *)value = known.exportable;
    else if (attribute == 17)
      *(Pool **)value = known.pool;
    else if (attribute == 18)
      *(size_t *)value = known.length;
    else if (attribute == 19)
      *(Pointer *)value = known.start;
    else
      code = INVALID_VALUE;
  }
  pthread_mutex_unlock(&nullcuda_mutex);
  return code;
}

// Whether the current context is one in which the memory is looked up: of the device that has it, or of the one for which it was
// opened.
static bool is_here(const Known *known) {
  const int device = known->kind == OPENED ? known->context->device : known->device;
  return device == current_context()->device;
}

EXPORT int cuPointerSetAttribute(const void *value, int attribute, Pointer address) {
  int code = need_context();
  if (code != OK)
    return code;
  if (attribute != 6 || *(const unsigned *)value != 1)
    return INVALID_VALUE;
  pthread_mutex_lock(&nullcuda_mutex);
  Known known;
  const bool on_gpu = know(address, &known) && known.kind != PINNED && known.kind != MANAGED;
  code = on_gpu && is_here(&known) ? OK : INVALID_VALUE;
  synchronous += code == OK;
  pthread_mutex_unlock(&nullcuda_mutex);
  return code;
}

// How often copies of an allocation were made synchronous. For tests.
EXPORT uint64_t nullcuda_synchronous(void) {
  pthread_mutex_lock(&nullcuda_mutex);
  const uint64_t count = synchronous;
  pthread_mutex_unlock(&nullcuda_mutex);
  return count;
}

// The dma-buf is the memfd of the allocation, opened anew, and begins at its file position: nullverbs maps it from there. As the
// driver, it refuses ranges that are not whole pages of the host, or that reach into another allocation.
EXPORT int cuMemGetHandleForAddressRange(int *handle, Pointer address, size_t length, int type,
                                         unsigned long long flags) {
  int code = need_context();
  if (code != OK)
    return code;
  if (type != 1 || flags != 0 || address % 4096 != 0 || length == 0 || length % 4096 != 0)
    return INVALID_VALUE;
  pthread_mutex_lock(&nullcuda_mutex);
  Known known;
  code = INVALID_VALUE;
  if (know(address, &known) && known.kind == DEVICE && is_here(&known) &&
      length <= ((known.length + 4095) & ~(size_t)4095) - (address - known.start)) {
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", known.fd);
    *handle = open(path, O_RDWR | O_CLOEXEC);
    code = *handle < 0 || lseek(*handle, (off_t)(address - known.start), SEEK_SET) < 0 ? OUT_OF_MEMORY : OK;
    exported += code == OK;
  }
  pthread_mutex_unlock(&nullcuda_mutex);
  return code;
}

// How often a range was exported. For tests.
EXPORT uint64_t nullcuda_exported(void) {
  pthread_mutex_lock(&nullcuda_mutex);
  const uint64_t count = exported;
  pthread_mutex_unlock(&nullcuda_mutex);
  return count;
}

EXPORT int cuMemGetAddressRange_v2(Pointer *start, size_t *length, Pointer address) {
  const int code = need_context();
  if (code != OK)
    return code;
  pthread_mutex_lock(&nullcuda_mutex);
  Known known;
  const bool found = know(address, &known) && is_here(&known);
  if (found) {
    *start = known.start;
    *length = known.length;
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
  const bool found = a != NULL && a->device == current_context()->device;
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
