/* SPDX-License-Identifier: MIT */
/* Where the log's lines go: files and their rotation, standard error, pipes, and what cannot be written. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define LOG_COMPONENT "test"
#include "promptd/log.h"

#include "failing_memory.h"
#include "log_output.h"
#include "log_start.h"

static void test_rotation(void **state)
{
    (void)state;
    struct error error = {0};
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_JOURNAL);
    log_info(NULL, "one");
    assert_int_equal(rename(path, moved_path), 0);
    log_info(NULL, "two");
    assert_true(log_reopen(&error));
    log_info(NULL, "three");
    assert_string_equal(read_log(moved_path), "<6>INFO test: one\n<6>INFO test: two\n");
    assert_string_equal(read_log(path), "<6>INFO test: three\n");

    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07, 0); /* of no concern to others */
}

static void test_failed_reopen_keeps_the_old_file(void **state)
{
    (void)state;
    struct error error = {0};
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_JOURNAL);
    assert_int_equal(rename(path, moved_path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_false(log_reopen(&error));
    assert_non_null(strstr(error.text, path));
    assert_non_null(strstr(error.text, "Is a directory"));
    log_info(NULL, "still");
    assert_string_equal(read_log(moved_path), "<6>INFO test: still\n");
    assert_int_equal(rmdir(path), 0);
}

static void test_failed_open_changes_nothing(void **state)
{
    (void)state;
    struct error error = {0};
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_JOURNAL);
    const struct log_options options = {LOG_LEVEL_DEBUG, LOG_FORMAT_JSON, "/nonexistent/folder/log"};
    assert_false(log_open(&options, &error));
    assert_int_equal(error.code, ERROR_CONFIG);
    assert_string_equal(error.text, "cannot be opened: No such file or directory");
    memory_left = 0;
    const struct log_options good = {LOG_LEVEL_DEBUG, LOG_FORMAT_JSON, path};
    assert_false(log_open(&good, &error));
    memory_left = -1;
    assert_int_equal(error.code, ERROR_INTERNAL);
    assert_false(log_wants(LOG_LEVEL_DEBUG));
    log_info(NULL, "as before");
    assert_string_equal(read_log(path), "<6>INFO test: as before\n");
}

/* Sends standard error to the test's file until restore_stderr. */
static int divert_stderr(void)
{
    int saved = dup(STDERR_FILENO);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    assert_true(saved >= 0 && fd >= 0);
    assert_true(dup2(fd, STDERR_FILENO) >= 0);
    close(fd);
    return saved;
}

static void restore_stderr(int saved)
{
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
}

static void test_standard_error_before_open_and_after_close(void **state)
{
    (void)state;
    struct error error = {0};
    int saved = divert_stderr();
    log_info(NULL, "before");
    const struct log_options options = {LOG_LEVEL_INFO, LOG_FORMAT_JOURNAL, NULL};
    bool opened = log_open(&options, &error);
    log_info(NULL, "open");
    bool reopened = log_reopen(&error);
    log_close();
    log_info(NULL, "after");
    restore_stderr(saved);
    assert_true(opened && reopened);
    const char *text = read_log(path);
    assert_non_null(strstr(text, "Z INFO test: before\n"));
    assert_non_null(strstr(text, "\n<6>INFO test: open\n"));
    assert_non_null(strstr(text, "Z INFO test: after\n"));
}

/* With the file size limited to `bytes`, the kernel cuts the write that would pass it, and refuses the next. */
static void limit_file_size(rlim_t bytes)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void test_what_cannot_be_written_yet_follows(void **state)
{
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_JOURNAL);
    limit_file_size(20);
    log_info(NULL, "cut in the middle"); /* 14 bytes of prefix, so that 6 of the message get through */
    errno = ENOENT;
    log_info(NULL, "kept");
    assert_int_equal(errno, ENOENT);
    assert_false(log_retry());
    assert_string_equal(read_log(path), "<6>INFO test: cut in");
    limit_file_size(RLIM_INFINITY);
    log_info(NULL, "back");
    assert_true(log_retry());
    assert_string_equal(read_log(path), "<6>INFO test: cut in the middle\n"
                                        "<6>INFO test: kept\n"
                                        "<6>INFO test: back\n");
}

