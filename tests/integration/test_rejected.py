# SPDX-License-Identifier: MIT
"""Messages that break a rule: nothing is stored, the reason is logged, the interview is failed where it can be read."""

import json

import pytest

from support.expect import expect_nothing_stored, expect_stored, stuck_line
from support.redis_server import frame

TEXT = "a prompt that is long enough"


def fields(**changes):
    return {"interview_id": "ID", "enhanced_prompt": TEXT, "source": "rag", **changes}


def render(value):
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def without(name):
    message = fields()
    del message[name]
    return message


# name: (reason, payload with ID for the interview's id, can the id be read)
CASES = {
    "too many bytes": ("too_large", fields(extra="x" * 1048576), False),
    "latin1": ("invalid_utf8", b'{"interview_id":"ID","enhanced_prompt":"caf\xe9 au lait, please"}', False),
    "overlong utf8": ("invalid_utf8", b'{"interview_id":"ID","enhanced_prompt":"\xc0\xaf overlong slash"}', False),
    "utf8 surrogate": ("invalid_utf8", b'{"interview_id":"ID","enhanced_prompt":"\xed\xa0\x80 surrogate"}', False),
    "empty": ("not_json", b"", False),
    "only framing": ("not_json", b"==\n", False),
    "words": ("not_json", b"good morning, interviewly", False),
    "unrendered expression": ("not_json", b"=={{ JSON.stringify($json) }}\n", False),
    "half a message": ("not_json", b'{"interview_id":"ID","enhanced_prompt":"cut in the mid', False),
    "raw newline in a string": ("not_json", b'{"interview_id":"ID","enhanced_prompt":"two\nlines of a prompt"}', False),
    "lone surrogate": ("not_json", b'{"interview_id":"ID","enhanced_prompt":"\\ud83d a prompt that is long"}', False),
    "trailing comma": ("not_json", b'{"interview_id":"ID","enhanced_prompt":"a prompt that is long",}', False),
    "nested too deeply": ("not_json", b'{"x":' + b"[" * 1001 + b"]" * 1001 + b"}", False),
    "two objects": ("trailing_data", render(fields()) + b" {}", True),
    "text behind": ("trailing_data", render(fields()) + b";", True),
    "text behind an id that stands there twice": ("trailing_data", b'{"interview_id":"ID","interview_id":"ID"};', False),
    "text behind a list": ("trailing_data", render([fields()]) + b";", False),
    "array": ("not_object", [fields()], False),
    "string": ("not_object", "a message", False),
    "stringified twice": ("not_object", json.dumps(fields()), True),
    "stringified twice, and framed": ("not_object", "==" + json.dumps(fields(enhanced_prompt="x" * 400)) + "\n", True),
    "stringified twice, without an id": ("not_object", json.dumps(without("interview_id")), False),
    "stringified thrice": ("not_object", json.dumps(json.dumps(fields())), False),
    "a list that was stringified twice": ("not_object", json.dumps([fields()]), False),
    "null": ("not_object", b"null", False),
    "id twice": ("duplicate_field", b'{"interview_id":"ID","interview_id":"ID","enhanced_prompt":"long enough"}', False),
    "prompt twice": ("duplicate_field", b'{"interview_id":"ID","enhanced_prompt":"long enough","enhanced_prompt":"xyzxyzxyzx"}',
                     True),
    "source twice": ("duplicate_field",
                     b'{"interview_id":"ID","enhanced_prompt":"long enough","source":"rag","source":"rag"}', True),
    "no id": ("missing_interview_id", without("interview_id"), False),
    "id in another case": ("missing_interview_id", {"Interview_ID": "ID", "enhanced_prompt": TEXT}, False),
    "null id": ("invalid_interview_id", fields(interview_id=None), False),
    "number as id": ("invalid_interview_id", fields(interview_id=42), False),
    "id without hyphens": ("invalid_interview_id", fields(interview_id="5f0c2a9e3b1d4c8e9f7a1d2e3f4a5b6c"), False),
    "id in braces": ("invalid_interview_id", fields(interview_id="{ID}"), False),
    "id with a space": ("invalid_interview_id", fields(interview_id="ID "), False),
    "no prompt": ("missing_enhanced_prompt", without("enhanced_prompt"), True),
    "null prompt": ("invalid_enhanced_prompt", fields(enhanced_prompt=None), True),
    "list as prompt": ("invalid_enhanced_prompt", fields(enhanced_prompt=[TEXT]), True),
    "empty prompt": ("prompt_too_short", fields(enhanced_prompt=""), True),
    "nine characters": ("prompt_too_short", fields(enhanced_prompt="nine char"), True),
    "nine long characters": ("prompt_too_short", fields(enhanced_prompt="\U0001f680" * 9), True),
    "50,001 characters": ("prompt_too_long", fields(enhanced_prompt="y" * 50001), True),
    "nul": ("prompt_has_nul", fields(enhanced_prompt="a prompt with \0 in it"), True),
    "unknown source": ("invalid_source", fields(source="gossip"), True),
    "source in upper case": ("invalid_source", fields(source="RAG"), True),
    "null source": ("invalid_source", fields(source=None), True),
    "empty source": ("invalid_source", fields(source=""), True),
    "several faults": ("missing_enhanced_prompt", {"interview_id": "ID", "source": "gossip"}, True),
}


