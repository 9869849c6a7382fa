// Posting: a request is carried out, by memcpy, before ibv_post_send returns.
//
// The cost of this path matters: an engine's own cost is compared with it.
#define _GNU_SOURCE
#include "nullverbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 64     // completions that are pushed together
#define NO_ANSWER -1 // no status: the request stays outstanding

// Looks a key up and pins the region for the copy; NULL if key, bounds or rights do not fit. When nothing is copied
// nothing is pinned.
static inline void *pin(uint32_t key, uint64_t address, uint64_t length, int access, struct ibv_pd *domain,
                        struct region **out) {
  uint32_t slot = key >> 8;
  *out = NULL;
  if (slot >= MAX_REGIONS)
    return NULL;
  struct region *region = &regions[slot];
  if (settings.copy)
    atomic_fetch_add(&region->users, 1);
  if (!key || atomic_load(&region->key) != key || region->domain != domain || (region->access & access) != access ||
      address < region->start || length > region->length || address - region->start > region->length - length) {
    if (settings.copy)
      atomic_fetch_sub(&region->users, 1);
    return NULL;
  }
  *out = region;
  return (void *)(uintptr_t)(address + region->offset);
}

static inline void unpin(struct region *region) {
  if (settings.copy && region)
    atomic_fetch_sub_explicit(&region->users, 1, memory_order_release);
}

// A requester looks at its own entries before it sends anything. One entry stays pinned and is returned: the common
// case needs no second look-up.
static inline int check_local(const struct ibv_send_wr *wr, int access, struct ibv_pd *domain,
                              struct region **single) {
  for (int i = 0; i < wr->num_sge; i++) {
    const struct ibv_sge *sge = &wr->sg_list[i];
    if (!sge->length)
      continue;
    struct region *region;
    if (!pin(sge->lkey, sge->addr, sge->length, access, domain, &region))
      return 0;
    if (wr->num_sge == 1)
      *single = region;
    else
      unpin(region);
  }
  return 1;
}

static inline int copy(const struct ibv_send_wr *wr, char *remote, struct region *single, struct ibv_pd *domain) {
  int is_inline = wr->send_flags & IBV_SEND_INLINE;
  for (int i = 0; i < wr->num_sge; i++) {
    const struct ibv_sge *sge = &wr->sg_list[i];
    struct region *pinned = NULL;
    void *local;
    if (!sge->length)
      continue;
    if (is_inline)
      local = (void *)(uintptr_t)sge->addr;
    else if (single)
      local = (void *)(uintptr_t)(sge->addr + single->offset);
    else
      local = pin(sge->lkey, sge->addr, sge->length, 0, domain, &pinned);
    if (!local)
      return IBV_WC_LOC_PROT_ERR;
    if (wr->opcode == IBV_WR_RDMA_READ)
      memcpy(local, remote, sge->length);
    else
      memcpy(remote, local, sge->length);
    unpin(pinned);
    remote += sge->length;
  }
  return IBV_WC_SUCCESS;
}

// Carries one request out and returns its completion status.
static inline int execute(struct queue_pair *pair, const struct ibv_send_wr *wr, uint64_t length) {
  int reading = wr->opcode == IBV_WR_RDMA_READ, is_inline = wr->send_flags & IBV_SEND_INLINE;
  int right = reading ? IBV_ACCESS_REMOTE_READ : IBV_ACCESS_REMOTE_WRITE;
  if (!reading && wr->opcode != IBV_WR_RDMA_WRITE)
    return IBV_WC_LOC_QP_OP_ERR;
  if (length > (settings.max_message ? settings.max_message : settings.true_max_message))
    return IBV_WC_LOC_LEN_ERR;

  struct slot *peer = slot_of(atomic_load_explicit(&slots[pair->slot].peer, memory_order_relaxed));
  int state = peer ? atomic_load_explicit(&peer->state, memory_order_acquire) : IBV_QPS_RESET;
  if ((state != IBV_QPS_RTR && state != IBV_QPS_RTS) ||
      atomic_load_explicit(&peer->peer, memory_order_relaxed) != pair->verbs.qp_num)
    return state == SILENT ? NO_ANSWER : IBV_WC_RETRY_EXC_ERR;
  if (!length)
    return IBV_WC_SUCCESS; // touches no memory, so no key is looked at

  struct ibv_pd *domain = pair->verbs.pd;
  struct region *single = NULL, *target = NULL;
  if (!is_inline && !check_local(wr, reading ? IBV_ACCESS_LOCAL_WRITE : 0, domain, &single))
    return IBV_WC_LOC_PROT_ERR;
  char *remote = NULL;
  if (peer->access & right)
    remote = pin(wr->wr.rdma.rkey, wr->wr.rdma.remote_addr, length, right, peer->domain, &target);
  if (!remote) {
    unpin(single);
    fail_queue_pair(peer, "a peer's request does not fit key, bounds or rights");
    raise_event(peer->context, IBV_EVENT_QP_ACCESS_ERR, peer->number);
    return IBV_WC_REM_ACCESS_ERR;
  }
  char *place = settings.late_writes ? late_memory(target, remote, reading) : remote;
  int status = settings.copy ? copy(wr, place, single, domain) : IBV_WC_SUCCESS;
  if (place != remote)
    mark_late(target, place, length);
  unpin(single);
  unpin(target);
  return status;
}

