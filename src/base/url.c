/* SPDX-License-Identifier: MIT */
/* Is it certain where the password in a URL begins and ends? */
#include "promptd/url.h"

#include <ctype.h>
#include <string.h>

static const char *authority_of(const char *url)
{
    const char *at = url;
    while (isalpha((unsigned char)*at) || *at == '+')
        at++;
    return at > url && strncmp(at, "://", 3) == 0 ? at + 3 : NULL;
}

const char *url_next_parameter(const char *url, const char *last, size_t *length)
{
    const char *at = last ? strchr(last, '&') : authority_of(url) ? strchr(url, '?') : NULL;
    while (at && (at[1] == '&' || at[1] == '\0'))
        at = at[1] ? at + 1 : NULL;
    if (!at)
        return NULL;
    *length = strcspn(at + 1, "=&");
    return at + 1;
}

static bool contains(const char *start, const char *end, const char *characters)
{
    return start + strcspn(start, characters) < end;
}

/* user:password@host: one colon before the one @. */
static bool user_info_is_clear(const char *authority, const char *end)
{
    const char *at = memchr(authority, '@', (size_t)(end - authority));
    if (!at)
        return true;
    const char *colon = memchr(authority, ':', (size_t)(at - authority));
    return !contains(at + 1, end, "@") && (!colon || !contains(colon + 1, at, ":"));
}

/* Of host:port,[IPv6]:port: a port that is empty, behind which a password may go on. */
static bool has_empty_port(const char *hosts, const char *end)
{
    for (const char *at = hosts; at < end; at++) {
        if (*at == '[')
            at += strcspn(at, "]/?#");
        if (*at == ':' && (at + 1 == end || at[1] == ','))
            return true;
    }
    return false;
}

/* Behind the authority an @ may end a password that has one of / ? # in it; and a name that is encoded may be that of a
 * parameter with a password. */
static bool is_clear(const char *url, const char *authority)
{
    for (const char *at = url; *at; at++)
        if (isspace((unsigned char)*at) || iscntrl((unsigned char)*at))
            return false;
    const char *end = authority + strcspn(authority, "/?#");
    const char *at = memchr(authority, '@', (size_t)(end - authority));
    bool may_have_password = contains(authority, end, ":");
    if (may_have_password && (strchr(end, '@') || *end == '#'))
        return false;
    if (*end && has_empty_port(at ? at + 1 : authority, end))
        return false;
    size_t length;
    for (const char *name = url_next_parameter(url, NULL, &length); name; name = url_next_parameter(url, name, &length))
        if (contains(name, name + length, "@/:?#%"))
            return false;
    return user_info_is_clear(authority, end);
}

bool url_check_password(const char *url, struct error *phrase)
{
    const char *authority = authority_of(url);
    if (!authority || is_clear(url, authority))
        return true;
    return error_set(phrase, ERROR_CONFIG,
                     "may have a password with an unencoded /, @, :, ?, # or space in it: percent-encode it"
                     " (%%2F, %%40, %%3A, %%3F, %%23, %%20)");
}