@pytest.mark.parametrize("name", CASES)
def test_reason(start_promptd, database, channel, name):
    reason, message, readable = CASES[name]
    promptd = start_promptd()
    interview = database.interview()
    payload = frame(render(message).replace(b"ID", interview.encode()))
    channel.publish_raw(payload)

    counters = promptd.settle(1)
    assert counters.outcomes() == {"rejected": 1}
    line = promptd.one("ERROR", reason)
    assert str(len(payload)) in line.text, "the line lacks the length of the message"
    assert line.fields.get("interview_id") == (interview if readable else None)
    for word in (TEXT, "gossip", "morning"):
        assert word not in line.text
    expect_nothing_stored(database, interview, "failed" if readable else "enhancing")
    assert promptd.find("CRITICAL") == []


@pytest.mark.parametrize("payload, at", [
    (b"", 0), (b"==\n", 3), (b"good", 0), (b"==[1,]", 5), (b'{"a":tru}', 5), (b'{"a":"two\nlines"}', 9),
    (b'={"a":"' + b"x" * 300 + b'\\q"}', 307), (b'{"a":"' + b"x" * 300 + b'" "b":1}', 308), (b'{"a":1', 6),
    (b'{"a":{"b":1,},"c":2}', 12), (b'{"a":1,,"b":2}', 7), (b"{1:2}", 1), (b'{"a":1,true:2}', 7), (b"{[1]:2}", 1),
    (b'{"a":12 134567}', 8), (b"[1 234]", 3), (b'{"tags":["a","b"}', 16), (b'{"a":[1}', 7), (b'{"a":"x" "b":zz}', 9),
    (b'{"enhanced_prompt":"he said "" to me"}', 29), (b'{"a" 1}', 5), (b'{"a":"\\ud83d"}', 6), (b'{"a":"\\udc00"}', 6),
    (b'["\\ud83d\\ude00\\u12"]', 14), (b"[" * 1001 + b"]" * 1001, 1000), (b'{"a":01}', 5), (b']', 0), (b'{"a":"\\', 6)])
def test_where_it_is_no_json(promptd, channel, payload, at):
    """The byte, counted from 0, that cannot stand where it does."""
    channel.publish_raw(payload)
    assert promptd.settle(1).outcomes() == {"rejected": 1}
    line = promptd.one("ERROR", "not_json")
    assert line.fields["at"] == str(at) and "hint" not in line.fields


def test_hint_that_it_was_stringified_twice(promptd, database, channel):
    interview = database.interview()
    channel.publish_raw(frame(render(json.dumps(fields(interview_id=interview)))))
    assert promptd.settle(1).outcomes() == {"rejected": 1}
    line = promptd.one("ERROR", "not_object")
    assert line.fields["hint"] == "a string that holds JSON: stringified twice?" and "at" not in line.fields
    expect_nothing_stored(database, interview, "failed")


