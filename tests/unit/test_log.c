/* SPDX-License-Identifier: MIT */
/* What a line of the log looks like: three formats, levels, long lines, no memory. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

#define LOG_COMPONENT "test"
#include "promptd/log.h"

#include "failing_memory.h"
#include "log_start.h"

/* The log's only line must be `expected` behind a time of the right form. */
static void assert_line(const char *expected)
{
    const char *line = read_log(path);
    static const char form[] = "0000-00-00T00:00:00.000Z ";
    size_t length = strlen(form);
    assert_true(strlen(line) > length);
    for (size_t i = 0; i < length; i++)
        assert_true(form[i] == '0' ? line[i] >= '0' && line[i] <= '9' : line[i] == form[i]);
    assert_string_equal(line + length, expected);
}

static void test_text_line(void **state)
{
    (void)state;
    open_log(LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT);
    log_error(LOG_FIELDS(log_text("sqlstate", "23514"), log_number("bytes", 2048), log_text("error", "two words")),
              "prompt not stored for %s", "5f0c");
    assert_line("ERROR test: prompt not stored for 5f0c sqlstate=23514 bytes=2048 error=\"two words\"\n");
}

static void test_text_line_without_fields(void **state)
{
    (void)state;
    open_log(LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT);
    log_critical(NULL, "100%% \"quoted\"");
    assert_line("CRITICAL test: 100% \"quoted\"\n");
}

static void test_null_text_is_left_out(void **state)
{
    (void)state;
    open_log(LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT);
    log_info(LOG_FIELDS(log_text("a", NULL), log_text("b", "1"), log_text("c", NULL), log_number("d", INT64_MIN)), "x");
    assert_line("INFO test: x b=1 d=-9223372036854775808\n");
}

static void test_one_event_is_one_line(void **state)
{
    (void)state;
    open_log(LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT);
    log_info(LOG_FIELDS(log_text("value", "a\nINFO forged: x\x1b[2J\xff")), "first\r\nsecond\x01\xc2\x9b");
    assert_line("INFO test: first\\r\\nsecond\\x01\\xc2\\x9b value=\"a\\nINFO forged: x\\x1b[2J\\xff\"\n");
}

static void test_journal_priorities(void **state)
{
    (void)state;
    open_log(LOG_LEVEL_DEBUG, LOG_FORMAT_JOURNAL);
    log_debug(NULL, "a");
    log_info(NULL, "b");
    log_warning(NULL, "c");
    log_error(NULL, "d");
    log_critical(LOG_FIELDS(log_number("n", 1)), "e");
    assert_string_equal(read_log(path), "<7>DEBUG test: a\n"
                                        "<6>INFO test: b\n"
                                        "<4>WARNING test: c\n"
                                        "<3>ERROR test: d\n"
                                        "<2>CRITICAL test: e n=1\n");
}

static void test_json_line(void **state)
{
    (void)state;
    open_log(LOG_LEVEL_DEBUG, LOG_FORMAT_JSON);
    log_warning(LOG_FIELDS(log_text("text", "a \"b\"\n\xff"), log_number("n", -7), log_text("none", NULL)), "m\t\x02%s",
                "ä");
    const char *line = read_log(path);
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
    cJSON *object = cJSON_Parse(line);
    assert_non_null(object);
    static const char *const keys[] = {"time", "level", "component", "message", "text", "n"};
    const cJSON *item = object->child;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++, item = item->next) {
        assert_non_null(item);
        assert_string_equal(item->string, keys[i]);
    }
    assert_null(item);
    assert_int_equal(strlen(cJSON_GetObjectItem(object, "time")->valuestring), 24);
    assert_string_equal(cJSON_GetObjectItem(object, "level")->valuestring, "WARNING");
    assert_string_equal(cJSON_GetObjectItem(object, "component")->valuestring, "test");
    assert_string_equal(cJSON_GetObjectItem(object, "message")->valuestring, "m\t\x02ä");
    assert_string_equal(cJSON_GetObjectItem(object, "text")->valuestring, "a \"b\"\n\xef\xbf\xbd");
    assert_true(cJSON_IsNumber(cJSON_GetObjectItem(object, "n")));
    assert_int_equal(cJSON_GetObjectItem(object, "n")->valueint, -7);
    cJSON_Delete(object);
}

