# SPDX-License-Identifier: MIT
"""What the tests share: private servers, a misbehaving proxy, and a promptd under observation."""
