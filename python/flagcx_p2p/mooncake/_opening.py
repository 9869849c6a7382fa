"""What the arguments of `initialize` mean: an engine of this package, or a refusal with its reason."""

import os
import pathlib

from .._errors import P2pError
from .._native import Engine
from . import _address, _directory
from ._codes import FAILED, LOG, Refused

#: For so long this engine tries again when a peer refuses the connection. Mooncake does not, so its programs expect a quick answer.
_CONNECT_MS = "2000"

INFINIBAND = pathlib.Path("/sys/class/infiniband")

_OTHERWISE = (
    "Use protocol 'tcp', or set FLAGCX_P2P_FABRIC=software for a program that names 'rdma' itself; `flagcx-p2p doctor` says what is missing"
)


def open_engine(local_hostname: str, metadata_server: str, protocol: str, device_name: str) -> Engine:
    """An engine that accepts peers, and has published its name where there is a metadata server."""
    directory = _directory.url_of(metadata_server)
    settings = {**_fabric(protocol, device_name), **_address.settings(local_hostname, is_name=directory is not None)}
    if "FLAGCX_P2P_CONNECT_TIMEOUT_MS" not in os.environ:
        settings["FLAGCX_P2P_CONNECT_TIMEOUT_MS"] = _CONNECT_MS
    engine = Engine(settings=settings, directory=directory)
    try:
        if settings.get("FLAGCX_P2P_FABRIC") == "verbs" and "verbs" not in _providers(engine):
            raise Refused(FAILED, f"protocol 'rdma', device_name {device_name!r}: no such RDMA device has an active port. {_OTHERWISE}")
        engine.start_server()
        engine.session  # raises without a listener
        if directory is not None:
            engine.publish(_directory.name_of(local_hostname))
    except BaseException:
        engine.close()
        raise
    return engine


def _fabric(protocol: str, device_name: str) -> "dict[str, str]":
    """The settings that choose the devices. FLAGCX_P2P_FABRIC of the environment goes before the protocol."""
    forced = os.environ.get("FLAGCX_P2P_FABRIC")
    match protocol.lower():
        case "rdma" if forced == "software":
            LOG.warning("protocol 'rdma': bytes move by software, because FLAGCX_P2P_FABRIC=software is set")
            return {}
        case "rdma" if "MC_FORCE_TCP" not in os.environ:
            return _verbs(device_name)
        case "rdma" | "tcp":
            return {} if forced else {"FLAGCX_P2P_FABRIC": "software"}
        case "":
            return {}
    text = (
        f"protocol {protocol!r} is not supported: use 'rdma', which moves GPU memory too, or 'tcp'. Between processes of one host both "
        "take the fastest path there is"
    )
    raise Refused(FAILED, text)


def _verbs(device_name: str) -> "dict[str, str]":
    # Before an engine is opened, because that settles the devices of the process: 'tcp' is to work afterwards. FLAGCX_P2P_IBVERBS names a
    # library with devices of its own.
    found = sorted(path.name for path in INFINIBAND.glob("*"))
    names = [name.strip() for name in device_name.split(",") if name.strip()]
    if "FLAGCX_P2P_IBVERBS" not in os.environ:
        if not found:
            raise Refused(FAILED, f"protocol 'rdma': this host has no RDMA device ({INFINIBAND} is empty). {_OTHERWISE}")
        if missing := sorted(set(names) - set(found)):
            raise Refused(FAILED, f"device_name {device_name!r}: no {', '.join(missing)} among the RDMA devices {', '.join(found)}")
    settings = {"FLAGCX_P2P_FABRIC": "verbs"}
    if names and "FLAGCX_IB_HCA" not in os.environ:
        settings["FLAGCX_IB_HCA"] = "=" + ",".join(names)
    return settings


def _providers(engine: Engine) -> "set[str]":
    metrics = engine.snapshot()["metrics"]
    return {metric["labels"]["provider"] for metric in metrics if metric["name"] == "flagcx_p2p_device_info"}
