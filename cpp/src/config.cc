// SPDX-License-Identifier: Apache-2.0
//
// The settings in force.
#include <atomic>

#include "facade.h"

using namespace flagcx::p2p;

namespace {

FlagcxP2pGlobalConfig load() {
  startLogging();
  const ffi::GlobalConfig settings = ffi::global_config();
  FlagcxP2pGlobalConfig config;
  config.qpsPerConn = settings.qps_per_conn;
  config.workersPerPool = settings.workers_per_pool;
  config.shardCount = settings.shard_count;
  config.sharedCqDepth = settings.shared_cq_depth;
  config.maxWrPerPost = settings.max_wr_per_post;
  config.maxRequests = settings.max_requests;
  config.batchPollSize = settings.batch_poll_size;
  config.sliceSize = settings.slice_size;
  config.fragmentLimit = settings.fragment_limit;
  config.maxSge = settings.max_sge;
  config.maxInline = settings.max_inline;
  config.ibPort = settings.ib_port;
  config.gidIndex = settings.gid_index;
  config.mtuLength = settings.mtu_length;
  config.ibTrafficClass = settings.ib_traffic_class;
  config.retryCnt = settings.retry_cnt;
  config.notifMaxPeers = settings.notif_max_peers;
  config.enableDestDeviceAffinity = settings.enable_dest_dev_affinity;
  return config;
}

} // namespace

const FlagcxP2pGlobalConfig &flagcxP2pGlobalConfig() {
  // Not a local static that is initialised here: its guard may be held by another thread while the process forks.
  static std::atomic<const FlagcxP2pGlobalConfig *> config{nullptr};
  const FlagcxP2pGlobalConfig *known = config.load(std::memory_order_acquire);
  if (known != nullptr)
    return *known;
  const FlagcxP2pGlobalConfig *const loaded = new FlagcxP2pGlobalConfig(load());
  if (config.compare_exchange_strong(known, loaded, std::memory_order_acq_rel))
    return *loaded;
  delete loaded;
  return *known;
}

void flagcxP2pDumpGlobalConfig() {
  startLogging();
  ffi::dump_global_config();
}
