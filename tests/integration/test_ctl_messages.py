# SPDX-License-Identifier: MIT
"""promptctl validate and publish: messages on their way to promptd."""

import json
import re

import pytest

from support.expect import expect_stored
from support.redis_server import Message, frame

INTERVIEW = "5f0c2a9e-3b1d-4c8e-9f7a-1d2e3f4a5b6c"
GOOD = b'{"interview_id": "%s", "enhanced_prompt": "Tell me about yourself.", "source": "rag"}' % INTERVIEW.encode()
PROMPT_ID = "6ef83e27-1b7f-5d2c-b768-3de86b8e1ff9"

# A message and the reason that it is rejected for.
BAD = {
    b"": "not_json",
    b"[]": "not_object",
    b"{} {}": "trailing_data",
    b"\xff": "invalid_utf8",
    b"{}": "missing_interview_id",
    GOOD.replace(b"rag", b"rug"): "invalid_source",
    GOOD.replace(b"Tell me about yourself.", b"short"): "prompt_too_short",
    GOOD.replace(b"Tell", b"\\u0000"): "prompt_has_nul",
    b" " * 1048577: "too_large",
}


@pytest.fixture
def file(new_folder):
    """file(bytes) -> path"""
    folder = new_folder("files")
    count = 0

    def write(content):
        nonlocal count
        count += 1
        path = f"{folder}/message{count}"
        with open(path, "wb") as out:
            out.write(content)
        return path

    return write


# validate


def test_where_and_why_it_is_rejected(promptctl, file):
    path = file(b'=={"interview_id": "x",}')
    result = promptctl("validate", path)
    assert result.code == 1 and result.out.startswith(f"{path}: rejected not_json: ") and result.out.endswith(" at=23\n")
    assert promptctl("validate", "--json", path).json()[0]["at"] == 23
    path = file(json.dumps(GOOD.decode()).encode())
    result = promptctl("validate", path)
    assert result.out.endswith(': the JSON value is not an object hint="a string that holds JSON: stringified twice?"\n')
    (verdict,) = promptctl("validate", "--json", path).json()
    assert verdict["hint"] == "a string that holds JSON: stringified twice?" and verdict["interview_id"] == INTERVIEW


@pytest.mark.parametrize("payload", [GOOD, frame(GOOD), b"\xef\xbb\xbf" + GOOD], ids=["plain", "n8n", "mark"])
def test_good_message(promptctl, file, payload):
    path = file(payload)
    result = promptctl("validate", path)
    assert result.code == 0 and result.err == ""
    assert result.out == f"{path}: accepted interview_id={INTERVIEW} source=rag prompt_id={PROMPT_ID} characters=23\n"
    result = promptctl("validate", stdin=payload)
    assert result.code == 0 and result.out.startswith(b"-: accepted ")


@pytest.mark.parametrize("payload", BAD, ids=BAD.values())
def test_bad_message(promptctl, file, payload):
    path = file(payload)
    result = promptctl("validate", path)
    assert result.code == 1 and result.out.startswith(f"{path}: rejected {BAD[payload]}: ")
    [judged] = promptctl("validate", "--json", path).json()
    assert (judged["accepted"], judged["reason"], judged["prompt_id"]) == (False, BAD[payload], None)


def test_several_files(promptctl, file):
    good, bad = file(GOOD), file(b"{}")
    assert promptctl("validate", good, good).code == 0
    result = promptctl("validate", good, bad, good)
    assert result.code == 1 and ["accepted" in line for line in result.lines()] == [True, False, True]
    assert result.err == "2 accepted, 1 rejected\n"


def test_lines(promptctl, file):
    lines = [frame(GOOD).strip(), b"", b"{}", GOOD + b"\r", b" \t"]
    path = file(b"\n".join(lines))
    result = promptctl("validate", "--lines", path)
    assert result.code == 1 and [line.split(" ")[:2] for line in result.lines()] == [
        [f"{path}:1:", "accepted"], [f"{path}:3:", "rejected"], [f"{path}:4:", "accepted"]]
    assert [each["line"] for each in promptctl("validate", "--lines", "--json", path).json()] == [1, 3, 4]
    assert promptctl("validate", "--lines", stdin=GOOD + b"\n" + GOOD).code == 0


def test_lines_of_any_length(promptctl, file):
    path = file(b"x" * 3000000 + b"\n" + GOOD + b"\n")
    result = promptctl("validate", "--lines", path)
    assert [line.split(" ")[1] for line in result.lines()] == ["rejected", "accepted"] and "too_large" in result.out


def test_nothing_to_judge(promptctl):
    assert promptctl("validate", "--lines", "--json").json() == []
    assert promptctl("validate", "--lines").err == "0 accepted, 0 rejected\n"


def test_rules_are_those_of_the_settings(promptctl, file):
    path = file(GOOD.replace(b"rag", b"other"))
    assert promptctl("validate", path, sources="rag,other").code == 0
    assert "prompt_too_short" in promptctl("validate", "--prompt-min-chars=24", path, sources="rag,other").out


