// nullverbs: a libibverbs.so.1 with devices that exist in this process only. See README.md.
#pragma once

#include <infiniband/verbs.h>
// The header wraps these in macros for its callers; here they are defined.
#undef ibv_get_device_list
#undef ibv_query_port
#undef ibv_reg_mr
#undef ibv_reg_mr_iova

#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#define MAX_DEVICES 32
#define MAX_REGIONS 65536     // a power of two: a key is slot << 8 | generation
#define MAX_QUEUE_PAIRS 65536 // a power of two: a number is generation << 16 | slot
#define MAX_SGE 30
#define MAX_INLINE 1024
#define MAX_VECTORS 64
#define SILENT 100 // state of a slot: its queue pair is in RTS and does not answer
#define CACHE_LINE __attribute__((aligned(64)))

// ---- settings (settings.c) ------------------------------------------------------------------------------------------

struct settings {
  uint64_t devices;        // how many to list
  uint64_t copy;           // 0: check everything, move nothing
  uint64_t doorbell_errno; // lists are accepted and then refused with this, as if the doorbell failed
  uint64_t delay_ns;       // a completion becomes visible this long after its post
  uint64_t rate;           // bytes that a device moves in a microsecond, one request after the other; 0: any number
  uint64_t reg_ns;         // a registration takes so long
  uint64_t dereg_ns;       // ibv_dereg_mr takes so long
  uint64_t held_devices;   // a bit for each device: a registration with it takes until the bit is cleared
  uint64_t create_qp_ns;   // ibv_create_qp takes so long
  uint64_t destroy_qp_ns;  // ibv_destroy_qp takes so long
  uint64_t slow_destroys;  // a bit for each device of which that is true
  uint64_t stats;          // print counters at exit
  uint64_t trace;          // print state changes and errors
  uint64_t max_message;    // bytes of one request
  uint64_t max_region;     // bytes of one region
  uint64_t region_step;    // added to it for each further device
  uint64_t max_depth;      // requests of a queue pair
  uint64_t gids;           // length of the GID table: [0] link-local, [1] IPv4-mapped, rest empty; 1: [0] IPv4-mapped
  uint64_t port_state;     // enum ibv_port_state
  uint64_t link_layer;     // 1 InfiniBand, 2 Ethernet
  uint64_t other_links;    // a bit for each device: it has the other link layer
  uint64_t small_mtus;     // a bit for each device: its MTU is 1024, and a queue pair with a larger one is EINVAL
  uint64_t locked_bytes;   // bytes that can be registered before ENOMEM
  uint64_t address;        // IPv4 address of the mapped GID, host order; 0: the host's own
  uint64_t fork_status;    // enum ibv_fork_status
  uint64_t fork_errno;     // answer of ibv_fork_init
  uint64_t atomics;        // 0: no atomics, and a queue pair that offers them to peers is refused
  uint64_t true_max_message; // bytes of one request where max_message, which the port reports, is 0
  uint64_t grh_required;     // 1: the port wants a global route header with every address (InfiniBand)
  uint64_t subnet_prefix;    // of GID [0] of the first device, host order
  uint64_t subnet_step;      // added to it for each further device
  uint64_t stale_gids;       // entries of an interface that is gone, between [0] and the host's address
  uint64_t refused_gids;     // bits of the GID indices from which no address can be reached
  uint64_t traffic_class;    // not 0: queue pairs with another one are refused
  uint64_t gid_calls;        // 2: ibv_query_gid_table and ibv_query_gid_ex, 1: the latter, 0: neither
  uint64_t hide_link_layer;  // 1: the port reports no link layer
  uint64_t no_rc;            // a bit for each device: its reliable connected queue pairs are EOPNOTSUPP
  uint64_t least_depth;      // a queue pair for fewer requests is EINVAL
  uint64_t max_inline;       // a queue pair with more inline room is EINVAL
  uint64_t queue_bytes;      // a send queue that takes more of them is EINVAL; 0: any
  uint64_t grant_depth, grant_sge,
      grant_inline;         // a queue pair gets at most so much of each, whatever is asked; 0: all
  uint64_t granting;        // a bit for each device of which the grants are these; the others grant all
  uint64_t oldest_errors;   // 1: the first failure of a queue pair is reported on its oldest request
  uint64_t silent_device;   // number of a device, from 1: its queue pairs never answer; 0: none
  uint64_t least_cqe;       // a completion queue with fewer entries is EINVAL
  uint64_t short_cqs;       // a bit for each device: a completion queue with more than 4096 entries is ENOMEM
  uint64_t vectors;         // completion vectors
  uint64_t vendor, part;    // of the attributes
  uint64_t dma_buf;         // 0: no dma-buf can be registered
  uint64_t late_writes;     // WRITEs are in the memory of a dma-buf only once a READ of its region has followed
  uint64_t troubles;        // 1: the following are looked at, and may be changed while requests are posted
  uint64_t silent_devices;  // a bit for each device: requests from and to it are lost, and sent again once it is not
  uint64_t slow_devices;    // likewise: its completions become visible slow_ns later
  uint64_t slow_ns;         // see slow_devices
  uint64_t failing_devices; // likewise: every fail_every-th request of a queue pair fails as retries exceeded
  uint64_t fail_every;      // see failing_devices
  uint64_t unreachable;     // bit 8 * i + j: requests from device i to device j fail as retries exceeded
  uint64_t stuck_devices;   // likewise: what is outstanding when a queue pair goes to ERROR is not flushed
  uint64_t stiff_devices;   // likewise: its queue pairs are not moved to ERROR, with stiff_errno
  uint64_t stiff_errno;     // see stiff_devices
  uint64_t down_ports;      // likewise: its port is down; nullverbs_raise sets and clears it
  uint64_t narrow_ports;    // a bit for each device: its port has one lane of four
  uint64_t port_speed;      // that of each lane of a port, as ibv_port_attr has it: 1 for 2.5 Gb/s, 32 for 25 Gb/s
};
extern struct settings settings;

