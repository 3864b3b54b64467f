/* SPDX-License-Identifier: MIT */
/* RESP2 as a state machine over pieces of any size. */
#include "promptd/resp_guard.h"

#include <string.h>

enum {
    TEXT_BYTES_MAX = 16384,     /* of a status or an error */
    ELEMENTS_MAX = 65536,       /* of one reply, all its arrays together */
    BULK_BYTES_MAX = 536870912, /* Redis' own bound */
    PUSH_ELEMENTS = 3,
    PIECES_KEPT_BYTES = 65536, /* of memory, for the next message in pieces */
    LINE_END_BYTES = 2
};

/* The bytes that are left, and where they go. */
struct run {
    const char *at;
    const char *end;
    char *out;
};

void resp_guard_reset(struct resp_guard *guard)
{
    resp_guard_free(guard);
    *guard = (struct resp_guard){.limits = guard->limits};
}

void resp_guard_free(struct resp_guard *guard)
{
    buffer_free(&guard->pieces);
}

void resp_guard_expect(struct resp_guard *guard)
{
    guard->expected++;
}

void resp_guard_subscribe(struct resp_guard *guard, const char *channel, size_t length,
                          const struct resp_subscriber *subscriber)
{
    guard->channel = channel;
    guard->channel_length = length;
    guard->subscriber = subscriber;
}

void resp_guard_mute(struct resp_guard *guard)
{
    guard->subscriber = NULL;
}

const char *resp_guard_last_error(const struct resp_guard *guard)
{
    return guard->last_was_error ? guard->error : NULL;
}

static void fail(struct resp_guard *guard, const char *fault)
{
    if (!guard->fault)
        guard->fault = fault;
}

/* An error that nobody asked for is noted and not passed on. */
static bool is_kept_back(const struct resp_guard *guard)
{
    return guard->is_error && guard->depth == 0 && guard->expected == 0;
}

static bool is_left_out(const struct resp_guard *guard)
{
    return guard->left_out_from > 0;
}

/* --- the ends of elements and replies ------------------------------------------------------------------------- */

static void hand_out(struct resp_guard *guard)
{
    const struct resp_subscriber *subscriber = guard->subscriber;
    const char *message = guard->pieces.length > 0 ? guard->pieces.data : guard->message;
    if (subscriber && !guard->is_message)
        subscriber->on_subscribed(subscriber->context);
    else if (subscriber && message)
        subscriber->on_message(subscriber->context, message, guard->message_length);
    buffer_reset(&guard->pieces, PIECES_KEPT_BYTES);
}

static void end_reply(struct resp_guard *guard)
{
    guard->last_was_error = guard->is_error;
    if (is_kept_back(guard))
        guard->was_told = true;
    else if (guard->is_push)
        hand_out(guard);
    else
        guard->expected--;
    guard->is_error = false;
    guard->reply_bytes = 0;
    guard->elements = 0;
}

static void end_element(struct resp_guard *guard)
{
    guard->state = RESP_GUARD_HEADER;
    while (guard->depth > 0) {
        if (--guard->left[guard->depth - 1] > 0)
            return;
        if (guard->depth-- == guard->left_out_from)
            guard->left_out_from = 0;
    }
    end_reply(guard);
}

/* Returns whether it passes. */
static bool begin_array(struct resp_guard *guard, int64_t count)
{
    if (count <= 0) {
        end_element(guard);
        return true;
    }
    bool fits = count <= ELEMENTS_MAX && guard->elements + (uint32_t)count <= ELEMENTS_MAX;
    bool may_be_left_out = guard->limits.leaves_out && guard->depth > 0 && count <= INT32_MAX;
    if (!fits && !may_be_left_out) {
        fail(guard, "an array of too many elements");
    } else if (guard->depth == RESP_GUARD_NESTING) {
        fail(guard, "arrays nested too deep");
    } else {
        guard->left[guard->depth++] = (uint32_t)count;
        if (!is_left_out(guard) && fits)
            guard->elements += (uint32_t)count;
        else if (!is_left_out(guard))
            guard->left_out_from = guard->depth;
    }
    return fits;
}

