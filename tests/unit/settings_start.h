/* SPDX-License-Identifier: MIT */
/* What tests of settings share: a folder of their own, and a start from a file, flags and variables. */
#ifndef PROMPTD_TESTS_SETTINGS_START_H
#define PROMPTD_TESTS_SETTINGS_START_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "promptd/log.h"
#include "promptd/redis_address.h"
#include "promptd/settings.h"
#include "promptd/settings_table.h"

#include "failing_memory.h"

#define NONE ((const char *const[]){NULL})
#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

enum { MOST_WORDS = 16 };

/* The tests run in a folder of their own, so that messages name short paths. */
static char folder[] = "/tmp/promptd-test-settings-XXXXXX";

static inline int enter_folder(void **state)
{
    (void)state;
    unsetenv("JOURNAL_STREAM");
    return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static inline int leave_folder(void **state)
{
    (void)state;
    return chdir("/") == 0 && rmdir(folder) == 0 ? 0 : -1;
}

static inline int remove_files(void **state)
{
    (void)state;
    memory_left = -1;
    log_close();
    (void)unlink("conf");
    (void)unlink("value");
    (void)unlink("log");
    return 0;
}

static inline void write_bytes(const char *path, const char *bytes, size_t length)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

static inline void write_file(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text));
}

static inline const char *read_file(const char *path)
{
    static char text[65536];
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    assert_int_equal(fclose(file), 0);
    return text;
}

/* What a test says of one start: the file "conf" with this text, these flags, these variables. */
struct start {
    const char *file;
    const char *const *flags;
    const char *const *environment;
};

/* Both steps. `argv` may be changed. */
static inline bool load_all(int argc, char *argv[], const struct settings_flag *flags, char *const environment[],
                            struct settings *settings, struct settings_command *command, struct error *error)
{
    const struct settings_program program = {.flags = flags, .validate_redis_url = redis_address_validate};
    struct settings_command unwanted;
    if (!command)
        command = &unwanted;
    return settings_read_command(argc, argv, &program, settings, command, error) &&
           settings_load(settings, command, environment, error);
}

static inline bool load(struct start start, struct settings *settings, struct settings_command *command,
                        struct error *error)
{
    char *argv[MOST_WORDS] = {strdup("promptd"), strdup("--config"), strdup("conf")};
    char *environment[MOST_WORDS] = {NULL};
    int argc = 3;
    for (const char *const *flag = start.flags; flag && *flag; flag++)
        argv[argc++] = strdup(*flag);
    for (size_t i = 0; start.environment && start.environment[i]; i++)
        environment[i] = strdup(start.environment[i]);
    if (start.file)
        write_file("conf", start.file);
    else
        write_file("conf", "");

    bool good = load_all(argc, argv, NULL, environment, settings, command, error);
    for (size_t i = 0; i < MOST_WORDS; i++) {
        free(argv[i]);
        free(environment[i]);
    }
    return good;
}

static inline void assert_loads(struct start start, struct settings *settings)
{
    struct error error = {0};
    if (!load(start, settings, NULL, &error))
        fail_msg("%s", error.text);
}

static inline void assert_refused(struct start start, enum error_code code, const char *message)
{
    struct settings settings;
    struct error error = {0};
    memset(&settings, 0x55, sizeof settings);
    if (load(start, &settings, NULL, &error))
        fail_msg("accepted instead of: %s", message);
    assert_string_equal(error.text, message);
    assert_int_equal(error.code, code);
    const struct settings empty = {0};
    assert_memory_equal(&settings, &empty, sizeof settings);
}

static inline bool load_words(const char *const *words, const char *const *variables, struct settings *settings,
                              struct settings_command *command, struct error *error)
{
    static const struct settings_flag more[] = {
        {"delete", NULL, SETTINGS_RUN, ""}, {"age", "AGE", SETTINGS_RUN, ""}, {0}};
    static char *argv[MOST_WORDS]; /* the operands stay here */
    int argc = 0;
    for (; words[argc]; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc];
    argv[argc] = NULL;
    return load_all(argc, argv, more, (char *const *)(uintptr_t)variables, settings, command, error);
}

#define SETTINGS_TEST(function) cmocka_unit_test_teardown(function, remove_files)

#endif
