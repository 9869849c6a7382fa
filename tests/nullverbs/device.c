// Devices: the list, contexts, queries, asynchronous events.
#define _GNU_SOURCE
#include "nullverbs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct ibv_device devices[MAX_DEVICES];
static struct context *contexts;
static struct lock contexts_lock;

__attribute__((constructor)) static void name_devices(void) {
  for (int i = 0; i < MAX_DEVICES; i++) {
    struct ibv_device *device = &devices[i];
    device->node_type = IBV_NODE_CA;
    device->transport_type = IBV_TRANSPORT_IB;
    snprintf(device->name, sizeof device->name, "nv%d", i);
    snprintf(device->dev_name, sizeof device->dev_name, "uverbs%d", i);
    snprintf(device->dev_path, sizeof device->dev_path, "/sys/class/infiniband_verbs/uverbs%d", i);
    snprintf(device->ibdev_path, sizeof device->ibdev_path, "/sys/class/infiniband/nv%d", i);
  }
}

static int index_of(struct ibv_context *context) {
  return ((struct context *)context)->index;
}

struct ibv_device **ibv_get_device_list(int *count) {
  struct ibv_device **list = calloc(settings.devices + 1, sizeof *list);
  if (!list)
    return NULL;
  for (uint64_t i = 0; i < settings.devices; i++) list[i] = &devices[i];
  if (count)
    *count = (int)settings.devices;
  return list;
}

void ibv_free_device_list(struct ibv_device **list) {
  free(list);
}
const char *ibv_get_device_name(struct ibv_device *device) {
  return device->name;
}
__be64 ibv_get_device_guid(struct ibv_device *device) {
  return guid_of(device - devices);
}
int ibv_get_device_index(struct ibv_device *device) {
  return (int)(device - devices);
}

struct ibv_context *ibv_open_device(struct ibv_device *device) {
  struct context *context = calloc(1, sizeof *context);
  int ends[2];
  if (!context || pipe2(ends, O_CLOEXEC)) {
    free(context);
    return NULL;
  }
  fcntl(ends[1], F_SETFL, O_NONBLOCK);
  context->index = (int)(device - devices);
  context->event_writer = ends[1];
  struct ibv_context *verbs = &context->verbs;
  verbs->device = device;
  verbs->async_fd = ends[0];
  verbs->cmd_fd = -1;
  verbs->num_comp_vectors = (int)settings.vectors;
  verbs->abi_compat = NULL; // not extended: ibv_query_port comes through the plain symbol
  pthread_mutex_init(&verbs->mutex, NULL);
  verbs->ops.poll_cq = poll_completions;
  verbs->ops.req_notify_cq = arm_completions;
  verbs->ops.post_send = settings.oldest_errors ? post_send_oldest_errors
                         : settings.rate        ? post_send_at_rate
                                                : post_send;
  lock(&contexts_lock);
  context->next = contexts;
  contexts = context;
  unlock(&contexts_lock);
  counters.contexts++;
  return verbs;
}

int ibv_close_device(struct ibv_context *verbs) {
  lock(&contexts_lock);
  struct context **link = &contexts;
  while (&(*link)->verbs != verbs) link = &(*link)->next;
  *link = (*link)->next;
  unlock(&contexts_lock);
  close(verbs->async_fd);
  close(((struct context *)verbs)->event_writer);
  free(verbs);
  counters.contexts--;
  return 0;
}

int ibv_query_device(struct ibv_context *context, struct ibv_device_attr *out) {
  *out = (struct ibv_device_attr){
      .fw_ver = "0.0.nullverbs",
      .node_guid = guid_of(index_of(context)),
      .sys_image_guid = guid_of(index_of(context)),
      .max_mr_size = largest_region(context),
      .page_size_cap = 0xfffff000,
      .vendor_id = (uint32_t)settings.vendor,
      .vendor_part_id = (uint32_t)settings.part,
      .max_qp = MAX_QUEUE_PAIRS - 1,
      .max_qp_wr = (int)settings.max_depth,
      .max_sge = MAX_SGE,
      .max_sge_rd = MAX_SGE,
      .max_cq = 1 << 20,
      .max_cqe = 4194303,
      .max_mr = MAX_REGIONS - 1,
      .max_pd = 1 << 20,
      .max_qp_rd_atom = 16,
      .max_qp_init_rd_atom = 16,
      .max_res_rd_atom = 1 << 20,
      .atomic_cap = settings.atomics ? IBV_ATOMIC_HCA : IBV_ATOMIC_NONE,
      .max_pkeys = 1,
      .local_ca_ack_delay = 15,
      .phys_port_cnt = 1,
  };
  return 0;
}

