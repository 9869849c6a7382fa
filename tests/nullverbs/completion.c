// Completion channels and completion queues.
#define _GNU_SOURCE
#include "nullverbs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// A channel is a pipe that carries pointers to queues; ibv_comp_channel has no field for its writing end but refcnt,
// which only the library itself looks at.
struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *context) {
  struct ibv_comp_channel *channel = calloc(1, sizeof *channel);
  int ends[2];
  if (!channel || pipe2(ends, O_CLOEXEC)) {
    free(channel);
    return NULL;
  }
  fcntl(ends[1], F_SETFL, O_NONBLOCK);
  channel->context = context;
  channel->fd = ends[0];
  channel->refcnt = ends[1];
  return channel;
}

int ibv_destroy_comp_channel(struct ibv_comp_channel *channel) {
  close(channel->fd);
  close(channel->refcnt);
  free(channel);
  return 0;
}

static _Atomic uint64_t queues_on[MAX_VECTORS];

uint64_t nullverbs_queues_on(uint64_t vector) {
  return vector < MAX_VECTORS ? queues_on[vector] : 0;
}

struct ibv_cq *ibv_create_cq(struct ibv_context *context, int entries, void *user, struct ibv_comp_channel *channel,
                             int vector) {
  if (entries > 4096 && has_device(settings.short_cqs, context)) {
    errno = ENOMEM;
    return NULL;
  }
  int is_possible = entries > 0 && (uint64_t)entries >= settings.least_cqe && vector >= 0 &&
                    (uint64_t)vector < settings.vectors && vector < MAX_VECTORS;
  struct completion_queue *queue = is_possible ? aligned_alloc(64, sizeof *queue) : NULL;
  if (!queue) {
    errno = EINVAL;
    return NULL;
  }
  memset(queue, 0, sizeof *queue);
  queue->capacity = 1;
  while (queue->capacity < (uint64_t)entries) queue->capacity <<= 1;
  queue->ring = calloc(queue->capacity, sizeof *queue->ring);
  queue->verbs.context = context;
  queue->verbs.channel = channel;
  queue->verbs.cq_context = user;
  queue->verbs.cqe = (int)queue->capacity;
  pthread_mutex_init(&queue->verbs.mutex, NULL);
  pthread_cond_init(&queue->verbs.cond, NULL);
  queue->vector = (uint32_t)vector;
  queues_on[vector]++;
  counters.completion_queues++;
  return &queue->verbs;
}

int ibv_destroy_cq(struct ibv_cq *verbs) {
  struct completion_queue *queue = (struct completion_queue *)verbs;
  // A real library waits here for the missing acknowledgements, that is for ever.
  if (queue->users || queue->events != verbs->comp_events_completed)
    return EBUSY;
  queues_on[queue->vector]--;
  free(queue->ring);
  free(queue);
  counters.completion_queues--;
  return 0;
}

void fold_poll_counters(struct completion_queue *queue) {
  counters.poll_calls += queue->poll_calls;
  counters.empty_polls += queue->empty_polls;
  counters.completions += queue->completions;
  queue->poll_calls = queue->empty_polls = queue->completions = 0;
}

int ibv_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **user) {
  for (;;) {
    ssize_t got = read(channel->fd, cq, sizeof *cq);
    if (got < 0 && errno == EINTR)
      continue;
    if (got != sizeof *cq)
      return -1;
    ((struct completion_queue *)*cq)->events++;
    *user = (*cq)->cq_context;
    return 0;
  }
}

void ibv_ack_cq_events(struct ibv_cq *cq, unsigned count) {
  cq->comp_events_completed += count;
}

static void wake(struct completion_queue *queue) {
  if (!queue->verbs.channel || !atomic_exchange(&queue->armed, 0))
    return;
  struct ibv_cq *cq = &queue->verbs;
  ssize_t written = write(cq->channel->refcnt, &cq, sizeof cq);
  (void)written;
}

// Whether a completion may be there before it is visible.
static inline int is_timed(void) {
  return (settings.delay_ns | settings.troubles | settings.rate) != 0;
}

int arm_completions(struct ibv_cq *cq, int solicited_only) {
  struct completion_queue *queue = (struct completion_queue *)cq;
  (void)solicited_only;
  atomic_store(&queue->armed, 1);
  // What is there but not yet visible will raise no event of its own: wake at once rather than never.
  if (is_timed() && queue->head != queue->tail)
    wake(queue);
  return 0;
}

void push_completions(struct completion_queue *queue, const struct completion *list, int count) {
  uint64_t lost = 0;
  lock(&queue->lock);
  uint64_t head = queue->head;
  for (int i = 0; i < count; i++) {
    if (head - queue->tail >= queue->capacity) {
      lost++;
      continue;
    }
    queue->ring[head & (queue->capacity - 1)] = list[i];
    head++;
  }
  atomic_store_explicit(&queue->head, head, memory_order_release);
  int first = lost && !queue->overrun;
  queue->overrun |= lost > 0;
  unlock(&queue->lock);
  if (lost) {
    counters.overruns += lost;
    if (first) {
      fprintf(stderr, "nullverbs: a completion queue of %lu entries was overrun\n", queue->capacity);
      raise_event(queue->verbs.context, IBV_EVENT_CQ_ERR, 0);
    }
  }
  wake(queue);
}

int poll_completions(struct ibv_cq *cq, int most, struct ibv_wc *out) {
  struct completion_queue *queue = (struct completion_queue *)cq;
  queue->poll_calls++;
  if (atomic_load_explicit(&queue->head, memory_order_acquire) ==
      atomic_load_explicit(&queue->tail, memory_order_relaxed)) {
    queue->empty_polls++;
    return 0;
  }
  uint64_t now = is_timed() ? now_ns() : UINT64_MAX;
  int count = 0;
  lock(&queue->lock);
  uint64_t tail = queue->tail, head = queue->head;
  while (count < most && tail != head) {
    const struct completion *completion = &queue->ring[tail & (queue->capacity - 1)];
    if (completion->visible_at > now)
      break;
    struct ibv_wc *wc = &out[count++];
    tail++;
    *wc = (struct ibv_wc){
        .wr_id = completion->id,
        .status = completion->status,
        .opcode = completion->opcode,
        .vendor_err = completion->status ? 0x51 : 0,
        .byte_len = completion->length,
        .qp_num = completion->number,
    };
    atomic_store_explicit(&completion->owner->retired, completion->send_position, memory_order_release);
  }
  atomic_store_explicit(&queue->tail, tail, memory_order_release);
  queue->completions += (uint64_t)count;
  unlock(&queue->lock);
  return count;
}

void drop_completions(struct completion_queue *queue, const struct queue_pair *owner) {
  lock(&queue->lock);
  uint64_t mask = queue->capacity - 1, kept = queue->tail;
  for (uint64_t at = queue->tail; at != queue->head; at++) {
    struct completion completion = queue->ring[at & mask];
    if (completion.owner != owner)
      queue->ring[kept++ & mask] = completion;
  }
  counters.discarded += queue->head - kept;
  atomic_store(&queue->head, kept);
  unlock(&queue->lock);
}
