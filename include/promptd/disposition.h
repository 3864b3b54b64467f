/* SPDX-License-Identifier: MIT */
/* What is kept with a message that ended badly: the words of a dead letter. */
#ifndef PROMPTD_DISPOSITION_H
#define PROMPTD_DISPOSITION_H

#include <stdbool.h>
#include <stdint.h>

#include "promptd/text.h"

/* Texts are borrowed for the call; NULL where there is nothing to say. */
struct disposition {
    const char *outcome; /* "rolled back" */
    const char *reason;  /* of a rejection: "prompt_too_short" */
    const char *sqlstate;
    const char *error; /* fit for people and logs: never prompt text */
    bool has_interview_id;
    uint8_t interview_id[UUID_SIZE];
    bool has_prompt_id;
    uint8_t prompt_id[UUID_SIZE];
};

#endif
