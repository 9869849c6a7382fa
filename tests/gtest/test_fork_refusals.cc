// SPDX-License-Identifier: Apache-2.0
//
// What a forked process is refused: every call with a handle of its parent's, with the reason, and at once.
#include <functional>

#include <unistd.h>

#include "fork_support.h"
#include "net_support.h"

// In no header; other sources of FlagCX declare it.
int flagcxP2pEngineRegEx(FlagcxP2pEngine *engine, uintptr_t data, size_t size, int flags, FlagcxP2pMr &mrId);

using namespace support;

namespace {

const testing::Environment *const environment = testing::AddGlobalTestEnvironment(new WholeAllocator);

struct Call {
  const char *name;
  std::function<bool()> isRefused;
};

// Makes each call in a child. What went wrong, if anything.
std::string refusalsOf(const std::vector<Call> &calls) {
  Child child([&] {
    std::string wrong;
    for (const Call &call : calls) {
      alarm(10); // a call that hangs ends the child
      if (!call.isRefused())
        wrong += std::string(call.name) + " is not refused\n";
      wrong += refusedAsForked(call.name);
      FlagcxP2pRdmaDesc none;
      (void)flagcxP2pEngineMakeDesc(nullptr, 0, 0,
                                    &none); // another reason, so that the next is not taken for this one
    }
    return wrong;
  });
  return child.wait(60);
}

TEST_F(Forked, EveryCallOfTheEngineIsRefused) {
  FlagcxP2pEngine *const e = engine.get();
  const FlagcxP2pMr mr = source->region();
  uint8_t *const data = source->data();
  FlagcxP2pRdmaDesc desc = peer->desc();
  desc.size = 64;
  uint64_t id = 0;
  ASSERT_EQ(flagcxP2pEngineWrite(conn, mr, data, 64, desc, &id), 0) << flagcxP2pEngineLastError();
  const std::vector<FlagcxP2pMr> regions{mr};
  const std::vector<void *> addresses{data};
  const std::vector<size_t> sizes{64};
  const std::vector<FlagcxP2pRdmaDesc> descs{desc};
  const uint64_t from = source->address(), to = desc.addr, size = 64;
  const std::string session = peer->session();
  FlagcxP2pMr region = 0;
  Memory memory(4096);
  char image[FLAGCX_P2P_DESC_SIZE], text[64], *metadata = nullptr;
  int number = 0;
  size_t count = 0;
  uint32_t state = 0;
  void *block = nullptr;
  FlagcxP2pNotifyMsg message = {};
  FlagcxP2pXferResult result = {};
  result.size = sizeof(result);
  FlagcxP2pConnInfo info = {};
  info.size = sizeof(info);
  const auto sink = [](void *, const char *, const void *, size_t) {};
  const std::vector<Call> calls{
      {"Connect", [&] { return flagcxP2pEngineConnect(e, "127.0.0.1", 0, 1) == nullptr; }},
      {"Accept", [&] { return flagcxP2pEngineAccept(e, text, sizeof(text), &number) == nullptr; }},
      {"GetRpcPort", [&] { return flagcxP2pEngineGetRpcPort(e) == -1; }},
      {"StartRpcServer", [&] { return flagcxP2pEngineStartRpcServer(e) == -1; }},
      {"GetConn", [&] { return flagcxP2pEngineGetConn(e, session.c_str()) == nullptr; }},
      {"Reg", [&] { return flagcxP2pEngineReg(e, memory.address(), 4096, region) == -1; }},
      {"RegEx", [&] { return flagcxP2pEngineRegEx(e, memory.address(), 4096, 1, region) == -1; }},
      {"RegFlags", [&] { return flagcxP2pEngineRegFlags(e, memory.address(), 4096, 1, &region) == -1; }},
      {"PrepareDesc", [&] { return flagcxP2pEnginePrepareDesc(e, mr, data, 64, image) == -1; }},
      {"MakeDesc", [&] { return flagcxP2pEngineMakeDesc(conn, to, 64, &desc) == -1; }},
      {"Read", [&] { return flagcxP2pEngineRead(conn, mr, data, 64, desc, &id) == -1; }},
      {"Write", [&] { return flagcxP2pEngineWrite(conn, mr, data, 64, desc, &id) == -1; }},
      {"ReadVector", [&] { return flagcxP2pEngineReadVector(conn, regions, addresses, sizes, descs, 1, &id) == -1; }},
      {"WriteVector",
       [&] { return flagcxP2pEngineWriteVector(conn, regions, addresses, sizes, descs, 1, &id) == -1; }},
      {"WriteVectorSync",
       [&] { return flagcxP2pEngineWriteVectorSync(conn, regions, addresses, sizes, descs) == -1; }},
      {"TryReadVector",
       [&] {
         return flagcxP2pEngineTryReadVector(conn, &mr, addresses.data(), sizes.data(), descs.data(), 1, &id) == -1;
       }},
      {"TryWriteVector",
       [&] {
         return flagcxP2pEngineTryWriteVector(conn, &mr, addresses.data(), sizes.data(), descs.data(), 1, &id) == -1;
       }},
      {"TryReadRanges",
       [&] { return flagcxP2pEngineTryReadRanges(conn, &mr, addresses.data(), sizes.data(), &to, 1, &id) == -1; }},
      {"TryWriteRanges",
       [&] { return flagcxP2pEngineTryWriteRanges(conn, &mr, addresses.data(), sizes.data(), &to, 1, &id) == -1; }},
      {"XferStatus", [&] { return !flagcxP2pEngineXferStatus(conn, id); }},
      {"XferResult", [&] { return flagcxP2pEngineXferResult(conn, id, &result) == -1; }},
      {"XferWait", [&] { return flagcxP2pEngineXferWait(conn, id, -1, &result) == -1; }},
      {"XferResult of id 0", [&] { return flagcxP2pEngineXferResult(conn, 0, &result) == -1; }},
      {"XferWait of id 0", [&] { return flagcxP2pEngineXferWait(conn, 0, -1, &result) == -1; }},
      {"XferCancel", [&] { return flagcxP2pEngineXferCancel(conn, id) == -1; }},
      {"TestBatch", [&] { return flagcxP2pEngineTestBatch(conn, &id, 1, &state, &count) == -1; }},
      {"GetMetadata", [&] { return flagcxP2pEngineGetMetadata(e, &metadata) == -1; }},
      {"SendNotif", [&] { return flagcxP2pEngineSendNotif(conn, &message) == -1; }},
      {"SendNotifBytes", [&] { return flagcxP2pEngineSendNotifBytes(conn, "n", "c", 1) == -1; }},
      {"GetNotifsOf", [&] { return flagcxP2pEngineGetNotifsOf(e, sink, nullptr) == -1; }},
      {"TakeNotifs", [&] { return flagcxP2pEngineTakeNotifs(e, &block, &count) == -1; }},
      {"GetSlowTransfers", [&] { return flagcxP2pEngineGetSlowTransfers(e, 0, nullptr, 0, &count) == -1; }},
      {"GetConnInfo", [&] { return flagcxP2pEngineGetConnInfo(conn, &info) == -1; }},
      {"GetRails", [&] { return flagcxP2pEngineGetRails(conn, nullptr, 0, &count) == -1; }},
      {"RpcGetPort", [&] { return flagcxP2pRpcGetPort(e) == -1; }},
      {"RpcStartServer", [&] { return flagcxP2pRpcStartServer(e) == -1; }},
      {"RpcRegister", [&] { return flagcxP2pRpcRegister(e, memory.address(), 4096, &region) == -1; }},
      {"RpcRegisterHost", [&] { return flagcxP2pRpcRegisterHost(e, memory.address(), 4096, &region) == -1; }},
      {"RpcGetConn", [&] { return flagcxP2pRpcGetConn(e, session.c_str()) == nullptr; }},
      {"RpcBatchWriteSync", [&] { return flagcxP2pRpcBatchWriteSync(conn, 1, &from, &to, &size) == -1; }},
      {"CEngineGetMetadata", [&] { return flagcxP2pCEngineGetMetadata(e, text, sizeof(text), &count) == -1; }},
      {"CEngineReadVector",
       [&] {
         return flagcxP2pCEngineReadVector(conn, &mr, addresses.data(), sizes.data(), descs.data(), 1, &id,
                                           nullptr) == -1;
       }},
      {"CEngineWriteVector",
       [&] {
         return flagcxP2pCEngineWriteVector(conn, &mr, addresses.data(), sizes.data(), descs.data(), 1, &id,
                                            nullptr) == -1;
       }},
      {"CEngineWriteVectorSync",
       [&] {
         return flagcxP2pCEngineWriteVectorSync(conn, &mr, addresses.data(), sizes.data(), descs.data(), 1) == -1;
       }},
  };
  EXPECT_EQ(refusalsOf(calls), "");
  EXPECT_TRUE(succeeds(conn, id));
  parentIsUnharmed();
}

// Those that cannot refuse, or need no handle, do nothing to the parent and end.
TEST_F(Forked, CallsWithoutARefusalDoNothing) {
  Child child([this] {
    alarm(10);
    flagcxP2pEngineStopAccept(engine.get());
    (void)flagcxP2pEngineConnIsLocal(conn);
    (void)flagcxP2pEngineStartListener(conn);
    (void)flagcxP2pEngineGetNotifs();
    flagcxP2pDumpGlobalConfig();
    size_t needed = 0;
    (void)flagcxP2pMetricsText(nullptr, 0, &needed);
    bool hasIpc = false;
    char ipc[FLAGCX_P2P_IPC_INFO_SIZE];
    (void)flagcxP2pEngineGetIpcInfo(engine.get(), source->address(), ipc, &hasIpc);
    flagcxP2pEngineMrDestroy(engine.get(), source->region());
    flagcxP2pEngineConnDestroy(conn);
    flagcxP2pRpcEngineDestroy(engine.get());
    return std::string();
  });
  EXPECT_EQ(child.wait(), "");
  parentIsUnharmed();
}

class ForkedNet : public NetPair {};

TEST_F(ForkedNet, EveryCallOfTheTableIsRefused) {
  NetMemory from(sendComm, kBytes, 1), to(recvComm, kBytes, 2);
  void **const fromHandles = from.handles(), **const toHandles = to.handles();
  void *request = nullptr, *comm = nullptr, *handle = nullptr;
  ASSERT_EQ(net.iput(sendComm, 0, 0, 64, 0, 1, fromHandles, toHandles, &request), flagcxSuccess)
      << flagcxP2pEngineLastError();
  Memory memory(4096);
  const uint64_t offset = 0;
  const size_t size = 64;
  int done = 0, count = 0, posted = 0;
  void *other = nullptr;
  const std::vector<Call> calls{
      {"accept", [&] { return net.accept(listenComm, &comm) != flagcxSuccess; }},
      {"iput", [&] { return net.iput(sendComm, 0, 0, 64, 0, 1, fromHandles, toHandles, &other) != flagcxSuccess; }},
      {"iget", [&] { return net.iget(sendComm, 0, 0, 64, 0, 1, fromHandles, toHandles, &other) != flagcxSuccess; }},
      {"iputBatch",
       [&] {
         return net.iputBatch(sendComm, 1, &offset, &offset, &size, 0, 1, fromHandles, toHandles, &other, &posted) !=
                flagcxSuccess;
       }},
      {"igetBatch",
       [&] {
         return net.igetBatch(sendComm, 1, &offset, &offset, &size, 0, 1, fromHandles, toHandles, &other) !=
                flagcxSuccess;
       }},
  };
  EXPECT_EQ(refusalsOf(calls), "");
  // Asking about a request of the parent's ends, and as no success.
  Child asks([&] {
    alarm(10);
    void *one = request, *all[] = {request};
    // The child is a process that has not called init.
    const bool refused = net.regMr(sendComm, memory.data(), 4096, FLAGCX_PTR_HOST, 0, &handle) != flagcxSuccess &&
                         net.test(one, &done, nullptr) != flagcxSuccess &&
                         net.testBatch(all, 1, &done, &count) != flagcxSuccess;
    return std::string(refused ? "" : "a request of the parent's is a success");
  });
  EXPECT_EQ(asks.wait(), "");
  Child closes(
      [&] {
        alarm(10);
        (void)net.deregMr(sendComm, from.handle());
        (void)net.closeSend(sendComm);
        (void)net.closeRecv(recvComm);
        (void)flagcxNetIbP2pAbortListen(listenComm);
        (void)net.closeListen(listenComm);
        return std::string();
      },
      End::ByExit);
  EXPECT_EQ(closes.wait(), "");
  EXPECT_EQ(finish(request), flagcxSuccess);
  ASSERT_EQ(net.iput(sendComm, 0, 0, kBytes, 0, 1, fromHandles, toHandles, &request), flagcxSuccess);
  EXPECT_EQ(finish(request), flagcxSuccess);
  EXPECT_EQ(memcmp(from.data(), to.data(), kBytes), 0);
  void *sender = nullptr, *receiver = nullptr;
  connectTo(listenComm, NetPair::handle, &sender, &receiver);
  ASSERT_TRUE(sender != nullptr && receiver != nullptr) << flagcxP2pEngineLastError();
  EXPECT_EQ(net.closeSend(sender), flagcxSuccess);
  EXPECT_EQ(net.closeRecv(receiver), flagcxSuccess);
}

} // namespace
