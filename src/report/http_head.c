/* SPDX-License-Identifier: MIT */
#include "http_head.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

enum { LENGTH_MAX_DIGITS = 9 };

static const char token_characters[] = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/* Text between two places; what a line has before its end. */
struct span {
    const char *at;
    const char *end;
};

static struct http_head bad(unsigned status, const char *why)
{
    return (struct http_head){.form = HTTP_HEAD_BAD, .status = status, .why = why};
}

static bool is_well(struct http_head head)
{
    return head.form == HTTP_HEAD_WELL;
}

static const struct http_head well = {.form = HTTP_HEAD_WELL};

static bool is_token(struct span text)
{
    for (const char *at = text.at; at < text.end; at++)
        if (!*at || !strchr(token_characters, *at))
            return false;
    return text.at < text.end;
}

/* Neither control characters nor spaces. */
static bool is_visible(struct span text)
{
    for (const char *at = text.at; at < text.end; at++)
        if ((unsigned char)*at <= ' ' || *at == 0x7F)
            return false;
    return text.at < text.end;
}

/* Takes what stands before the next `mark` off the front, and the mark. false when there is none. */
static bool take_until(struct span *text, char mark, struct span *taken)
{
    const char *found = memchr(text->at, mark, (size_t)(text->end - text->at));
    if (!found)
        return false;
    *taken = (struct span){text->at, found};
    text->at = found + 1;
    return true;
}

/* Ends with LF; a CR before it belongs to the end. */
static bool take_line(struct span *text, struct span *line)
{
    if (!take_until(text, '\n', line))
        return false;
    if (line->end > line->at && line->end[-1] == '\r')
        line->end--;
    return true;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static struct http_head judge_request_line(struct span line)
{
    struct span method;
    struct span target;
    if (!take_until(&line, ' ', &method) || !is_token(method) || !take_until(&line, ' ', &target) ||
        !is_visible(target))
        return bad(400, "the request line is not METHOD TARGET HTTP/1.1");
    if (line.end - line.at != 8 || memcmp(line.at, "HTTP/", 5) != 0 || !is_digit(line.at[5]) || line.at[6] != '.' ||
        !is_digit(line.at[7]))
        return bad(400, "the request line is not METHOD TARGET HTTP/1.1");
    if (line.at[5] != '1')
        return bad(505, "this is HTTP/1.0 and HTTP/1.1");
    return well;
}

static bool is_named(struct span name, const char *wanted)
{
    size_t length = (size_t)(name.end - name.at);
    return length == strlen(wanted) && strncasecmp(name.at, wanted, length) == 0;
}

static struct http_head judge_length(struct span value)
{
    while (value.at < value.end && (*value.at == ' ' || *value.at == '\t'))
        value.at++;
    while (value.at < value.end && (value.end[-1] == ' ' || value.end[-1] == '\t'))
        value.end--;
    for (const char *at = value.at; at < value.end; at++)
        if (!is_digit(*at))
            return bad(400, "Content-Length is not a number");
    if (value.at == value.end)
        return bad(400, "Content-Length is not a number");
    return value.end - value.at > LENGTH_MAX_DIGITS ? bad(413, "no request needs a body") : well;
}

static struct http_head judge_field(struct span line, int *hosts)
{
    struct span name;
    if (!take_until(&line, ':', &name) || !is_token(name))
        return bad(400, "a header field is not NAME: VALUE");
    for (const char *at = line.at; at < line.end; at++)
        if (((unsigned char)*at < ' ' && *at != '\t') || *at == 0x7F)
            return bad(400, "a header field has a control character");
    if (is_named(name, "Host"))
        ++*hosts;
    return is_named(name, "Content-Length") ? judge_length(line) : well;
}

/* Section 3.2: one Host, but for HTTP/1.0. */
static struct http_head judge_hosts(bool is_needed, int hosts)
{
    if (hosts > 1)
        return bad(400, "there is more than one Host header");
    return is_needed && hosts == 0 ? bad(400, "the Host header is missing") : well;
}

struct http_head http_head_judge(const char *bytes, size_t length)
{
    bool is_full = length >= HTTP_HEAD_MAX_BYTES;
    struct span text = {bytes, bytes + (is_full ? HTTP_HEAD_MAX_BYTES : length)};
    struct span line;
    do /* section 2.2: an empty line before the request is passed over */
        if (!take_line(&text, &line))
            return is_full ? bad(414, "the request line is too long")
                           : (struct http_head){.form = HTTP_HEAD_INCOMPLETE};
    while (line.at == line.end);
    struct http_head head = judge_request_line(line);
    bool needs_host = line.end[-1] != '0'; /* of a line that is well: its minor version */
    int hosts = 0;
    for (int fields = 0; is_well(head); fields++) {
        if (!take_line(&text, &line))
            return is_full ? bad(431, "the header fields are too long")
                           : (struct http_head){.form = HTTP_HEAD_INCOMPLETE};
        if (line.at == line.end)
            return judge_hosts(needs_host, hosts);
        head = fields < HTTP_HEAD_MAX_FIELDS ? judge_field(line, &hosts) : bad(431, "there are too many header fields");
    }
    return head;
}