static void test_lost_lines_are_counted_and_reported(void **state)
{
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_JOURNAL);
    uint64_t before = log_lost_lines();
    limit_file_size(1);
    for (int i = 0; i < 1000; i++)
        log_info(NULL, "%01000d", i);
    uint64_t lost = log_lost_lines() - before;
    assert_in_range(lost, 1000 - LOG_KEPT_BYTES_INFO / 1015 - 1, 1000 - LOG_KEPT_BYTES_INFO / 1015 + 1);
    for (int i = 0; i < 1000; i++) { /* more serious ones find room still, and CRITICAL ones when these do not */
        log_error(NULL, "%01000d", i);
        log_critical(NULL, "CRITICAL %d", i);
    }
    assert_in_range(log_lost_lines() - before - lost, 1000 - LOG_KEPT_BYTES / 4 / 1016 - 1, 1000 - 1);
    lost = log_lost_lines() - before;
    limit_file_size(RLIM_INFINITY);
    assert_true(log_retry());
    assert_int_equal(log_lost_lines() - before, lost);
    char notice[128];
    (void)snprintf(notice, sizeof notice,
                   "\n<4>WARNING log: lines could not be written to the log and are lost lines=%" PRIu64 "\n", lost);
    const char *text = read_log(path);
    for (int i = 0; i < 1000; i++) {
        char line[64];
        (void)snprintf(line, sizeof line, "\n<2>CRITICAL test: CRITICAL %d\n", i);
        assert_non_null(strstr(text, line));
    }
    assert_string_equal(text + strlen(text) - strlen(notice), notice);
}

static void make_pipe(int ends[2])
{
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
}

static void test_a_full_pipe_is_not_waited_for(void **state)
{
    (void)state;
    int ends[2];
    char text[65536];
    struct error error = {0};
    make_pipe(ends);
    int saved = dup(STDERR_FILENO);
    assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    const struct log_options options = {LOG_LEVEL_INFO, LOG_FORMAT_JOURNAL, NULL};
    bool opened = log_open(&options, &error);
    for (int i = 0; i < 200; i++)
        log_info(NULL, "%01000d", i);
    int flags = fcntl(STDERR_FILENO, F_GETFL);
    ssize_t first = read(ends[0], text, sizeof text);
    bool all_written = log_retry();
    ssize_t second = read(ends[0], text, sizeof text);
    log_close(); /* after a moment: the pipe is full again */
    restore_stderr(saved);
    close(ends[0]);
    close(ends[1]);
    assert_true(opened && !all_written);
    assert_int_equal(flags & O_NONBLOCK, 0);
    assert_true(first > 60000 && second > 60000);
}

/* As in a program that was given another user: what it has inherited may be written to, and not be opened again. */
static void test_a_pipe_that_cannot_be_opened_again(void **state)
{
    (void)state;
    int ends[2];
    char text[65536];
    make_pipe(ends);
    int saved = dup(STDERR_FILENO);
    assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    log_close(); /* before log_open it is not tried */
    for (int i = 0; i < 200; i++)
        log_info(NULL, "%01000d", i);
    ssize_t first = read(ends[0], text, sizeof text);
    bool all_written = log_retry();
    ssize_t second = read(ends[0], text, sizeof text);
    log_close();
    restore_stderr(saved);
    close(ends[0]);
    close(ends[1]);
    assert_false(all_written);
    assert_true(first > 40000 && second > 40000);
}

static void test_rotation_does_not_join_lines(void **state)
{
    (void)state;
    struct error error = {0};
    signal(SIGXFSZ, SIG_IGN);
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_JOURNAL);
    uint64_t before = log_lost_lines();
    limit_file_size(20);
    log_info(NULL, "cut in the middle");
    log_info(NULL, "kept");
    assert_int_equal(rename(path, moved_path), 0);
    limit_file_size(RLIM_INFINITY);
    assert_true(log_reopen(&error));
    assert_string_equal(read_log(path), "<6>INFO test: kept\n");
    assert_int_equal(log_lost_lines() - before, 1);
}

static void test_held_lines_are_written_together(void **state)
{
    (void)state;
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_JOURNAL);
    log_hold();
    log_info(NULL, "one");
    log_info(LOG_FIELDS(log_number("n", 2)), "two");
    assert_string_equal(read_log(path), "");
    errno = ENOENT;
    log_release();
    assert_int_equal(errno, ENOENT);
    assert_string_equal(read_log(path), "<6>INFO test: one\n<6>INFO test: two n=2\n");
    log_info(NULL, "three");
    assert_string_equal(read_log(path), "<6>INFO test: one\n<6>INFO test: two n=2\n<6>INFO test: three\n");
}

static void test_a_flush_does_not_end_the_hold(void **state)
{
    (void)state;
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_JOURNAL);
    log_flush(); /* nothing is held */
    log_hold();
    log_info(NULL, "one");
    log_flush();
    assert_string_equal(read_log(path), "<6>INFO test: one\n");
    log_info(NULL, "two");
    assert_string_equal(read_log(path), "<6>INFO test: one\n");
    log_release();
    assert_string_equal(read_log(path), "<6>INFO test: one\n<6>INFO test: two\n");
}

