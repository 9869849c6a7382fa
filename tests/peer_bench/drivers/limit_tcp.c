/* SPDX-License-Identifier: Apache-2.0
 *
 * One TCP connection: see limits.h. The target learns the blocks of all sets before the clock starts; a transfer then
 * is a request that names its set, the bytes of its blocks in their order, and for a put an answer.
 */
#define _GNU_SOURCE
#include "limits.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* iovecs of one call: the kernel's limit. */
#define MOST_IOVECS ((size_t)1024)

enum kind { PLAN, PUT, GET };

struct request {
  uint64_t kind;
  uint64_t set;   /* PUT, GET */
  uint64_t size;  /* PLAN: the offsets of all sets follow */
  uint64_t batch; /* PLAN */
};

struct stream {
  int socket;
  int flags; /* of sendmsg and recvmsg: MSG_DONTWAIT when polling */
};

static void require(int fine, const char *what) {
  if (!fine)
    measure_fail("%s: %s", what, strerror(errno));
}

/* Sends or receives all bytes of the iovecs, which it changes. */
static void move_iovecs(const struct stream *stream, struct iovec *iovecs, size_t count, int send) {
  while (count > 0) {
    struct msghdr message = {.msg_iov = iovecs, .msg_iovlen = count < MOST_IOVECS ? count : MOST_IOVECS};
    ssize_t moved = send ? sendmsg(stream->socket, &message, stream->flags | MSG_NOSIGNAL)
                         : recvmsg(stream->socket, &message, stream->flags);
    if (moved < 0 && (errno == EAGAIN || errno == EINTR))
      continue;
    if (moved == 0 && !send)
      _exit(0);
    require(moved > 0, send ? "send" : "receive");
    for (; count > 0 && (size_t)moved >= iovecs->iov_len; ++iovecs, --count) moved -= (ssize_t)iovecs->iov_len;
    if (count > 0) {
      iovecs->iov_base = (char *)iovecs->iov_base + moved;
      iovecs->iov_len -= (size_t)moved;
    }
  }
}

static void move_bytes(const struct stream *stream, void *bytes, size_t length, int send) {
  struct iovec one = {bytes, length};
  move_iovecs(stream, &one, 1, send);
}

/* The blocks of a set, from iovecs[first] on. */
static size_t add_blocks(struct iovec *iovecs, size_t first, unsigned char *pool, const uint64_t *offsets,
                         size_t size, size_t batch) {
  for (size_t i = 0; i < batch; ++i) iovecs[first + i] = (struct iovec){pool + offsets[i], size};
  return first + batch;
}

static struct stream open_stream(int socket, int polls) {
  const int one = 1;
  require(setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0, "TCP_NODELAY");
  return (struct stream){socket, polls ? MSG_DONTWAIT : 0};
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* The target                                                                                                       */

static void serve(const struct stream *stream, unsigned char *pool) {
  static struct iovec iovecs[POOL_BYTES / 4096];
  uint64_t *offsets = NULL, answer = 0;
  struct request plan = {0};
  for (;;) {
    struct request request;
    move_bytes(stream, &request, sizeof(request), 0);
    if (request.kind == PLAN) {
      plan = request;
      free(offsets);
      offsets = malloc(SETS * plan.batch * sizeof(*offsets));
      require(offsets != NULL, "memory for offsets");
      move_bytes(stream, offsets, SETS * plan.batch * sizeof(*offsets), 0);
      continue;
    }
    const size_t count = add_blocks(iovecs, 0, pool, offsets + request.set * plan.batch, plan.size, plan.batch);
    move_iovecs(stream, iovecs, count, request.kind == GET);
    if (request.kind == PUT)
      move_bytes(stream, &answer, sizeof(answer), 1);
  }
}

void limit_tcp_target(int polls) {
  unsigned char *const pool = measure_pool(TARGET);
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof(address);
  require(listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0 &&
              listen(listener, 1) == 0 && getsockname(listener, (struct sockaddr *)&address, &length) == 0,
          "listen");
  measure_say("%d,%llu,%d", (int)getpid(), (unsigned long long)(uintptr_t)pool, (int)ntohs(address.sin_port));
  const int socket = accept(listener, NULL, NULL);
  require(socket >= 0, "accept");
  const struct stream stream = open_stream(socket, polls);
  serve(&stream, pool);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* The initiator                                                                                                    */

struct initiator {
  struct stream stream;
  const struct plan *plan;
  struct iovec iovecs[1 + POOL_BYTES / 4096];
};

static void prepare(void *context, const struct plan *plan) {
  struct initiator *const self = context;
  struct request request = {.kind = PLAN, .size = plan->load.size, .batch = plan->load.batch};
  self->plan = plan;
  move_bytes(&self->stream, &request, sizeof(request), 1);
  move_bytes(&self->stream, plan->remote_offsets, SETS * plan->load.batch * sizeof(*plan->remote_offsets), 1);
}

static void transfer(void *context, size_t set) {
  struct initiator *const self = context;
  const struct plan *const plan = self->plan;
  const struct load *const load = &plan->load;
  struct request request = {.kind = load->put ? PUT : GET, .set = set};
  uint64_t answer;
  self->iovecs[0] = (struct iovec){&request, sizeof(request)};
  const size_t count =
      add_blocks(self->iovecs, 1, plan->local, plan->local_offsets + set * load->batch, load->size, load->batch);
  if (load->put) {
    move_iovecs(&self->stream, self->iovecs, count, 1);
    move_bytes(&self->stream, &answer, sizeof(answer), 0);
  } else {
    move_iovecs(&self->stream, self->iovecs, 1, 1);
    move_iovecs(&self->stream, self->iovecs + 1, count - 1, 0);
  }
}

void limit_tcp(int polls, const char *line) {
  static struct initiator self;
  int peer, port;
  unsigned long long remote;
  if (sscanf(line, "%d,%llu,%d", &peer, &remote, &port) != 3)
    measure_fail("not the line of a target: %s", line);
  const int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
  require(connection >= 0 && connect(connection, (const struct sockaddr *)&address, sizeof(address)) == 0, "connect");
  self.stream = open_stream(connection, polls);
  measure_say("%s", "");
  const struct engine engine = {&self, prepare, transfer, NULL};
  measure_serve(&engine, measure_pool(INITIATOR), peer, remote);
}
