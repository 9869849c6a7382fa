// SPDX-License-Identifier: Apache-2.0
#include "peer_process.h"

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.h"

extern char **environ;

namespace support {

namespace {

// What the other process runs. Its first line goes to stdout before anything of googletest's after it.
TEST(PeerProcess, DISABLED_Serves) {
  const Engine engine = createEngine();
  const Buffer buffer(engine, PeerProcess::kBytes);
  ASSERT_EQ(flagcxP2pEngineStartRpcServer(engine.get()), 0) << flagcxP2pEngineLastError();
  const FlagcxP2pRdmaDesc desc = buffer.desc(0, PeerProcess::kBytes);
  std::printf("serves %d %lx %x %x\n", flagcxP2pEngineGetRpcPort(engine.get()), static_cast<unsigned long>(desc.addr),
              desc.size, desc.rkey);
  std::fflush(stdout);
  alarm(0); // the test that started it has a watchdog of its own
  while (std::getchar() != EOF) {
  }
}

} // namespace

PeerProcess::PeerProcess(const char *serves) {
  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) {
    ADD_FAILURE() << "pipe2: " << std::strerror(errno);
    return;
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  std::string filter = std::string("--gtest_filter=") + serves;
  char disabled[] = "--gtest_also_run_disabled_tests", name[] = "peer";
  char *arguments[] = {name, filter.data(), disabled, nullptr};
  const int failed = posix_spawn(&pid_, "/proc/self/exe", &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(in[0]);
  close(out[1]);
  input_ = fdopen(in[1], "w");
  FILE *const output = fdopen(out[0], "r");
  char line[256];
  int found = 0;
  while (failed == 0 && found != 4 && std::fgets(line, sizeof(line), output) != nullptr) {
    found = std::sscanf(line, "serves %d %lx %x %x", &port_, &desc_.addr, &desc_.size, &desc_.rkey);
  }
  std::fclose(output);
  if (found != 4)
    ADD_FAILURE() << "the peer process does not serve: " << (failed != 0 ? std::strerror(failed) : "it ended");
}

PeerProcess::~PeerProcess() {
  if (input_ != nullptr)
    std::fclose(input_);
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
}

std::string PeerProcess::session() const {
  return "127.0.0.1:" + std::to_string(port_);
}

void PeerProcess::signal(int number) const {
  kill(pid_, number);
}

void PeerProcess::killAndWait() const {
  kill(pid_, SIGKILL);
  // Left for the destructor to reap, so that its number stays its own.
  siginfo_t ended = {};
  if (waitid(P_PID, static_cast<id_t>(pid_), &ended, WEXITED | WNOWAIT) != 0)
    ADD_FAILURE() << "waitid: " << std::strerror(errno);
}

} // namespace support
