# SPDX-License-Identifier: MIT
"""The messages: pseudo-natural text from a seeded vocabulary, no two alike, framed as n8n frames them."""

import os
import random
import struct
import uuid

from support.redis_server import Message

TEXT_WORDS = 400_000
VOCABULARY = 6000
SYLLABLES = ("a an ar as at ble cal cen com con da de der di dis e ed el en er es est ex fi for ful gen ham hand i ic in "
             "ing ion is it jec kin la le lec li lo lu ly man me men mi mo ness ni no o of ol on or ous pa per ple po pre "
             "pro qua ra re ri ro sa se sion so sta ste str ta te ted ter ti tion to tra tu u un up ur ver vi wa we wor y").split()
COMMON = ("the of and to a in is you that it for on are as with his they at be this from have or by one had not but what "
          "all were when we there can an your which their if do will each how about up out them then she many some so "
          "interview candidate experience team project question answer describe role company skills years").split()
RARE = ("naïve", "résumé", "“quoted”", "C++", "e.g.", "—", "Müller", "2024", "$120,000", "\"STAR\"", "日本語", "path\\to", "100 %")


def _vocabulary(chance):
    words = list(COMMON)
    while len(words) < VOCABULARY:
        words.append("".join(chance.choices(SYLLABLES, k=chance.choice((1, 2, 2, 3, 3, 4)))))
    return words


def _natural_text(chance):
    """Words by Zipf's law, in sentences and paragraphs."""
    words = _vocabulary(chance)
    weights = [1 / (rank + 3) for rank in range(len(words))]
    pieces = []
    left = 0
    for word in chance.choices(words, weights, k=TEXT_WORDS):
        if left == 0:
            left = chance.randint(6, 24)
            word = word.capitalize()
        elif chance.random() < 0.01:
            word = chance.choice(RARE)
        left -= 1
        if left == 0:
            word += chance.choice((".", ".", ".", "?", ":", ".\n\n", ".\n- "))
        elif chance.random() < 0.07:
            word += ","
        pieces.append(word)
    return " ".join(pieces)


class Corpus:
    """Messages of one size in a file that bench/corpus.c reads, and the interviews they are for in a table.

    The interviews' ids are random, or counted upwards as 00000000-0000-4000-8000-000000000000 and so on.
    """

    def __init__(self, folder, text, size, count, seed, sequential=False):
        self.size = size
        self.count = count
        kind = "sequential" if sequential else "random"
        self.path = os.path.join(folder, f"corpus-{size}-{kind}")
        self.table = f"bench_interviews_{size}_{kind}"
        self.interviews = []
        chance = random.Random(f"{seed}-{size}")
        with open(self.path, "wb") as file:
            for number in range(count):
                interview = uuid.UUID(int=number if sequential else chance.getrandbits(128), version=4)
                message = Message(str(interview), self._slice(text, size, chance))
                self.interviews.append(message.interview)
                self._write(file, message)

    @staticmethod
    def _slice(text, size, chance):
        """Text that takes `size` bytes once it is encoded, or two or three fewer."""
        start = chance.randrange(len(text) - size)
        return text[start:start + size].encode()[:size].decode("utf-8", "ignore")

    @staticmethod
    def _write(file, message):
        prompt, payload = message.prompt.encode(), message.framed()
        file.write(struct.pack("=16s16sII", uuid.UUID(message.interview).bytes, uuid.UUID(message.id).bytes, len(prompt),
                               len(payload)))
        file.write(prompt)
        file.write(payload)

    def install(self, database):
        """Puts the interviews in a table, from which each trial takes what it needs."""
        database.execute(f"create table {self.table} (n int, id uuid)")
        database.execute(f"insert into {self.table} select n, id from unnest(%s::uuid[]) with ordinality as t (id, n)",
                         [self.interviews])
        self.interviews = []


def make(folder, counts, sequential_counts, seed=1):
    """{size: Corpus} for {size: how many messages}, twice: with random ids, and with ids counted upwards."""
    text = _natural_text(random.Random(seed))
    return ({size: Corpus(folder, text, size, count, seed) for size, count in counts.items()},
            {size: Corpus(folder, text, size, count, seed, sequential=True) for size, count in sequential_counts.items()})
