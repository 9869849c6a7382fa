// SPDX-License-Identifier: Apache-2.0
//
// Pools: one memfd each, from which allocations are taken and to which none returns. Pools that were made for it are exported
// as a file, and an allocation of one by a name in it.
#define _GNU_SOURCE
#include "nullcuda.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// CUmemPoolProps, as far as it is read.
typedef struct {
  int type, handleTypes;
  Location location;
  char rest[72];
} PoolProperties;

struct Pool {
  int fd, device;
  bool exportable, imported, destroyed;
  size_t next;
  unsigned access;
};

// The name of an allocation, in the 64 bytes of CUmemPoolPtrExportData.
typedef struct {
  uint64_t magic;
  uint64_t offset, length;
} Named;
typedef struct {
  char bytes[64];
} PoolPointer;

static const uint64_t MAGIC = 0x6e756c6c706f6f6c;
static const char NAME[] = "nullcuda-pool";
enum { POOL_BYTES = 64 << 20 };

static Pool *usable(Pool *pool, const char *call) {
  require(pool != NULL && !pool->destroyed, call, "the pool is destroyed, or was never created");
  return pool;
}

static Pool *make(int fd, int device, bool exportable, bool imported) {
  Pool *pool = calloc(1, sizeof(Pool));
  *pool = (Pool){fd, device, exportable, imported, false, 0, 1u << device};
  return pool;
}

EXPORT int cuMemPoolCreate(Pool **pool, const PoolProperties *properties) {
  char name[64];
  if (!is_initialised())
    return NOT_INITIALIZED;
  snprintf(name, sizeof(name), "%s-%d", NAME, properties->location.id);
  const int fd = memfd_create(name, MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, POOL_BYTES) != 0)
    return OUT_OF_MEMORY;
  *pool = make(fd, properties->location.id, (properties->handleTypes & 1) != 0, false);
  return OK;
}

// The object stays, so that its further use is recognised.
EXPORT int cuMemPoolDestroy(Pool *pool) {
  usable(pool, __func__)->destroyed = true;
  close(pool->fd);
  return OK;
}

EXPORT int cuMemAllocFromPoolAsync(Pointer *address, size_t length, Pool *pool, void *stream) {
  (void)stream;
  const int code = need_context();
  if (code != OK)
    return code;
  pthread_mutex_lock(&nullcuda_mutex);
  const size_t offset = usable(pool, __func__)->next;
  int made = OUT_OF_MEMORY;
  if (!pool->imported && length != 0 && length <= POOL_BYTES - offset) {
    made = allocate_of_pool(address, length, pool, pool->fd, (long)offset, pool->device);
    // Whole pages, because each is mapped by itself.
    pool->next += (length + 4095) / 4096 * 4096;
  }
  pthread_mutex_unlock(&nullcuda_mutex);
  return made;
}

static int export_answer;

// What exports of pools answer that are possible. For tests.
EXPORT void nullcuda_answer_pool_exports(int code) {
  __atomic_store_n(&export_answer, code, __ATOMIC_SEQ_CST);
}

EXPORT int cuMemPoolExportToShareableHandle(void *exported, Pool *pool, int type, uint64_t flags) {
  usable(pool, __func__);
  if (type != 1 || flags != 0 || !pool->exportable || pool->imported)
    return INVALID_VALUE;
  const int answer = __atomic_load_n(&export_answer, __ATOMIC_SEQ_CST);
  if (answer != OK)
    return answer;
  *(int *)exported = fcntl(pool->fd, F_DUPFD_CLOEXEC, 0);
  return OK;
}

EXPORT int cuMemPoolExportPointer(PoolPointer *pointer, Pointer address) {
  Named named = {MAGIC, 0, 0};
  pthread_mutex_lock(&nullcuda_mutex);
  const bool found = find_of_pool(address, &named.offset, &named.length);
  pthread_mutex_unlock(&nullcuda_mutex);
  if (!found)
    return INVALID_VALUE;
  memset(pointer, 0, sizeof(*pointer));
  memcpy(pointer, &named, sizeof(named));
  return OK;
}

EXPORT int cuMemPoolImportFromShareableHandle(Pool **pool, void *exported, int type, uint64_t flags) {
  const int given = (int)(intptr_t)exported;
  char link[64], file[256] = "", *found;
  snprintf(link, sizeof(link), "/proc/self/fd/%d", given);
  if (type != 1 || flags != 0 || readlink(link, file, sizeof(file) - 1) < 0 || (found = strstr(file, NAME)) == NULL)
    return INVALID_VALUE;
  *pool = make(fcntl(given, F_DUPFD_CLOEXEC, 0), found[sizeof(NAME)] - '0', false, true);
  return OK;
}

EXPORT int cuMemPoolSetAccess(Pool *pool, const AccessDescription *access, size_t count) {
  usable(pool, __func__);
  for (size_t i = 0; i < count; ++i) pool->access |= 1u << access[i].location.id;
  return OK;
}

EXPORT int cuMemPoolImportPointer(Pointer *address, Pool *pool, PoolPointer *pointer) {
  Named named;
  memcpy(&named, pointer, sizeof(named));
  usable(pool, __func__);
  if (named.magic != MAGIC || !pool->imported || named.length > POOL_BYTES ||
      named.offset > POOL_BYTES - named.length)
    return INVALID_VALUE;
  pthread_mutex_lock(&nullcuda_mutex);
  const int code = allocate_of_pool(address, named.length, pool, pool->fd, (long)named.offset, pool->device);
  pthread_mutex_unlock(&nullcuda_mutex);
  return code;
}
