# SPDX-License-Identifier: MIT
"""A well-written listener in thirty lines or so of asyncio: what a user would write instead of running promptd.

    asyncio_listener.py REDIS_URL CHANNEL DATABASE_URL CONNECTIONS

Checks what promptd checks of a message, prepares its statements, works on as many messages at once as it has
connections, and takes the prompt away again where the interview cannot be moved.
"""
import asyncio
import json
import sys
import uuid

import asyncpg
import redis.asyncio as redis

NAMESPACE = uuid.UUID("955b55d8-887c-58e3-8f23-0b6cb409ec02")
SOURCES = {"rag", "existing_data", "new_data", "fallback"}
AWAITING = ["pending", "not_started", "enhancing", "vector_search", "web_scraping", "processing", "failed"]
INSERT = """insert into interview_enhanced_prompts (id, interview_id, prompt, source) values ($1, $2, $3, $4)
            on conflict (id) do nothing"""
MOVE = "update interviews set status = $2 where id = $1 and status = any($3) and status <> $2"
DELETE = "delete from interview_enhanced_prompts where id = $1"


def parse(payload):
    message = json.loads(payload.lstrip(b"= \t\r\n"))
    interview = uuid.UUID(message["interview_id"])
    prompt, source = message["enhanced_prompt"], message.get("source", "rag")
    if not 10 <= len(prompt) <= 50000 or "\0" in prompt or source not in SOURCES:
        raise ValueError("the message breaks a rule")
    return uuid.uuid5(NAMESPACE, f"{interview}\n{source}\n{prompt}"), interview, prompt, source


async def store(connection, id, interview, prompt, source):
    inserted = await connection.execute(INSERT, id, interview, prompt, source) == "INSERT 0 1"
    if await connection.execute(MOVE, interview, "ready", AWAITING) == "UPDATE 1" or not inserted:
        return
    await connection.execute(DELETE, id)
    await connection.execute(MOVE, interview, "failed", AWAITING)


async def work(queue, database_url):
    connection = await asyncpg.connect(database_url)
    while True:
        payload = await queue.get()
        try:
            await store(connection, *parse(payload))
        except (ValueError, KeyError, TypeError, asyncpg.PostgresError) as error:
            print(f"message failed: {type(error).__name__}", file=sys.stderr)


async def main(redis_url, channel, database_url, connections):
    queue = asyncio.Queue()
    workers = [asyncio.create_task(work(queue, database_url)) for _ in range(int(connections))]
    subscription = redis.from_url(redis_url).pubsub(ignore_subscribe_messages=True)
    await subscription.subscribe(channel)
    async for message in subscription.listen():
        queue.put_nowait(message["data"])
    await asyncio.gather(*workers)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
