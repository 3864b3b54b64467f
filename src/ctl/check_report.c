/* SPDX-License-Identifier: MIT */
/* The lines of promptctl check. */
#include "check_report.h"

#include <stdarg.h>
#include <stdio.h>

#include "output.h"
#include "promptd/json.h"
#include "promptd/text.h"

enum { STEP_WIDTH = 21, DETAIL_SIZE = 600 };

static const struct {
    const char *name; /* in --json */
    const char *word;
    const char *colour;
} verdicts[] = {
    [CHECK_OK] = {"ok", "ok    ", OUTPUT_GREEN},       [CHECK_NOTE] = {"note", "!     ", OUTPUT_YELLOW},
    [CHECK_FAILED] = {"failed", "FAILED", OUTPUT_RED}, [CHECK_UNTRIED] = {"not_tried", "?     ", OUTPUT_YELLOW},
    [CHECK_SKIPPED] = {"skipped", "-     ", ""},
};

/* "redis_login" as "redis login". */
static void append_step(struct buffer *line, const char *step)
{
    size_t width = 0;
    for (; step[width]; width++)
        buffer_append(line, step[width] == '_' ? " " : &step[width], 1);
    buffer_printf(line, "%*s", width < STEP_WIDTH ? (int)(STEP_WIDTH - width) : 1, "");
}

static void report(struct check *check, const char *step, enum check_verdict verdict, const char *detail)
{
    struct buffer line = {0};
    if (ctl_has(check->ctl, CTL_OPTION_JSON)) {
        (void)fputs(check->steps > 0 ? ",\n" : "[\n", stdout);
        json_open(&line, NULL, '{');
        json_text(&line, "step", step);
        json_text(&line, "result", verdicts[verdict].name);
        json_text(&line, "detail", detail);
        json_close(&line, '}');
    } else {
        buffer_printf(&line, "%s%s%s  ", output_colour(check->ctl, verdicts[verdict].colour), verdicts[verdict].word,
                      output_colour(check->ctl, OUTPUT_PLAIN));
        append_step(&line, step);
        text_append_escaped(&line, detail);
        buffer_append_char(&line, '\n');
    }
    output_write(&line);
    (void)fflush(stdout); /* a step may take its time; output_end sees what failed */
    check->steps++;
}

void check_report_step(struct check *check, const char *step, enum check_verdict verdict, const char *format, ...)
{
    char detail[DETAIL_SIZE];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(detail, sizeof detail, format, arguments);
    va_end(arguments);
    report(check, step, verdict, detail);
}

void check_fail(struct check *check, const char *step, const struct error *error)
{
    check->unreachable |= error->code == ERROR_UNAVAILABLE;
    check->wrong |= error->code == ERROR_CONFIG;
    check->broken |= error->code != ERROR_UNAVAILABLE && error->code != ERROR_CONFIG;
    report(check, step, CHECK_FAILED, error->text);
}

void check_report_unseen(struct check *check, const char *step, const struct error *error)
{
    if (error->code == ERROR_CONFIG)
        check_report_step(check, step, CHECK_NOTE, "cannot be seen: %s", error->text);
    else
        check_fail(check, step, error);
}