// Sets one of the above by its name; 0, or EINVAL. At load time the environment sets it: NULLVERBS_<NAME>.
int nullverbs_set(const char *name, uint64_t value);
// Applies the settings of profiles, a list of names with commas between; 0, or EINVAL for a name that does not exist. At
// load time the environment does: NULLVERBS_PROFILE, before the single settings.
int nullverbs_profile(const char *names);

// The objects that exist now. Exported for tests that look for leaks.
struct nullverbs_live {
  int64_t contexts, domains, regions, completion_queues, queue_pairs;
};
void nullverbs_live(struct nullverbs_live *out);

// How often ibv_fork_init was called; a call with a context open counts 1000.
uint64_t nullverbs_fork_inits(void);

// Calls that wait: registrations for held_devices, destroys for destroy_qp_ns.
uint64_t nullverbs_held(void);

// Completion queues that exist on a vector.
uint64_t nullverbs_queues_on(uint64_t vector);

// Raises an asynchronous event on each context of a device: of its port, of the device, or of every queue pair (which goes to
// ERROR). `device` is its index; -1 stands for all. The state of their ports follows.
void nullverbs_raise(int type, int device);

struct counters {
  _Atomic int64_t contexts, domains, regions, completion_queues, queue_pairs; // alive
  _Atomic uint64_t post_calls, requests, refused, bytes, error_completions;
  _Atomic uint64_t poll_calls, empty_polls, completions, overruns, discarded;
};
extern struct counters counters;

#define TRACE(...)                                \
  do {                                            \
    if (settings.trace)                           \
      fprintf(stderr, "nullverbs: " __VA_ARGS__); \
  } while (0)

// ---- small tools ----------------------------------------------------------------------------------------------------

struct lock {
  _Atomic int held;
};

static inline void lock(struct lock *lock) {
  for (int spins = 0; atomic_exchange_explicit(&lock->held, 1, memory_order_acquire);) {
    while (atomic_load_explicit(&lock->held, memory_order_relaxed)) {
      if (++spins > 200) {
        sched_yield();
        spins = 0;
      }
    }
  }
}

static inline void unlock(struct lock *lock) {
  atomic_store_explicit(&lock->held, 0, memory_order_release);
}

static inline uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

// A command of a slow device.
static inline void take_time(uint64_t ns) {
  if (ns)
    nanosleep(&(struct timespec){(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)}, NULL);
}

// ---- objects --------------------------------------------------------------------------------------------------------

struct context {
  struct ibv_context verbs;
  int index;
  int event_writer; // async events go through a pipe; its reading end is verbs.async_fd
  struct context *next;
};

struct domain {
  struct ibv_pd verbs;
  _Atomic int users;
};

// A region's slot outlives the region, so a stale key can be looked at safely.
struct region {
  _Atomic uint32_t key; // 0: none
  int access;
  uint64_t start, length;
  uint64_t offset; // address = start + offset; not zero if the region has an I/O virtual address of its own
  struct ibv_pd *domain;
  _Atomic int users; // copies under way
  uint8_t generation, used;
} CACHE_LINE;
extern struct region regions[MAX_REGIONS];

// What a region has that is one of a dma-buf; by the region's slot.
struct dma_buf {
  char *pages; // mapped for the region
  size_t bytes;
  char *late; // what was written to the region, and is in its memory after the next READ; NULL if it is there at once
};
extern struct dma_buf dma_bufs[MAX_REGIONS];
extern _Atomic uint64_t waiting_calls;

struct queue_pair;

struct completion {
  uint64_t id, visible_at;
  struct queue_pair *owner;
  uint32_t number, length, send_position;
  enum ibv_wc_status status;
  enum ibv_wc_opcode opcode;
};

struct completion_queue {
  struct ibv_cq verbs;
  struct lock lock CACHE_LINE;
  _Atomic uint64_t head, tail;
  uint64_t capacity; // a power of two
  struct completion *ring;
  int overrun;
  _Atomic int armed;
  _Atomic int users;
  uint32_t events; // delivered by ibv_get_cq_event
  uint64_t poll_calls, empty_polls, completions;
  uint32_t vector;
};

