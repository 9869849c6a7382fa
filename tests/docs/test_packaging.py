"""Dockerfiles, pod, StatefulSet and Compose file: what they name exists, and they build and start what ./x and the tool offer.

`./x check` compares the manifests with the schemas: tests/packaging/manifests.py."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from typing import Any, Dict, List

from pages import CORE, ROOT

DOCKERFILE = (ROOT / "packaging" / "Dockerfile").read_text(encoding="utf-8")
PYTHON_DOCKERFILE = (ROOT / "packaging" / "python.Dockerfile").read_text(encoding="utf-8")
POD = (ROOT / "packaging" / "pod.yaml").read_text(encoding="utf-8")
BASE = ROOT / "packaging" / "kubernetes" / "base"
TABLE = "".join(file.read_text(encoding="utf-8") for file in (CORE / "config" / "table").glob("*.rs"))


class Dockerfile(unittest.TestCase):
    """`./x check` lints it with hadolint."""

    def test_it_builds_as_x_builds(self) -> None:
        script = (ROOT / "x").read_text(encoding="utf-8")
        build = re.search(r"^build_release\(\) \{\n  (.*)\n", script, re.MULTILINE)
        assert build is not None
        self.assertIn(f"RUN {build[1]}\n", DOCKERFILE)
        for package in re.findall(r"\blib[\w-]+-dev\b", DOCKERFILE):
            self.assertIn(package, script, "x installs it to build")

    def test_it_uses_the_oldest_rust_that_builds_the_project(self) -> None:
        version = re.search(r'^rust-version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text(encoding="utf-8"), re.MULTILINE)
        assert version is not None
        for text in (DOCKERFILE, PYTHON_DOCKERFILE):
            self.assertEqual(re.findall(r"rust:([\d.]+)-|RUSTUP_TOOLCHAIN=([\d.]+)", text), [(version[1], ""), ("", version[1])])

    def test_both_install_what_a_build_needs(self) -> None:
        needs = set(re.findall(r"\blib[\w-]+-dev\b", DOCKERFILE))
        self.assertEqual(needs, set(re.findall(r"\blib[\w-]+-dev\b", PYTHON_DOCKERFILE)))

    def test_what_is_not_copied_is_not_needed(self) -> None:
        ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
        self.assertIn("target", ignored)
        for needed in ("Cargo.toml", "Cargo.lock", "rust", "bridge", "README.md", "python", "LICENSE"):
            self.assertNotIn(needed, ignored)

    def test_the_default_command_is_one_of_the_tool(self) -> None:
        for text, pattern in ((DOCKERFILE, r'^CMD \["(\w+)"\]$'), (PYTHON_DOCKERFILE, r'^CMD \["flagcx-p2p", "(\w+)"\]$')):
            command = re.search(pattern, text, re.MULTILINE)
            assert command is not None
            self.assertIn(f"\n  {command[1]} ", help_of())


class Pod(unittest.TestCase):
    def setUp(self) -> None:
        pod = load(self, POD)
        self.assertEqual((pod["apiVersion"], pod["kind"]), ("v1", "Pod"))
        self.spec: Dict[str, Any] = pod["spec"]
        (self.container,) = self.spec["containers"]

    def test_its_command_is_one_of_the_tool(self) -> None:
        arguments = arguments_of(self, self.container["args"])
        drain = int(arguments[arguments.index("--drain-limit") + 1])
        self.assertLess(drain, self.spec["terminationGracePeriodSeconds"])
        port = int(arguments[arguments.index("--port") + 1])
        self.assertEqual([entry["containerPort"] for entry in self.container["ports"]], [port])
        self.assertIn(f"EXPOSE {port}\n", DOCKERFILE)

    def test_its_variables_exist(self) -> None:
        values = {entry["name"]: entry.get("value") for entry in self.container["env"]}
        for name in values:
            self.assertTrue(name == "HOST_IP" or f'"{name}"' in TABLE, name)
        self.assertRegex(values["FLAGCX_P2P_PORT_RANGE"] or "", r"^\d+-\d+$")
        (key,) = [mount for mount in self.container["volumeMounts"] if mount["name"] == "key"]
        self.assertTrue((values["FLAGCX_P2P_AUTH_KEY_FILE"] or "").startswith(key["mountPath"] + "/"))

    def test_it_may_lock_memory_and_nothing_else(self) -> None:
        context = self.container["securityContext"]
        self.assertEqual(context["capabilities"], {"drop": ["ALL"], "add": ["IPC_LOCK"]})
        self.assertEqual(context["runAsUser"], 0, "added capabilities have no effect for others")

    def test_every_volume_is_mounted(self) -> None:
        volumes = {volume["name"]: volume for volume in self.spec["volumes"]}
        self.assertEqual(set(volumes), {mount["name"] for mount in self.container["volumeMounts"]})
        self.assertEqual(volumes["shm"]["emptyDir"]["medium"], "Memory")


class StatefulSet(unittest.TestCase):
    def setUp(self) -> None:
        self.set = load(self, (BASE / "statefulset.yaml").read_text(encoding="utf-8"))
        self.service = load(self, (BASE / "service.yaml").read_text(encoding="utf-8"))
        self.spec: Dict[str, Any] = self.set["spec"]["template"]["spec"]
        (self.container,) = self.spec["containers"]
        self.ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}

    def test_its_command_is_one_of_the_tool(self) -> None:
        arguments = arguments_of(self, self.container["args"])
        self.assertLess(int(arguments[arguments.index("--drain-limit") + 1]), self.spec["terminationGracePeriodSeconds"])
        self.assertEqual(int(arguments[arguments.index("--port") + 1]), self.ports["files"])

    def test_its_variables_exist(self) -> None:
        values = {entry["name"]: entry.get("value") for entry in self.container["env"]}
        for name in values:
            self.assertTrue(name == "POD_IP" or f'"{name}"' in TABLE, name)
        self.assertEqual(values["FLAGCX_P2P_METRICS"], f"0.0.0.0:{self.ports['metrics']}")
        self.assertEqual(self.set["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"], str(self.ports["metrics"]))

    def test_its_service_gives_names_and_the_same_ports(self) -> None:
        self.assertEqual(self.service["spec"]["clusterIP"], "None")
        self.assertEqual(self.set["spec"]["serviceName"], self.service["metadata"]["name"])
        labels = self.set["spec"]["template"]["metadata"]["labels"]
        self.assertEqual(labels, self.service["spec"]["selector"])
        self.assertEqual(labels, self.set["spec"]["selector"]["matchLabels"])
        for port in self.service["spec"]["ports"]:
            self.assertEqual(port["port"], self.ports[port["targetPort"]])

    def test_its_probes_ask_the_endpoint_but_for_liveness(self) -> None:
        for probe in ("startupProbe", "readinessProbe"):
            self.assertEqual(self.container[probe]["httpGet"], {"path": "/healthz", "port": "metrics"})
        self.assertEqual(self.container["livenessProbe"]["tcpSocket"], {"port": "files"})

    def test_it_may_do_nothing_that_it_does_not_need(self) -> None:
        self.assertEqual(self.container["securityContext"]["capabilities"], {"drop": ["ALL"]})
        self.assertIn(f"--uid {self.spec['securityContext']['runAsUser']} ", DOCKERFILE)

    def test_every_volume_is_mounted(self) -> None:
        volumes = {volume["name"] for volume in self.spec["volumes"]}
        volumes |= {claim["metadata"]["name"] for claim in self.set["spec"]["volumeClaimTemplates"]}
        self.assertEqual(volumes, {mount["name"] for mount in self.container["volumeMounts"]})


class Compose(unittest.TestCase):
    def setUp(self) -> None:
        self.compose = load(self, (ROOT / "packaging" / "compose.yaml").read_text(encoding="utf-8"))

    def test_its_commands_are_those_of_the_tool(self) -> None:
        services = self.compose["services"]
        port = arguments_of(self, services["serve"]["command"])[-1]
        arguments = arguments_of(self, services["client"]["command"])
        self.assertIn(f"serve:{port}", arguments)
        program, *check = services["serve"]["healthcheck"]["test"][1:]
        self.assertEqual(program, "flagcx-p2p")
        arguments_of(self, check)
        self.assertEqual(services["serve"]["environment"]["FLAGCX_P2P_METRICS"].split(":")[1], check[1].split(":")[1])

    def test_it_builds_the_image_and_joins_both_by_one_network(self) -> None:
        services = self.compose["services"]
        build = services["serve"]["build"]
        self.assertTrue((ROOT / "packaging" / build["context"] / build["dockerfile"]).is_file())
        self.assertEqual({tuple(service["networks"]) for service in services.values()}, {tuple(self.compose["networks"])})
        self.assertEqual(len({service["image"] for service in services.values()}), 1)
        for name in services["serve"]["environment"]:
            self.assertIn(f'"{name}"', TABLE)


class Crates(unittest.TestCase):
    """tests/packaging/publish.py with a cargo that cannot reach crates.io."""

    def run_with(self, publishes: str) -> "subprocess.CompletedProcess[str]":
        cargo = shutil.which("cargo", path=f"{os.environ['PATH']}:{os.path.expanduser('~/.cargo/bin')}")
        if cargo is None:
            self.skipTest("cargo is not installed")
        program = f"""#!/bin/sh
