# SPDX-License-Identifier: MIT
"""What the database must look like when a message has come to its end."""

DETECTED = "ORPHANED PROMPT DETECTED for interview {interview}. Prompt ID: {prompt}."
RESOLVED = "ORPHANED PROMPT RESOLVED for interview {interview}. Prompt ID: {prompt}."
STUCK = "INTERVIEW STUCK: {interview} could not be marked failed."
UNSTUCK = "INTERVIEW NO LONGER STUCK: {interview}"


def expect_kept(database, *messages, status):
    """Each prompt is there as published, under its own id, settled, and its interview has that status."""
    unsettled = {prompt for prompt, _ in database.unsettled()}
    for message in messages:
        row = (message.id, message.prompt, message.source or "rag")
        assert row in database.prompts(message.interview), f"prompt {message.id} is not stored as published"
        assert database.status(message.interview) == status
        assert message.id not in unsettled, f"prompt {message.id} is not settled"


def expect_stored(database, *messages):
    expect_kept(database, *messages, status="ready")


def expect_unsettled(database, message, status):
    """Step 1 is done, step 2 is not."""
    assert database.prompts(message.interview) == [(message.id, message.prompt, message.source or "rag")]
    assert (message.id, message.interview.lower()) in database.unsettled()
    assert database.status(message.interview) == status


def expect_nothing_stored(database, interview, status):
    assert database.prompts(interview) == []
    assert database.status(interview) == status
    assert interview.lower() not in {unsettled for _, unsettled in database.unsettled()}


def detected_line(message):
    return DETECTED.format(interview=message.interview.lower(), prompt=message.id)


def resolved_line(message):
    return RESOLVED.format(interview=message.interview.lower(), prompt=message.id)


def stuck_line(interview):
    return STUCK.format(interview=interview)


def unstuck_line(interview):
    return UNSTUCK.format(interview=interview)


def expect_stores_a_message(promptd, database, channel):
    received = promptd.counters()["received"]
    message = channel.publish(database.interview())
    promptd.settle(received + 1)
    expect_stored(database, message)
