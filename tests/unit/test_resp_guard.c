/* SPDX-License-Identifier: MIT */
/* What passes the guard in front of hiredis, wherever the bytes are cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "failing_memory.h"
#include "promptd/resp_guard.h"

enum { LIMIT = 100, EXPECTED_MANY = 5 };

/* What came of some bytes. */
struct result {
    char passed[65536];
    size_t length;
    char handed_out[1024]; /* as it came */
    size_t handed_length;
    struct resp_guard guard;
};

static const char *const CHANNEL = "ready";
static bool leaves_out; /* as lists and streams have it */

#define SUBSCRIBED "*3\r\n$9\r\nsubscribe\r\n$5\r\nready\r\n:1\r\n"
#define MESSAGE(bulk) "*3\r\n$7\r\nmessage\r\n$5\r\nready\r\n" bulk

static void hand_out(struct result *result, const char *bytes, size_t length)
{
    assert_true(result->handed_length + length <= sizeof result->handed_out);
    memcpy(result->handed_out + result->handed_length, bytes, length);
    result->handed_length += length;
}

static void on_subscribed(void *context)
{
    hand_out(context, SUBSCRIBED, strlen(SUBSCRIBED));
}

static void on_message(void *context, const char *bytes, size_t length)
{
    struct result *result = context;
    char head[512];
    int head_length = snprintf(head, sizeof head, "*3\r\n$7\r\nmessage\r\n$%zu\r\n%s\r\n%c%zu\r\n",
                               result->guard.channel_length, result->guard.channel, bytes ? '$' : ':', length);
    hand_out(result, head, (size_t)head_length);
    if (bytes) {
        hand_out(result, bytes, length);
        hand_out(result, "\r\n", 2);
    }
}

static void start(struct result *result, unsigned expected, const char *channel)
{
    static struct resp_subscriber subscriber = {.on_subscribed = on_subscribed, .on_message = on_message};
    struct resp_guard *guard = &result->guard;
    resp_guard_free(guard);
    memset(result, 0, sizeof *result);
    subscriber.context = result;
    guard->limits = (struct resp_guard_limits){.bulk_bytes = LIMIT, .reply_bytes = 3 * LIMIT, .leaves_out = leaves_out};
    resp_guard_reset(guard);
    for (unsigned i = 0; i < expected; i++)
        resp_guard_expect(guard);
    if (channel)
        resp_guard_subscribe(guard, channel, strlen(channel), &subscriber);
}

/* Each piece stands in memory of its own size, so that a read past its end is seen. */
static void pass(struct result *result, const char *bytes, size_t length)
{
    char *piece = malloc(length + 1);
    char *out = malloc(length + RESP_GUARD_HEADER_BYTES);
    assert_non_null(piece);
    assert_non_null(out);
    memcpy(piece, bytes, length);
    size_t count = resp_guard_pass(&result->guard, piece, length, out);
    assert_true(count <= length + RESP_GUARD_HEADER_BYTES && result->length + count <= sizeof result->passed);
    memcpy(result->passed + result->length, out, count);
    result->length += count;
    free(piece);
    free(out);
}

/* How much of the element that is at fault passes depends on where it is cut. */
static void assert_same(const struct result *a, const struct result *b)
{
    size_t common = a->length < b->length ? a->length : b->length;
    if (!a->guard.fault)
        assert_int_equal(a->length, b->length);
    assert_memory_equal(a->passed, b->passed, common);
    assert_int_equal(a->handed_length, b->handed_length);
    assert_memory_equal(a->handed_out, b->handed_out, a->handed_length);
    assert_true(!a->guard.fault == !b->guard.fault);
    if (a->guard.fault && b->guard.fault)
        assert_string_equal(a->guard.fault, b->guard.fault);
    assert_int_equal(a->guard.was_told, b->guard.was_told);
    assert_string_equal(a->guard.error, b->guard.error);
}

/* The bytes in one piece, one by one, and cut in two at every place: always the same comes of them. */
static const struct result *run(unsigned expected, const char *channel, const char *bytes, size_t length)
{
    static struct result whole, other;
    start(&whole, expected, channel);
    pass(&whole, bytes, length);
    for (size_t cut = 0; cut <= length; cut++) {
        start(&other, expected, channel);
        pass(&other, bytes, cut);
        pass(&other, bytes + cut, length - cut);
        assert_same(&whole, &other);
    }
    start(&other, expected, channel);
    for (size_t i = 0; i < length; i++)
        pass(&other, bytes + i, 1);
    assert_same(&whole, &other);
    return &whole;
}

