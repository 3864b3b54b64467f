/* SPDX-License-Identifier: MIT */
/* Settings: the table, every layer and which counts over which. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "settings_start.h"

static enum setting_origin origin_of(const struct settings *settings, const char *name)
{
    return settings->origins[settings_table_index(settings_table_find(name))];
}

static const char *place_of(const struct settings *settings, const char *name)
{
    return settings->places[settings_table_index(settings_table_find(name))];
}

/* ---- the table ---- */

static void test_rows_are_sound(void **state)
{
    (void)state;
    for (size_t i = 0; settings_table_row(i); i++) {
        const struct setting *row = settings_table_row(i);
        assert_true(strlen(row->name) < SETTING_NAME_SIZE);
        assert_int_equal(strspn(row->name, "abcdefghijklmnopqrstuvwxyz_"), strlen(row->name));
        assert_ptr_equal(settings_table_find(row->name), row);
        assert_int_equal(settings_table_index(row), i);
        assert_true(row->offset < offsetof(struct settings, origins));
        assert_int_equal(row->description[strlen(row->description) - 1], '.');
        assert_int_equal(row->type == SETTING_CHOICE, row->choices != NULL);
        assert_int_equal(row->type == SETTING_NUMBER, row->minimum < row->maximum);
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(settings_table_row(k)->offset, row->offset);
    }
    assert_null(settings_table_find("no_such_setting"));
    assert_null(settings_table_row(SETTINGS_MAX));
}

static void test_defaults(void **state)
{
    (void)state;
    struct settings s;
    assert_loads((struct start){0}, &s);
    assert_string_equal(s.redis_url, "redis://127.0.0.1:6379");
    assert_string_equal(s.redis_channel, "interviewly:prompt-ready");
    assert_int_equal(s.redis_mode, REDIS_MODE_PUBSUB);
    assert_string_equal(s.database_url, "");
    assert_string_equal(s.admin_listen, "127.0.0.1:9797");
    assert_string_equal(s.statsd, "off");
    assert_int_equal(s.db_connections, 4);
    assert_int_equal(s.atomicity, ATOMICITY_COMPENSATE);
    assert_string_equal(s.ready_status, "ready");
    assert_string_equal(s.failed_status, "failed");
    static const char *const awaiting[] = {"pending",      "not_started", "enhancing", "vector_search",
                                           "web_scraping", "processing",  "failed"};
    assert_int_equal(s.awaiting_statuses.count, 7);
    for (size_t i = 0; i < 7; i++)
        assert_string_equal(s.awaiting_statuses.items[i], awaiting[i]);
    static const char *const sources[] = {"rag", "existing_data", "new_data", "fallback"};
    assert_int_equal(s.sources.count, 4);
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(s.sources.items[i], sources[i]);
    assert_int_equal(s.prompt_min_chars, 10);
    assert_int_equal(s.prompt_max_chars, 50000);
    assert_int_equal(s.message_max_bytes, 1048576);
    assert_int_equal(s.batch_max, 256);
    assert_int_equal(s.queue_max_messages, 10000);
    assert_int_equal(s.queue_max_bytes, 67108864);
    assert_string_equal(s.spool_dir, "");
    assert_int_equal(s.spool_max_bytes, 1073741824);
    assert_int_equal(s.spool_dead_max_bytes, 268435456);
    assert_int_equal(s.retry_attempts, 3);
    assert_int_equal(s.retry_base_ms, 1000);
    assert_int_equal(s.retry_max_ms, 10000);
    assert_int_equal(s.lock_patience_s, 30);
    assert_int_equal(s.recover_after_s, 60);
    assert_int_equal(s.statement_timeout_ms, 10000);
    assert_int_equal(s.backoff_max_s, 30);
    assert_int_equal(s.breaker_failures, 10);
    assert_int_equal(s.breaker_reset_s, 60);
    assert_int_equal(s.heartbeat_interval_s, 5);
    assert_int_equal(s.heartbeat_timeout_s, 3);
    assert_int_equal(s.reconcile_interval_s, 60);
    assert_int_equal(s.log_level, LOG_LEVEL_INFO);
    assert_int_equal(s.log_format, LOG_FORMAT_TEXT);
    assert_string_equal(s.log_file, "");
    assert_int_equal(s.shutdown_timeout_s, 10);
    for (size_t i = 0; settings_table_row(i); i++) {
        assert_int_equal(s.origins[i], SETTING_DEFAULT);
        assert_null(s.places[i]);
    }
    settings_free(&s);
    assert_null(s.redis_url);
    settings_free(&s); /* an empty one may be freed */
}

