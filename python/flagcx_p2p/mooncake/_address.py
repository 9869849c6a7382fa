"""Peers' names, "host:port", and the address of this host that peers are to use."""

import ipaddress
import os
import socket

from ._codes import FAILED, LOG, Refused


def host_of(name: str) -> str:
    """The host of "host", "host:port", "[IPv6]:port", "[IPv6]" or "IPv6". Mooncake's further parts ("host:port:npu_0") are left out."""
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name if _is_address(name) else name.partition(":")[0]


def is_session(name: str) -> bool:
    """Whether this has a host and a port."""
    host, _, port = name.rpartition(":")
    return bool(host.strip("[]")) and port.isdecimal() and int(port) < 1 << 16


def settings(local_hostname: str, is_name: bool = False) -> "dict[str, str]":
    """What makes an engine reachable as `local_hostname`, unless the environment says so.

    An address of this host is bound. Another one is announced: it belongs to a forwarder. A name that means a loopback address here, as
    many systems have it in /etc/hosts, says nothing about other hosts: the engine chooses. So it does for one
    that has no address, where peers look it up in a directory (`is_name`).
    """
    host = host_of(local_hostname)
    if not host:
        return {}
    for name in ("FLAGCX_P2P_ADVERTISE", "FLAGCX_P2P_BIND"):
        if (given := os.environ.get(name)) is not None:
            if not is_name and host_of(given) != host:
                LOG.warning("local_hostname %r: peers must use %s, because %s is set", local_hostname, given, name)
            return {}
    try:
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except OSError as error:
        if is_name:
            return {}
        text = f"local_hostname {local_hostname!r}: {error}. Peers could not reach it either: give an address of this host"
        raise Refused(FAILED, text) from error
    here = [address for address in found if _is_here(address)]
    if not here:
        return {"FLAGCX_P2P_ADVERTISE": host}
    if ipaddress.ip_address(here[0]).is_loopback and not _is_address(host) and host != "localhost":
        return {}
    return {"FLAGCX_P2P_BIND": here[0]}


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_here(address: str) -> bool:
    """Whether it is an address of this host: a socket can be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
