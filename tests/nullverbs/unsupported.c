// The rest of what programs link against: present, so that they start; refusing, or harmless.
#define _GNU_SOURCE
#include "nullverbs.h"

#include <errno.h>

int ibv_get_pkey_index(struct ibv_context *context, uint8_t port, __be16 key) {
  (void)context, (void)port;
  return be16toh(key) == 0xffff ? 0 : -1;
}

int ibv_resize_cq(struct ibv_cq *cq, int entries) {
  (void)cq, (void)entries;
  return ENOSYS;
}

int ibv_rereg_mr(struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *address, size_t length, int access) {
  (void)mr, (void)flags, (void)pd, (void)address, (void)length, (void)access;
  return -1;
}

struct ibv_srq *ibv_create_srq(struct ibv_pd *pd, struct ibv_srq_init_attr *init) {
  (void)pd, (void)init;
  errno = ENOSYS;
  return NULL;
}

int ibv_destroy_srq(struct ibv_srq *srq) {
  (void)srq;
  return ENOSYS;
}

int ibv_query_ece(struct ibv_qp *qp, struct ibv_ece *ece) {
  (void)qp, (void)ece;
  return EOPNOTSUPP;
}

int ibv_set_ece(struct ibv_qp *qp, struct ibv_ece *ece) {
  (void)qp, (void)ece;
  return EOPNOTSUPP;
}

const char *ibv_wc_status_str(enum ibv_wc_status status) {
  switch (status) {
    case IBV_WC_SUCCESS:
      return "success";
    case IBV_WC_LOC_LEN_ERR:
      return "local length error";
    case IBV_WC_LOC_QP_OP_ERR:
      return "local QP operation error";
    case IBV_WC_LOC_PROT_ERR:
      return "local protection error";
    case IBV_WC_WR_FLUSH_ERR:
      return "Work Request Flushed Error";
    case IBV_WC_REM_ACCESS_ERR:
      return "remote access error";
    case IBV_WC_RETRY_EXC_ERR:
      return "transport retry counter exceeded";
    default:
      return "other error";
  }
}

const char *ibv_event_type_str(enum ibv_event_type type) {
  (void)type;
  return "event";
}

const char *ibv_node_type_str(enum ibv_node_type type) {
  (void)type;
  return "InfiniBand channel adapter";
}

const char *ibv_port_state_str(enum ibv_port_state state) {
  return state == IBV_PORT_ACTIVE ? "PORT_ACTIVE (4)" : "PORT_DOWN (1)";
}
