/* SPDX-License-Identifier: MIT */
/* What promptctl check reports: one line a step, and in the end how it went. */
#ifndef PROMPTCTL_CHECK_REPORT_H
#define PROMPTCTL_CHECK_REPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "promptd/commands.h"

enum check_verdict {
    CHECK_OK,
    CHECK_NOTE,    /* worth a look, and no fault */
    CHECK_FAILED,  /* the error's code decides the exit code */
    CHECK_UNTRIED, /* nothing is known to be wrong, and nothing is known to work */
    CHECK_SKIPPED  /* for want of what came before it */
};

struct check {
    const struct ctl *ctl;
    size_t steps;
    bool unreachable; /* some step failed with ERROR_UNAVAILABLE */
    bool wrong;       /* with ERROR_CONFIG */
    bool broken;      /* with another */
};

/* `step` is the stable name in --json: "redis_login". */
void check_report_step(struct check *check, const char *step, enum check_verdict verdict, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* A failed step; the error's code is remembered. */
void check_fail(struct check *check, const char *step, const struct error *error);

/* A look that an account need not be allowed to take: a note then, and a failure only where the server is gone. */
void check_report_unseen(struct check *check, const char *step, const struct error *error);

#endif
