/* SPDX-License-Identifier: MIT */
/* Taking host:port apart. */
#include "promptd/endpoint.h"

#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

enum { PORT_MAX = 65535 };

static bool fail(struct error *phrase, const char *text)
{
    return error_set(phrase, ERROR_CONFIG, "%s", text);
}

static bool is_port(const char *text)
{
    size_t digits = strspn(text, "0123456789");
    return digits > 0 && digits < ENDPOINT_PORT_SIZE && text[digits] == '\0' && strtol(text, NULL, 10) <= PORT_MAX;
}

bool endpoint_parse(const char *text, struct endpoint *endpoint, struct error *phrase)
{
    bool bracketed = text[0] == '[';
    const char *host = bracketed ? text + 1 : text;
    const char *end = bracketed ? strchr(host, ']') : strrchr(host, ':');
    if (bracketed && !end)
        return fail(phrase, "has a [ without a ]");
    if (!end || (bracketed && end[1] != ':'))
        return fail(phrase, "has no port");
    size_t length = (size_t)(end - host);
    if (length == 0)
        return fail(phrase, "has no host");
    if (length >= ENDPOINT_HOST_SIZE)
        return fail(phrase, "has a host that is too long");
    if (!bracketed && memchr(host, ':', length))
        return fail(phrase, "has an IPv6 address without brackets");
    if (strcspn(host, " \t/@?#") < length)
        return fail(phrase, "has a host that is none");
    const char *port = end + (bracketed ? 2 : 1);
    if (!is_port(port))
        return fail(phrase, "has a port that is not a number from 0 to 65535");
    if (!endpoint)
        return true;
    *endpoint = (struct endpoint){.host = ""};
    memcpy(endpoint->host, host, length);
    memcpy(endpoint->port, port, strlen(port));
    return true;
}

const char *endpoint_unix_path(const char *text)
{
    static const char prefix[] = "unix:";
    return strncmp(text, prefix, sizeof prefix - 1) == 0 ? text + sizeof prefix - 1 : NULL;
}

bool endpoint_validate_listen(const char *text, struct error *phrase)
{
    const char *path = endpoint_unix_path(text);
    if (strcmp(text, "off") == 0)
        return true;
    if (!path)
        return endpoint_parse(text, NULL, phrase);
    if (path[0] != '/')
        return fail(phrase, "has a path that does not begin with /");
    if (strlen(path) >= sizeof((struct sockaddr_un *)0)->sun_path)
        return fail(phrase, "has a path that is too long for a socket");
    return true;
}
