/* SPDX-License-Identifier: MIT */
/* SipHash-2-4, in the paper's terms: a state of four words, two rounds for each word of input, four at the end. */
#include "promptd/siphash.h"

#include <endian.h>
#include <string.h>

struct state {
    uint64_t v0, v1, v2, v3;
};

static uint64_t read_word(const uint8_t bytes[8])
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return le64toh(word);
}

static uint64_t rotate(uint64_t word, unsigned bits)
{
    return word << bits | word >> (64 - bits);
}

static void run_round(struct state *state)
{
    state->v0 += state->v1;
    state->v1 = rotate(state->v1, 13) ^ state->v0;
    state->v0 = rotate(state->v0, 32);
    state->v2 += state->v3;
    state->v3 = rotate(state->v3, 16) ^ state->v2;
    state->v0 += state->v3;
    state->v3 = rotate(state->v3, 21) ^ state->v0;
    state->v2 += state->v1;
    state->v1 = rotate(state->v1, 17) ^ state->v2;
    state->v2 = rotate(state->v2, 32);
}

static void compress(struct state *state, uint64_t word)
{
    state->v3 ^= word;
    run_round(state);
    run_round(state);
    state->v0 ^= word;
}

uint64_t siphash(const uint8_t key[SIPHASH_KEY_SIZE], const void *bytes, size_t length)
{
    uint64_t k0 = read_word(key);
    uint64_t k1 = read_word(key + 8);
    /* "somepseudorandomlygeneratedbytes" */
    struct state state = {k0 ^ 0x736f6d6570736575U, k1 ^ 0x646f72616e646f6dU, k0 ^ 0x6c7967656e657261U,
                          k1 ^ 0x7465646279746573U};
    const uint8_t *at = bytes;
    size_t left = length;
    for (; left >= 8; at += 8, left -= 8)
        compress(&state, read_word(at));
    /* The last word: what is left of the input, and the length's lowest byte on top. */
    uint8_t last[8] = {[7] = (uint8_t)length};
    if (left > 0)
        memcpy(last, at, left);
    compress(&state, read_word(last));
    state.v2 ^= 0xff;
    for (int i = 0; i < 4; i++)
        run_round(&state);
    return state.v0 ^ state.v1 ^ state.v2 ^ state.v3;
}
