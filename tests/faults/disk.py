# SPDX-License-Identifier: MIT
"""A small file system in memory that can be full: every write that needs room fails as on any full disk."""

import os
import subprocess

PAGE = 4096


class Disk:
    """Where mounting is not allowed `works` is false, and the folder is just a folder."""

    def __init__(self, folder, megabytes, mode):
        self.folder = folder
        self._size = megabytes << 20
        self.works = os.geteuid() == 0 and self._mount(f"size={self._size},mode={mode:04o}")

    def _mount(self, options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.folder]
        return subprocess.run(command, capture_output=True).returncode == 0

    def fill(self):
        """No room for a byte more than there is. It is repeated while others take the room meanwhile."""
        while not self._mount(f"remount,size={self._used()}"):
            pass

    def _used(self):
        state = os.statvfs(self.folder)
        return max((state.f_blocks - state.f_bfree) * state.f_frsize, PAGE)

    def free(self):
        if not self._mount(f"remount,size={self._size}"):
            raise AssertionError(f"{self.folder} cannot be given its room again")

    def close(self):
        if self.works:
            subprocess.run(["umount", "--lazy", self.folder], check=True)
