"""Dockerfile and pod: what they name exists, and they build and start what ./x and the tool offer."""

import os
import re
import subprocess
import unittest
from typing import Any, Dict

from pages import CORE, ROOT

DOCKERFILE = (ROOT / "packaging" / "Dockerfile").read_text(encoding="utf-8")
POD = (ROOT / "packaging" / "pod.yaml").read_text(encoding="utf-8")


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
        self.assertEqual(re.findall(r"rust:([\d.]+)-|RUSTUP_TOOLCHAIN=([\d.]+)", DOCKERFILE), [(version[1], ""), ("", version[1])])

    def test_what_is_not_copied_is_not_needed(self) -> None:
        ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
        self.assertIn("target", ignored)
        for needed in ("Cargo.toml", "Cargo.lock", "rust", "bridge", "README.md"):
            self.assertNotIn(needed, ignored)

    def test_the_default_command_is_one_of_the_tool(self) -> None:
        command = re.search(r'^CMD \["(\w+)"\]$', DOCKERFILE, re.MULTILINE)
        assert command is not None
        self.assertIn(f"\n  {command[1]} ", help_of())


class Pod(unittest.TestCase):
    def setUp(self) -> None:
        try:
            import yaml
        except ImportError:
            print("\nnot run: the pod: PyYAML is missing (python3-yaml)")
            self.skipTest("PyYAML is missing")
        pod = yaml.safe_load(POD)
        self.assertEqual((pod["apiVersion"], pod["kind"]), ("v1", "Pod"))
        self.spec: Dict[str, Any] = pod["spec"]
        (self.container,) = self.spec["containers"]

    def test_its_command_is_one_of_the_tool(self) -> None:
        command, *arguments = self.container["args"]
        text = help_of(command)
        for option in (argument for argument in arguments if argument.startswith("--")):
            self.assertIn(f"{option} <", text)
        drain = int(arguments[arguments.index("--drain-limit") + 1])
        self.assertLess(drain, self.spec["terminationGracePeriodSeconds"])
        port = int(arguments[arguments.index("--port") + 1])
        self.assertEqual([entry["containerPort"] for entry in self.container["ports"]], [port])
        self.assertIn(f"EXPOSE {port}\n", DOCKERFILE)

    def test_its_variables_exist(self) -> None:
        table = "".join(file.read_text(encoding="utf-8") for file in (CORE / "config" / "table").glob("*.rs"))
        values = {entry["name"]: entry.get("value") for entry in self.container["env"]}
        for name in values:
            self.assertTrue(name == "HOST_IP" or f'"{name}"' in table, name)
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


def help_of(*command: str) -> str:
    ended = subprocess.run([os.environ["TOOL"], *command, "--help"], capture_output=True, text=True, timeout=60, check=True)
    return ended.stdout


if __name__ == "__main__":
    unittest.main()
