/* SPDX-License-Identifier: MIT */
/* Takes redis_url apart. No phrase in here repeats a part of the URL: any part may turn out to be a password. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

#include "promptd/redis_address.h"
#include "promptd/redis_tls.h"
#include "promptd/text.h"
#include "promptd/url.h"

enum { REDIS_DEFAULT_PORT = 6379, SENTINEL_DEFAULT_PORT = 26379, REDIS_DATABASE_DIGITS = 9, NAME_MAX_LENGTH = 253 };

/* A stretch of the URL. */
struct span {
    const char *start;
    const char *end;
};

static bool fail(struct error *error, const char *phrase)
{
    return error_set(error, ERROR_CONFIG, "%s", phrase);
}

static bool span_is_empty(struct span span)
{
    return span.start == span.end;
}

static size_t span_length(struct span span)
{
    return (size_t)(span.end - span.start);
}

static const char *span_find(struct span span, char c)
{
    return memchr(span.start, c, span_length(span));
}

static bool copy_span(struct span span, char **copy, struct error *error)
{
    *copy = strndup(span.start, span_length(span));
    return *copy || error_set(error, ERROR_INTERNAL, "out of memory");
}

static int hex_value(char c)
{
    const char *digits = "0123456789abcdef";
    const char *found = c ? strchr(digits, tolower((unsigned char)c)) : NULL;
    return found ? (int)(found - digits) : -1;
}

static bool decode_span(struct span span, char **decoded, struct error *error)
{
    if (!copy_span(span, decoded, error) || !*decoded)
        return false;
    char *to = *decoded;
    for (const char *from = *decoded; *from; from++) {
        if (*from != '%') {
            *to++ = *from;
            continue;
        }
        int high = hex_value(from[1]);
        int low = high < 0 ? -1 : hex_value(from[2]);
        if (low < 0)
            return fail(error, "has a % that is not followed by two hexadecimal digits");
        if (high == 0 && low == 0)
            return fail(error, "has an encoded NUL byte");
        *to++ = (char)(high << 4 | low);
        from += 2;
    }
    *to = '\0';
    return true;
}

/* Digits only, at most `digits` of them, so that the number fits; none follows. */
static bool parse_number(struct span span, size_t digits, int *number)
{
    size_t length = span_length(span);
    if (length == 0 || length > digits || strspn(span.start, "0123456789") < length)
        return false;
    *number = (int)strtol(span.start, NULL, 10);
    return true;
}

/* user:password, :password (then there is no user), user: (then the password is empty), : (then there is neither). */
static bool parse_user_info(struct span info, struct redis_address *address, struct error *error)
{
    const char *colon = span_find(info, ':');
    if (!colon)
        return fail(error, "has a user but no password (a password alone is written as :password@)");
    struct span user = {info.start, colon};
    struct span password = {colon + 1, info.end};
    if (!span_is_empty(user) && !decode_span(user, &address->user, error))
        return false;
    if (span_is_empty(user) && span_is_empty(password))
        return true;
    return decode_span(password, &address->password, error);
}

static bool parse_database(struct span digits, struct redis_address *address, struct error *error)
{
    if (parse_number(digits, REDIS_DATABASE_DIGITS, &address->database))
        return true;
    return fail(error, "has a database that is not a number");
}

static bool parse_ipv6(struct span host, struct redis_endpoint *endpoint, struct error *error)
{
    if (!copy_span(host, &endpoint->host, error))
        return false;
    struct in6_addr ignored;
    char *zone = strchr(endpoint->host, '%'); /* fe80::1%eth0 is for the resolver to check */
    if (zone)
        *zone = '\0';
    bool good = inet_pton(AF_INET6, endpoint->host, &ignored) == 1;
    if (zone)
        *zone = '%';
    return good || fail(error, "has brackets without an IPv6 address in them");
}

