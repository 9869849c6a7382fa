"""What the pages show is what is in the tree."""

import os
import pathlib
import re
import socket
import subprocess
import unittest
import xml.etree.ElementTree

import diagram
import pictures
from pages import LANGUAGES, MARKED, PAGES, README, ROOT, blocks, commands


class Pages(unittest.TestCase):
    def test_every_block_says_what_is_done_with_it(self) -> None:
        for page in MARKED:
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
        self.assertEqual(shown, 10, "C++, C, Rust and Python; what consumers add; a Dockerfile, Compose, two manifests and a pod")

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
                    # Then the site that MkDocs builds has the same anchor.
                    self.assertNotRegex(anchor, r"--|[^\w-]", f"{page.name}: {target}")

    def test_the_path_of_a_newcomer_is_on_one_screen(self) -> None:
        screen = README.read_text(encoding="utf-8").splitlines()[:60]
        text = "\n".join(screen)
        for wanted in ("./x demo", "(#use-it)", "```python\n", "(docs/README.md)"):
            self.assertIn(wanted, text)
        self.assertEqual([line for line in screen if line.startswith("## ")][0], "## Start")

    def test_the_list_of_pages_has_each(self) -> None:
        text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
        pages = [page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md"]
        self.assertEqual([page for page in pages if f"]({page})" not in text], [], "docs/README.md lists every page")

    def test_the_picture_is_made_from_its_text(self) -> None:
        text = (ROOT / "docs" / "data-path.txt").read_text(encoding="utf-8")
        picture = diagram.svg(text, "The data path")
        file = ROOT / "docs" / "data-path.svg"
        if os.environ.get("UPDATE_DOCS") == "1":
            file.write_text(picture, encoding="utf-8")
        shown = file.read_text(encoding="utf-8")
        self.assertEqual(shown, picture, "docs/data-path.svg: UPDATE_DOCS=1 python3 -m unittest test_pages writes it")
        self.assertNotEqual(diagram.svg(text.replace("poll", "wait"), "The data path"), shown)

    def test_pictures_of_the_terminal_are_small_and_are_those_of_the_script(self) -> None:
        shown = sorted(file.name for file in (ROOT / "docs").glob("terminal-*.svg"))
        self.assertEqual(shown, sorted(f"terminal-{name}.svg" for name in pictures.PICTURES))
        pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
        for name in shown:
            picture = (ROOT / "docs" / name).read_text(encoding="utf-8")
            self.assertLess(len(picture.encode()), pictures.LIMIT, name)
            root = xml.etree.ElementTree.fromstring(picture)
            text = "".join(root.itertext()).replace("\xa0", " ")
            self.assertRegex(text, r"\$ flagcx-p2p \w+", f"{name}: its first line is the command")
            # Nothing is loaded from elsewhere.
            self.assertEqual(re.findall(r"""href=\S+|url\([^#]\S+|https?://(?!www\.w3\.org/)\S+""", picture), [], name)
            self.assertNotRegex(text, r"/(home|root|tmp|work|Users)\b", f"{name}: a folder of the machine")
            self.assertEqual(pictures.without_the_machine(text), text, f"{name}: an address of the machine")
            self.assertRegex(pages, rf"!\[flagcx-p2p [^\]]{{40,}}\]\((docs/)?{re.escape(name)}\)", f"{name}: no page shows it, with words for it")

    def test_pictures_do_not_name_the_machine(self) -> None:
        for text, wanted in [
            ("eth0: 10.1.2.3/24, because", "eth0: 192.0.2.7/24, because"),
            ("10.1.2.3:7733", "192.0.2.7:7733"),
            ("fd00::2/64", "2001:db8::7/64"),
            ("[0] ::ffff:10.0.0.1, because", "[0] ::ffff:192.0.2.7, because"),
            (f"on {socket.gethostname()}, process", "on node7, process"),
        ]:
            self.assertEqual(pictures.without_the_machine(text), wanted)
        for text in ["flagcx-p2p 0.1.0", "127.0.0.1:40347", "::1/128", "22:55:13 UTC", "libibverbs.so.1.14.44.0", "12.34", "(0-1);"]:
            self.assertEqual(pictures.without_the_machine(text), text)
        self.assertEqual(pictures.last_frame("a\nb\n\x1b[2A\r\x1b[Jc\nd\n"), "c\nd\n")

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
        for page in MARKED:
            for block in blocks(page):
                for command in commands(block):
                    if command.startswith("cargo install"):
                        self.assertIn("--locked", command, str(block))


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
