# SPDX-License-Identifier: MIT
"""How many messages a second, each system in its turn."""

import subprocess
import sys

from .stand import PROCESS_CONNECTIONS, ROOMY, place_of

LIMIT_BATCH, LIMIT_CONNECTIONS = 256, 4
SEQUENTIAL = ", sequential ids"  # ends the name of what is measured with these, too

# Messages of a trial: about a second's work.
FAST_COUNT = {512: 60000, 2048: 40000, 8192: 12000, 49152: 2500}
SLOW_COUNT = {512: 8000, 2048: 8000, 8192: 5000, 49152: 2000}

PGBENCH_SCRIPT = """\
\\set i :i + 1
\\set n :client_id * :per_client + :i
insert into interview_enhanced_prompts (id, interview_id, prompt, source)
 select p.id, p.id, p.prompt, p.source from unnest(array[md5(:n::text)::uuid], array[:prompt::text], array['rag'])
 as p (id, prompt, source) on conflict (id) do nothing returning id;
update interviews set status = 'ready' where id = any(array[md5(:n::text)::uuid]) and status::text = any(array['pending',
 'not_started', 'enhancing', 'vector_search', 'web_scraping', 'processing', 'failed']) and status::text <> 'ready'
 returning id;
"""


def run_limit(stand, corpus, count):
    stand.reset(corpus, count)
    output = subprocess.run([stand.program("bench_limit"), corpus.path, str(count), str(LIMIT_BATCH),
                             str(LIMIT_CONNECTIONS), stand.conninfo],
                            check=True, stdout=subprocess.PIPE, text=True).stdout
    if stand.ready_count() != count:
        sys.exit("bench_limit did not write everything")
    return {"rate": count / float(output)}


def run_pgbench(stand, corpus, count):
    """The prompt is the same in each row, for pgbench reads none from a file; the interviews are of its own."""
    per_client = count // PROCESS_CONNECTIONS
    count = per_client * PROCESS_CONNECTIONS
    with open(corpus.path, "rb") as file:
        record = file.read(40 + corpus.size)
    prompt = record[40:40 + int.from_bytes(record[32:36], sys.byteorder)].decode()
    script = f"{stand.folder}/one-by-one.pgbench"
    with open(script, "w", encoding="ascii") as file:
        file.write(PGBENCH_SCRIPT)
    stand.reset(corpus, 0)
    stand.database.execute("""insert into interviews (id, status)
                              select md5(n::text)::uuid, 'enhancing' from generate_series(1, %s) as n""", [count])
    stand.database.execute("vacuum analyze interviews")
    stand.database.execute("checkpoint")
    output = subprocess.run(["pgbench", "-n", "-M", "prepared", "-c", str(PROCESS_CONNECTIONS), "-j", "2", "-t",
                             str(per_client), "-f", script, "-D", "i=0", "-D", f"per_client={per_client}", "-D",
                             f"prompt={prompt}", stand.conninfo],
                            check=True, stdout=subprocess.PIPE, text=True).stdout
    if stand.ready_count() != count:
        sys.exit("pgbench did not write everything")
    return {"rate": float(next(line.split()[2] for line in output.splitlines() if line.startswith("tps")))}


def run_listener(stand, corpus, count, start, mode="pubsub"):
    """From the first PUBLISH to the last commit; Redis, the publisher and the listener share the machine."""
    stand.reset(corpus, count)
    return run_on_what_is_there(stand, corpus, count, start, mode)


def run_on_what_is_there(stand, corpus, count, start, mode="pubsub"):
    """The same without reset(): the interviews of these messages are awaiting, and no other is ready. `start` returns a
    process, or a list of some."""
    started = start()
    processes = started if isinstance(started, list) else [started]
    publisher = stand.publisher(corpus, count, place=place_of(mode))
    cpu = sum(process.cpu_seconds() for process in processes)
    stand.publish(publisher)
    ended = stand.wait_stored(corpus, count, count)
    began, _ = stand.publish_end(publisher)
    for process in processes:
        process.wait_quiet(0.02)
    cpu = sum(process.cpu_seconds() for process in processes) - cpu
    peak = max(process.status_kib("VmHWM") for process in processes)
    for process in processes:
        process.stop()
    return {"rate": count / (ended - began), "cpu_us": cpu / count * 1e6, "peak_kib": peak}


def run_queue(stand, corpus, count, mode):
    """A promptd, with the bounds as shipped, that takes messages from a list or a stream."""
    return run_listener(stand, corpus, count, lambda: stand.start_promptd(redis_mode=mode), mode)


def systems(stand, corpora, sequential, with_node):
    """{name: (function of a corpus and a number of messages, {size: Corpus}, is it fast)}."""
    def listener(start):
        return lambda corpus, count: run_listener(stand, corpus, count, start)

    def promptd(**settings):
        return listener(lambda: stand.start_promptd(**ROOMY, **settings))

    def limit(corpus, count):
        return run_limit(stand, corpus, count)

    all_systems = {
        "limit": (limit, corpora, True),
        "promptd": (promptd(), corpora, True),
        "limit" + SEQUENTIAL: (limit, sequential, True),
        "promptd" + SEQUENTIAL: (promptd(), sequential, True),
        "promptd, spool": (promptd(spool=True), corpora, True),
        "promptd, transaction": (promptd(atomicity="transaction"), corpora, True),
        "promptd, list": (lambda corpus, count: run_queue(stand, corpus, count, "list"), corpora, True),
        "promptd, stream": (lambda corpus, count: run_queue(stand, corpus, count, "stream"), corpora, True),
        "pgbench": (lambda corpus, count: run_pgbench(stand, corpus, count), corpora, False),
        "asyncio": (listener(stand.start_asyncio), corpora, False),
    }
    if with_node:
        all_systems["node"] = (listener(stand.start_node), corpora, False)
    return all_systems


def measure(stand, corpora, sequential, runs, share, with_node, clock):
    """{size: {system: [result of each run]}} for {size: how many runs}; `share` of the usual number of messages."""
    results = {size: {} for size in runs}
    running = systems(stand, corpora, sequential, with_node)
    for run in clock.rounds(max(runs.values())):
        for size in (size for size in runs if run < runs[size]):
            order = [name for name in running if size in running[name][1]]
            order = order[run % len(order):] + order[:run % len(order)]
            for name in order:
                function, messages, is_fast = running[name]
                count = int((FAST_COUNT if is_fast else SLOW_COUNT)[size] * share)
                result = function(messages[size], count)
                results[size].setdefault(name, []).append(result)
                clock.say(f"{size} bytes, run {run + 1}, {name}: {result['rate']:.0f}/s"
                          + (f", {result['cpu_us']:.1f} µs" if "cpu_us" in result else ""))
    return results
