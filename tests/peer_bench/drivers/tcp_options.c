/* SPDX-License-Identifier: Apache-2.0
 *
 * What options of TCP sockets, MSG_ZEROCOPY and io_uring are worth for messages that are answered one by one.
 * ../tcp_options.sh runs it between two network namespaces.
 *
 *   tcp_options serve PORT
 *   tcp_options measure ADDRESS PORT     a line for each size and option
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <linux/io_uring.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum option { PLAIN, BUFFERS_256K, BUFFERS_4M, QUICKACK, LOWAT, ZEROCOPY, URING, OPTIONS };
static const char *const names[OPTIONS] = {"none",
                                           "SO_SNDBUF, SO_RCVBUF 256 KiB",
                                           "SO_SNDBUF, SO_RCVBUF 4 MiB",
                                           "TCP_QUICKACK",
                                           "SO_RCVLOWAT",
                                           "MSG_ZEROCOPY",
                                           "io_uring"};
struct hello {
  uint64_t size, option;
};
#define LARGEST ((size_t)1 << 20)
#define ROUNDS 5
#define SECONDS 0.05

static void require(int fine, const char *what) {
  if (!fine) {
    fprintf(stderr, "tcp_options: %s: %s\n", what, strerror(errno));
    exit(1);
  }
}

static double seconds(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void set(int socket, int level, int name, int value) {
  require(setsockopt(socket, level, name, &value, sizeof(value)) == 0, "setsockopt");
}

static void apply(int socket, const struct hello *hello) {
  set(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  const int buffer = hello->option == BUFFERS_256K ? 256 << 10 : hello->option == BUFFERS_4M ? 4 << 20 : 0;
  if (buffer != 0) {
    set(socket, SOL_SOCKET, SO_SNDBUF, buffer);
    set(socket, SOL_SOCKET, SO_RCVBUF, buffer);
  }
  if (hello->option == LOWAT)
    set(socket, SOL_SOCKET, SO_RCVLOWAT, (int)(hello->size < 131072 ? hello->size : 131072));
  if (hello->option == ZEROCOPY)
    set(socket, SOL_SOCKET, SO_ZEROCOPY, 1);
}

/* One request at a time on a ring of its own. */
static struct ring {
  int fd;
  uint8_t *memory;
  struct io_uring_params params;
  struct io_uring_sqe *entries;
} ring = {.fd = -1};

static int ring_open(void) {
  if (ring.fd >= 0)
    return 1;
  ring.fd = (int)syscall(SYS_io_uring_setup, 4, &ring.params);
  if (ring.fd < 0 || !(ring.params.features & IORING_FEAT_SINGLE_MMAP))
    return 0;
  const size_t bytes = ring.params.cq_off.cqes + ring.params.cq_entries * sizeof(struct io_uring_cqe) + 4096;
  ring.memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, IORING_OFF_SQ_RING);
  ring.entries = mmap(NULL, ring.params.sq_entries * sizeof(*ring.entries), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_POPULATE, ring.fd, IORING_OFF_SQES);
  return ring.memory != MAP_FAILED && (void *)ring.entries != MAP_FAILED;
}

static ssize_t ring_do(int operation, int socket, void *bytes, size_t size) {
  uint32_t *const tail = (uint32_t *)(ring.memory + ring.params.sq_off.tail);
  const uint32_t index = *tail & (ring.params.sq_entries - 1);
  memset(&ring.entries[index], 0, sizeof(ring.entries[index]));
  ring.entries[index].opcode = (uint8_t)operation;
  ring.entries[index].fd = socket;
  ring.entries[index].addr = (uintptr_t)bytes;
  ring.entries[index].len = (uint32_t)size;
  ((uint32_t *)(ring.memory + ring.params.sq_off.array))[index] = index;
  __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
  require(syscall(SYS_io_uring_enter, ring.fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 1, "io_uring_enter");
  uint32_t *const head = (uint32_t *)(ring.memory + ring.params.cq_off.head);
  const struct io_uring_cqe *const done = (struct io_uring_cqe *)(ring.memory + ring.params.cq_off.cqes);
  const int answer = done[*head & (ring.params.cq_entries - 1)].res;
  __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
  errno = -answer;
  return answer;
}

/* The bytes of an earlier MSG_ZEROCOPY may be changed once the kernel says so. */
static void reap(int socket, uint32_t *outstanding) {
  while (*outstanding > 0) {
    char control[128];
    struct msghdr message = {.msg_control = control, .msg_controllen = sizeof(control)};
    if (recvmsg(socket, &message, MSG_ERRQUEUE) < 0) {
      require(errno == EAGAIN, "the error queue");
      struct pollfd fd = {.fd = socket};
      poll(&fd, 1, 1000);
      continue;
    }
    const struct cmsghdr *const header = CMSG_FIRSTHDR(&message);
    const struct sock_extended_err *const notice = (const void *)CMSG_DATA(header);
    *outstanding -= notice->ee_data - notice->ee_info + 1;
  }
}

static void send_all(int socket, const struct hello *hello, unsigned char *bytes, size_t size) {
  const int zerocopy = hello->option == ZEROCOPY && size == hello->size;
  uint32_t outstanding = 0;
  while (size > 0) {
    const ssize_t sent = hello->option == URING ? ring_do(IORING_OP_SEND, socket, bytes, size)
                                                : send(socket, bytes, size, zerocopy ? MSG_ZEROCOPY : 0);
    require(sent > 0, "send");
    outstanding += (uint32_t)zerocopy;
    bytes += sent;
    size -= (size_t)sent;
  }
  reap(socket, &outstanding);
}

static int receive_all(int socket, const struct hello *hello, unsigned char *bytes, size_t size) {
  while (size > 0) {
    if (hello->option == LOWAT && size >= hello->size) {
      struct pollfd fd = {.fd = socket, .events = POLLIN};
      poll(&fd, 1, -1);
    }
    const ssize_t received =
        hello->option == URING ? ring_do(IORING_OP_RECV, socket, bytes, size) : recv(socket, bytes, size, 0);
    if (received <= 0)
      return 0;
    bytes += received;
    size -= (size_t)received;
    if (hello->option == QUICKACK)
      set(socket, IPPROTO_TCP, TCP_QUICKACK, 1);
  }
  return 1;
}

static void serve(int port) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  const struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  set(listener, SOL_SOCKET, SO_REUSEADDR, 1);
  require(bind(listener, (const struct sockaddr *)&address, sizeof(address)) == 0 && listen(listener, 8) == 0,
          "listen");
  unsigned char *const memory = calloc(64, LARGEST);
  puts("ready");
  fflush(stdout);
  for (;;) {
    const int socket = accept(listener, NULL, NULL);
    struct hello hello;
    const struct hello plain = {.size = sizeof(hello)};
    if (socket >= 0 && receive_all(socket, &plain, (unsigned char *)&hello, sizeof(hello))) {
      apply(socket, &hello);
      if (hello.option != URING || ring_open())
        for (size_t at = 0; receive_all(socket, &hello, memory + at % 64 * LARGEST, hello.size); ++at) {
          double used = seconds(CLOCK_PROCESS_CPUTIME_ID);
          send_all(socket, &plain, (unsigned char *)&used, sizeof(used));
        }
    }
    close(socket);
  }
}

