/* SPDX-License-Identifier: MIT */
/*
 * SipHash-2-4, a keyed hash for tables whose keys come from outside: who does not know the key cannot choose keys that
 * collide. J.-P. Aumasson, D. J. Bernstein, "SipHash: a fast short-input PRF", INDOCRYPT 2012.
 */
#ifndef PROMPTD_SIPHASH_H
#define PROMPTD_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

enum { SIPHASH_KEY_SIZE = 16 };

uint64_t siphash(const uint8_t key[SIPHASH_KEY_SIZE], const void *bytes, size_t length);

#endif
