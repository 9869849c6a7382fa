// SPDX-License-Identifier: Apache-2.0
//
// Devices and contexts. Each thread has a current context of its own, none at first.
#include "nullcuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pthread_mutex_t nullcuda_mutex = PTHREAD_MUTEX_INITIALIZER;

static bool initialised;
// Made when it is needed; a new one after a reset, as handles of the old one must not work by chance.
static Context *primary[DEVICES];
static _Thread_local Context *current;

bool is_initialised(void) {
  return __atomic_load_n(&initialised, __ATOMIC_SEQ_CST);
}

Context *current_context(void) {
  return current;
}

int need_context(void) {
  if (!is_initialised())
    return NOT_INITIALIZED;
  return current != NULL && current->alive ? OK : INVALID_CONTEXT;
}

EXPORT int cuInit(unsigned flags) {
  if (flags != 0)
    return INVALID_VALUE;
  __atomic_store_n(&initialised, true, __ATOMIC_SEQ_CST);
  return OK;
}

EXPORT int cuDriverGetVersion(int *version) {
  *version = 0;
  return OK;
}

EXPORT int cuGetErrorString(int code, const char **text) {
  static const struct {
    int code;
    const char *text;
  } texts[] = {{INVALID_VALUE, "invalid argument"},
               {NOT_INITIALIZED, "initialization error"},
               {INVALID_DEVICE, "invalid device ordinal"},
               {INVALID_CONTEXT, "invalid device context"},
               {INVALID_HANDLE, "invalid resource handle"},
               {NOT_READY, "device not ready"},
               {OUT_OF_MEMORY, "out of memory"}};
  for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); ++i)
    if (texts[i].code == code) {
      *text = texts[i].text;
      return OK;
    }
  return INVALID_VALUE;
}

EXPORT int cuDeviceGetCount(int *count) {
  if (!is_initialised())
    return NOT_INITIALIZED;
  *count = DEVICES;
  return OK;
}

EXPORT int cuDeviceGet(int *device, int ordinal) {
  if (!is_initialised())
    return NOT_INITIALIZED;
  if (ordinal < 0 || ordinal >= DEVICES)
    return INVALID_DEVICE;
  *device = ordinal;
  return OK;
}

EXPORT int cuDeviceGetName(char *text, int room, int device) {
  snprintf(text, (size_t)room, "stand-in GPU %d", device);
  return OK;
}

static int capability;

// The major number of the compute capability from now on, in the place of the environment's. For tests.
EXPORT void nullcuda_set_compute_capability(int major) {
  __atomic_store_n(&capability, major, __ATOMIC_SEQ_CST);
}

static int compute_capability(int otherwise) {
  const int set = __atomic_load_n(&capability, __ATOMIC_SEQ_CST);
  return set != 0 ? set : otherwise;
}

static int setting(const char *name, int otherwise) {
  const char *text = getenv(name);
  return text != NULL ? atoi(text) : otherwise;
}

EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device) {
  if (!is_initialised())
    return NOT_INITIALIZED;
  if (device < 0 || device >= DEVICES)
    return INVALID_DEVICE;
  if (attribute == 75)
    *value = compute_capability(setting("NULLCUDA_COMPUTE_CAPABILITY", 9));
  else if (attribute == 124)
    *value = setting("NULLCUDA_DMA_BUF", 1);
  else
    return INVALID_VALUE;
  return OK;
}

EXPORT int cuDeviceGetPCIBusId(char *text, int room, int device) {
  snprintf(text, (size_t)room, "0000:%02X:00.0", device + 1);
  return OK;
}

static int check_device(int device) {
  if (!is_initialised())
    return NOT_INITIALIZED;
  return device >= 0 && device < DEVICES ? OK : INVALID_DEVICE;
}

EXPORT int cuDevicePrimaryCtxRetain(Context **context, int device) {
  const int code = check_device(device);
  if (code != OK)
    return code;
  pthread_mutex_lock(&nullcuda_mutex);
  if (primary[device] == NULL) {
    primary[device] = calloc(1, sizeof(Context));
    *primary[device] = (Context){device, true};
  }
  *context = primary[device];
  pthread_mutex_unlock(&nullcuda_mutex);
  return OK;
}

EXPORT int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
  const int code = check_device(device);
  if (code != OK)
    return code;
  pthread_mutex_lock(&nullcuda_mutex);
  *flags = 0;
  *active = primary[device] != NULL;
  pthread_mutex_unlock(&nullcuda_mutex);
  return OK;
}

// Destroys it, retained or not, as cudaDeviceReset does. Memory that was allocated in it is gone.
EXPORT int cuDevicePrimaryCtxReset_v2(int device) {
  const int code = check_device(device);
  if (code != OK)
    return code;
  pthread_mutex_lock(&nullcuda_mutex);
  if (primary[device] != NULL) {
    primary[device]->alive = false;
    free_memory_of(primary[device]);
    if (current == primary[device])
      current = NULL;
    primary[device] = NULL;
  }
  pthread_mutex_unlock(&nullcuda_mutex);
  return OK;
}

EXPORT int cuCtxCreate_v2(Context **context, unsigned flags, int device) {
  (void)flags;
  if (!is_initialised())
    return NOT_INITIALIZED;
  current = calloc(1, sizeof(Context));
  *current = (Context){device, true};
  *context = current;
  return OK;
}

// The object itself stays, so that later calls with it return INVALID_CONTEXT.
EXPORT int cuCtxDestroy_v2(Context *context) {
  context->alive = false;
  if (current == context)
    current = NULL;
  return OK;
}

EXPORT int cuCtxGetCurrent(Context **context) {
  if (!is_initialised())
    return NOT_INITIALIZED;
  *context = current;
  return OK;
}

EXPORT int cuCtxSetCurrent(Context *context) {
  if (!is_initialised())
    return NOT_INITIALIZED;
  if (context != NULL && !context->alive)
    return INVALID_CONTEXT;
  current = context;
  pthread_mutex_lock(&nullcuda_mutex);
  ++nullcuda_counted.contexts_set;
  pthread_mutex_unlock(&nullcuda_mutex);
  return OK;
}

EXPORT int cuCtxGetDevice(int *device) {
  const int code = need_context();
  if (code == OK)
    *device = current->device;
  return code;
}

EXPORT int cuCtxSynchronize(void) {
  const int code = need_context();
  if (code != OK)
    return code;
  pthread_mutex_lock(&nullcuda_mutex);
  finish_streams();
  pthread_mutex_unlock(&nullcuda_mutex);
  return OK;
}
