/* SPDX-License-Identifier: MIT */
/* The JSON of an outcome event: what there is nothing to say about is absent, and prompts are never there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "promptd/events.h"

#define INTERVIEW "01020304-0506-0708-090a-0b0c0d0e0f10"
#define PROMPT "ffeeddcc-bbaa-9988-7766-554433221100"
#define AT ",\"at\":\"2026-11-23T16:01:02.345Z\"}"

enum { WALL_S = 1795449662 };

static struct job job_of(enum outcome outcome)
{
    static char text[] = "A prompt that stands in no event.";
    struct job job = {.outcome = outcome};
    job.content.has_interview_id = true;
    for (int i = 0; i < UUID_SIZE; i++) {
        job.content.interview_id[i] = (uint8_t)(i + 1);
        job.prompt_id[i] = (uint8_t)(0x11 * (15 - i));
    }
    job.content.prompt = text;
    job.content.prompt_bytes = strlen(text);
    job.content.source = "rag";
    return job;
}

static void expect_event(const struct job *job, const char *expected)
{
    static const struct events_statuses statuses = {.ready = "done", .failed = "not \"done\""};
    struct buffer buffer = {0};
    events_append(&buffer, job, &statuses, (int64_t)WALL_S * 1000 + 345);
    buffer_append_char(&buffer, '\0');
    assert_false(buffer.failed);
    assert_string_equal(buffer.data, expected);
    buffer_free(&buffer);
}

static void test_good_outcomes(void **state)
{
    (void)state;
    const struct job stored = job_of(OUTCOME_STORED);
    expect_event(&stored,
                 "{\"interview_id\":\"" INTERVIEW
                 "\",\"outcome\":\"stored\",\"status\":\"done\",\"prompt_id\":\"" PROMPT "\",\"source\":\"rag\"" AT);
    const struct job duplicate = job_of(OUTCOME_DUPLICATE);
    expect_event(&duplicate, "{\"interview_id\":\"" INTERVIEW "\",\"outcome\":\"duplicate\",\"prompt_id\":\"" PROMPT
                             "\",\"source\":\"rag\"" AT);
}

static void test_failures(void **state)
{
    (void)state;
    struct job_failure failure = {.sqlstate = "23514", .text = "a \"constraint\"\nand more"};
    struct job job = job_of(OUTCOME_ROLLED_BACK);
    job.failure = &failure;
    job.is_failed = true;
    expect_event(&job,
                 "{\"interview_id\":\"" INTERVIEW
                 "\",\"outcome\":\"rolled back\",\"status\":\"not \\\"done\\\"\",\"prompt_id\":\"" PROMPT
                 "\",\"source\":\"rag\",\"reason\":\"a \\\"constraint\\\"\\nand more\",\"sqlstate\":\"23514\"" AT);
    job.outcome = OUTCOME_ORPHANED;
    job.is_failed = false;
    failure = (struct job_failure){.sqlstate = ""};
    expect_event(&job, "{\"interview_id\":\"" INTERVIEW "\",\"outcome\":\"orphaned\",\"prompt_id\":\"" PROMPT
                       "\",\"source\":\"rag\"" AT);
    job.outcome = OUTCOME_NOT_STORED;
    job.failure = NULL; /* for want of memory */
    expect_event(&job, "{\"interview_id\":\"" INTERVIEW "\",\"outcome\":\"not stored\",\"prompt_id\":\"" PROMPT
                       "\",\"source\":\"rag\"" AT);
}

static void test_rejected_and_dropped(void **state)
{
    (void)state;
    struct job job = job_of(OUTCOME_REJECTED);
    job.content.prompt = NULL;
    job.content.reject = REJECT_PROMPT_TOO_LONG;
    expect_event(&job,
                 "{\"interview_id\":\"" INTERVIEW "\",\"outcome\":\"rejected\",\"reason\":\"prompt_too_long\"" AT);
    job.content.has_interview_id = false;
    expect_event(&job, "{\"outcome\":\"rejected\",\"reason\":\"prompt_too_long\"" AT);
    struct job_failure failure = {.text = "out of memory"};
    const struct job lost = {.outcome = OUTCOME_DROPPED, .failure = &failure};
    expect_event(&lost, "{\"outcome\":\"dropped\",\"reason\":\"out of memory\"" AT);
}

static void test_what_is_no_message(void **state)
{
    (void)state;
    struct job job = job_of(OUTCOME_STORED);
    job.content.prompt = NULL;
    job.content.source = NULL;
    job.kind = JOB_RECOVERY;
    expect_event(&job, "{\"interview_id\":\"" INTERVIEW
                       "\",\"outcome\":\"settled\",\"status\":\"done\",\"prompt_id\":\"" PROMPT "\"" AT);
    job.outcome = OUTCOME_ROLLED_BACK;
    expect_event(&job,
                 "{\"interview_id\":\"" INTERVIEW "\",\"outcome\":\"rolled back\",\"prompt_id\":\"" PROMPT "\"" AT);
    job.kind = JOB_MARKING;
    job.outcome = OUTCOME_NONE;
    job.is_failed = true;
    expect_event(&job, "{\"interview_id\":\"" INTERVIEW
                       "\",\"outcome\":\"no longer stuck\",\"status\":\"not \\\"done\\\"\"" AT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_outcomes),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_rejected_and_dropped),
        cmocka_unit_test(test_what_is_no_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
