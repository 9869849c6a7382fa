// Addresses of ports: the GID table, address handles, and which address reaches a peer.
#define _GNU_SOURCE
#include "nullverbs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

static uint32_t host_address; // IPv4, network order
static unsigned host_interface;

// The host's first address that is up and not loopback, so that engines can match it with their own.
__attribute__((constructor)) static void find_host_address(void) {
  host_address = htonl(INADDR_LOOPBACK);
  host_interface = if_nametoindex("lo");
  struct ifaddrs *list;
  if (getifaddrs(&list))
    return;
  for (struct ifaddrs *item = list; item; item = item->ifa_next) {
    if (!item->ifa_addr || item->ifa_addr->sa_family != AF_INET)
      continue;
    if ((item->ifa_flags & IFF_LOOPBACK) || !(item->ifa_flags & IFF_UP))
      continue;
    host_address = ((struct sockaddr_in *)item->ifa_addr)->sin_addr.s_addr;
    host_interface = if_nametoindex(item->ifa_name);
    break;
  }
  freeifaddrs(list);
}

uint64_t guid_of(long index) {
  return htobe64(0x0200000000abcd00ull | (uint64_t)index);
}

int is_infiniband(long index) {
  return (settings.link_layer == IBV_LINK_LAYER_INFINIBAND) != (int)(settings.other_links >> index & 1);
}

uint16_t lid_of(long index) {
  return is_infiniband(index) ? (uint16_t)(index + 1) : 0;
}

// ---- the table ------------------------------------------------------------------------------------------------------

static void put_ipv4(union ibv_gid *out, uint32_t address) {
  out->raw[10] = out->raw[11] = 0xff;
  memcpy(out->raw + 12, &address, sizeof address);
}

// Entry [0] is of the port itself. The next `stale_gids` are of an interface that is gone; then comes the host's address.
static void fill_entry(long device, uint64_t place, struct ibv_gid_entry *out) {
  *out = (struct ibv_gid_entry){.gid_index = (uint32_t)place, .port_num = 1, .ndev_ifindex = host_interface};
  int infiniband = is_infiniband(device);
  out->gid_type = infiniband ? IBV_GID_TYPE_IB : IBV_GID_TYPE_ROCE_V2;
  if (infiniband)
    out->ndev_ifindex = 0;
  uint64_t first = settings.gids > 1; // a table of one entry has the host's address only
  if (first && place == 0) {
    uint64_t prefix = htobe64(settings.subnet_prefix + settings.subnet_step * (uint64_t)device),
             guid = guid_of(device);
    memcpy(out->gid.raw, &prefix, sizeof prefix);
    memcpy(out->gid.raw + 8, &guid, sizeof guid);
  } else if (place < first + settings.stale_gids) {
    put_ipv4(&out->gid, htonl(0xcb007100u + (uint32_t)place)); // 203.0.113.0/24, for documentation
    out->ndev_ifindex = 0;
  } else if (place == first + settings.stale_gids) {
    put_ipv4(&out->gid, settings.address ? htonl((uint32_t)settings.address) : host_address);
  }
}

static int is_empty(const struct ibv_gid_entry *entry) {
  static const union ibv_gid none;
  return !memcmp(&entry->gid, &none, sizeof none);
}

int ibv_query_gid(struct ibv_context *context, uint8_t port, int index, union ibv_gid *out) {
  if (port != 1 || index < 0 || (uint64_t)index >= settings.gids) {
    errno = EINVAL;
    return -1;
  }
  struct ibv_gid_entry entry;
  fill_entry(((struct context *)context)->index, (uint64_t)index, &entry);
  *out = entry.gid;
  return 0;
}

int _ibv_query_gid_ex(struct ibv_context *context, uint32_t port, uint32_t index, struct ibv_gid_entry *out,
                      uint32_t flags, size_t size) {
  if (settings.gid_calls < 1)
    return ENOSYS;
  if (port != 1 || index >= settings.gids || flags || size != sizeof *out)
    return EINVAL;
  fill_entry(((struct context *)context)->index, index, out);
  return is_empty(out) ? ENODATA : 0;
}

ssize_t _ibv_query_gid_table(struct ibv_context *context, struct ibv_gid_entry *out, size_t most, uint32_t flags,
                             size_t size) {
  if (settings.gid_calls < 2)
    return -ENOSYS;
  if (flags || size != sizeof *out)
    return -EINVAL;
  size_t count = 0;
  for (uint64_t place = 0; place < settings.gids; place++) {
    struct ibv_gid_entry entry;
    fill_entry(((struct context *)context)->index, place, &entry);
    if (is_empty(&entry))
      continue;
    if (count == most)
      return -EINVAL;
    out[count++] = entry;
  }
  return (ssize_t)count;
}

// ---- address handles ------------------------------------------------------------------------------------------------

// Only looked at, never sent to.
struct ibv_ah *ibv_create_ah(struct ibv_pd *domain, struct ibv_ah_attr *address) {
  int source = address->grh.sgid_index;
  if (address->port_num != 1 || (uint64_t)source >= settings.gids || (settings.refused_gids >> source & 1)) {
    errno = EINVAL;
    return NULL;
  }
  struct ibv_ah *handle = calloc(1, sizeof *handle);
  if (!handle)
    return NULL;
  handle->context = domain->context;
  handle->pd = domain;
  ((struct domain *)domain)->users++; // one that is left keeps the domain
  return handle;
}

int ibv_destroy_ah(struct ibv_ah *handle) {
  ((struct domain *)handle->pd)->users--;
  free(handle);
  return 0;
}

// ---- reaching a peer ------------------------------------------------------------------------------------------------

// The FLID, the router's LID for an end in another subnet, is in the prefix.
static uint16_t flid_of(const union ibv_gid *gid) {
  return (uint16_t)(gid->raw[4] << 8 | gid->raw[5]);
}

static int in_one_subnet(const union ibv_gid *one, const union ibv_gid *other) {
  return !memcmp(one->raw, other->raw, 4) && !memcmp(one->raw + 6, other->raw + 6, 2);
}

// InfiniBand: by LID in a subnet; with a global route header between subnets, and where the port wants one for all.
static int reaches_by_lid(const struct ibv_ah_attr *address, long from, long to) {
  struct ibv_gid_entry here, there;
  fill_entry(from, 0, &here);
  fill_entry(to, 0, &there);
  int local = in_one_subnet(&here.gid, &there.gid);
  if (local && !settings.grh_required)
    return !address->is_global && address->dlid == lid_of(to);
  uint16_t flid = flid_of(&there.gid);
  return address->is_global && !memcmp(&address->grh.dgid, &there.gid, sizeof there.gid) &&
         address->grh.hop_limit > !local && address->dlid == (local || !flid ? lid_of(to) : flid);
}

int is_good_address(struct ibv_context *context, const struct ibv_ah_attr *address, uint32_t peer) {
  if (address->port_num != 1 || address->sl > 15)
    return 0;
  if (settings.traffic_class && address->grh.traffic_class != settings.traffic_class)
    return 0;
  if (!is_infiniband(((struct context *)context)->index))
    return address->is_global && address->grh.sgid_index < settings.gids &&
           !(settings.refused_gids >> address->grh.sgid_index & 1);
  struct slot *slot = slot_of(peer);
  if (!slot)
    return !address->is_global && address->dlid;
  return reaches_by_lid(address, ((struct context *)context)->index, ((struct context *)slot->context)->index);
}
