/* SPDX-License-Identifier: MIT */
/* AUTH, SELECT and ROLE. */
#include "redis_login.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static enum redis_login_result say(struct redis_login *login, const char *first, const char *second, const char *third)
{
    login->argc = third ? 3 : second ? 2 : 1;
    login->argv[0] = first;
    login->argv[1] = second;
    login->argv[2] = third;
    return REDIS_LOGIN_SEND;
}

static enum redis_login_result ask_role(struct redis_login *login)
{
    if (!login->wants_master)
        return REDIS_LOGIN_DONE;
    login->step = REDIS_LOGIN_ROLE;
    return say(login, "ROLE", NULL, NULL);
}

static enum redis_login_result select_database(struct redis_login *login)
{
    if (login->address->database == 0)
        return ask_role(login);
    login->step = REDIS_LOGIN_SELECT;
    (void)snprintf(login->database, sizeof login->database, "%d", login->address->database);
    return say(login, "SELECT", login->database, NULL);
}

static enum redis_login_result authenticate(struct redis_login *login)
{
    const struct redis_address *address = login->address;
    if (address->user && !login->without_user)
        return say(login, "AUTH", address->user, address->password);
    return say(login, "AUTH", address->password, NULL);
}

enum redis_login_result redis_login_begin(struct redis_login *login, const struct redis_address *address,
                                          bool wants_master)
{
    *login = (struct redis_login){.address = address, .wants_master = wants_master};
    return address->password ? authenticate(login) : select_database(login);
}

static bool knows_no_users(const struct redis_login *login, const redisReply *reply)
{
    static const char before_6[] = "ERR wrong number of arguments for 'auth'";
    return login->step == REDIS_LOGIN_AUTH && login->address->user && !login->without_user &&
           strncasecmp(reply->str, before_6, sizeof before_6 - 1) == 0;
}

bool redis_login_is_busy(const char *error)
{
    return strncmp(error, "BUSY ", 5) == 0 || strncmp(error, "LOADING ", 8) == 0;
}

/* "master" or "slave"; NULL: this is no answer to ROLE. */
static const char *role_in(const redisReply *reply)
{
    bool has_role = reply->type == REDIS_REPLY_ARRAY && reply->elements > 0;
    return has_role && reply->element[0]->type == REDIS_REPLY_STRING ? reply->element[0]->str : NULL;
}

static enum redis_login_result judge_role(const redisReply *reply)
{
    const char *role = role_in(reply);
    if (reply->type == REDIS_REPLY_ERROR)
        return redis_login_is_busy(reply->str) ? REDIS_LOGIN_REFUSED : REDIS_LOGIN_DONE;
    return role && strcmp(role, "master") == 0 ? REDIS_LOGIN_DONE : REDIS_LOGIN_NO_MASTER;
}

enum redis_login_result redis_login_answer(struct redis_login *login, const redisReply *reply)
{
    if (login->step == REDIS_LOGIN_ROLE)
        return judge_role(reply);
    if (reply->type == REDIS_REPLY_ERROR && knows_no_users(login, reply)) {
        login->without_user = true;
        return authenticate(login);
    }
    if (reply->type == REDIS_REPLY_ERROR)
        return REDIS_LOGIN_REFUSED;
    if (reply->type != REDIS_REPLY_STATUS || strcmp(reply->str, "OK") != 0)
        return REDIS_LOGIN_STRANGE;
    return login->step == REDIS_LOGIN_AUTH ? select_database(login) : ask_role(login);
}