/* Returns whether it passes. */
static bool begin_bulk(struct resp_guard *guard, int64_t length)
{
    if (length < 0) {
        end_element(guard);
        return true;
    }
    bool has_room = (uint64_t)length + guard->reply_bytes <= guard->limits.reply_bytes;
    bool passes = guard->must_equal ||
                  ((uint64_t)length <= guard->limits.bulk_bytes && (has_room || !guard->limits.leaves_out));
    passes = passes && !is_left_out(guard);
    guard->state = passes ? RESP_GUARD_BULK : RESP_GUARD_SKIP;
    guard->bulk_left = (uint64_t)length + LINE_END_BYTES;
    guard->message = passes ? "" : NULL;
    guard->message_length = (size_t)length;
    if (length > BULK_BYTES_MAX)
        fail(guard, "a string of more than 512 MB");
    else if (passes && !has_room)
        fail(guard, "a reply that is too large");
    else if (passes)
        guard->reply_bytes += (size_t)length;
    else if (guard->is_push && guard->subscriber)
        guard->subscriber->on_message(guard->subscriber->context, NULL, (size_t)length);
    return passes;
}

/* --- what a reply may be -------------------------------------------------------------------------------------- */

/* The subscription's: *3, then $9 subscribe or $7 message, then the channel, then a number or the bytes. */
static bool push_may_have(struct resp_guard *guard, char type, int64_t number)
{
    static const char subscribe[] = "subscribe";
    static const char message[] = "message";
    if (guard->depth == 0)
        return type == '*' && number == PUSH_ELEMENTS;
    switch (PUSH_ELEMENTS - guard->left[0]) {
    case 0:
        guard->is_message = number == sizeof message - 1;
        guard->must_equal = guard->is_message ? message : subscribe;
        return type == '$' && (guard->is_message || number == sizeof subscribe - 1);
    case 1:
        guard->must_equal = guard->channel;
        return type == '$' && number == (int64_t)guard->channel_length;
    default:
        return guard->is_message ? type == '$' && number >= 0 : type == ':';
    }
}

static bool may_begin(struct resp_guard *guard, char type, int64_t number)
{
    guard->must_equal = NULL;
    if (guard->depth == 0)
        guard->is_push = guard->expected == 0;
    if (!guard->is_push || (type == '-' && guard->depth == 0))
        return true;
    return guard->channel && push_may_have(guard, type, number);
}

/* --- the line that begins an element -------------------------------------------------------------------------- */

/* As strict as hiredis. The 18 digits that are allowed fit. */
static bool read_number(const char *digits, size_t length, int64_t *number)
{
    bool is_negative = length > 0 && digits[0] == '-';
    size_t at = is_negative ? 1 : 0;
    bool is_zero = length == 1 && digits[0] == '0';
    if (at == length || length - at > 18 || (digits[at] == '0' && !is_zero))
        return false;
    *number = 0;
    for (; at < length; at++) {
        if (digits[at] < '0' || digits[at] > '9')
            return false;
        *number = *number * 10 + (digits[at] - '0');
    }
    *number = is_negative ? -*number : *number;
    return true;
}

static void write_header(struct resp_guard *guard, struct run *run)
{
    memcpy(run->out, guard->header, guard->header_length);
    run->out += guard->header_length;
}

static void end_header(struct resp_guard *guard, struct run *run)
{
    char type = guard->header[0];
    int64_t number;
    if (!read_number(guard->header + 1, guard->header_length - 1 - LINE_END_BYTES, &number) ||
        (type != ':' && number < -1)) {
        fail(guard, "a number that is none");
    } else if (!may_begin(guard, type, number)) {
        fail(guard, "a reply that nobody asked for");
    } else {
        bool is_written = !is_left_out(guard);
        bool passes = true;
        guard->reply_bytes += is_written ? guard->header_length : 0;
        if (type == '$')
            passes = begin_bulk(guard, number);
        else if (type == '*')
            passes = begin_array(guard, number);
        else
            end_element(guard);
        if (!passes)
            guard->header[0] = ':';
        if (is_written && !guard->is_push && !guard->fault)
            write_header(guard, run);
    }
    guard->header_length = 0;
}

static void begin_text(struct resp_guard *guard, char type, struct run *run)
{
    if (!may_begin(guard, type, 0)) {
        fail(guard, "a reply that nobody asked for");
        return;
    }
    guard->state = RESP_GUARD_TEXT;
    guard->text_length = 0;
    guard->text_ends = false;
    guard->is_error = type == '-' && guard->depth == 0;
    if (guard->is_error)
        guard->last_was_error = false; /* its text gives way */
    if (!is_kept_back(guard) && !is_left_out(guard))
        *run->out++ = type;
}

