/* SPDX-License-Identifier: MIT */
/* The tokens of RFC 8259, read strictly: strings, numbers, literals, brackets, white space. */
#include "json_guard.h"

#include <endian.h>
#include <stdint.h>
#include <string.h>

/* Each scan_… function gets the first byte of its token and returns the byte behind it, or NULL where it is malformed.
 */

enum { UNICODE_ESCAPE_LENGTH = 6 }; /* \uXXXX */

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex_digit(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* May stand somewhere in a number; where two numbers touch, or one is followed by such a byte, neither is one. */
static bool is_number_byte(char c)
{
    return is_digit(c) || c == '+' || c == '-' || c == '.' || c == 'e' || c == 'E';
}

static const char *skip_spaces(const char *at, const char *end)
{
    while (at < end && is_space(*at))
        at++;
    return at;
}

static const char *skip_digits(const char *at, const char *end)
{
    while (at < end && is_digit(*at))
        at++;
    return at;
}

typedef uint8_t byte_block __attribute__((vector_size(16))); /* gcc and clang make vector instructions of these */

/* Which of sixteen bytes end, escape or break a string. */
static byte_block special_bytes(const char *at)
{
    byte_block bytes;
    memcpy(&bytes, at, sizeof bytes);
    return (byte_block)((bytes < ' ') | (bytes == '"') | (bytes == '\\'));
}

static bool is_none(byte_block special)
{
    uint64_t found[2];
    memcpy(found, &special, sizeof found);
    return (found[0] | found[1]) == 0;
}

/* How many bytes of the block stand before the first that is special; all, where none is. */
static size_t plain_of_block(byte_block special)
{
    uint64_t found[2];
    memcpy(found, &special, sizeof found);
    found[0] = le64toh(found[0]);
    found[1] = le64toh(found[1]);
    if (found[0])
        return (size_t)__builtin_ctzll(found[0]) / 8;
    return 8 + (found[1] ? (size_t)__builtin_ctzll(found[1]) / 8 : 8);
}

/* Bytes from `at` on that stand for themselves in a string. Almost all of a message is prompt text, which is why this
 * takes it by four blocks, or by one. */
static size_t plain_length(const char *at, const char *end)
{
    const ptrdiff_t size = sizeof(byte_block);
    const char *start = at;
    while (end - at >= 4 * size && is_none(special_bytes(at) | special_bytes(at + size) | special_bytes(at + 2 * size) |
                                           special_bytes(at + 3 * size)))
        at += 4 * size;
    while (end - at >= size) {
        size_t plain = plain_of_block(special_bytes(at));
        at += plain;
        if (plain < (size_t)size)
            return (size_t)(at - start);
    }
    while (at < end && (unsigned char)*at >= ' ' && *at != '"' && *at != '\\')
        at++;
    return (size_t)(at - start);
}

/* `at` is the backslash of a whole escape. */
static bool is_nul_escape(const char *at)
{
    return at[1] == 'u' && memcmp(at + 2, "0000", 4) == 0;
}

/* `at` is a backslash inside a string. Which letters may follow it cJSON knows, but not that \u wants hex digits. */
static const char *scan_escape(const char *at, const char *end)
{
    if (end - at < 2)
        return NULL;
    if (at[1] != 'u')
        return at + 2;
    if (end - at < UNICODE_ESCAPE_LENGTH)
        return NULL;
    for (int i = 2; i < UNICODE_ESCAPE_LENGTH; i++) {
        if (!is_hex_digit(at[i]))
            return NULL;
    }
    return at + UNICODE_ESCAPE_LENGTH;
}

static void note_longest(struct json_guard *guard, const char *content, size_t length)
{
    if (length <= guard->longest_length)
        return;
    guard->longest = content;
    guard->longest_length = length;
}

static const char *scan_string(const char *at, const char *end, struct json_guard *guard)
{
    const char *content = ++at;
    at += plain_length(at, end);
    while (at < end && *at == '\\') {
        const char *next = scan_escape(at, end);
        if (!next)
            return NULL;
        guard->needs_mask |= is_nul_escape(at);
        at = next + plain_length(next, end);
    }
    if (at == end || *at != '"')
        return NULL;
    note_longest(guard, content, (size_t)(at - content));
    return at + 1;
}

/* One digit or more. */
static const char *scan_digits(const char *at, const char *end)
{
    return at < end && is_digit(*at) ? skip_digits(at, end) : NULL;
}

static const char *scan_number(const char *at, const char *end)
{
    if (*at == '-')
        at++;
    at = at < end && *at == '0' ? at + 1 : scan_digits(at, end);
    if (at && at < end && *at == '.')
        at = scan_digits(at + 1, end);
    if (at && at < end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < end && (*at == '+' || *at == '-'))
            at++;
        at = scan_digits(at, end);
    }
    return at && at < end && is_number_byte(*at) ? NULL : at;
}

static const char *scan_literal(const char *at, const char *end)
{
    static const char *const literals[] = {"true", "false", "null"};
    for (size_t i = 0; i < sizeof literals / sizeof literals[0]; i++) {
        size_t length = strlen(literals[i]);
        if ((size_t)(end - at) >= length && memcmp(at, literals[i], length) == 0)
            return at + length;
    }
    return NULL;
}

/* Strings, numbers and literals; anything else is no token of JSON. */
static const char *scan_scalar(const char *at, const char *end, struct json_guard *guard)
{
    if (*at == '"')
        return scan_string(at, end, guard);
    if (*at == '-' || is_digit(*at)) {
        guard->needs_mask = true;
        return scan_number(at, end);
    }
    return scan_literal(at, end);
}

