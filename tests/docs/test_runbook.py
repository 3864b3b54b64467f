#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""docs/RUNBOOK.md against the code: it has every ERROR and CRITICAL line and every alert, and nothing else."""
import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUNBOOK = ROOT / "docs/RUNBOOK.md"
RULES = ROOT / "deploy/monitoring/promptd.rules.yml"

# Functions that log: the heading of their lines in the runbook, and how the line is made of the text they are given.
LOGGERS = {
    "log_error": ("ERROR lines", "{}"),
    "log_critical": ("CRITICAL lines", "{}"),
    "log_failure": ("ERROR lines", "{} for interview …"),  # outcome.c
}

CALL = re.compile(r"\b(%s)\s*\(" % "|".join(LOGGERS))
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
CONVERSION = re.compile(r"%[-+ #0-9.*]*(?:hh|h|ll|l|z|j|t)?[a-zA-Z]")
PARTS = ("Means", "Look at", "Do")


def arguments(text, start):
    """The arguments of a call whose opening parenthesis ends at `start`, as source text."""
    depth, found, begin, position = 1, [], start, start
    while depth > 0:
        string = STRING.match(text, position)
        if string:
            position = string.end()
            continue
        character = text[position]
        depth += (character in "({[") - (character in ")}]")
        if depth == 0 or (depth == 1 and character == ","):
            found.append(text[begin:position])
            begin = position + 1
        position += 1
    return found


def words(argument):
    """A format as people see it: joined, and … for what differs."""
    strings = STRING.findall(re.sub(r"\bPRI[a-z]\w+", '"u"', argument))
    return CONVERSION.sub("…", "".join(strings))


def logged_lines(source):
    """(section, "component: text") of each ERROR and CRITICAL line in one file's text."""
    component = re.search(r'#define LOG_COMPONENT "(\w+)"', source)
    for call in CALL.finditer(source):
        section, shape = LOGGERS[call.group(1)]
        text = words(arguments(source, call.end())[1])
        if text and not text.startswith("… for interview"):  # the body of log_failure
            yield section, f"{component.group(1)}: {shape.format(text)}"


def runbook_entries(text):
    """(section, title, body) of each ### of the runbook."""
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        name, _, rest = section.partition("\n")
        for entry in re.split(r"^### ", rest, flags=re.MULTILINE)[1:]:
            title, _, body = entry.partition("\n")
            yield name, title.strip("`"), body


class TestRunbook(unittest.TestCase):
    def setUp(self):
        self.entries = list(runbook_entries(RUNBOOK.read_text()))

    def titles(self, section):
        return [title for name, title, _ in self.entries if name == section]

    def test_every_line_and_no_other(self):
        logged = {line for file in ROOT.glob("src/**/*.c") for line in logged_lines(file.read_text())}
        self.assertGreater(len(logged), 25)
        for section in ("CRITICAL lines", "ERROR lines"):
            in_code = sorted({text for name, text in logged if name == section})
            self.assertEqual(sorted(self.titles(section)), in_code, f"'{section}' of docs/RUNBOOK.md against src/")

    def test_lines_can_be_found_by_their_words(self):
        for file in ROOT.glob("src/**/*.c"):
            for _, line in logged_lines(file.read_text()):
                self.assertRegex(line, r": .*\w{4,}", f"{file}: a line needs words of its own, for grep and the runbook")

    def test_every_alert_and_no_other(self):
        rules = RULES.read_text()
        alerts = re.findall(r"alert: (\w+)", rules)
        self.assertEqual(sorted(self.titles("Alerts")), sorted(alerts))
        links = re.findall(r"runbook_url: (\S+)", rules)
        self.assertEqual(links, [f"docs/RUNBOOK.md#{alert.lower()}" for alert in alerts])

    def test_every_entry_says_what_to_do(self):
        for section, title, body in self.entries:
            for part in PARTS if section != "Cleaning up" else ():
                self.assertRegex(body, rf"(?m)^- \*\*{part}\.\*\* \S", title)

    def test_lines_are_read_from_c(self):
        source = '''
#define LOG_COMPONENT "spool"
    log_error(LOG_FIELDS(log_text("error", f(a, "b, c")), log_number("n", 1)),
              "could not write %" PRIu64
              " of %s; \\"late\\"", count, name);
    log_warning(NULL, "no");
    log_critical(NULL, "gone after %.1f s", seconds);
    log_failure(job, "not stored");
'''
        self.assertEqual(list(logged_lines(source)), [
            ("ERROR lines", 'spool: could not write … of …; \\"late\\"'),
            ("CRITICAL lines", "spool: gone after … s"),
            ("ERROR lines", "spool: not stored for interview …"),
        ])


if __name__ == "__main__":
    unittest.main()
