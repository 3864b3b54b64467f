/* SPDX-License-Identifier: MIT */
/* promptctl check: Redis, up to the login, and from there what redis_mode needs. */
#include <time.h>

#include "check.h"

enum { DAY_S = 86400, CERTIFICATE_DAYS = 14 /* left, and it is worth a word */ };

/* false: it did not come so far. Why is told once, of the first step that it did not come to. */
static bool has_passed(struct check *check, const char *step, bool passed, struct error *error)
{
    if (!passed && error->code == ERROR_NONE)
        check_report_step(check, step, CHECK_SKIPPED, "not tried");
    else if (!passed)
        check_fail(check, step, error);
    if (!passed)
        error->code = ERROR_NONE;
    return passed;
}

static void report_tls(struct check *check, const struct redis_tls_summary *tls)
{
    struct tm end;
    char date[32] = "?";
    time_t ends_s = (time_t)tls->ends_s;
    int64_t days = (tls->ends_s - (int64_t)time(NULL)) / DAY_S;
    if (gmtime_r(&ends_s, &end))
        (void)strftime(date, sizeof date, "%Y-%m-%d", &end);
    check_report_step(check, "redis_tls", days < CERTIFICATE_DAYS ? CHECK_NOTE : CHECK_OK,
                      "%s, %s; the server's certificate ends on %s, in %lld day%s", tls->protocol, tls->cipher, date,
                      (long long)days, days == 1 ? "" : "s");
}

/* That it is one, if it may be asked, was seen when it was opened. */
static void report_role(struct check *check, struct redis_client *client)
{
    struct error error;
    const char *const words[] = {"ROLE"};
    redisReply *reply = redis_client_call(client, 1, words, NULL, &error);
    if (reply)
        check_report_step(check, "redis_role", CHECK_OK, "%s is a master", client->server);
    else if (error.code == ERROR_CONFIG)
        check_report_step(check, "redis_role", CHECK_NOTE, "cannot be seen, the Sentinels are believed: %s",
                          error.text);
    else
        check_fail(check, "redis_role", &error);
    freeReplyObject(reply);
}

static bool open_redis(struct check *check, struct redis_client *client)
{
    struct error error = {.code = ERROR_NONE};
    bool good = redis_client_open(client, &check->ctl->settings, &error);
    const struct redis_address *address = &client->address;
    const struct redis_dial_end *end = &client->end;
    if (has_passed(check, "redis_connection", good || end->was_connected, &error))
        check_report_step(check, "redis_connection", CHECK_OK, "%s", client->server);
    if (address->tls && has_passed(check, "redis_tls", end->tls.protocol, &error))
        report_tls(check, &end->tls);
    if (has_passed(check, "redis_login", good || end->no_master, &error))
        check_report_step(check, "redis_login", CHECK_OK, "as user %s%s", address->user ? address->user : "default",
                          address->password ? "" : ", without a password");
    if (address->service && has_passed(check, "redis_role", good, &error))
        report_role(check, client);
    return good;
}

static const struct check_redis_step *const steps[] = {
    [REDIS_MODE_PUBSUB] = check_pubsub_steps,
    [REDIS_MODE_LIST] = check_list_steps,
    [REDIS_MODE_STREAM] = check_stream_steps,
};

void check_redis(struct check *check)
{
    struct redis_client client;
    const struct settings *settings = &check->ctl->settings;
    bool opened = open_redis(check, &client);
    for (const struct check_redis_step *step = steps[settings->redis_mode]; step->name; step++) {
        if (step->applies && !step->applies(settings))
            continue;
        if (opened && redis_client_is_up(&client))
            step->run(check, &client);
        else
            check_report_step(check, step->name, CHECK_SKIPPED, "not tried");
    }
    redis_client_close(&client);
}
