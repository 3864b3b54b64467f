/* SPDX-License-Identifier: MIT */
/* Writing to people and programs, and asking people. */
#include "output.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int output_fail(const struct error *error)
{
    (void)fflush(stdout);
    error_print("promptctl", error);
    return error->code == ERROR_NONE ? CTL_FOUND : error_exit_status(error->code);
}

void output_note(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fflush(stdout);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
}

/* Set once memory was out for something to be written. */
static bool text_is_missing;

void output_write(struct buffer *buffer)
{
    text_is_missing |= buffer->failed;
    if (!buffer->failed && buffer->length > 0)
        (void)fwrite(buffer->data, 1, buffer->length, stdout);
    buffer_free(buffer);
}

int output_end(int status)
{
    if (text_is_missing)
        return output_fail(&(struct error){.code = ERROR_INTERNAL, .text = "out of memory"});
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    if (errno == EPIPE)
        return CTL_INTERNAL; /* the reader has seen enough, as with head(1) */
    return output_fail(&(struct error){.code = ERROR_INTERNAL, .text = "the output cannot be written"});
}

const char *output_colour(const struct ctl *ctl, const char *colour)
{
    return ctl->colour ? colour : "";
}

bool output_may_change(const struct ctl *ctl, struct error *error)
{
    return ctl_has(ctl, CTL_OPTION_YES) || isatty(STDIN_FILENO) ||
           error_set(error, ERROR_USAGE, "there is no terminal to ask on: with --yes it is done without asking");
}

bool output_confirm(const struct ctl *ctl, const char *format, ...)
{
    if (ctl_has(ctl, CTL_OPTION_YES))
        return true;
    va_list arguments;
    va_start(arguments, format);
    (void)fflush(stdout);
    (void)vfprintf(stderr, format, arguments);
    (void)fputs(" [y/N] ", stderr);
    va_end(arguments);
    char answer[16] = "";
    bool read = fgets(answer, sizeof answer, stdin) != NULL;
    if (!read)
        (void)fputc('\n', stderr); /* the line of the question is still open */
    for (char *c = answer; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    if (read && (strcmp(answer, "y\n") == 0 || strcmp(answer, "yes\n") == 0))
        return true;
    output_note("Nothing was changed.");
    return false;
}
