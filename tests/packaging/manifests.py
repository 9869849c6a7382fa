#!/usr/bin/env python3
"""Checks packaging/ against the schemas of Kubernetes and of Compose: the pod, each kustomization as kubectl would make it, the file of
Compose. Needs kubernetes-validate, check-jsonschema and jsonpatch, which bring the schemas: no network."""

import pathlib
import subprocess
import sys
from typing import Any, Dict, List

import jsonpatch
import kubernetes_validate
import yaml

PACKAGING = pathlib.Path(__file__).resolve().parent.parent.parent / "packaging"
#: The oldest Kubernetes that gets fixes, and the newest one that is known.
RELEASES = ("1.34", "1.37")

Resource = Dict[str, Any]


def resources(kustomization: pathlib.Path) -> List[Resource]:
    """What `kubectl kustomize` makes of a folder, as far as ours go: lists of resources, and patches of RFC 6902."""
    content = yaml.safe_load((kustomization / "kustomization.yaml").read_text(encoding="utf-8"))
    unknown = set(content) - {"apiVersion", "kind", "resources", "patches"}
    assert not unknown, f"{kustomization}: {unknown} is not understood here"
    made: List[Resource] = []
    for entry in content["resources"]:
        path = kustomization / entry
        made += resources(path) if path.is_dir() else documents(path)
    for patch in content.get("patches", []):
        kind, name = patch["target"]["kind"], patch["target"]["name"]
        found = [one for one in made if (one["kind"], one["metadata"]["name"]) == (kind, name)]
        assert found, f"{kustomization}: there is no {kind} {name}"
        for one in found:
            jsonpatch.apply_patch(one, yaml.safe_load((kustomization / patch["path"]).read_text(encoding="utf-8")), in_place=True)
    return made


def documents(path: pathlib.Path) -> List[Resource]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def main() -> int:
    wrong = 0
    sets = {"pod.yaml": documents(PACKAGING / "pod.yaml")}
    for file in sorted((PACKAGING / "kubernetes").glob("*/kustomization.yaml")):
        sets[f"kubernetes/{file.parent.name}"] = resources(file.parent)
    assert len(sets) >= 4, sorted(sets)
    for where, made in sets.items():
        for one in made:
            for release in RELEASES:
                try:
                    kubernetes_validate.validate(one, release, strict=True)
                except kubernetes_validate.ValidationError as error:
                    wrong += 1
                    path = ".".join(str(part) for part in error.path)
                    print(f"{where}, {one.get('kind')}, Kubernetes {release}, {path}: {error.message}")
    compose = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(PACKAGING / "compose.yaml")],
        check=False,
    )
    return int(wrong > 0 or compose.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
