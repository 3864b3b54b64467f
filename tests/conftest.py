# SPDX-License-Identifier: MIT
"""Makes the shared fixtures known to every test below this folder."""

pytest_plugins = ["support.fixtures"]
