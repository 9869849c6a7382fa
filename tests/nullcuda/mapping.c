// SPDX-License-Identifier: Apache-2.0
//
// Memory of cuMemCreate: an allocation is a memfd, mapped into reserved addresses. The CPU cannot access these; the bytes
// are behind a second range of the same size, so that a copy may span allocations that are mapped side by side.
#define _GNU_SOURCE
#include "nullcuda.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
  bool used, exportable;
  // Handles that were given out and not released, and mappings.
  int handles, mappings;
  int fd, device;
  size_t length;
} Allocation;

typedef struct {
  Pointer start;
  size_t length;
  char *cpu;
} Reservation;

typedef struct {
  Pointer start;
  size_t length;
  Reservation *reservation;
  Allocation *allocation;
  // A bit for each device that may access it.
  unsigned access;
} Mapping;

enum { MOST = 1024 };
static Allocation allocations[MOST];
static Reservation reservations[MOST];
static Mapping mappings[MOST];

static const char NAME[] = "nullcuda-allocation";

static bool is_multiple(size_t length) {
  return length != 0 && length % GRANULARITY == 0;
}

static Allocation *find(uint64_t handle, const char *call) {
  require(handle >= 1 && handle <= MOST && allocations[handle - 1].handles > 0, call,
          "the handle is released, or was never given out");
  return &allocations[handle - 1];
}

static uint64_t handle_of(const Allocation *allocation) {
  return (uint64_t)(allocation - allocations) + 1;
}

static Mapping *mapping_at(Pointer address) {
  for (Mapping *m = mappings; m < mappings + MOST; ++m)
    if (m->length != 0 && address >= m->start && address - m->start < m->length)
      return m;
  return NULL;
}

static Reservation *reservation_of(Pointer address, size_t length) {
  for (Reservation *r = reservations; r < reservations + MOST; ++r)
    if (r->length != 0 && address >= r->start && address - r->start < r->length &&
        length <= r->length - (address - r->start))
      return r;
  return NULL;
}

bool is_reserved(Pointer address) {
  return reservation_of(address, 1) != NULL;
}

// A copy by a device without the right to access the memory faults on a GPU, and ends its context.
void *behind_mappings(Pointer address, size_t length, int device) {
  const Pointer end = address + length;
  const Reservation *r = reservation_of(address, length);
  for (Pointer at = address; at < end;) {
    const Mapping *m = mapping_at(at);
    if (m == NULL || r == NULL)
      return NULL;
    require(device < 0 || (m->access & 1u << device) != 0, "a copy", "the device may not access the mapping");
    at = m->start + m->length;
  }
  return r->cpu + (address - r->start);
}

bool find_mapping(Pointer address, Pointer *start, size_t *length, int *device, bool *exportable, int *fd) {
  const Mapping *m = mapping_at(address);
  if (m == NULL)
    return false;
  *start = m->start;
  *length = m->length;
  *device = m->allocation->device;
  *exportable = m->allocation->exportable;
  *fd = m->allocation->fd;
  return true;
}

static void free_unused(Allocation *allocation) {
  if (allocation->handles > 0 || allocation->mappings > 0)
    return;
  close(allocation->fd);
  memset(allocation, 0, sizeof(*allocation));
}

static int keep(uint64_t *handle, int fd, size_t length, int device, bool exportable) {
  for (Allocation *a = allocations; a < allocations + MOST; ++a)
    if (!a->used) {
      *a = (Allocation){true, exportable, 1, 0, fd, device, length};
      *handle = handle_of(a);
      return OK;
    }
  return OUT_OF_MEMORY;
}

EXPORT int cuMemCreate(uint64_t *handle, size_t length, const AllocationProperties *properties, uint64_t flags) {
  if (!is_initialised())
    return NOT_INITIALIZED;
  if (!is_multiple(length) || flags != 0 || properties->type != 1 || properties->location.type != 1)
    return INVALID_VALUE;
  if (properties->location.id < 0 || properties->location.id >= DEVICES)
    return INVALID_DEVICE;
  char name[64];
  snprintf(name, sizeof(name), "%s-%d", NAME, properties->location.id);
  const int fd = memfd_create(name, MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, (off_t)length) != 0)
    return OUT_OF_MEMORY;
  pthread_mutex_lock(&nullcuda_mutex);
  const int code = keep(handle, fd, length, properties->location.id, (properties->requestedHandleTypes & 1) != 0);
  pthread_mutex_unlock(&nullcuda_mutex);
  return code;
}

EXPORT int cuMemGetAllocationGranularity(size_t *granularity, const AllocationProperties *properties, int option) {
  (void)properties, (void)option;
  *granularity = GRANULARITY;
  return OK;
}

EXPORT int cuMemRelease(uint64_t handle) {
  pthread_mutex_lock(&nullcuda_mutex);
  Allocation *allocation = find(handle, __func__);
  --allocation->handles;
  free_unused(allocation);
  pthread_mutex_unlock(&nullcuda_mutex);
  return OK;
}

EXPORT int cuMemRetainAllocationHandle(uint64_t *handle, void *address) {
  pthread_mutex_lock(&nullcuda_mutex);
  const Mapping *m = mapping_at((Pointer)address);
  if (m != NULL) {
    ++m->allocation->handles;
    *handle = handle_of(m->allocation);
  }
  pthread_mutex_unlock(&nullcuda_mutex);
  return m != NULL ? OK : INVALID_VALUE;
}

EXPORT int cuMemGetAllocationPropertiesFromHandle(AllocationProperties *properties, uint64_t handle) {
  pthread_mutex_lock(&nullcuda_mutex);
  const Allocation *a = find(handle, __func__);
  memset(properties, 0, sizeof(*properties));
  properties->type = 1;
  properties->requestedHandleTypes = a->exportable;
  properties->location = (Location){1, a->device};
  pthread_mutex_unlock(&nullcuda_mutex);
  return OK;
}

