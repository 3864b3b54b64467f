/* SPDX-License-Identifier: MIT */
/* promptctl: reads the command line and the settings, and calls the command. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arguments.h"
#include "ctl.h"
#include "output.h"
#include "promptd/version.h"

static bool wants_colour(void)
{
    const char *none = getenv("NO_COLOR");
    const char *terminal = getenv("TERM");
    return isatty(STDOUT_FILENO) && !(none && *none) && terminal && strcmp(terminal, "dumb") != 0;
}

static int run_command(const struct arguments *arguments, struct error *error)
{
    struct ctl ctl = {
        .operands = arguments->operands,
        .operand_count = arguments->operand_count,
        .colour = wants_colour(),
    };
    memcpy(ctl.options, arguments->options, sizeof ctl.options);
    if (!settings_load(arguments->setting_count, arguments->settings, environ, false, &ctl.settings, NULL, error))
        return output_fail(error);
    settings_warn_of_variables(environ);
    int status = 0;
    if (arguments->print_config)
        settings_print(&ctl.settings, stdout);
    else
        status = arguments->command->run(&ctl);
    settings_free(&ctl.settings);
    return status;
}

int main(int argc, char *argv[])
{
    struct arguments arguments;
    struct error error = {.code = ERROR_NONE};
    int status = 0;
    (void)signal(SIGPIPE, SIG_IGN);
    if (!arguments_read(argc, argv, &arguments, &error))
        status = output_fail(&error);
    else if (arguments.help)
        ctl_print_help(arguments.help_words);
    else if (arguments.version)
        (void)printf("promptctl %s\n", PROMPTD_VERSION);
    else
        status = run_command(&arguments, &error);
    arguments_free(&arguments);
    return output_end(status);
}
