/* SPDX-License-Identifier: MIT */
/*
 * What is said to Redis before anything else: AUTH, then SELECT, as far as the address asks for them, and ROLE where a
 * master is wanted. Pure: the caller sends what stands in argv, and hands the reply in.
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
    REDIS_LOGIN_STRANGE, /* that reply is none of Redis */
    REDIS_LOGIN_NO_MASTER
};

enum redis_login_step { REDIS_LOGIN_AUTH, REDIS_LOGIN_SELECT, REDIS_LOGIN_ROLE };

struct redis_login {
    const struct redis_address *address; /* borrowed */
    bool wants_master;
    enum redis_login_step step;
    bool without_user; /* the password went alone, although there is a user */
    char database[16];
    int argc;
    const char *argv[3];
};

/* SEND or DONE. A master that may not be asked whether it is one is believed. */
enum redis_login_result redis_login_begin(struct redis_login *login, const struct redis_address *address,
                                          bool wants_master);

enum redis_login_result redis_login_answer(struct redis_login *login, const redisReply *reply);

/* An error that says that a script runs too long, or that data are being loaded: it passes by itself, and at once. */
bool redis_login_is_busy(const char *error);

#endif
