/* SPDX-License-Identifier: MIT */
/*
 * What is said to Redis before anything else: AUTH, then SELECT, as far as the address asks for them. Pure: the caller
 * sends what stands in argv, and hands the reply in.
 *
 * Redis before 6 knows no users: where it refuses AUTH with two arguments for their number, the password goes alone.
 */
#ifndef PROMPTD_REDIS_LOGIN_H
#define PROMPTD_REDIS_LOGIN_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>

#include "promptd/redis_address.h"

enum redis_login_result {
    REDIS_LOGIN_SEND,    /* send argv, and hand the reply in */
    REDIS_LOGIN_DONE,    /* logged in */
    REDIS_LOGIN_REFUSED, /* that reply was an error */
    REDIS_LOGIN_STRANGE  /* that reply is none of Redis */
};

enum redis_login_step { REDIS_LOGIN_AUTH, REDIS_LOGIN_SELECT };

struct redis_login {
    const struct redis_address *address; /* borrowed */
    enum redis_login_step step;
    bool without_user; /* the password went alone, although there is a user */
    char database[16];
    int argc;
    const char *argv[3];
    size_t lengths[3];
};

/* SEND or DONE. */
enum redis_login_result redis_login_begin(struct redis_login *login, const struct redis_address *address);

enum redis_login_result redis_login_answer(struct redis_login *login, const redisReply *reply);

#endif
