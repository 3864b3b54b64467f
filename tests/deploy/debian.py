# SPDX-License-Identifier: MIT
"""Folders with a Debian of their own: made by debootstrap, worked in by chroot."""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import threading

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / "build" / "deploy"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
MACHINE_PACKAGES = "systemd systemd-sysv dbus procps redis-server postgresql logrotate"


def run(*command, **options):
    """Runs a command and returns what it prints; a failure shows it."""
    command = [str(word) for word in command]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}"
    return done.stdout


def mirror():
    """The one that this machine uses, where it is a Debian itself; else none: debootstrap has one of its own."""
    for uri in run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").split():
        if re.fullmatch(r"https?://\S+/debian/?", uri):
            return [uri]
    return []


class Root:
    """A folder with a Debian in it."""

    def __init__(self, path):
        self.path = path

    def file(self, name):
        return self.path / name.lstrip("/")

    def write(self, name, text, mode=0o644):
        path = self.file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    @contextlib.contextmanager
    def mounted(self):
        """What programs expect to find. Our mount namespace is our own: nothing of this can outlive us."""
        mounts = [("-t", "proc", "proc", "proc"), ("--bind", "/dev", "dev"), ("-t", "tmpfs", "tmpfs", "dev/shm")]
        for *options, place in mounts:
            run("mount", *options, self.file(place))
        try:
            yield
        finally:
            for *_, place in reversed(mounts):
                run("umount", "--lazy", self.file(place))

    def run(self, script, **options):
        environment = ENVIRONMENT | {"DEBIAN_FRONTEND": "noninteractive"}
        return run("chroot", self.path, "sh", "-ec", script, env=environment, **options)

    def install(self, packages):
        self.run(f"apt-get -q -y install --no-install-recommends {packages}")

    def copy(self, name):
        other = Root(self.path.with_name(name))
        shutil.rmtree(other.path, ignore_errors=True)
        run("cp", "-a", self.path, other.path)
        return other


def make_base(release):
    """A minimal Debian, which fetches packages the way this machine does."""
    root = Root(FOLDER / release)
    if root.file("made").exists():
        return root
    shutil.rmtree(root.path, ignore_errors=True)
    run("debootstrap", "--variant=minbase", release, root.path, *mirror())
    root.write("etc/apt/apt.conf.d/90machine", run("apt-config", "dump", "Acquire"))
    root.write("etc/resolv.conf", pathlib.Path("/etc/resolv.conf").read_text())
    root.run("apt-get -q update")
    root.file("made").touch()
    return root


def build_packages(base):
    """Builds the checkout on this Debian, warnings being errors, and packs it twice: revision 2 is for an upgrade."""
    root = base.copy(f"{base.path.name}-build")
    source = root.file("source")
    source.mkdir()
    tracked = run("git", "-c", f"safe.directory={CHECKOUT}", "-C", CHECKOUT, "ls-files", "-z").split("\0")
    for name in filter(None, tracked):
        if (CHECKOUT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, source / name)
    with root.mounted():
        root.install(os.environ["PROMPTD_PACKAGES_BUILD"] + " dpkg-dev file")
        root.run(
            """cd /source
            cmake --preset release -DPROMPTD_WERROR=ON -DPROMPTD_TESTS=OFF -DCMAKE_INSTALL_PREFIX=/usr
            cmake --build build/release --parallel $(nproc)
            cd build/release
            cpack && cpack -D CPACK_DEBIAN_PACKAGE_RELEASE=2"""
        )
    packages = sorted(root.file("source/build/release").glob("*.deb"))
    assert len(packages) == 2, packages
    kept = FOLDER / f"{base.path.name}-packages"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    kept_packages = [pathlib.Path(shutil.copy2(package, kept)) for package in packages]
    shutil.rmtree(root.path)
    return kept_packages


def make_machine(base, packages):
    """A Debian to be booted: systemd, both servers (not enabled), and in apt's cache all that the package needs."""
    root = base.copy(f"{base.path.name}-machine")
    root.write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
    with root.mounted():
        root.install(MACHINE_PACKAGES)
        root.run("apt-get clean; systemctl disable redis-server postgresql")
        for package in packages:
            shutil.copy2(package, root.file("root"))
        root.run(f"apt-get -q -y install --no-install-recommends --download-only /root/{packages[0].name}")
    root.file("usr/sbin/policy-rc.d").unlink()
    return root


class Debian:
    """One release, prepared once, in a thread of its own: the two take their time at the same time."""

    def __init__(self, release):
        self.release = release
        self.error = None
        self.base = self.packages = self.machine = None
        self.bare = threading.Event()
        self.thread = threading.Thread(target=self.prepare, daemon=True)
        self.thread.start()

    def prepare(self):
        try:
            self.base = make_base(self.release)
            self.bare.set()
            self.packages = build_packages(self.base)
            self.machine = make_machine(self.base, self.packages)
        except (AssertionError, OSError) as error:
            self.error = error
        finally:
            self.bare.set()

    def bare_ready(self):
        """As debootstrap makes it: all that the image takes."""
        self.bare.wait()
        assert self.base, f"Debian {self.release} could not be made: {self.error}"
        return self.base

    def ready(self):
        self.thread.join()
        assert self.error is None, f"Debian {self.release} could not be prepared: {self.error}"
        return self
