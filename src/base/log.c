/* SPDX-License-Identifier: MIT */
/* Builds a line in memory and hands it to the kernel in one piece. */
#include "promptd/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "promptd/buffer.h"
#include "promptd/clock.h"
#include "promptd/text.h"

enum { LOG_MESSAGE_STACK = 1024, LOG_HELD_BYTES = 65536 };

static struct {
    atomic_int level;
    atomic_int format;
    atomic_int fd;
    atomic_uint lost;      /* lines not written since the last notice */
    atomic_bool half_line; /* the last write was cut: the next line must not join its rest */
    char *file;            /* NULL: standard error */
} sink = {.level = LOG_LEVEL_INFO, .format = LOG_FORMAT_TEXT, .fd = STDERR_FILENO};

/* Lines of this thread that are to be written together. */
static _Thread_local struct {
    bool on;
    struct buffer lines;
} held;

static const struct {
    const char *name;
    int priority; /* sd-daemon(3) */
} levels[] = {
    [LOG_LEVEL_DEBUG] = {"DEBUG", 7}, [LOG_LEVEL_INFO] = {"INFO", 6},         [LOG_LEVEL_WARNING] = {"WARNING", 4},
    [LOG_LEVEL_ERROR] = {"ERROR", 3}, [LOG_LEVEL_CRITICAL] = {"CRITICAL", 2},
};

static int open_file(const char *file, struct error *error)
{
    int fd = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
    if (fd < 0)
        error_set(error, ERROR_CONFIG, "cannot be opened: %s", strerror(errno));
    return fd;
}

bool log_open(const struct log_options *options, struct error *error)
{
    char *file = NULL;
    int fd = STDERR_FILENO;
    if (options->file) {
        file = strdup(options->file);
        if (!file)
            return error_set(error, ERROR_INTERNAL, "out of memory");
        fd = open_file(file, error);
        if (fd < 0) {
            free(file);
            return false;
        }
    }
    log_close();
    sink.file = file;
    sink.fd = fd;
    sink.format = (int)options->format;
    sink.level = (int)options->level;
    return true;
}

bool log_reopen(struct error *error)
{
    if (!sink.file)
        return true;
    struct error why = {.code = ERROR_NONE};
    int fd = open_file(sink.file, &why);
    if (fd < 0)
        return error_set(error, why.code, "log file %s %s", sink.file, why.text);
    /* The descriptor keeps its number, so that a line that is just being written by another thread finds a file. */
    bool moved = dup3(fd, sink.fd, O_CLOEXEC) >= 0;
    if (!moved)
        error_set(error, ERROR_INTERNAL, "log file %s cannot be reopened: %s", sink.file, strerror(errno));
    close(fd);
    return moved;
}

void log_close(void)
{
    int saved_errno = errno;
    int fd = atomic_exchange(&sink.fd, STDERR_FILENO);
    if (sink.file) {
        close(fd);
        free(sink.file);
        sink.file = NULL;
    }
    sink.format = LOG_FORMAT_TEXT;
    sink.half_line = false;
    buffer_free(&held.lines);
    errno = saved_errno;
}

void log_set_level(enum log_level level)
{
    sink.level = (int)level;
}

bool log_wants(enum log_level level)
{
    return (int)level >= sink.level;
}

bool log_stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat status;
    char own[48];
    if (!stream || fstat(STDERR_FILENO, &status) != 0)
        return false;
    (void)snprintf(own, sizeof own, "%" PRIu64 ":%" PRIu64, (uint64_t)status.st_dev, (uint64_t)status.st_ino);
    return strcmp(stream, own) == 0;
}

static void append_text_fields(struct buffer *line, const struct log_field *fields)
{
    for (; fields && fields->key; fields++) {
        if (!fields->is_number && !fields->text)
            continue;
        buffer_append_char(line, ' ');
        buffer_append_text(line, fields->key);
        buffer_append_char(line, '=');
        if (fields->is_number)
            buffer_append_number(line, fields->number);
        else
            text_append_logfmt(line, fields->text);
    }
}

static void append_json_fields(struct buffer *line, const struct log_field *fields)
{
    for (; fields && fields->key; fields++) {
        if (!fields->is_number && !fields->text)
            continue;
        buffer_append_char(line, ',');
        text_append_json(line, fields->key);
        buffer_append_char(line, ':');
        if (fields->is_number)
            buffer_append_number(line, fields->number);
        else
            text_append_json(line, fields->text);
    }
}

static void build_line(struct buffer *line, enum log_level level, const char *component, const char *time,
                       const char *message, const struct log_field *fields)
{
    if (sink.half_line && line->length == 0)
        buffer_append_char(line, '\n');
    if (sink.format == LOG_FORMAT_JSON) {
        buffer_printf(line, "{\"time\":\"%s\",\"level\":\"%s\",\"component\":\"%s\",\"message\":", time,
                      levels[level].name, component);
        text_append_json(line, message);
        append_json_fields(line, fields);
        buffer_append_text(line, "}\n");
        return;
    }
    if (sink.format == LOG_FORMAT_JOURNAL) {
        buffer_printf(line, "<%d>", levels[level].priority);
    } else {
        buffer_append_text(line, time);
        buffer_append_char(line, ' ');
    }
    buffer_append_text(line, levels[level].name);
    buffer_append_char(line, ' ');
    buffer_append_text(line, component);
    buffer_append_text(line, ": ");
    text_append_escaped(line, message);
    append_text_fields(line, fields);
    buffer_append_char(line, '\n');
}

