// SPDX-License-Identifier: Apache-2.0
#include "fork_support.h"

#include <cstdlib>
#include <thread>

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace support {

namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

// The peer process listens at loopback. Before main, so before anything reads the configuration.
const bool prepared = setenv("FLAGCX_P2P_BIND", "127.0.0.1", 0) == 0;

// As a program with a global engine has it.
struct DestroysAtExit {
  FlagcxP2pEngine *engine = nullptr;
  ~DestroysAtExit() {
    if (engine != nullptr)
      flagcxP2pEngineDestroy(engine);
  }
} destroysAtExit;

[[noreturn]] void runChild(const std::function<std::string()> &work, End end, FlagcxP2pEngine *destroyed,
                           int report) {
  signal(SIGALRM, SIG_DFL);
  alarm(100); // none outlives the tests
  const std::string wrong = work();
  for (size_t at = 0; at < wrong.size();) {
    const ssize_t written = write(report, wrong.data() + at, wrong.size() - at);
    if (written <= 0)
      _exit(2);
    at += static_cast<size_t>(written);
  }
  close(report);
  if (end == End::Quick)
    _exit(0);
  if (end == End::StaticObject)
    destroysAtExit.engine = destroyed;
  exit(0);
}

std::string moveThere(FlagcxP2pConn *conn, const Buffer &from, const FlagcxP2pRdmaDesc &to, bool reads) {
  FlagcxP2pRdmaDesc desc = to;
  desc.size = static_cast<uint32_t>(from.size());
  uint64_t transfer = 0;
  const int answer = reads ? flagcxP2pEngineRead(conn, from.region(), from.data(), from.size(), desc, &transfer)
                           : flagcxP2pEngineWrite(conn, from.region(), from.data(), from.size(), desc, &transfer);
  if (answer != 0)
    return std::string("refused: ") + flagcxP2pEngineLastError();
  const FlagcxP2pXferResult result = resultOf(conn, transfer);
  if (result.state != FLAGCX_P2P_XFER_DONE)
    return "state " + std::to_string(result.state) + ": " + result.reason;
  return "";
}

std::string there(const std::string &what, FlagcxP2pConn *conn, Buffer &from, Buffer &to,
                  const FlagcxP2pRdmaDesc &desc, uint32_t seed) {
  from.scramble(seed);
  memset(to.data(), 0, to.size());
  std::string wrong = moveThere(conn, from, desc, false);
  if (wrong.empty())
    wrong = moveThere(conn, to, desc, true);
  if (wrong.empty() && memcmp(from.data(), to.data(), from.size()) != 0)
    wrong = "the bytes differ";
  return wrong.empty() ? "" : what + ": " + wrong + "\n";
}

} // namespace

Child::Child(const std::function<std::string()> &work, End end, FlagcxP2pEngine *destroyed) {
  int ends[2];
  if (pipe(ends) != 0)
    return;
  std::fflush(nullptr);
  pid_ = fork();
  if (pid_ == 0) {
    close(ends[0]);
    runChild(work, end, destroyed, ends[1]);
  }
  close(ends[1]);
  report_ = ends[0];
}

Child::~Child() {
  if (pid_ > 0) {
    kill();
    waitpid(pid_, nullptr, 0);
  }
  if (report_ >= 0)
    close(report_);
}

void Child::kill() {
  ::kill(pid_, SIGKILL);
}

int awaitEnd(pid_t pid, int seconds) {
  const auto deadline = Clock::now() + std::chrono::seconds(seconds);
  int status = 0;
  while (waitpid(pid, &status, WNOHANG) != pid) {
    if (Clock::now() > deadline)
      return -1;
    std::this_thread::sleep_for(2ms);
  }
  return status;
}

std::string Child::wait(int seconds) {
  if (pid_ <= 0)
    return "there is no child";
  const int status = awaitEnd(pid_, seconds);
  if (status == -1) {
    ::kill(pid_, SIGABRT); // with a core of its threads, where those are kept
    waitpid(pid_, nullptr, 0);
  }
  pid_ = -1;
  std::string wrong;
  char part[4096];
  for (pollfd one{report_, POLLIN, 0}; poll(&one, 1, 0) > 0;) {
    const ssize_t count = read(report_, part, sizeof(part));
    if (count <= 0)
      break;
    wrong.append(part, static_cast<size_t>(count));
  }
  if (status == -1)
    wrong += "it hangs";
  else if (status != 0)
    wrong += "it ended with status " + std::to_string(status);
  return wrong;
}

std::string refusedAsForked(const std::string &call, pid_t parent) {
  const std::string reason = flagcxP2pEngineLastError();
  const std::string expected = "forked from process " + std::to_string(parent == 0 ? getppid() : parent);
  return reason.find(expected) != std::string::npos ? "" : call + " answers '" + reason + "'\n";
}

void Forked::SetUp() {
  ASSERT_TRUE(prepared);
  parent = getpid();
  peer = std::make_unique<PeerProcess>();
  engine = createEngine();
  ASSERT_NE(engine, nullptr);
  source = std::make_unique<Buffer>(engine, kBytes);
  target = std::make_unique<Buffer>(engine, kBytes);
  ASSERT_EQ(flagcxP2pEngineStartRpcServer(engine.get()), 0) << flagcxP2pEngineLastError();
  conn = flagcxP2pEngineGetConn(engine.get(), peer->session().c_str());
  ASSERT_NE(conn, nullptr) << flagcxP2pEngineLastError();
}

void Forked::TearDown() {
  const auto begun = Clock::now();
  source.reset();
  target.reset();
  engine.reset();
  EXPECT_LT(Clock::now() - begun, 10s) << "the parent destroys its engine";
}

std::string Forked::bytesMove(uint32_t seed) {
  return there("to the peer and back", conn, *source, *target, peer->desc(), seed);
}

std::string Forked::othersAreServed(uint32_t seed) {
  return newEngineWorks(addressOf(engine).session(), target->desc(0, kBytes), seed);
}

void Forked::parentIsUnharmed() {
  EXPECT_EQ(bytesMove(1), "");
  EXPECT_EQ(othersAreServed(2), "");
  FlagcxP2pConnInfo info = {};
  info.size = sizeof(info);
  ASSERT_EQ(flagcxP2pEngineGetConnInfo(conn, &info), 0) << flagcxP2pEngineLastError();
  EXPECT_GT(info.lanes, 0u);
  EXPECT_EQ(info.healthyLanes, info.lanes);
}

std::string newEngineWorks(const std::string &session, const FlagcxP2pRdmaDesc &desc, uint32_t seed) {
  const Engine own(flagcxP2pEngineCreate());
  if (own == nullptr)
    return std::string("an engine of its own: ") + flagcxP2pEngineLastError() + "\n";
  Buffer from(own, 1 << 16), to(own, 1 << 16);
  FlagcxP2pConn *const conn = flagcxP2pEngineGetConn(own.get(), session.c_str());
  if (conn == nullptr)
    return std::string("its connection: ") + flagcxP2pEngineLastError() + "\n";
  return there("an engine of its own", conn, from, to, desc, seed);
}

} // namespace support
