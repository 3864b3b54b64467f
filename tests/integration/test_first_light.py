# SPDX-License-Identifier: MIT
"""A good message, as n8n publishes it, becomes a row and a ready interview."""

import pytest

from support.expect import expect_stored
from support.redis_server import DEFAULT_CHANNEL, Channel, Message, frame

TEXTS = {
    "shortest": "ten chars!",
    "longest": "x" * 50000,
    "longest of four-byte characters": "\U0001f680" * 50000,
    "white space around": "  \t kept as it is, with\r\nits lines \n\n",
    "several scripts": "Grüße, 面接の質問, Собеседование, مقابلة, e\u0301 \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "odd code points": "\u0001\u001f\u007f\u0080\ufeff\ufffe\uffff\U0010ffff\u2028\u2029 all of them",
    "sql": "'; DROP TABLE interviews; -- $1 {\"a\",NULL} \\x00 %s E'\\\\'",
    "html": "<script>alert('hi')</script> &amp; <!-- $(rm -rf /) `id` -->",
    "json": '{"interview_id": "not this one", "enhanced_prompt": "nor this"}',
    "equals signs": "===={{ $json.prompt }}====\n",
    "backslashes": "\\ \\\\ \\n \\u0000 \"quoted\" /slashed/",
}


def test_message_framed_by_n8n_is_stored(promptd, database, channel):
    interview = database.interview("enhancing")
    message = channel.publish(interview, "Tell me about yourself.")
    assert promptd.settle(1).outcomes() == {"success": 1}
    assert database.prompts(interview) == [(message.id, message.prompt, "rag")]
    assert database.status(interview) == "ready"
    line = promptd.one("INFO", interview, message.id)
    assert line.component == "store" or line.component == "outcome"


@pytest.mark.parametrize("name", TEXTS)
def test_prompt_is_stored_byte_for_byte(promptd, database, channel, name):
    message = Message(database.interview(), TEXTS[name])
    channel.publish_message(message)
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)
    stored = database.value("select convert_to(prompt, 'UTF8') from interview_enhanced_prompts")
    assert bytes(stored) == TEXTS[name].encode()


def test_escapes_are_decoded(promptd, database, channel):
    interview = database.interview()
    channel.publish_raw(frame(b'{"interview_id":"%s","enhanced_prompt":"\\u00e9\\ud83d\\ude80\\/\\b\\f\\n\\r\\t\\"\\\\ decoded"}'
                              % interview.encode()))
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, Message(interview, "é\U0001f680/\b\f\n\r\t\"\\ decoded"))


@pytest.mark.parametrize("source", ["rag", "existing_data", "new_data", "fallback"])
def test_each_source(promptd, database, channel, source):
    message = channel.publish(database.interview(), source=source)
    assert promptd.settle(1).outcomes() == {"success": 1}
    assert database.prompts(message.interview) == [(message.id, message.prompt, source)]


def test_absent_source_means_rag(promptd, database, channel):
    message = channel.publish(database.interview(), source=None)
    assert promptd.settle(1).outcomes() == {"success": 1}
    assert database.prompts(message.interview) == [(message.id, message.prompt, "rag")]


def test_interview_id_in_upper_case_is_stored_in_lower_case(promptd, database, channel):
    interview = database.interview()
    message = channel.publish(interview.upper())
    assert promptd.settle(1).outcomes() == {"success": 1}
    assert database.prompts(interview) == [(message.id, message.prompt, "rag")]
    assert database.status(interview) == "ready"
    promptd.one("INFO", interview)
    assert promptd.find("INFO", interview.upper()) == []


@pytest.mark.parametrize("before, after", [
    (b"", b""), (b"==", b"\n"), (b"=", b""), (b" \t\r\n", b" \t\r\n"), (b"\xef\xbb\xbf", b""),
    (b"= =\n=\xef\xbb\xbf =", b"\n\n"),
], ids=["bare", "n8n", "one sign", "white space", "BOM", "mixed"])
def test_framing_is_skipped(promptd, database, channel, before, after):
    interview = database.interview()
    message = channel.message(interview)
    bare = message.framed()[2:-1]
    channel.publish_raw(before + bare + after)
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


def test_unknown_fields_are_ignored(promptd, database, channel):
    message = channel.message(database.interview())
    extra = message.framed().replace(b"{", b'{"enhanced_prompt_v2":null,"list":[1e400,{"source":1}],', 1)
    channel.publish_raw(extra)
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


@pytest.mark.parametrize("status", ["pending", "not_started", "enhancing", "vector_search", "web_scraping", "processing",
                                    "failed", "ready"])
def test_every_awaiting_status_becomes_ready(promptd, database, channel, status):
    message = channel.publish(database.interview(status))
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


def test_second_prompt_for_a_ready_interview_is_stored_too(promptd, database, channel):
    interview = database.interview()
    messages = [channel.publish(interview, text) for text in ("The first of two.", "The second of two.")]
    assert promptd.settle(2).outcomes() == {"success": 2}
    expect_stored(database, *messages)
    assert len(database.prompts(interview)) == 2


def test_same_text_from_another_source_is_another_prompt(promptd, database, channel):
    interview = database.interview()
    messages = [channel.publish(interview, "The same words.", source) for source in ("rag", "fallback")]
    assert promptd.settle(2).outcomes() == {"success": 2}
    expect_stored(database, *messages)


def test_default_channel(start_promptd, database, redis_server):
    channel = Channel(redis_server, DEFAULT_CHANNEL)
    promptd = start_promptd(on=channel, redis_channel=None)
    message = channel.publish(database.interview())
    assert promptd.settle(1).outcomes() == {"success": 1}
    expect_stored(database, message)


def test_only_id_and_status_of_interviews_are_touched(promptd, database, channel):
    database.execute("alter table interviews add column title text default 'kept', add column updated_at timestamptz")
    interview = database.interview()
    before = database.rows("select id, created_at, title, updated_at from interviews")
    channel.publish(interview)
    assert promptd.settle(1).outcomes() == {"success": 1}
    assert database.rows("select id, created_at, title, updated_at from interviews") == before
