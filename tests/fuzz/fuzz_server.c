/* SPDX-License-Identifier: MIT */
/*
 * Arbitrary bytes in the place of a Redis server, over a socket into the real link with the Pub/Sub source on top.
 * What is delivered must be what a reader of our own finds in the bytes.
 *
 * The first byte says how: 1 log in and subscribe properly first; 2, 4 size of the pieces; 8 close the connection
 * behind it; 16 with a password; 32 and with a user; 64 another database.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "promptd/log.h"
#include "promptd/source_open.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);                              \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

enum {
    LOG_IN_FIRST = 1,
    PIECES = 6,
    CLOSE = 8,
    WITH_PASSWORD = 16,
    WITH_USER = 32,
    WITH_DATABASE = 64,
    MESSAGE_BYTES_MAX = 64,
    DELIVERIES_MAX = 4096,
    READ_BYTES = 16384 /* of the link, in one turn of the loop */
};

#define CHANNEL "ready"
#define SUBSCRIBED_HEAD "*3\r\n$9\r\nsubscribe\r\n$5\r\n" CHANNEL "\r\n:"
#define MESSAGE_HEAD "*3\r\n$7\r\nmessage\r\n$5\r\n" CHANNEL "\r\n$"

static struct sockaddr_un place = {.sun_family = AF_UNIX};
static char folder[] = "/tmp/promptd-fuzz-XXXXXX";
static int listener;
static uv_loop_t loop;

/* What was delivered: where a message's bytes are known by their sum. */
static struct {
    size_t lengths[DELIVERIES_MAX];
    uint32_t sums[DELIVERIES_MAX];
    size_t count;
} delivered, expected;

static uint32_t sum_of(const char *bytes, size_t length)
{
    uint32_t sum = 1;
    for (size_t i = 0; i < length; i++)
        sum = sum * 31 + (unsigned char)bytes[i];
    return sum;
}

static void on_delivery(void *context, const struct delivery *delivery)
{
    (void)context;
    REQUIRE((delivery->bytes != NULL) == (delivery->length <= MESSAGE_BYTES_MAX));
    REQUIRE(!delivery->receipt && !delivery->refusal);
    if (delivered.count == DELIVERIES_MAX)
        return;
    delivered.lengths[delivered.count] = delivery->length;
    delivered.sums[delivered.count++] = delivery->bytes ? sum_of(delivery->bytes, delivery->length) : 0;
}

static void remove_place(void)
{
    (void)unlink(place.sun_path);
    (void)rmdir(folder);
}

static void prepare(void)
{
    static bool is_prepared;
    if (is_prepared)
        return;
    is_prepared = true;
    log_set_level(LOG_LEVEL_CRITICAL);
    REQUIRE(mkdtemp(folder));
    REQUIRE(snprintf(place.sun_path, sizeof place.sun_path, "%s/socket", folder) > 0);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    REQUIRE(listener >= 0 && bind(listener, (const struct sockaddr *)&place, sizeof place) == 0);
    REQUIRE(listen(listener, 16) == 0 && atexit(remove_place) == 0);
    REQUIRE(uv_loop_init(&loop) == 0);
}

static void turn(size_t bytes)
{
    for (size_t i = 0; i < 4 + bytes / READ_BYTES; i++)
        (void)uv_run(&loop, UV_RUN_NOWAIT);
}

/* false: the link has closed the connection. */
static bool say(int peer, const char *bytes, size_t length)
{
    char ignored[4096];
    while (recv(peer, ignored, sizeof ignored, MSG_DONTWAIT) > 0)
        continue;
    while (length > 0) {
        ssize_t count = send(peer, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count < 0 && errno != EAGAIN)
            return false;
        bytes += count > 0 ? count : 0;
        length -= count > 0 ? (size_t)count : 0;
        turn(count > 0 ? (size_t)count : READ_BYTES);
    }
    return true;
}

static void log_in(int peer, int how)
{
    if (how & WITH_PASSWORD)
        (void)say(peer, "+OK\r\n", 5);
    if (how & WITH_DATABASE)
        (void)say(peer, "+OK\r\n", 5);
    (void)say(peer, "+OK\r\n" SUBSCRIBED_HEAD "1\r\n", strlen("+OK\r\n" SUBSCRIBED_HEAD "1\r\n"));
}

static void say_all(int peer, int how, const char *bytes, size_t size)
{
    const size_t sizes[] = {1 + size / 128, 3 + size / 128, 17 + size / 32, SIZE_MAX};
    size_t piece = sizes[(how & PIECES) >> 1];
    while (size > 0) {
        size_t count = size < piece ? size : piece;
        if (!say(peer, bytes, count))
            return;
        bytes += count;
        size -= count;
    }
}

static void on_closed(void *context)
{
    *(bool *)context = true;
}

