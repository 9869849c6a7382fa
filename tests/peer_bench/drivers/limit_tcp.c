/* SPDX-License-Identifier: Apache-2.0
 *
 * TCP connections and nothing else: see limits.h. The target learns the blocks of all sets before the clock starts; a
 * transfer then is, on each connection, a request that names the set, the bytes of the connection's share of the blocks
 * in their order, and for a put an answer.
 */
#define _GNU_SOURCE
#include "limits.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* iovecs of one call: the kernel's limit. */
#define MOST_IOVECS ((size_t)1024)
#define MOST_STREAMS 16
/* Below so many bytes for each connection, fewer of them are faster. */
#define SHARE ((size_t)128 << 10)

enum kind { PLAN, PUT, GET };

struct request {
  uint64_t kind;
  uint64_t set;     /* PUT, GET */
  uint64_t size;    /* PLAN: the offsets of all sets follow */
  uint64_t batch;   /* PLAN */
  uint64_t sets;    /* PLAN */
  uint64_t streams; /* PLAN: connections that the blocks of a set are divided between */
};

struct stream {
  int socket;
  int flags; /* of sendmsg and recvmsg: MSG_DONTWAIT when polling */
  size_t number;
  struct iovec iovecs[1 + POOL_BYTES / 4096]; /* room for those of a transfer, and one for its request */
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

/* Adds a stream's share of the blocks of a set, from iovecs[first] on; answers where they end. Shares are whole pages. */
static size_t add_blocks(struct stream *stream, size_t first, unsigned char *pool, const uint64_t *offsets,
                         const struct request *plan) {
  const size_t pages = plan->size * plan->batch / 4096;
  const size_t begin = pages * stream->number / plan->streams * 4096;
  const size_t end = pages * (stream->number + 1) / plan->streams * 4096;
  for (size_t at = begin; at < end; ++first) {
    const size_t within = at % plan->size, rest = plan->size - within;
    const size_t bytes = rest < end - at ? rest : end - at;
    stream->iovecs[first] = (struct iovec){pool + offsets[at / plan->size] + within, bytes};
    at += bytes;
  }
  return first;
}

static struct stream *open_stream(int socket, const struct tcp_limit *limit, size_t number) {
  const int one = 1, buffer = limit->buffer;
  struct stream *const stream = malloc(sizeof(*stream));
  require(stream != NULL, "memory for a connection");
  require(setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0, "TCP_NODELAY");
  require(buffer == 0 || (setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer)) == 0 &&
                          setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer)) == 0),
          "buffers of a socket");
  stream->socket = socket;
  stream->flags = limit->polls ? MSG_DONTWAIT : 0;
  stream->number = number;
  return stream;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* The target                                                                                                       */

struct server {
  struct stream *stream;
  unsigned char *pool;
};

static void *serve(void *argument) {
  struct server *const server = argument;
  struct stream *const stream = server->stream;
  uint64_t *offsets = NULL, answer = 0;
  struct request plan = {0};
  for (;;) {
    struct request request;
    move_bytes(stream, &request, sizeof(request), 0);
    if (request.kind == PLAN) {
      plan = request;
      const size_t bytes = plan.sets * plan.batch * sizeof(*offsets);
      free(offsets);
      offsets = malloc(bytes);
      require(offsets != NULL, "memory for offsets");
      move_bytes(stream, offsets, bytes, 0);
      continue;
    }
    const size_t count = add_blocks(stream, 0, server->pool, offsets + request.set * plan.batch, &plan);
    move_iovecs(stream, stream->iovecs, count, request.kind == GET);
    if (request.kind == PUT)
      move_bytes(stream, &answer, sizeof(answer), 1);
  }
  return NULL;
}