static bool consists_of_name_characters(struct span name)
{
    return strspn(name.start, REDIS_NAME_CHARACTERS) >= span_length(name);
}

static bool parse_host_name(struct span host, struct redis_endpoint *endpoint, struct error *error)
{
    if (span_is_empty(host))
        return fail(error, "has no host");
    if (span_length(host) > NAME_MAX_LENGTH)
        return fail(error, "has a host name that is too long");
    if (!consists_of_name_characters(host))
        return fail(error, "has a character in the host name that cannot stand there");
    return copy_span(host, &endpoint->host, error);
}

/* host, host:port, [IPv6], [IPv6]:port; the port is left as it was where none is named. */
static bool parse_host_and_port(struct span authority, struct redis_endpoint *endpoint, struct error *error)
{
    struct span rest = authority;
    if (*authority.start == '[') {
        const char *bracket = span_find(authority, ']');
        if (!bracket)
            return fail(error, "has a [ without a ]");
        if (!parse_ipv6((struct span){authority.start + 1, bracket}, endpoint, error))
            return false;
        rest.start = bracket + 1;
        if (!span_is_empty(rest) && *rest.start != ':')
            return fail(error, "has something between the ] and the port");
    } else {
        const char *colon = span_find(authority, ':');
        rest.start = colon ? colon : authority.end;
        if (colon && span_find((struct span){colon + 1, authority.end}, ':'))
            return fail(error, "has more than one colon in the host (an IPv6 address needs brackets)");
        if (!parse_host_name((struct span){authority.start, rest.start}, endpoint, error))
            return false;
    }
    if (span_is_empty(rest))
        return true;
    rest.start++;
    if (!parse_number(rest, 5, &endpoint->port) || endpoint->port < 1 || endpoint->port > 65535)
        return fail(error, "has a port that is not a number from 1 to 65535");
    return true;
}

/* Splits what precedes the last @ off, and parses it. */
static bool take_user_info(struct span *authority, struct redis_address *address, struct error *error)
{
    const char *at = memrchr(authority->start, '@', span_length(*authority));
    if (!at)
        return true;
    struct span info = {authority->start, at};
    authority->start = at + 1;
    return parse_user_info(info, address, error);
}

/* Takes user and password, and leaves hosts and path. */
static bool take_authority(const char *rest, struct span *authority, struct redis_address *address, struct error *error)
{
    *authority = (struct span){rest, rest + strcspn(rest, "/?#")};
    if (authority->end[strcspn(authority->end, "?#")])
        return fail(error, "has a query or fragment, which mean nothing here");
    return take_user_info(authority, address, error);
}

/* [user:password@]host[:port][/db] */
static bool parse_tcp(const char *rest, struct redis_address *address, struct error *error)
{
    struct span authority;
    if (!take_authority(rest, &authority, address, error))
        return false;
    struct redis_endpoint server = {.port = REDIS_DEFAULT_PORT};
    bool good = parse_host_and_port(authority, &server, error);
    address->host = server.host; /* also of a bad one, to be freed */
    address->port = server.port;
    if (!good)
        return false;
    const char *path = authority.end;
    if (path[0] == '\0' || path[1] == '\0')
        return true;
    return parse_database((struct span){path + 1, path + strlen(path)}, address, error);
}

/* host[:port][,…] */
static bool parse_sentinels(struct span hosts, struct redis_address *address, struct error *error)
{
    while (true) {
        const char *comma = span_find(hosts, ',');
        struct span host = {hosts.start, comma ? comma : hosts.end};
        if (address->sentinel_count == REDIS_SENTINELS_MAX)
            return fail(error, "has more Sentinels than 16");
        if (span_is_empty(host))
            return fail(error,
                        address->sentinel_count == 0 && !comma ? "has no host" : "has an empty host in its list");
        struct redis_endpoint *sentinel = &address->sentinels[address->sentinel_count++];
        sentinel->port = SENTINEL_DEFAULT_PORT;
        if (!parse_host_and_port(host, sentinel, error))
            return false;
        if (!comma)
            return true;
        hosts.start = comma + 1;
    }
}