static const struct result *run_text(unsigned expected, const char *channel, const char *text)
{
    return run(expected, channel, text, strlen(text));
}

static void assert_comes(const struct result *result, const char *passed, const char *handed_out)
{
    if (result->guard.fault)
        fail_msg("%s in: %s%s", result->guard.fault, passed, handed_out);
    assert_int_equal(result->length, strlen(passed));
    assert_memory_equal(result->passed, passed, result->length);
    assert_int_equal(result->handed_length, strlen(handed_out));
    assert_memory_equal(result->handed_out, handed_out, result->handed_length);
}

static void assert_passes(const struct result *result, const char *text)
{
    assert_comes(result, text, "");
}

static void assert_is_handed_out(const struct result *result, const char *text)
{
    assert_comes(result, "", text);
}

static void assert_faulty(unsigned expected, const char *channel, const char *text)
{
    const struct result *result = run_text(expected, channel, text);
    if (!result->guard.fault)
        fail_msg("passed: %s", text);
}

static void test_replies_pass(void **state)
{
    (void)state;
    static const char *const replies[] = {
        "+OK\r\n+\r\n-ERR no\r\n-\r\n:0\r\n",
        ":1\r\n:-1\r\n:999999999999999999\r\n$-1\r\n*-1\r\n",
        "$0\r\n\r\n$2\r\n\r\n\r\n$3\r\n$9\r\r\n*0\r\n+OK\r\n",
        "*2\r\n*2\r\n$1\r\na\r\n*-1\r\n:5\r\n*1\r\n-ERR x\r\n+a\r\n+b\r\n+c\r\n",
        "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n+a\r\n+b\r\n+c\r\n+d\r\n",
    };
    for (size_t i = 0; i < sizeof replies / sizeof replies[0]; i++)
        assert_passes(run_text(EXPECTED_MANY, NULL, replies[i]), replies[i]);
}

static void test_subscription_is_handed_out(void **state)
{
    (void)state;
#define PUSHES SUBSCRIBED MESSAGE("$2\r\nab\r\n") MESSAGE("$0\r\n\r\n") SUBSCRIBED
    const struct result *result = run_text(1, CHANNEL, "+OK\r\n" PUSHES);
    assert_comes(result, "+OK\r\n", PUSHES);
    assert_false(result->guard.was_told);
    assert_null(resp_guard_last_error(&result->guard));
}

static void test_long_string_becomes_its_length(void **state)
{
    (void)state;
    char bytes[1024];
    char *filler = calloc(1, LIMIT + 2);
    assert_non_null(filler);
    memset(filler, '\n', LIMIT + 1);
    (void)snprintf(bytes, sizeof bytes, "%s" MESSAGE("$1\r\na\r\n") MESSAGE("$101\r\n%s\r\n") MESSAGE("$1\r\nb\r\n"),
                   SUBSCRIBED, filler);
    assert_is_handed_out(run_text(0, CHANNEL, bytes),
                         SUBSCRIBED MESSAGE("$1\r\na\r\n") MESSAGE(":101\r\n") MESSAGE("$1\r\nb\r\n"));
    /* in the replies of lists and streams, too */
    (void)snprintf(bytes, sizeof bytes, "$101\r\n%s\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$101\r\n%s\r\n$1\r\nb\r\n",
                   filler, filler);
    assert_passes(run_text(2, NULL, bytes), ":101\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n:101\r\n$1\r\nb\r\n");
    free(filler);
}

static void test_string_of_just_the_limit_passes(void **state)
{
    (void)state;
    char bytes[512];
    (void)snprintf(bytes, sizeof bytes, MESSAGE("$100\r\n%0100d\r\n"), 0);
    assert_is_handed_out(run_text(0, CHANNEL, bytes), bytes);
}

