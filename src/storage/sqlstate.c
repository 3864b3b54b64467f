/* SPDX-License-Identifier: MIT */
/* The SQLSTATE table and its look-up. */
#include "promptd/sqlstate.h"

#include <stddef.h>
#include <string.h>

const struct sqlstate_rule sqlstate_rules[] = {
    {"08", SQLSTATE_OUTAGE, "connection lost or refused"},
    {"0A", SQLSTATE_SETUP, "feature not supported"},
    {"25006", SQLSTATE_OUTAGE, "read-only: a standby, or failed over"},
    {"25P02", SQLSTATE_OUTAGE, "session left in a failed transaction: a new one is made"},
    {"25P03", SQLSTATE_OUTAGE, "session ended by idle_in_transaction_session_timeout"},
    {"28", SQLSTATE_SETUP, "login refused"},
    {"3D", SQLSTATE_SETUP, "no such database"},
    {"3F", SQLSTATE_SETUP, "no such schema"},
    {"40", SQLSTATE_TRANSIENT, "serialization failure or deadlock"},
    {"40002", SQLSTATE_FINAL, "constraint violated at commit"},
    {"42", SQLSTATE_SETUP, "missing table, column or privilege, or a type that does not fit"},
    {"53", SQLSTATE_OUTAGE, "too many connections, disk full, out of memory"},
    {"55006", SQLSTATE_TRANSIENT, "object in use"},
    {"55P03", SQLSTATE_TRANSIENT, "lock not available in time"},
    {"57014", SQLSTATE_TRANSIENT, "statement timeout, or cancelled"},
    {"57P", SQLSTATE_OUTAGE, "server shut down, starting, or session ended by an administrator"},
    {"58", SQLSTATE_TRANSIENT, "system error of the server"},
    {"XX", SQLSTATE_TRANSIENT, "internal error of the server"},
    {NULL, SQLSTATE_FINAL, NULL},
};

enum sqlstate_action sqlstate_classify(const char *sqlstate)
{
    if (!sqlstate || !sqlstate[0])
        return SQLSTATE_OUTAGE;
    enum sqlstate_action action = SQLSTATE_FINAL;
    size_t longest = 0;
    for (const struct sqlstate_rule *rule = sqlstate_rules; rule->prefix; rule++) {
        size_t length = strlen(rule->prefix);
        if (length > longest && strncmp(sqlstate, rule->prefix, length) == 0) {
            action = rule->action;
            longest = length;
        }
    }
    return action;
}
