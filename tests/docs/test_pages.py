"""What the pages show is what is in the tree."""

import functools
import os
import pathlib
import re
import subprocess
import unittest

import diagram
from pages import GLOSSARY, GUIDE, LANGUAGES, README, ROOT, blocks, commands, terms

CORE = ROOT / "rust" / "core" / "src"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


class Pages(unittest.TestCase):
    def test_every_block_says_what_is_done_with_it(self) -> None:
        for page in (README, GUIDE):
            for block in blocks(page):
                if block.language in LANGUAGES:
                    self.assertIsNotNone(block.mark, f"{block}: a mark is missing, see pages.py")

    def test_programs_are_the_files_that_are_named(self) -> None:
        shown = 0
        for page, block in ((page, block) for page in PAGES for block in blocks(page)):
            file = ROOT / (block.mark or "run")
            if not file.is_file():
                continue
            shown += 1
            program = file.read_text(encoding="utf-8")
            if block.text == program:
                continue
            if os.environ.get("UPDATE_DOCS") != "1":
                self.fail(f"{block} is not {block.mark}; write it with UPDATE_DOCS=1 python3 -m unittest test_pages")
            text = page.read_text(encoding="utf-8")
            head = f"<!-- {block.mark} -->\n```{block.language}\n"
            self.assertEqual(text.count(head), 1)
            page.write_text(text.replace(head + block.text, head + program), encoding="utf-8")
        self.assertEqual(shown, 5, "C++, C, Rust and Python; what consumers add")

    def test_links_lead_somewhere(self) -> None:
        for page in PAGES:
            text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
            for target in re.findall(r"\]\(([^)]+)\)", text):
                if "://" in target:
                    continue
                name, _, anchor = target.partition("#")
                file = (page.parent / name).resolve() if name else page
                self.assertTrue(file.exists(), f"{page.name}: {target}")
                if anchor and file.suffix == ".md":
                    self.assertIn(anchor, anchors(file), f"{page.name}: {target}")

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
                self.assertTrue(name in sources, f"{page.name}: there is no test {name}")
            for suite, name in re.findall(r"`([A-Z]\w+)\.([A-Z]\w+)`", text):
                found += 1
                self.assertTrue(re.search(rf"TEST\w*\({suite}, {name}\)", sources), f"{page.name}: there is no test {suite}.{name}")
        self.assertGreater(found, 150)

    def test_entries_of_ctest_that_are_named_exist(self) -> None:
        cmake = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").glob("*.cmake"))
        places = {
            "gtest": lambda name: [f"tests/gtest/test_{name}.cc"],
            "python": lambda name: [f"tests/python/test_{name}.py"],
            "docs": lambda name: [f"tests/docs/test_{name}.py"],
            "cargo.core": lambda name: [f"rust/core/tests/{name}.rs", f"rust/core/tests/{name}/main.rs"],
            "cli": lambda name: [f"rust/cli/tests/{name}.rs", f"rust/cli/tests/{name}/main.rs"],
        }
        found = 0
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            for kind, name in re.findall(r"\b(gtest|python|docs|cargo\.core|cli)\.([a-z_]{3,})\b(?![.(/])", text):
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
                paths = [folder / f"{name}.rs", folder / name] if option != "lib" else CORE.rglob("/".join(name.split("::")) + "*")
                self.assertTrue(any(path.exists() for path in paths), f"{page.name}: --{option} {name}")
        self.assertGreater(found, 3)

    def test_types_of_the_glossary_exist(self) -> None:
        for term in terms():
            names = re.findall(r"`([^`]+)`", term.type)
            self.assertTrue(names, f"{term.word}: no type, variable or test carries it")
            for name in names:
                self.assertTrue(exists(name), f"{term.word}: {name} is not in the source")
        self.assertFalse(exists("fabric::NoSuchType") or exists("NoSuchType") or exists("FLAGCX_P2P_NO_SUCH"))

    def test_every_term_has_one_row_one_sentence_and_a_source(self) -> None:
        rows = terms()
        self.assertGreater(len(rows), 100)
        words = [term.word for term in rows]
        self.assertEqual(sorted({word for word in words if words.count(word) > 1}), [])
        for term in rows:
            self.assertRegex(term.meaning, r"^[^.].*\.$", f"{term.word}: a sentence")
            self.assertNotRegex(term.meaning, r"\. [A-Z]", f"{term.word}: one sentence")
            self.assertRegex(term.source, r"\w", f"{term.word}: no source")

    def test_terms_are_sorted(self) -> None:
        for section in re.split(r"^## ", GLOSSARY.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            words = [term.word.lower() for term in terms(section)]
            self.assertEqual(words, sorted(words), section.splitlines()[0])

    def test_every_module_of_the_engine_has_a_term(self) -> None:
        paths = {file.relative_to(CORE) for term in terms() for name in re.findall(r"`([^`]+)`", term.type) for file in files_of(name)}
        with_terms = {path.parts[0].removesuffix(".rs") for path in paths}
        modules = {file.parent.name for file in CORE.glob("*/mod.rs")}
        self.assertGreater(len(modules), 15)
        self.assertEqual(sorted(modules - with_terms), [], "modules without a term in docs/glossary.md")

    def test_paths_that_are_named_exist(self) -> None:
        pattern = r"`((?:[\w.-]+/)+[\w.-]+\.(?:rs|cc|c|h|py|sh|txt|md|svg))`"
        roots = [ROOT, ROOT / "rust" / "core", CORE]
        named = [(page, path) for page in PAGES for path in re.findall(pattern, page.read_text(encoding="utf-8"))]
        # Without FlagCX's own tree, and names that stand for several.
        named = [(page, path) for page, path in named if not path.startswith("flagcx/") and "NAME" not in path]
        self.assertGreater(len(named), 10)
        for page, path in named:
            self.assertTrue(any((root / path).exists() for root in roots), f"{page.name}: {path}")

    def test_modules_that_miri_runs_exist(self) -> None:
        options = re.search(r"miri test [^\n]*--lib -- \\\n +([\w: ]+)\n", (ROOT / "x").read_text(encoding="utf-8"))
        assert options is not None
        for module in options[1].split():
            path = CORE.joinpath(*module.split("::"))
            self.assertTrue(path.is_dir() or path.with_suffix(".rs").is_file(), f"./x nightly: {module}")

    def test_the_picture_is_made_from_its_text(self) -> None:
        text = (ROOT / "docs" / "data-path.txt").read_text(encoding="utf-8")
        picture = diagram.svg(text, "The data path")
        file = ROOT / "docs" / "data-path.svg"
        if os.environ.get("UPDATE_DOCS") == "1":
            file.write_text(picture, encoding="utf-8")
        shown = file.read_text(encoding="utf-8")
        self.assertEqual(shown, picture, "docs/data-path.svg: UPDATE_DOCS=1 python3 -m unittest test_pages writes it")
        self.assertNotEqual(diagram.svg(text.replace("poll", "wait"), "The data path"), shown)

    def test_the_first_paragraph_of_a_page_says_what_it_is_for(self) -> None:
        for page in sorted((ROOT / "docs").glob("*.md")):
            if page.name == "configuration.md":
                continue  # generated from the table of variables
            paragraph = [part for part in page.read_text(encoding="utf-8").split("\n\n")[1:] if not part.startswith("<!--")][0]
            self.assertRegex(paragraph, r"^This page ", page.name)

    def test_commands_of_x_exist(self) -> None:
        help_text = subprocess.run([ROOT / "x", "help"], capture_output=True, text=True, check=True).stdout
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            for command in re.findall(r"`\./x ((?!help)[a-z]+)", text) + re.findall(r"^\./x ([a-z]+)", text, re.MULTILINE):
                self.assertIn(f"./x {command}", help_text, page.name)

    def test_installing_the_tool_takes_the_locked_versions(self) -> None:
        for page in (README, GUIDE):
            for block in blocks(page):
                for command in commands(block):
                    if command.startswith("cargo install"):
                        self.assertIn("--locked", command, str(block))


def exists(name: str) -> bool:
    """Whether the source has what the glossary names: a type or module in Rust, a variable, a C type, a test."""
    if re.fullmatch(r"FLAGCX_\w+", name):
        return any(f'"{name}"' in file.read_text(encoding="utf-8") for file in (CORE / "config" / "table").glob("*.rs"))
    if re.fullmatch(r"Flagcx\w+", name):
        headers = (ROOT / "cpp" / "include").glob("*.h")
        return any(re.search(rf"\b{name}\b", file.read_text(encoding="utf-8")) for file in headers)
    tests = [ROOT / "tests" / name, ROOT / "rust" / "core" / "tests" / name, ROOT / "rust" / "core" / "tests" / f"{name}.rs"]
    return bool(files_of(name)) or ("::" not in name and any(test.exists() for test in tests))


def files_of(name: str) -> "list[pathlib.Path]":
    """The files of rust/core/src that declare `module::Name`, where the module is a folder or a file; those of a module."""
    module, _, item = name.rpartition("::")
    module = module.rpartition("::")[2]
    if not module:
        return [file for file in (CORE / item / "mod.rs", CORE / f"{item}.rs") if file.exists()]
    return [
        file
        for file, names in declared().items()
        if item in names and (module in file.relative_to(CORE).parts or file.stem == module)
    ]


@functools.lru_cache(maxsize=None)
def declared() -> "dict[pathlib.Path, set[str]]":
    """The types and modules that each file of rust/core/src declares."""
    pattern = re.compile(r"\b(?:struct|enum|trait|type|mod) (\w+)")
    return {file: set(pattern.findall(file.read_text(encoding="utf-8"))) for file in CORE.rglob("*.rs")}


def anchors(page: pathlib.Path) -> "set[str]":
    """The anchors that GitHub gives the headings of a page."""
    found: "dict[str, int]" = {}
    names = set()
    for heading in re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = found[name] = found.get(name, -1) + 1
        names.add(f"{name}-{count}" if count else name)
    return names


if __name__ == "__main__":
    unittest.main()
