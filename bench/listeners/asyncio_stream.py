# SPDX-License-Identifier: MIT
"""The same listener as a consumer of a stream: what a user would write instead of redis_mode=stream.

    asyncio_stream.py REDIS_URL STREAM DATABASE_URL CONNECTIONS

Reads as much as its connections can work on and as much again, and acknowledges after the commit, whatever is done by
then at once. It takes over nothing from others, and looks at no entry again that it failed to store.
"""
import asyncio
import sys

import redis.asyncio as redis
from asyncio_listener import parse, store
import asyncpg

GROUP = "asyncio"


async def work(todo, done, database_url):
    connection = await asyncpg.connect(database_url)
    while True:
        entry, fields = await todo.get()
        try:
            await store(connection, *parse(fields[b"message"]))
            done.put_nowait(entry)
        except (ValueError, KeyError, TypeError, asyncpg.PostgresError) as error:
            print(f"message failed: {type(error).__name__}", file=sys.stderr)


async def acknowledge(client, stream, done):
    while True:
        entries = [await done.get()]
        while not done.empty():
            entries.append(done.get_nowait())
        await client.xack(stream, GROUP, *entries)


async def main(redis_url, stream, database_url, connections):
    todo, done = asyncio.Queue(int(connections)), asyncio.Queue()
    client = redis.from_url(redis_url)
    await client.xgroup_create(stream, GROUP, "0", mkstream=True)
    tasks = [asyncio.create_task(work(todo, done, database_url)) for _ in range(int(connections))]
    tasks.append(asyncio.create_task(acknowledge(redis.from_url(redis_url), stream, done)))
    while True:
        for _, entries in await client.xreadgroup(GROUP, "one", {stream: ">"}, count=int(connections), block=1000):
            for entry in entries:
                await todo.put(entry)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
