/* SPDX-License-Identifier: MIT */
/* The pure parts of promptctl: durations, and lists laid out in columns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "duration.h"
#include "list.h"
#include "output.h"
#include "promptd/json.h"

static void test_durations_are_read(void **state)
{
    static const struct {
        const char *text;
        int64_t seconds; /* -1: none */
    } cases[] = {
        {"0", 0},
        {"90", 90},
        {"90s", 90},
        {"5m", 300},
        {"1h", 3600},
        {"2d", 172800},
        {"007", 7},
        {"3650d", 315360000},
        {"3651d", -1},
        {"315360001", -1},
        {"", -1},
        {"s", -1},
        {"-1", -1},
        {"+1", -1},
        {" 1", -1},
        {"1 ", -1},
        {"1w", -1},
        {"1M", -1},
        {"1ms", -1},
        {"1h30m", -1},
        {"1.5h", -1},
        {"0x10", -1},
        {"99999999999999999999999", -1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t seconds = -1;
        bool good = duration_parse(cases[i].text, &seconds);
        assert_int_equal(good, cases[i].seconds >= 0);
        assert_int_equal(seconds, cases[i].seconds);
    }
}

static void test_durations_are_written(void **state)
{
    static const struct {
        int64_t seconds;
        const char *text;
    } cases[] = {
        {-5, "0s"},     {0, "0s"},          {59, "59s"},      {60, "1m"},
        {303, "5m 3s"}, {3600, "1h"},       {3601, "1h"},     {7260, "2h 1m"},
        {86400, "1d"},  {86399, "23h 59m"}, {90000, "1d 1h"}, {INT64_MAX, "106751991167300d 15h"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[DURATION_TEXT_SIZE];
        duration_format(cases[i].seconds, text);
        assert_string_equal(text, cases[i].text);
    }
}

/* ---- lists ---- */

static const char *const headings[] = {"ID", "NAME", "NOTE", NULL};

struct capture {
    FILE *file;
    int saved;
};

static void capture_begin(struct capture *capture)
{
    capture->file = tmpfile();
    assert_non_null(capture->file);
    (void)fflush(stdout);
    capture->saved = dup(STDOUT_FILENO);
    assert_true(capture->saved >= 0 && dup2(fileno(capture->file), STDOUT_FILENO) >= 0);
}

static void capture_end(struct capture *capture, char *text, size_t size)
{
    (void)fflush(stdout);
    assert_true(dup2(capture->saved, STDOUT_FILENO) >= 0);
    (void)close(capture->saved);
    rewind(capture->file);
    text[fread(text, 1, size - 1, capture->file)] = '\0';
    (void)fclose(capture->file);
}

static void add_row(struct list *list, const char *one, const char *two, const char *three)
{
    list_cell(list, one);
    list_cell(list, two);
    list_cell(list, three);
}

static void test_columns_are_as_wide_as_their_cells(void **state)
{
    struct ctl ctl = {.colour = false};
    struct capture capture;
    struct list list;
    char text[512];
    (void)state;
    capture_begin(&capture);
    list_begin(&list, &ctl, headings);
    add_row(&list, "1", "Zoë", "x");
    add_row(&list, "22", "Bartholomew", NULL);
    add_row(&list, "3", "", "a\nb\x1b[1m");
    list_end(&list);
    capture_end(&capture, text, sizeof text);
    assert_string_equal(text, "1   Zoë          x\n"
                              "22  Bartholomew  -\n"
                              "3   -            a\\nb\\x1b[1m\n");
    assert_int_equal(list.rows, 3);
}

static void test_heading_stands_above(void **state)
{
    struct ctl ctl = {.colour = false};
    struct capture capture;
    struct list list;
    char text[512];
    (void)state;
    capture_begin(&capture);
    list_begin(&list, &ctl, headings);
    assert_false(list.heading);
    list.heading = true;
    list.widths[1] = strlen("NAME");
    list.widths[0] = strlen("ID");
    list.bold = true;
    add_row(&list, "1", "x", "y");
    list_end(&list);
    capture_end(&capture, text, sizeof text);
    assert_string_equal(text, "\033[1mID  NAME  NOTE\n\033[0m1   x     y\n");
}

static void test_long_lists_come_in_blocks(void **state)
{
    struct ctl ctl = {.colour = false};
    struct capture capture;
    struct list list;
    char text[65536];
    (void)state;
    capture_begin(&capture);
    list_begin(&list, &ctl, headings);
    for (int i = 0; i < LIST_BLOCK_ROWS + 1; i++)
        add_row(&list, "1", i == LIST_BLOCK_ROWS ? "wider" : "x", "y");
    assert_int_equal(list.cell_count, 3);
    list_end(&list);
    capture_end(&capture, text, sizeof text);
    assert_memory_equal(text, "1  x  y\n", 8);
    assert_string_equal(text + LIST_BLOCK_ROWS * 8, "1  wider  y\n");
}

static void test_json_lists(void **state)
{
    struct ctl ctl = {.options = {[CTL_OPTION_JSON] = ""}};
    struct capture capture;
    char text[512];
    (void)state;
    for (int rows = 0; rows <= 2; rows++) {
        static const char *const expected[] = {"[]\n", "[\n{\"id\":0,\"text\":\"a\\\"{\"}\n]\n",
                                               "[\n{\"id\":0,\"text\":\"a\\\"{\"},\n{\"id\":1,\"text\":null}\n]\n"};
        struct list list;
        capture_begin(&capture);
        list_begin(&list, &ctl, headings);
        for (int i = 0; i < rows; i++) {
            struct buffer object = {0};
            json_open(&object, NULL, '{');
            json_number(&object, "id", (uint64_t)i);
            json_text(&object, "text", i == 0 ? "a\"{" : NULL);
            json_close(&object, '}');
            list_object(&list, &object);
        }
        list_end(&list);
        capture_end(&capture, text, sizeof text);
        assert_string_equal(text, expected[rows]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_durations_are_read),
        cmocka_unit_test(test_durations_are_written),
        cmocka_unit_test(test_columns_are_as_wide_as_their_cells),
        cmocka_unit_test(test_heading_stands_above),
        cmocka_unit_test(test_long_lists_come_in_blocks),
        cmocka_unit_test(test_json_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
