/* SPDX-License-Identifier: MIT */
/* redis_url: every form that is taken, and the phrase for every one that is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "promptd/redis_address.h"

#include "failing_memory.h"

static void assert_same_text(const char *got, const char *expected)
{
    if (expected && got)
        assert_string_equal(got, expected);
    else
        assert_ptr_equal(got, expected);
}

struct parts {
    const char *host;
    int port;
    const char *unix_path;
    const char *user;
    const char *password;
    int database;
    bool tls;
};

static void test_good_urls(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        struct parts is;
    } cases[] = {
        {"redis://127.0.0.1:6379", {.host = "127.0.0.1", .port = 6379}},
        {"redis://localhost", {.host = "localhost", .port = 6379}},
        {"REDIS://localhost/", {.host = "localhost", .port = 6379}},
        {"redis://my_redis-1.example.org.:1/15", {.host = "my_redis-1.example.org.", .port = 1, .database = 15}},
        {"redis://h:65535/0", {.host = "h", .port = 65535}},
        {"redis://h/999999999", {.host = "h", .port = 6379, .database = 999999999}},
        {"redis://[::1]", {.host = "::1", .port = 6379}},
        {"redis://[2001:db8::1]:7000/2", {.host = "2001:db8::1", .port = 7000, .database = 2}},
        {"redis://[fe80::1%eth0]:7000", {.host = "fe80::1%eth0", .port = 7000}},
        {"redis://u:p@h", {.host = "h", .port = 6379, .user = "u", .password = "p"}},
        {"redis://:p@[::1]:1/3", {.host = "::1", .port = 1, .password = "p", .database = 3}},
        {"redis://u:@h", {.host = "h", .port = 6379, .user = "u", .password = ""}},
        {"redis://:@h", {.host = "h", .port = 6379}},
        {"redis://a%40b:p%3a%2F%25%C3%a4@h", {.host = "h", .port = 6379, .user = "a@b", .password = "p:/%ä"}},
        {"redis://u:a@b:c@h", {.host = "h", .port = 6379, .user = "u", .password = "a@b:c"}},
        {"rediss://u:p@h:6380/1",
         {.host = "h", .port = 6380, .user = "u", .password = "p", .database = 1, .tls = true}},
        {"unix:///run/redis.sock", {.unix_path = "/run/redis.sock"}},
        {"unix:///run/my%20redis", {.unix_path = "/run/my redis"}},
        {"unix:///run/redis.sock?db=4", {.unix_path = "/run/redis.sock", .database = 4}},
        {"unix://u:p%40@/run/s", {.unix_path = "/run/s", .user = "u", .password = "p@"}},
        {"unix:///run/a@b", {.unix_path = "/run/a@b"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct redis_address address;
        struct error error = {0};
        if (!redis_address_parse(cases[i].url, &address, &error))
            fail_msg("%s is refused: %s", cases[i].url, error.text);
        assert_same_text(address.host, cases[i].is.host);
        assert_same_text(address.unix_path, cases[i].is.unix_path);
        assert_same_text(address.user, cases[i].is.user);
        assert_same_text(address.password, cases[i].is.password);
        assert_int_equal(address.port, cases[i].is.port);
        assert_int_equal(address.database, cases[i].is.database);
        assert_int_equal(address.tls, cases[i].is.tls);
        redis_address_free(&address);
    }
}

static void assert_endpoints(const struct redis_address *address, const char *expected)
{
    char names[200] = "";
    for (size_t i = 0; i < address->sentinel_count; i++) {
        char name[REDIS_ADDRESS_NAME_SIZE];
        redis_endpoint_name(&address->sentinels[i], name);
        strncat(strncat(names, i ? " " : "", 1), name, 90);
    }
    assert_string_equal(names, expected);
}

static void test_good_sentinel_urls(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        const char *sentinels;
        const char *service;
        struct parts is;
    } cases[] = {
        {"redis+sentinel://h/mymaster", "h:26379", "mymaster", {.port = 0}},
        {"Redis+Sentinel://h:1/a.b-c_9/", "h:1", "a.b-c_9", {.port = 0}},
        {"redis+sentinel://a,b:2,c.example:65535/m/15", "a:26379 b:2 c.example:65535", "m", {.database = 15}},
        {"redis+sentinel://[::1],[2001:db8::2]:7,127.0.0.1/m/0",
         "[::1]:26379 [2001:db8::2]:7 127.0.0.1:26379",
         "m",
         {.port = 0}},
        {"redis+sentinel://u:p%2C%40@a:1,b:2/m", "a:1 b:2", "m", {.user = "u", .password = "p,@"}},
        {"rediss+sentinel://:p@a,b/m/3", "a:26379 b:26379", "m", {.password = "p", .database = 3, .tls = true}},
        {"redis+sentinel://1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16:1/m",
         "1:26379 2:26379 3:26379 4:26379 5:26379 6:26379 7:26379 8:26379 9:26379 10:26379 11:26379 12:26379 "
         "13:26379 14:26379 15:26379 16:1",
         "m",
         {.port = 0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct redis_address address;
        struct error error = {0};
        char name[REDIS_ADDRESS_NAME_SIZE];
        char expected[64];
        if (!redis_address_parse(cases[i].url, &address, &error))
            fail_msg("%s is refused: %s", cases[i].url, error.text);
        assert_null(address.host);
        assert_null(address.unix_path);
        assert_endpoints(&address, cases[i].sentinels);
        assert_string_equal(address.service, cases[i].service);
        assert_same_text(address.user, cases[i].is.user);
        assert_same_text(address.password, cases[i].is.password);
        assert_int_equal(address.database, cases[i].is.database);
        assert_int_equal(address.tls, cases[i].is.tls);
        (void)snprintf(expected, sizeof expected, "master %s", cases[i].service);
        redis_address_name(&address, name);
        assert_string_equal(name, expected);
        redis_address_free(&address);
    }
}

static void assert_refused(const char *url, const char *phrase)
{
    struct redis_address address;
    struct error error = {0};
    if (redis_address_parse(url, &address, &error))
        fail_msg("%s is accepted", url);
    assert_string_equal(error.text, phrase);
    assert_int_equal(error.code, ERROR_CONFIG);
    assert_null(address.host);
    assert_null(address.unix_path);
    assert_null(address.user);
    assert_null(address.password);
    assert_null(address.service);
    assert_int_equal(address.sentinel_count, 0);
    assert_false(redis_address_parse(url, &address, NULL));
}

static void test_bad_urls(void **state)
{
    (void)state;
    static const char scheme[] =
        "does not begin with redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://";
    static const char port[] = "has a port that is not a number from 1 to 65535";
    static const char database[] = "has a database that is not a number";
    static const char brackets[] = "has brackets without an IPv6 address in them";
    static const char host[] = "has a character in the host name that cannot stand there";
    static const char colons[] = "has more than one colon in the host (an IPv6 address needs brackets)";
    static const char escape[] = "has a % that is not followed by two hexadecimal digits";
    static const char query[] = "has a query or fragment, which mean nothing here";
    static const char path[] = "has no absolute path of a socket (unix:///path)";
    static const char user[] = "has a user but no password (a password alone is written as :password@)";
    static const char control[] = "has white space or a control character in it";
    static const char *const cases[][2] = {
        {"", scheme},
        {"localhost:6379", scheme},
        {"redis:/h", scheme},
        {"http://h", scheme},
        {"redis://", "has no host"},
        {"redis:///0", "has no host"},
        {"redis://:6379", "has no host"},
        {"redis://u:p@", "has no host"},
        {"redis://u:p@:1", "has no host"},
        {"redis://h:", port},
        {"redis://h:0", port},
        {"redis://h:65536", port},
        {"redis://h:999999999999", port},
        {"redis://h:-1", port},
        {"redis://h:1a", port},
        {"redis://[::1]:", port},
        {"redis://h/x", database},
        {"redis://h/-1", database},
        {"redis://h/1/", database},
        {"redis://h/1234567890", database},
        {"redis://[]", brackets},
        {"redis://[127.0.0.1]", brackets},
        {"redis://[::1%eth0%x:]:", port},
        {"redis://[::g]:1", brackets},
        {"redis://[::1", "has a [ without a ]"},
        {"redis://[::1]1", "has something between the ] and the port"},
        {"redis://::1", colons},
        {"redis://h:1:2", colons},
        {"redis://h%41", host},
        {"redis://h,i", host},
        {"redis://u:p%zz@h", escape},
        {"redis://u:p%4@h", escape},
        {"redis://u:p%@h", escape},
        {"redis://u%4:p@h", escape},
        {"redis://u:p%00@h", "has an encoded NUL byte"},
        {"redis://h?db=1", query},
        {"redis://h/1#x", query},
        {"redis://@h", user},
        {"redis://secret@h", user},
        {"redis://h a", control},
        {"redis://h\n", control},
        {"redis://h\x7f", control},
        {"unix://", path},
        {"unix:///", path},
        {"unix://run/redis.sock", path},
        {"unix://u:p@", path},
        {"unix:///s?database=1", "has a query that is not ?db=N"},
        {"unix:///s#1", "has a query that is not ?db=N"},
        {"unix:///s?db=", database},
        {"unix:///s?db=x", database},
        {"unix:///s%2", escape},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused(cases[i][0], cases[i][1]);
}

static void test_bad_sentinel_urls(void **state)
{
    (void)state;
    static const char no_service[] = "has no service behind its Sentinels, the name of the master there (…/mymaster)";
    static const char service[] = "has a service that cannot be one (letters, digits and . - _, 253 at most)";
    static const char empty[] = "has an empty host in its list";
    static const char port[] = "has a port that is not a number from 1 to 65535";
    static const char *const cases[][2] = {
        {"redis+sentinel://", "has no host"},
        {"redis+sentinel:///mymaster", "has no host"},
        {"redis+sentinel://u:p@/mymaster", "has no host"},
        {"redis+sentinel://h", no_service},
        {"redis+sentinel://h/", no_service},
        {"redis+sentinel://h//0", no_service},
        {"redis+sentinel://a,b:1", no_service},
        {"redis+sentinel://,b/m", empty},
        {"redis+sentinel://a,/m", empty},
        {"redis+sentinel://a,,b/m", empty},
        {"redis+sentinel://a,:1/m", "has no host"},
        {"redis+sentinel://a,b:0/m", port},
        {"redis+sentinel://a:65536,b/m", port},
        {"redis+sentinel://a:x,b/m", port},
        {"redis+sentinel://[::1/m", "has a [ without a ]"},
        {"redis+sentinel://a,::1/m", "has more than one colon in the host (an IPv6 address needs brackets)"},
        {"redis+sentinel://a b/m", "has white space or a control character in it"},
        {"redis+sentinel://h/my%20master", service},
        {"redis+sentinel://h/m/x", "has a database that is not a number"},
        {"redis+sentinel://h/m/1/2", "has a database that is not a number"},
        {"redis+sentinel://h/m?db=1", "has a query or fragment, which mean nothing here"},
        {"redis+sentinel://user@h/m", "has a user but no password (a password alone is written as :password@)"},
        {"redis+sentinel://1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17/m", "has more Sentinels than 16"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused(cases[i][0], cases[i][1]);
}

static void test_lengths(void **state)
{
    (void)state;
    struct redis_address address;
    char url[400];
    (void)snprintf(url, sizeof url, "redis://%0253d", 0);
    assert_true(redis_address_parse(url, &address, NULL));
    redis_address_free(&address);
    (void)snprintf(url, sizeof url, "redis://%0254d", 0);
    assert_refused(url, "has a host name that is too long");
    (void)snprintf(url, sizeof url, "unix:///%0106d", 0);
    assert_true(redis_address_parse(url, &address, NULL));
    redis_address_free(&address);
    (void)snprintf(url, sizeof url, "unix:///%0107d", 0);
    assert_refused(url, "has a socket path of more than 107 bytes");
}

static void test_no_phrase_repeats_a_password(void **state)
{
    (void)state;
    static const char *const urls[] = {"redis://hunter2@h",
                                       "redis://:hunter2@",
                                       "redis://:hunt/hunter2@h",
                                       "redis://:hunter2%zz@h",
                                       "redis://:hunter2@h:bad",
                                       "hunter2://hunter2",
                                       "redis://hunter2:hunter2:hunter2",
                                       "redis+sentinel://:p@h/hunter2@h",
                                       "redis+sentinel://h:hunter2/m",
                                       "redis+sentinel://hunter2:hunter2/hunter2/x"};
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        struct redis_address address;
        struct error error = {0};
        assert_false(redis_address_parse(urls[i], &address, &error));
        assert_null(strstr(error.text, "hunter2"));
    }
}

static void assert_memory_runs_out(const char *url, long allocations)
{
    for (long n = 0;; n++) {
        struct redis_address address;
        struct error error = {0};
        memory_left = n;
        bool good = redis_address_parse(url, &address, &error);
        memory_left = -1;
        if (good) {
            assert_true(n >= allocations);
            redis_address_free(&address);
            return;
        }
        assert_int_equal(error.code, ERROR_INTERNAL);
        assert_null(address.host);
    }
}

static void test_memory_runs_out_anywhere(void **state)
{
    (void)state;
    assert_memory_runs_out("redis://user:password@host:1/2", 3);
    assert_memory_runs_out("redis+sentinel://user:password@a:1,[::1]/mymaster/2", 5);
}

static void test_error_replies(void **state)
{
    (void)state;
    static const char withheld[] = "(withheld: it may quote the password)";
    static const struct {
        const char *password;
        const char *reply;
        const char *shown; /* before the bracket; NULL: all of the reply */
    } cases[] = {
        {"S3cretPass", "WRONGPASS invalid username-pair or user is disabled.", NULL},
        {"S3cretPass", "ERR unknown command 'AUTH', with args beginning with: 'u' 'S3cretPass' ", "ERR "},
        {"S3cretPass", "ERR unknown command 'AUTH', with args beginning with: 'S3c", "ERR "},
        {"S3cretPass", "S3cretPass is not the password", ""},
        {"S3cretPass", "ERR:'S3cretPass' no", "ERR "},
        {"password1", "WRONGPASS invalid username-password pair", "WRONGPASS "},
        {"x", "ERR max number of clients", "ERR "},
        {"x", "ERR max number of clients reached", NULL},
        {"\x80\x81\x82", "ERR args '\x80\x81\x82'", "ERR "},
        {NULL, "NOAUTH Authentication required.", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char password[32] = "";
        char shown[128];
        char expected[128];
        if (cases[i].password)
            (void)snprintf(password, sizeof password, "%s", cases[i].password);
        const struct redis_address address = {.password = cases[i].password ? password : NULL};
        redis_address_copy_error(&address, cases[i].reply, shown, sizeof shown);
        (void)snprintf(expected, sizeof expected, "%s%s", cases[i].shown ? cases[i].shown : cases[i].reply,
                       cases[i].shown ? withheld : "");
        assert_string_equal(shown, expected);
    }
}

