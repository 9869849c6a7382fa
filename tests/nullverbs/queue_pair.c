// Queue pairs: creation, the state machine, destruction.
#define _GNU_SOURCE
#include "nullverbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct slot slots[MAX_QUEUE_PAIRS];
static struct lock slots_lock;
static uint32_t next_slot = 1;

// What a queue pair has written does not arrive behind what other devices write after its end.
static void bring_late_writes(const struct slot *slot) {
  const struct slot *peer = settings.late_writes ? slot_of(atomic_load(&slot->peer)) : NULL;
  if (peer) {
    late_writes_arrive(atomic_load(&peer->domain));
    late_writes_arrive(atomic_load(&slot->domain));
  }
}

void fail_queue_pair(struct slot *slot, const char *why) {
  if (atomic_exchange(&slot->state, IBV_QPS_ERR) != IBV_QPS_ERR) {
    TRACE("qp 0x%x -> ERROR: %s\n", slot->number, why);
    bring_late_writes(slot);
  }
}

void fail_queue_pairs_of(struct ibv_context *context, enum ibv_event_type type) {
  lock(&slots_lock);
  for (struct slot *slot = slots; slot < slots + MAX_QUEUE_PAIRS; slot++) {
    if (!slot->queue_pair || slot->context != context)
      continue;
    fail_queue_pair(slot, ibv_event_type_str(type));
    raise_event(slot->context, type, slot->number);
  }
  unlock(&slots_lock);
}

void send_all_again(void) {
  lock(&slots_lock);
  for (struct slot *slot = slots; slot < slots + MAX_QUEUE_PAIRS; slot++)
    if (slot->queue_pair)
      send_again(slot->queue_pair);
  unlock(&slots_lock);
}

// Of a send queue, if each request has room for all of its entries or its inline bytes, in steps of 64.
static uint64_t bytes_of(const struct ibv_qp_cap *cap) {
  uint64_t entries = 16 * (uint64_t)cap->max_send_sge,
           most = entries > cap->max_inline_data ? entries : cap->max_inline_data;
  return (32 + most + 63) / 64 * 64 * cap->max_send_wr;
}

static int is_possible(const struct ibv_qp_init_attr *init) {
  const struct ibv_qp_cap *cap = &init->cap;
  if (settings.queue_bytes && bytes_of(cap) > settings.queue_bytes)
    return 0;
  return init->send_cq && init->recv_cq && init->qp_type == IBV_QPT_RC && cap->max_send_wr >= settings.least_depth &&
         cap->max_send_wr <= settings.max_depth && cap->max_recv_wr <= settings.max_depth &&
         cap->max_send_sge <= MAX_SGE && cap->max_inline_data <= settings.max_inline;
}

static struct slot *take_slot(struct queue_pair *queue_pair, struct ibv_pd *domain) {
  struct slot *slot = NULL;
  lock(&slots_lock);
  for (uint32_t tried = 0, i = next_slot; tried < MAX_QUEUE_PAIRS; tried++, i = (i + 1) % MAX_QUEUE_PAIRS) {
    if (!i || slots[i].queue_pair)
      continue;
    slot = &slots[i];
    next_slot = (i + 1) % MAX_QUEUE_PAIRS;
    slot->queue_pair = queue_pair;
    slot->generation++;
    slot->state = IBV_QPS_RESET;
    slot->peer = 0;
    slot->access = 0;
    slot->domain = domain;
    slot->context = domain->context;
    atomic_store(&slot->number, (uint32_t)slot->generation << 16 | i);
    break;
  }
  unlock(&slots_lock);
  return slot;
}

static void grant(const struct ibv_context *context, struct ibv_qp_cap *cap) {
  if (!has_device(settings.granting, context))
    return;
#define AT_MOST(field, most)         \
  if ((most) && cap->field > (most)) \
  cap->field = (uint32_t)(most)
  AT_MOST(max_send_wr, settings.grant_depth);
  AT_MOST(max_send_sge, settings.grant_sge);
  AT_MOST(max_inline_data, settings.grant_inline);
#undef AT_MOST
}