void limit_tcp_target(const struct tcp_limit *limit) {
  static struct server servers[MOST_STREAMS];
  unsigned char *const pool = measure_pool(TARGET);
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof(address);
  require(listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0 &&
              listen(listener, MOST_STREAMS) == 0 && getsockname(listener, (struct sockaddr *)&address, &length) == 0,
          "listen");
  measure_say("%d,%llu,%d", (int)getpid(), (unsigned long long)(uintptr_t)pool, (int)ntohs(address.sin_port));
  for (size_t i = 0; i < limit->streams; ++i) {
    pthread_t thread;
    const int socket = accept(listener, NULL, NULL);
    require(socket >= 0, "accept");
    servers[i] = (struct server){open_stream(socket, limit, i), pool};
    require(pthread_create(&thread, NULL, serve, &servers[i]) == 0, "start a thread");
  }
  measure_sleep();
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* The initiator                                                                                                    */

struct initiator;

struct helper {
  struct initiator *initiator;
  struct stream *stream;
  sem_t begun; /* posted by the caller, once a transfer */
};

struct initiator {
  const struct plan *plan;
  struct request request;              /* of the plan */
  size_t set;                          /* written before `begun` is posted, read by the helpers after it */
  struct helper helpers[MOST_STREAMS]; /* the first one is the calling thread's */
  size_t streams;
  sem_t ended; /* posted by each helper, once a transfer */
};

static void move_share(struct initiator *self, struct stream *stream) {
  const struct plan *const plan = self->plan;
  const int put = plan->load.put;
  struct request request = {.kind = put ? PUT : GET, .set = self->set};
  uint64_t answer;
  stream->iovecs[0] = (struct iovec){&request, sizeof(request)};
  const size_t count =
      add_blocks(stream, 1, plan->local, plan->local_offsets + self->set * plan->load.batch, &self->request);
  if (put) {
    move_iovecs(stream, stream->iovecs, count, 1);
    move_bytes(stream, &answer, sizeof(answer), 0);
  } else {
    move_iovecs(stream, stream->iovecs, 1, 1);
    move_iovecs(stream, stream->iovecs + 1, count - 1, 0);
  }
}

static void *help(void *argument) {
  struct helper *const helper = argument;
  for (;;) {
    while (sem_wait(&helper->begun) != 0) {
    }
    move_share(helper->initiator, helper->stream);
    sem_post(&helper->initiator->ended);
  }
  return NULL;
}

static void prepare(void *context, const struct plan *plan) {
  struct initiator *const self = context;
  const struct load *const load = &plan->load;
  const size_t shares = load->size * load->batch / SHARE;
  const size_t streams = shares < 1 ? 1 : shares < self->streams ? shares : self->streams;
  self->plan = plan;
  self->request = (struct request){
      .kind = PLAN, .size = load->size, .batch = load->batch, .sets = load->sets, .streams = streams};
  for (size_t i = 0; i < streams; ++i) {
    struct stream *const stream = self->helpers[i].stream;
    move_bytes(stream, &self->request, sizeof(self->request), 1);
    move_bytes(stream, plan->remote_offsets, load->sets * load->batch * sizeof(*plan->remote_offsets), 1);
  }
}

static void transfer(void *context, size_t set) {
  struct initiator *const self = context;
  self->set = set;
  for (size_t i = 1; i < self->request.streams; ++i) sem_post(&self->helpers[i].begun);
  move_share(self, self->helpers[0].stream);
  for (size_t i = 1; i < self->request.streams; ++i)
    while (sem_wait(&self->ended) != 0) {
    }
}

void limit_tcp(const struct tcp_limit *limit, const char *line) {
  static struct initiator self;
  int peer, port;
  unsigned long long remote;
  if (sscanf(line, "%d,%llu,%d", &peer, &remote, &port) != 3)
    measure_fail("not the line of a target: %s", line);
  const struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
  self.streams = limit->streams;
  require(sem_init(&self.ended, 0, 0) == 0, "make a semaphore");
  for (size_t i = 0; i < limit->streams; ++i) {
    pthread_t thread;
    struct helper *const helper = &self.helpers[i];
    const int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    require(connection >= 0 && connect(connection, (const struct sockaddr *)&address, sizeof(address)) == 0,
            "connect");
    *helper = (struct helper){.initiator = &self, .stream = open_stream(connection, limit, i)};
    require(sem_init(&helper->begun, 0, 0) == 0, "make a semaphore");
    require(i == 0 || pthread_create(&thread, NULL, help, helper) == 0, "start a thread");
  }
  measure_say("%s", "");
  const struct engine engine = {&self, prepare, transfer, NULL};
  measure_serve(&engine, measure_pool(INITIATOR), peer, remote);
}