@pytest.mark.parametrize("status", ["ready", "completed", "timeout"])
def test_rejected_message_leaves_an_interview_alone_that_is_not_awaiting(promptd, database, channel, status):
    interview = database.interview(status)
    channel.publish_raw(render(fields(interview_id=interview, enhanced_prompt="short")))
    assert promptd.settle(1).outcomes() == {"rejected": 1}
    expect_nothing_stored(database, interview, status)
    assert promptd.find("CRITICAL") == []


def test_rejected_message_for_an_unknown_interview(promptd, channel):
    channel.publish_raw(render(fields(interview_id="00000000-0000-4000-8000-000000000001", source="gossip")))
    assert promptd.settle(1).outcomes() == {"rejected": 1}
    assert promptd.find("CRITICAL") == []


def test_interview_id_of_a_rejected_message_in_upper_case(promptd, database, channel):
    interview = database.interview()
    channel.publish_raw(render(fields(interview_id=interview.upper(), source="gossip")))
    assert promptd.settle(1).outcomes() == {"rejected": 1}
    assert database.status(interview) == "failed"


def test_rejected_and_stuck(promptd, database, channel):
    database.raise_on("interviews", "update", "hands off")
    interview = database.interview()
    channel.publish_raw(render(fields(interview_id=interview, source="gossip")))
    assert promptd.settle(1).outcomes() == {"rejected": 1}
    assert database.status(interview) == "enhancing"
    promptd.one("ERROR", "invalid_source", interview)
    line = promptd.one("CRITICAL", stuck_line(interview))
    assert line.fields["sqlstate"] == "P0001" and line.fields["error"] == "hands off"


def test_limits_of_ones_own(start_promptd, database, channel):
    promptd = start_promptd(prompt_min_chars=3, prompt_max_chars=5, sources="gossip,hearsay", message_max_bytes=1024)
    good = database.interview()
    channel.publish_raw(render(fields(interview_id=good, enhanced_prompt="abcde", source="gossip")))
    for text in ("ab", "abcdef"):
        channel.publish_raw(render(fields(interview_id=database.interview(), enhanced_prompt=text, source="gossip")))
    channel.publish_raw(render(fields(interview_id=database.interview(), enhanced_prompt="abcd", source="rag")))
    channel.publish_raw(render(fields(interview_id=database.interview(), extra="x" * 1024)))
    assert promptd.settle(5).outcomes() == {"success": 1, "rejected": 4}
    for reason in ("prompt_too_short", "prompt_too_long", "invalid_source", "too_large"):
        promptd.one("ERROR", reason)
    assert database.status(good) == "ready"


def test_a_flood_of_rejected_messages_has_a_line_each(start_promptd, channel):
    promptd = start_promptd()
    channel.publish_burst([b"rubbish %d" % number for number in range(2000)])
    assert promptd.settle(2000).outcomes() == {"rejected": 2000}
    assert len(promptd.find("ERROR", "reason=not_json")) == 2000


def test_a_larger_flood_is_summed_up(start_promptd, channel):
    promptd = start_promptd(log_level="info")
    for _ in range(5):
        channel.publish_burst([b"rubbish %d" % number for number in range(5000)])
    assert promptd.settle(25000).outcomes() == {"rejected": 25000}
    promptd.stop()  # what is summed up last is written then
    lines = len(promptd.find("ERROR", "reason=not_json"))
    sums = promptd.find("ERROR", "more messages rejected than lines are written")
    assert lines >= 10000 and sums
    assert lines + sum(int(line.fields["messages"]) for line in sums) == 25000


def test_message_after_a_rejected_one(promptd, database, channel):
    channel.publish_raw(b"rubbish \xff\xfe")
    message = channel.publish(database.interview())
    assert promptd.settle(2).outcomes() == {"success": 1, "rejected": 1}
    expect_stored(database, message)


def test_control_characters_of_a_message_reach_no_log(promptd, channel):
    channel.publish_raw(b'{"interview_id":"\\u001b[31m\\n2026-11-23T16:01:02.345Z CRITICAL store: forged","enhanced_prompt":1}')
    channel.publish_raw(b"\x1b[31m\x07\r\n\x00 CRITICAL store: forged")
    promptd.settle(2)
    assert promptd.find("CRITICAL") == []  # the final judgement looks for control characters