struct ibv_qp *ibv_create_qp(struct ibv_pd *domain, struct ibv_qp_init_attr *init) {
  take_time(settings.create_qp_ns);
  if ((settings.no_rc >> ((struct context *)domain->context)->index & 1) && init->qp_type == IBV_QPT_RC) {
    errno = EOPNOTSUPP;
    return NULL;
  }
  struct queue_pair *pair = is_possible(init) ? aligned_alloc(64, sizeof *pair) : NULL;
  if (!pair) {
    errno = EINVAL;
    return NULL;
  }
  memset(pair, 0, sizeof *pair);
  struct slot *slot = take_slot(pair, domain);
  if (!slot) {
    free(pair);
    errno = ENOMEM;
    return NULL;
  }
  pair->slot = (uint32_t)(slot - slots);
  grant(domain->context, &init->cap);
  pair->init = *init;
  if (settings.oldest_errors || settings.silent_device || settings.troubles)
    pair->open_ids = calloc(init->cap.max_send_wr, sizeof *pair->open_ids);
  if (settings.troubles)
    pair->lost = calloc(init->cap.max_send_wr, sizeof *pair->lost);
  pair->depth = init->cap.max_send_wr;
  pair->max_sge = init->cap.max_send_sge;
  pair->max_inline = init->cap.max_inline_data;
  struct ibv_qp *verbs = &pair->verbs;
  verbs->context = domain->context;
  verbs->qp_context = init->qp_context;
  verbs->pd = domain;
  verbs->send_cq = init->send_cq;
  verbs->recv_cq = init->recv_cq;
  verbs->handle = pair->slot;
  verbs->qp_num = slot->number;
  verbs->qp_type = init->qp_type;
  pthread_mutex_init(&verbs->mutex, NULL);
  pthread_cond_init(&verbs->cond, NULL);
  ((struct domain *)domain)->users++;
  ((struct completion_queue *)init->send_cq)->users++;
  ((struct completion_queue *)init->recv_cq)->users++;
  counters.queue_pairs++;
  return verbs;
}

int ibv_query_qp(struct ibv_qp *verbs, struct ibv_qp_attr *out, int mask, struct ibv_qp_init_attr *init) {
  struct queue_pair *pair = (struct queue_pair *)verbs;
  (void)mask;
  *out = pair->attributes;
  out->qp_state = out->cur_qp_state = (enum ibv_qp_state)slots[pair->slot].state;
  out->cap = pair->init.cap;
  *init = pair->init;
  return 0;
}

// The fields that the specification wants with each transition; -1 if there is no such transition.
static int required_fields(int from, int to) {
  switch (to) {
    case IBV_QPS_RESET:
    case IBV_QPS_ERR:
      return 0;
    case IBV_QPS_INIT:
      if (from == IBV_QPS_INIT)
        return 0;
      return from == IBV_QPS_RESET ? IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS : -1;
    case IBV_QPS_RTR:
      if (from != IBV_QPS_INIT)
        return -1;
      return IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
             IBV_QP_MIN_RNR_TIMER;
    case IBV_QPS_RTS:
      if (from == IBV_QPS_RTS)
        return 0;
      if (from != IBV_QPS_RTR)
        return -1;
      return IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;
    default:
      return -1;
  }
}

static int are_good(const struct queue_pair *pair, const struct ibv_qp_attr *in, int mask) {
  return !(((mask & IBV_QP_AV) && !is_good_address(pair->verbs.context, &in->ah_attr, in->dest_qp_num)) ||
           ((mask & IBV_QP_PORT) && in->port_num != 1) || ((mask & IBV_QP_PKEY_INDEX) && in->pkey_index) ||
           ((mask & IBV_QP_PATH_MTU) && (in->path_mtu < IBV_MTU_256 || in->path_mtu > mtu_of(pair->verbs.context))) ||
           ((mask & IBV_QP_TIMEOUT) && in->timeout > 31) || ((mask & IBV_QP_RETRY_CNT) && in->retry_cnt > 7) ||
           ((mask & IBV_QP_RNR_RETRY) && in->rnr_retry > 7) ||
           ((mask & IBV_QP_MAX_QP_RD_ATOMIC) && in->max_rd_atomic > 16) ||
           ((mask & IBV_QP_MAX_DEST_RD_ATOMIC) && in->max_dest_rd_atomic > 16));
}

static void take_fields(struct ibv_qp_attr *to, const struct ibv_qp_attr *from, int mask) {
#define TAKE(flag, field) \
  if (mask & (flag))      \
  to->field = from->field
  TAKE(IBV_QP_AV, ah_attr);
  TAKE(IBV_QP_PORT, port_num);
  TAKE(IBV_QP_PKEY_INDEX, pkey_index);
  TAKE(IBV_QP_PATH_MTU, path_mtu);
  TAKE(IBV_QP_DEST_QPN, dest_qp_num);
  TAKE(IBV_QP_ACCESS_FLAGS, qp_access_flags);
  TAKE(IBV_QP_TIMEOUT, timeout);
  TAKE(IBV_QP_RETRY_CNT, retry_cnt);
  TAKE(IBV_QP_RNR_RETRY, rnr_retry);
  TAKE(IBV_QP_MIN_RNR_TIMER, min_rnr_timer);
  TAKE(IBV_QP_MAX_QP_RD_ATOMIC, max_rd_atomic);
  TAKE(IBV_QP_MAX_DEST_RD_ATOMIC, max_dest_rd_atomic);
#undef TAKE
}