static void test_a_warning_does_not_wait(void **state)
{
    (void)state;
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_JOURNAL);
    log_hold();
    log_info(NULL, "before");
    log_warning(NULL, "now");
    log_info(NULL, "after");
    assert_string_equal(read_log(path), "<6>INFO test: before\n<4>WARNING test: now\n");
    log_release();
    assert_string_equal(read_log(path), "<6>INFO test: before\n<4>WARNING test: now\n<6>INFO test: after\n");
}

static void test_many_held_lines_do_not_grow_for_ever(void **state)
{
    (void)state;
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_JOURNAL);
    log_hold();
    for (int i = 0; i < 2000; i++)
        log_info(NULL, "%0100d", i);
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_in_range(status.st_size, 2000 * 115 - 65536, 2000 * 115 - 1);
    log_release();
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_size, 2000 * 115);
}

static void test_held_lines_are_kept_too(void **state)
{
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_JOURNAL);
    limit_file_size(25);
    log_hold();
    log_info(NULL, "whole"); /* 20 bytes with its newline */
    log_info(NULL, "cut");
    log_info(NULL, "kept");
    log_release();
    limit_file_size(RLIM_INFINITY);
    log_info(NULL, "back");
    assert_string_equal(read_log(path), "<6>INFO test: whole\n<6>INFO test: cut\n"
                                        "<6>INFO test: kept\n<6>INFO test: back\n");
}

static void test_held_lines_without_memory_go_alone(void **state)
{
    (void)state;
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_JOURNAL);
    log_hold();
    memory_left = 0;
    log_info(LOG_FIELDS(log_number("n", 1)), "poor");
    memory_left = -1;
    log_info(NULL, "rich");
    log_release();
    assert_string_equal(read_log(path), "<6>INFO test: poor\n<6>INFO test: rich\n");
}

static void test_stderr_is_journal(void **state)
{
    (void)state;
    struct stat status;
    char stream[64];
    assert_int_equal(fstat(STDERR_FILENO, &status), 0);
    unsetenv("JOURNAL_STREAM");
    assert_false(log_stderr_is_journal());
    (void)snprintf(stream, sizeof stream, "%ju:%ju", (uintmax_t)status.st_dev, (uintmax_t)status.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    assert_true(log_stderr_is_journal());
    (void)snprintf(stream, sizeof stream, "%ju:%ju", (uintmax_t)status.st_dev, (uintmax_t)status.st_ino + 1);
    setenv("JOURNAL_STREAM", stream, 1);
    assert_false(log_stderr_is_journal());
    setenv("JOURNAL_STREAM", "nonsense", 1);
    assert_false(log_stderr_is_journal());
    unsetenv("JOURNAL_STREAM");
}

static void test_what_libraries_print_is_a_line(void **state)
{
    (void)state;
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
    FILE *before = stderr;
    log_capture_stderr();
    (void)fprintf(stderr, "%s", "FATAL:  terminating \"it\"\nDETAIL:\ta\x1b[2J\n\n");
    (void)fprintf(stderr, "%0300d\n", 7);
    log_leave_stderr();
    assert_ptr_equal(stderr, before);
    log_leave_stderr(); /* does nothing */
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    FILE *file = fopen(path, "r");
    char lines[4][1024] = {0};
    assert_non_null(file);
    for (int i = 0; i < 3; i++)
        assert_non_null(fgets(lines[i], sizeof lines[i], file));
    assert_null(fgets(lines[3], sizeof lines[3], file));
    (void)fclose(file);
    assert_non_null(
        strstr(lines[0], "\"level\":\"WARNING\",\"component\":\"library\",\"message\":\"FATAL:  terminating"));
    assert_non_null(strstr(lines[1], "\\u001b[2J"));
    assert_true(strlen(lines[2]) < 320);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_what_libraries_print_is_a_line),
        LOG_TEST(test_rotation),
        LOG_TEST(test_failed_reopen_keeps_the_old_file),
        LOG_TEST(test_failed_open_changes_nothing),
        LOG_TEST(test_standard_error_before_open_and_after_close),
        LOG_TEST(test_what_cannot_be_written_yet_follows),
        LOG_TEST(test_lost_lines_are_counted_and_reported),
        LOG_TEST(test_a_full_pipe_is_not_waited_for),
        LOG_TEST(test_a_pipe_that_cannot_be_opened_again),
        LOG_TEST(test_rotation_does_not_join_lines),
        LOG_TEST(test_held_lines_are_written_together),
        LOG_TEST(test_a_flush_does_not_end_the_hold),
        LOG_TEST(test_a_warning_does_not_wait),
        LOG_TEST(test_many_held_lines_do_not_grow_for_ever),
        LOG_TEST(test_held_lines_are_kept_too),
        LOG_TEST(test_held_lines_without_memory_go_alone),
        LOG_TEST(test_stderr_is_journal),
    };
    return cmocka_run_group_tests_name("log output", tests, make_folder, remove_folder);
}
