/* SPDX-License-Identifier: MIT */
/* What can be said of database_url before anybody connects. */
#include "promptd/pg_url.h"

#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>

#include "promptd/url.h"

static const PQconninfoOption *find_option(const PQconninfoOption *options, const char *keyword, size_t length)
{
    for (; options && options->keyword; options++)
        if (strlen(options->keyword) == length && strncmp(options->keyword, keyword, length) == 0)
            return options;
    return NULL;
}

static const char *option_value(const PQconninfoOption *options, const char *keyword)
{
    const PQconninfoOption *option = find_option(options, keyword, strlen(keyword));
    return option && option->val ? option->val : "";
}

/* Other drivers have parameters of their own; so is JDBC's ssl=true, which libpq takes for sslmode=require. Behind a
 * password with an & in it a name may be the rest of it. */
static bool check_parameters(const char *url, struct error *phrase)
{
    PQconninfoOption *known = PQconndefaults();
    const char *name = NULL;
    size_t length = 0;
    bool good = true;
    bool is_behind_password = false;
    while (good && known && (name = url_next_parameter(url, name, &length))) {
        if (!find_option(known, name, length) && (is_behind_password || name[length] != '='))
            good = error_set(phrase, ERROR_CONFIG, "has a parameter that libpq does not know: remove it");
        else if (!find_option(known, name, length))
            good = error_set(phrase, ERROR_CONFIG, "has the parameter %.*s, which libpq does not know: remove it",
                             length < 40 ? (int)length : 40, name);
        is_behind_password = is_behind_password || memmem(name, length, "pass", 4) || memmem(name, length, "pwd", 3);
    }
    PQconninfoFree(known);
    return good;
}

/* A list, for several hosts: an empty one is the default. */
static bool check_ports(const char *ports, struct error *phrase)
{
    for (const char *at = ports; *at; at += *at == ',') {
        size_t digits = strspn(at, "0123456789");
        long port = strtol(at, NULL, 10);
        at += digits;
        if ((*at && *at != ',') || (digits > 0 && (digits > 5 || port < 1 || port > 65535)))
            return error_set(phrase, ERROR_CONFIG, "has a port that is not a number from 1 to 65535");
    }
    return true;
}

static bool check_sslmode(const char *mode, struct error *phrase)
{
    static const char *const known[] = {"", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(mode, known[i]) == 0)
            return true;
    return error_set(phrase, ERROR_CONFIG,
                     "has an sslmode that libpq does not know (disable, allow, prefer, require, "
                     "verify-ca, verify-full)");
}

bool pg_url_check(const char *database_url, struct error *phrase)
{
    if (!database_url[0])
        return true;
    if (!check_parameters(database_url, phrase))
        return false;
    char *message = NULL;
    PQconninfoOption *options = PQconninfoParse(database_url, &message);
    PQfreemem(message);
    bool good = options ? check_ports(option_value(options, "port"), phrase) &&
                              check_sslmode(option_value(options, "sslmode"), phrase)
                        : error_set(phrase, ERROR_CONFIG, "is nothing that libpq understands");
    PQconninfoFree(options);
    return good;
}