/* Without memory there is no escaping: whatever could break the line, in any of the formats, becomes a question mark.
 */
static size_t build_poor_line(char *line, size_t size, enum log_level level, const char *component, const char *time,
                              const char *message)
{
    char plain[LOG_MESSAGE_STACK];
    size_t length = 0;
    for (; length < sizeof plain - 1 && message[length]; length++) {
        char c = message[length];
        bool is_plain = c >= ' ' && c <= '~' && c != '"' && c != '\\';
        plain[length] = '?';
        if (is_plain)
            plain[length] = c;
    }
    plain[length] = '\0';
    const char *start = sink.half_line ? "\n" : "";
    int made;
    if (sink.format == LOG_FORMAT_JSON)
        made = snprintf(line, size, "%s{\"time\":\"%s\",\"level\":\"%s\",\"component\":\"%s\",\"message\":\"%s\"}\n",
                        start, time, levels[level].name, component, plain);
    else if (sink.format == LOG_FORMAT_JOURNAL)
        made = snprintf(line, size, "%s<%d>%s %s: %s\n", start, levels[level].priority, levels[level].name, component,
                        plain);
    else
        made = snprintf(line, size, "%s%s %s %s: %s\n", start, time, levels[level].name, component, plain);
    return made < 0 ? 0 : (size_t)made < size ? (size_t)made : size - 1;
}

/* How many lines could not be written as a whole. */
static unsigned write_lines(const char *lines, size_t length)
{
    ssize_t written;
    do {
        written = write(sink.fd, lines, length);
    } while (written < 0 && errno == EINTR);
    if (written > 0)
        sink.half_line = lines[written - 1] != '\n';
    unsigned lost = 0;
    for (size_t i = written > 0 ? (size_t)written : 0; i < length; i++)
        lost += lines[i] == '\n';
    return lost;
}

static bool write_line(const char *line, size_t length)
{
    return write_lines(line, length) == 0;
}

static bool write_poor_line(enum log_level level, const char *component, const char *time, const char *message)
{
    char poor[LOG_MESSAGE_STACK + 256];
    return write_line(poor, build_poor_line(poor, sizeof poor, level, component, time, message));
}

static bool emit(enum log_level level, const char *component, const char *message, const struct log_field *fields)
{
    char time[CLOCK_TEXT_SIZE];
    clock_format_wall(clock_wall_ms(), time);
    struct buffer line = {0};
    build_line(&line, level, component, time, message, fields);
    bool written = line.failed ? write_poor_line(level, component, time, message) : write_line(line.data, line.length);
    buffer_free(&line);
    return written;
}

/* True when nothing is owed, or when the notice of what was lost could be written. */
static bool settle_lost_lines(void)
{
    unsigned lost = atomic_exchange(&sink.lost, 0);
    if (lost == 0)
        return true;
    const struct log_field *fields = LOG_FIELDS(log_number("lines", lost));
    if (emit(LOG_LEVEL_WARNING, "log", "lines could not be written to the log and are lost", fields))
        return true;
    sink.lost += lost;
    return false;
}

static void write_held(void)
{
    if (held.lines.length > 0 && settle_lost_lines())
        sink.lost += write_lines(held.lines.data, held.lines.length);
    else
        for (size_t i = 0; i < held.lines.length; i++)
            sink.lost += held.lines.data[i] == '\n';
    buffer_reset(&held.lines, LOG_HELD_BYTES);
}

/* false: out of memory, and the line must go alone. */
static bool hold_line(enum log_level level, const char *component, const char *message, const struct log_field *fields)
{
    size_t start = held.lines.length;
    char time[CLOCK_TEXT_SIZE];
    clock_format_wall(clock_wall_ms(), time);
    build_line(&held.lines, level, component, time, message, fields);
    bool failed = held.lines.failed;
    if (failed) {
        held.lines.length = start;
        held.lines.failed = false;
    }
    if (failed || level >= LOG_LEVEL_WARNING || held.lines.length >= LOG_HELD_BYTES / 2)
        write_held();
    return !failed;
}

void log_hold(void)
{
    held.on = true;
}

void log_flush(void)
{
    int saved_errno = errno;
    write_held();
    errno = saved_errno;
}

void log_release(void)
{
    held.on = false;
    log_flush();
}

void log_write(enum log_level level, const char *component, const struct log_field *fields, const char *format, ...)
{
    int saved_errno = errno;
    char stack[LOG_MESSAGE_STACK];
    char *message = stack;
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    int length = vsnprintf(stack, sizeof stack, format, args);
    va_end(args);
    if (length < 0) {
        (void)snprintf(stack, sizeof stack, "a message that cannot be formatted");
    } else if ((size_t)length >= sizeof stack) {
        char *longer = malloc((size_t)length + 1);
        errno = saved_errno; /* for %m */
        if (longer && vsnprintf(longer, (size_t)length + 1, format, again) >= 0)
            message = longer;
        else
            free(longer);
    }
    va_end(again);

    bool is_held = held.on && hold_line(level, component, message, fields);
    if (!is_held && (!settle_lost_lines() || !emit(level, component, message, fields)))
        sink.lost++;
    if (message != stack)
        free(message);
    errno = saved_errno;
}