/* Redis' own sentences have characters in common with many a password; nothing behind them is shown then. */
static void test_sentences_of_redis(void **state)
{
    (void)state;
    static const char denied[] = "DENIED Redis is running in protected mode because protected mode is enabled";
    char reply[256];
    char shown[256];
    char password[] = "enable-sesame";
    const struct redis_address address = {.password = password};
    (void)snprintf(reply, sizeof reply, "%s, and enable-sesame is the password", denied);
    redis_address_copy_error(&address, reply, shown, sizeof shown);
    assert_string_equal(shown, denied);
}

static void test_error_of_a_script(void **state)
{
    (void)state;
    char shown[128];
    const struct redis_address address = {0};
    redis_address_copy_error(&address,
                             "WRONGTYPE Operation against a key holding the wrong kind of value script: "
                             "4bd7301cc1408ed39ea7f68dc01ac8cfc3b12fb4, on @user_script:1.",
                             shown, sizeof shown);
    assert_string_equal(shown, "WRONGTYPE Operation against a key holding the wrong kind of value");
}

static void test_moved(void **state)
{
    (void)state;
    struct redis_endpoint server;
    char host[REDIS_ADDRESS_NAME_SIZE];
    assert_true(redis_address_read_moved("MOVED 3999 127.0.0.1:6381", host, &server));
    assert_string_equal(server.host, "127.0.0.1");
    assert_int_equal(server.port, 6381);
    assert_true(redis_address_read_moved("MOVED 1 2001:db8::1:7000", host, &server));
    assert_string_equal(server.host, "2001:db8::1");
    assert_true(redis_address_read_moved("MOVED 1 :7000", host, &server));
    assert_string_equal(server.host, "");
    static const char *const others[] = {"MOVED",       "MOVED ",          "MOVED 1",      "MOVED 1 a", "MOVED 1 a:",
                                         "MOVED 1 a:0", "MOVED 1 a:65536", "MOVED 1 a:-1", "ASK 1 a:1", ""};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        assert_false(redis_address_read_moved(others[i], host, &server));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_urls),
        cmocka_unit_test(test_bad_urls),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_no_phrase_repeats_a_password),
        cmocka_unit_test(test_error_replies),
        cmocka_unit_test(test_sentences_of_redis),
        cmocka_unit_test(test_memory_runs_out_anywhere),
        cmocka_unit_test(test_good_sentinel_urls),
        cmocka_unit_test(test_bad_sentinel_urls),
        cmocka_unit_test(test_error_of_a_script),
        cmocka_unit_test(test_moved),
    };
    return cmocka_run_group_tests_name("redis_address", tests, NULL, NULL);
}
