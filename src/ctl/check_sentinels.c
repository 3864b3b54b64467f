/* SPDX-License-Identifier: MIT */
/* promptctl check: what each Sentinel says. One that does not answer is noticed before it is the last. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "promptd/buffer.h"
#include "promptd/redis_address.h"
#include "promptd/redis_sentinel_find.h"

struct poll {
    struct buffer words; /* of each Sentinel */
    char *first_master;  /* NULL: none was named */
    size_t naming;       /* so many named it */
    size_t asked;
    struct error error; /* of the last that named none; a refusal rather than silence */
};

static void note_master(struct poll *poll, const char *sentinel, const struct redis_endpoint *master)
{
    char name[REDIS_ADDRESS_NAME_SIZE];
    redis_endpoint_name(master, name);
    buffer_printf(&poll->words, "%s names %s", sentinel, name);
    if (!poll->first_master)
        poll->first_master = strdup(name);
    poll->naming += poll->first_master && strcmp(poll->first_master, name) == 0;
}

static void note_error(struct poll *poll, const struct error *error)
{
    buffer_append_text(&poll->words, error->text);
    if (poll->error.code != ERROR_CONFIG)
        poll->error = *error;
}

static void ask(struct poll *poll, const struct redis_address *address, struct redis_tls *tls, size_t index)
{
    struct redis_address one = *address; /* its strings are borrowed */
    struct redis_endpoint master = {0};
    struct error error;
    char sentinel[REDIS_ADDRESS_NAME_SIZE];
    one.sentinels[0] = address->sentinels[index];
    one.sentinel_count = 1;
    redis_endpoint_name(&one.sentinels[0], sentinel);
    if (poll->asked++ > 0)
        buffer_append_text(&poll->words, "; ");
    if (redis_sentinel_find(&one, tls, &master, &error))
        note_master(poll, sentinel, &master);
    else
        note_error(poll, &error);
    free(master.host);
}

static void report(struct check *check, struct poll *poll)
{
    buffer_append_char(&poll->words, '\0');
    if (poll->words.failed) {
        (void)error_set(&poll->error, ERROR_INTERNAL, "out of memory");
        check_fail(check, "redis_sentinels", &poll->error);
    } else if (!poll->first_master) {
        (void)error_set(&poll->error, poll->error.code, "%s", poll->words.data);
        check_fail(check, "redis_sentinels", &poll->error);
    } else {
        check_report_step(check, "redis_sentinels", poll->naming == poll->asked ? CHECK_OK : CHECK_NOTE,
                          "%zu of %zu name %s: %s", poll->naming, poll->asked, poll->first_master, poll->words.data);
    }
}

static void ask_all(struct check *check, const struct redis_address *address, struct redis_tls *tls)
{
    struct poll poll = {.error = {.code = ERROR_UNAVAILABLE}};
    for (size_t i = 0; i < address->sentinel_count; i++)
        ask(&poll, address, tls, i);
    report(check, &poll);
    buffer_free(&poll.words);
    free(poll.first_master);
}

void check_sentinels(struct check *check)
{
    const struct settings *settings = &check->ctl->settings;
    struct redis_address address;
    struct error error;
    if (!redis_address_parse(settings->redis_url, &address, &error))
        return; /* cannot be: it was checked */
    struct redis_tls *tls = address.service && address.tls ? redis_tls_new(settings, &error) : NULL;
    if (address.service && (tls || !address.tls))
        ask_all(check, &address, tls);
    else if (address.service)
        check_fail(check, "redis_sentinels", &error);
    redis_tls_free(tls);
    redis_address_free(&address);
}