static void pass_header(struct resp_guard *guard, struct run *run)
{
    char c = *run->at++;
    if (guard->header_length == 0 && (c == '+' || c == '-')) {
        begin_text(guard, c, run);
        return;
    }
    if (guard->header_length == 0 && c == RESP_GUARD_TLS_ALERT)
        fail(guard, RESP_GUARD_SPEAKS_TLS);
    else if (guard->header_length == 0 && c != '$' && c != '*' && c != ':')
        fail(guard, "something that is no reply of Redis");
    else if (guard->header_length == RESP_GUARD_HEADER_BYTES)
        fail(guard, "a number that is none");
    else
        guard->header[guard->header_length++] = c;
    if (!guard->fault && c == '\n' && guard->header_length > LINE_END_BYTES &&
        guard->header[guard->header_length - 2] == '\r')
        end_header(guard, run);
}

/* --- the rest of an element ----------------------------------------------------------------------------------- */

static void note_error(struct resp_guard *guard, char c)
{
    if (guard->text_length < RESP_GUARD_ERROR_SIZE - 1) {
        guard->error[guard->text_length] = c;
        guard->error[guard->text_length + 1] = '\0';
    }
}

static void pass_text(struct resp_guard *guard, struct run *run)
{
    char c = *run->at++;
    if (!is_kept_back(guard) && !is_left_out(guard))
        *run->out++ = c;
    if (guard->text_ends && c == '\n') {
        guard->reply_bytes += is_left_out(guard) ? 0 : guard->text_length;
        if (guard->is_error && guard->text_length == 0)
            note_error(guard, '\0');
        end_element(guard);
    } else if (guard->text_ends || c == '\n') {
        fail(guard, "a line break where none can be");
    } else if (c == '\r') {
        guard->text_ends = true;
    } else if (guard->text_length == TEXT_BYTES_MAX || guard->reply_bytes > guard->limits.reply_bytes) {
        fail(guard, "a reply that is too large");
    } else {
        if (guard->is_error)
            note_error(guard, c);
        guard->text_length++;
    }
}

/* It is handed out once its line end has come: by then its beginning may be gone. */
static void take_message(struct resp_guard *guard, const struct run *run, size_t count)
{
    bool is_whole = count == guard->message_length && (size_t)(run->end - run->at) >= count + LINE_END_BYTES;
    if (is_whole)
        guard->message = run->at;
    else
        buffer_append(&guard->pieces, run->at, count);
    if (guard->pieces.failed)
        fail(guard, "a message that there is no memory for");
}

static void pass_bulk(struct resp_guard *guard, struct run *run)
{
    size_t count = (size_t)(run->end - run->at);
    if (guard->bulk_left > LINE_END_BYTES) {
        if (count > guard->bulk_left - LINE_END_BYTES)
            count = (size_t)(guard->bulk_left - LINE_END_BYTES);
        if (guard->must_equal && memcmp(guard->must_equal, run->at, count) != 0)
            fail(guard, "a reply that nobody asked for");
        else if (guard->must_equal)
            guard->must_equal += count;
        else if (guard->is_push && guard->message)
            take_message(guard, run, count);
    } else {
        count = 1;
        if (*run->at != (guard->bulk_left == LINE_END_BYTES ? '\r' : '\n'))
            fail(guard, "a string that does not end where it should");
    }
    if (guard->state == RESP_GUARD_BULK && !guard->is_push && !guard->fault) {
        memcpy(run->out, run->at, count);
        run->out += count;
    }
    run->at += count;
    guard->bulk_left -= count;
    if (guard->bulk_left == 0 && !guard->fault)
        end_element(guard);
}

size_t resp_guard_pass(struct resp_guard *guard, const char *bytes, size_t length, char *out)
{
    struct run run = {.at = bytes, .end = bytes + length, .out = out};
    guard->received_bytes += length;
    while (run.at < run.end && !guard->fault) {
        switch (guard->state) {
        case RESP_GUARD_HEADER:
            pass_header(guard, &run);
            break;
        case RESP_GUARD_TEXT:
            pass_text(guard, &run);
            break;
        case RESP_GUARD_BULK:
        case RESP_GUARD_SKIP:
            pass_bulk(guard, &run);
            break;
        }
    }
    return (size_t)(run.out - out);
}
