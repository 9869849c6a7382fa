"""What pages and scripts name is in the tree: tests, entries of ctest, programs of cargo, paths, modules."""

import re
import unittest

from pages import CORE, MARKED, PAGES, ROOT


class Names(unittest.TestCase):
    def test_tests_that_are_named_exist(self) -> None:
        sources = "".join(
            file.read_text(encoding="utf-8")
            for folder in ("rust", "bridge", "cpp", "tests")
            for pattern in ("*.rs", "*.cc", "*.cmake", "*.py", "*.txt", "*.h")
            for file in (ROOT / folder).rglob(pattern)
            if "target" not in file.parts
        )
        found = 0
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            for name in re.findall(r"`([a-z]+(?:_[a-z0-9]+){3,})`", text):
                found += 1
                # The text format of Prometheus adds the suffix.
                known = name in sources or name.removesuffix("_total") in sources
                self.assertTrue(known, f"{page.name}: there is no test {name}")
            for suite, name in re.findall(r"`([A-Z]\w+)\.([A-Z]\w+)`", text):
                found += 1
                known = re.search(rf"TEST\w*\({suite}, {name}\)", sources)
                self.assertTrue(known, f"{page.name}: there is no test {suite}.{name}")
        self.assertGreater(found, 150)

    def test_the_map_of_the_engine_has_every_module_and_the_picture_every_path(self) -> None:
        design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
        words = set(re.findall(r"\w+", design.partition("rust/core/    ")[2].partition("```")[0]))
        modules = {path.parent.name for path in CORE.glob("*/mod.rs")} | {path.stem for path in CORE.glob("*.rs")}
        self.assertGreater(len(modules), 15)
        self.assertEqual(sorted(modules - words - {"lib"}), [], "modules without a place in the map of docs/design.md")
        paths = re.findall(r'Self::\w+ => "([a-z-]+)"', (CORE / "fabric" / "path.rs").read_text(encoding="utf-8"))
        picture = (ROOT / "docs" / "data-path.txt").read_text(encoding="utf-8").lower()
        paths.remove("none")
        self.assertEqual(len(paths), 5)
        self.assertEqual([path for path in paths if path not in picture], [], "paths that docs/data-path.txt lacks")

    def test_entries_of_ctest_that_are_named_exist(self) -> None:
        cmake = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").glob("*.cmake"))
        places = {
            "gtest": lambda name: [f"tests/gtest/test_{name}.cc"],
            "python": lambda name: [f"tests/python/test_{name}.py"],
            "docs": lambda name: [f"tests/docs/test_{name}.py"],
            "cargo.core": lambda name: [f"rust/core/tests/{name}.rs", f"rust/core/tests/{name}/main.rs"],
            "cargo.directory": lambda name: [f"rust/directory/tests/{name}.rs"],
            "cli": lambda name: [f"rust/cli/tests/{name}.rs", f"rust/cli/tests/{name}/main.rs"],
        }
        found = 0
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            for kind, name in re.findall(r"\b(gtest|python|docs|cargo\.core|cargo\.directory|cli)\.([a-z_]{3,})\b(?![.(/])", text):
                found += 1
                files = places[kind](name)
                known = any((ROOT / file).exists() for file in files) or f"{kind}.{name}" in cmake
                self.assertTrue(known, f"{page.name}: {kind}.{name}")
        self.assertGreater(found, 20)

    def test_programs_of_cargo_that_are_named_exist(self) -> None:
        found = 0
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            for option, name in re.findall(r"cargo (?:test|bench) [^\n`]*--(test|bench|lib) ([\w:]+)", text):
                found += 1
                folder = {"test": CORE.parent / "tests", "bench": CORE.parent / "benches", "lib": CORE}[option]
                module = "/".join(name.split("::"))
                paths = CORE.rglob(f"{module}*") if option == "lib" else [folder / f"{name}.rs", folder / name]
                self.assertTrue(any(path.exists() for path in paths), f"{page.name}: --{option} {name}")
        self.assertGreater(found, 3)

    def test_paths_that_are_named_exist(self) -> None:
        pattern = r"`((?:[\w.-]+/)+[\w.-]+\.(?:rs|cc|c|h|py|sh|txt|md|svg))`"
        roots = [ROOT, ROOT / "rust" / "core", CORE]
        named = [(page, path) for page in PAGES for path in re.findall(pattern, page.read_text(encoding="utf-8"))]
        # Without FlagCX's own tree, and names that stand for several.
        named = [(page, path) for page, path in named if not path.startswith("flagcx/") and "NAME" not in path]
        self.assertGreater(len(named), 10)
        for page, path in named:
            self.assertTrue(any((root / path).exists() for root in roots), f"{page.name}: {path}")

    def test_metrics_that_are_named_exist(self) -> None:
        table = (CORE / "observe" / "metric.rs").read_text(encoding="utf-8")
        known = re.findall(r'= (?:Counter|Gauge|Histogram) "(\w+)"', table)
        self.assertGreater(len(known), 20)
        named = [(page, name) for page in MARKED for name in re.findall(r"`(flagcx_p2p_\w+[a-z])`", page.read_text(encoding="utf-8"))]
        named = [(page, name) for page, name in named if not name.startswith("flagcx_p2p_ext")]
        self.assertGreater(len(named), 20)
        for page, name in named:
            self.assertIn(name, known, page.name)

    def test_variables_that_are_named_exist(self) -> None:
        table = "".join(file.read_text(encoding="utf-8") for file in (CORE / "config" / "table").glob("*.rs"))
        elsewhere = "".join(
            file.read_text(encoding="utf-8") for file in [
                *(ROOT / "cpp" / "include").glob("*.h"), *(ROOT / "python").rglob("*.py"), ROOT / "CMakeLists.txt", ROOT / "x",
            ]
        )
        for page in MARKED:
            for name in re.findall(r"\bFLAGCX_[A-Z0-9_]+[A-Z0-9]\b", page.read_text(encoding="utf-8")):
                self.assertTrue(f'"{name}"' in table or name in elsewhere, f"{page.name}: {name}")

    def test_modules_that_miri_runs_exist(self) -> None:
        options = re.search(r"miri test [^\n]*--lib -- \\\n +([\w: ]+)\n", (ROOT / "x").read_text(encoding="utf-8"))
        assert options is not None
        for module in options[1].split():
            path = CORE.joinpath(*module.split("::"))
            self.assertTrue(path.is_dir() or path.with_suffix(".rs").is_file(), f"./x nightly: {module}")

    def test_functions_that_the_thread_sanitizer_leaves_out_exist(self) -> None:
        text = (ROOT / "tests" / "tsan.supp").read_text(encoding="utf-8")
        names = re.findall(r"^race:flagcx_p2p::([\w:]+)::(\w+)$", text, re.MULTILINE)
        self.assertEqual(len(names), text.count("race:"))
        for module, function in names:
            path = CORE.joinpath(*module.split("::"))
            file = path.with_suffix(".rs") if path.with_suffix(".rs").exists() else path / "mod.rs"
            declared = file.exists() and re.search(rf"\bfn {function}\b", file.read_text(encoding="utf-8"))
            self.assertTrue(declared, f"tests/tsan.supp: {module}::{function}")


if __name__ == "__main__":
    unittest.main()
