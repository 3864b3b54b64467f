/* SPDX-License-Identifier: MIT */
/* Reads the command line and the settings, opens the log, and hands over to the daemon. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LOG_COMPONENT "main"
#include "promptd/daemon.h"
#include "promptd/descriptors.h"
#include "promptd/log.h"
#include "promptd/pg_url.h"
#include "promptd/redis_address.h"
#include "promptd/redis_tls.h"
#include "promptd/settings.h"
#include "promptd/version.h"

static void print_help(void)
{
    (void)printf("Usage: promptd [OPTION]...\n"
                 "Takes enhanced interview prompts from a Redis channel and stores them in PostgreSQL.\n\n");
    settings_print_help(stdout);
}

/* Output that could not be written is a failure: scripts depend on it. */
static int end_of_output(void)
{
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : error_exit_status(ERROR_INTERNAL);
}

static int fail(const struct error *error)
{
    error_print("promptd", error);
    return error_exit_status(error->code);
}

static bool open_log(const struct settings *settings, struct error *error)
{
    struct error why = {.code = ERROR_NONE};
    bool opened = log_open(
        &(struct log_options){
            .level = settings->log_level,
            .format = settings->log_format,
            .file = settings->log_file[0] ? settings->log_file : NULL,
        },
        &why);
    if (opened)
        return true;
    if (why.code == ERROR_CONFIG)
        return settings_refuse(settings, "log_file", why.text, "the path of a file that can be appended to", error);
    *error = why;
    return false;
}

static bool check_database_url(const struct settings *settings, struct error *error)
{
    struct error phrase;
    return pg_url_check(settings->database_url, &phrase) ||
           settings_refuse(settings, "database_url", phrase.text, PG_URL_ALLOWED, error);
}

/* The files can be read, and belong together. */
static bool check_tls(const struct settings *settings, struct error *error)
{
    struct redis_address address;
    if (!redis_address_parse(settings->redis_url, &address, error))
        return false; /* cannot be: it was checked */
    bool wanted = address.tls;
    redis_address_free(&address);
    if (!wanted)
        return true;
    struct redis_tls *tls = redis_tls_new(settings, error);
    redis_tls_free(tls);
    return tls;
}

static int run(struct settings *settings, const struct daemon_arguments *arguments)
{
    struct error error = {.code = ERROR_NONE};
    if (!open_log(settings, &error))
        return fail(&error);
    settings_warn(settings, environ); /* in the form that log_format asks for */
    log_capture_stderr();
    int status = daemon_run(settings, arguments);
    log_leave_stderr();
    log_close();
    return status;
}

/* What is done with the settings, once those that are texts have been looked into. */
static int act(struct settings *settings, enum settings_action action, const struct daemon_arguments *arguments)
{
    struct error error = {.code = ERROR_NONE};
    if (!check_database_url(settings, &error) || !check_tls(settings, &error))
        return fail(&error);
    if (action == SETTINGS_RUN)
        return run(settings, arguments);
    settings_warn(settings, environ);
    if (action == SETTINGS_PRINT)
        settings_print(settings, stdout);
    else
        (void)printf("promptd: the settings are valid\n");
    return end_of_output();
}

int main(int argc, char *argv[])
{
    static const struct settings_program program = {.validate_redis_url = redis_address_validate};
    const struct daemon_arguments arguments = {.argc = argc, .argv = argv, .program = &program};
    struct settings settings;
    struct settings_command command;
    struct error error = {.code = ERROR_NONE};
    (void)signal(SIGPIPE, SIG_IGN);
    if (!descriptors_reserve_standard())
        return error_exit_status(ERROR_INTERNAL); /* and there is nowhere to say so */
    if (!settings_read_command(argc, argv, &program, &settings, &command, &error) ||
        !settings_load(&settings, &command, environ, &error))
        return fail(&error);
    int status;
    if (command.action == SETTINGS_HELP) {
        print_help();
        status = end_of_output();
    } else if (command.action == SETTINGS_VERSION) {
        (void)printf("promptd %s\n", PROMPTD_VERSION);
        status = end_of_output();
    } else {
        status = act(&settings, command.action, &arguments);
    }
    settings_free(&settings);
    return status;
}