def test_content_is_never_shown(promptctl, file):
    for payload in (GOOD, GOOD.replace(b"rag", b"rug")):
        assert "yourself" not in promptctl("validate", file(payload)).out


def test_file_that_cannot_be_read(promptctl, file, new_folder):
    good = file(GOOD)
    for bad in ("/nonexistent", new_folder("folder")):
        result = promptctl("validate", bad, good)
        assert result.code == 1 and bad in result.err and "accepted" in result.out


def test_name_of_a_file_cannot_speak_to_the_terminal(promptctl, file, new_folder):
    path = f"{new_folder('odd')}/\x1b[31mred"
    with open(path, "wb") as out:
        out.write(GOOD)
    assert "\x1b" not in promptctl("validate", path).out
    result = promptctl("validate", path + "/of/a/file")
    assert "\x1b" not in result.err and "\\x1b[31mred" in result.err


def test_colours_on_a_terminal_only(promptctl, file):
    path = file(GOOD)
    assert "\x1b[32maccepted" in promptctl.on_terminal("validate", path).out
    assert "\x1b" not in promptctl.on_terminal("validate", path, extra={"NO_COLOR": "1"}).out
    assert "\x1b" not in promptctl.on_terminal("validate", path, extra={"TERM": "dumb"}).out
    assert "\x1b" not in promptctl("validate", path).out


# publish


def test_published_message_is_stored(promptctl, start_promptd, database, channel, file):
    promptd = start_promptd()
    text = channel.prompt("It's \"quoted\", \\ and \t tabbed\n— in two lines.\n")
    message = Message(database.interview(), text, "new_data")
    channel.published.append(text)
    result = promptctl("publish", "--interview", message.interview, "--source=new_data", file(text.encode()))
    assert result.code == 0 and re.fullmatch(r"published: 1 receiver, prompt id [0-9a-f-]{36}\n", result.out)
    promptd.settle(1)
    expect_stored(database, message)
    assert message.id in result.out


def test_publish_from_standard_input(promptctl, start_promptd, database, channel):
    promptd = start_promptd()
    message = channel.message(database.interview())
    channel.published.append(message.prompt)
    result = promptctl("publish", "--json", "-", "--interview", message.interview.upper(), stdin=message.prompt).json()
    assert (result["receivers"], result["prompt_id"], result["channel"]) == (1, message.id, channel.name)
    promptd.settle(1)
    expect_stored(database, message)


def test_nobody_listens(promptctl, channel):
    result = promptctl("publish", "--interview", INTERVIEW, "-", stdin="Nobody will read this.")
    assert result.code == 1 and "0 receivers" in result.out and "nobody listens" in result.err and channel.name in result.err


@pytest.mark.parametrize("prompt, reason", [(b"short", "prompt_too_short"), (b"\xff" * 20, "invalid_utf8"),
                                            (b"a\0b" * 20, "prompt_has_nul"), (b"x" * 50001, "prompt_too_long"),
                                            (b"x" * 3000000, "too_large"), (b"", "prompt_too_short")],
                         ids=lambda value: value if isinstance(value, str) else "")
def test_what_would_be_rejected_is_not_sent(promptctl, channel, prompt, reason):
    listener = channel.server.admin.pubsub()
    listener.subscribe(channel.name)
    channel.wait_subscribers(1)
    result = promptctl("publish", "--interview", INTERVIEW, "-", stdin=prompt)
    assert result.code == 1 and reason.encode() in result.err and result.out == b""
    assert promptctl("publish", "--interview", INTERVIEW, "-", stdin="the only one to arrive").code == 0
    messages = [message for message in iter(lambda: listener.get_message(timeout=5), None)
                if message["type"] == "message"][:1]
    listener.close()
    assert json.loads(messages[0]["data"]) == {"interview_id": INTERVIEW, "enhanced_prompt": "the only one to arrive"}


@pytest.mark.parametrize("arguments", [["-"], ["--interview", "x", "-"], ["--interview", INTERVIEW],
                                       ["--interview", INTERVIEW, "--source", "nope", "-"], ["--interview"],
                                       ["--interview", INTERVIEW, "-", "-"]], ids=" ".join)
def test_bad_command_line(promptctl, arguments):
    result = promptctl("publish", *arguments, stdin="a prompt that is long enough")
    assert result.code == 64 and len(result.err.splitlines()) == 1 and result.out == ""


def test_redis_is_away(promptctl):
    result = promptctl("publish", "--interview", INTERVIEW, "-", stdin="a prompt that is long enough",
                       redis_url="redis://127.0.0.1:1")
    assert result.code == 69 and "127.0.0.1:1" in result.err


def test_redis_refuses(promptctl, own_redis):
    own_redis.admin.config_set("requirepass", "secret-word")
    for login, word in (("", "NOAUTH"), (":wrong-word@", "WRONGPASS")):
        result = promptctl("publish", "--interview", INTERVIEW, "-", stdin="a prompt that is long enough",
                           redis_url=f"redis://{login}127.0.0.1:{own_redis.port}")
        assert result.code == 78 and word in result.err and "wrong-word" not in result.err
    own_redis.log_in("secret-word")
