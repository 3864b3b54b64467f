/* SPDX-License-Identifier: MIT */
/* UTF-8, UUIDs, quoting for logs, and keeping secrets out of what people read. */
#include "promptd/text.h"

#include <ctype.h>
#include <endian.h>
#include <limits.h>
#include <string.h>
#include <strings.h>

/* Length of the well-formed sequence that begins at `bytes` (table 3-7 of the Unicode standard), 0 where none does. */
static size_t utf8_sequence(const unsigned char *bytes, size_t length)
{
    unsigned char first = bytes[0];
    if (first < 0x80)
        return 1;
    size_t size = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (first < 0xc2 || first > 0xf4 || size > length)
        return 0;

    /* The second byte alone tells overlong forms, surrogates and what lies above U+10FFFF from the rest. */
    unsigned char low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    unsigned char high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (bytes[1] < low || bytes[1] > high)
        return 0;
    for (size_t i = 2; i < size; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
    }
    return size;
}

/* Bytes from `at` on that are ASCII: most text is, for long stretches. */
static size_t ascii_length(const unsigned char *at, const unsigned char *end)
{
    const uint64_t high_bits = UINT64_C(0x8080808080808080);
    const unsigned char *start = at;
    uint64_t words[4];
    for (; end - at >= (ptrdiff_t)sizeof words; at += sizeof words) {
        memcpy(words, at, sizeof words);
        if ((words[0] | words[1] | words[2] | words[3]) & high_bits)
            break;
    }
    for (; end - at >= (ptrdiff_t)sizeof words[0]; at += sizeof words[0]) {
        memcpy(words, at, sizeof words[0]);
        uint64_t found = le64toh(words[0]) & high_bits;
        if (found)
            return (size_t)(at - start) + (size_t)__builtin_ctzll(found) / 8;
    }
    while (at < end && *at < 0x80)
        at++;
    return (size_t)(at - start);
}

bool utf8_is_valid(const char *bytes, size_t length)
{
    const unsigned char *at = (const unsigned char *)bytes;
    const unsigned char *end = at + length;
    while (at < end) {
        size_t size = *at < 0x80 ? ascii_length(at, end) : utf8_sequence(at, (size_t)(end - at));
        if (size == 0)
            return false;
        at += size;
    }
    return true;
}

typedef uint8_t byte_block __attribute__((vector_size(16))); /* gcc and clang make vector instructions of these */

static size_t sum_of(byte_block counts)
{
    uint8_t each[sizeof counts];
    size_t sum = 0;
    memcpy(each, &counts, sizeof each);
    for (size_t i = 0; i < sizeof each; i++)
        sum += each[i];
    return sum;
}

/* Whatever does not continue a character begins one; 10xxxxxx does. A comparison that holds is all ones in its byte,
 * which is one less; there is room for 255 of them. */
size_t utf8_count(const char *bytes, size_t length)
{
    const size_t size = sizeof(byte_block);
    size_t continuing = 0;
    size_t i = 0;
    while (length - i >= size) {
        byte_block counts = {0};
        for (int n = 0; n < 255 && length - i >= size; n++, i += size) {
            byte_block block;
            memcpy(&block, bytes + i, size);
            counts -= (byte_block)((block & 0xc0) == 0x80);
        }
        continuing += sum_of(counts);
    }
    for (; i < length; i++)
        continuing += ((unsigned char)bytes[i] & 0xc0) == 0x80;
    return length - continuing;
}

