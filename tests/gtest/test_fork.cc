// SPDX-License-Identifier: Apache-2.0
//
// fork() in a program with a live engine: however the child goes on and ends, the parent, its peers and the engines that the
// child makes for itself work. What the child is refused: test_fork_refusals.cc.
#include <atomic>
#include <thread>

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fork_support.h"

extern char **environ;

using namespace support;
using namespace std::chrono_literals;

namespace {

const testing::Environment *const environment = testing::AddGlobalTestEnvironment(new WholeAllocator);

// The virtual machine with soft-RoCE is emulated, and slow.
const bool overVerbs = [] {
  const char *const fabric = getenv("FLAGCX_P2P_FABRIC");
  return fabric != nullptr && std::string(fabric) == "verbs";
}();
const auto kTimeToConnect = overVerbs ? 10s : 1s;
const auto kNoticed = overVerbs ? 10s : 3s;

char kTrue[] = "/bin/true";
char *const kArguments[] = {kTrue, nullptr};

// ---------------------------------------------------------------------------------------------------------------------
// How the child ends

TEST_F(Forked, AChildMayEndInEveryWay) {
  const auto nothing = [] { return std::string(); };
  const auto destroys = [this] {
    source.reset(); // MrDestroy
    target.reset();
    flagcxP2pEngineConnDestroy(conn);
    engine.reset();
    return std::string();
  };
  struct {
    const char *name;
    std::function<std::string()> work;
    End end;
  } const ways[] = {
      {"_exit", nothing, End::Quick},
      {"exit", nothing, End::ByExit},
      {"a static object destroys the engine", nothing, End::StaticObject},
      {"it destroys everything, then _exit", destroys, End::Quick},
      {"it destroys everything, then exit", destroys, End::ByExit},
  };
  for (const auto &way : ways) {
    SCOPED_TRACE(way.name);
    Child child(way.work, way.end, engine.get());
    EXPECT_EQ(child.wait(), "");
    parentIsUnharmed();
  }
}

TEST_F(Forked, AChildMayBeKilled) {
  for (int i = 0; i < 3; ++i) {
    Child child([] { return pause(), std::string(); });
    std::this_thread::sleep_for(20ms);
  }
  parentIsUnharmed();
}

TEST_F(Forked, AChildMayLiveOnWhileTheParentWorks) {
  Child idle([] { return pause(), std::string(); });
  for (int i = 0; i < 3; ++i) {
    parentIsUnharmed();
    Child more([] { return std::this_thread::sleep_for(20ms), std::string(); }, End::ByExit);
    EXPECT_EQ(more.wait(), "");
  }
}

TEST_F(Forked, AChildMayRunAnotherProgram) {
  Child child([] { return execv(kTrue, kArguments), std::string("execv failed"); });
  EXPECT_EQ(child.wait(), "");
  pid_t pid = vfork();
  if (pid == 0) {
    execv(kTrue, kArguments);
    _exit(1);
  }
  EXPECT_EQ(awaitEnd(pid, 30), 0);
  ASSERT_EQ(posix_spawn(&pid, kTrue, nullptr, nullptr, kArguments, environ), 0);
  EXPECT_EQ(awaitEnd(pid, 30), 0);
  EXPECT_EQ(std::system("exit 0"), 0);
  parentIsUnharmed();
}

// The descriptors of the parent's sockets are closed in the child: a peer sees the parent's end while the child lives.
TEST_F(Forked, SocketsAreClosedInTheChild) {
  Child child([] {
    std::string wrong;
    for (int fd = 3; fd < 1024; ++fd) {
      char name[64], what[128] = {};
      std::snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
      if (readlink(name, what, sizeof(what) - 1) > 0 && std::string(what).find("socket:") == 0)
        wrong += std::string(name) + " is " + what + "\n";
    }
    return wrong;
  });
  EXPECT_EQ(child.wait(), "");
  parentIsUnharmed();
}

// ---------------------------------------------------------------------------------------------------------------------
// Engines of the child

TEST_F(Forked, AChildTransfersWithAnEngineOfItsOwn) {
  const std::string session = peer->session(), own = addressOf(engine).session();
  const FlagcxP2pRdmaDesc theirs = peer->desc(), ours = target->desc(0, kBytes);
  Child child(
      [&] {
        return newEngineWorks(session, theirs, 3) + newEngineWorks(own, ours, 4); // with the peer, with the parent
      },
      End::ByExit);
  EXPECT_EQ(child.wait(60), "");
  parentIsUnharmed();
}

TEST_F(Forked, AChildOfAChildDoesToo) {
  const std::string session = peer->session();
  const FlagcxP2pRdmaDesc theirs = peer->desc();
  Child child([&] {
    const Engine own(flagcxP2pEngineCreate());
    if (own == nullptr)
      return std::string(flagcxP2pEngineLastError());
    const Buffer memory(own, kBytes);
    Child grandchild(
        [&] {
          char image[FLAGCX_P2P_DESC_SIZE];
          std::string wrong;
          for (FlagcxP2pEngine *inherited : {own.get(), engine.get()}) {
            if (flagcxP2pEnginePrepareDesc(inherited, memory.region(), memory.data(), 8, image) != -1)
              wrong += "PrepareDesc is not refused\n";
            wrong += refusedAsForked("PrepareDesc", inherited == own.get() ? getppid() : parent);
          }
          return wrong + newEngineWorks(session, theirs, 5);
        },
        End::ByExit);
    const std::string wrong = grandchild.wait(60);
    return wrong + newEngineWorks(session, theirs, 6);
  });
  EXPECT_EQ(child.wait(100), "");
  parentIsUnharmed();
}

TEST_F(Forked, AChildServesPeersOfItsOwn) {
  int told[2], go[2];
  ASSERT_EQ(pipe(told), 0);
  ASSERT_EQ(pipe(go), 0);
  Child child([&] {
    const Engine own = createEngine();
    Buffer memory(own, kBytes);
    if (own == nullptr || flagcxP2pEngineStartRpcServer(own.get()) != 0)
      return std::string(flagcxP2pEngineLastError());
    const FlagcxP2pRdmaDesc desc = memory.desc(0, kBytes);
    const int port = flagcxP2pEngineGetRpcPort(own.get());
    char any;
    if (write(told[1], &desc, sizeof(desc)) < 0 || write(told[1], &port, sizeof(port)) < 0 ||
        read(go[0], &any, 1) < 0)
      return std::string("pipe");
    return std::string();
  });
  FlagcxP2pRdmaDesc desc;
  int port = 0;
  ASSERT_EQ(read(told[0], &desc, sizeof(desc)), static_cast<ssize_t>(sizeof(desc)));
  ASSERT_EQ(read(told[0], &port, sizeof(port)), static_cast<ssize_t>(sizeof(port)));
  const std::string session = addressOf(engine).host + ":" + std::to_string(port);
  EXPECT_EQ(newEngineWorks(session, desc, 7), "");
  ASSERT_EQ(write(go[1], "", 1), 1);
  EXPECT_EQ(child.wait(), "");
  for (int fd : {told[0], told[1], go[0], go[1]}) close(fd);
  parentIsUnharmed();
}

// The regions of a child's engine are not the parent's, though they were one table before the fork.
TEST_F(Forked, RegionsOfAChildChangeNoneOfTheParents) {
  const Engine reader = createEngine();
  Buffer got(reader, kBytes);
  FlagcxP2pConn *const way = flagcxP2pEngineGetConn(reader.get(), addressOf(engine).session().c_str());
  ASSERT_NE(way, nullptr) << flagcxP2pEngineLastError();
  const FlagcxP2pRdmaDesc first = source->desc(0, kBytes);
  source->scramble(8);
  const auto reads = [&](const FlagcxP2pRdmaDesc &desc, const Memory &expected) -> std::string {
    memset(got.data(), 0, kBytes);
    uint64_t transfer = 0;
    if (flagcxP2pEngineRead(way, got.region(), got.data(), kBytes, desc, &transfer) != 0)
      return flagcxP2pEngineLastError();
    const FlagcxP2pXferResult result = resultOf(way, transfer);
    if (result.state != FLAGCX_P2P_XFER_DONE)
      return std::string("failed: ") + result.reason;
    return memcmp(got.data(), expected.data(), kBytes) == 0 ? "" : "other bytes";
  };
  EXPECT_EQ(reads(first, *source), "");
  Memory unregistered(kBytes, 9);
  int told[2], go[2];
  ASSERT_EQ(pipe(told), 0);
  ASSERT_EQ(pipe(go), 0);
  Child child([&] {
    const Engine own = createEngine();
    char any;
    {
      // At the address of memory that the parent has, and has not registered.
      FlagcxP2pMr region = 0;
      char image[FLAGCX_P2P_DESC_SIZE] = {};
      if (flagcxP2pEngineReg(own.get(), unregistered.address(), kBytes, region) != 0 ||
          flagcxP2pEnginePrepareDesc(own.get(), region, unregistered.data(), kBytes, image) != 0)
        return std::string(flagcxP2pEngineLastError());
      if (write(told[1], image, sizeof(image)) < 0 || read(go[0], &any, 1) != 1)
        return std::string("pipe");
      flagcxP2pEngineMrDestroy(own.get(), region);
    }
    if (write(told[1], "", 1) < 0 || read(go[0], &any, 1) != 1)
      return std::string("pipe");
    return std::string();
  });
  char image[FLAGCX_P2P_DESC_SIZE], any;
  ASSERT_EQ(read(told[0], image, sizeof(image)), static_cast<ssize_t>(sizeof(image)));
  FlagcxP2pRdmaDesc childs;
  flagcxP2pDeserializeRdmaDesc(image, &childs);
  Buffer second(engine, kBytes);
  second.scramble(10);
  const FlagcxP2pRdmaDesc later = second.desc(0, kBytes);
  if (childs.rkey != later.rkey && childs.rkey != first.rkey) {
    EXPECT_NE(reads(childs, unregistered), "") << "the child's key opens memory of the parent";
  }
  EXPECT_EQ(reads(later, second), "") << "registered after the child's";
  ASSERT_EQ(write(go[1], "", 1), 1);
  ASSERT_EQ(read(told[0], &any, 1), 1);
  EXPECT_EQ(reads(later, second), "") << "after the child's is gone";
  EXPECT_EQ(reads(first, *source), "");
  ASSERT_EQ(write(go[1], "", 1), 1);
  EXPECT_EQ(child.wait(), "");
  EXPECT_EQ(reads(first, *source), "");
  for (int fd : {told[0], told[1], go[0], go[1]}) close(fd);
}

// ---------------------------------------------------------------------------------------------------------------------
// A fork at any moment

TEST_F(Forked, WhileOtherThreadsAreInEveryCall) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  const auto repeat = [&](std::function<void()> work) {
    threads.emplace_back([&stop, work] {
      while (!stop) work();
    });
  };
  const Buffer from(engine, kBytes);
  const FlagcxP2pRdmaDesc theirs = peer->desc();
  std::atomic<uint64_t> wrong{0}, moved{0};
  repeat([&] { // transfers
    uint64_t transfer = 0;
    FlagcxP2pRdmaDesc desc = theirs;
    desc.addr += 1 << 20;
    desc.size = kBytes;
    if (flagcxP2pEngineWrite(conn, from.region(), from.data(), kBytes, desc, &transfer) != 0 ||
        resultOf(conn, transfer).state != FLAGCX_P2P_XFER_DONE)
      ++wrong;
    ++moved;
  });
  repeat([&] { // registrations, which the peer is told of
    const Buffer brief(engine, 4096);
  });
  const Engine other = createEngine();
  const Address address = addressOf(engine);
  repeat([&] { // engines, which look for the GPU's driver, and connections
    const Engine brief(flagcxP2pEngineCreate());
    const Conn way(flagcxP2pEngineConnect(other.get(), address.host.c_str(), 0, address.port));
    if (brief == nullptr || way == nullptr)
      ++wrong;
  });
  repeat([&] { // refusals, which are logged
    FlagcxP2pRdmaDesc none;
    (void)flagcxP2pEngineMakeDesc(nullptr, 0, 0, &none);
    FlagcxP2pNotifyMsg message = {};
    (void)flagcxP2pEngineSendNotif(conn, &message);
    std::this_thread::sleep_for(1ms);
  });
  const std::string session = peer->session();
  int forks = 0;
  for (const auto deadline = std::chrono::steady_clock::now() + 1s;
       forks < 4 || std::chrono::steady_clock::now() < deadline; ++forks) {
    const bool uses = forks % 4 == 0;
    Child child(
        [&] {
          std::string wrong;
          uint64_t transfer = 0;
          if (flagcxP2pEngineWrite(conn, from.region(), from.data(), 8, theirs, &transfer) != -1)
            wrong += "Write is not refused\n";
          wrong += refusedAsForked("Write");
          return uses ? wrong + newEngineWorks(session, theirs, 12) : wrong;
        },
        uses ? End::Quick : End::StaticObject, engine.get());
    EXPECT_EQ(child.wait(40), "") << "fork " << forks;
    if (HasFailure())
      break;
  }
  stop = true;
  for (std::thread &thread : threads) thread.join();
  EXPECT_EQ(wrong, 0u);
  EXPECT_GT(moved, 0u);
  std::printf("%d forks while %llu transfers ended\n", forks, static_cast<unsigned long long>(moved.load()));
  parentIsUnharmed();
}

