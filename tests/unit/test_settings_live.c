/* SPDX-License-Identifier: MIT */
/* Settings of a program that runs: what is printed, what a reload can change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "settings_start.h"

/* ---- printing ---- */

static char *print_to_text(const struct settings *settings)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    settings_print(settings, out);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void test_print_names_every_origin(void **state)
{
    (void)state;
    struct settings s;
    assert_loads((struct start){.file = "batch_max = 9\n",
                                .environment = WORDS("PROMPTD_REDIS_URL=redis://u:hunter2@h:1/2",
                                                     "DATABASE_URL=host=h password='hunter2' dbname=d"),
                                .flags = WORDS("--log-level=debug")},
                 &s);
    char *text = print_to_text(&s);
    assert_null(strstr(text, "hunter2"));
    assert_non_null(strstr(text, "# environment PROMPTD_REDIS_URL\nredis_url = redis://u:***@h:1/2\n\n"));
    assert_non_null(strstr(text, "# environment DATABASE_URL\ndatabase_url = host=h password=*** dbname=d\n\n"));
    assert_non_null(strstr(text, "# file conf line 1\nbatch_max = 9\n\n"));
    assert_non_null(strstr(text, "# flag --log-level\nlog_level = debug\n\n"));
    assert_non_null(strstr(text, "# default\nlog_file =\n\n"));
    assert_non_null(strstr(text, "# default\nawaiting_statuses = pending,not_started,"));
    free(text);
    settings_free(&s);
}

static void test_print_can_be_read_again(void **state)
{
    (void)state;
    struct settings first, second;
    assert_loads((struct start){.file = "sources = a b , ;c\nredis_channel = # ; = [x]\nlog_level = error\n"
                                        "database_url = host=h port=1\natomicity = transaction\nbatch_max = 007"},
                 &first);
    char *text = print_to_text(&first);
    assert_loads((struct start){.file = text}, &second);
    for (size_t i = 0; settings_table_row(i); i++) {
        assert_true(setting_is_equal(settings_table_row(i), &first, &second));
        assert_int_equal(second.origins[i], SETTING_FILE);
    }
    free(text);
    settings_free(&first);
    settings_free(&second);
}

static void test_help_has_everything(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    settings_print_help(out);
    assert_int_equal(fclose(out), 0);
    for (size_t i = 0; settings_table_row(i); i++) {
        char flag[SETTING_NAME_SIZE], word[SETTING_NAME_SIZE + 8];
        setting_flag_name(settings_table_row(i)->name, flag);
        (void)snprintf(word, sizeof word, "\n  --%s=", flag);
        assert_non_null(strstr(text, word));
    }
    for (const struct settings_flag *flag = settings_flags; flag->name; flag++)
        assert_non_null(strstr(text, flag->name));
    for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
        const char *word = line + strspn(line, " ");
        bool one_word = strcspn(word, " ") >= strcspn(word, "\n");
        assert_true(one_word || strcspn(line, "\n") <= 79);
    }
    free(text);
}

/* ---- reload ---- */

static void test_fixed_differences(void **state)
{
    (void)state;
    struct settings now, next;
    char names[64];
    assert_loads((struct start){0}, &now);
    assert_int_equal(settings_fixed_differences(&now, &now, names, sizeof names), 0);
    assert_string_equal(names, "");

    assert_loads((struct start){.file = "redis_url = redis://other\nsources = rag\nlog_level = debug\nbatch_max = 1\n"
                                        "atomicity = transaction\ndb_connections = 1"},
                 &next);
    assert_int_equal(settings_fixed_differences(&now, &next, names, sizeof names), 4);
    assert_string_equal(names, "redis_url, db_connections, atomicity, sources");
    for (size_t size = 0; size < sizeof names; size++) {
        memset(names, 'x', sizeof names);
        assert_int_equal(settings_fixed_differences(&now, &next, names, size), 4);
        assert_int_equal(names[size], 'x');
        if (size > 0)
            assert_true(strnlen(names, size) < size);
    }
    settings_free(&now);
    settings_free(&next);
}

static void test_what_a_reload_cannot_change(void **state)
{
    (void)state;
    static const char *const fixed[] = {
        "redis_url",    "redis_channel", "redis_mode",    "events_channel",    "database_url", "db_connections",
        "atomicity",    "ready_status",  "failed_status", "awaiting_statuses", "sources",      "spool_dir",
        "admin_listen", "statsd",        "log_format",    "log_file"};
    size_t next = 0;
    for (size_t i = 0; settings_table_row(i); i++) {
        const struct setting *row = settings_table_row(i);
        if (row->live)
            continue;
        assert_true(next < sizeof fixed / sizeof fixed[0]);
        assert_string_equal(row->name, fixed[next++]);
    }
    assert_int_equal(next, sizeof fixed / sizeof fixed[0]);
    for (size_t i = 0; settings_table_row(i); i++) {
        const struct setting *row = settings_table_row(i);
        assert_true(!row->live || row->type != SETTING_LIST);
    }
}

static void test_a_reload_takes_what_is_live(void **state)
{
    (void)state;
    struct settings now;
    struct settings next;
    assert_loads((struct start){0}, &now);
    assert_loads(
        (struct start){.file = "batch_max = 7\nlog_level = error\natomicity = transaction\ndb_connections = 9\n"
                               "redis_tls_ca_file = new\nlog_file = new"},
        &next);
    settings_take_live(&now, &next);
    assert_string_equal(now.redis_tls_ca_file, "new");
    assert_string_equal(now.log_file, "");
    assert_int_equal(now.batch_max, 7);
    assert_int_equal(now.log_level, LOG_LEVEL_ERROR);
    assert_int_equal(now.atomicity, ATOMICITY_COMPENSATE);
    assert_int_equal(now.db_connections, 4);
    settings_free(&now);
    settings_free(&next);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SETTINGS_TEST(test_print_names_every_origin),    SETTINGS_TEST(test_print_can_be_read_again),
        SETTINGS_TEST(test_help_has_everything),         SETTINGS_TEST(test_fixed_differences),
        SETTINGS_TEST(test_what_a_reload_cannot_change), SETTINGS_TEST(test_a_reload_takes_what_is_live),
    };
    return cmocka_run_group_tests_name("settings_live", tests, enter_folder, leave_folder);
}
