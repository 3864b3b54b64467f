#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Reads the #include lines: no layer includes one above it, and each outside library stays with its owner.

A header in include/promptd belongs to the folder of src that has the .c file of its name.
"""
import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Each layer and those that it may include and call.
LAYERS = {
    "base": {"base"},
    "spool": {"base", "spool"},
    "redis": {"base", "redis"},
    "core": {"base", "core"},
    "intake": {"base", "spool", "redis", "core", "intake"},
    "storage": {"base", "core", "storage"},
    "events": {"base", "redis", "core", "events"},
    "report": {"base", "core", "report"},
    "daemon": {"base", "redis", "core", "intake", "events", "storage", "report", "daemon"},
    "ctl": {"base", "spool", "redis", "core", "storage", "ctl"},
    "tools": {"base", "core", "storage", "report", "ctl", "tools"},
}

# Headers without a .c file of their name.
LONE_HEADERS = {"version": "base", "disposition": "base", "source": "core"}

# How an outside library's headers begin, and the files that may include them (by how their paths begin). A header
# counts as the .c file of its name.
LIBRARIES = {
    "hiredis/": ("src/redis/", "src/intake/", "src/ctl/"),
    "libpq-fe.h": ("src/storage/pg_answer", "src/storage/pg_run", "src/storage/pg_session", "src/storage/pg_thread",
                   "src/storage/pg_url", "src/ctl/"),
    "cjson/": ("src/core/message.", "src/report/", "src/ctl/"),
    "openssl/": ("src/core/prompt_id.", "src/redis/redis_tls."),
    "uthash.h": ("src/core/inbox_private.",),
    "ini.h": ("src/base/settings_file.",),
    "uv.h": ("src/spool/", "src/redis/", "src/intake/", "src/events/", "src/storage/", "src/report/", "src/daemon/",
             "src/ctl/redis."),
    "sqlite3.h": ("src/spool/",),
    "curl/": ("src/ctl/http.",),
    "microhttpd.h": ("src/report/admin",),
    "systemd/": ("src/report/notify.",),
}

# What the C library and the kernel have. Anything else is a library that needs an owner above.
LIBC_FOLDERS = ("sys/", "net/", "netinet/", "arpa/", "linux/")
LIBC = set("""
    aio assert complex cpio ctype dirent dlfcn endian err errno fcntl fenv float fnmatch ftw getopt glob grp iconv
    ifaddrs inttypes iso646 langinfo libgen limits locale malloc math monetary mqueue netdb nl_types paths poll pthread
    pwd regex resolv sched search semaphore setjmp signal spawn stdalign stdarg stdatomic stdbool stddef stdint stdio
    stdlib stdnoreturn string strings sysexits syslog tar termios tgmath threads time uchar ucontext ulimit unistd utime
    utmpx wchar wctype wordexp
""".split())

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


class Tree:
    """The sources as {path: text}, so that tests can make one up."""

    def __init__(self, files):
        self.files = files
        self.owner = {}  # stem of a header: path of the .c file of its name
        for path in files:
            parts = pathlib.PurePath(path)
            if parts.suffix == ".c":
                self.owner[parts.stem] = path

    def place(self, path):
        """The path under src that decides for a file: its own, or for a header that of its .c file."""
        parts = pathlib.PurePath(path)
        if parts.parts[0] == "src":
            return path
        if parts.stem in self.owner:
            return self.owner[parts.stem]
        if parts.stem in LONE_HEADERS:
            return f"src/{LONE_HEADERS[parts.stem]}/{parts.stem}.h"
        return None

    def layer(self, path):
        place = self.place(path)
        return place and pathlib.PurePath(place).parts[1]

    def findings(self):
        for path, text in sorted(self.files.items()):
            if self.layer(path) not in LAYERS:
                yield f"{path}: belongs to no layer (add it to LONE_HEADERS, or its folder to LAYERS)"
                continue
            for bracket, name in INCLUDE.findall(text):
                fault = self.outside_fault(path, name) if bracket == "<" else self.inside_fault(path, name)
                if fault:
                    yield f"{path}: {fault}"

    def inside_fault(self, path, name):
        if name.startswith("promptd/"):
            layer = self.layer(f"include/{name}")
            if layer is None:
                return f"includes {name}, which belongs to no layer"
            if layer not in LAYERS[self.layer(path)]:
                return f"{self.layer(path)} must not include {name}, which is {layer}"
        elif str(pathlib.PurePath(path).parent / name) not in self.files:
            return f"includes {name}, a private header that is not in its own folder"
        return None

    def outside_fault(self, path, name):
        for begin, owners in LIBRARIES.items():
            if name.startswith(begin):
                return None if self.place(path).startswith(owners) else f"is no owner of <{name}>"
        if name.startswith(LIBC_FOLDERS) or name.removesuffix(".h") in LIBC:
            return None
        return f"includes <{name}>, which has no owner in LIBRARIES"


def real_tree():
    files = [*ROOT.glob("src/**/*.[ch]"), *ROOT.glob("include/promptd/*.h")]
    return Tree({str(file.relative_to(ROOT)): file.read_text() for file in files})


class TestLayers(unittest.TestCase):
    def assert_finds(self, path, text, fault):
        files = {
            "src/base/log.c": '#include "promptd/log.h"\n',
            "include/promptd/log.h": "#include <stdint.h>\n",
            "src/core/inbox.c": "",
            "include/promptd/inbox.h": "",
            "src/storage/store.c": "",
            "src/storage/store_steps.h": "",
            "include/promptd/store.h": "",
            "src/daemon/main.c": '#include "promptd/store.h"\n# include <sys/stat.h>\n',
        }
        self.assertEqual(list(Tree(files).findings()), [])
        files[path] = text
        self.assertEqual(list(Tree(files).findings()), [f"{path}: {fault}"] if fault else [])

    def test_the_sources(self):
        tree = real_tree()
        self.assertGreater(len(tree.files), 20)
        self.assertEqual(list(tree.findings()), [])

    def test_upward_includes_are_found(self):
        self.assert_finds("src/base/log.c", '#include "promptd/inbox.h"\n',
                          "base must not include promptd/inbox.h, which is core")
        self.assert_finds("include/promptd/inbox.h", '  #  include "promptd/store.h"\n',
                          "core must not include promptd/store.h, which is storage")
        self.assert_finds("src/storage/store.c", '#include "promptd/inbox.h"\n#include "store_steps.h"\n', None)

    def test_private_headers_stay_in_their_folder(self):
        self.assert_finds("src/core/inbox.c", '#include "store_steps.h"\n',
                          "includes store_steps.h, a private header that is not in its own folder")
        self.assert_finds("src/core/inbox.c", '#include "../storage/store_steps.h"\n',
                          "includes ../storage/store_steps.h, a private header that is not in its own folder")

    def test_libraries_stay_with_their_owner(self):
        self.assert_finds("src/storage/store.c", "#include <libpq-fe.h>\n", "is no owner of <libpq-fe.h>")
        self.assert_finds("include/promptd/store.h", "#include <hiredis/async.h>\n",
                          "is no owner of <hiredis/async.h>")
        self.assert_finds("src/base/log.c", "#include <uv.h>\n", "is no owner of <uv.h>")
        self.assert_finds("src/base/log.c", "#include <glib.h>\n",
                          "includes <glib.h>, which has no owner in LIBRARIES")

    def test_every_header_has_a_layer(self):
        self.assert_finds("include/promptd/stray.h", "",
                          "belongs to no layer (add it to LONE_HEADERS, or its folder to LAYERS)")


if __name__ == "__main__":
    unittest.main()
