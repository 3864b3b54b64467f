/* SPDX-License-Identifier: MIT */
/*
 * One message: what arrived, checked and decoded, and how far its work has come.
 *
 * message_parse makes it, the inbox keeps it in order, the store moves it from step to step, the outcome ends it. It
 * has one owner at a time; whoever gives it away does not touch it again.
 */
#ifndef PROMPTD_MESSAGE_H
#define PROMPTD_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "promptd/text.h"

/* Reason, its stable name (a metric label), and what it says to people; of several faults the first here is given. */
#define REJECT_MAP(X)                                                                                                  \
    X(NONE, "none", "the message is valid")                                                                            \
    X(TOO_LARGE, "too_large", "the message has more bytes than message_max_bytes")                                     \
    X(INVALID_UTF8, "invalid_utf8", "the message is not valid UTF-8")                                                  \
    X(NOT_JSON, "not_json", "the message is not valid JSON, or nested deeper than 1,000")                              \
    X(TRAILING_DATA, "trailing_data", "there is more than white space after the JSON value")                           \
    X(NOT_OBJECT, "not_object", "the JSON value is not an object")                                                     \
    X(DUPLICATE_FIELD, "duplicate_field", "a known field stands in the object more than once")                         \
    X(MISSING_INTERVIEW_ID, "missing_interview_id", "there is no interview_id")                                        \
    X(INVALID_INTERVIEW_ID, "invalid_interview_id", "interview_id is not a UUID in a string")                          \
    X(MISSING_ENHANCED_PROMPT, "missing_enhanced_prompt", "there is no enhanced_prompt")                               \
    X(INVALID_ENHANCED_PROMPT, "invalid_enhanced_prompt", "enhanced_prompt is not a string")                           \
    X(PROMPT_TOO_SHORT, "prompt_too_short", "enhanced_prompt has fewer characters than prompt_min_chars")              \
    X(PROMPT_TOO_LONG, "prompt_too_long", "enhanced_prompt has more characters than prompt_max_chars")                 \
    X(PROMPT_HAS_NUL, "prompt_has_nul", "enhanced_prompt contains U+0000, which PostgreSQL cannot store")              \
    X(INVALID_SOURCE, "invalid_source", "source is not one of the allowed sources")

enum reject_reason {
#define X(name, label, meaning) REJECT_##name,
    REJECT_MAP(X)
#undef X
        REJECT_COUNT
};

const char *reject_name(enum reject_reason reason);    /* "too_large" */
const char *reject_meaning(enum reject_reason reason); /* the sentence */

struct message_rules {
    size_t max_bytes;           /* of the payload as it arrived */
    size_t prompt_min_chars;    /* code points */
    size_t prompt_max_chars;    /* code points */
    const char *const *sources; /* allowed values; borrowed, must outlive every message parsed with them */
    size_t source_count;
    bool any_source; /* `sources` does not count */
};

struct settings;
struct message_rules message_rules_of(const struct settings *settings); /* the texts are borrowed */

/* What message_parse read. Owned by whoever holds the struct; message_content_free frees the texts. */
struct message_content {
    enum reject_reason reject; /* REJECT_NONE: valid, and every field below is set */
    bool has_interview_id;     /* also in a rejected message, where one valid id could be read */
    uint8_t interview_id[UUID_SIZE];
    char *prompt;        /* NUL-terminated, malloc'ed; NULL in a rejected message */
    size_t prompt_bytes; /* without the NUL */
    const char *source;  /* one of rules->sources; with any_source own_source, or "rag" */
    char *own_source;    /* malloc'ed, or NULL */
    size_t not_json_at;  /* REJECT_NOT_JSON: the byte of the payload, from 0, that cannot stand where it does */
    bool is_stringified; /* REJECT_NOT_OBJECT: a string that holds an object, whose interview id is the one that was
                            read */
};

/* What may have gone wrong where the message was made; NULL: nothing is known. */
const char *message_hint(const struct message_content *content);

/*
 * Checks `length` raw bytes and decodes them. The bytes need not be NUL-terminated and are not changed.
 * false only when out of memory: then nothing is known about the message, and *content is empty.
 */
bool message_parse(const struct message_rules *rules, const char *bytes, size_t length,
                   struct message_content *content);

void message_content_free(struct message_content *content);

#endif