/* The announced 512 MB are never held. */
static void test_half_a_gigabyte(void **state)
{
    (void)state;
    static char zeros[1 << 20];
    static struct result result;
    start(&result, 0, CHANNEL);
    const char *head = MESSAGE("$536870912\r\n");
    pass(&result, head, strlen(head));
    for (int i = 0; i < 512; i++)
        pass(&result, zeros, sizeof zeros);
    assert_int_equal(result.guard.pieces.capacity, 0);
    pass(&result, "\r\n", 2);
    pass(&result, SUBSCRIBED, strlen(SUBSCRIBED));
    assert_is_handed_out(&result, MESSAGE(":536870912\r\n") SUBSCRIBED);
    assert_int_equal(result.guard.received_bytes, strlen(head) + 536870912 + 2 + strlen(SUBSCRIBED));
}

/* An error that nobody asked for is told, and does not reach hiredis. */
static void test_error_that_nobody_asked_for(void **state)
{
    (void)state;
    const struct result *result = run_text(0, NULL, "-DENIED go away\r\n");
    assert_passes(result, "");
    assert_true(result->guard.was_told);
    assert_string_equal(resp_guard_last_error(&result->guard), "DENIED go away");
    result = run_text(0, CHANNEL, SUBSCRIBED "-BUSY a script\r\n" MESSAGE("$1\r\na\r\n"));
    assert_is_handed_out(result, SUBSCRIBED MESSAGE("$1\r\na\r\n"));
    assert_true(result->guard.was_told);
    assert_string_equal(result->guard.error, "BUSY a script");
    assert_null(resp_guard_last_error(&result->guard));
}

static void test_error_that_was_asked_for(void **state)
{
    (void)state;
    const struct result *result = run_text(2, NULL, "+OK\r\n-WRONGPASS no\r\n");
    assert_passes(result, "+OK\r\n-WRONGPASS no\r\n");
    assert_false(result->guard.was_told);
    assert_string_equal(resp_guard_last_error(&result->guard), "WRONGPASS no");
    result = run_text(2, NULL, "-WRONGPASS no\r\n-ERR hal");
    assert_null(resp_guard_last_error(&result->guard));
}

static void test_long_error_is_cut(void **state)
{
    (void)state;
    char bytes[1024] = "-";
    memset(bytes + 1, 'e', 600);
    memcpy(bytes + 601, "\r\n", 3);
    const struct result *result = run_text(1, NULL, bytes);
    assert_int_equal(result->length, 603);
    assert_int_equal(strlen(resp_guard_last_error(&result->guard)), RESP_GUARD_ERROR_SIZE - 1);
}

static void test_what_is_no_reply(void **state)
{
    (void)state;
    static const char *const bytes[] = {
        "x",
        "\r\n",
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "$3\r\nabcd\r\n",
        "$3\r\nabc\r.",
        "$\r\n",
        "$-2\r\n",
        "$01\r\n",
        "$1a\r\n",
        "$+1\r\n",
        "*-2\r\n",
        "*\r\n",
        "*1x\r\n",
        ":\r\n",
        ":1.5\r\n",
        ":--1\r\n",
        ":1\n\r\n",
        "+a\nb\r\n",
        "+a\rb\r\n",
        "$536870913\r\n",
        "*65537\r\n",
        "*2147483648\r\n",
        "$9223372036854775808\r\n",
        ">3\r\n",
        "%1\r\n",
        "~1\r\n",
        "_\r\n",
        "#t\r\n",
        ",1.5\r\n",
        "(1\r\n",
        "=4\r\ntxt:\r\n",
        ":1111111111111111111111111\r\n",
        "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
    };
    for (size_t i = 0; i < sizeof bytes / sizeof bytes[0]; i++)
        assert_faulty(EXPECTED_MANY, NULL, bytes[i]);
}

static void test_elements_are_counted_together(void **state)
{
    (void)state;
    assert_faulty(1, NULL, "*3\r\n*32768\r\n*1\r\n*32767\r\n");
    assert_null(run_text(1, NULL, "*2\r\n*32768\r\n*1\r\n*32760\r\n")->guard.fault);
}

static void test_reply_of_too_many_bytes(void **state)
{
    (void)state;
    char bytes[2048];
    (void)snprintf(bytes, sizeof bytes, "*4\r\n$90\r\n%090d\r\n$90\r\n%090d\r\n$90\r\n%090d\r\n$90\r\n%090d\r\n", 0, 0,
                   0, 0);
    assert_faulty(1, NULL, bytes);
    memset(bytes, '+', sizeof bytes);
    static char line[20000] = "*1\r\n+";
    memset(line + 5, 'a', sizeof line - 6);
    static struct result result;
    start(&result, 1, NULL);
    pass(&result, line, strlen(line));
    assert_non_null(result.guard.fault);
}