int ibv_modify_qp(struct ibv_qp *verbs, struct ibv_qp_attr *in, int mask) {
  struct queue_pair *pair = (struct queue_pair *)verbs;
  struct slot *slot = &slots[pair->slot];
  int from = slot->state, to = mask & IBV_QP_STATE ? (int)in->qp_state : from;
  int required = mask & IBV_QP_STATE ? required_fields(from, to) : 0;
  if (required < 0 || (mask & required) != required || !are_good(pair, in, mask)) {
    TRACE("qp 0x%x: %d -> %d refused (mask 0x%x)\n", verbs->qp_num, from, to, mask);
    return EINVAL;
  }
  if (to == IBV_QPS_ERR && from != to && settings.troubles && has_device(settings.stiff_devices, verbs->context))
    return (int)settings.stiff_errno;
  if (!settings.atomics && (mask & IBV_QP_ACCESS_FLAGS) && (in->qp_access_flags & IBV_ACCESS_REMOTE_ATOMIC))
    return EOPNOTSUPP;
  take_fields(&pair->attributes, in, mask);
  if (mask & IBV_QP_DEST_QPN)
    atomic_store(&slot->peer, in->dest_qp_num);
  if (mask & IBV_QP_ACCESS_FLAGS)
    atomic_store(&slot->access, (int)in->qp_access_flags);
  if (mask & IBV_QP_STATE) {
    TRACE("qp 0x%x: %d -> %d, peer 0x%x\n", verbs->qp_num, from, to, slot->peer);
    int is_silent = to == IBV_QPS_RTS && settings.silent_device &&
                    (uint64_t)((struct context *)verbs->context)->index + 1 == settings.silent_device;
    atomic_store(&slot->state, is_silent ? SILENT : to);
    verbs->state = in->qp_state;
    if (to == IBV_QPS_ERR && (settings.silent_device || settings.troubles) &&
        !has_device(settings.stuck_devices, verbs->context))
      flush_open(pair);
    if (to == IBV_QPS_ERR)
      bring_late_writes(slot);
  }
  if (to == IBV_QPS_RESET && from != IBV_QPS_RESET) {
    drop_completions((struct completion_queue *)verbs->send_cq, pair);
    pair->sent = 0;
    forget_open(pair);
    pair->retired = 0;
  }
  return 0;
}

static void fold_counters(struct queue_pair *pair) {
  counters.post_calls += pair->post_calls;
  counters.requests += pair->requests;
  counters.refused += pair->refused;
  counters.bytes += pair->bytes;
  fold_poll_counters((struct completion_queue *)pair->verbs.send_cq);
}

void fold_live_counters(void) {
  for (uint32_t i = 0; i < MAX_QUEUE_PAIRS; i++)
    if (slots[i].queue_pair)
      fold_counters(slots[i].queue_pair);
}

int ibv_destroy_qp(struct ibv_qp *verbs) {
  if (settings.destroy_qp_ns && has_device(settings.slow_destroys, verbs->context)) {
    waiting_calls++;
    take_time(settings.destroy_qp_ns);
    waiting_calls--;
  }
  struct queue_pair *pair = (struct queue_pair *)verbs;
  struct slot *slot = &slots[pair->slot];
  atomic_store(&slot->number, 0);
  atomic_store(&slot->state, IBV_QPS_RESET);
  while (atomic_load(&slot->events)) sched_yield();
  lock(&pair->lock); // a post that races with this, which is the caller's mistake, leaves first
  unlock(&pair->lock);
  drop_completions((struct completion_queue *)verbs->send_cq, pair);
  lock(&slots_lock);
  slot->queue_pair = NULL;
  unlock(&slots_lock);
  ((struct domain *)verbs->pd)->users--;
  fold_counters(pair);
  ((struct completion_queue *)verbs->send_cq)->users--;
  ((struct completion_queue *)verbs->recv_cq)->users--;
  counters.queue_pairs--;
  forget_open(pair);
  free(pair->lost);
  free(pair->open_ids);
  memset(pair, 0xdd, sizeof *pair); // so that a use after the end is detected
  free(pair);
  return 0;
}
