/* SPDX-License-Identifier: MIT */
/* Is it certain where the password in a URL begins and ends? */
#include "promptd/url.h"

#include <ctype.h>
#include <string.h>

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

/* key=value&key=value: what comes before the first = of each may be anything but the rest of a password, or the encoded
 * name of a parameter that has one. */
static bool query_is_clear(const char *query)
{
    while (*query) {
        const char *end = query + strcspn(query, "&");
        const char *equals = memchr(query, '=', (size_t)(end - query));
        if (contains(query, equals ? equals : end, "@/:?#%"))
            return false;
        query = *end ? end + 1 : end;
    }
    return true;
}

static bool is_clear(const char *url, const char *authority)
{
    for (const char *at = url; *at; at++)
        if (isspace((unsigned char)*at) || iscntrl((unsigned char)*at))
            return false;
    const char *path = authority + strcspn(authority, "/?#");
    const char *query = path + strcspn(path, "?#");
    bool may_have_password = contains(authority, path, ":");
    return user_info_is_clear(authority, path) && !(may_have_password && contains(path, query, "@")) &&
           (*query == '\0' || query_is_clear(query + 1));
}

static const char *authority_of(const char *url)
{
    const char *at = url;
    while (isalpha((unsigned char)*at) || *at == '+')
        at++;
    return at > url && strncmp(at, "://", 3) == 0 ? at + 3 : NULL;
}

bool url_may_be_shown(const char *url)
{
    const char *authority = authority_of(url);
    return authority ? is_clear(url, authority) : strcasestr(url, "password") == NULL;
}

bool url_check_password(const char *url, struct error *phrase)
{
    const char *authority = authority_of(url);
    if (!authority || is_clear(url, authority))
        return true;
    return error_set(phrase, ERROR_CONFIG,
                     "may have a password with an unencoded /, @, : or space in it: percent-encode it"
                     " (%%2F, %%40, %%3A, %%20)");
}

const char *url_next_parameter(const char *url, const char *last, size_t *length)
{
    const char *at = last;
    if (!at && authority_of(url))
        at = strchr(url, '?');
    else if (at)
        at = strchr(at, '&');
    if (!at)
        return NULL;
    *length = strcspn(at + 1, "=&");
    return at + 1;
}
