/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver of UCX: ucp_put_nbx and ucp_get_nbx on one endpoint, completed before the next transfer begins.
 *
 *   ucx target anonymous|shared poll|sleep
 *   ucx initiator anonymous|shared LINE_OF_THE_TARGET
 *
 * anonymous: the pools are memory of the program; shared: UCX allocates them, so that both processes can map them.
 * poll: the target makes progress all the time; sleep: only when something has arrived for it. UCX_TLS chooses the
 * path.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucp/api/ucp.h>
#include <unistd.h>

#include "measure.h"

/* Bytes of an address or a key on the target's line. */
#define MOST_BYTES 8192

struct end {
  ucp_context_h context;
  ucp_worker_h worker;
  ucp_mem_h memory;
  unsigned char *pool;
};

struct initiator {
  struct end end;
  ucp_ep_h endpoint;
  ucp_rkey_h key;
  const struct plan *plan;
  void *requests[POOL_BYTES / 4096];
};

static void require(ucs_status_t status, const char *what) {
  if (status != UCS_OK)
    measure_fail("%s: %s", what, ucs_status_string(status));
}

static void open_end(struct end *end, enum side side, int shared, int sleeps) {
  ucp_params_t params = {.field_mask = UCP_PARAM_FIELD_FEATURES, .features = UCP_FEATURE_RMA};
  if (sleeps)
    params.features |= UCP_FEATURE_WAKEUP;
  require(ucp_init(&params, NULL, &end->context), "ucp_init");
  const ucp_worker_params_t worker = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                                      .thread_mode = UCS_THREAD_MODE_SINGLE};
  require(ucp_worker_create(end->context, &worker, &end->worker), "ucp_worker_create");

  ucp_mem_map_params_t map = {
      .field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH | UCP_MEM_MAP_PARAM_FIELD_FLAGS,
      .length = POOL_BYTES};
  if (shared)
    map.flags = UCP_MEM_MAP_ALLOCATE;
  else
    map.address = measure_pool(side);
  require(ucp_mem_map(end->context, &map, &end->memory), "ucp_mem_map");
  ucp_mem_attr_t attributes = {.field_mask = UCP_MEM_ATTR_FIELD_ADDRESS};
  require(ucp_mem_query(end->memory, &attributes), "ucp_mem_query");
  end->pool = attributes.address;
  if (shared)
    measure_fill(end->pool, side);
}

static const char *to_hex(const void *bytes, size_t length, char *text) {
  if (length > MOST_BYTES)
    measure_fail("an address or key of %zu bytes: more than MOST_BYTES", length);
  text[0] = '\0';
  for (size_t i = 0; i < length; ++i) sprintf(text + 2 * i, "%02x", ((const unsigned char *)bytes)[i]);
  return text;
}

/* Reads the hexadecimal bytes up to the next comma or the end; answers where the text goes on. */
static const char *read_hex(const char *text, unsigned char *bytes) {
  for (size_t i = 0; i < MOST_BYTES && *text != '\0' && *text != ','; ++i, text += 2) {
    unsigned byte;
    if (sscanf(text, "%2x", &byte) != 1)
      measure_fail("not the line of a target");
    bytes[i] = (unsigned char)byte;
  }
  return *text == ',' ? text + 1 : text;
}

static void run_target(int shared, int sleeps) {
  struct end end;
  open_end(&end, TARGET, shared, sleeps);
  ucp_address_t *address;
  size_t address_bytes, key_bytes;
  void *key;
  require(ucp_worker_get_address(end.worker, &address, &address_bytes), "ucp_worker_get_address");
  require(ucp_rkey_pack(end.context, end.memory, &key, &key_bytes), "ucp_rkey_pack");
  static char address_text[2 * MOST_BYTES + 1], key_text[2 * MOST_BYTES + 1];
  measure_say("%d,%llu,%s,%s", (int)getpid(), (unsigned long long)(uintptr_t)end.pool,
              to_hex(address, address_bytes, address_text), to_hex(key, key_bytes, key_text));

  struct pollfd events = {.fd = -1, .events = POLLIN};
  if (sleeps)
    require(ucp_worker_get_efd(end.worker, &events.fd), "ucp_worker_get_efd");
  for (;;) {
    while (ucp_worker_progress(end.worker) != 0) {
    }
    if (sleeps && ucp_worker_arm(end.worker) == UCS_OK)
      poll(&events, 1, -1);
  }
}

