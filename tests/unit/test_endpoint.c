/* SPDX-License-Identifier: MIT */
/* host:port, and where the admin interface may listen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "promptd/endpoint.h"

static void test_good_ones(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host, *port;
    } cases[] = {
        {"127.0.0.1:9797", "127.0.0.1", "9797"},
        {"localhost:0", "localhost", "0"},
        {"[::1]:9797", "::1", "9797"},
        {"[fe80::1%eth0]:1", "fe80::1%eth0", "1"},
        {"a.example:65535", "a.example", "65535"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct endpoint endpoint;
        struct error phrase;
        assert_true(endpoint_parse(cases[i].text, &endpoint, &phrase));
        assert_string_equal(endpoint.host, cases[i].host);
        assert_string_equal(endpoint.port, cases[i].port);
    }
}

static void test_bad_ones(void **state)
{
    (void)state;
    char long_host[300];
    memset(long_host, 'a', sizeof long_host);
    memcpy(long_host + sizeof long_host - 3, ":1", 3);
    static const struct {
        const char *text, *phrase;
    } cases[] = {
        {"", "has no port"},
        {"127.0.0.1", "has no port"},
        {"[::1]", "has no port"},
        {"[::1]9797", "has no port"},
        {"[::1:9797", "has a [ without a ]"},
        {":9797", "has no host"},
        {"[]:9797", "has no host"},
        {"::1:9797", "has an IPv6 address without brackets"},
        {"http://h:1", "has an IPv6 address without brackets"},
        {"user@h:1", "has a host that is none"},
        {"h:", "has a port that is not a number from 0 to 65535"},
        {"h:65536", "has a port that is not a number from 0 to 65535"},
        {"h:123456", "has a port that is not a number from 0 to 65535"},
        {"h:-1", "has a port that is not a number from 0 to 65535"},
        {"h:1x", "has a port that is not a number from 0 to 65535"},
    };
    struct error phrase;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_false(endpoint_parse(cases[i].text, NULL, &phrase));
        assert_string_equal(phrase.text, cases[i].phrase);
        assert_int_equal(phrase.code, ERROR_CONFIG);
    }
    assert_false(endpoint_parse(long_host, NULL, &phrase));
    assert_string_equal(phrase.text, "has a host that is too long");
}

static void test_where_to_listen(void **state)
{
    (void)state;
    struct error phrase;
    char long_path[200] = "unix:/";
    memset(long_path + 6, 'a', sizeof long_path - 7);
    assert_true(endpoint_validate_listen("off", &phrase));
    assert_true(endpoint_validate_listen("127.0.0.1:9797", &phrase));
    assert_true(endpoint_validate_listen("unix:/run/promptd/admin.sock", &phrase));
    assert_string_equal(endpoint_unix_path("unix:/run/x"), "/run/x");
    assert_null(endpoint_unix_path("127.0.0.1:1"));
    assert_false(endpoint_validate_listen("on", &phrase));
    assert_false(endpoint_validate_listen("unix:relative", &phrase));
    assert_string_equal(phrase.text, "has a path that does not begin with /");
    assert_false(endpoint_validate_listen(long_path, &phrase));
    assert_string_equal(phrase.text, "has a path that is too long for a socket");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_ones),
        cmocka_unit_test(test_bad_ones),
        cmocka_unit_test(test_where_to_listen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
