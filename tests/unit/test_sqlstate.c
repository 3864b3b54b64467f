/* SPDX-License-Identifier: MIT */
/* Each SQLSTATE that matters has the action that users are promised. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "promptd/sqlstate.h"

struct expectation {
    const char *sqlstate;
    enum sqlstate_action action;
};

static const struct expectation expectations[] = {
    {NULL, SQLSTATE_OUTAGE},       {"", SQLSTATE_OUTAGE},         {"08006", SQLSTATE_OUTAGE},
    {"08P01", SQLSTATE_OUTAGE},    {"57P01", SQLSTATE_OUTAGE},    {"57P02", SQLSTATE_OUTAGE},
    {"57P03", SQLSTATE_OUTAGE},    {"57P05", SQLSTATE_OUTAGE},    {"53300", SQLSTATE_OUTAGE},
    {"53100", SQLSTATE_OUTAGE},    {"53200", SQLSTATE_OUTAGE},    {"25006", SQLSTATE_OUTAGE},
    {"25P02", SQLSTATE_OUTAGE},    {"25P03", SQLSTATE_OUTAGE},    {"40001", SQLSTATE_TRANSIENT},
    {"40P01", SQLSTATE_TRANSIENT}, {"40003", SQLSTATE_TRANSIENT}, {"40002", SQLSTATE_FINAL},
    {"55P03", SQLSTATE_TRANSIENT}, {"57014", SQLSTATE_TRANSIENT}, {"XX000", SQLSTATE_TRANSIENT},
    {"58030", SQLSTATE_TRANSIENT}, {"42501", SQLSTATE_SETUP},     {"42P01", SQLSTATE_SETUP},
    {"3F000", SQLSTATE_SETUP},     {"0A000", SQLSTATE_SETUP},     {"28P01", SQLSTATE_SETUP},
    {"23503", SQLSTATE_FINAL},     {"23505", SQLSTATE_FINAL},     {"23514", SQLSTATE_FINAL},
    {"22021", SQLSTATE_FINAL},     {"P0001", SQLSTATE_FINAL},     {"54000", SQLSTATE_FINAL},
    {"25001", SQLSTATE_FINAL},     {"27000", SQLSTATE_FINAL},     {"99999", SQLSTATE_FINAL},
};

static void test_actions(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof expectations / sizeof expectations[0]; i++)
        if (sqlstate_classify(expectations[i].sqlstate) != expectations[i].action)
            fail_msg("%s has action %d", expectations[i].sqlstate, sqlstate_classify(expectations[i].sqlstate));
}

/* The manual prints the table: it must be in order and explain each row. */
static void test_table_is_sorted_and_explained(void **state)
{
    (void)state;
    for (const struct sqlstate_rule *rule = sqlstate_rules; rule->prefix; rule++) {
        assert_in_range(strlen(rule->prefix), 2, 5);
        assert_true(rule->meaning && rule->meaning[0]);
        if (rule[1].prefix)
            assert_true(strcmp(rule->prefix, rule[1].prefix) < 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_actions),
        cmocka_unit_test(test_table_is_sorted_and_explained),
    };
    return cmocka_run_group_tests_name("sqlstate", tests, NULL, NULL);
}
