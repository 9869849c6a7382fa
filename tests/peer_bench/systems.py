"""Which systems there are, on which paths, and how their drivers are started."""

import os
import sys
from dataclasses import dataclass, field

CROSS_MEMORY, TCP, SHARED_MEMORY = "cross-memory", "tcp", "shared-memory"
PATHS = [CROSS_MEMORY, TCP, SHARED_MEMORY]
OURS = "ours"

# What a path is, for a reader of the table.
TITLES = {
    CROSS_MEMORY: "Two processes of one host, memory of the programs",
    TCP: "TCP on 127.0.0.1",
    SHARED_MEMORY: "Memory that both processes map, which the engine allocates",
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
    # Without this file the system cannot be measured, and `advice` is printed.
    needs: str = ""
    advice: str = ""


def all_systems(build):
    """Every system in the order in which the samples of a row are taken. `build` holds the drivers."""
    return [*ours(build), *ucx(build), *nixl(build), *mooncake(build), *limits(build)]


def ours(build):
    program = os.path.join(build, "ours")
    for path in [CROSS_MEMORY, TCP]:
        settings = {"FLAGCX_P2P_FABRIC": "software", "FLAGCX_P2P_PATH": path, "FLAGCX_P2P_BIND": "127.0.0.1"}
        yield System(OURS, path, [program, "target"], [program, "initiator", path], settings, needs=program)


def ucx(build):
    newest, debian = os.path.join(build, "ucx_driver"), os.path.join(build, "ucx_debian_driver")
    # On TCP the target takes part in every transfer, so it polls as the initiator does. On memory that both map, newer
    # releases request the bytes of a read from the target, where 1.13 copies.
    for name, path, program, transports, memory, wait in [
            ("ucx", CROSS_MEMORY, newest, "posix,cma", "anonymous", "sleep"),
            ("ucx", TCP, newest, "tcp", "anonymous", "poll"),
            ("ucx", SHARED_MEMORY, newest, "posix,cma", "shared", "sleep"),
            ("ucx-debian", SHARED_MEMORY, debian, "posix,cma", "shared", "sleep")]:
        settings = {"UCX_TLS": transports, "UCX_WARN_UNUSED_ENV_VARS": "n"}
        yield System(name, path, [program, "target", memory, wait], [program, "initiator", memory], settings,
                     needs=program, advice="its driver was not built: UCX could not be installed")


def nixl(build):
    python = os.path.join(build, "nixl", "bin", "python")
    ready = os.path.join(build, "nixl", "installed")
    driver = os.path.join(os.path.dirname(os.path.abspath(__file__)), "drivers", "nixl_driver.py")
    for path, transports in [(CROSS_MEMORY, "posix,sysv,cma,tcp"), (TCP, "tcp")]:
        for name, mode in [("nixl", "default"), ("nixl-no-thread", "no-thread")]:
            yield System(name, path, [python, driver, "target"], [python, driver, "initiator", mode],
                         {"UCX_TLS": transports}, needs=ready, advice="its Python package could not be installed")


def mooncake(build):
    python = os.path.join(build, "mooncake", "bin", "python")
    ready = os.path.join(build, "mooncake", "installed")
    driver = os.path.join(os.path.dirname(os.path.abspath(__file__)), "drivers", "mooncake_driver.py")
    yield System("mooncake", TCP, [python, driver, "target"], [python, driver, "initiator"], needs=ready,
                 advice="its Python package could not be installed")


def limits(build):
    program = os.path.join(build, "limits")
    for name, path in [("process_vm", CROSS_MEMORY), ("process_vm_all", CROSS_MEMORY), ("tcp_blocking", TCP),
                       ("tcp_polling", TCP), ("memcpy", SHARED_MEMORY)]:
        yield System(name, path, [program, "target", name], [program, "initiator", name], is_limit=True,
                     needs=program)


def reason_against(system):
    """Why a system cannot be measured here, or None."""
    if sys.platform != "linux":
        return "not on Linux"
    if system.needs and not os.path.exists(system.needs):
        return system.advice or f"{system.needs} does not exist"
    return None
