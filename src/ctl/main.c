/* SPDX-License-Identifier: MIT */
/* promptctl: reads the command line and the settings, and calls the command. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arguments.h"
#include "output.h"
#include "promptd/commands.h"
#include "promptd/descriptors.h"
#include "promptd/log.h"
#include "promptd/version.h"

static bool wants_colour(void)
{
    const char *none = getenv("NO_COLOR");
    const char *terminal = getenv("TERM");
    return isatty(STDOUT_FILENO) && !(none && *none) && terminal && strcmp(terminal, "dumb") != 0;
}

static int run_command(const struct arguments *arguments, struct settings *settings, struct error *error)
{
    if (!settings_load(settings, &arguments->line, environ, error))
        return output_fail(error);
    /* An orchestrator may set PROMPTD_PORT and the like for every process: nobody wants to hear that each time. */
    bool prints = arguments->line.action == SETTINGS_PRINT;
    if (prints || strcmp(arguments->command->name, "check") == 0)
        settings_warn(settings, environ);
    if (prints) {
        settings_print(settings, stdout);
        return 0;
    }
    struct ctl ctl = {
        .operands = arguments->line.operands,
        .operand_count = arguments->line.operand_count,
        .settings = *settings,
        .colour = wants_colour(),
    };
    memcpy(ctl.options, arguments->line.more, sizeof ctl.options);
    return arguments->command->run(&ctl);
}

int main(int argc, char *argv[])
{
    struct arguments arguments;
    struct settings settings;
    struct error error = {.code = ERROR_NONE};
    int status = 0;
    (void)signal(SIGPIPE, SIG_IGN);
    log_set_level(LOG_LEVEL_WARNING);           /* what the layers below have to say is meant for the daemon's log */
    (void)setenv("UV_THREADPOOL_SIZE", "1", 0); /* for names: one is looked up at a time */
    if (!descriptors_reserve_standard())
        return error_exit_status(ERROR_INTERNAL); /* and there is nowhere to say so */
    if (!arguments_read(argc, argv, &arguments, &settings, &error))
        status = output_fail(&error);
    else if (arguments.line.action == SETTINGS_HELP)
        ctl_print_help(arguments.help_words);
    else if (arguments.line.action == SETTINGS_VERSION)
        (void)printf("promptctl %s\n", PROMPTD_VERSION);
    else
        status = run_command(&arguments, &settings, &error);
    settings_free(&settings);
    return output_end(status);
}