bool json_guard_scan(const char *bytes, size_t length, struct json_guard *guard)
{
    const char *at = bytes;
    const char *end = bytes + length;
    int depth = 0;

    *guard = (struct json_guard){0};
    do {
        at = skip_spaces(at, end);
        if (at == end)
            return false;
        switch (*at) {
        case '{':
        case '[':
            if (++depth > JSON_DEPTH_MAX)
                return false;
            at++;
            break;
        case '}':
        case ']':
            if (--depth < 0)
                return false;
            at++;
            break;
        case ',':
        case ':':
            at++;
            break;
        default:
            at = scan_scalar(at, end, guard);
            if (!at)
                return false;
        }
    } while (depth > 0);
    guard->length = (size_t)(at - bytes);
    return true;
}

static char *mask_string(char *at, const char *end)
{
    at++;
    at += plain_length(at, end);
    while (*at == '\\') {
        if (is_nul_escape(at)) {
            memset(at, JSON_NUL_BYTE, JSON_NUL_WIDTH);
            at += JSON_NUL_WIDTH;
        } else {
            at += 2;
        }
        at += plain_length(at, end);
    }
    return at + 1;
}

/* The 0 goes last, so that the value still ends where it ended. */
static char *mask_number(char *at, const char *end)
{
    while (at < end && is_number_byte(*at))
        *at++ = ' ';
    at[-1] = '0';
    return at;
}

void json_guard_mask(char *value, size_t length)
{
    char *at = value;
    const char *end = value + length;
    while (at < end) {
        if (*at == '"')
            at = mask_string(at, end);
        else if (*at == '-' || is_digit(*at))
            at = mask_number(at, end);
        else
            at++;
    }
}

/* --- where it is no JSON ---------------------------------------------------------------------------------------- */

/* \uDxxx whose next digit is one of these: half of a surrogate pair. */
static bool is_surrogate(const char *at, const char *end, const char *digits)
{
    return end - at >= UNICODE_ESCAPE_LENGTH && at[0] == '\\' && at[1] == 'u' && (at[2] == 'd' || at[2] == 'D') &&
           is_hex_digit(at[3]) && strchr(digits, at[3]) && is_hex_digit(at[4]) && is_hex_digit(at[5]);
}

/* The byte behind the escape; NULL where there is no such escape, or half of a surrogate pair stands alone. */
static const char *pass_escape(const char *at, const char *end)
{
    static const char high[] = "89aAbB";
    static const char low[] = "cCdDeEfF";
    const char *next = scan_escape(at, end);
    if (!next || is_surrogate(at, end, low))
        return NULL;
    if (is_surrogate(at, end, high))
        return is_surrogate(next, end, low) ? next + UNICODE_ESCAPE_LENGTH : NULL;
    return at[1] == 'u' || (at[1] && strchr("\"\\/bfnrt", at[1])) ? next : NULL;
}

/* Moves *at behind the string, or to the byte that breaks it: then false. */
static bool pass_string(const char **at, const char *end)
{
    const char *next = *at + 1;
    while (next) {
        *at = next + plain_length(next, end);
        if (*at == end)
            return false;
        if (**at == '"') {
            (*at)++;
            return true;
        }
        next = **at == '\\' ? pass_escape(*at, end) : NULL;
    }
    return false;
}

static bool pass_scalar(const char **at, const char *end)
{
    struct json_guard ignored;
    if (**at == '"')
        return pass_string(at, end);
    const char *next = scan_scalar(*at, end, &ignored);
    if (next)
        *at = next;
    return next;
}

enum expects { EXPECTS_VALUE, EXPECTS_VALUE_OR_END, EXPECTS_NAME, EXPECTS_NAME_OR_END, EXPECTS_COLON, EXPECTS_COMMA };

struct place {
    enum expects expects;
    int depth;
    bool is_object[JSON_DEPTH_MAX];
};

static bool closes(const struct place *place, char c)
{
    bool may_close = place->expects == EXPECTS_COMMA || place->expects == EXPECTS_VALUE_OR_END ||
                     place->expects == EXPECTS_NAME_OR_END;
    return may_close && place->depth > 0 && c == (place->is_object[place->depth - 1] ? '}' : ']');
}

/* Moves *at behind the next token, or to the byte that cannot be there: then false. */
static bool pass_token(struct place *place, const char **at, const char *end)
{
    char c = **at;
    if (closes(place, c)) {
        place->depth--;
        place->expects = EXPECTS_COMMA;
        (*at)++;
        return true;
    }
    switch (place->expects) {
    case EXPECTS_COMMA:
        if (c != ',' || place->depth == 0)
            return false;
        place->expects = place->is_object[place->depth - 1] ? EXPECTS_NAME : EXPECTS_VALUE;
        (*at)++;
        return true;
    case EXPECTS_COLON:
        place->expects = EXPECTS_VALUE;
        *at += c == ':';
        return c == ':';
    case EXPECTS_NAME:
    case EXPECTS_NAME_OR_END:
        place->expects = EXPECTS_COLON;
        return c == '"' && pass_string(at, end);
    case EXPECTS_VALUE:
    case EXPECTS_VALUE_OR_END:
        if (c != '{' && c != '[') {
            place->expects = EXPECTS_COMMA;
            return pass_scalar(at, end);
        }
        if (place->depth == JSON_DEPTH_MAX)
            return false;
        place->is_object[place->depth++] = c == '{';
        place->expects = c == '{' ? EXPECTS_NAME_OR_END : EXPECTS_VALUE_OR_END;
        (*at)++;
        return true;
    }
    return false;
}

size_t json_guard_fault(const char *bytes, size_t length)
{
    const char *end = bytes + length;
    const char *at = skip_spaces(bytes, end);
    struct place place = {.expects = EXPECTS_VALUE};
    while (at < end && pass_token(&place, &at, end))
        at = skip_spaces(at, end);
    return (size_t)(at - bytes);
}
