# SPDX-License-Identifier: MIT
"""What the database must look like when a message has come to its end."""

DETECTED = "ORPHANED PROMPT DETECTED for interview {interview}. Prompt ID: {prompt}."
RESOLVED = "ORPHANED PROMPT RESOLVED for interview {interview}. Prompt ID: {prompt}."
STUCK = "INTERVIEW STUCK: {interview} could not be marked failed."


def expect_stored(database, *messages):
    """Each prompt is there as published, under its own id, and its interview is ready."""
    for message in messages:
        row = (message.id, message.prompt, message.source or "rag")
        assert row in database.prompts(message.interview), f"prompt {message.id} is not stored as published"
        assert database.status(message.interview) == "ready"


def expect_nothing_stored(database, interview, status):
    assert database.prompts(interview) == []
    assert database.status(interview) == status


def detected_line(message):
    return DETECTED.format(interview=message.interview.lower(), prompt=message.id)


def resolved_line(message):
    return RESOLVED.format(interview=message.interview.lower(), prompt=message.id)


def stuck_line(interview):
    return STUCK.format(interview=interview)
