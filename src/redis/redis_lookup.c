/* SPDX-License-Identifier: MIT */
/* getaddrinfo for a link. */
#include "redis_lookup.h"

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
    struct redis_lookup *lookup = request->data;
    lookup->is_under_way = false;
    redis_lookup_forget(lookup);
    for (const struct addrinfo *at = found; at && lookup->count < REDIS_LOOKUP_MAX; at = at->ai_next)
        if (getnameinfo(at->ai_addr, at->ai_addrlen, lookup->addresses[lookup->count], NI_MAXHOST, NULL, 0,
                        NI_NUMERICHOST) == 0)
            lookup->count++;
    uv_freeaddrinfo(found);
    if (lookup->count > 0)
        lookup->on_done(lookup->context, NULL);
    else
        lookup->on_done(lookup->context, status ? uv_strerror(status) : "the name has no address");
}

const char *redis_lookup_begin(struct redis_lookup *lookup, uv_loop_t *loop, const char *host)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    if (lookup->is_under_way)
        return "the name server does not answer";
    lookup->request.data = lookup;
    int status = uv_getaddrinfo(loop, &lookup->request, on_resolved, host, NULL, &hints);
    lookup->is_under_way = status == 0;
    return status == 0 ? NULL : uv_strerror(status);
}

void redis_lookup_cancel(struct redis_lookup *lookup)
{
    if (lookup->is_under_way)
        (void)uv_cancel((uv_req_t *)&lookup->request);
}

bool redis_lookup_has_next(const struct redis_lookup *lookup)
{
    return lookup->next < lookup->count;
}

const char *redis_lookup_next(struct redis_lookup *lookup)
{
    return lookup->addresses[lookup->next++];
}

void redis_lookup_forget(struct redis_lookup *lookup)
{
    lookup->count = 0;
    lookup->next = 0;
}
