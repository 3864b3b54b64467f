/* SPDX-License-Identifier: MIT */
/* Judging Host, Origin and Sec-Fetch-Site. */
#include "admin_guard.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#include "promptd/endpoint.h"

/* The name in "name", "name:port", "[address]" or "[address]:port", without brackets. false: it is none of these. */
static bool host_name(const char *host, char name[ENDPOINT_HOST_SIZE], bool *bracketed)
{
    *bracketed = host[0] == '[';
    const char *start = *bracketed ? host + 1 : host;
    size_t length = strcspn(start, *bracketed ? "]" : ":");
    const char *rest = start + length;
    if (*bracketed && *rest++ != ']')
        return false;
    bool has_port = *rest == ':' && strspn(rest + 1, "0123456789") == strlen(rest + 1);
    if (length == 0 || length >= ENDPOINT_HOST_SIZE || (*rest && !has_port))
        return false;
    memcpy(name, start, length);
    name[length] = '\0';
    return true;
}

bool admin_guard_knows_host(const struct admin_origin *from, const char *own_name)
{
    char name[ENDPOINT_HOST_SIZE];
    bool bracketed;
    struct in6_addr address;
    if (!from->host)
        return !admin_guard_is_browser(from); /* HTTP/1.0 needs none, and a browser always has it */
    if (!host_name(from->host, name, &bracketed))
        return false;
    if (bracketed)
        return inet_pton(AF_INET6, name, &address) == 1;
    return inet_pton(AF_INET, name, &address) == 1 || strcasecmp(name, "localhost") == 0 ||
           strcasecmp(name, own_name) == 0;
}

bool admin_guard_is_browser(const struct admin_origin *from)
{
    return from->origin || from->fetch_site;
}

static bool is_own_origin(const char *origin, const char *host)
{
    const char *end_of_scheme = strstr(origin, "://");
    return host && end_of_scheme && strcasecmp(end_of_scheme + 3, host) == 0;
}

bool admin_guard_is_cross_site(const struct admin_origin *from)
{
    if (from->fetch_site && strcmp(from->fetch_site, "same-origin") != 0 && strcmp(from->fetch_site, "none") != 0)
        return true;
    return from->origin && !is_own_origin(from->origin, from->host);
}
