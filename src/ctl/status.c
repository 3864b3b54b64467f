/* SPDX-License-Identifier: MIT */
/* promptctl status: what the daemon says of itself. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#include "duration.h"
#include "http.h"
#include "modes.h"
#include "output.h"
#include "promptd/commands.h"
#include "promptd/text.h"

enum { RECENT_FAILURES_SHOWN = 5, LABEL_WIDTH = 10 };

struct page {
    const struct ctl *ctl;
    const cJSON *root;
    struct buffer out;
};

/* ---- reading: what is not there, or of another type, is as good as empty ---- */

static const cJSON *at(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

static const char *text_at(const cJSON *object, const char *key)
{
    const char *text = cJSON_GetStringValue(at(object, key));
    return text ? text : "-";
}

static double number_at(const cJSON *object, const char *key)
{
    const cJSON *item = at(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

static bool is_true_at(const cJSON *object, const char *key)
{
    return cJSON_IsTrue(at(object, key));
}

/* ---- writing ---- */

static void label(struct page *page, const char *name)
{
    buffer_printf(&page->out, "%s%-*s%s ", output_colour(page->ctl, OUTPUT_BOLD), LABEL_WIDTH, name,
                  output_colour(page->ctl, OUTPUT_PLAIN));
}

/* A word in green, or in red where that is what a person has to see. */
static void verdict(struct page *page, bool good, const char *yes, const char *no)
{
    buffer_printf(&page->out, "%s%s%s", output_colour(page->ctl, good ? OUTPUT_GREEN : OUTPUT_RED), good ? yes : no,
                  output_colour(page->ctl, OUTPUT_PLAIN));
}

static void text(struct page *page, const char *words)
{
    text_append_escaped(&page->out, words);
}

static void end_line(struct page *page)
{
    buffer_append_char(&page->out, '\n');
}

static void show_daemon(struct page *page)
{
    const cJSON *reason;
    char uptime[DURATION_TEXT_SIZE];
    duration_format((int64_t)number_at(page->root, "uptime_seconds"), uptime);
    label(page, "promptd");
    verdict(page, is_true_at(page->root, "ready"), "ready", "not ready");
    cJSON_ArrayForEach(reason, at(page->root, "not_ready"))
    {
        text(page, ": ");
        text(page, cJSON_IsString(reason) ? reason->valuestring : "-");
    }
    end_line(page);
    label(page, "");
    text(page, "version ");
    text(page, text_at(page->root, "version"));
    buffer_printf(&page->out, ", pid %.0f, up %s, ", number_at(page->root, "pid"), uptime);
    text(page, text_at(page->root, "state"));
    text(page, ", atomicity ");
    text(page, text_at(page->root, "atomicity"));
    end_line(page);
}

/* "backlog 12, " where the daemon says it. */
static void figure(struct page *page, const cJSON *object, const char *key)
{
    if (cJSON_IsNumber(at(object, key)))
        buffer_printf(&page->out, "%s %.0f, ", key, number_at(object, key));
}

static void dead_letters(struct page *page, const cJSON *object)
{
    double dead = number_at(object, "dead_letters");
    buffer_printf(&page->out, "%.0f dead letter%s%s, ", dead, dead == 1 ? "" : "s",
                  dead > 0 ? " (promptctl dead list)" : "");
}

static void show_redis(struct page *page)
{
    const cJSON *redis = at(page->root, "redis");
    const struct mode *mode = mode_by_name(text_at(redis, "mode"));
    label(page, "Redis");
    verdict(page, is_true_at(redis, "connected"), mode ? mode->up : "connected", mode ? mode->down : "not connected");
    text(page, is_true_at(redis, "circuit_open") ? ", circuit open: " : ": ");
    text(page, text_at(redis, "channel"));
    text(page, " at ");
    text(page, text_at(redis, "server"));
    text(page, ", mode ");
    text(page, text_at(redis, "mode"));
    end_line(page);
    label(page, "");
    figure(page, redis, "backlog");
    figure(page, redis, "pending");
    figure(page, redis, "consumers");
    if (at(redis, "dead_letters"))
        dead_letters(page, redis);
    text(page, "last message ");
    text(page, text_at(redis, "last_message_received"));
    if (!mode || !mode->key_type) /* else nothing is missed in a gap */
        buffer_printf(&page->out, ", %.0f gaps (%.1f s)", number_at(redis, "gaps"), number_at(redis, "gap_seconds"));
    end_line(page);
}

static void show_database(struct page *page)
{
    const cJSON *database = at(page->root, "database");
    label(page, "database");
    verdict(page, is_true_at(database, "up"), "up", "down");
    buffer_printf(&page->out, "%s: %.0f of %.0f connections\n",
                  is_true_at(database, "circuit_open") ? ", circuit open" : "", number_at(database, "connections"),
                  number_at(database, "connections_wanted"));
}

static void show_queue(struct page *page)
{
    const cJSON *queue = at(page->root, "queue");
    const cJSON *spool = at(page->root, "spool");
    label(page, "queue");
    buffer_printf(&page->out, "%.0f of %.0f messages, %.0f of %.0f bytes\n", number_at(queue, "messages"),
                  number_at(queue, "max_messages"), number_at(queue, "bytes"), number_at(queue, "max_bytes"));
    label(page, "spool");
    if (!cJSON_IsObject(spool)) {
        text(page, "none");
    } else {
        verdict(page, is_true_at(spool, "writable"), "", "cannot be written: ");
        buffer_printf(&page->out, "%.0f messages, %.0f of %.0f bytes, ", number_at(spool, "messages"),
                      number_at(spool, "bytes"), number_at(spool, "max_bytes"));
        dead_letters(page, spool);
        buffer_printf(&page->out, "%.0f of %.0f bytes", number_at(spool, "dead_bytes"),
                      number_at(spool, "dead_max_bytes"));
    }
    end_line(page);
}

static void show_counters(struct page *page)
{
    const cJSON *counters = at(page->root, "counters");
    label(page, "messages");
    buffer_printf(&page->out,
                  "%.0f received: %.0f stored, %.0f duplicate, %.0f failed, %.0f rejected, %.0f dropped,"
                  " %.0f waiting\n",
                  number_at(counters, "received"), number_at(counters, "success"), number_at(counters, "duplicate"),
                  number_at(counters, "failure"), number_at(counters, "rejected"), number_at(counters, "dropped"),
                  number_at(counters, "waiting"));
    label(page, "");
    buffer_printf(&page->out, "of the failed %.0f rolled back, %.0f orphaned\n", number_at(counters, "rollback"),
                  number_at(counters, "orphaned"));
}

static void show_orphans(struct page *page)
{
    const cJSON *orphan;
    cJSON_ArrayForEach(orphan, at(page->root, "orphans"))
    {
        label(page, "orphan");
        buffer_printf(&page->out, "%sprompt ", output_colour(page->ctl, OUTPUT_RED));
        text(page, text_at(orphan, "prompt_id"));
        text(page, " of interview ");
        text(page, text_at(orphan, "interview_id"));
        text(page, " since ");
        text(page, text_at(orphan, "since"));
        buffer_printf(&page->out, "%s\n", output_colour(page->ctl, OUTPUT_PLAIN));
    }
    if (cJSON_GetArraySize(at(page->root, "orphans")) > 0) {
        label(page, "");
        text(page, "promptctl orphans --delete cleans up");
        end_line(page);
    }
}

static void show_recent_failures(struct page *page)
{
    const cJSON *failure;
    int shown = 0;
    cJSON_ArrayForEach(failure, at(page->root, "troubles"))
    {
        if (shown == RECENT_FAILURES_SHOWN)
            break;
        label(page, shown++ == 0 ? "troubles" : "");
        text(page, text_at(failure, "time"));
        text(page, " ");
        text(page, text_at(failure, "outcome"));
        text(page, ", interview ");
        text(page, text_at(failure, "interview_id"));
        text(page, ": ");
        text(page, text_at(failure, "reason"));
        end_line(page);
    }
    int more = cJSON_GetArraySize(at(page->root, "troubles")) - shown;
    if (more > 0) {
        label(page, "");
        buffer_printf(&page->out, "and %d before them (promptctl status --json)\n", more);
    }
}

static void show(const struct ctl *ctl, const cJSON *root)
{
    struct page page = {.ctl = ctl, .root = root};
    show_daemon(&page);
    show_redis(&page);
    show_database(&page);
    show_queue(&page);
    show_counters(&page);
    show_orphans(&page);
    show_recent_failures(&page);
    output_write(&page.out);
}

int ctl_status(struct ctl *ctl)
{
    struct error error;
    struct buffer body = {0};
    const char *listen = ctl->settings.admin_listen;
    cJSON *root = NULL;
    bool good = http_get(listen, "/status", &body, &error);
    if (good) {
        root = cJSON_Parse(body.data);
        good = cJSON_IsBool(at(root, "ready")) ||
               error_set(&error, ERROR_UNAVAILABLE, "what answers at %.200s is no promptd", listen);
    }
    int status = CTL_OK;
    if (!good) {
        status = output_fail(&error);
        buffer_free(&body);
    } else {
        status = is_true_at(root, "ready") ? CTL_OK : CTL_FOUND;
        if (!ctl_has(ctl, CTL_OPTION_QUIET) && !ctl_has(ctl, CTL_OPTION_JSON))
            show(ctl, root);
        body.length = strlen(body.data);
        buffer_append_text(&body, body.length > 0 && body.data[body.length - 1] == '\n' ? "" : "\n");
        if (ctl_has(ctl, CTL_OPTION_JSON) && !ctl_has(ctl, CTL_OPTION_QUIET))
            output_write(&body);
        buffer_free(&body);
    }
    cJSON_Delete(root);
    return status;
}
