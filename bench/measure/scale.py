# SPDX-License-Identifier: MIT
"""What is done again and again, by the number of interviews and prompts that are stored already."""

import os
import subprocess
import sys
import time

from .stand import ROOMY
from .throughput import run_on_what_is_there

ROWS = (0, 1000000, 4000000)
STORED = 20000  # messages on top of these
COMMANDS = {"orphans": ("orphans",), "stuck": ("stuck",), "check": ("check",)}
WITHOUT_INDEX, MESSAGES = "stuck, without its index", "messages"


def _time(stand, command):
    """Of one run of promptctl, which has nothing to find."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": stand.folder, "PROMPTD_REDIS_URL": stand.redis.url,
                   "PROMPTD_DATABASE_URL": stand.database.url()}
    began = time.monotonic()
    done = subprocess.run([os.path.join(stand.build, "src", "ctl", "promptctl"), *command], env=environment,
                          capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"promptctl {' '.join(command)}: {done.stdout}{done.stderr}")
    return {"ms": (time.monotonic() - began) * 1e3}


def fill(stand, rows):
    """Interviews that are over, each with its prompt, and one that waits, but not for long."""
    stand.database.execute("truncate interviews, interview_enhanced_prompts, promptd_unsettled")
    stand.database.execute("""insert into interviews (id, status, created_at)
                              select md5(n::text)::uuid, 'completed', now() - make_interval(secs => n)
                              from generate_series(1, %s) as n""", [rows])
    stand.database.execute("""insert into interview_enhanced_prompts (id, interview_id, prompt, source, created_at)
                              select md5('prompt ' || n)::uuid, md5(n::text)::uuid, 'Tell me about yourself.', 'rag',
                              now() - make_interval(secs => n) from generate_series(1, %s) as n""", [rows])
    stand.database.interview()
    stand.database.execute("vacuum analyze")
    stand.database.execute("checkpoint")


def run(stand, corpus, rows, count, repeat):
    """{what: [result]}: promptctl's commands, and `count` messages, which come last for they leave rows behind."""
    results = {}
    stand.database.execute("drop index if exists interviews_awaiting_idx")
    fill(stand, rows)
    results[WITHOUT_INDEX] = [_time(stand, COMMANDS["stuck"]) for _ in range(repeat)]
    stand.cluster.apply_file(stand.database.name, "04_indexes.sql")
    for name, command in COMMANDS.items():
        results[name] = [_time(stand, command) for _ in range(repeat)]
    stand.database.execute("drop index interviews_awaiting_idx")
    stand.add_interviews(corpus, count)
    stand.database.execute("vacuum analyze interviews")
    stand.database.execute("checkpoint")
    results[MESSAGES] = [run_on_what_is_there(stand, corpus, count, lambda: stand.start_promptd(**ROOMY))]
    return results


def measure(stand, corpus, repeat, clock):
    """{rows: {what: [result of each run]}}."""
    results = {}
    for rows in ROWS:
        results[rows] = run(stand, corpus, rows, STORED, repeat)
        for name, runs in results[rows].items():
            shown = f"{runs[0]['rate']:.0f}/s" if name == MESSAGES else f"{min(each['ms'] for each in runs):.0f} ms"
            clock.say(f"{rows} rows, {name}: {shown}")
    stand.database.execute("truncate interviews, interview_enhanced_prompts")
    return results
