"""The glossary: each term has one row, one sentence, a source, and a type, variable or test that exists."""

import functools
import pathlib
import re
import unittest

from pages import CORE, DIRECTORY, GLOSSARY, ROOT, terms


class Glossary(unittest.TestCase):
    def test_types_of_the_glossary_exist(self) -> None:
        for term in terms():
            names = re.findall(r"`([^`]+)`", term.type)
            self.assertTrue(names, f"{term.word}: no type, variable or test carries it")
            for name in names:
                self.assertTrue(exists(name), f"{term.word}: {name} is not in the source")
        self.assertFalse(exists("fabric::NoSuchType") or exists("NoSuchType") or exists("FLAGCX_P2P_NO_SUCH"))

    def test_a_type_of_the_glossary_shares_its_name_with_no_other(self) -> None:
        """One meaning for each word: what other files use under this name is what the glossary says, and nothing else."""
        names = {name.rpartition("::")[2] for term in terms() for name in re.findall(r"`([^`]+)`", term.type)}
        declarations = shared_types()
        twice = {name: declarations[name] for name in names if len(declarations.get(name, [])) > 1}
        self.assertEqual({name: files for name, files in twice.items() if name not in ONE_OF_TWO}, {})
        self.assertGreater(len(names & set(declarations)), 100)

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
        names = [name for term in terms() for name in re.findall(r"`([^`]+)`", term.type)]
        files = [file for name in names for file in files_of(name)]
        paths = [file.relative_to(CORE) for file in files if file.is_relative_to(CORE)]
        with_terms = {path.parts[0].removesuffix(".rs") for path in paths}
        modules = {file.parent.name for file in CORE.glob("*/mod.rs")}
        self.assertGreater(len(modules), 15)
        self.assertEqual(sorted(modules - with_terms), [], "modules without a term in docs/glossary.md")


# Types of the glossary that two files declare, of which a build has one.
ONE_OF_TWO = {"EndpointUse"}


def shared_types() -> "dict[str, list[str]]":
    """The files, tests left out, that declare each type that other files may use."""
    pattern = re.compile(r"^ *pub(?:\([a-z: ]+\))? (?:struct|enum|trait|type|union) (\w+)", re.MULTILINE)
    types: "dict[str, list[str]]" = {}
    for file in sorted(CORE.rglob("*.rs")):
        path = file.relative_to(CORE)
        if not re.search(r"tests|simulation|fake|played", str(path)):
            for name in pattern.findall(file.read_text(encoding="utf-8")):
                types.setdefault(name, []).append(str(path))
    return types


def exists(name: str) -> bool:
    """Whether the source has what the glossary names: a type or module in Rust, a variable, a C type, a test."""
    if re.fullmatch(r"FLAGCX_\w+", name):
        return any(f'"{name}"' in file.read_text(encoding="utf-8") for file in (CORE / "config" / "table").glob("*.rs"))
    if re.fullmatch(r"Flagcx\w+", name):
        headers = (ROOT / "cpp" / "include").glob("*.h")
        return any(re.search(rf"\b{name}\b", file.read_text(encoding="utf-8")) for file in headers)
    folder = CORE.parent / "tests"
    tests = [ROOT / "tests" / name, folder / name, folder / f"{name}.rs"]
    return bool(files_of(name)) or ("::" not in name and any(test.exists() for test in tests))


def files_of(name: str) -> "list[pathlib.Path]":
    """The files of the engine and the directory that declare `module::Name`, where the module is a folder or a file; those of a module."""
    module, _, item = name.rpartition("::")
    module = module.rpartition("::")[2]
    if not module:
        return [file for file in (CORE / item / "mod.rs", CORE / f"{item}.rs") if file.exists()]
    return [
        file
        for file, names in declared().items()
        if item in names and (module in file.relative_to(ROOT).parts or file.stem == module)
    ]


@functools.lru_cache(maxsize=None)
def declared() -> "dict[pathlib.Path, set[str]]":
    """The types and modules that each file of the engine and the directory declares."""
    pattern = re.compile(r"\b(?:struct|enum|trait|type|mod) (\w+)")
    return {file: set(pattern.findall(file.read_text(encoding="utf-8"))) for folder in (CORE, DIRECTORY) for file in folder.rglob("*.rs")}


if __name__ == "__main__":
    unittest.main()
