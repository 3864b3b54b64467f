/* SPDX-License-Identifier: MIT */
/* What the spool's tests share. */
#include "spool_fixture.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "promptd/log.h"

static void on_put(void *context, void *token, enum spool_put_result result, int64_t sequence)
{
    struct spool_fixture *fixture = context;
    if ((fixture->put_count & (fixture->put_count - 1)) == 0) {
        size_t room = fixture->put_count ? fixture->put_count * 2 : 1;
        fixture->puts = realloc(fixture->puts, room * sizeof *fixture->puts);
        assert_non_null(fixture->puts);
    }
    fixture->puts[fixture->put_count++] = (struct fixture_put){token, result, sequence};
    if (strlen(fixture->order) + 1 < sizeof fixture->order)
        strcat(fixture->order, "p");
}

static void forget_entries(struct spool_fixture *fixture)
{
    for (size_t i = 0; i < fixture->entry_count; i++)
        free(fixture->entries[i].payload);
    free(fixture->entries);
    fixture->entries = NULL;
    fixture->entry_count = 0;
}

static void on_fetched(void *context, const struct spool_entry *entries, size_t count, bool end)
{
    struct spool_fixture *fixture = context;
    forget_entries(fixture);
    fixture->entries = calloc(count + 1, sizeof *fixture->entries);
    assert_non_null(fixture->entries);
    for (size_t i = 0; i < count; i++) {
        char *payload = malloc(entries[i].length + 1);
        assert_non_null(payload);
        memcpy(payload, entries[i].payload, entries[i].length);
        payload[entries[i].length] = '\0';
        fixture->entries[i] = (struct fixture_entry){.sequence = entries[i].sequence,
                                                     .arrived_ms = entries[i].arrived_ms,
                                                     .payload = payload,
                                                     .length = entries[i].length,
                                                     .redelivered = entries[i].redelivered};
    }
    fixture->entry_count = count;
    fixture->end = end;
    fixture->fetches++;
    if (strlen(fixture->order) + 1 < sizeof fixture->order)
        strcat(fixture->order, "f");
}

static void on_grown(void *context, uint64_t added)
{
    struct spool_fixture *fixture = context;
    fixture->grown += added;
    if (strlen(fixture->order) + 1 < sizeof fixture->order)
        strcat(fixture->order, "g");
}

static void on_closed(void *context)
{
    struct spool_fixture *fixture = context;
    fixture->closed = true;
    fixture->spool = NULL;
}

static void on_tick(uv_timer_t *timer)
{
    (void)timer;
}

int spool_fixture_setup(void **state)
{
    struct spool_fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    const char *temporary = getenv("TMPDIR");
    (void)snprintf(fixture->root, sizeof fixture->root, "%.40s/spool-XXXXXX", temporary ? temporary : "/tmp");
    assert_non_null(mkdtemp(fixture->root));
    (void)snprintf(fixture->directory, sizeof fixture->directory, "%s/spool", fixture->root);
    (void)snprintf(fixture->log_file, sizeof fixture->log_file, "%s/log", fixture->root);
    assert_true(log_open(&(struct log_options){.level = LOG_LEVEL_DEBUG, .file = fixture->log_file}, NULL));
    assert_int_equal(uv_loop_init(&fixture->loop), 0);
    assert_int_equal(uv_timer_init(&fixture->loop, &fixture->ticker), 0);
    assert_int_equal(uv_timer_start(&fixture->ticker, on_tick, 20, 20), 0);
    *state = fixture;
    return 0;
}

int spool_fixture_teardown(void **state)
{
    struct spool_fixture *fixture = *state;
    if (fixture->spool)
        fixture_close(fixture);
    uv_close((uv_handle_t *)&fixture->ticker, NULL);
    (void)uv_run(&fixture->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&fixture->loop), 0);
    log_close();
    if (getenv("PROMPTD_TEST_SHOW_LOG"))
        fixture_shell("cat '%s' >&2", fixture->log_file);
    forget_entries(fixture);
    free(fixture->puts);
    fixture_shell("chmod -R u+rwX '%s' && rm -rf '%s'", fixture->root, fixture->root);
    free(fixture);
    return 0;
}

