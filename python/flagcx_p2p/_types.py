"""What calls take and answer."""

from typing import NamedTuple, Optional, TypedDict, Union

from ._native import Region, RegionSlice


class Piece(NamedTuple):
    """One contiguous range of a transfer: ``size`` bytes of ``region`` from ``offset`` on, and their place at the peer.

    ``size`` None: to the end of the region, or of the slice of one. Any size will do, also 4 GiB and more.
    """

    region: Union[Region, RegionSlice]
    remote_address: int
    offset: int = 0
    size: Optional[int] = None


class Notification(NamedTuple):
    """A message of a peer."""

    name: bytes
    #: At most 256 bytes are filled up to 256 with zero bytes.
    content: bytes


class ConnectionInfo(NamedTuple):
    """The state of a connection."""

    #: How bytes travel now: "rdma", "in-process", "cross-memory", "tcp", "shared", or "none" when not connected. The slower path
    #: where reads and writes take different ones.
    path: str
    #: Queue pairs, of all rails, and how many of them are in working order now.
    lanes: int
    healthy_lanes: int
    #: Whether the peer is on this host.
    local: bool
    #: Whether the peer runs this engine, not the original one.
    ours: bool
    #: The peer's GPU index.
    gpu_index: int
    #: Control address of the peer, "ip:port".
    peer: str
    #: The path of reads and that of writes. They differ where a sandbox denies one of the copies between two processes.
    read_path: str
    write_path: str


class RailInfo(NamedTuple):
    """A rail of a connection: a NIC of this host, a NIC of the peer, and the lanes between them. Counts are those since it was made."""

    #: Its number in the connection, from 0, the one that the connection was made with.
    rail: int
    #: The NIC of this host: name and port, "mlx5_0:1".
    nic: str
    #: The NIC of the peer, in the peer's words; empty if it has not told.
    peer_nic: str
    #: "up": transfers go over it; "paused" and "down": none do.
    state: str
    #: Seconds until a paused one is tried again, at least; else None.
    paused: Optional[float]
    #: Lanes that it has, and how many of them are in working order now.
    lanes: int
    healthy_lanes: int
    #: Bytes of the parts of writes and of reads that ended on it as done, and of parts on it that have not ended.
    written_bytes: int
    read_bytes: int
    in_flight_bytes: int
    #: Bytes a second that it was measured to carry while it was busy; 0 if that was not measured lately.
    bytes_per_second: int
    #: Parts of transfers that were taken from it and posted on another rail.
    moved_parts: int
    #: How often it was paused or went down; why it last was, "silent", "errors", "port_down" or "device_lost", and how many seconds
    #: ago: None if it never was.
    pauses: int
    last_pause: Optional[str]
    last_pause_age: Optional[float]
    #: The shortest of its last answers to probes, in seconds; None if it has not been probed.
    latency: Optional[float]


class Peer(NamedTuple):
    """An engine, or a ``flagcx-p2p serve``, that has published a name: :meth:`Engine.peers`."""

    name: str
    #: "host:port", as :meth:`Engine.connect` takes it.
    address: str
    #: What it is part of: "python", "library" for Rust, "serve" for the tool's file server; empty where it is not known, as in a list.
    kind: str
    #: Its version, host name, process there, and when it was published, in seconds since 1970 by its host's clock: "" and 0 where
    #: they are not known.
    version: str
    host: str
    pid: int
    since: float


class SlowTransfer(NamedTuple):
    """A transfer that has not ended."""

    #: Its number in the engine: :attr:`Transfer.id`.
    id: int
    #: The address of its peer, "host:port".
    peer: str
    #: Whether it is a read; else a write.
    is_read: bool
    #: How its bytes travel: "rdma", "tcp", "cross-memory", "shared", "in-process" or "gpu"; "none" if no lane has it yet.
    path: str
    #: Bytes of its parts that have not ended. A part is what one lane moves.
    bytes: int
    #: The lanes with these parts, by their number in the connection.
    lanes: "list[int]"
    #: Work requests of these parts, and how many of them are done.
    pieces: int
    pieces_done: int
    #: How long it has been unfinished, in seconds.
    age: float


class FabricInfo(NamedTuple):
    """What engines of this process move bytes with."""

    #: Number of devices.
    devices: int
    #: "verbs" or "software"; empty without a device.
    provider: str
    #: Why it was chosen.
    reason: str


class Amount(TypedDict):
    """Transfers, and their bytes."""

    transfers: int
    bytes: int


class Stats(TypedDict):
    """What a process has counted since its start, over all its engines: :meth:`Engine.stats`."""

    #: Transfers that have ended: by "read" and "write", then by the path that moved them ("in-process", "shared", "cross-memory", "tcp",
    #: "rdma", "gpu"), then by how they ended ("done", "failed", "timed_out", "cancelled"). There are keys for what has happened; bytes
    #: of other ends than "done" have not arrived for certain.
    ended: "dict[str, dict[str, dict[str, Amount]]]"
    #: Transfers that have not ended.
    in_flight: Amount
    #: Registered memory, now.
    regions: int
    registered_bytes: int
    #: Registrations that were refused.
    registration_failures: int
    #: Connections, now, and those that have ended.
    connections: int
    connections_ended: int
    #: Parts of transfers that were repeated because their lane had failed, and lanes that were rebuilt.
    lane_retries: int
    lane_rebuilds: int
