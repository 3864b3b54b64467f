/* SPDX-License-Identifier: MIT */
/* Which requests could come from another site's page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "admin_guard.h"

static bool knows(const char *host)
{
    return admin_guard_knows_host(&(struct admin_origin){.host = host}, "promptd.internal");
}

static void test_names_that_are_nobody_elses(void **state)
{
    (void)state;
    static const char *const known[] = {"127.0.0.1",      "127.0.0.1:9797", "localhost",        "LocalHost:9797",
                                        "[::1]:9797",     "[::1]",          "promptd.internal", "Promptd.Internal:1",
                                        "192.0.2.7:9797", "localhost:"};
    static const char *const strange[] = {
        "evil.example", "evil.example:9797", "localhost.evil.example", "127.0.0.1.evil.com", "", ":9797", "[::1",
        "[evil]:1",     "localhost:97x",     "localhost@evil",         "127.0.0.1:80:80"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        assert_true(knows(known[i]));
    for (size_t i = 0; i < sizeof strange / sizeof strange[0]; i++)
        assert_false(knows(strange[i]));
}

static void test_no_host_at_all(void **state)
{
    (void)state;
    assert_true(knows(NULL));
    assert_false(admin_guard_knows_host(&(struct admin_origin){.origin = "http://evil.example"}, "x"));
}

static void test_cross_site(void **state)
{
    (void)state;
    static const struct {
        struct admin_origin from;
        bool is_cross_site;
    } cases[] = {
        {{.host = "localhost:9797"}, false}, /* curl */
        {{.host = "localhost:9797", .origin = "http://localhost:9797"}, false},
        {{.host = "localhost:9797", .origin = "http://localhost:9797", .fetch_site = "same-origin"}, false},
        {{.host = "localhost:9797", .fetch_site = "none"}, false}, /* typed by the user */
        {{.host = "localhost:9797", .origin = "http://localhost:8080"}, true},
        {{.host = "localhost:9797", .origin = "http://evil.example"}, true},
        {{.host = "localhost:9797", .origin = "null"}, true},
        {{.host = "localhost:9797", .origin = ""}, true},
        {{.host = "localhost:9797", .fetch_site = "cross-site"}, true},
        {{.host = "localhost:9797", .fetch_site = "same-site"}, true},
        {{.host = "localhost:9797", .origin = "http://localhost:9797", .fetch_site = "cross-site"}, true},
        {{.origin = "http://localhost:9797"}, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(admin_guard_is_cross_site(&cases[i].from), cases[i].is_cross_site);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_that_are_nobody_elses),
        cmocka_unit_test(test_no_host_at_all),
        cmocka_unit_test(test_cross_site),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
