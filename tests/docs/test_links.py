#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every link of the documents into this repository leads somewhere: the file is there, and so is the heading."""
import pathlib
import re
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^(?: {4,}|\t).*$|```.*?```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


def documents():
    """All .md files but those of builds and other people's."""
    try:
        listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True)
        return [ROOT / name for name in listed.stdout.split()]
    except (OSError, subprocess.CalledProcessError):  # no checkout but an archive of it
        return [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("sql/*.md"), *ROOT.glob("deploy/*/*.md")]


def anchor(heading):
    """As GitHub makes it of a heading's text."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(text):
    found, seen = set(), {}
    for heading in HEADING.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        name = anchor(heading)
        seen[name] = seen.get(name, -1) + 1
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
    return found


def broken_links(document):
    text = document.read_text()
    for link in LINK.findall(CODE.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, wanted = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists():
            yield f"{document.relative_to(ROOT)}: {link}: there is no such file"
        elif wanted and wanted not in anchors(target.read_text()):
            yield f"{document.relative_to(ROOT)}: {link}: there is no such heading"


class TestLinks(unittest.TestCase):
    def test_all_lead_somewhere(self):
        files = [file for file in documents() if file.exists()]
        self.assertIn(ROOT / "README.md", files)
        self.assertEqual([broken for file in files for broken in broken_links(file)], [])

    def test_anchors_are_made_as_on_github(self):
        self.assertEqual(anchors("# One: `two_3`, four…\n## A [b](c.md)\n## A b\n    # no\n"),
                         {"one-two_3-four", "a-b", "a-b-1"})


if __name__ == "__main__":
    unittest.main()