static int evaluations;

static int count_evaluation(void)
{
    return ++evaluations;
}

static void test_levels(void **state)
{
    (void)state;
    for (int level = LOG_LEVEL_DEBUG; level <= LOG_LEVEL_CRITICAL; level++) {
        open_log((enum log_level)level, LOG_FORMAT_JOURNAL);
        for (int other = LOG_LEVEL_DEBUG; other <= LOG_LEVEL_CRITICAL; other++)
            assert_int_equal(log_wants((enum log_level)other), other >= level);
    }
    log_set_level(LOG_LEVEL_ERROR);
    log_warning(NULL, "%d", count_evaluation());
    log_error(NULL, "%d", count_evaluation());
    assert_int_equal(evaluations, 1);
    assert_string_equal(read_log(path), "<3>ERROR test: 1\n");
    log_set_level(LOG_LEVEL_DEBUG);
    log_debug(NULL, "now");
    assert_non_null(strstr(read_log(path), "<7>DEBUG test: now\n"));
}

static void test_errno_is_preserved_and_usable(void **state)
{
    (void)state;
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_JOURNAL);
    errno = ENOENT;
    log_info(NULL, "%s", strerror(errno));
    assert_int_equal(errno, ENOENT);
    log_info(NULL, "%m");
    assert_int_equal(errno, ENOENT);
    assert_string_equal(read_log(path), "<6>INFO test: No such file or directory\n"
                                        "<6>INFO test: No such file or directory\n");
    errno = EACCES;
    log_close();
    assert_int_equal(errno, EACCES);
}

static void test_long_messages_are_whole(void **state)
{
    (void)state;
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_JOURNAL);
    for (int length = 1020; length < 1030; length++)
        log_info(NULL, "%0*d.", length, 0);
    log_info(NULL, "%020000d.", 0);
    const char *line = read_log(path);
    for (size_t length = 1020; length < 1030; length++) {
        assert_int_equal(strcspn(line, "."), strlen("<6>INFO test: ") + length);
        line = strchr(line, '\n') + 1;
    }
    assert_int_equal(strcspn(line, "."), strlen("<6>INFO test: ") + 20000);
}

static void test_speaks_without_memory(void **state)
{
    (void)state;
    static const struct {
        enum log_format format;
        const char *expected;
    } cases[] = {
        {LOG_FORMAT_TEXT, " ERROR test: it says ?this????\n"},
        {LOG_FORMAT_JOURNAL, "<3>ERROR test: it says ?this????\n"},
        {LOG_FORMAT_JSON, "\",\"level\":\"ERROR\",\"component\":\"test\",\"message\":\"it says ?this????\"}\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        open_log(LOG_LEVEL_INFO, cases[i].format);
        memory_left = 0;
        log_error(LOG_FIELDS(log_number("n", 1)), "it says \"this\"\n\\\x7f");
        memory_left = -1;
        const char *text = read_log(path);
        size_t length = strlen(cases[i].expected);
        assert_true(strlen(text) >= length);
        assert_string_equal(text + strlen(text) - length, cases[i].expected);
        end_test(NULL);
    }
}

static void test_long_message_without_memory_is_cut(void **state)
{
    (void)state;
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_JOURNAL);
    memory_left = 0;
    log_error(NULL, "%05000d", 0);
    memory_left = -1;
    const char *text = read_log(path);
    assert_int_equal(strlen(text), strlen("<3>ERROR test: ") + 1023 + 1);
    assert_int_equal(text[strlen(text) - 1], '\n');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_text_line),
        LOG_TEST(test_text_line_without_fields),
        LOG_TEST(test_null_text_is_left_out),
        LOG_TEST(test_one_event_is_one_line),
        LOG_TEST(test_journal_priorities),
        LOG_TEST(test_json_line),
        LOG_TEST(test_levels),
        LOG_TEST(test_errno_is_preserved_and_usable),
        LOG_TEST(test_long_messages_are_whole),
        LOG_TEST(test_speaks_without_memory),
        LOG_TEST(test_long_message_without_memory_is_cut),
    };
    return cmocka_run_group_tests_name("log", tests, make_folder, remove_folder);
}