/* What a reply has no room for becomes its length or its count, and what follows is as it was. */
static void test_too_much_is_left_out(void **state)
{
    (void)state;
    static char bytes[1 << 20];
    static struct result result;
    char *at = bytes + sprintf(bytes, "*2\r\n*65536\r\n");
    for (int i = 0; i < 65536 / 8; i++)
        at = stpcpy(at, "$1\r\na\r\n:1\r\n+x\r\n$-1\r\n*0\r\n*-1\r\n*2\r\n*1\r\n$2\r\n*9\r\n-no\r\n$3\r\nabc\r\n");
    (void)stpcpy(at, ":7\r\n*1\r\n$1\r\nb\r\n");
    leaves_out = true;
    for (size_t piece = 1; piece < 10000; piece += 4999) {
        start(&result, 2, NULL);
        for (size_t done = 0, length = strlen(bytes); done < length; done += piece)
            pass(&result, bytes + done, length - done < piece ? length - done : piece);
        assert_passes(&result, "*2\r\n:65536\r\n:7\r\n*1\r\n$1\r\nb\r\n");
        assert_int_equal(result.guard.expected, 0);
    }
    (void)sprintf(bytes, "*5\r\n$90\r\n%090d\r\n$90\r\n%090d\r\n$90\r\n%090d\r\n$90\r\n%090d\r\n$1\r\na\r\n+OK\r\n", 0,
                  0, 0, 0);
    char passed[512];
    (void)sprintf(passed, "*5\r\n$90\r\n%090d\r\n$90\r\n%090d\r\n$90\r\n%090d\r\n:90\r\n$1\r\na\r\n+OK\r\n", 0, 0, 0);
    assert_passes(run_text(2, NULL, bytes), passed);
    assert_faulty(1, NULL, "*65537\r\n");
    assert_faulty(1, NULL, "*1\r\n*2147483648\r\n");
    assert_faulty(1, NULL, "*1\r\n*65536\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n");
    assert_faulty(1, NULL, "*1\r\n*65536\r\n$3\r\nabcd\r\n");
    leaves_out = false;
}

static void test_what_nobody_asked_for(void **state)
{
    (void)state;
    assert_faulty(0, NULL, "+OK\r\n");
    assert_faulty(1, NULL, "+OK\r\n+OK\r\n");
    assert_faulty(0, NULL, SUBSCRIBED);
    static const char *const bytes[] = {
        "+PONG\r\n",
        ":1\r\n",
        "$-1\r\n",
        "$3\r\nabc\r\n",
        "*-1\r\n",
        "*0\r\n",
        "*1\r\n$7\r\nmessage\r\n",
        "*2\r\n$11\r\nunsubscribe\r\n$5\r\nready\r\n",
        "*3\r\n$11\r\nunsubscribe\r\n$5\r\nready\r\n:0\r\n",
        "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n",
        "*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$5\r\nready\r\n$1\r\na\r\n",
        "*3\r\n$7\r\nMESSAGE\r\n$5\r\nready\r\n$1\r\na\r\n",
        "*3\r\n$7\r\nmessagf\r\n$5\r\nready\r\n$1\r\na\r\n",
        "*3\r\n$7\r\nmessage\r\n$5\r\nother\r\n$1\r\na\r\n",
        "*3\r\n$7\r\nmessage\r\n$6\r\nready2\r\n$1\r\na\r\n",
        "*3\r\n$7\r\nmessage\r\n$-1\r\n$1\r\na\r\n",
        "*3\r\n$7\r\nmessage\r\n:5\r\n$1\r\na\r\n",
        "*3\r\n$7\r\nmessage\r\n+ready\r\n$1\r\na\r\n",
        "*3\r\n:7\r\n$5\r\nready\r\n$1\r\na\r\n",
        "*3\r\n$-1\r\n$5\r\nready\r\n$1\r\na\r\n",
        "*3\r\n*0\r\n$5\r\nready\r\n$1\r\na\r\n",
        "*3\r\n-ERR x\r\n$5\r\nready\r\n$1\r\na\r\n",
        MESSAGE("$-1\r\n"),
        MESSAGE(":500\r\n"),
        MESSAGE("*1\r\n$1\r\na\r\n"),
        MESSAGE("+a\r\n"),
        "*3\r\n$9\r\nsubscribe\r\n$5\r\nready\r\n$1\r\n1\r\n",
        "*3\r\n$9\r\nsubscribe\r\n$5\r\nready\r\n$-1\r\n",
        "*3\r\n$9\r\nsubscribe\r\n$5\r\nother\r\n:1\r\n",
    };
    for (size_t i = 0; i < sizeof bytes / sizeof bytes[0]; i++)
        assert_faulty(0, CHANNEL, bytes[i]);
}