// A copy of a request, with its entries and its inline bytes.
static struct ibv_send_wr *copy_of(const struct ibv_send_wr *wr, uint64_t length) {
  size_t entries = (size_t)wr->num_sge * sizeof *wr->sg_list, bytes = wr->send_flags & IBV_SEND_INLINE ? length : 0;
  struct ibv_send_wr *copy = malloc(sizeof *copy + entries + bytes);
  if (!copy)
    return NULL;
  *copy = *wr;
  copy->sg_list = (struct ibv_sge *)(copy + 1);
  memcpy(copy->sg_list, wr->sg_list, entries);
  char *at = (char *)(copy->sg_list + wr->num_sge);
  for (int i = 0; bytes && i < wr->num_sge; i++) {
    memcpy(at, (void *)(uintptr_t)wr->sg_list[i].addr, wr->sg_list[i].length);
    copy->sg_list[i].addr = (uintptr_t)at;
    at += wr->sg_list[i].length;
  }
  return copy;
}

void forget_open(struct queue_pair *pair) {
  for (uint32_t i = 0; pair->lost && i < pair->open_count; i++) {
    free(pair->lost[i]);
    pair->lost[i] = NULL;
  }
  pair->open_count = 0;
}

// The same where devices are in trouble. Those behind a lost one wait for it: `first` is the first of them.
static int execute_in_trouble(struct queue_pair *pair, const struct ibv_send_wr *wr, uint64_t length, int first) {
  struct ibv_context *own = pair->verbs.context;
  struct slot *peer = slot_of(atomic_load_explicit(&slots[pair->slot].peer, memory_order_relaxed));
  if (!first || has_device(settings.silent_devices, own) ||
      (peer && has_device(settings.silent_devices, peer->context)))
    return NO_ANSWER;
  if (peer && is_cut_off(own, peer->context))
    return IBV_WC_RETRY_EXC_ERR;
  if (settings.fail_every && has_device(settings.failing_devices, own) && pair->requests % settings.fail_every == 0)
    return IBV_WC_RETRY_EXC_ERR;
  return execute(pair, wr, length);
}

// When a device has moved so many bytes more, behind those that it has been given before. Both directions of a request count on
// the device that posts it alone.
static uint64_t serve(const struct ibv_context *context, uint64_t length) {
  static _Atomic uint64_t idle_at[MAX_DEVICES];
  _Atomic uint64_t *place = &idle_at[((const struct context *)context)->index];
  uint64_t now = now_ns(), taken = length * 1000 / settings.rate, idle = atomic_load(place), end;
  do {
    end = (idle > now ? idle : now) + taken;
  } while (!atomic_compare_exchange_weak(place, &idle, end));
  return end;
}

static inline void push(struct queue_pair *pair, struct completion *list, int count) {
  if (!count)
    return;
  uint64_t delay = settings.delay_ns;
  if (settings.troubles && has_device(settings.slow_devices, pair->verbs.context))
    delay += settings.slow_ns;
  uint64_t visible_at = delay ? now_ns() + delay : 0;
  for (int i = 0; i < count; i++) {
    uint64_t served = list[i].visible_at;
    list[i].visible_at = served ? served + delay : visible_at;
  }
  push_completions((struct completion_queue *)pair->verbs.send_cq, list, count);
}

// 0, or why the queue pair cannot take this request now.
static inline int refuse(const struct queue_pair *pair, int state, const struct ibv_send_wr *wr, uint64_t length) {
  if (state != IBV_QPS_RTS && state != IBV_QPS_ERR)
    return EINVAL;
  if ((wr->send_flags & IBV_SEND_INLINE) && length > pair->max_inline)
    return EINVAL;
  uint32_t outstanding = pair->sent - atomic_load_explicit(&pair->retired, memory_order_acquire);
  return outstanding >= pair->depth ? ENOMEM : 0;
}

static struct completion completion_of(struct queue_pair *pair, uint64_t id, int status, uint32_t position) {
  return (struct completion){
      .id = id,
      .owner = pair,
      .number = pair->verbs.qp_num,
      .send_position = position,
      .status = (enum ibv_wc_status)status,
  };
}

void flush_open(struct queue_pair *pair) {
  lock(&pair->lock);
  for (uint32_t i = 0; i < pair->open_count; i++) {
    struct completion flush =
        completion_of(pair, pair->open_ids[i], IBV_WC_WR_FLUSH_ERR, pair->sent - (pair->open_count - 1 - i));
    push(pair, &flush, 1);
  }
  forget_open(pair);
  unlock(&pair->lock);
}

