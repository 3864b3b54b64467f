# SPDX-License-Identifier: MIT
"""A host behind a link that can be taken down: then packets vanish, and nobody is told."""

import os
import subprocess

OURS, THEIRS = "198.51.100.1", "198.51.100.2"  # addresses for documentation (RFC 5737): nobody else has them


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class FarHost:
    """A network namespace of its own, joined to ours by a pair of virtual interfaces."""

    address = THEIRS

    def __init__(self):
        self.name = f"promptd-{os.getpid()}"
        self._near, self._far = f"pd{os.getpid()}a", f"pd{os.getpid()}b"
        ip("netns", "add", self.name)
        try:
            ip("link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self.name)
            ip("address", "add", f"{OURS}/30", "dev", self._near)
            ip("link", "set", self._near, "up")
            ip("-n", self.name, "address", "add", f"{THEIRS}/30", "dev", self._far)
            ip("-n", self.name, "link", "set", "lo", "up")
            self.restore()
        except OSError:
            self.close()
            raise

    def command(self):
        """What makes a program run there."""
        return ["ip", "netns", "exec", self.name]

    def vanish(self):
        ip("-n", self.name, "link", "set", self._far, "down")

    def restore(self):
        ip("-n", self.name, "link", "set", self._far, "up")

    def close(self):
        ip("netns", "delete", self.name)  # both interfaces go with it