// ---------------------------------------------------------------------------------------------------------------------
// A parent that ends, in processes of their own

// Runs one of the programs below; what it prints goes to this one's output.
pid_t runSelf(const std::string &filter, int output) {
  const std::string argument = "--gtest_filter=" + filter;
  char disabled[] = "--gtest_also_run_disabled_tests", name[] = "forking";
  char *const arguments[] = {name, const_cast<char *>(argument.c_str()), disabled, nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  if (output >= 0)
    posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  pid_t pid = -1;
  const int failed = posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  EXPECT_EQ(failed, 0) << std::strerror(failed);
  return pid;
}

// The child returns from its test and so from main: its fixture and static objects destroy everything on the way.
class ForkProgram : public Forked {};

TEST_F(ForkProgram, DISABLED_ChildReturnsFromMain) {
  const pid_t pid = fork();
  if (pid == 0) {
    (void)peer.release(); // which would end the peer
    return;
  }
  EXPECT_EQ(awaitEnd(pid, 40), 0);
  parentIsUnharmed();
}

TEST(ForkPrograms, AChildMayReturnFromMain) {
  EXPECT_EQ(awaitEnd(runSelf("ForkProgram.DISABLED_ChildReturnsFromMain", -1), 55), 0);
}

// daemon(3): the process that goes on is a child, and makes its engine anew.
TEST_F(ForkProgram, DISABLED_BecomesADaemon) {
  const std::string session = peer->session();
  const FlagcxP2pRdmaDesc theirs = peer->desc();
  int report = dup(STDOUT_FILENO);
  std::fflush(nullptr);
  const pid_t pid = fork(); // as daemon(3) does, but for the parent's end: it keeps the peer
  if (pid == 0) {
    if (daemon(1, 1) != 0)
      _exit(1);
    const std::string wrong = "daemon: " + newEngineWorks(session, theirs, 13) + "\n";
    (void)!write(report, wrong.data(), wrong.size());
    exit(0);
  }
  EXPECT_EQ(awaitEnd(pid, 40), 0);
  close(report);
  std::this_thread::sleep_for(kTimeToConnect); // the daemon uses the peer
  parentIsUnharmed();
}

TEST(ForkPrograms, ADaemonMakesItsEngineAnew) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const pid_t pid = runSelf("ForkProgram.DISABLED_BecomesADaemon", ends[1]);
  close(ends[1]);
  FILE *const output = fdopen(ends[0], "r");
  char line[512];
  std::string reported;
  while (std::fgets(line, sizeof(line), output) != nullptr) {
    if (std::string(line).find("daemon: ") == 0)
      reported = line;
  }
  std::fclose(output);
  EXPECT_EQ(reported, "daemon: \n");
  EXPECT_EQ(awaitEnd(pid, 50), 0);
}

