# SPDX-License-Identifier: MIT
"""How long innocent messages wait while database and promptd are up: nobody's fault, lock or outage code holds them up.

Time in which a fault that may hold up everyone is at work does not count, until all is well again after it.
"""

from support.wait import SLOW

# The contract says a second; the rest is for a machine of two cores that also runs the servers and the campaign.
LIMIT_S = 10 * SLOW
# For each message that was there before it, where many come at once: a busy machine may be slow, and that is no fault.
EACH_S = 0.05 * SLOW
# As promptd is shipped, a statement on a connection that carries nothing any more has 10 s by itself.
SHIPPED_LIMIT_S = 30 * SLOW

HELD_UP = "an innocent message was held up"


class Disturbances:
    """Periods, in seconds since the epoch, one after the other."""

    def __init__(self):
        self._periods = []
        self._since = None

    def begin(self, at):
        if self._since is None:
            self._since = at

    def end(self, at):
        if self._since is not None:
            self._periods.append((self._since, at))
            self._since = None

    def overlap(self, begin, end):
        total = 0.0
        if self._since is not None:
            total += max(0.0, end - max(begin, self._since))
        for since, until in reversed(self._periods):
            if until <= begin:
                break
            total += max(0.0, min(end, until) - max(begin, since))
        return total


class Innocents:
    """Those of one promptd. Times are those of its log."""

    def __init__(self, complain):
        self.disturbances = Disturbances()
        self.limit = LIMIT_S
        self.waits = []      # seconds that count, of each that is judged
        self._complain = complain
        self._came = {}      # key: (when, how many were before it)
        self._ended = []     # (key, came, before it, ended), not judged yet

    def came(self, key, at, before=0):
        self._came[key] = at, before

    def ended(self, key, at):
        came = self._came.pop(key, None)
        if came is not None:
            self._ended.append((key, *came, at))

    def forget(self, key):
        self._came.pop(key, None)

    def judge(self, now):
        """At a time when no disturbance lasts."""
        for key, came, before, ended in self._ended:
            wait = ended - came - self.disturbances.overlap(came, ended)
            self.waits.append(wait)
            if wait > self.limit + before * EACH_S:
                self._say(key, f"had its outcome after {wait:.1f} s")
        self._ended.clear()
        for key, (came, before) in list(self._came.items()):
            wait = now - came - self.disturbances.overlap(came, now)
            if wait > self.limit + before * EACH_S:
                self._say(key, f"has no outcome after {wait:.1f} s")
                del self._came[key]

    def _say(self, key, what):
        interview, prompt, _ = key
        self._complain(HELD_UP, f"prompt {prompt} of {interview} {what}, without what a fault explains", interview)


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0
