/* SPDX-License-Identifier: MIT */
/* A message, the rules it is judged by, and its parsing. */
#ifndef PROMPTD_TESTS_MESSAGE_SAMPLE_H
#define PROMPTD_TESTS_MESSAGE_SAMPLE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "promptd/message.h"

#define ID_TEXT "5f0c2a9e-3b1d-4c8e-9f7a-1d2e3f4a5b6c"
#define ID "\"interview_id\":\"" ID_TEXT "\""
#define PROMPT_TEXT "Tell me about yourself."
#define PROMPT "\"enhanced_prompt\":\"" PROMPT_TEXT "\""
#define SOURCE "\"source\":\"rag\""
#define VALID "{" ID "," PROMPT "," SOURCE "}"

static const char *const sources[] = {"rag", "existing_data", "new_data", "fallback"};
static const struct message_rules rules = {
    .max_bytes = 1048576, .prompt_min_chars = 10, .prompt_max_chars = 50000, .sources = sources, .source_count = 4};

/* From memory of just the right size, so that the address sanitizer sees a read past the end. */
static inline bool parse(const struct message_rules *by, const char *payload, size_t length,
                         struct message_content *content)
{
    char *exact = malloc(length);
    assert_true(exact || length == 0);
    if (length > 0)
        memcpy(exact, payload, length);
    bool known = message_parse(by, exact, length, content);
    free(exact);
    return known;
}

#endif