/* [user:password@]host[:port][,…]/service[/db] */
static bool parse_sentinel(const char *rest, struct redis_address *address, struct error *error)
{
    struct span authority;
    if (!take_authority(rest, &authority, address, error) || !parse_sentinels(authority, address, error))
        return false;
    const char *path = authority.end + (*authority.end == '/');
    struct span service = {path, path + strcspn(path, "/")};
    if (span_is_empty(service))
        return fail(error, "has no service behind its Sentinels, the name of the master there (…/mymaster)");
    if (span_length(service) > NAME_MAX_LENGTH || !consists_of_name_characters(service))
        return fail(error, "has a service that cannot be one (letters, digits and . - _, 253 at most)");
    if (!copy_span(service, &address->service, error))
        return false;
    if (service.end[0] == '\0' || service.end[1] == '\0')
        return true;
    return parse_database((struct span){service.end + 1, service.end + strlen(service.end)}, address, error);
}

/* [user:password@]/path[?db=N] */
static bool parse_unix(const char *rest, struct redis_address *address, struct error *error)
{
    struct span authority = {rest, rest + strcspn(rest, "/?#")};
    if (!take_user_info(&authority, address, error))
        return false;
    struct span path = {authority.end, authority.end + strcspn(authority.end, "?#")};
    if (!span_is_empty(authority) || span_length(path) < 2)
        return fail(error, "has no absolute path of a socket (unix:///path)");
    if (!decode_span(path, &address->unix_path, error))
        return false;
    if (strlen(address->unix_path) >= sizeof((struct sockaddr_un *)NULL)->sun_path)
        return fail(error, "has a socket path of more than 107 bytes");
    if (*path.end == '\0')
        return true;
    if (strncmp(path.end, "?db=", 4) != 0)
        return fail(error, "has a query that is not ?db=N");
    const char *database = path.end + 4;
    return parse_database((struct span){database, database + strlen(database)}, address, error);
}

static bool parse_url(const char *url, struct redis_address *address, struct error *error)
{
    static const struct {
        const char *begin;
        bool tls;
        bool (*parse)(const char *rest, struct redis_address *address, struct error *error);
    } schemes[] = {
        {"redis://", false, parse_tcp},
        {"rediss://", true, parse_tcp},
        {"redis+sentinel://", false, parse_sentinel},
        {"rediss+sentinel://", true, parse_sentinel},
        {"unix://", false, parse_unix},
    };
    for (const char *c = url; *c; c++) {
        if (isspace((unsigned char)*c) || iscntrl((unsigned char)*c))
            return fail(error, "has white space or a control character in it");
    }
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        size_t length = strlen(schemes[i].begin);
        if (strncasecmp(url, schemes[i].begin, length) != 0)
            continue;
        address->tls = schemes[i].tls;
        return schemes[i].parse(url + length, address, error);
    }
    return fail(error, "does not begin with redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://");
}

bool redis_address_parse(const char *url, struct redis_address *address, struct error *error)
{
    *address = (struct redis_address){0};
    if (parse_url(url, address, error))
        return true;
    redis_address_free(address);
    return false;
}

void redis_address_free(struct redis_address *address)
{
    free(address->host);
    for (size_t i = 0; i < address->sentinel_count; i++)
        free(address->sentinels[i].host);
    free(address->service);
    free(address->unix_path);
    free(address->user);
    free(address->password);
    *address = (struct redis_address){0};
}

void redis_endpoint_name(const struct redis_endpoint *endpoint, char name[REDIS_ADDRESS_NAME_SIZE])
{
    (void)snprintf(name, REDIS_ADDRESS_NAME_SIZE, strchr(endpoint->host, ':') ? "[%s]:%d" : "%s:%d", endpoint->host,
                   endpoint->port);
}

