/* SPDX-License-Identifier: MIT */
/* promptctl check: Redis, up to the login, and from there what redis_mode needs. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "check.h"

enum { DAY_S = 86400, CERTIFICATE_DAYS = 14 /* left, and it is worth a word */ };

static void report_tls(struct check *check, const struct redis_client *client)
{
    struct redis_tls_summary summary;
    struct tm end;
    char date[32] = "?";
    redis_tls_describe(client->session, &summary);
    time_t ends_s = (time_t)summary.ends_s;
    int64_t days = (summary.ends_s - (int64_t)time(NULL)) / DAY_S;
    if (gmtime_r(&ends_s, &end))
        (void)strftime(date, sizeof date, "%Y-%m-%d", &end);
    check_report_step(check, "redis_tls", days < CERTIFICATE_DAYS ? CHECK_NOTE : CHECK_OK,
                      "%s, %s; the server's certificate ends on %s, in %lld day%s", summary.protocol, summary.cipher,
                      date, (long long)days, days == 1 ? "" : "s");
}

/* TCP, and TLS where the URL says so. */
static bool check_connection(struct check *check, struct redis_client *client, struct error *error)
{
    bool good = redis_client_connect(client, &check->ctl->settings, error);
    if (client->is_connected)
        check_report_step(check, "redis_connection", CHECK_OK, "%s", client->server);
    else
        check_fail(check, "redis_connection", error);
    if (!client->address.tls)
        return good;
    if (good)
        report_tls(check, client);
    else if (client->is_connected)
        check_fail(check, "redis_tls", error);
    else
        check_report_step(check, "redis_tls", CHECK_SKIPPED, "not tried");
    return good;
}

/* A server that lets nobody in says so at the first command, if there was no login. That PING itself may be forbidden,
 * or unknown, is no fault. */
static bool answers(struct redis_client *client, struct error *error)
{
    const char *const ping[] = {"PING"};
    redisReply *reply = redis_client_call_for(client, REDIS_REPLY_STATUS, 1, ping, NULL, error);
    bool answers = reply || (error->code == ERROR_CONFIG &&
                             (strstr(error->text, ": NOPERM") || strstr(error->text, ": ERR unknown command")));
    freeReplyObject(reply);
    return answers;
}

static bool check_login(struct check *check, struct redis_client *client, struct error *error)
{
    if (!redis_client_login(client, error) || !answers(client, error)) {
        check_fail(check, "redis_login", error);
        return false;
    }
    check_report_step(check, "redis_login", CHECK_OK, "as user %s%s",
                      client->address.user ? client->address.user : "default",
                      client->address.password ? "" : ", without a password");
    return true;
}

/* Where Sentinels named it. */
static bool check_role(struct check *check, struct redis_client *client, struct error *error)
{
    error->code = ERROR_NONE;
    if (!redis_client_check_role(client, error)) {
        check_fail(check, "redis_role", error);
        return false;
    }
    if (error->code != ERROR_NONE)
        check_report_step(check, "redis_role", CHECK_NOTE, "cannot be seen, the Sentinels are believed: %s",
                          error->text);
    else if (client->address.service)
        check_report_step(check, "redis_role", CHECK_OK, "%s is a master", client->server);
    return true;
}

static const struct check_redis_step *const steps[] = {
    [REDIS_MODE_PUBSUB] = check_pubsub_steps,
    [REDIS_MODE_LIST] = check_list_steps,
    [REDIS_MODE_STREAM] = check_stream_steps,
};

void check_redis(struct check *check)
{
    struct redis_client client;
    struct error error;
    const struct settings *settings = &check->ctl->settings;
    bool connected = check_connection(check, &client, &error);
    if (!connected)
        check_report_step(check, "redis_login", CHECK_SKIPPED, "not tried");
    bool logged_in = connected && check_login(check, &client, &error);
    if (!logged_in && client.address.service)
        check_report_step(check, "redis_role", CHECK_SKIPPED, "not tried");
    logged_in = logged_in && check_role(check, &client, &error);
    for (const struct check_redis_step *step = steps[settings->redis_mode]; step->name; step++) {
        if (step->applies && !step->applies(settings))
            continue;
        if (logged_in && redis_client_is_up(&client))
            step->run(check, &client);
        else
            check_report_step(check, step->name, CHECK_SKIPPED, "not tried");
    }
    redis_client_close(&client);
}