/* One more than the digit's value; 0: it is none. A table, for branches on digits are guessed wrong all the time. */
static const uint8_t hex_digits[UCHAR_MAX + 1] = {
    ['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,  ['6'] = 7,  ['7'] = 8,
    ['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
    ['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
};

/* Before the bytes 4, 6, 8 and 10. */
static bool uuid_hyphen_before(size_t byte)
{
    return 0x550 >> byte & 1;
}

bool uuid_parse(const char *text, size_t length, uint8_t uuid[UUID_SIZE])
{
    if (length != UUID_TEXT_SIZE - 1)
        return false;
    uint8_t parsed[UUID_SIZE];
    for (size_t i = 0; i < UUID_SIZE; i++) {
        if (uuid_hyphen_before(i) && *text++ != '-')
            return false;
        unsigned high = hex_digits[(unsigned char)*text++];
        unsigned low = hex_digits[(unsigned char)*text++];
        if (high == 0 || low == 0)
            return false;
        parsed[i] = (uint8_t)((high - 1) << 4 | (low - 1));
    }
    memcpy(uuid, parsed, sizeof parsed);
    return true;
}

void uuid_format(const uint8_t uuid[UUID_SIZE], char text[UUID_TEXT_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < UUID_SIZE; i++) {
        if (uuid_hyphen_before(i))
            *text++ = '-';
        *text++ = digits[uuid[i] >> 4];
        *text++ = digits[uuid[i] & 15];
    }
    *text = '\0';
}

static uint32_t utf8_decode(const unsigned char *bytes, size_t size)
{
    static const unsigned char lead[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t code = bytes[0] & lead[size];
    for (size_t i = 1; i < size; i++)
        code = code << 6 | (bytes[i] & 0x3f);
    return code;
}

/* Controls, and what moves or reorders text on a terminal: C1, line separators, directional marks and overrides. */
static bool is_control(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code <= 0x9f) || (code >= 0x200e && code <= 0x200f) ||
           (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069) || code == 0xfeff;
}

/* The next piece of a text: how many bytes, and whether they may be shown as they are. */
struct piece {
    size_t size;
    uint32_t code;
    bool valid;   /* well-formed UTF-8; else one stray byte */
    bool control; /* valid, but must not reach a terminal */
};

static struct piece next_piece(const char *at, size_t length)
{
    const unsigned char *bytes = (const unsigned char *)at;
    size_t size = utf8_sequence(bytes, length);
    if (size == 0)
        return (struct piece){.size = 1};
    uint32_t code = utf8_decode(bytes, size);
    return (struct piece){.size = size, .code = code, .valid = true, .control = is_control(code)};
}

/* What stands around a text: nothing, the quotes of logfmt, or those of JSON. */
enum form { FORM_BARE, FORM_LOGFMT, FORM_JSON };

static void append_escape(struct buffer *buffer, uint32_t code, enum form form)
{
    switch (code) {
    case '\n':
        buffer_append_text(buffer, "\\n");
        break;
    case '\r':
        buffer_append_text(buffer, "\\r");
        break;
    case '\t':
        buffer_append_text(buffer, "\\t");
        break;
    default: /* all of JSON's are below U+10000 */
        buffer_printf(buffer, form == FORM_JSON ? "\\u%04x" : "\\x%02x", (unsigned)code);
    }
}

static void append_unprintable(struct buffer *buffer, const char *bytes, struct piece piece, enum form form)
{
    if (form == FORM_JSON && piece.valid)
        append_escape(buffer, piece.code, form);
    else if (form == FORM_JSON)
        buffer_append_text(buffer, "\xef\xbf\xbd");
    for (size_t i = 0; form != FORM_JSON && i < piece.size; i++)
        append_escape(buffer, (unsigned char)bytes[i], form);
}

/* Stands for itself in every format: printable, and neither quote nor backslash. */
static bool is_plain_ascii(char c)
{
    return c >= ' ' && c <= '~' && c != '"' && c != '\\';
}

static bool is_plain_block(const char *at)
{
    byte_block bytes;
    uint64_t others[2];
    memcpy(&bytes, at, sizeof bytes);
    byte_block other = (byte_block)((bytes < ' ') | (bytes > '~') | (bytes == '"') | (bytes == '\\'));
    memcpy(others, &other, sizeof others);
    return (others[0] | others[1]) == 0;
}

static size_t plain_ascii_length(const char *at, const char *end)
{
    const char *start = at;
    while (end - at >= (ptrdiff_t)sizeof(byte_block) && is_plain_block(at))
        at += sizeof(byte_block);
    while (at < end && is_plain_ascii(*at))
        at++;
    return (size_t)(at - start);
}

static void append_printable(struct buffer *buffer, const char *value, enum form form)
{
    const char *end = value + strlen(value);
    while (value < end) {
        size_t plain = plain_ascii_length(value, end);
        buffer_append(buffer, value, plain);
        value += plain;
        if (value == end)
            break;
        struct piece piece = next_piece(value, (size_t)(end - value));
        if (!piece.valid || piece.control) {
            append_unprintable(buffer, value, piece, form);
        } else {
            if (form != FORM_BARE && (*value == '"' || *value == '\\'))
                buffer_append_char(buffer, '\\');
            buffer_append(buffer, value, piece.size);
        }
        value += piece.size;
    }
}

static void append_quoted(struct buffer *buffer, const char *value, enum form form)
{
    buffer_append_char(buffer, '"');
    append_printable(buffer, value, form);
    buffer_append_char(buffer, '"');
}

static bool logfmt_is_bare(const char *value)
{
    const char *end = value + strlen(value);
    bool is_empty = value == end;
    while (value < end) {
        size_t plain = plain_ascii_length(value, end);
        if (memchr(value, ' ', plain) || memchr(value, '=', plain))
            return false;
        value += plain;
        if (value == end)
            break;
        struct piece piece = next_piece(value, (size_t)(end - value));
        if (!piece.valid || piece.control || *value == '"' || *value == '\\')
            return false;
        value += piece.size;
    }
    return !is_empty;
}

void text_append_logfmt(struct buffer *buffer, const char *value)
{
    if (logfmt_is_bare(value))
        buffer_append_text(buffer, value);
    else
        append_quoted(buffer, value, FORM_LOGFMT);
}

void text_append_escaped(struct buffer *buffer, const char *value)
{
    append_printable(buffer, value, FORM_BARE);
}

void text_append_json(struct buffer *buffer, const char *value)
{
    append_quoted(buffer, value, FORM_JSON);
}

/* "key = value", as opposed to a URL, however broken that may be. */
static bool is_conninfo(const char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    const char *key = text;
    while (isalnum((unsigned char)*text) || *text == '_')
        text++;
    if (text == key)
        return false;
    while (isspace((unsigned char)*text))
        text++;
    return *text == '=';
}

/* The end of the value at `text`: of a query parameter, or of a conninfo value with its quotes and backslashes. */
static const char *skip_value(const char *text, bool conninfo)
{
    if (!conninfo)
        return text + strcspn(text, "&");
    bool quoted = *text == '\'';
    text += quoted;
    while (*text && (quoted ? *text != '\'' : !isspace((unsigned char)*text)))
        text += text[0] == '\\' && text[1] ? 2 : 1;
    return text + (quoted && *text);
}

/* Copies `url`; the values of password= and of every key that ends so (sslpassword) become ***. */
static void append_without_password_values(struct buffer *buffer, const char *url, bool conninfo)
{
    const char *copied = url;
    const char *found = url;
    while ((found = strcasestr(found, "password")) != NULL) {
        found += strlen("password");
        const char *value = found + strspn(found, " \t\r\n");
        if (*value != '=')
            continue;
        value += 1 + strspn(value + 1, " \t\r\n");
        buffer_append(buffer, copied, (size_t)(value - copied));
        buffer_append_text(buffer, "***");
        copied = found = skip_value(value, conninfo);
    }
    buffer_append_text(buffer, copied);
}

static size_t count_char(const char *bytes, size_t length, char c)
{
    size_t count = 0;
    for (size_t i = 0; i < length; i++)
        count += bytes[i] == c;
    return count;
}

/*
 * Hides the password of user:password@ in what stands in the buffer from `start` on. Passwords often stand in URLs
 * unencoded, with @, / and ? in them, so that everything from the first colon to the last @ counts as one, and to the
 * very end if the last @ may have gone (`all`): rather too much is hidden than half a password shown.
 */
static void hide_user_info(struct buffer *buffer, size_t start, bool all)
{
    char *text = buffer->data + start;
    size_t length = buffer->length - start;
    if (length == 0)
        return;
    char *separator = memmem(text, length, "://", 3);
    char *user = separator ? separator + 3 : text;
    char *at = all ? text + length : memrchr(text, '@', length);
    if (!at || at < user)
        return;
    char *colon = memchr(user, ':', (size_t)(at - user));
    bool redis = strncasecmp(text, "redis", 5) == 0; /* a user alone is of no use there: it is a password misplaced */
    if (!colon && !redis)
        return;
    size_t secret = (size_t)((colon ? colon + 1 : user) - buffer->data);
    size_t tail = (size_t)(at - buffer->data);
    size_t tail_length = buffer->length - tail;
    if (!buffer_reserve(buffer, 3)) {
        buffer->length = start;
        return;
    }
    memmove(buffer->data + secret + 3, buffer->data + tail, tail_length);
    memcpy(buffer->data + secret, "***", 3);
    buffer->length = secret + 3 + tail_length;
}

/* A port that is no number, of host:port,host:port: user:password, perhaps, whose @host has been forgotten. */
static bool has_odd_port(const char *url)
{
    const char *at = strstr(url, "://");
    const char *end = at ? at + 3 + strcspn(at + 3, "/?#") : url;
    for (at = at ? at + 3 : end; at < end; at++) {
        if (*at == '[')
            at += strcspn(at, "]");
        if (*at == ':' && at[1 + strspn(at + 1, "0123456789")] != ',' && at + 1 + strspn(at + 1, "0123456789") < end)
            return true;
    }
    return false;
}

void text_append_redacted(struct buffer *buffer, const char *url)
{
    size_t start = buffer->length;
    bool conninfo = is_conninfo(url);
    append_without_password_values(buffer, url, conninfo);
    if (buffer->failed) {
        buffer->length = start; /* half a URL may be half a password */
        return;
    }
    if (buffer->length == start)
        return;
    const char *text = buffer->data + start;
    size_t length = buffer->length - start;
    size_t ats = count_char(url, strlen(url), '@');
    bool lost_at = count_char(text, length, '@') != ats || (ats == 0 && has_odd_port(url));
    if (!conninfo || memmem(text, length, "://", 3))
        hide_user_info(buffer, start, lost_at);
}

static const char *next_code_point(const char *at, const char *end)
{
    return at + next_piece(at, (size_t)(end - at)).size;
}

bool text_quotes(const char *text, const char *secret, size_t secret_length, size_t count)
{
    const char *text_end = text + strlen(text);
    const char *run_end = text;
    for (size_t i = 0; i < count; i++) {
        if (run_end == text_end)
            return false;
        run_end = next_code_point(run_end, text_end);
    }
    while (!memmem(secret, secret_length, text, (size_t)(run_end - text))) {
        if (run_end == text_end)
            return false;
        text = next_code_point(text, text_end);
        run_end = next_code_point(run_end, text_end);
    }
    return true;
}

void text_append_wrapped(struct buffer *buffer, const char *text, size_t indent, size_t width)
{
    size_t column = 0;
    while (*text) {
        size_t word = strcspn(text, " ");
        if (column > 0 && column + 1 + word > width) {
            buffer_append_char(buffer, '\n');
            column = 0;
        }
        size_t gap = column == 0 ? indent : 1;
        buffer_printf(buffer, "%*s%.*s", (int)gap, "", (int)word, text);
        column += gap + word;
        text += word;
        text += strspn(text, " ");
    }
    buffer_append_char(buffer, '\n');
}
