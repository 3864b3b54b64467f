/* SPDX-License-Identifier: MIT */
/* Messages and prompts from files, checked as the daemon would. */
#ifndef PROMPTCTL_MESSAGE_FILE_H
#define PROMPTCTL_MESSAGE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "promptd/buffer.h"
#include "promptd/error.h"
#include "promptd/message.h"
#include "promptd/settings.h"

/* Opens a file for reading, "-" being standard input. NULL with *error. Not to be closed if it is stdin. */
FILE *message_file_open(const char *path, struct error *error);

/* Appends up to `limit` bytes. false with *error when reading fails or out of memory. */
bool message_file_read(FILE *file, const char *path, size_t limit, struct buffer *bytes, struct error *error);

/* The prompt's id, as text. false with *error when it cannot be computed. */
bool message_file_prompt_id(const struct message_content *content, char id[UUID_TEXT_SIZE], struct error *error);

#endif
