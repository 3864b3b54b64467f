/* SPDX-License-Identifier: MIT */
/* promptctl check: Redis, up to a real subscription. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "redis.h"

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
                      "%s, %s; the server's certificate ends on %s, in %lld days", summary.protocol, summary.cipher,
                      date, (long long)days);
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
    redisReply *reply = redis_client_call(client, 1, ping, NULL, error);
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

/* Before we listen ourselves. */
static void check_listeners(struct check *check, struct redis_client *client, struct error *error)
{
    const char *channel = check->ctl->settings.redis_channel;
    const char *const words[] = {"PUBSUB", "NUMSUB", channel};
    redisReply *reply = redis_client_call(client, 3, words, NULL, error);
    if (!reply && error->code != ERROR_CONFIG)
        check_fail(check, "redis_listeners", error);
    else if (!reply || reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
             reply->element[1]->type != REDIS_REPLY_INTEGER)
        check_report_step(check, "redis_listeners", CHECK_NOTE, "cannot be seen: %s",
                          reply ? "no answer" : error->text);
    else if (reply->element[1]->integer == 0)
        check_report_step(check, "redis_listeners", CHECK_OK, "nobody else listens on %s", channel);
    else
        check_report_step(check, "redis_listeners", CHECK_NOTE,
                          "%lld other%s on %s: a running promptd is one; is each of them meant to be there?",
                          reply->element[1]->integer, reply->element[1]->integer == 1 ? " listens" : "s listen",
                          channel);
    freeReplyObject(reply);
}

/* Queued for a transaction that is given up: the server judges the permission, and nobody hears a thing. */
static void check_events(struct check *check, struct redis_client *client, struct error *error)
{
    const char *channel = check->ctl->settings.events_channel;
    const char *const multi[] = {"MULTI"};
    const char *const publish[] = {"PUBLISH", channel, "{}"};
    const char *const discard[] = {"DISCARD"};
    redisReply *begun = redis_client_call(client, 1, multi, NULL, error);
    if (!begun && error->code == ERROR_CONFIG) {
        check_report_step(check, "redis_events", CHECK_NOTE, "cannot be tried without publishing: %s", error->text);
        return;
    }
    redisReply *queued = begun ? redis_client_call(client, 3, publish, NULL, error) : NULL;
    if (queued)
        check_report_step(check, "redis_events", CHECK_OK, "may be published on %s", channel);
    else
        check_fail(check, "redis_events", error);
    freeReplyObject(begun);
    freeReplyObject(queued);
    freeReplyObject(redis_client_call(client, 1, discard, NULL, error));
}

static void check_subscription(struct check *check, struct redis_client *client, struct error *error)
{
    const char *channel = check->ctl->settings.redis_channel;
    const char *const words[] = {"SUBSCRIBE", channel};
    redisReply *reply = redis_client_call(client, 2, words, NULL, error);
    if (reply && reply->type != REDIS_REPLY_ARRAY)
        (void)error_set(error, ERROR_UNAVAILABLE, "%s is no Redis: its answer to SUBSCRIBE is no list", client->server);
    if (!reply || reply->type != REDIS_REPLY_ARRAY)
        check_fail(check, "redis_subscribe", error);
    else
        check_report_step(check, "redis_subscribe", CHECK_OK, "%s", channel);
    freeReplyObject(reply);
}

void check_redis(struct check *check)
{
    struct redis_client client;
    struct error error;
    bool has_events = check->ctl->settings.events_channel[0];
    bool connected = check_connection(check, &client, &error);
    if (!connected)
        check_report_step(check, "redis_login", CHECK_SKIPPED, "not tried");
    bool logged_in = connected && check_login(check, &client, &error);
    if (!logged_in && client.address.service)
        check_report_step(check, "redis_role", CHECK_SKIPPED, "not tried");
    if (logged_in && check_role(check, &client, &error)) {
        check_listeners(check, &client, &error);
        if (has_events)
            check_events(check, &client, &error);
        check_subscription(check, &client, &error);
    } else {
        check_report_step(check, "redis_listeners", CHECK_SKIPPED, "not tried");
        if (has_events)
            check_report_step(check, "redis_events", CHECK_SKIPPED, "not tried");
        check_report_step(check, "redis_subscribe", CHECK_SKIPPED, "not tried");
    }
    redis_client_close(&client);
}