// Serves, forks a child that outlives it, and ends.
TEST(ForkProgramServer, DISABLED_EndsBeforeItsChild) {
  const Engine engine = createEngine();
  const Buffer buffer(engine, 4096);
  ASSERT_EQ(flagcxP2pEngineStartRpcServer(engine.get()), 0);
  const Address address = addressOf(engine);
  // What the child holds of the output would keep its reader waiting.
  const pid_t pid = fork();
  if (pid == 0) {
    close(STDOUT_FILENO);
    std::this_thread::sleep_for(40s);
    exit(0); // long after its parent: nothing of that engine is there any more
  }
  std::printf("serves %s child %d\n", address.session().c_str(), static_cast<int>(pid));
  std::fflush(stdout);
  std::this_thread::sleep_for(kTimeToConnect);
  _exit(0);
}

TEST(ForkPrograms, ThePeersOfAParentThatEndsAreToldThoughItsChildLives) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const pid_t pid = runSelf("ForkProgramServer.*", ends[1]);
  close(ends[1]);
  FILE *const output = fdopen(ends[0], "r");
  char line[512], session[64] = {};
  int child = 0;
  while (child == 0 && std::fgets(line, sizeof(line), output) != nullptr)
    (void)std::sscanf(line, "serves %63s child %d", session, &child);
  ASSERT_GT(child, 0);
  const Engine client = createEngine();
  FlagcxP2pConn *const conn = flagcxP2pEngineGetConn(client.get(), session);
  ASSERT_NE(conn, nullptr) << flagcxP2pEngineLastError();
  EXPECT_EQ(awaitEnd(pid, 20), 0);
  const auto ended = std::chrono::steady_clock::now();
  FlagcxP2pConnInfo info = {};
  do {
    info.size = sizeof(info);
    ASSERT_EQ(flagcxP2pEngineGetConnInfo(conn, &info), 0);
    std::this_thread::sleep_for(2ms);
  } while (info.healthyLanes > 0 && std::chrono::steady_clock::now() - ended < 2 * kNoticed);
  EXPECT_EQ(info.healthyLanes, 0u);
  EXPECT_LT(std::chrono::steady_clock::now() - ended, kNoticed) << "not when the child ends, nor by the keepalive";
  EXPECT_EQ(kill(child, 0), 0) << "the child goes on";
  std::fclose(output);
  kill(child, SIGKILL);
}

} // namespace