/* Messages of one size for a while: false where the kernel does not offer the option. */
static int measure(const struct sockaddr_in *address, const struct hello *hello, unsigned char *memory,
                   double out[3]) {
  if (hello->option == URING && !ring_open())
    return 0;
  const int socket_ = socket(AF_INET, SOCK_STREAM, 0);
  require(connect(socket_, (const struct sockaddr *)address, sizeof(*address)) == 0, "connect");
  const struct hello plain = {.size = sizeof(*hello)};
  send_all(socket_, &plain, (unsigned char *)hello, sizeof(*hello));
  apply(socket_, hello);
  if (hello->option == LOWAT)
    set(socket_, SOL_SOCKET, SO_RCVLOWAT, 1);
  double theirs = 0, theirs_before = 0, ours = 0, begin = 0, now = 0;
  size_t count = 0;
  for (size_t at = 0; at < 20 || now - begin < SECONDS; ++at) {
    if (at == 10) {
      begin = seconds(CLOCK_MONOTONIC);
      ours = seconds(CLOCK_PROCESS_CPUTIME_ID);
      theirs_before = theirs;
      count = 0;
    }
    send_all(socket_, hello, memory + at % 64 * LARGEST, hello->size);
    require(receive_all(socket_, &plain, (unsigned char *)&theirs, sizeof(theirs)), "the answer");
    count += 1;
    now = seconds(CLOCK_MONOTONIC);
  }
  const double bytes = (double)count * (double)hello->size, gib = bytes / (1 << 30);
  out[0] = bytes / (now - begin) / 1e9;
  out[1] = (seconds(CLOCK_PROCESS_CPUTIME_ID) - ours) / gib;
  out[2] = (theirs - theirs_before) / gib;
  close(socket_);
  return 1;
}

static int ascending(const void *one, const void *other) {
  const double a = *(const double *)one, b = *(const double *)other;
  return (a > b) - (a < b);
}

int main(int count, char **arguments) {
  signal(SIGPIPE, SIG_IGN);
  if (count == 3 && strcmp(arguments[1], "serve") == 0)
    serve(atoi(arguments[2]));
  require(count == 4 && strcmp(arguments[1], "measure") == 0, "usage: tcp_options serve PORT | measure ADDRESS PORT");
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[3]))};
  require(inet_pton(AF_INET, arguments[2], &address.sin_addr) == 1, "the address");
  unsigned char *const memory = calloc(64, LARGEST);
  memset(memory, 7, 64 * LARGEST);
  const size_t sizes[] = {4096, 65536, LARGEST};
  puts("| bytes | option | GB/s | CPU s a GiB, sender + receiver |\n|---|---|---|---|");
  for (size_t size = 0; size < 3; ++size) {
    double values[OPTIONS][3][ROUNDS] = {0};
    int offered[OPTIONS] = {0};
    for (int round = 0; round < ROUNDS; ++round)
      for (int option = 0; option < OPTIONS; ++option) {
        const struct hello hello = {.size = sizes[size], .option = (uint64_t)option};
        double out[3] = {0};
        offered[option] = measure(&address, &hello, memory, out);
        for (int value = 0; value < 3; ++value) values[option][value][round] = out[value];
      }
    for (int option = 0; option < OPTIONS; ++option) {
      for (int value = 0; value < 3; ++value) qsort(values[option][value], ROUNDS, sizeof(double), ascending);
      if (offered[option])
        printf("| %zu | %s | %.3f | %.3f + %.3f |\n", sizes[size], names[option], values[option][0][ROUNDS / 2],
               values[option][1][ROUNDS / 2], values[option][2][ROUNDS / 2]);
      else
        printf("| %zu | %s | not offered here | |\n", sizes[size], names[option]);
    }
    fflush(stdout);
  }
  return 0;
}
