"""Which systems there are, on which paths, and how their drivers are started."""

import os
import sys
from dataclasses import dataclass, field

# The first three are also values of FLAGCX_P2P_PATH.
CROSS_MEMORY, TCP, SHARED, FILE = "cross-memory", "tcp", "shared", "file"
PATHS = [CROSS_MEMORY, TCP, SHARED, FILE]
OURS, OURS_RUST = "ours", "ours-rust"

# What a path is, for a reader of the table.
TITLES = {
    CROSS_MEMORY: "Two processes of one host, memory of the programs",
    TCP: "TCP on 127.0.0.1",
    SHARED: "Memory that both processes map, which the engine allocates",
    FILE: "`flagcx-p2p put` of one file, page cache to tmpfs, with the hash of its content, and `cp`",
}


@dataclass(frozen=True, eq=False)
class System:
    """A system on one path. `target` and `initiator` are command lines; the initiator's gets the target's line."""

    name: str
    path: str
    target: list
    initiator: list
    environment: dict = field(default_factory=dict)
    is_limit: bool = False
    # Uses memory of its own and is started anew for each round, so that the median covers different pages.
    has_own_memory: bool = False
    # Measured only for what one call costs: another interface of an engine that has the other rows.
    is_for_calls: bool = False
    # Left out of --quick, for want of time.
    is_slow: bool = False
    # Without this file the system cannot be measured, and `advice` is printed.
    needs: str = ""
    advice: str = ""


def all_systems(build):
    """Every system in the order in which the samples of a row are taken. `build` holds the drivers."""
    return [*ours(build), *ucx(build), *nixl(build), *mooncake(build), *limits(build)]


def ours(build):
    program, rust, tool = (os.path.join(build, name) for name in ["ours", "ours_rust", "flagcx-p2p"])
    for path in [CROSS_MEMORY, TCP, SHARED]:
        settings = {"FLAGCX_P2P_FABRIC": "software", "FLAGCX_P2P_PATH": path, "FLAGCX_P2P_BIND": "127.0.0.1"}
        shared = path == SHARED
        yield System(OURS, path, [program, "target", path], [program, "initiator", path], settings,
                     has_own_memory=shared, needs=os.path.join(build, "ours_allocates") if shared else program,
                     advice="flagcx_p2p_ext.h has no flagcxP2pEngineAllocShared" if shared else "")
        if path == CROSS_MEMORY:
            yield System(OURS_RUST, path, [rust, "target"], [rust, "initiator", path], settings, is_for_calls=True,
                         needs=rust)
    # A folder, an address and a file are added to these command lines: files.py.
    yield System(OURS, FILE, [tool, "serve"], [tool, "put"], needs=tool)
    yield System("cp", FILE, [], ["cp"], is_limit=True)


def ucx(build):
    newest, debian = os.path.join(build, "ucx_driver"), os.path.join(build, "ucx_debian_driver")
    # On TCP the target takes part in every transfer, so it polls as the initiator does. On memory that both map, newer
    # releases request the bytes of a read from the target, where 1.13 copies.
    for name, path, program, transports, memory, wait in [
            ("ucx", CROSS_MEMORY, newest, "posix,cma", "anonymous", "sleep"),
            ("ucx", TCP, newest, "tcp", "anonymous", "poll"),
            ("ucx", SHARED, newest, "posix,cma", "shared", "sleep"),
            ("ucx-debian", SHARED, debian, "posix,cma", "shared", "sleep")]:
        settings = {"UCX_TLS": transports, "UCX_WARN_UNUSED_ENV_VARS": "n"}
        yield System(name, path, [program, "target", memory, wait], [program, "initiator", memory], settings,
                     has_own_memory=path == SHARED, needs=program,
                     advice="its driver was not built: UCX could not be installed")


def nixl(build):
    python = os.path.join(build, "nixl", "bin", "python")
    ready = os.path.join(build, "nixl", "installed")
    driver = os.path.join(os.path.dirname(os.path.abspath(__file__)), "drivers", "nixl_driver.py")
    for path, transports in [(CROSS_MEMORY, "posix,sysv,cma,tcp"), (TCP, "tcp")]:
        for name, mode in [("nixl", "default"), ("nixl-no-thread", "no-thread")]:
            yield System(name, path, [python, driver, "target"], [python, driver, "initiator", mode],
                         {"UCX_TLS": transports}, is_slow=mode == "default", needs=ready,
                         advice="its Python package could not be installed")


def mooncake(build):
    python = os.path.join(build, "mooncake", "bin", "python")
    ready = os.path.join(build, "mooncake", "installed")
    driver = os.path.join(os.path.dirname(os.path.abspath(__file__)), "drivers", "mooncake_driver.py")
    yield System("mooncake", TCP, [python, driver, "target"], [python, driver, "initiator"], needs=ready,
                 advice="its Python package could not be installed")


def limits(build):
    program = os.path.join(build, "limits")
    for path, names in {CROSS_MEMORY: ["process_vm", "process_vm_all"],
                        TCP: ["tcp_blocking", "tcp_polling", "tcp_polling_128k", "tcp_two"],
                        SHARED: ["memcpy", "memcpy_all"]}.items():
        for name in names:
            yield System(name, path, [program, "target", name], [program, "initiator", name], is_limit=True,
                         has_own_memory=path == SHARED, needs=program)


def reason_against(system):
    """Why a system cannot be measured here, or None."""
    if sys.platform != "linux":
        return "not on Linux"
    if system.needs and not os.path.exists(system.needs):
        return system.advice or f"{system.needs} does not exist"
    return None
