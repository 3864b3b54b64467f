# SPDX-License-Identifier: MIT
"""The fault campaign: load, faults by a seeded schedule, and a checker that compares what was received with the database."""
