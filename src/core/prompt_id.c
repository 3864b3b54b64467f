/* SPDX-License-Identifier: MIT */
/* UUIDv5 with libcrypto: the digest is fetched once, the context used again. */
#include "promptd/prompt_id.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

struct prompt_id_maker {
    EVP_MD *digest;
    EVP_MD_CTX *context;
};

/* 955b55d8-887c-58e3-8f23-0b6cb409ec02 */
static const uint8_t prompt_namespace[UUID_SIZE] = {0x95, 0x5b, 0x55, 0xd8, 0x88, 0x7c, 0x58, 0xe3,
                                                    0x8f, 0x23, 0x0b, 0x6c, 0xb4, 0x09, 0xec, 0x02};

struct prompt_id_maker *prompt_id_maker_new(struct error *error)
{
    struct prompt_id_maker *maker = calloc(1, sizeof *maker);
    if (!maker) {
        error_set(error, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    maker->digest = EVP_MD_fetch(NULL, "SHA1", NULL);
    maker->context = EVP_MD_CTX_new();
    if (!maker->digest || !maker->context || !EVP_DigestInit_ex2(maker->context, maker->digest, NULL)) {
        const char *reason = ERR_reason_error_string(ERR_peek_last_error());
        error_set(error, ERROR_INTERNAL, "libcrypto refuses SHA-1, which prompt ids are made with: %s",
                  reason ? reason : "no reason given");
        ERR_clear_error();
        prompt_id_maker_free(maker);
        return NULL;
    }
    return maker;
}

void prompt_id_maker_free(struct prompt_id_maker *maker)
{
    if (!maker)
        return;
    EVP_MD_CTX_free(maker->context);
    EVP_MD_free(maker->digest);
    free(maker);
}

/* RFC 9562, 5.5: the first 16 bytes of the hash, with version and variant set. */
static void make_uuid_v5(const uint8_t *hash, uint8_t id[UUID_SIZE])
{
    memcpy(id, hash, UUID_SIZE);
    id[6] = (uint8_t)((id[6] & 0x0f) | 0x50);
    id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
}

bool prompt_id_make(struct prompt_id_maker *maker, const uint8_t interview_id[UUID_SIZE], const char *source,
                    const char *prompt, size_t prompt_bytes, uint8_t id[UUID_SIZE])
{
    EVP_MD_CTX *context = maker->context;
    char interview[UUID_TEXT_SIZE];
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned int hash_length = 0;

    uuid_format(interview_id, interview);
    interview[UUID_TEXT_SIZE - 1] = '\n'; /* in the place of the NUL */
    if (!EVP_DigestInit_ex2(context, maker->digest, NULL) ||
        !EVP_DigestUpdate(context, prompt_namespace, sizeof prompt_namespace) ||
        !EVP_DigestUpdate(context, interview, sizeof interview) || !EVP_DigestUpdate(context, source, strlen(source)) ||
        !EVP_DigestUpdate(context, "\n", 1) || !EVP_DigestUpdate(context, prompt, prompt_bytes) ||
        !EVP_DigestFinal_ex(context, hash, &hash_length) || hash_length < UUID_SIZE) {
        ERR_clear_error();
        return false;
    }
    make_uuid_v5(hash, id);
    return true;
}
