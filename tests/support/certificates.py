# SPDX-License-Identifier: MIT
"""A certificate authority for one test, by openssl."""

import os
import shutil
import subprocess

NAMES = "DNS:localhost,DNS:redis.test,IP:127.0.0.1"


def openssl(*words, folder):
    done = subprocess.run(["openssl", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"openssl {' '.join(words)}: {done.stderr}"


class Certificate:
    """A PEM file and its key's."""

    def __init__(self, folder, name):
        self.file = os.path.join(folder, f"{name}.crt")
        self.key = os.path.join(folder, f"{name}.key")


class Authority(Certificate):
    def __init__(self, folder, name="ca"):
        super().__init__(folder, name)
        self.folder = folder
        self.name = name
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                f"/CN=CA {name}", "-keyout", self.key, "-out", self.file, folder=folder)

    def issue(self, name, names=NAMES, days=30):
        """0 days: expired when it is made."""
        made = Certificate(self.folder, f"{self.name}-{name}")
        request, extensions = f"{name}.csr", f"{name}.ext"
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                "-keyout", made.key, "-out", request, folder=self.folder)
        with open(os.path.join(self.folder, extensions), "w", encoding="ascii") as file:
            file.write(f"subjectAltName={names}\n")
        openssl("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self.key, "-CAcreateserial", "-days",
                str(days), "-extfile", extensions, "-out", made.file, folder=self.folder)
        return made


def has_openssl():
    return shutil.which("openssl") is not None