struct queue_pair {
  struct ibv_qp verbs;
  struct lock lock CACHE_LINE;
  uint32_t sent;            // requests posted, ever
  _Atomic uint32_t retired; // of these, polled or known to be done by a later one polled
  uint32_t depth, max_sge, max_inline;
  uint32_t slot;
  struct ibv_qp_init_attr init;
  struct ibv_qp_attr attributes;
  uint64_t post_calls, requests, refused, bytes;
  // Ids of requests that have no completion yet: of those that a silent device does not answer, or since the last completion where
  // errors are reported on the oldest. NULL if neither is played.
  uint64_t *open_ids;
  uint32_t open_count;
  // Copies of the requests in open_ids, where devices are in trouble: they are sent again. NULL otherwise.
  struct ibv_send_wr **lost;
};

// What a peer's post may read of a queue pair, without a lock and even after its end.
struct slot {
  _Atomic uint32_t number; // 0: none
  _Atomic int state;       // enum ibv_qp_state
  _Atomic uint32_t peer;
  _Atomic int access;
  struct ibv_pd *_Atomic domain;
  struct ibv_context *context;
  struct queue_pair *queue_pair;
  _Atomic int events; // delivered and not acknowledged: its end waits for them
  uint8_t generation;
} CACHE_LINE;
extern struct slot slots[MAX_QUEUE_PAIRS];

// Whether a mask of devices has that of a context.
static inline int has_device(uint64_t mask, const struct ibv_context *context) {
  return mask >> ((const struct context *)context)->index & 1;
}

static inline enum ibv_mtu mtu_of(const struct ibv_context *context) {
  return has_device(settings.small_mtus, context) ? IBV_MTU_1024 : IBV_MTU_4096;
}

// Bytes of the largest region of a device.
static inline uint64_t largest_region(const struct ibv_context *context) {
  uint64_t further = settings.region_step * (uint64_t)((const struct context *)context)->index;
  return settings.max_region > UINT64_MAX - further ? UINT64_MAX : settings.max_region + further;
}

// Whether the setting `unreachable` has a pair of devices.
static inline int is_cut_off(const struct ibv_context *from, const struct ibv_context *to) {
  long own = ((const struct context *)from)->index, other = ((const struct context *)to)->index;
  return own < 8 && other < 8 && (settings.unreachable >> (8 * own + other) & 1);
}

static inline struct slot *slot_of(uint32_t number) {
  struct slot *slot = &slots[number & (MAX_QUEUE_PAIRS - 1)];
  return atomic_load_explicit(&slot->number, memory_order_acquire) == number ? slot : NULL;
}

// ---- between the files ----------------------------------------------------------------------------------------------

// addresses.c: of the device of an index; the GUID in network order, and 0 for the LID of an Ethernet port.
uint64_t guid_of(long index);
int is_infiniband(long index);
uint16_t lid_of(long index);
// addresses.c: whether packets to `address` reach queue pair `peer`.
int is_good_address(struct ibv_context *context, const struct ibv_ah_attr *address, uint32_t peer);
// device.c: queues an asynchronous event about queue pair `number`, or about the whole device if that is 0.
void raise_event(struct ibv_context *context, enum ibv_event_type type, uint32_t number);
// completion.c: appends, and wakes the channel if armed.
void push_completions(struct completion_queue *queue, const struct completion *list, int count);
// completion.c: removes what a queue pair that ends has left.
void drop_completions(struct completion_queue *queue, const struct queue_pair *owner);
// completion.c, queue_pair.c: objects count for themselves while in use; these add that to the counters of all.
void fold_poll_counters(struct completion_queue *queue);
void fold_live_counters(void);
// queue_pair.c: moves to ERROR.
void fail_queue_pair(struct slot *slot, const char *why);
// queue_pair.c: moves every queue pair of a context to ERROR, with an event of that type.
void fail_queue_pairs_of(struct ibv_context *context, enum ibv_event_type type);
// memory.c: where a request finds the memory of such a region; says that a WRITE has put bytes there.
char *late_memory(struct region *region, char *memory, int reading);
void mark_late(const struct region *region, const char *late, size_t length);
// memory.c: what was written to regions of a domain is in their memory, without a READ.
void late_writes_arrive(const struct ibv_pd *domain);
// post.c
int post_send(struct ibv_qp *qp, struct ibv_send_wr *list, struct ibv_send_wr **refused);
int post_send_oldest_errors(struct ibv_qp *qp, struct ibv_send_wr *list, struct ibv_send_wr **refused);
int post_send_at_rate(struct ibv_qp *qp, struct ibv_send_wr *list, struct ibv_send_wr **refused);
void flush_open(struct queue_pair *pair);
// post.c: forgets what is outstanding; carries it out, as far as that is answered now.
void forget_open(struct queue_pair *pair);
void send_again(struct queue_pair *pair);
// queue_pair.c: for all queue pairs.
void send_all_again(void);
// completion.c
int poll_completions(struct ibv_cq *cq, int most, struct ibv_wc *out);
int arm_completions(struct ibv_cq *cq, int solicited_only);
