/* SPDX-License-Identifier: MIT */
/* The id of a prompt: computed from the message, so that the same message is the same row, wherever it comes from. */
#ifndef PROMPTD_PROMPT_ID_H
#define PROMPTD_PROMPT_ID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "promptd/error.h"
#include "promptd/text.h"

struct prompt_id_maker; /* holds libcrypto's digest and context; one thread at a time */

/* NULL with *error set when libcrypto refuses SHA-1 (a FIPS provider does) or out of memory. */
struct prompt_id_maker *prompt_id_maker_new(struct error *error);
void prompt_id_maker_free(struct prompt_id_maker *maker);

/*
 * UUIDv5 (RFC 9562, 5.5) in the namespace 955b55d8-887c-58e3-8f23-0b6cb409ec02 over: the interview id in lower case, a
 * newline, the source, a newline, the prompt. false when libcrypto fails.
 */
bool prompt_id_make(struct prompt_id_maker *maker, const uint8_t interview_id[UUID_SIZE], const char *source,
                    const char *prompt, size_t prompt_bytes, uint8_t id[UUID_SIZE]);

#endif
