// Protection domains and memory regions.
#define _GNU_SOURCE
#include "nullverbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct region regions[MAX_REGIONS];
struct dma_buf dma_bufs[MAX_REGIONS];
static struct lock regions_lock;
static uint32_t next_region = 1; // round and round, so that a key is not used again soon
static _Atomic uint64_t locked;  // bytes registered
_Atomic uint64_t waiting_calls;  // as nullverbs_held says

struct ibv_pd *ibv_alloc_pd(struct ibv_context *context) {
  struct domain *domain = calloc(1, sizeof *domain);
  if (!domain)
    return NULL;
  domain->verbs.context = context;
  counters.domains++;
  return &domain->verbs;
}

int ibv_dealloc_pd(struct ibv_pd *verbs) {
  struct domain *domain = (struct domain *)verbs;
  if (domain->users)
    return EBUSY;
  free(domain);
  counters.domains--;
  return 0;
}

static int is_mapped(const void *address, size_t length) {
  uintptr_t first = (uintptr_t)address & ~(uintptr_t)4095;
  uintptr_t end = ((uintptr_t)address + length + 4095) & ~(uintptr_t)4095;
  return !msync((void *)first, end - first, MS_ASYNC); // ENOMEM where a page is not mapped
}

// As a pin would fail: the kernel looks at each page, this at the first and the last one.
static int is_writable(const void *address, size_t length) {
  uintptr_t ends[] = {(uintptr_t)address, (uintptr_t)address + length - 1};
  for (int i = 0; i < 2; i++) {
    void *page = (void *)(ends[i] & ~(uintptr_t)4095);
    if (madvise(page, 4096, MADV_POPULATE_WRITE) && errno == EINVAL && !madvise(page, 4096, MADV_POPULATE_READ))
      return 0;
  }
  return 1;
}

static uint32_t take_slot(void) {
  for (uint32_t tried = 0, slot = next_region; tried < MAX_REGIONS; tried++, slot = (slot + 1) % MAX_REGIONS) {
    if (slot && !regions[slot].used) {
      next_region = (slot + 1) % MAX_REGIONS;
      return slot;
    }
  }
  return 0;
}

static void wait_while_held(const struct ibv_context *context) {
  if (!has_device(settings.held_devices, context))
    return;
  waiting_calls++;
  while (has_device(settings.held_devices, context)) take_time(100000);
  waiting_calls--;
}

uint64_t nullverbs_held(void) {
  return waiting_calls;
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *domain, void *address, size_t length, uint64_t start,
                                unsigned access) {
  unsigned writing = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC;
  if (!domain || length > largest_region(domain->context) ||
      ((access & writing) && !(access & IBV_ACCESS_LOCAL_WRITE))) {
    errno = EINVAL;
    return NULL;
  }
  if (!settings.atomics && (access & IBV_ACCESS_REMOTE_ATOMIC)) {
    errno = EOPNOTSUPP;
    return NULL;
  }
  if (length &&
      (!is_mapped(address, length) || ((access & IBV_ACCESS_LOCAL_WRITE) && !is_writable(address, length)))) {
    errno = EFAULT;
    return NULL;
  }
  take_time(settings.reg_ns);
  wait_while_held(domain->context);
  if (atomic_fetch_add(&locked, length) + length > settings.locked_bytes) {
    atomic_fetch_sub(&locked, length);
    errno = ENOMEM;
    return NULL;
  }
  struct ibv_mr *verbs = calloc(1, sizeof *verbs);
  lock(&regions_lock);
  uint32_t slot = verbs ? take_slot() : 0;
  if (!slot) {
    unlock(&regions_lock);
    atomic_fetch_sub(&locked, length);
    free(verbs);
    errno = ENOMEM;
    return NULL;
  }
  struct region *region = &regions[slot];
  region->used = 1;
  if (++region->generation == 0)
    region->generation = 1;
  region->access = (int)access;
  region->start = start;
  region->length = length;
  region->offset = (uintptr_t)address - start;
  region->domain = domain;
  atomic_store(&region->key, slot << 8 | region->generation);
  unlock(&regions_lock);
  verbs->context = domain->context;
  verbs->pd = domain;
  verbs->addr = address;
  verbs->length = length;
  verbs->handle = slot;
  verbs->lkey = verbs->rkey = region->key;
  ((struct domain *)domain)->users++;
  counters.regions++;
  return verbs;
}

