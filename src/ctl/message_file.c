/* SPDX-License-Identifier: MIT */
/* Reading files, and the daemon's rules for what is in them. */
#include "message_file.h"

#include <errno.h>
#include <string.h>

#include "promptd/prompt_id.h"

enum { READ_BYTES = 65536 };

static bool cannot_read(const char *path, struct error *error)
{
    return error_set(error, ERROR_NONE, "%s cannot be read: %s", path, strerror(errno));
}

FILE *message_file_open(const char *path, struct error *error)
{
    if (strcmp(path, "-") == 0)
        return stdin;
    FILE *file = fopen(path, "re");
    if (!file)
        (void)cannot_read(path, error);
    return file;
}

bool message_file_read(FILE *file, const char *path, size_t limit, struct buffer *bytes, struct error *error)
{
    size_t got = 1;
    while (got > 0 && limit > 0) {
        if (!buffer_reserve(bytes, READ_BYTES))
            return error_set(error, ERROR_INTERNAL, "out of memory");
        got = fread(bytes->data + bytes->length, 1, limit < READ_BYTES ? limit : READ_BYTES, file);
        bytes->length += got;
        limit -= got;
    }
    return !ferror(file) || cannot_read(path, error);
}

bool message_file_prompt_id(const struct message_content *content, char id[UUID_TEXT_SIZE], struct error *error)
{
    uint8_t bytes[UUID_SIZE];
    struct prompt_id_maker *maker = prompt_id_maker_new(error);
    if (!maker)
        return false;
    bool made = prompt_id_make(maker, content->interview_id, content->source, content->prompt, content->prompt_bytes,
                               bytes);
    prompt_id_maker_free(maker);
    if (made)
        uuid_format(bytes, id);
    return made || error_set(error, ERROR_INTERNAL, "the prompt's id cannot be computed");
}
