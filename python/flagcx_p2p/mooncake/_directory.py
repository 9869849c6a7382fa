"""Metadata servers: what `initialize` is given for one, and peers by the names that they have published there."""

import re
import threading

from .._native import Connection, Engine
from . import _address
from ._codes import FAILED, Refused

#: The one metadata server that is none: peers are named by "host:port", and tell each other the rest.
HANDSHAKE = "P2PHANDSHAKE"

#: Where names are, unless the URL says so. Mooncake's own keys in etcd begin with "mooncake/", without a slash in front: not touched.
_PREFIX = "flagcx-p2p/mooncake"


def url_of(metadata_server: str) -> "str | None":
    """The directory of a metadata server; None for that which is none.

    etcd is written "etcd://ip:2379", "ip:2379", or with several servers, between which Mooncake writes ";" and this package ",". User,
    prefix and options are those of docs/directory.md.
    """
    if metadata_server == HANDSHAKE:
        return None
    scheme, separator, rest = metadata_server.rpartition("://")
    if not separator:
        # By a port a server is told from a word that was misspelt.
        scheme = "etcd" if ":" in rest else ""
    if scheme not in ("etcd", "etcds"):
        raise Refused(FAILED, _unsupported(metadata_server))
    place, mark, options = rest.partition("?")
    servers, slash, prefix = place.replace(";", ",").partition("/")
    return f"{scheme}://{servers}/{prefix if slash and prefix else _PREFIX}{mark}{options}"


def name_of(local_hostname: str) -> str:
    """A peer's name as it is published: a name has no ":", so "host:port" is "host/port", and "[fe80::1]:5" is "fe80--1/5"."""
    host = _address.host_of(local_hostname)
    parts = local_hostname[len(host) + 2 * local_hostname.startswith("[") :]
    return host.replace(":", "-") + parts.replace(":", "/")


class Peers:
    """The connections of an engine, by the names of the peers. It looks a name up once, and again when its connection has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: "dict[str, Connection]" = {}

    def connect(self, engine: Engine, peer: str) -> Connection:
        with self._lock:
            known = self._connections.get(peer)
        if known is not None and not known.closed:
            return known
        found = engine.connect(name_of(peer))
        with self._lock:
            self._connections[peer] = found
        return found


def _unsupported(metadata_server: str) -> str:
    shown = metadata_server if "@" not in metadata_server else re.sub("//.*", "//...", metadata_server)
    return (
        f"metadata_server {shown!r} is not supported: use {HANDSHAKE!r}, and name peers by their address and port, "
        '"host:port" with get_rpc_port(), or etcd, "etcd://host:2379", and name them by their local_hostname'
    )