int ibv_query_port(struct ibv_context *context, uint8_t port, struct _compat_ibv_port_attr *out) {
  struct ibv_port_attr *attributes = (struct ibv_port_attr *)out;
  if (port != 1)
    return EINVAL;
  attributes->state =
      has_device(settings.down_ports, context) ? IBV_PORT_DOWN : (enum ibv_port_state)settings.port_state;
  attributes->max_mtu = IBV_MTU_4096;
  attributes->active_mtu = mtu_of(context);
  attributes->gid_tbl_len = (int)settings.gids;
  attributes->port_cap_flags = IBV_PORT_CM_SUP;
  attributes->max_msg_sz = (uint32_t)settings.max_message;
  attributes->pkey_tbl_len = 1;
  attributes->lid = lid_of(index_of(context));
  attributes->max_vl_num = 1;
  attributes->active_width = has_device(settings.narrow_ports, context) ? 1 : 2; // one lane, or 4
  attributes->active_speed = (uint8_t)settings.port_speed;
  attributes->phys_state = 5;
  attributes->link_layer = settings.hide_link_layer           ? IBV_LINK_LAYER_UNSPECIFIED
                           : is_infiniband(index_of(context)) ? IBV_LINK_LAYER_INFINIBAND
                                                              : IBV_LINK_LAYER_ETHERNET;
  attributes->flags = settings.grh_required ? IBV_QPF_GRH_REQUIRED : 0;
  return 0;
}

int ibv_query_pkey(struct ibv_context *context, uint8_t port, int index, __be16 *out) {
  (void)context;
  if (port != 1 || index)
    return -1;
  *out = htobe16(0xffff);
  return 0;
}

// ---- asynchronous events --------------------------------------------------------------------------------------------

struct event_record {
  enum ibv_event_type type;
  uint32_t number;
};

void raise_event(struct ibv_context *context, enum ibv_event_type type, uint32_t number) {
  struct event_record record = {type, number};
  ssize_t written = write(((struct context *)context)->event_writer, &record, sizeof record);
  (void)written; // a full pipe drops events, as a full kernel queue would
}

void nullverbs_raise(int type, int device) {
  if (device < 0 && type == IBV_EVENT_PORT_ERR)
    settings.port_state = IBV_PORT_DOWN;
  if (device < 0 && type == IBV_EVENT_PORT_ACTIVE)
    settings.port_state = IBV_PORT_ACTIVE;
  if (device >= 0 && type == IBV_EVENT_PORT_ERR)
    settings.down_ports |= 1ull << device;
  if (type == IBV_EVENT_PORT_ACTIVE)
    settings.down_ports &= device < 0 ? 0 : ~(1ull << device);
  lock(&contexts_lock);
  for (struct context *context = contexts; context; context = context->next) {
    if (device >= 0 && context->index != device)
      continue;
    if (type == IBV_EVENT_QP_FATAL)
      fail_queue_pairs_of(&context->verbs, IBV_EVENT_QP_FATAL);
    else
      raise_event(&context->verbs, (enum ibv_event_type)type, 0);
  }
  unlock(&contexts_lock);
}

static int is_about_queue_pair(enum ibv_event_type type) {
  return type == IBV_EVENT_QP_FATAL || type == IBV_EVENT_QP_REQ_ERR || type == IBV_EVENT_QP_ACCESS_ERR;
}

int ibv_get_async_event(struct ibv_context *context, struct ibv_async_event *out) {
  for (;;) {
    struct event_record record;
    ssize_t got = read(context->async_fd, &record, sizeof record);
    if (got < 0 && errno == EINTR)
      continue;
    if (got != sizeof record)
      return -1;
    memset(out, 0, sizeof *out);
    out->event_type = record.type;
    if (!is_about_queue_pair(record.type)) {
      out->element.port_num = 1; // what is about the device has no element
      return 0;
    }
    // The events of a destroyed queue pair go with it; one that was being destroyed when this was raised had no number any more.
    if (!record.number)
      continue;
    struct slot *slot = &slots[record.number & (MAX_QUEUE_PAIRS - 1)];
    atomic_fetch_add(&slot->events, 1);
    if (slot_of(record.number) != slot) {
      atomic_fetch_sub(&slot->events, 1);
      continue;
    }
    out->element.qp = &slot->queue_pair->verbs;
    return 0;
  }
}

void ibv_ack_async_event(struct ibv_async_event *event) {
  if (is_about_queue_pair(event->event_type))
    atomic_fetch_sub(&slots[((struct queue_pair *)event->element.qp)->slot].events, 1);
}

static _Atomic uint64_t fork_inits;

// Has no effect here but to record that it was called, and when.
int ibv_fork_init(void) {
  fork_inits += counters.contexts ? 1000 : 1;
  if (!settings.fork_errno)
    settings.fork_status = IBV_FORK_ENABLED;
  return (int)settings.fork_errno;
}
enum ibv_fork_status ibv_is_fork_initialized(void) {
  return (enum ibv_fork_status)settings.fork_status;
}
uint64_t nullverbs_fork_inits(void) {
  return fork_inits;
}
