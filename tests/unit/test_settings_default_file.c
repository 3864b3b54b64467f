/* SPDX-License-Identifier: MIT */
/* The file that is read where --config names none. Built with a settings.c that has it in the test's own folder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "settings_start.h"

static void test_is_read_where_it_exists(void **state)
{
    (void)state;
    struct settings s;
    write_file("conf", "batch_max = 9\n");
    assert_true(load_words(WORDS("promptd"), NONE, &s, NULL, NULL));
    assert_int_equal(s.batch_max, 9);
    settings_free(&s);
}

static void test_may_be_absent(void **state)
{
    (void)state;
    struct settings s;
    assert_true(load_words(WORDS("promptd"), NONE, &s, NULL, NULL));
    assert_int_equal(s.batch_max, 256);
    settings_free(&s);
}

static void test_must_be_readable_where_it_exists(void **state)
{
    (void)state;
    struct settings s;
    struct error error = {0};
    assert_int_equal(symlink("conf", "conf"), 0);
    assert_false(load_words(WORDS("promptd"), NONE, &s, NULL, &error));
    assert_int_equal(error.code, ERROR_CONFIG);
    assert_string_equal(error.text, "file conf cannot be read: Too many levels of symbolic links");
}

static void test_is_not_read_beside_another(void **state)
{
    (void)state;
    struct settings s;
    write_file("conf", "nonsense\n");
    assert_true(load_words(WORDS("promptd", "--config=/dev/null"), NONE, &s, NULL, NULL));
    settings_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SETTINGS_TEST(test_is_read_where_it_exists),
        SETTINGS_TEST(test_may_be_absent),
        SETTINGS_TEST(test_must_be_readable_where_it_exists),
        SETTINGS_TEST(test_is_not_read_beside_another),
    };
    return cmocka_run_group_tests_name("settings_default_file", tests, enter_folder, leave_folder);
}