static void run(int how, const char *bytes, size_t size)
{
    char user[] = "worker";
    char password[] = "secret";
    const struct redis_address address = {.unix_path = place.sun_path,
                                          .user = how & WITH_USER ? user : NULL,
                                          .password = how & WITH_PASSWORD ? password : NULL,
                                          .database = how & WITH_DATABASE ? 3 : 0};
    struct source *source = source_pubsub_new(&(struct source_options){
        .loop = &loop,
        .address = &address,
        .channel = CHANNEL,
        .tuning = {.link = {.backoff_max_ms = 60000,
                            .breaker_failures = 1000,
                            .breaker_reset_ms = 60000,
                            .heartbeat_interval_ms = 60000,
                            .heartbeat_timeout_ms = 60000},
                   .message_max_bytes = MESSAGE_BYTES_MAX},
        .sink = {.on_delivery = on_delivery},
    });
    REQUIRE(source);
    turn(0);
    int peer = accept(listener, NULL, NULL);
    REQUIRE(peer >= 0);
    turn(0);
    if (how & LOG_IN_FIRST)
        log_in(peer, how);
    say_all(peer, how, bytes, size);
    if (how & CLOSE) {
        (void)close(peer);
        turn(0);
    }
    bool closed = false;
    source_stop(source);
    source_close(source, on_closed, &closed);
    while (!closed)
        (void)uv_run(&loop, UV_RUN_ONCE);
    if (!(how & CLOSE))
        (void)close(peer);
    while ((peer = accept(listener, NULL, NULL)) >= 0)
        (void)close(peer);
}

/* --- what is to be expected ----------------------------------------------------------------------------------- */

struct reader {
    const char *at;
    const char *end;
};

static bool take(struct reader *reader, const char *literal)
{
    size_t length = strlen(literal);
    if ((size_t)(reader->end - reader->at) < length || memcmp(reader->at, literal, length) != 0)
        return false;
    reader->at += length;
    return true;
}

/* Digits in their shortest form and a line end; how many digits is the caller's business. */
static bool take_number(struct reader *reader, uint64_t *number)
{
    const char *digits = reader->at;
    *number = 0;
    for (; reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9' && reader->at - digits < 18;
         reader->at++)
        *number = *number * 10 + (uint64_t)(*reader->at - '0');
    return reader->at > digits && (*digits != '0' || reader->at == digits + 1) && take(reader, "\r\n");
}

/* false: it ends here, or is not what a subscriber is told. */
static bool read_message(struct reader *reader)
{
    uint64_t length;
    if (!take_number(reader, &length) || length > 536870912 || expected.count == DELIVERIES_MAX)
        return false;
    bool is_whole = (uint64_t)(reader->end - reader->at) >= length + 2 && memcmp(reader->at + length, "\r\n", 2) == 0;
    if (!is_whole && length <= MESSAGE_BYTES_MAX)
        return false;
    expected.lengths[expected.count] = (size_t)length; /* too large: known from its head */
    expected.sums[expected.count++] = length <= MESSAGE_BYTES_MAX ? sum_of(reader->at, (size_t)length) : 0;
    reader->at += is_whole ? length + 2 : 0;
    return is_whole;
}

static bool read_error(struct reader *reader)
{
    const char *line_end = memchr(reader->at, '\r', (size_t)(reader->end - reader->at));
    const char *stray = memchr(reader->at, '\n', (size_t)(reader->end - reader->at));
    if (!line_end || line_end - reader->at > READ_BYTES || stray != line_end + 1)
        return false;
    reader->at = line_end + 2;
    return true;
}

/* *certain: so many come for certain; behind an error the link may give up sooner or later. */
static void expect(const char *bytes, size_t size, size_t *certain)
{
    struct reader reader = {bytes, bytes + size};
    bool goes_on = true;
    *certain = SIZE_MAX;
    while (goes_on && reader.at < reader.end) {
        uint64_t ignored;
        if (take(&reader, MESSAGE_HEAD)) {
            goes_on = read_message(&reader);
        } else if (take(&reader, SUBSCRIBED_HEAD)) {
            (void)take(&reader, "-");
            goes_on = take_number(&reader, &ignored);
        } else {
            if (*certain == SIZE_MAX)
                *certain = expected.count;
            goes_on = take(&reader, "-") && read_error(&reader);
        }
    }
    if (*certain == SIZE_MAX)
        *certain = expected.count;
}

static void compare(size_t certain)
{
    REQUIRE(delivered.count >= certain && delivered.count <= expected.count);
    for (size_t i = 0; i < delivered.count; i++)
        REQUIRE(delivered.lengths[i] == expected.lengths[i] && delivered.sums[i] == expected.sums[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    prepare();
    int how = data[0];
    const char *bytes = (const char *)data + 1;
    size_t certain;
    delivered.count = expected.count = 0;
    run(how, bytes, size - 1);
    if (how & LOG_IN_FIRST) {
        expect(bytes, size - 1, &certain);
        compare(certain);
    }
    return 0;
}
