/* SPDX-License-Identifier: MIT */
/* The escapes of RFC 8259, section 7, between runs of bytes that stand for themselves. */
#include "json_string.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "json_guard.h"

enum { UNICODE_ESCAPE_LENGTH = 6 }; /* \uXXXX */

/* The guard has seen that these are hex digits. */
static uint32_t read_hex4(const char *digits)
{
    uint32_t code = 0;
    for (int i = 0; i < 4; i++) {
        char c = digits[i];
        code = code << 4 | (uint32_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return code;
}

static char *put_utf8(char *out, uint32_t code)
{
    if (code < 0x80) {
        *out++ = (char)code;
        return out;
    }
    if (code < 0x800) {
        *out++ = (char)(0xc0 | code >> 6);
    } else {
        if (code < 0x10000) {
            *out++ = (char)(0xe0 | code >> 12);
        } else {
            *out++ = (char)(0xf0 | code >> 18);
            *out++ = (char)(0x80 | (code >> 12 & 0x3f));
        }
        *out++ = (char)(0x80 | (code >> 6 & 0x3f));
    }
    *out++ = (char)(0x80 | (code & 0x3f));
    return out;
}

static bool is_low_surrogate(uint32_t code)
{
    return code >= 0xdc00 && code <= 0xdfff;
}

/* \uXXXX, or two of them that make a pair. Moves *at behind what it read; NULL where a half stands alone. */
static char *put_unicode(char *out, const char **at, const char *end)
{
    uint32_t code = read_hex4(*at + 2);
    *at += UNICODE_ESCAPE_LENGTH;
    if (code == 0) {
        memset(out, JSON_NUL_BYTE, JSON_NUL_WIDTH);
        return out + JSON_NUL_WIDTH;
    }
    if (is_low_surrogate(code))
        return NULL;
    if (code < 0xd800 || code > 0xdbff)
        return put_utf8(out, code);
    if (end - *at < UNICODE_ESCAPE_LENGTH || (*at)[0] != '\\' || (*at)[1] != 'u')
        return NULL;
    uint32_t low = read_hex4(*at + 2);
    if (!is_low_surrogate(low))
        return NULL;
    *at += UNICODE_ESCAPE_LENGTH;
    return put_utf8(out, 0x10000 + ((code & 0x3ff) << 10 | (low & 0x3ff)));
}

/* `*at` is the backslash of a whole escape. */
static char *put_escape(char *out, const char **at, const char *end)
{
    static const char letters[] = "\"\\/bfnrt";
    static const char meanings[] = "\"\\/\b\f\n\r\t";
    char letter = (*at)[1];
    if (letter == 'u')
        return put_unicode(out, at, end);
    const char *found = letter ? strchr(letters, letter) : NULL;
    if (!found)
        return NULL;
    *out = meanings[found - letters];
    *at += 2;
    return out + 1;
}

/* No escape is shorter than what it stands for. The guard has seen that all between escapes stands for itself. */
bool json_string_decode(const char *content, size_t length, char **decoded)
{
    const char *end = content + length;
    char *text = malloc(length + 1);
    *decoded = NULL;
    if (!text)
        return false;
    char *out = text;
    while (content < end) {
        const char *escape = memchr(content, '\\', (size_t)(end - content));
        size_t plain = (size_t)((escape ? escape : end) - content);
        memcpy(out, content, plain);
        out += plain;
        content += plain;
        if (content < end)
            out = put_escape(out, &content, end);
        if (!out) {
            free(text);
            return true;
        }
    }
    *out = '\0';
    *decoded = text;
    return true;
}