struct ibv_mr *ibv_reg_mr(struct ibv_pd *domain, void *address, size_t length, int access) {
  return ibv_reg_mr_iova2(domain, address, length, (uintptr_t)address, (unsigned)access);
}

struct ibv_mr *ibv_reg_mr_iova(struct ibv_pd *domain, void *address, size_t length, uint64_t start, int access) {
  return ibv_reg_mr_iova2(domain, address, length, start, (unsigned)access);
}

// A dma-buf is played by a memfd, which begins at the descriptor's file position: so another stand-in can export a part of one.
// The checks, in their order, are those of the kernel.
struct ibv_mr *ibv_reg_dmabuf_mr(struct ibv_pd *domain, uint64_t offset, size_t length, uint64_t start, int fd,
                                 int access) {
  struct stat file;
  errno = settings.dma_buf ? 0 : EOPNOTSUPP;
  if (!errno && (offset ^ start) & 4095)
    errno = EINVAL;
  if (!errno && (fstat(fd, &file) || !S_ISREG(file.st_mode)))
    errno = EBADF;
  if (errno)
    return NULL;
  off_t position = lseek(fd, 0, SEEK_CUR);
  uint64_t size = ((uint64_t)file.st_size + 4095) & ~(uint64_t)4095, first = (uint64_t)position + offset;
  if (position < 0 || !length || first < offset || first > size || length > size - first) {
    errno = EINVAL;
    return NULL;
  }
  // Its pages stay with the region when the descriptor is closed.
  size_t within = first & 4095, bytes = within + length;
  char *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)(first - within));
  if (pages == MAP_FAILED)
    return NULL;
  struct ibv_mr *verbs = ibv_reg_mr_iova2(domain, pages + within, length, start, (unsigned)access);
  if (!verbs) {
    int error = errno;
    munmap(pages, bytes);
    errno = error;
    return NULL;
  }
  struct dma_buf *buffer = &dma_bufs[verbs->handle];
  *buffer = (struct dma_buf){pages, bytes, settings.late_writes ? calloc(2, length) : NULL};
  return verbs;
}

// What was written to a region is in its memory from now on. Behind the bytes there is a mark for each that is not yet.
static void arrive(const struct region *region) {
  char *start = (char *)(uintptr_t)(region->start + region->offset), *late = dma_bufs[region - regions].late;
  char *marks = late + region->length, *end = marks + region->length;
  for (char *from = marks, *to; (from = memchr(from, 1, (size_t)(end - from))); from = to) {
    to = memchr(from, 0, (size_t)(end - from));
    to = to ? to : end;
    memcpy(start + (from - marks), late + (from - marks), (size_t)(to - from));
    memset(from, 0, (size_t)(to - from));
  }
}

// As memory of a GPU that does not wait for what a NIC has on the way to it, where a read by the NIC does.
char *late_memory(struct region *region, char *memory, int reading) {
  char *late = dma_bufs[region - regions].late;
  if (!late)
    return memory;
  if (reading) {
    lock(&regions_lock);
    arrive(region);
    unlock(&regions_lock);
    return memory;
  }
  return late + (memory - (char *)(uintptr_t)(region->start + region->offset));
}

void mark_late(const struct region *region, const char *late, size_t length) {
  struct dma_buf *buffer = &dma_bufs[region - regions];
  memset(buffer->late + region->length + (late - buffer->late), 1, length);
}

void late_writes_arrive(const struct ibv_pd *domain) {
  lock(&regions_lock);
  for (const struct region *region = regions; region < regions + MAX_REGIONS; region++)
    if (region->used && region->domain == domain && dma_bufs[region - regions].late)
      arrive(region);
  unlock(&regions_lock);
}

int ibv_dereg_mr(struct ibv_mr *verbs) {
  struct region *region = &regions[verbs->handle];
  take_time(settings.dereg_ns);
  atomic_store(&region->key, 0);
  while (atomic_load(&region->users)) sched_yield(); // copies under way finish first
  lock(&regions_lock);
  struct dma_buf *buffer = &dma_bufs[verbs->handle];
  if (buffer->pages)
    munmap(buffer->pages, buffer->bytes);
  free(buffer->late);
  *buffer = (struct dma_buf){0};
  region->used = 0;
  unlock(&regions_lock);
  atomic_fetch_sub(&locked, verbs->length);
  ((struct domain *)verbs->pd)->users--;
  counters.regions--;
  free(verbs);
  return 0;
}
