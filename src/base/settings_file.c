/* SPDX-License-Identifier: MIT */
/* Reading files: the settings file, through inih, and files that hold one value. */
#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "promptd/settings_table.h"
#include "promptd/text.h"

enum { LINE_MAX_LENGTH = 8190 };

struct file_reader {
    const char *path;
    unsigned line;
    settings_take_line *take;
    void *context;
    struct error *error;
    bool ended; /* take has returned false, and has set *error */
};

static int on_pair(void *user, const char *section, const char *name, const char *value)
{
    (void)section; /* headers of sections never get as far as inih */
    struct file_reader *reader = user;
    reader->ended = !reader->take(reader->context, name, value, reader->line, reader->error);
    return !reader->ended;
}

/*
 * Out of the box inih cuts lines at 200 bytes without a word, takes what follows " ;" for a comment (passwords have
 * that) and an indented line for more of the line before. Debian's build lets programs turn that off.
 */
static void tame_inih(void)
{
    ini_use_stack = false;
    ini_allow_realloc = false;
    ini_initial_alloc = ini_max_line = LINE_MAX_LENGTH + 3; /* \r, \n and NUL */
    ini_allow_inline_comments = false;
    ini_allow_multiline = false;
    ini_allow_bom = false; /* a line at a time, it would take one off every line */
}

static bool refuse_line(const struct file_reader *reader, const char *phrase)
{
    return error_set(reader->error, ERROR_CONFIG, "file %s line %u %s", reader->path, reader->line, phrase);
}

/* One line without its newline. What it says is not repeated in errors: it may be a password. */
static bool take_line(struct file_reader *reader, const char *line, size_t length)
{
    if (strlen(line) != length)
        return refuse_line(reader, "has a NUL byte in it");
    if (reader->line == 1 && strncmp(line, "\xef\xbb\xbf", 3) == 0) {
        line += 3;
        length -= 3;
    }
    if (length > LINE_MAX_LENGTH)
        return refuse_line(reader, "is longer than 8190 bytes");
    const char *first = line + strspn(line, " \t");
    if (*first == '[')
        return refuse_line(reader, "is the header of a section, and settings have no sections");
    if (*first == '=' || *first == ':')
        return refuse_line(reader, "has no key");
    int result = ini_parse_string(line, on_pair, reader);
    if (reader->ended)
        return false;
    if (result == -2)
        return error_set(reader->error, ERROR_INTERNAL, "out of memory");
    return result == 0 || refuse_line(reader, "is not of the form key = value");
}

static bool read_lines(struct file_reader *reader, FILE *file)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    bool good = true;
    while (good && (length = getline(&line, &capacity, file)) >= 0) {
        if (length > 0 && line[length - 1] == '\n')
            line[--length] = '\0';
        if (length > 0 && line[length - 1] == '\r')
            line[--length] = '\0';
        reader->line++;
        good = take_line(reader, line, (size_t)length);
    }
    if (good && !feof(file))
        good = error_set(reader->error, ERROR_CONFIG, "file %s cannot be read: %s", reader->path, strerror(errno));
    free(line);
    return good;
}

bool settings_read_file(const char *path, bool must_exist, settings_take_line *take, void *context, struct error *error)
{
    FILE *file = fopen(path, "re");
    if (!file && errno == ENOENT && !must_exist)
        return true;
    if (!file)
        return error_set(error, ERROR_CONFIG, "file %s cannot be read: %s", path, strerror(errno));
    tame_inih();
    struct file_reader reader = {.path = path, .take = take, .context = context, .error = error};
    bool good = read_lines(&reader, file);
    (void)fclose(file); /* it was only read */
    return good;
}

char *settings_read_value_file(const char *path, struct error *phrase)
{
    char text[SETTING_VALUE_MAX + 2]; /* one byte more than is allowed, to see that there is more */
    FILE *file = fopen(path, "re");
    size_t length = file ? fread(text, 1, sizeof text - 1, file) : 0;
    bool failed = !file || ferror(file);
    int read_errno = errno;
    if (file)
        (void)fclose(file);
    bool whole = length <= SETTING_VALUE_MAX;
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        length--;
    char *value = NULL;
    if (failed)
        error_set(phrase, ERROR_CONFIG, "cannot be read: %s", strerror(read_errno));
    else if (memchr(text, '\0', length))
        error_set(phrase, ERROR_CONFIG, "has a NUL byte in it");
    else if (!whole)
        error_set(phrase, ERROR_CONFIG, "is longer than 8000 bytes");
    else if (!(value = strndup(text, length)))
        error_set(phrase, ERROR_INTERNAL, "out of memory");
    return value;
}
