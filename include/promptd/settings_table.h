/* SPDX-License-Identifier: MIT */
/*
 * The table of settings, one row each, and what can be done with one row. For settings.h's own parts and for programs
 * that print the table; everyone else reads struct settings.
 */
#ifndef PROMPTD_SETTINGS_TABLE_H
#define PROMPTD_SETTINGS_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "promptd/buffer.h"
#include "promptd/error.h"
#include "promptd/settings.h"

enum setting_type {
    SETTING_TEXT,   /* char * */
    SETTING_NUMBER, /* int64_t */
    SETTING_CHOICE, /* an enum, whose values are the indices of `choices` */
    SETTING_LIST,   /* struct text_list */
};

enum {
    SETTING_VALUE_MAX = 8000, /* bytes in one value */
    SETTING_NAME_SIZE = 64,   /* a name, in any spelling, and its NUL */
};

struct setting {
    const char *name;
    enum setting_type type;
    size_t offset; /* in struct settings */
    const char *initial;
    int64_t minimum;
    int64_t maximum;
    const char *unit;           /* of a number; NULL: a plain count */
    const char *const *choices; /* ends with NULL */
    const char *allowed;        /* said of a text or list that is refused; NULL: a phrase that fits the type */
    bool live;                  /* a reload changes it; else it stays as it was at the start */
    bool secret;                /* a URL that may hold a password; may come from a file named by PROMPTD_…_FILE */
    bool may_be_empty;
    const char *replaced_by;     /* it has no effect any more; NULL: it has */
    const char *shared_variable; /* counts where promptd's own are absent; or NULL */
    settings_validate *validate; /* what more there is to say of a text; or NULL */
    const char *description;     /* a sentence or two, with periods */
};

extern const struct settings_flag settings_flags[]; /* ends with a NULL name */

/* Rows by index, in the order of the pages; NULL at the end. */
const struct setting *settings_table_row(size_t index);

/* By name; NULL where there is none. */
const struct setting *settings_table_find(const char *name);

size_t settings_table_index(const struct setting *row);

/* The name that was probably meant, of a setting or also of one of settings_flags; NULL where nothing is close. */
const char *settings_table_nearest(const char *name, bool flags_too);

/* redis_url as PROMPTD_REDIS_URL, and as redis-url. */
void setting_variable_name(const struct setting *row, char name[SETTING_NAME_SIZE + 16]);
void setting_flag_name(const char *name, char flag[SETTING_NAME_SIZE]);

/*
 * Reads `text`, without the white space around it, into the row's member if `settings` is not NULL. `validate` may be
 * NULL. false with a phrase ("is not a number"), ERROR_CONFIG, or with ERROR_INTERNAL when out of memory; then nothing
 * has changed.
 */
bool setting_parse(const struct setting *row, settings_validate *validate, const char *text, struct settings *settings,
                   struct error *phrase);

/* What is allowed, as a phrase: "1 to 64". */
void setting_append_allowed(const struct setting *row, struct buffer *buffer);

/* The value as a file has it, passwords as ***. */
void setting_append_value(const struct setting *row, const struct settings *settings, struct buffer *buffer);

/* `text` as a message to people may show it: passwords as ***, one printable line, cut where it is long. */
void setting_append_shown(const struct setting *row, const char *text, struct buffer *buffer);

/* The member of the one for that of the other. */
void setting_exchange(const struct setting *row, struct settings *one, struct settings *other);

bool setting_is_equal(const struct setting *row, const struct settings *one, const struct settings *other);
void setting_clear(const struct setting *row, struct settings *settings); /* what it has on the heap */

/* What the members of a whole struct must be to one another. false with the message for people, codes as settings_load.
 */
bool settings_check_together(const struct settings *settings, struct error *error);

/* Reading a file. `take` gets each line's key and value; it returns false, with *error set, to end the reading. */
typedef bool settings_take_line(void *context, const char *key, const char *value, unsigned line, struct error *error);

/* Lines of key = value, comments (# or ;) and empty lines. A file that is not there is an error if it `must_exist`. */
bool settings_read_file(const char *path, bool must_exist, settings_take_line *take, void *context,
                        struct error *error);

/* The text of a file that holds one value, without the white space at its end, at most SETTING_VALUE_MAX bytes. NULL
 * with a phrase ("cannot be read: …") on failure; the caller frees it. */
char *settings_read_value_file(const char *path, struct error *phrase);

#endif