static void test_journal_is_the_default_format_under_systemd(void **state)
{
    (void)state;
    struct stat status;
    char stream[64];
    assert_int_equal(fstat(STDERR_FILENO, &status), 0);
    (void)snprintf(stream, sizeof stream, "%ju:%ju", (uintmax_t)status.st_dev, (uintmax_t)status.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    struct settings s;
    assert_loads((struct start){0}, &s);
    assert_int_equal(s.log_format, LOG_FORMAT_JOURNAL);
    settings_free(&s);
    assert_loads((struct start){.file = "log_format = text"}, &s);
    assert_int_equal(s.log_format, LOG_FORMAT_TEXT);
    settings_free(&s);
    unsetenv("JOURNAL_STREAM");
}

/* ---- layers ---- */

static const char *other_text(const char *name)
{
    if (strcmp(name, "redis_url") == 0)
        return "redis://other";
    if (strcmp(name, "events_channel") == 0)
        return "another"; /* than redis_channel */
    return strcmp(name, "admin_listen") == 0 || strcmp(name, "statsd") == 0 ? "other:1" : "other";
}

/* Some good value that is not the default, where there is one. */
static void other_value(const struct setting *row, char *value, size_t size)
{
    switch (row->type) {
    case SETTING_NUMBER:
        (void)snprintf(value, size, "%lld", strtoll(row->initial, NULL, 10) + 1);
        break;
    case SETTING_CHOICE:
        (void)snprintf(value, size, "%s", row->choices[row->choices[1] && strcmp(row->choices[0], row->initial) == 0]);
        break;
    case SETTING_LIST:
        (void)snprintf(value, size, "other,%s", row->initial);
        break;
    case SETTING_TEXT:
        (void)snprintf(value, size, "%s", other_text(row->name));
        break;
    }
}

static void assert_holds(const struct settings *settings, const struct setting *row, const char *value,
                         enum setting_origin origin, const char *place)
{
    struct buffer text = {0};
    setting_append_value(row, settings, &text);
    buffer_append_char(&text, '\0');
    assert_string_equal(text.data, value);
    buffer_free(&text);
    assert_int_equal(origin_of(settings, row->name), origin);
    assert_string_equal(place_of(settings, row->name), place);
}

static void test_every_setting_in_every_layer(void **state)
{
    (void)state;
    for (size_t i = 0; settings_table_row(i); i++) {
        const struct setting *row = settings_table_row(i);
        char value[256], line[512], variable[128], flag[SETTING_NAME_SIZE], word[512], place[256];
        struct settings s;
        other_value(row, value, sizeof value);

        (void)snprintf(line, sizeof line, "%s = %s\n", row->name, value);
        assert_loads((struct start){.file = line}, &s);
        assert_holds(&s, row, value, SETTING_FILE, "file conf line 1");
        settings_free(&s);

        setting_variable_name(row, variable);
        (void)snprintf(word, sizeof word, "%s=%s", variable, value);
        (void)snprintf(place, sizeof place, "environment %s", variable);
        assert_loads((struct start){.environment = WORDS(word)}, &s);
        assert_holds(&s, row, value, SETTING_ENVIRONMENT, place);
        settings_free(&s);

        setting_flag_name(row->name, flag);
        (void)snprintf(word, sizeof word, "--%s=%s", flag, value);
        (void)snprintf(place, sizeof place, "flag --%s", flag);
        assert_loads((struct start){.flags = WORDS(word)}, &s);
        assert_holds(&s, row, value, SETTING_FLAG, place);
        settings_free(&s);

        (void)snprintf(word, sizeof word, "--%s", flag);
        assert_loads((struct start){.flags = WORDS(word, value)}, &s);
        assert_holds(&s, row, value, SETTING_FLAG, place);
        settings_free(&s);
    }
}

static void test_names_in_the_three_spellings(void **state)
{
    (void)state;
    char variable[SETTING_NAME_SIZE + 16], flag[SETTING_NAME_SIZE];
    setting_variable_name(settings_table_find("queue_max_bytes"), variable);
    setting_flag_name("queue_max_bytes", flag);
    assert_string_equal(variable, "PROMPTD_QUEUE_MAX_BYTES");
    assert_string_equal(flag, "queue-max-bytes");
}

static void test_precedence(void **state)
{
    (void)state;
    write_file("value", "redis://from-value-file \n\n");
    static const char file[] = "# the URL\nredis_url = redis://from-file\n";
    const struct {
        struct start start;
        const char *url;
        enum setting_origin origin;
        const char *place;
    } cases[] = {
        {{.environment = WORDS("REDIS_URL=redis://shared")}, "redis://shared", SETTING_SHARED, "environment REDIS_URL"},
        {{.file = file, .environment = WORDS("REDIS_URL=redis://shared")},
         "redis://from-file",
         SETTING_FILE,
         "file conf line 2"},
        {{.file = file, .environment = WORDS("PROMPTD_REDIS_URL=redis://own", "REDIS_URL=redis://shared")},
         "redis://own",
         SETTING_ENVIRONMENT,
         "environment PROMPTD_REDIS_URL"},
        {{.file = file, .environment = WORDS("PROMPTD_REDIS_URL_FILE=value", "REDIS_URL=redis://shared")},
         "redis://from-value-file",
         SETTING_ENVIRONMENT,
         "environment PROMPTD_REDIS_URL_FILE (file value)"},
        {{.file = file, .environment = WORDS("PROMPTD_REDIS_URL_FILE=./value", "CREDENTIALS_DIRECTORY=.")},
         "redis://from-value-file",
         SETTING_ENVIRONMENT,
         "environment PROMPTD_REDIS_URL_FILE (file ./value)"},
        {{.file = file, .environment = WORDS("PROMPTD_REDIS_URL_FILE=./absent", "CREDENTIALS_DIRECTORY=.")},
         "redis://from-file",
         SETTING_FILE,
         "file conf line 2"},
        {{.file = file, .environment = WORDS("PROMPTD_REDIS_URL=redis://own"), .flags = WORDS("--redis-url=redis://f")},
         "redis://f",
         SETTING_FLAG,
         "flag --redis-url"},
        {{.environment = WORDS("REDIS_URL=redis://shared"), .flags = WORDS("--redis-url", "redis://f")},
         "redis://f",
         SETTING_FLAG,
         "flag --redis-url"},
        {{.flags = WORDS("--redis-url=redis://first", "--redis-url=redis://last")},
         "redis://last",
         SETTING_FLAG,
         "flag --redis-url"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct settings s;
        assert_loads(cases[i].start, &s);
        assert_string_equal(s.redis_url, cases[i].url);
        assert_int_equal(origin_of(&s, "redis_url"), cases[i].origin);
        assert_string_equal(place_of(&s, "redis_url"), cases[i].place);
        settings_free(&s);
    }
}

static void test_shared_variables(void **state)
{
    (void)state;
    struct settings s;
    assert_loads((struct start){.environment = WORDS("DATABASE_URL=postgresql://h/db", "REDIS_URL=")}, &s);
    assert_string_equal(s.database_url, "postgresql://h/db");
    assert_int_equal(origin_of(&s, "database_url"), SETTING_SHARED);
    assert_int_equal(origin_of(&s, "redis_url"), SETTING_DEFAULT); /* empty is as good as absent */
    settings_free(&s);

    /* What does not count is not judged: it may be meant for another program. */
    assert_loads((struct start){.environment = WORDS("PROMPTD_REDIS_URL=redis://own", "REDIS_URL=what is this")}, &s);
    assert_string_equal(s.redis_url, "redis://own");
    settings_free(&s);

    /* database_url may be empty, and is promptd's own then. */
    assert_loads((struct start){.environment = WORDS("PROMPTD_DATABASE_URL=", "DATABASE_URL=postgresql://h/db")}, &s);
    assert_string_equal(s.database_url, "");
    settings_free(&s);
}

static void test_values_are_trimmed(void **state)
{
    (void)state;
    struct settings s;
    assert_loads((struct start){.file = "redis_channel =  a channel \t\r\n db_connections=\t7",
                                .environment = WORDS("PROMPTD_READY_STATUS= done ", "PROMPTD_SOURCES= a ,b,  c d "),
                                .flags = WORDS("--batch-max", " 9 ")},
                 &s);
    assert_string_equal(s.redis_channel, "a channel");
    assert_int_equal(s.db_connections, 7);
    assert_string_equal(s.ready_status, "done");
    assert_int_equal(s.batch_max, 9);
    assert_int_equal(s.sources.count, 3);
    assert_string_equal(s.sources.items[0], "a");
    assert_string_equal(s.sources.items[1], "b");
    assert_string_equal(s.sources.items[2], "c d");
    settings_free(&s);
}

static void test_file_syntax(void **state)
{
    (void)state;
    struct settings s;
    assert_loads((struct start){.file = "\xef\xbb\xbf# comment\n; comment\n\n   \n"
                                        "database_url = host=h password=a ;b#c user='x = y'\r\n"
                                        "  redis_channel = indented\n"
                                        "log_file ="},
                 &s);
    assert_string_equal(s.database_url, "host=h password=a ;b#c user='x = y'");
    assert_string_equal(s.redis_channel, "indented");
    assert_string_equal(place_of(&s, "log_file"), "file conf line 7");
    settings_free(&s);
}

static void test_long_values(void **state)
{
    (void)state;
    char line[8300];
    struct settings s;
    /* 8000 bytes are a value, and not one of them is lost on the way. */
    (void)snprintf(line, sizeof line, "redis_channel = %08000d", 7);
    assert_loads((struct start){.file = line}, &s);
    assert_int_equal(strlen(s.redis_channel), 8000);
    assert_int_equal(s.redis_channel[7999], '7');
    settings_free(&s);

    char shown[121];
    char message[512];
    (void)snprintf(shown, sizeof shown, "%0120d", 0);
    (void)snprintf(line, sizeof line, "redis_channel = %08001d", 0);
    (void)snprintf(message, sizeof message,
                   "setting redis_channel: value \"%s...\" from file conf line 1 is longer than 8000 bytes "
                   "(allowed: any text without control characters)",
                   shown);
    assert_refused((struct start){.file = line}, ERROR_CONFIG, message);

    (void)snprintf(line, sizeof line, "# %08188d", 0);
    assert_loads((struct start){.file = line}, &s);
    settings_free(&s);
    (void)snprintf(line, sizeof line, "#\nredis_channel = %08180d", 0);
    assert_refused((struct start){.file = line}, ERROR_CONFIG, "file conf line 2 is longer than 8190 bytes");
}

/* ---- flags and variables as such ---- */

static void test_actions_and_operands(void **state)
{
    (void)state;
    static const struct {
        const char *words[8];
        enum settings_action action;
        const char *operands[3];
        const char *more[2]; /* --delete, --age */
    } cases[] = {
        {{"promptd", "--config=/dev/null"}, SETTINGS_RUN, {NULL}, {NULL}},
        {{"promptd", "--config=/dev/null", "--check"}, SETTINGS_CHECK, {NULL}, {NULL}},
        {{"promptd", "--config", "/dev/null", "--print-config"}, SETTINGS_PRINT, {NULL}, {NULL}},
        {{"promptd", "--help", "--nonsense", "--batch-max=none", "x"}, SETTINGS_HELP, {"x"}, {NULL}},
        {{"promptd", "--config=/absent", "--version"}, SETTINGS_VERSION, {NULL}, {NULL}},
        {{"promptctl", "--config=/dev/null", "orphans", "--delete"}, SETTINGS_RUN, {"orphans"}, {"", NULL}},
        {{"promptctl", "a", "--age", "5m", "b", "--config=/dev/null"}, SETTINGS_RUN, {"a", "b"}, {NULL, "5m"}},
        {{"promptctl", "--age=", "--config=/dev/null", "--age=-1"}, SETTINGS_RUN, {NULL}, {NULL, "-1"}},
        {{"promptctl", "--config=/dev/null", "a", "--", "--odd"}, SETTINGS_RUN, {"a", "--odd"}, {NULL}},
        {{"promptctl", "--config=/dev/null", "-", "--", "--"}, SETTINGS_RUN, {"-", "--"}, {NULL}},
        {{"promptctl", "--config=/dev/null", "", "x"}, SETTINGS_RUN, {"", "x"}, {NULL}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct settings s;
        struct settings_command command;
        struct error error = {0};
        if (!load_words(cases[i].words, NONE, &s, &command, &error))
            fail_msg("%s", error.text);
        assert_int_equal(command.action, cases[i].action);
        for (int j = 0; j < command.operand_count; j++)
            assert_string_equal(command.operands[j], cases[i].operands[j]);
        assert_null(cases[i].operands[command.operand_count]);
        for (size_t j = 0; j < 2; j++) {
            assert_int_equal(command.more[j] != NULL, cases[i].more[j] != NULL);
            if (command.more[j])
                assert_string_equal(command.more[j], cases[i].more[j]);
        }
        assert_string_equal(s.redis_channel, "interviewly:prompt-ready");
        settings_free(&s);
    }
}

static void test_help_is_there_when_settings_are_broken(void **state)
{
    (void)state;
    struct settings s;
    struct settings_command command;
    assert_true(load_words(WORDS("promptd", "--help"), WORDS("PROMPTD_BATCH_MAX=none"), &s, &command, NULL));
    assert_int_equal(command.action, SETTINGS_HELP);
    settings_free(&s);
}

static void test_unknown_variables_are_warned_of(void **state)
{
    (void)state;
    const struct log_options options = {LOG_LEVEL_INFO, LOG_FORMAT_JOURNAL, "log"};
    const char *const words[] = {"PROMPTD_REDIS_ULR=hunter2",
                                 "PROMPTD_CONFIG=/hunter2",
                                 "PROMPTD_BATCH_MAX_FILE=hunter2",
                                 "PROMPTD_BATCH_MAX=7",
                                 "PROMPTDX=1",
                                 "PROMPTD_=2",
                                 NULL};
    assert_true(log_open(&options, NULL));
    struct settings s;
    assert_true(load_words(WORDS("promptd", "--settle-timeout-s", "9"), WORDS(NULL), &s, NULL, NULL));
    settings_warn(&s, (char *const *)(uintptr_t)words);
    settings_free(&s);
    assert_string_equal(read_file("log"),
                        "<4>WARNING settings: environment variable PROMPTD_REDIS_ULR is no setting and is ignored; "
                        "did you mean PROMPTD_REDIS_URL?\n"
                        "<4>WARNING settings: environment variable PROMPTD_CONFIG is no setting and is ignored\n"
                        "<4>WARNING settings: environment variable PROMPTD_BATCH_MAX_FILE is no setting and is "
                        "ignored\n"
                        "<4>WARNING settings: environment variable PROMPTD_ is no setting and is ignored\n"
                        "<4>WARNING settings: setting settle_timeout_s (flag --settle-timeout-s) has no effect any "
                        "more; recover_after_s has taken its place\n");
}

/* ---- memory ---- */

static void test_memory_runs_out_anywhere(void **state)
{
    (void)state;
    write_file("value", "host=h password=p");
    write_file("conf", "redis_url = redis://u:p@h\nsources = a,b\nlog_file = x\n");
    for (long n = 0;; n++) {
        struct settings s;
        struct error error = {0};
        memory_left = n;
        bool good = load_words(WORDS("promptd", "--config=conf", "--awaiting-statuses=a,b"),
                               WORDS("PROMPTD_REDIS_URL=redis://h", "PROMPTD_DATABASE_URL_FILE=value"), &s, NULL,
                               &error);
        memory_left = -1;
        if (good) {
            assert_true(n > 50);
            settings_free(&s);
            return;
        }
        assert_int_equal(error.code, ERROR_INTERNAL);
        assert_null(s.redis_url);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SETTINGS_TEST(test_rows_are_sound),
        SETTINGS_TEST(test_defaults),
        SETTINGS_TEST(test_journal_is_the_default_format_under_systemd),
        SETTINGS_TEST(test_every_setting_in_every_layer),
        SETTINGS_TEST(test_names_in_the_three_spellings),
        SETTINGS_TEST(test_precedence),
        SETTINGS_TEST(test_shared_variables),
        SETTINGS_TEST(test_values_are_trimmed),
        SETTINGS_TEST(test_file_syntax),
        SETTINGS_TEST(test_long_values),
        SETTINGS_TEST(test_actions_and_operands),
        SETTINGS_TEST(test_help_is_there_when_settings_are_broken),
        SETTINGS_TEST(test_unknown_variables_are_warned_of),
        SETTINGS_TEST(test_memory_runs_out_anywhere),
    };
    return cmocka_run_group_tests_name("settings", tests, enter_folder, leave_folder);
}
