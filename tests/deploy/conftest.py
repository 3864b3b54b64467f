# SPDX-License-Identifier: MIT
"""The Debians that the tests of deployment run on, prepared once a session, and the machines booted from them."""

import os
import pathlib
import shutil
import signal

import pytest

from containers import IMAGE, Podman
from debian import FOLDER, Debian
from machine import Machine

RELEASES = ["bookworm", "trixie"]
LOGS = FOLDER.parent / "logs"


def pytest_configure(config):
    # Asked to stop, end like after Ctrl-C: the machines and containers are taken down.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    FOLDER.mkdir(parents=True, exist_ok=True)
    LOGS.mkdir(parents=True, exist_ok=True)


def lacking():
    """What this machine lacks for all of it, or nothing."""
    if os.geteuid() != 0:
        return "root's rights"
    for program in ["debootstrap", "systemd-nspawn", "nsenter", "chroot"]:
        if not shutil.which(program):
            return program
    return None


@pytest.fixture(scope="session", autouse=True)
def able():
    missing = lacking()
    if missing:
        pytest.skip(f"needs {missing}")


@pytest.fixture(scope="session")
def debians(request, able):
    """Those that the chosen tests are for."""
    wanted = {item.callspec.params.get("debian") for item in request.session.items if hasattr(item, "callspec")}
    if any({"trixie", "debian13"} & set(item.fixturenames) for item in request.session.items):
        wanted.add("trixie")
    return {release: Debian(release) for release in RELEASES if release in wanted}


@pytest.fixture(scope="session", params=RELEASES)
def debian(request, debians):
    return debians[request.param].ready()


@pytest.fixture(scope="session")
def trixie(debians):
    """A bare Debian 13, for the image."""
    return debians["trixie"].bare_ready()


@pytest.fixture(scope="session")
def debian13(debians):
    return debians["trixie"].ready()


@pytest.fixture(scope="session")
def podman(trixie):
    for program in ("podman", "runc"):
        if not shutil.which(program):
            pytest.skip(f"needs {program}")
    return Podman(trixie, LOGS / "deploy-image.log")


@pytest.fixture(scope="session")
def image(podman):
    podman.build("deploy/docker/Dockerfile", IMAGE)
    return podman.inspect("image", IMAGE)


@pytest.fixture(scope="session")
def machine(debian):
    """Booted, without promptd: the tests of one release go on where the one before has left it."""
    transcript = pathlib.Path(LOGS / f"deploy-{debian.release}.log")
    for old in (transcript, transcript.with_suffix(".console.log")):
        old.unlink(missing_ok=True)
    machine = Machine(debian.machine, transcript)
    try:
        machine.boot()
        yield machine
    finally:
        machine.end()
        shutil.rmtree(debian.machine.path)
