/* SPDX-License-Identifier: MIT */
/* A loop of its own for one question. */
#include "promptd/redis_sentinel_find.h"

#include <stdlib.h>
#include <string.h>

#include "redis_sentinel.h"

struct search {
    struct redis_sentinel *sentinel;
    struct redis_endpoint *master;
    struct error *phrase;
    bool found;
};

static void on_named(void *context, const struct redis_endpoint *master, const char *sentinel)
{
    struct search *search = context;
    (void)sentinel;
    search->master->host = strdup(master->host);
    search->master->port = master->port;
    search->found = search->master->host || error_set(search->phrase, ERROR_INTERNAL, "out of memory");
    redis_sentinel_close(search->sentinel);
}

static void on_silent(void *context, const char *reason, bool refused)
{
    struct search *search = context;
    (void)error_set(search->phrase, refused ? ERROR_CONFIG : ERROR_UNAVAILABLE, "%s", reason);
    redis_sentinel_close(search->sentinel);
}

static void on_closed(void *context)
{
    (void)context;
}

bool redis_sentinel_find(const struct redis_address *address, struct redis_tls *tls, struct redis_endpoint *master,
                         struct error *phrase)
{
    uv_loop_t loop;
    struct search search = {.master = master, .phrase = phrase};
    int status = uv_loop_init(&loop);
    if (status != 0)
        return error_set(phrase, ERROR_INTERNAL, "%s", uv_strerror(status));
    search.sentinel = redis_sentinel_new(&(struct redis_sentinel_options){
        .loop = &loop,
        .address = address,
        .tls = tls,
        .on_named = on_named,
        .on_silent = on_silent,
        .on_closed = on_closed,
        .context = &search,
    });
    if (search.sentinel) {
        redis_sentinel_ask(search.sentinel);
        (void)uv_run(&loop, UV_RUN_DEFAULT);
    } else {
        (void)error_set(phrase, ERROR_INTERNAL, "out of memory");
    }
    (void)uv_loop_close(&loop); /* nothing is left in it */
    return search.found;
}