bool fixture_try_open(struct spool_fixture *fixture, uint64_t waiting_bytes, uint64_t dead_bytes)
{
    assert_null(fixture->spool);
    fixture->put_count = 0;
    fixture->grown = 0;
    fixture->fetches = 0;
    fixture->closed = false;
    fixture->order[0] = '\0';
    fixture->error.text[0] = '\0';
    fixture->spool = spool_open(
        &(struct spool_options){
            .loop = &fixture->loop,
            .directory = fixture->directory,
            .limits = {.waiting_bytes = waiting_bytes, .dead_bytes = dead_bytes},
            .on_put = on_put,
            .on_fetched = on_fetched,
            .on_grown = on_grown,
            .context = fixture,
        },
        &fixture->error);
    return fixture->spool != NULL;
}

void fixture_open(struct spool_fixture *fixture)
{
    if (!fixture_try_open(fixture, UINT64_C(1) << 40, UINT64_C(1) << 40))
        fail_msg("the spool cannot be opened: %s", fixture->error.text);
}

void fixture_close(struct spool_fixture *fixture)
{
    spool_close(fixture->spool, on_closed, fixture);
    fixture_wait(fixture, fixture->closed);
}

struct fixture_put fixture_put(struct spool_fixture *fixture, const char *payload, size_t length)
{
    size_t before = fixture->put_count;
    assert_true(spool_put(fixture->spool, payload, length, &before));
    fixture_wait(fixture, fixture->put_count > before);
    assert_ptr_equal(fixture->puts[before].token, &before);
    return fixture->puts[before];
}

int64_t fixture_put_text(struct spool_fixture *fixture, const char *text)
{
    struct fixture_put put = fixture_put(fixture, text, strlen(text));
    assert_int_equal(put.result, SPOOL_PUT_OK);
    assert_true(put.sequence > 0);
    return put.sequence;
}

void fixture_fetch(struct spool_fixture *fixture, int64_t after, size_t max_messages, size_t max_bytes)
{
    size_t before = fixture->fetches;
    spool_fetch(fixture->spool, after, max_messages, max_bytes);
    fixture_wait(fixture, fixture->fetches > before);
}

void fixture_settle(struct spool_fixture *fixture)
{
    fixture_fetch(fixture, INT64_MAX - 1, 1, 1);
}

unsigned fixture_logged(const struct spool_fixture *fixture, const char *text)
{
    char line[4096];
    unsigned count = 0;
    FILE *file = fopen(fixture->log_file, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file))
        count += strstr(line, text) != NULL;
    (void)fclose(file);
    return count;
}

void fixture_forget_log(struct spool_fixture *fixture)
{
    assert_int_equal(truncate(fixture->log_file, 0), 0);
}

unsigned fixture_files(const struct spool_fixture *fixture, const char *prefix)
{
    unsigned count = 0;
    DIR *directory = opendir(fixture->directory);
    assert_non_null(directory);
    const struct dirent *file;
    while ((file = readdir(directory)))
        count += strncmp(file->d_name, prefix, strlen(prefix)) == 0;
    (void)closedir(directory);
    return count;
}

const char *fixture_path(const struct spool_fixture *fixture, const char *name)
{
    static char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", fixture->directory, name);
    return path;
}

size_t fixture_payload(uint32_t number, char payload[FIXTURE_PAYLOAD_MAX])
{
    /* Mostly short, some with overflow pages, a few of several. */
    size_t length = 16 + (number * UINT32_C(2654435761) >> 8) % (number % 17 == 0  ? 30000
                                                                 : number % 5 == 0 ? 9000
                                                                                   : 900);
    int head = snprintf(payload, FIXTURE_PAYLOAD_MAX, "%08u:", number);
    uint32_t random = number + 1;
    for (size_t i = (size_t)head; i < length; i++) {
        random = random * UINT32_C(1664525) + UINT32_C(1013904223);
        payload[i] = (char)(random >> 24);
    }
    return length;
}

bool fixture_payload_is_sound(const char *payload, size_t length, uint32_t *number)
{
    char expected[FIXTURE_PAYLOAD_MAX];
    char head[9] = "";
    if (length < 9)
        return false;
    memcpy(head, payload, 8);
    *number = (uint32_t)strtoul(head, NULL, 10);
    return fixture_payload(*number, expected) == length && memcmp(payload, expected, length) == 0;
}

void fixture_shell(const char *format, ...)
{
    char command[1024];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(command, sizeof command, format, arguments);
    va_end(arguments);
    if (system(command) != 0) /* NOLINT(cert-env33-c): a test's own words */
        fail_msg("failed: %s", command);
}
