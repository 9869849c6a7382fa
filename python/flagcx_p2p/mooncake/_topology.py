"""The RDMA devices of this host, in the form of Mooncake's topology."""

import json
import pathlib

from ._opening import INFINIBAND

_NODES = pathlib.Path("/sys/devices/system/node")


def text(device_name: str) -> str:
    """JSON: for each NUMA node, "cpu:N", the devices on it and those that are not. `device_name` selects: "mlx5_0,mlx5_1"."""
    wanted = {name.strip() for name in device_name.split(",") if name.strip()}
    found = sorted(path.name for path in INFINIBAND.glob("*"))
    devices = [name for name in found if not wanted or name in wanted]
    nodes = sorted(int(path.name[4:]) for path in _NODES.glob("node[0-9]*")) or [0]
    return json.dumps(
        {
            f"cpu:{node}": [
                [name for name in devices if _node(name) == node],
                [name for name in devices if _node(name) != node],
            ]
            for node in nodes
        },
        indent="\t",
    )


def _node(device: str) -> int:
    """The node of a device; 0 where the kernel does not say."""
    try:
        return max(0, int((INFINIBAND / device / "device" / "numa_node").read_text()))
    except (OSError, ValueError):
        return 0