/* What came before a fault counts, and nothing behind it. */
static void test_nothing_comes_behind_a_fault(void **state)
{
    (void)state;
    const struct result *result = run_text(0, CHANNEL, SUBSCRIBED MESSAGE("$1\r\na\r\n") "?" SUBSCRIBED);
    const char *before = SUBSCRIBED MESSAGE("$1\r\na\r\n");
    assert_non_null(result->guard.fault);
    assert_int_equal(result->length, 0);
    assert_int_equal(result->handed_length, strlen(before));
    assert_memory_equal(result->handed_out, before, strlen(before));
}

static void test_nothing_comes_once_it_is_muted(void **state)
{
    (void)state;
    static struct result result;
    start(&result, 0, CHANNEL);
    pass(&result, SUBSCRIBED, strlen(SUBSCRIBED));
    resp_guard_mute(&result.guard);
    const char *rest = MESSAGE("$1\r\na\r\n") MESSAGE("$500\r\n");
    pass(&result, rest, strlen(rest));
    assert_is_handed_out(&result, SUBSCRIBED);
}

static void test_no_memory_for_a_message(void **state)
{
    (void)state;
    static struct result result;
    const char *half = MESSAGE("$2\r\na");
    char out[256];
    start(&result, 0, CHANNEL);
    memory_left = 0;
    assert_int_equal(resp_guard_pass(&result.guard, half, strlen(half), out), 0);
    memory_left = -1;
    assert_non_null(result.guard.fault);
    assert_int_equal(result.handed_length, 0);
}

static void test_channel_longer_than_the_limit(void **state)
{
    (void)state;
    char channel[LIMIT + 21];
    char bytes[1024];
    memset(channel, 'c', sizeof channel - 1);
    channel[sizeof channel - 1] = '\0';
    (void)snprintf(bytes, sizeof bytes, "*3\r\n$7\r\nmessage\r\n$120\r\n%s\r\n$1\r\na\r\n", channel);
    assert_is_handed_out(run_text(0, channel, bytes), bytes);
}

static void test_bytes_of_any_value(void **state)
{
    (void)state;
    char bytes[256] = MESSAGE("$6\r\n");
    size_t length = strlen(bytes);
    memcpy(bytes + length, "\0\xff\r\n\0*\r\n", 8);
    const struct result *result = run(0, CHANNEL, bytes, length + 8);
    assert_null(result->guard.fault);
    assert_int_equal(result->handed_length, length + 8);
    assert_memory_equal(result->handed_out, bytes, length + 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replies_pass),
        cmocka_unit_test(test_subscription_is_handed_out),
        cmocka_unit_test(test_long_string_becomes_its_length),
        cmocka_unit_test(test_string_of_just_the_limit_passes),
        cmocka_unit_test(test_half_a_gigabyte),
        cmocka_unit_test(test_error_that_nobody_asked_for),
        cmocka_unit_test(test_error_that_was_asked_for),
        cmocka_unit_test(test_long_error_is_cut),
        cmocka_unit_test(test_what_is_no_reply),
        cmocka_unit_test(test_elements_are_counted_together),
        cmocka_unit_test(test_reply_of_too_many_bytes),
        cmocka_unit_test(test_too_much_is_left_out),
        cmocka_unit_test(test_what_nobody_asked_for),
        cmocka_unit_test(test_nothing_comes_behind_a_fault),
        cmocka_unit_test(test_nothing_comes_once_it_is_muted),
        cmocka_unit_test(test_no_memory_for_a_message),
        cmocka_unit_test(test_channel_longer_than_the_limit),
        cmocka_unit_test(test_bytes_of_any_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
