/* SPDX-License-Identifier: MIT */
/* The two halves of promptctl check. */
#ifndef PROMPTCTL_CHECK_H
#define PROMPTCTL_CHECK_H

#include "check_report.h"
#include "redis.h"

void check_redis(struct check *check);
void check_sentinels(struct check *check);
void check_database(struct check *check);

/* What is tried in Redis once the login stands. Each reports under its name, or others beside it. */
struct check_redis_step {
    const char *name;
    void (*run)(struct check *check, struct redis_client *client);
    bool (*applies)(const struct settings *settings); /* NULL: always */
};

extern const struct check_redis_step check_pubsub_steps[]; /* end with a NULL name */
extern const struct check_redis_step check_list_steps[];
extern const struct check_redis_step check_stream_steps[];

/* The last step of a list and of a stream: whether promptd may do all that it does. */
void check_list_permissions(struct check *check, struct redis_client *client);
void check_stream_permissions(struct check *check, struct redis_client *client);

/* With events_channel set, in any mode: whether events may be published. */
bool check_has_events(const struct settings *settings);
void check_events(struct check *check, struct redis_client *client);

/* How many subscribe to redis_channel; false: it was reported why that cannot be seen. */
bool check_count_listeners(struct check *check, struct redis_client *client, long long *count);

#endif