EXPORT int cuMemExportToShareableHandle(void *exported, uint64_t handle, int type, uint64_t flags) {
  pthread_mutex_lock(&nullcuda_mutex);
  const Allocation *a = find(handle, __func__);
  const bool allowed = type == 1 && flags == 0 && a->exportable;
  if (allowed)
    *(int *)exported = fcntl(a->fd, F_DUPFD_CLOEXEC, 0);
  pthread_mutex_unlock(&nullcuda_mutex);
  return allowed ? OK : INVALID_VALUE;
}

// The descriptor stays the caller's. A file of something else is refused.
EXPORT int cuMemImportFromShareableHandle(uint64_t *handle, void *exported, int type) {
  const int given = (int)(intptr_t)exported;
  char link[64], file[256] = "", *found;
  snprintf(link, sizeof(link), "/proc/self/fd/%d", given);
  if (type != 1 || readlink(link, file, sizeof(file) - 1) < 0 || (found = strstr(file, NAME)) == NULL)
    return INVALID_VALUE;
  struct stat status;
  if (fstat(given, &status) != 0)
    return INVALID_VALUE;
  const int device = found[sizeof(NAME)] - '0', fd = fcntl(given, F_DUPFD_CLOEXEC, 0);
  pthread_mutex_lock(&nullcuda_mutex);
  const int code = keep(handle, fd, (size_t)status.st_size, device, true);
  pthread_mutex_unlock(&nullcuda_mutex);
  return code;
}

static void *reserve(size_t length) {
  void *start = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return start == MAP_FAILED ? NULL : start;
}

EXPORT int cuMemAddressReserve(Pointer *start, size_t length, size_t alignment, Pointer wanted, uint64_t flags) {
  (void)wanted;
  if (!is_multiple(length) || alignment % GRANULARITY != 0 || flags != 0)
    return INVALID_VALUE;
  pthread_mutex_lock(&nullcuda_mutex);
  Reservation *r = reservations;
  while (r < reservations + MOST && r->length != 0) ++r;
  int code = OUT_OF_MEMORY;
  if (r < reservations + MOST) {
    *r = (Reservation){(Pointer)reserve(length), length, reserve(length)};
    code = r->start != 0 && r->cpu != NULL ? OK : OUT_OF_MEMORY;
    *start = r->start;
  }
  pthread_mutex_unlock(&nullcuda_mutex);
  return code;
}

EXPORT int cuMemAddressFree(Pointer start, size_t length) {
  pthread_mutex_lock(&nullcuda_mutex);
  Reservation *r = reservation_of(start, length);
  require(r != NULL && r->start == start && r->length == length, __func__, "the range is not reserved");
  for (const Mapping *m = mappings; m < mappings + MOST; ++m)
    require(m->length == 0 || m->reservation != r, __func__, "memory is mapped there still");
  munmap((void *)r->start, length); // NOLINT
  munmap(r->cpu, length);
  memset(r, 0, sizeof(*r));
  pthread_mutex_unlock(&nullcuda_mutex);
  return OK;
}

EXPORT int cuMemMap(Pointer start, size_t length, size_t offset, uint64_t handle, uint64_t flags) {
  pthread_mutex_lock(&nullcuda_mutex);
  Allocation *a = find(handle, __func__);
  Reservation *r = reservation_of(start, length);
  require(r != NULL, __func__, "the range is not reserved");
  Mapping *place = NULL;
  bool taken = false;
  for (Mapping *m = mappings; m < mappings + MOST; ++m) {
    if (m->length == 0)
      place = place == NULL ? m : place;
    else if (start < m->start + m->length && m->start < start + length)
      taken = true;
  }
  int code = INVALID_VALUE;
  if (!taken && place != NULL && is_multiple(length) && offset == 0 && flags == 0 && length <= a->length) {
    *place = (Mapping){start, length, r, a, 0};
    ++a->mappings;
    void *cpu = mmap(r->cpu + (start - r->start), length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, a->fd, 0);
    code = cpu == MAP_FAILED ? OUT_OF_MEMORY : OK;
  }
  pthread_mutex_unlock(&nullcuda_mutex);
  return code;
}

// Of whole mappings, as the driver wants it.
EXPORT int cuMemUnmap(Pointer start, size_t length) {
  pthread_mutex_lock(&nullcuda_mutex);
  finish_streams();
  for (Pointer at = start; at < start + length;) {
    Mapping *m = mapping_at(at);
    require(m != NULL, __func__, "nothing is mapped there");
    require(m->start == at && m->length <= start + length - at, __func__, "the range cuts a mapping");
    at += m->length;
    mmap(m->reservation->cpu + (m->start - m->reservation->start), m->length, PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    Allocation *allocation = m->allocation;
    memset(m, 0, sizeof(*m));
    --allocation->mappings;
    free_unused(allocation);
  }
  pthread_mutex_unlock(&nullcuda_mutex);
  return OK;
}

EXPORT int cuMemSetAccess(Pointer start, size_t length, const AccessDescription *access, size_t count) {
  pthread_mutex_lock(&nullcuda_mutex);
  int code = OK;
  for (Pointer at = start; code == OK && at < start + length;) {
    Mapping *m = mapping_at(at);
    if (m == NULL || m->start != at) {
      code = INVALID_VALUE;
      break;
    }
    for (size_t i = 0; i < count; ++i) {
      if (access[i].location.type != 1 || access[i].flags != 3)
        code = INVALID_VALUE;
      else
        m->access |= 1u << access[i].location.id;
    }
    at += m->length;
  }
  pthread_mutex_unlock(&nullcuda_mutex);
  return code;
}