case $1 in
metadata) exec {cargo} "$@" ;;
publish) {publishes} ;;
package) echo packed "$@" >&2 ;;
esac
"""
        with tempfile.TemporaryDirectory() as folder:
            stand_in = pathlib.Path(folder) / "cargo"
            stand_in.write_text(program, encoding="utf-8")
            stand_in.chmod(0o755)
            environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
            environment.pop("CARGO_NET_OFFLINE", None)
            command = [sys.executable, str(ROOT / "tests" / "packaging" / "publish.py")]
            return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    def test_without_crates_io_they_are_packed_and_that_is_said(self) -> None:
        for said in (
            "error: failed to download from `https://index.crates.io/config.json`",
            "[6] Could not resolve hostname (Could not resolve host: index.crates.io)",
            "spurious network error (3 tries remaining): [7] Could not connect to server",
            "[28] Timeout was reached (Operation too slow)",
        ):
            ended = self.run_with(f'echo "{said}" >&2; exit 101')
            self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
            self.assertIn("not run: `cargo publish --dry-run`, because crates.io does not answer", ended.stdout)
            self.assertIn(said[:20], ended.stderr)
            self.assertIn("packed package --offline", ended.stderr)

    def test_what_else_fails_is_a_failure(self) -> None:
        ended = self.run_with('echo "error: the lock file needs to be updated" >&2; exit 101')
        self.assertEqual(ended.returncode, 101)
        self.assertIn("the lock file", ended.stderr)
        self.assertNotIn("packed", ended.stderr)
        self.assertEqual(self.run_with("exit 0").returncode, 0)


def load(test: unittest.TestCase, text: str) -> Any:
    """A YAML document."""
    try:
        import yaml
    except ImportError:
        print("\nnot run: manifests: PyYAML is missing (python3-yaml)")
        test.skipTest("PyYAML is missing")
    return yaml.safe_load(text)


def arguments_of(test: unittest.TestCase, command: List[str]) -> List[str]:
    """The arguments of a command of the tool, which must know its options."""
    name, *arguments = command
    text = help_of(name)
    for option in (argument for argument in arguments if argument.startswith("--")):
        test.assertRegex(text, rf"{option}[ \n]")
    return arguments


def help_of(*command: str) -> str:
    ended = subprocess.run([os.environ["TOOL"], *command, "--help"], capture_output=True, text=True, timeout=60, check=True)
    return ended.stdout


if __name__ == "__main__":
    unittest.main()
