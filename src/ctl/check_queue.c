/* SPDX-License-Identifier: MIT */
/* promptctl check: what a list or a stream needs in Redis. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "modes.h"
#include "promptd/text.h"

enum { VERSION_MAJOR = 6, VERSION_MINOR = 2, CONSUMERS_SHOWN = 100 };

static const char group[] = "promptd";

/* ---- looks ---- */

/* The reply to a look, or NULL: then it was reported. */
static redisReply *look(struct check *check, const char *step, struct redis_client *client, int type, int argc,
                        const char *const *argv)
{
    struct error error;
    redisReply *reply = redis_client_call_for(client, type, argc, argv, NULL, &error);
    if (!reply)
        check_report_unseen(check, step, &error);
    return reply;
}

static char *key_of(struct check *check, const char *suffix)
{
    char *key = mode_key(&check->ctl->settings, suffix);
    if (!key)
        check_fail(check, "redis_queue", &(struct error){.code = ERROR_INTERNAL, .text = "out of memory"});
    return key;
}

/* "name:value" of INFO; false: it is not there. */
static bool read_info(const redisReply *info, const char *name, char *value, size_t size)
{
    const char *line = info->str;
    size_t length = strlen(name);
    while (line) {
        if (strncmp(line, name, length) == 0 && line[length] == ':') {
            (void)snprintf(value, size, "%.*s", (int)strcspn(line + length + 1, "\r\n"), line + length + 1);
            return true;
        }
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    return false;
}

/* ---- steps ---- */

/* Whoever still publishes cannot be seen; who subscribes can. */
static void check_old_listeners(struct check *check, struct redis_client *client)
{
    const char *channel = check->ctl->settings.redis_channel;
    long long count = 0;
    if (!check_count_listeners(check, client, &count))
        return;
    if (count == 0)
        check_report_step(check, "redis_listeners", CHECK_OK, "nobody subscribes to a channel %s", channel);
    else
        check_report_step(check, "redis_listeners", CHECK_NOTE,
                          "%lld subscribe%s to a channel %s: an old promptd, or one with another redis_mode? What is"
                          " published does not come here",
                          count, count == 1 ? "s" : "", channel);
}

static void check_version(struct check *check, struct redis_client *client)
{
    const char *const words[] = {"INFO", "server"};
    char version[32];
    int major = 0;
    int minor = 0;
    redisReply *reply = look(check, "redis_version", client, REDIS_REPLY_STRING, 2, words);
    if (!reply)
        return;
    bool known = read_info(reply, "redis_version", version, sizeof version) &&
                 sscanf(version, "%d.%d", &major, &minor) == 2; /* NOLINT(cert-err34-c): two small numbers */
    freeReplyObject(reply);
    if (!known) {
        check_report_step(check, "redis_version", CHECK_NOTE, "cannot be seen: INFO does not tell it");
    } else if (major > VERSION_MAJOR || (major == VERSION_MAJOR && minor >= VERSION_MINOR)) {
        check_report_step(check, "redis_version", CHECK_OK, "%s", version);
    } else {
        struct error error;
        (void)error_set(&error, ERROR_CONFIG, "Redis %s is too old: redis_mode=%s needs %d.%d", version,
                        mode_of(&check->ctl->settings)->name, VERSION_MAJOR, VERSION_MINOR);
        check_fail(check, "redis_version", &error);
    }
}

static void check_memory(struct check *check, struct redis_client *client)
{
    const char *const words[] = {"INFO", "memory"};
    char policy[40];
    char limit[32] = "0";
    redisReply *reply = look(check, "redis_memory", client, REDIS_REPLY_STRING, 2, words);
    if (!reply)
        return;
    bool known = read_info(reply, "maxmemory_policy", policy, sizeof policy);
    (void)read_info(reply, "maxmemory", limit, sizeof limit);
    freeReplyObject(reply);
    bool has_limit = strcmp(limit, "0") != 0;
    if (!known)
        check_report_step(check, "redis_memory", CHECK_NOTE, "cannot be seen: INFO does not tell maxmemory-policy");
    else if (strcmp(policy, "noeviction") == 0)
        check_report_step(check, "redis_memory", CHECK_OK, "maxmemory-policy is noeviction");
    else
        check_report_step(
            check, "redis_memory", CHECK_NOTE,
            "maxmemory-policy is %s: Redis may delete messages that wait when %s is reached; set noeviction", policy,
            has_limit ? limit : "a maxmemory (there is none now)");
}

/* The key itself: its type, and how much is in it. */
static void check_key(struct check *check, struct redis_client *client)
{
    struct error error;
    char type[MODE_TYPE_SIZE];
    const struct settings *settings = &check->ctl->settings;
    const struct mode *mode = mode_of(settings);
    if (!mode_ask_type(client, settings->redis_channel, type, &error)) {
        check_report_unseen(check, "redis_queue", &error);
    } else if (!mode_fits_type(settings, type, &error)) {
        check_fail(check, "redis_queue", &error);
    } else if (strcmp(type, "none") == 0) {
        check_report_step(check, "redis_queue", CHECK_OK, "the %s %s is %s", mode->key_type, settings->redis_channel,
                          mode->missing);
    } else {
        long long length = mode_ask_number(client, mode->length_command, settings->redis_channel);
        if (length < 0)
            check_report_step(check, "redis_queue", CHECK_NOTE, "%s is a %s; its length cannot be seen",
                              settings->redis_channel, type);
        else
            check_report_step(check, "redis_queue", CHECK_OK, "%lld message%s in the %s %s", length,
                              length == 1 ? "" : "s", type, settings->redis_channel);
    }
}

static void check_dead_letters(struct check *check, struct redis_client *client)
{
    struct error error;
    char type[MODE_TYPE_SIZE];
    char *key = key_of(check, ":dead");
    if (!key)
        return;
    if (!mode_ask_type(client, key, type, &error)) {
        check_report_unseen(check, "redis_dead_letters", &error);
    } else if (strcmp(type, "none") != 0 && strcmp(type, "stream") != 0) {
        (void)error_set(&error, ERROR_CONFIG, "the key %.128s is a %s, and dead letters need a stream there", key,
                        type);
        check_fail(check, "redis_dead_letters", &error);
    } else {
        long long count = strcmp(type, "none") == 0 ? 0 : mode_ask_number(client, "XLEN", key);
        if (count < 0)
            check_report_step(check, "redis_dead_letters", CHECK_NOTE, "%s: their number cannot be seen", key);
        else
            check_report_step(check, "redis_dead_letters", CHECK_OK, "%lld in %s", count, key);
    }
    free(key);
}

/* ---- list: who takes ---- */

struct takers {
    long long living;
    long long taken; /* messages, by all */
    long long gone;
    long long left_behind; /* messages, of those that are gone */
};

static bool count_taker(struct check *check, struct redis_client *client, const char *consumer, struct takers *takers)
{
    char suffix[200];
    (void)snprintf(suffix, sizeof suffix, ":consumer:%.150s", consumer);
    char *alive = key_of(check, suffix);
    (void)snprintf(suffix, sizeof suffix, ":processing:%.150s", consumer);
    char *processing = key_of(check, suffix);
    long long lives = alive ? mode_ask_number(client, "EXISTS", alive) : -1;
    long long taken = processing ? mode_ask_number(client, "LLEN", processing) : -1;
    free(alive);
    free(processing);
    if (lives < 0 || taken < 0)
        return false;
    takers->living += lives > 0;
    takers->gone += lives == 0;
    takers->taken += taken;
    takers->left_behind += lives ? 0 : taken;
    return true;
}

static void report_takers(struct check *check, const struct takers *takers)
{
    check_report_step(check, "redis_consumers", CHECK_OK, "%lld promptd take%s from it, and %s %lld in work",
                      takers->living, takers->living == 1 ? "s" : "", takers->living == 1 ? "has" : "have",
                      takers->taken - takers->left_behind);
    if (takers->left_behind > 0)
        check_report_step(check, "redis_consumers", CHECK_NOTE,
                          "%lld consumer%s gone without a word, and left %lld message%s behind: any promptd that runs"
                          " puts them back within a minute",
                          takers->gone, takers->gone == 1 ? " is" : "s are", takers->left_behind,
                          takers->left_behind == 1 ? "" : "s");
}

static void check_takers(struct check *check, struct redis_client *client)
{
    char most[16];
    char *key = key_of(check, ":consumers");
    if (!key)
        return;
    (void)snprintf(most, sizeof most, "%d", CONSUMERS_SHOWN);
    const char *const words[] = {"SRANDMEMBER", key, most};
    struct takers takers = {0};
    redisReply *reply = look(check, "redis_consumers", client, REDIS_REPLY_ARRAY, 3, words);
    bool seen = reply != NULL;
    for (size_t i = 0; seen && i < reply->elements && i < CONSUMERS_SHOWN; i++) {
        const redisReply *name = reply->element[i];
        seen = name->type == REDIS_REPLY_STRING && count_taker(check, client, name->str, &takers);
    }
    if (seen)
        report_takers(check, &takers);
    else if (reply)
        check_report_step(check, "redis_consumers", CHECK_NOTE, "cannot be seen: EXISTS or LLEN is refused");
    freeReplyObject(reply);
    free(key);
}

/* ---- stream: groups ---- */

/* Of a flat list of names and values. */
static const redisReply *value_of(const redisReply *pairs, const char *name)
{
    for (size_t i = 0; pairs->type == REDIS_REPLY_ARRAY && i + 1 < pairs->elements; i += 2) {
        if (pairs->element[i]->type == REDIS_REPLY_STRING && strcmp(pairs->element[i]->str, name) == 0)
            return pairs->element[i + 1];
    }
    return NULL;
}

static long long number_of(const redisReply *pairs, const char *name)
{
    const redisReply *value = value_of(pairs, name);
    return value && value->type == REDIS_REPLY_INTEGER ? value->integer : -1;
}

static const char *name_of(const redisReply *pairs)
{
    const redisReply *value = value_of(pairs, "name");
    return value && value->type == REDIS_REPLY_STRING ? value->str : "";
}

/* Alone, promptd deletes what it is done with, so what is in the stream and not pending is the backlog. Beside others
 * only Redis 7 can tell; -1: nobody can. */
static long long backlog_of(const redisReply *pairs, bool is_only, long long length)
{
    return is_only && length >= 0 ? length - number_of(pairs, "pending") : number_of(pairs, "lag");
}

static void report_group(struct check *check, const redisReply *pairs, long long backlog)
{
    char text[32] = "unknown";
    long long consumers = number_of(pairs, "consumers");
    if (backlog >= 0)
        (void)snprintf(text, sizeof text, "%lld", backlog);
    check_report_step(check, "redis_group", CHECK_OK, "group %s: %lld consumer%s, backlog %s, pending %lld", group,
                      consumers, consumers == 1 ? "" : "s", text, number_of(pairs, "pending"));
}

static void report_no_group(struct check *check, long long length)
{
    if (length > 0)
        check_report_step(check, "redis_group", CHECK_NOTE,
                          "no group %s yet: promptd makes it when it starts, and takes the stream from its beginning,"
                          " all %lld entries",
                          group, length);
    else
        check_report_step(check, "redis_group", CHECK_OK, "no group %s yet: promptd makes it when it starts", group);
}

static void report_groups(struct check *check, const redisReply *groups, long long length)
{
    const redisReply *own = NULL;
    struct buffer others = {0};
    for (size_t i = 0; i < groups->elements; i++) {
        const char *name = name_of(groups->element[i]);
        if (strcmp(name, group) == 0)
            own = groups->element[i];
        else
            buffer_printf(&others, "%s%s", others.length > 0 ? ", " : "", name);
    }
    bool is_only = others.length == 0;
    buffer_append_char(&others, '\0');
    if (own)
        report_group(check, own, backlog_of(own, is_only, length));
    else
        report_no_group(check, length);
    if (!is_only)
        check_report_step(check, "redis_group", CHECK_NOTE,
                          "others read the stream, too (%.200s): promptd deletes nothing then, trimming is theirs",
                          others.failed ? "" : others.data);
    buffer_free(&others);
}

static void check_groups(struct check *check, struct redis_client *client)
{
    struct error error;
    const char *channel = check->ctl->settings.redis_channel;
    const char *const words[] = {"XINFO", "GROUPS", channel};
    redisReply *reply = redis_client_call_for(client, REDIS_REPLY_ARRAY, 3, words, NULL, &error);
    if (reply)
        report_groups(check, reply, mode_ask_number(client, "XLEN", channel));
    else if (strstr(error.text, "no such key"))
        report_no_group(check, 0);
    else if (strstr(error.text, "WRONGTYPE"))
        check_report_step(check, "redis_group", CHECK_SKIPPED, "not tried");
    else
        check_report_unseen(check, "redis_group", &error);
    freeReplyObject(reply);
}

const struct check_redis_step check_list_steps[] = {
    {"redis_listeners", check_old_listeners, NULL},
    {"redis_version", check_version, NULL},
    {"redis_memory", check_memory, NULL},
    {"redis_queue", check_key, NULL},
    {"redis_consumers", check_takers, NULL},
    {"redis_dead_letters", check_dead_letters, NULL},
    {"redis_events", check_events, check_has_events},
    {"redis_permissions", check_list_permissions, NULL},
    {NULL, NULL, NULL},
};

const struct check_redis_step check_stream_steps[] = {
    {"redis_listeners", check_old_listeners, NULL},
    {"redis_version", check_version, NULL},
    {"redis_memory", check_memory, NULL},
    {"redis_queue", check_key, NULL},
    {"redis_group", check_groups, NULL},
    {"redis_dead_letters", check_dead_letters, NULL},
    {"redis_events", check_events, check_has_events},
    {"redis_permissions", check_stream_permissions, NULL},
    {NULL, NULL, NULL},
};
