// SPDX-License-Identifier: Apache-2.0
//
// A peer in a process of its own: this program once more, with an engine that serves a buffer.
#ifndef FLAGCX_P2P_TESTS_PEER_PROCESS_H_
#define FLAGCX_P2P_TESTS_PEER_PROCESS_H_

#include <cstdio>
#include <string>

#include <sys/types.h>

#include "flagcx_p2p.h"

namespace support {

class PeerProcess {
 public:
  static constexpr size_t kBytes = 64 << 20;

  // Starts it and waits until it serves: the test that `serves` names.
  explicit PeerProcess(const char *serves = "PeerProcess.*");
  // Kills it.
  ~PeerProcess();
  PeerProcess(const PeerProcess &) = delete;
  PeerProcess &operator=(const PeerProcess &) = delete;

  std::string session() const;
  // Of its buffer of kBytes.
  const FlagcxP2pRdmaDesc &desc() const { return desc_; }
  void signal(int number) const;
  // Kills it, and returns when the kernel has closed all that it had open: its queue pairs move no bytes any more.
  void killAndWait() const;

 private:
  pid_t pid_ = -1;
  FILE *input_ = nullptr; // its input: it ends with it
  int port_ = 0;
  FlagcxP2pRdmaDesc desc_ = {};
};

} // namespace support

#endif // FLAGCX_P2P_TESTS_PEER_PROCESS_H_
