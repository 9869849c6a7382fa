// SPDX-License-Identifier: Apache-2.0
//
// Transfers. The caller's vectors reach the engine as pointers and lengths: nothing is copied or allocated here.
#include "accl.h"
#include "facade.h"

using namespace flagcx::p2p;

namespace {

constexpr const char *kOneSided = "two-sided transfers are not offered: use flagcxP2pEngineRead or Write";

int startOne(const char *call, ffi::Operation operation, FlagcxP2pConn *conn, const void *data, size_t size,
             const FlagcxP2pRdmaDesc &desc, uint64_t *transferId) {
  if (conn == nullptr || data == nullptr || transferId == nullptr)
    return refuseNull(call, conn == nullptr ? "conn" : data == nullptr ? "data" : "transferId");
  return ffi::conn_start_one(*conn, operation, reinterpret_cast<uintptr_t>(data), size, desc, *transferId);
}

ffi::Pieces pieces(const std::vector<FlagcxP2pMr> &regions, const std::vector<void *> &local,
                   const std::vector<size_t> &sizes, const std::vector<FlagcxP2pRdmaDesc> &descs,
                   const std::vector<char *> &ipc = {}) {
  return {regions.data(),        addresses(local.data()),
          sizes.data(),          descs.data(),
          addresses(ipc.data()), regions.size(),
          local.size(),          sizes.size(),
          descs.size(),          ipc.size()};
}

// Apart, so that a transfer of one piece does not save the registers that this needs.
[[gnu::noinline]] int startAny(ffi::Operation operation, FlagcxP2pConn *conn, const std::vector<FlagcxP2pMr> &regions,
                               const std::vector<void *> &local, const std::vector<size_t> &sizes,
                               const std::vector<FlagcxP2pRdmaDesc> &descs, int count, uint64_t *transferId,
                               const std::vector<char *> &ipc) {
  return ffi::conn_start(*conn, operation, pieces(regions, local, sizes, descs, ipc), count, *transferId);
}

int start(const char *call, ffi::Operation operation, FlagcxP2pConn *conn, const std::vector<FlagcxP2pMr> &regions,
          const std::vector<void *> &local, const std::vector<size_t> &sizes,
          const std::vector<FlagcxP2pRdmaDesc> &descs, int count, uint64_t *transferId,
          const std::vector<char *> &ipc) {
  if (conn == nullptr || transferId == nullptr)
    return refuseNull(call, conn == nullptr ? "conn" : "transferId");
  // For most transfers of one piece half of the time that the other way takes.
  if (count == 1 && ipc.empty() && !regions.empty() && !local.empty() && !sizes.empty() && !descs.empty())
    return ffi::conn_start_one_in(*conn, operation, regions[0], reinterpret_cast<uintptr_t>(local[0]), sizes[0],
                                  descs[0], *transferId);
  return startAny(operation, conn, regions, local, sizes, descs, count, transferId, ipc);
}

} // namespace

int flagcxP2pEngineRead(FlagcxP2pConn *conn, FlagcxP2pMr mr, const void *data, size_t size, FlagcxP2pRdmaDesc desc,
                        uint64_t *transferId) {
  FORWARD_TO_ACCL(conn, flagcxAcclEngineRead(conn, mr, data, size, desc, transferId));
  (void)mr;
  return startOne("flagcxP2pEngineRead", ffi::Operation::Read, conn, data, size, desc, transferId);
}

int flagcxP2pEngineWrite(FlagcxP2pConn *conn, FlagcxP2pMr mr, const void *data, size_t size, FlagcxP2pRdmaDesc desc,
                         uint64_t *transferId) {
  FORWARD_TO_ACCL(conn, flagcxAcclEngineWrite(conn, mr, data, size, desc, transferId));
  (void)mr;
  return startOne("flagcxP2pEngineWrite", ffi::Operation::Write, conn, data, size, desc, transferId);
}

int flagcxP2pEngineReadVector(FlagcxP2pConn *conn, std::vector<FlagcxP2pMr> mrIds, std::vector<void *> dstVec,
                              std::vector<size_t> sizeVec, std::vector<FlagcxP2pRdmaDesc> descs, int numIovs,
                              uint64_t *transferId, std::vector<char *> ipcBufs) {
  FORWARD_TO_ACCL(conn, flagcxAcclEngineReadVector(conn, mrIds, dstVec, sizeVec, descs, numIovs, transferId));
  return start("flagcxP2pEngineReadVector", ffi::Operation::Read, conn, mrIds, dstVec, sizeVec, descs, numIovs,
               transferId, ipcBufs);
}

int flagcxP2pEngineWriteVector(FlagcxP2pConn *conn, const std::vector<FlagcxP2pMr> &mrIds,
                               const std::vector<void *> &dstVec, const std::vector<size_t> &sizeVec,
                               const std::vector<FlagcxP2pRdmaDesc> &descs, int numIovs, uint64_t *transferId,
                               const std::vector<char *> &ipcBufs) {
  FORWARD_TO_ACCL(conn, flagcxAcclEngineWriteVector(conn, mrIds, dstVec, sizeVec, descs, numIovs, transferId));
  return start("flagcxP2pEngineWriteVector", ffi::Operation::Write, conn, mrIds, dstVec, sizeVec, descs, numIovs,
               transferId, ipcBufs);
}

int flagcxP2pEngineWriteVectorSync(FlagcxP2pConn *conn, const std::vector<FlagcxP2pMr> &mrIds,
                                   const std::vector<void *> &srcVec, const std::vector<size_t> &sizeVec,
                                   const std::vector<FlagcxP2pRdmaDesc> &descs) {
  FORWARD_TO_ACCL(conn, flagcxAcclEngineWriteVectorSync(conn, mrIds, srcVec, sizeVec, descs));
  if (conn == nullptr)
    return refuseNull("flagcxP2pEngineWriteVectorSync", "conn");
  return ffi::conn_write_sync(*conn, pieces(mrIds, srcVec, sizeVec, descs));
}

bool flagcxP2pEngineXferStatus(FlagcxP2pConn *conn, uint64_t transferId) {
  FORWARD_TO_ACCL(conn, flagcxAcclEngineXferStatus(conn, transferId));
  return conn == nullptr || ffi::conn_has_ended(*conn, transferId);
}

int flagcxP2pEngineSend(FlagcxP2pConn *, FlagcxP2pMr, const void *, size_t, uint64_t *) {
  return refuse("flagcxP2pEngineSend", kOneSided);
}

int flagcxP2pEngineSendVector(FlagcxP2pConn *, std::vector<FlagcxP2pMr>, std::vector<const void *>,
                              std::vector<size_t>, int, uint64_t *) {
  return refuse("flagcxP2pEngineSendVector", kOneSided);
}

int flagcxP2pEngineRecv(FlagcxP2pConn *, FlagcxP2pMr, void *, size_t) {
  return refuse("flagcxP2pEngineRecv", kOneSided);
}
