/* SPDX-License-Identifier: MIT */
/* Prints the table of SQLSTATEs as Markdown, for docs/OPERATIONS.md. */
#include <stdio.h>
#include <string.h>

#include "promptd/sqlstate.h"

static const char *action_text(enum sqlstate_action action)
{
    switch (action) {
    case SQLSTATE_FINAL:
        return "final";
    case SQLSTATE_SETUP:
        return "final, set-up";
    case SQLSTATE_TRANSIENT:
        return "tried again";
    case SQLSTATE_OUTAGE:
        break;
    }
    return "outage: waits";
}

/* A class is shown with dots for the characters that do not matter. */
static void print_rule(const struct sqlstate_rule *rule)
{
    static const char dots[] = ".....";
    printf("| `%s%s` | %s | %s |\n", rule->prefix, dots + strlen(rule->prefix), rule->meaning,
           action_text(rule->action));
}

int main(void)
{
    printf("| SQLSTATE | meaning | what promptd does |\n| --- | --- | --- |\n");
    printf("| none | no server answered: connection lost, refused, timed out | %s |\n",
           action_text(sqlstate_classify("")));
    const struct sqlstate_rule *rule = sqlstate_rules;
    for (; rule->prefix; rule++)
        print_rule(rule);
    printf("| any other | constraint, data, a trigger that raises: the message's own error | %s |\n",
           action_text(rule->action));
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
