// SPDX-License-Identifier: Apache-2.0
//
// flagcxNetIbP2p: this transport as FlagCX's table of network functions. Here are devices and connections; memory is in
// net_memory.cc, transfers are in net_transfer.cc. Two-sided members answer flagcxInternalError.
#include "net.h"

using namespace flagcx::p2p;

namespace flagcx::p2p::net {

flagcxResult_t refuse(const char *member, const char *reason, flagcxResult_t result) {
  startLogging();
  ffi::refuse_call(std::string("flagcxNetIbP2p.") + member, reason);
  return result;
}

} // namespace flagcx::p2p::net

namespace {

using net::refuse;

// Bytes that listen writes. The rest of the caller's handle is not written.
constexpr size_t kHandleBytes = 40;

flagcxResult_t initDevices() {
  startLogging();
  startGpu();
  return net::result(net::init());
}

// -1 before init.
flagcxResult_t devices(int *ndev) {
  if (ndev == nullptr)
    return refuse("devices", "ndev is NULL");
  *ndev = net::device_count();
  return flagcxSuccess;
}

flagcxResult_t getProperties(int dev, void *props) {
  if (props == nullptr)
    return refuse("getProperties", "props is NULL");
  net::Properties device = {};
  const flagcxResult_t answer = net::result(net::device_properties(dev, device));
  if (answer != flagcxSuccess)
    return answer;
  flagcxNetProperties_t out = {};
  out.name = const_cast<char *>(device.name);
  out.pciPath = const_cast<char *>(device.pci_path);
  out.guid = device.guid;
  out.ptrSupport =
      FLAGCX_PTR_HOST | (device.peer_memory ? FLAGCX_PTR_CUDA : 0) | (device.dma_buf ? FLAGCX_PTR_DMABUF : 0);
  out.regIsGlobal = 1;
  out.speed = device.speed;
  out.port = device.port;
  out.maxComms = device.max_comms;
  out.maxRecvs = FLAGCX_NET_IB_MAX_RECVS;
  out.netDeviceType = FLAGCX_NET_DEVICE_HOST;
  *static_cast<flagcxNetProperties_t *>(props) = out;
  return flagcxSuccess;
}

flagcxResult_t getDevFromName(char *name, int *dev) {
  if (name == nullptr || dev == nullptr)
    return refuse("getDevFromName", name == nullptr ? "name is NULL" : "dev is NULL");
  return net::result(net::device_named(text(name), *dev));
}

// Hands over a new object, or answers why there is none.
template <typename T>
flagcxResult_t give(T *made, net::Answer answer, void **out) {
  if (made != nullptr)
    *out = made;
  return net::result(answer);
}

flagcxResult_t listen(int dev, void *handle, void **listenComm) {
  if (handle == nullptr || listenComm == nullptr)
    return refuse("listen", handle == nullptr ? "handle is NULL" : "listenComm is NULL");
  net::Answer answer = net::Answer::InternalError;
  net::Listener *const made = net::listen(dev, {static_cast<uint8_t *>(handle), kHandleBytes}, answer);
  return give(made, answer, listenComm);
}

// Blocks until the peer accepts, at most for the connect and handshake timeouts.
flagcxResult_t connect(int dev, void *handle, void **sendComm) {
  if (handle == nullptr || sendComm == nullptr)
    return refuse("connect", handle == nullptr ? "handle is NULL" : "sendComm is NULL");
  net::Answer answer = net::Answer::InternalError;
  net::Comm *const made = net::connect(dev, {static_cast<uint8_t *>(handle), kHandleBytes}, answer);
  return give(made, answer, sendComm);
}

// Blocks until a peer connects or the listener is aborted.
flagcxResult_t accept(void *listenComm, void **recvComm) {
  if (listenComm == nullptr)
    return refuse("accept", "listenComm is NULL", flagcxInternalError);
  if (recvComm == nullptr)
    return refuse("accept", "recvComm is NULL");
  net::Answer answer = net::Answer::InternalError;
  net::Comm *const made = net::accept(static_cast<net::Listener *>(listenComm), answer);
  return give(made, answer, recvComm);
}

flagcxResult_t closeComm(void *comm) {
  if (comm != nullptr)
    net::close_comm(static_cast<net::Comm *>(comm));
  return flagcxSuccess;
}

flagcxResult_t closeListen(void *listenComm) {
  if (listenComm != nullptr)
    net::close_listener(static_cast<net::Listener *>(listenComm));
  return flagcxSuccess;
}

flagcxResult_t notOffered(const char *member) {
  return refuse(member, "not offered by this transport, which is one-sided", flagcxInternalError);
}

flagcxResult_t isend(void *, void *, size_t, int, void *, void *, void **) {
  return notOffered("isend");
}

flagcxResult_t irecv(void *, int, void **, size_t *, int *, void **, void **, void **) {
  return notOffered("irecv");
}

flagcxResult_t iflush(void *, int, void **, int *, void **, void **) {
  return notOffered("iflush");
}

flagcxResult_t iputSignal(void *, uint64_t, uint64_t, size_t, int, int, void **, void **, uint64_t, void **, uint64_t,
                          void **) {
  return notOffered("iputSignal");
}

} // namespace

flagcxResult_t flagcxNetIbP2pAbortListen(void *listenComm) {
  if (listenComm != nullptr)
    net::abort_listener(*static_cast<net::Listener *>(listenComm));
  return flagcxSuccess;
}

flagcxNetAdaptor_latest flagcxNetIbP2p = {
    "IB_P2P",     initDevices, devices,        getProperties,  listen,         connect,
    accept,       closeComm,   closeComm,      closeListen,    net::regMr,     net::regMrDmaBuf,
    net::deregMr, isend,       irecv,          iflush,         net::test,      net::iput,
    net::iget,    iputSignal,  getDevFromName, net::iputBatch, net::testBatch, net::igetBatch,
};
