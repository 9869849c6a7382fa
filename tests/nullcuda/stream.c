// SPDX-License-Identifier: Apache-2.0
//
// Streams and events. A copy that is started on a stream is done when an event recorded after it has been queried a few
// times, or when the stream is synchronized: a reader that is too early finds the old bytes.
#include "nullcuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
  Pointer to, from;
  size_t length;
} Copy;

typedef struct Stream {
  struct Stream *next;
  Context *context;
  Copy *copies;
  size_t count;
  // Events recorded on it, and how many of these are known to be reached.
  unsigned long recorded, reached;
  bool destroyed;
} Stream;

typedef struct {
  Context *context;
  Stream *stream;
  unsigned long number;
  int queries;
  bool destroyed;
} Event;

// Objects stay when they are destroyed, so that their further use is recognised.
static Stream *streams;

// What a context takes with it is an error instead.
void require(bool holds, const char *call, const char *problem) {
  if (holds)
    return;
  fprintf(stderr, "nullcuda: %s: %s\n", call, problem);
  abort();
}

struct nullcuda_calls nullcuda_counted;

EXPORT void nullcuda_calls(struct nullcuda_calls *out) {
  pthread_mutex_lock(&nullcuda_mutex);
  *out = nullcuda_counted;
  pthread_mutex_unlock(&nullcuda_mutex);
}

static int queries_per_record(void) {
  const char *text = getenv("NULLCUDA_QUERIES");
  return text == NULL ? 2 : atoi(text);
}

static void finish(Stream *stream) {
  for (size_t i = 0; i < stream->count; ++i)
    copy_now(stream->copies[i].to, stream->copies[i].from, stream->copies[i].length);
  stream->count = 0;
  stream->reached = stream->recorded;
}

void finish_streams(void) {
  for (Stream *stream = streams; stream != NULL; stream = stream->next) finish(stream);
}

EXPORT int cuStreamCreate(Stream **stream, unsigned flags) {
  (void)flags;
  const int code = need_context();
  if (code != OK)
    return code;
  Stream *made = calloc(1, sizeof(Stream));
  made->context = current_context();
  pthread_mutex_lock(&nullcuda_mutex);
  made->next = streams;
  streams = *stream = made;
  ++nullcuda_counted.streams;
  pthread_mutex_unlock(&nullcuda_mutex);
  return OK;
}

// What `call` with this stream answers at once.
static int usable(const Stream *stream, const char *call) {
  const int code = need_context();
  if (code != OK)
    return code;
  require(stream != NULL && !stream->destroyed, call, "the stream is destroyed, or was never created");
  return stream->context->alive ? OK : INVALID_HANDLE;
}

// What `call` with this event answers at once.
static int usable_event(const Event *event, const char *call) {
  const int code = need_context();
  if (code != OK)
    return code;
  require(event != NULL && !event->destroyed, call, "the event is destroyed, or was never created");
  return event->context->alive ? OK : INVALID_HANDLE;
}

EXPORT int cuStreamDestroy_v2(Stream *stream) {
  const int code = usable(stream, __func__);
  if (code == OK)
    stream->destroyed = true;
  return code;
}

EXPORT int cuStreamSynchronize(Stream *stream) {
  const int code = stream == NULL ? need_context() : usable(stream, __func__);
  if (code != OK)
    return code;
  pthread_mutex_lock(&nullcuda_mutex);
  finish_streams();
  pthread_mutex_unlock(&nullcuda_mutex);
  return OK;
}

EXPORT int cuMemcpyAsync(Pointer to, Pointer from, size_t length, Stream *stream) {
  int code = usable(stream, __func__);
  if (code != OK)
    return code;
  pthread_mutex_lock(&nullcuda_mutex);
  check_access(to, length);
  check_access(from, length);
  if (behind(to, length) == NULL || behind(from, length) == NULL) {
    code = INVALID_VALUE;
  } else {
    stream->copies = realloc(stream->copies, (stream->count + 1) * sizeof(Copy));
    stream->copies[stream->count++] = (Copy){to, from, length};
    ++nullcuda_counted.copies;
    nullcuda_counted.copied_bytes += length;
  }
  pthread_mutex_unlock(&nullcuda_mutex);
  return code;
}

EXPORT int cuMemcpy(Pointer to, Pointer from, size_t length) {
  int code = need_context();
  if (code != OK)
    return code;
  pthread_mutex_lock(&nullcuda_mutex);
  check_access(to, length);
  check_access(from, length);
  code = copy_now(to, from, length);
  pthread_mutex_unlock(&nullcuda_mutex);
  return code;
}

EXPORT int cuMemsetD8_v2(Pointer to, unsigned char value, size_t length) {
  const int code = need_context();
  if (code != OK)
    return code;
  pthread_mutex_lock(&nullcuda_mutex);
  void *target = behind(to, length);
  if (target != NULL)
    memset(target, value, length);
  pthread_mutex_unlock(&nullcuda_mutex);
  return target != NULL ? OK : INVALID_VALUE;
}

EXPORT int cuEventCreate(Event **event, unsigned flags) {
  (void)flags;
  const int code = need_context();
  if (code != OK)
    return code;
  *event = calloc(1, sizeof(Event));
  (*event)->context = current_context();
  return OK;
}

EXPORT int cuEventDestroy_v2(Event *event) {
  const int code = usable_event(event, __func__);
  if (code == OK)
    event->destroyed = true;
  return code;
}

EXPORT int cuEventRecord(Event *event, Stream *stream) {
  const int code = usable(stream, __func__);
  if (code != OK)
    return code;
  const int of_event = usable_event(event, __func__);
  if (of_event != OK || event->context != stream->context)
    return INVALID_HANDLE;
  pthread_mutex_lock(&nullcuda_mutex);
  event->stream = stream;
  event->number = ++stream->recorded;
  ++nullcuda_counted.events_recorded;
  event->queries = queries_per_record();
  pthread_mutex_unlock(&nullcuda_mutex);
  return OK;
}

EXPORT int cuEventQuery(Event *event) {
  const int code = usable_event(event, __func__);
  if (code != OK)
    return code;
  if (event->stream == NULL)
    return OK;
  pthread_mutex_lock(&nullcuda_mutex);
  const bool reached = event->number <= event->stream->reached || event->queries-- <= 0;
  if (reached)
    finish(event->stream);
  pthread_mutex_unlock(&nullcuda_mutex);
  return reached ? OK : NOT_READY;
}

typedef struct {
  Stream *stream;
  void (*function)(void *);
  void *argument;
} HostCall;

static void *call_host(void *argument) {
  const HostCall call = *(HostCall *)argument;
  free(argument);
  usleep(200);
  pthread_mutex_lock(&nullcuda_mutex);
  finish(call.stream);
  pthread_mutex_unlock(&nullcuda_mutex);
  call.function(call.argument);
  return NULL;
}

// On a thread of its own, a little later, once what is on the stream has been done.
EXPORT int cuLaunchHostFunc(Stream *stream, void (*function)(void *), void *argument) {
  const int code = usable(stream, __func__);
  if (code != OK)
    return code;
  HostCall *call = malloc(sizeof(HostCall));
  *call = (HostCall){stream, function, argument};
  pthread_t thread;
  if (pthread_create(&thread, NULL, call_host, call) != 0)
    return OUT_OF_MEMORY;
  pthread_detach(thread);
  pthread_mutex_lock(&nullcuda_mutex);
  ++nullcuda_counted.host_calls;
  pthread_mutex_unlock(&nullcuda_mutex);
  return OK;
}
