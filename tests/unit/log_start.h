/* SPDX-License-Identifier: MIT */
/* A log in a folder of its own. For one file of a test. */
#ifndef PROMPTD_TESTS_LOG_START_H
#define PROMPTD_TESTS_LOG_START_H

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "promptd/log.h"

/* A row of the table of tests. */
#define LOG_TEST(function) cmocka_unit_test_teardown(function, end_test)

static char folder[] = "/tmp/promptd-test-log-XXXXXX";
static char path[64];
static char moved_path[64];

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    (void)snprintf(path, sizeof path, "%s/log", folder);
    (void)snprintf(moved_path, sizeof moved_path, "%s/log.1", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

static int end_test(void **state)
{
    (void)state;
    log_close();
    log_set_level(LOG_LEVEL_INFO);
    (void)unlink(path);
    (void)unlink(moved_path);
    return 0;
}

static void open_log(enum log_level level, enum log_format format)
{
    struct error error = {0};
    const struct log_options options = {.level = level, .format = format, .file = path};
    if (!log_open(&options, &error))
        fail_msg("%s", error.text);
}

/* All of a file, NUL-terminated, in a buffer that the next call uses again. */
static const char *read_log(const char *file)
{
    static char text[2 * 1048576];
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t length = read(fd, text, sizeof text - 1);
    assert_true(length >= 0);
    close(fd);
    text[length] = '\0';
    return text;
}

#endif
