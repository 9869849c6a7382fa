// Preloaded into emulated programs: a program of ARM64 that one of them starts is started by the emulator. The kernel could do that
// (binfmt_misc), but most containers do not allow that. Programs of this machine are started as they are.
//
// ARM64_EMULATOR is the emulator's path.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int Spawn(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *, char *const[],
                  char *const[]);
typedef int Exec(const char *, char *const[], char *const[]);

static char emulator[PATH_MAX], name_option[] = "-0";
static Spawn *real_spawn, *real_spawnp;
static Exec *real_execve, *real_execvpe;

// Before main(), for between fork and exec little may be called.
__attribute__((constructor)) static void find(void) {
  const char *named = getenv("ARM64_EMULATOR");
  if (named != NULL)
    strncpy(emulator, named, sizeof emulator - 1);
  real_spawn = (Spawn *)dlsym(RTLD_NEXT, "posix_spawn");
  real_spawnp = (Spawn *)dlsym(RTLD_NEXT, "posix_spawnp");
  real_execve = (Exec *)dlsym(RTLD_NEXT, "execve");
  real_execvpe = (Exec *)dlsym(RTLD_NEXT, "execvpe");
}

static bool is_for_arm64(const char *path) {
  Elf64_Ehdr header;
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0)
    return false;
  const bool whole = read(file, &header, sizeof header) == (ssize_t)sizeof header;
  close(file);
  return whole && memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 && header.e_machine == EM_AARCH64;
}

static size_t count(char *const list[]) {
  size_t length = 0;
  while (list != NULL && list[length] != NULL) length++;
  return length;
}

// What is started in the place of a program. On the stack, with room for four arguments more than that has.
typedef struct {
  const char *file;
  char path[PATH_MAX];
  char **arguments, **environment;
} Call;

static void prepare(Call *call, const char *path, char *const arguments[], char *const environment[]) {
  size_t used = 0;
  // As the emulator sees it, /proc/self/exe is this program; to the kernel it is the emulator.
  ssize_t length = strcmp(path, "/proc/self/exe") == 0 ? readlink(path, call->path, sizeof call->path - 1) : -1;
  if (length < 0)
    length = (ssize_t)strlen(strncpy(call->path, path, sizeof call->path - 1));
  call->path[length] = '\0';
  const bool emulated = emulator[0] != '\0' && strchr(path, '/') != NULL && is_for_arm64(call->path);
  call->file = emulated ? emulator : call->path;
  if (emulated) {
    call->arguments[used++] = emulator;
    call->arguments[used++] = name_option;
    call->arguments[used++] = arguments[0];
    call->arguments[used++] = call->path;
  } else {
    call->arguments[used++] = arguments[0];
  }
  for (size_t i = 1; i < count(arguments); i++) call->arguments[used++] = arguments[i];
  call->arguments[used] = NULL;
  used = 0;
  // This machine's linker would complain of a library that is not for it.
  for (size_t i = 0; i < count(environment); i++) {
    if (emulated || strncmp(environment[i], "LD_PRELOAD=", sizeof "LD_PRELOAD=" - 1) != 0)
      call->environment[used++] = environment[i];
  }
  call->environment[used] = NULL;
}

#define CALL(path, argv, envp)                                  \
  char *new_argv[count(argv) + 5], *new_envp[count(envp) + 1];  \
  Call call = {.arguments = new_argv, .environment = new_envp}; \
  prepare(&call, path, argv, envp)

int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                const posix_spawnattr_t *attributes, char *const argv[], char *const envp[]) {
  CALL(path, argv, envp);
  return real_spawn(pid, call.file, actions, attributes, call.arguments, call.environment);
}

int posix_spawnp(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                 const posix_spawnattr_t *attributes, char *const argv[], char *const envp[]) {
  CALL(path, argv, envp);
  return real_spawnp(pid, call.file, actions, attributes, call.arguments, call.environment);
}

int execve(const char *path, char *const argv[], char *const envp[]) {
  CALL(path, argv, envp);
  return real_execve(call.file, call.arguments, call.environment);
}

int execvpe(const char *path, char *const argv[], char *const envp[]) {
  CALL(path, argv, envp);
  return real_execvpe(call.file, call.arguments, call.environment);
}

int execv(const char *path, char *const argv[]) {
  return execve(path, argv, environ);
}

int execvp(const char *path, char *const argv[]) {
  return execvpe(path, argv, environ);
}
