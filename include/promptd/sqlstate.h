/* SPDX-License-Identifier: MIT */
/* What an SQLSTATE (PostgreSQL manual, appendix A) means for a message. One table; the manual's comes from it. */
#ifndef PROMPTD_SQLSTATE_H
#define PROMPTD_SQLSTATE_H

#include <stdbool.h>

enum sqlstate_action {
    SQLSTATE_FINAL,     /* the message's own error: no attempt will change it */
    SQLSTATE_SETUP,     /* final too, and speaks of a wrong setup: one CRITICAL line besides */
    SQLSTATE_TRANSIENT, /* may go away by itself: tried again, retry_attempts times in all */
    SQLSTATE_OUTAGE     /* the server is away or cannot work: the message waits, no attempt is used up */
};

struct sqlstate_rule {
    const char *prefix; /* the first two to five characters; the longest that fits counts */
    enum sqlstate_action action;
    const char *meaning;
};

/* Ends with a NULL prefix. What no row fits is final. */
extern const struct sqlstate_rule sqlstate_rules[];

/* "" and NULL mean that no server answered: an outage. */
enum sqlstate_action sqlstate_classify(const char *sqlstate);

#endif
