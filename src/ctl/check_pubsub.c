/* SPDX-License-Identifier: MIT */
/* promptctl check: a channel, up to a real subscription. */
#include <string.h>

#include "check.h"
#include "modes.h"

bool check_count_listeners(struct check *check, struct redis_client *client, long long *count)
{
    struct error error;
    const char *const words[] = {"PUBSUB", "NUMSUB", check->ctl->settings.redis_channel};
    redisReply *reply = redis_client_call_for(client, REDIS_REPLY_ARRAY, 3, words, NULL, &error);
    bool is_answer = reply && reply->elements == 2 && reply->element[1]->type == REDIS_REPLY_INTEGER;
    if (reply && !is_answer)
        (void)redis_client_misunderstand(client, words[0], &error);
    if (is_answer)
        *count = reply->element[1]->integer;
    else
        check_report_unseen(check, "redis_listeners", &error);
    freeReplyObject(reply);
    return is_answer;
}

/* Somebody may push what should be published. An account that may not look is fine: promptd needs no key then. */
static void look_for_key(struct check *check, struct redis_client *client)
{
    struct error error;
    char type[MODE_TYPE_SIZE];
    const char *channel = check->ctl->settings.redis_channel;
    if (!mode_ask_type(client, channel, type, &error)) {
        if (error.code == ERROR_UNAVAILABLE)
            check_fail(check, "redis_key", &error);
        return;
    }
    const struct mode *mode = mode_by_key_type(type);
    if (mode)
        check_report_step(check, "redis_key", CHECK_NOTE,
                          "there is a %s of the name %s: does the workflow use %s? With redis_mode=%s nobody reads it,"
                          " with redis_mode=%s promptd would",
                          type, channel, mode->command, mode_of(&check->ctl->settings)->name, mode->name);
}

/* Before we listen ourselves. */
static void check_listeners(struct check *check, struct redis_client *client)
{
    const char *channel = check->ctl->settings.redis_channel;
    long long count = 0;
    bool seen = check_count_listeners(check, client, &count);
    if (seen && count == 0)
        check_report_step(check, "redis_listeners", CHECK_OK, "nobody else listens on %s", channel);
    else if (seen)
        check_report_step(check, "redis_listeners", CHECK_NOTE,
                          "%lld other%s on %s: a running promptd is one; is each of them meant to be there?", count,
                          count == 1 ? " listens" : "s listen", channel);
    look_for_key(check, client);
}

bool check_has_events(const struct settings *settings)
{
    return settings->events_channel[0] != '\0';
}

/* Queued for a transaction that is given up: the server judges the permission, and nobody hears a thing. */
void check_events(struct check *check, struct redis_client *client)
{
    struct error error;
    const char *channel = check->ctl->settings.events_channel;
    const char *const multi[] = {"MULTI"};
    const char *const publish[] = {"PUBLISH", channel, "{}"};
    const char *const discard[] = {"DISCARD"};
    redisReply *begun = redis_client_call_for(client, REDIS_REPLY_STATUS, 1, multi, NULL, &error);
    if (!begun && error.code == ERROR_CONFIG) {
        check_report_step(check, "redis_events", CHECK_NOTE, "cannot be tried without publishing: %s", error.text);
        return;
    }
    redisReply *queued = begun ? redis_client_call_for(client, REDIS_REPLY_STATUS, 3, publish, NULL, &error) : NULL;
    if (queued)
        check_report_step(check, "redis_events", CHECK_OK, "may be published on %s", channel);
    else
        check_fail(check, "redis_events", &error);
    freeReplyObject(begun);
    freeReplyObject(queued);
    freeReplyObject(redis_client_call(client, 1, discard, NULL, &error));
}

static void check_subscription(struct check *check, struct redis_client *client)
{
    struct error error;
    const char *channel = check->ctl->settings.redis_channel;
    if (redis_client_subscribe(client, channel, &error))
        check_report_step(check, "redis_subscribe", CHECK_OK, "%s", channel);
    else
        check_fail(check, "redis_subscribe", &error);
}

const struct check_redis_step check_pubsub_steps[] = {
    {"redis_listeners", check_listeners, NULL},
    {"redis_events", check_events, check_has_events},
    {"redis_subscribe", check_subscription, NULL},
    {NULL, NULL, NULL},
};