void send_again(struct queue_pair *pair) {
  lock(&pair->lock);
  uint32_t done = 0, count = pair->open_count;
  for (; pair->lost && done < count; done++) {
    struct slot *slot = &slots[pair->slot];
    struct ibv_send_wr *wr = pair->lost[done];
    if (!wr || atomic_load(&slot->state) == IBV_QPS_ERR)
      break;
    uint64_t length = 0;
    for (int i = 0; i < wr->num_sge; i++) length += wr->sg_list[i].length;
    int status = execute_in_trouble(pair, wr, length, 1);
    if (status == NO_ANSWER)
      break;
    if (status)
      fail_queue_pair(slot, ibv_wc_status_str((enum ibv_wc_status)status));
    if (status || pair->init.sq_sig_all || (wr->send_flags & IBV_SEND_SIGNALED)) {
      struct completion completion = completion_of(pair, wr->wr_id, status, pair->sent - (count - 1 - done));
      push(pair, &completion, 1);
    }
    free(wr);
    pair->lost[done] = NULL;
  }
  pair->open_count = count - done;
  if (done && pair->open_count) {
    memmove(pair->open_ids, pair->open_ids + done, pair->open_count * sizeof *pair->open_ids);
    memmove(pair->lost, pair->lost + done, pair->open_count * sizeof *pair->lost);
  }
  unlock(&pair->lock);
}

// A request has failed: its reason is reported on the oldest request without a completion, and the others up to it are
// flushed.
static void fail_oldest(struct queue_pair *pair, int status) {
  for (uint32_t i = 0; i < pair->open_count; i++) {
    struct completion error = completion_of(pair, pair->open_ids[i], i ? IBV_WC_WR_FLUSH_ERR : status,
                                            pair->sent - (pair->open_count - 1 - i));
    push(pair, &error, 1);
  }
  pair->open_count = 0;
}

static inline __attribute__((always_inline)) int post(struct ibv_qp *verbs, struct ibv_send_wr *wr,
                                                      struct ibv_send_wr **refused, const int oldest_errors,
                                                      const int at_rate) {
  struct queue_pair *pair = (struct queue_pair *)verbs;
  struct slot *slot = &slots[pair->slot];
  struct completion list[BATCH];
  int count = 0, errors = 0;
  lock(&pair->lock);
  pair->post_calls++;
  for (; wr; wr = wr->next) {
    int state = atomic_load_explicit(&slot->state, memory_order_relaxed);
    uint64_t length = 0;
    if (wr->num_sge < 0 || (uint32_t)wr->num_sge > pair->max_sge) {
      errors = EINVAL;
      break;
    }
    for (int i = 0; i < wr->num_sge; i++) length += wr->sg_list[i].length;
    errors = refuse(pair, state, wr, length);
    if (errors)
      break;
    pair->requests++;
    pair->sent++;
    int status = state == IBV_QPS_ERR ? IBV_WC_WR_FLUSH_ERR
                 : settings.troubles  ? execute_in_trouble(pair, wr, length, !pair->open_count)
                                      : execute(pair, wr, length);
    if (oldest_errors)
      pair->open_ids[pair->open_count++] = wr->wr_id;
    uint64_t served = 0;
    if (status == IBV_WC_SUCCESS) {
      pair->bytes += length;
      if (at_rate)
        served = serve(verbs->context, length);
    } else {
      if (status == NO_ANSWER) {
        if (pair->lost)
          pair->lost[pair->open_count] = copy_of(wr, length);
        pair->open_ids[pair->open_count++] = wr->wr_id;
        continue;
      }
      counters.error_completions++;
      if (status != IBV_WC_WR_FLUSH_ERR)
        fail_queue_pair(slot, ibv_wc_status_str((enum ibv_wc_status)status));
    }
    if (oldest_errors && status) {
      push(pair, list, count);
      count = 0;
      fail_oldest(pair, status);
    } else if (status || pair->init.sq_sig_all || (wr->send_flags & IBV_SEND_SIGNALED)) {
      if (oldest_errors)
        pair->open_count = 0;
      list[count++] = (struct completion){
          .id = wr->wr_id,
          .owner = pair,
          .number = verbs->qp_num,
          .length = (uint32_t)length,
          .send_position = pair->sent,
          .visible_at = served,
          .status = (enum ibv_wc_status)status,
          .opcode = wr->opcode == IBV_WR_RDMA_READ ? IBV_WC_RDMA_READ : IBV_WC_RDMA_WRITE,
      };
      if (count == BATCH) {
        push(pair, list, count);
        count = 0;
      }
    }
  }
  push(pair, list, count);
  if (errors)
    pair->refused++;
  unlock(&pair->lock);
  if (errors)
    *refused = wr;
  return errors ? errors : (int)settings.doorbell_errno;
}

int post_send(struct ibv_qp *verbs, struct ibv_send_wr *wr, struct ibv_send_wr **refused) {
  return post(verbs, wr, refused, 0, 0);
}

int post_send_oldest_errors(struct ibv_qp *verbs, struct ibv_send_wr *wr, struct ibv_send_wr **refused) {
  return post(verbs, wr, refused, 1, 0);
}

int post_send_at_rate(struct ibv_qp *verbs, struct ibv_send_wr *wr, struct ibv_send_wr **refused) {
  return post(verbs, wr, refused, 0, 1);
}