void redis_address_name(const struct redis_address *address, char name[REDIS_ADDRESS_NAME_SIZE])
{
    if (address->unix_path)
        (void)snprintf(name, REDIS_ADDRESS_NAME_SIZE, "%s", address->unix_path);
    else if (address->host)
        redis_endpoint_name(&(struct redis_endpoint){.host = address->host, .port = address->port}, name);
    else
        (void)snprintf(name, REDIS_ADDRESS_NAME_SIZE, "master %s", address->service);
}

/* What can be shown of an error that seems to quote the password: the words of our own that it begins with. Redis' own
 * sentences are always the same, and have three characters in common with many a password. */
static void copy_known_words(const char *reply, char *out, size_t size)
{
    static const char *const sentences[] = {
        "DENIED Redis is running in protected mode because protected mode is enabled",
        "ERR max number of clients reached",
        "ERR invalid password",
        "WRONGPASS invalid username-password pair or user is disabled.",
        "NOAUTH Authentication required.",
        "BUSY Redis is busy running a script.",
        "LOADING Redis is loading the dataset in memory"};
    static const char *const codes[] = {"ERR", "WRONGPASS", "NOAUTH", "NOPERM", "DENIED", "BUSY", "LOADING"};
    const char *code = "";
    for (size_t i = 0; i < sizeof sentences / sizeof sentences[0]; i++) {
        if (strncmp(reply, sentences[i], strlen(sentences[i])) == 0) {
            (void)snprintf(out, size, "%s", sentences[i]);
            return;
        }
    }
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (strncmp(reply, codes[i], strlen(codes[i])) == 0)
            code = codes[i];
    (void)snprintf(out, size, "%s%s(withheld: it may quote the password)", code, *code ? " " : "");
}

void redis_address_copy_error(const struct redis_address *address, const char *reply, char *out, size_t size)
{
    enum { QUOTE_CHARACTERS = 3 }; /* so many of the password in a row; a shorter one as a whole */
    const char *password = address->password ? address->password : "";
    size_t bytes = strlen(password);
    size_t count = bytes < QUOTE_CHARACTERS ? bytes : QUOTE_CHARACTERS;
    if (bytes > 0 && text_quotes(reply, password, bytes, count))
        copy_known_words(reply, out, size);
    else
        (void)snprintf(out, size, "%s", reply);
    char *arguments = strstr(out, ", with args"); /* of an unknown command: they may be a message */
    if (arguments)
        *arguments = '\0';
    char *script = strstr(out, " script: "); /* SHA-1 and line of a script of ours help nobody */
    if (script)
        *script = '\0';
}

bool redis_address_validate(const char *url, struct error *phrase)
{
    struct redis_address address;
    if (!url_check_password(url, phrase) || !redis_address_parse(url, &address, phrase))
        return false;
    bool tls = address.tls;
    redis_address_free(&address);
    return !tls || redis_tls_is_there() ||
           error_set(
               phrase, ERROR_CONFIG,
               "asks for TLS, which the hiredis that promptd was built with does not have: Debian 13 and the image "
               "have it, or stunnel goes between (docs/DEPLOYMENT.md)");
}

bool redis_address_read_moved(const char *reply, char host[REDIS_ADDRESS_NAME_SIZE], struct redis_endpoint *server)
{
    const char *place = strncmp(reply, "MOVED ", strlen("MOVED ")) == 0 ? strrchr(reply, ' ') : NULL;
    const char *colon = place ? strrchr(place, ':') : NULL;
    long port = colon ? strtol(colon + 1, NULL, 10) : 0;
    if (port <= 0 || port > UINT16_MAX)
        return false;
    (void)snprintf(host, REDIS_ADDRESS_NAME_SIZE, "%.*s", (int)(colon - place - 1), place + 1);
    *server = (struct redis_endpoint){.host = host, .port = (int)port};
    return true;
}