static void wait_for(ucp_worker_h worker, void *request, const char *what) {
  if (request == NULL)
    return;
  if (UCS_PTR_IS_ERR(request))
    measure_fail("%s: %s", what, ucs_status_string(UCS_PTR_STATUS(request)));
  ucs_status_t status;
  while ((status = ucp_request_check_status(request)) == UCS_INPROGRESS) ucp_worker_progress(worker);
  require(status, what);
  ucp_request_free(request);
}

static void prepare(void *context, const struct plan *plan) {
  ((struct initiator *)context)->plan = plan;
}

static void transfer(void *context, size_t set) {
  struct initiator *const self = context;
  const struct load *const load = &self->plan->load;
  const uint64_t *const local = self->plan->local_offsets + set * load->batch;
  const uint64_t *const remote = self->plan->remote_offsets + set * load->batch;
  const ucp_request_param_t with_memory = {.op_attr_mask = UCP_OP_ATTR_FIELD_MEMH, .memh = self->end.memory};
  for (size_t i = 0; i < load->batch; ++i) {
    unsigned char *const here = self->end.pool + local[i];
    const uint64_t there = self->plan->remote + remote[i];
    self->requests[i] = load->put ? ucp_put_nbx(self->endpoint, here, load->size, there, self->key, &with_memory)
                                  : ucp_get_nbx(self->endpoint, here, load->size, there, self->key, &with_memory);
  }
  /* A put that has ended may still be on its way; a flush waits until the bytes are there. */
  if (load->put) {
    const ucp_request_param_t nothing = {0};
    wait_for(self->end.worker, ucp_ep_flush_nbx(self->endpoint, &nothing), "ucp_ep_flush_nbx");
  }
  for (size_t i = 0; i < load->batch; ++i)
    wait_for(self->end.worker, self->requests[i], load->put ? "ucp_put_nbx" : "ucp_get_nbx");
}

static void run_initiator(int shared, const char *line) {
  static struct initiator self;
  static unsigned char address[MOST_BYTES], key[MOST_BYTES];
  int peer, at;
  unsigned long long remote;
  if (sscanf(line, "%d,%llu,%n", &peer, &remote, &at) != 2)
    measure_fail("not the line of a target: %s", line);
  read_hex(read_hex(line + at, address), key);
  open_end(&self.end, INITIATOR, shared, 0);
  const ucp_ep_params_t endpoint = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS,
                                    .address = (const ucp_address_t *)address};
  require(ucp_ep_create(self.end.worker, &endpoint, &self.endpoint), "ucp_ep_create");
  require(ucp_ep_rkey_unpack(self.endpoint, key, &self.key), "ucp_ep_rkey_unpack");
  measure_say("%s", ucp_get_version_string());
  const struct engine engine = {&self, prepare, transfer, NULL};
  measure_serve(&engine, self.end.pool, peer, remote);
}

int main(int argc, char **argv) {
  measure_begin("ucx");
  if (argc == 4 && strcmp(argv[1], "target") == 0)
    run_target(strcmp(argv[2], "shared") == 0, strcmp(argv[3], "sleep") == 0);
  else if (argc == 4 && strcmp(argv[1], "initiator") == 0)
    run_initiator(strcmp(argv[2], "shared") == 0, argv[3]);
  else
    measure_fail(
        "usage: ucx target anonymous|shared poll|sleep, or ucx initiator anonymous|shared LINE_OF_THE_TARGET");
  /* Without the clean-up of the library: the target may have been stopped or killed by now. */
  _exit(0);
}
