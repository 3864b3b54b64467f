/* SPDX-License-Identifier: MIT */
/* What is a request's head, and what is said of one that is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "http_head.h"

static struct http_head judge(const char *text)
{
    return http_head_judge(text, strlen(text));
}

static void expect_bad(unsigned status, const char *text, size_t length)
{
    struct http_head head = http_head_judge(text, length);
    assert_int_equal(head.form, HTTP_HEAD_BAD);
    assert_int_equal(head.status, status);
    assert_non_null(head.why);
}

static void test_well(void **state)
{
    (void)state;
    static const char *const heads[] = {
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\nHost: localhost\n\n",
        "\r\nGET / HTTP/1.0\r\n\r\n",
        "POST /admin/redis/reset-circuit-breaker HTTP/1.1\r\nHost: a\r\nContent-Length: 0 \r\n\r\n",
        "PUT /a?b=%00&c HTTP/1.1\r\nhost:\r\nX-Empty:\r\nX-Tab:\ta\tb\r\n\r\nbody: that may\x01 be anything",
        "GET / HTTP/1.1\r\nX-Latin: \xE9\r\nHost: a\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++)
        assert_int_equal(judge(heads[i]).form, HTTP_HEAD_WELL);
}

/* Cut anywhere, a good head is incomplete: never called bad too early, never called whole. */
static void test_incomplete(void **state)
{
    (void)state;
    static const char head[] = "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\nAccept: */*\r\n\r\n";
    for (size_t length = 0; length + 1 < sizeof head; length++)
        assert_int_equal(http_head_judge(head, length).form, HTTP_HEAD_INCOMPLETE);
    assert_int_equal(http_head_judge(head, sizeof head - 1).form, HTTP_HEAD_WELL);
}

static void test_bad(void **state)
{
    (void)state;
    static const struct {
        unsigned status;
        const char *text;
    } cases[] = {
        {400, "hello\r\n"},
        {400, "GET /healthz\r\n"},
        {400, "GET  / HTTP/1.1\r\n"},
        {400, " GET / HTTP/1.1\r\n"},
        {400, "GET / HTTP/1.1 \r\n"},
        {400, "GET / http/1.1\r\n"},
        {400, "GET / HTTP/11\r\n"},
        {400, "G(T / HTTP/1.1\r\n"},
        {400, "GET /\x7F HTTP/1.1\r\n"},
        {400, "GET /\r HTTP/1.1\r\n"},
        {505, "GET / HTTP/2.0\r\n"},
        {505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nno colon\r\n"},
        {400, "GET / HTTP/1.1\r\n: nameless\r\n"},
        {400, "GET / HTTP/1.1\r\nHost : localhost\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: localhost\r\n folded: x\r\n"},
        {400, "GET / HTTP/1.1\r\nX: a\rb\r\n"},
        {400, "GET / HTTP/1.1\r\nX: a\x1B[2J\r\n"},
        {400, "POST / HTTP/1.1\r\nContent-Length: abc\r\n"},
        {400, "POST / HTTP/1.1\r\ncontent-length: -1\r\n"},
        {400, "POST / HTTP/1.1\r\nContent-Length:\r\n"},
        {400, "POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n"},
        {413, "POST / HTTP/1.1\r\nContent-Length: 1234567890\r\n"},
        {400, "GET / HTTP/1.1\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n"},
        {400, "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_bad(cases[i].status, cases[i].text, strlen(cases[i].text));
}

static void test_nul(void **state)
{
    (void)state;
    static const char in_target[] = "GET /\0 HTTP/1.1\r\n\r\n";
    static const char in_method[] = "G\0T / HTTP/1.1\r\n\r\n";
    static const char in_value[] = "GET / HTTP/1.1\r\nHost: local\0host\r\n\r\n";
    expect_bad(400, in_target, sizeof in_target - 1);
    expect_bad(400, in_method, sizeof in_method - 1);
    expect_bad(400, in_value, sizeof in_value - 1);
}

/* In memory of its own, so that a look beyond the end is seen. */
static struct http_head judge_filled(const char *begin, const char *unit, size_t times, const char *end)
{
    size_t unit_length = strlen(unit);
    char *text = malloc(strlen(begin) + times * unit_length + strlen(end) + 1);
    assert_non_null(text);
    char *at = stpcpy(text, begin);
    for (size_t i = 0; i < times; i++)
        at = stpcpy(at, unit);
    at = stpcpy(at, end);
    struct http_head head = http_head_judge(text, (size_t)(at - text));
    free(text);
    return head;
}

static void test_bounds(void **state)
{
    (void)state;
    static const char line[] = "GET / HTTP/1.0\r\n";
    assert_int_equal(judge_filled("GET /", "a", HTTP_HEAD_MAX_BYTES, "").status, 414);
    assert_int_equal(judge_filled("GET / HTTP/1.1\r\nX: ", "a", HTTP_HEAD_MAX_BYTES, "\r\n\r\n").status, 431);
    assert_int_equal(judge_filled("", "\r\n", HTTP_HEAD_MAX_BYTES / 2, line).status, 414);
    assert_int_equal(judge_filled(line, "a: b\r\n", HTTP_HEAD_MAX_FIELDS, "\r\n").form, HTTP_HEAD_WELL);
    assert_int_equal(judge_filled(line, "a: b\r\n", HTTP_HEAD_MAX_FIELDS + 1, "\r\n").status, 431);
    size_t room = HTTP_HEAD_MAX_BYTES - strlen(line) - strlen("X: \r\n\r\n");
    assert_int_equal(judge_filled("GET / HTTP/1.0\r\nX: ", "a", room, "\r\n\r\n").form, HTTP_HEAD_WELL);
    assert_int_equal(judge_filled("GET / HTTP/1.0\r\nX: ", "a", room + 1, "\r\n\r\n").status, 431);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_well), cmocka_unit_test(test_incomplete), cmocka_unit_test(test_bad),
        cmocka_unit_test(test_nul),  cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
