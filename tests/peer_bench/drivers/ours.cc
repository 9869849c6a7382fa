// SPDX-License-Identifier: Apache-2.0
//
// The driver of this engine, through flagcx_p2p.h and the library as it ships, with its default settings.
//
//   ours target cross-memory|tcp|shared
//   ours initiator cross-memory|tcp|shared LINE_OF_THE_TARGET
//
// FLAGCX_P2P_PATH chooses the path; the initiator only checks that it is the one that was asked for. On `shared` the engine
// allocates the pools, if the header has that call: build.sh then defines ALLOCATES.
#include <cstdio>
#include <cstring>
#include <string>
#include <unistd.h>
#include <vector>

#include "flagcx_p2p.h"
#include "flagcx_p2p_ext.h"
#include "measure.h"

namespace {

void require(bool fine, const char *what) {
  if (!fine)
    measure_fail("%s: %s", what, flagcxP2pEngineLastError());
}

// An engine with a registered pool.
struct Side {
  FlagcxP2pEngine *engine = flagcxP2pEngineCreate();
  unsigned char *pool = nullptr;
  FlagcxP2pMr region = 0;

  Side(side side, const std::string &path) {
    require(engine != nullptr, "create an engine");
    if (path == "shared") {
      allocate();
      measure_fill(pool, side);
      return;
    }
    pool = measure_pool(side);
    require(flagcxP2pEngineReg(engine, reinterpret_cast<uintptr_t>(pool), POOL_BYTES, region) == 0, "register");
  }

 private:
#ifdef ALLOCATES
  void allocate() {
    void *address = nullptr;
    require(flagcxP2pEngineAllocShared(engine, POOL_BYTES, 0, &address, &region) == 0, "allocate");
    pool = static_cast<unsigned char *>(address);
  }
#else
  void allocate() {
    measure_fail("this engine allocates no memory for peers to map");
  }
#endif
};

// One transfer's iovs, as the calls want them.
struct Iovs {
  std::vector<FlagcxP2pMr> regions;
  std::vector<void *> local;
  std::vector<size_t> sizes;
  std::vector<FlagcxP2pRdmaDesc> descs;
};

class Initiator {
 public:
  Initiator(const Side &side, FlagcxP2pConn *conn) : side_(side), conn_(conn) {}

  void prepare(const plan &plan) {
    put_ = plan.load.put != 0;
    sets_.assign(plan.load.sets, Iovs());
    for (size_t at = 0; at < plan.load.sets * plan.load.batch; ++at) {
      FlagcxP2pRdmaDesc desc;
      const uint64_t address = plan.remote + plan.remote_offsets[at];
      require(flagcxP2pEngineMakeDesc(conn_, address, static_cast<uint32_t>(plan.load.size), &desc) == 0, "describe");
      Iovs &iovs = sets_[at / plan.load.batch];
      iovs.regions.push_back(side_.region);
      iovs.local.push_back(side_.pool + plan.local_offsets[at]);
      iovs.sizes.push_back(plan.load.size);
      iovs.descs.push_back(desc);
    }
  }

  void transfer(const Iovs &iovs) {
    uint64_t id = 0;
    require(submit(iovs, &id) == 0, "submit");
    FlagcxP2pXferResult result;
    result.size = sizeof(result);
    require(flagcxP2pEngineXferWait(conn_, id, -1, &result) == 0, "wait");
    if (result.state != FLAGCX_P2P_XFER_DONE)
      measure_fail("a transfer ended in state %u: %s", result.state, result.reason);
  }

  static void prepareThis(void *context, const plan *plan) { static_cast<Initiator *>(context)->prepare(*plan); }

  static void transferThis(void *context, size_t set) {
    auto *const initiator = static_cast<Initiator *>(context);
    initiator->transfer(initiator->sets_[set]);
  }

 private:
  int submit(const Iovs &iovs, uint64_t *id) {
    const int count = static_cast<int>(iovs.sizes.size());
    if (count == 1) {
      const auto call = put_ ? flagcxP2pEngineWrite : flagcxP2pEngineRead;
      return call(conn_, side_.region, iovs.local[0], iovs.sizes[0], iovs.descs[0], id);
    }
    if (put_)
      return flagcxP2pEngineWriteVector(conn_, iovs.regions, iovs.local, iovs.sizes, iovs.descs, count, id);
    return flagcxP2pEngineReadVector(conn_, iovs.regions, iovs.local, iovs.sizes, iovs.descs, count, id);
  }

  const Side &side_;
  FlagcxP2pConn *conn_;
  bool put_ = true;
  std::vector<Iovs> sets_;
};

uint32_t numberOf(const std::string &path) {
  if (path == "tcp")
    return FLAGCX_P2P_PATH_TCP;
  return path == "shared" ? FLAGCX_P2P_PATH_SHARED : FLAGCX_P2P_PATH_CROSS_MEMORY;
}

void runTarget(const std::string &path) {
  const Side side(TARGET, path);
  require(flagcxP2pEngineStartRpcServer(side.engine) == 0, "start the server");
  char *metadata = nullptr;
  require(flagcxP2pEngineGetMetadata(side.engine, &metadata) == 0, "metadata");
  const std::string session(metadata, std::strcspn(metadata, "?"));
  delete[] metadata;
  measure_say("%d,%llu,%s", static_cast<int>(getpid()),
              static_cast<unsigned long long>(reinterpret_cast<uintptr_t>(side.pool)), session.c_str());
  measure_sleep();
}

void runInitiator(const std::string &path, const char *line) {
  int peer = 0;
  unsigned long long remote = 0;
  char session[128];
  if (std::sscanf(line, "%d,%llu,%127s", &peer, &remote, session) != 3)
    measure_fail("not the line of a target: %s", line);
  const Side side(INITIATOR, path);
  FlagcxP2pConn *const conn = flagcxP2pEngineGetConn(side.engine, session);
  require(conn != nullptr, "connect");
  FlagcxP2pConnInfo info;
  info.size = sizeof(info);
  require(flagcxP2pEngineGetConnInfo(conn, &info) == 0, "ask about the connection");
  if (info.path != numberOf(path))
    measure_fail("the connection took path %u, not %s", info.path, path.c_str());
  measure_say("%s", flagcxP2pVersion());
  Initiator initiator(side, conn);
  const engine engine = {&initiator, Initiator::prepareThis, Initiator::transferThis, nullptr};
  measure_serve(&engine, side.pool, peer, remote);
}

} // namespace

int main(int argc, char **argv) {
  const std::string role = argc > 1 ? argv[1] : "";
  measure_begin("ours");
  if (role == "target" && argc == 3)
    runTarget(argv[2]);
  else if (role == "initiator" && argc == 4)
    runInitiator(argv[2], argv[3]);
  else
    measure_fail("usage: ours target PATH, or ours initiator PATH LINE_OF_THE_TARGET");
  // Ends without closing: the target may have been stopped or killed by now.
  _exit(0);
}
