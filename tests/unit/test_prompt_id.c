/* SPDX-License-Identifier: MIT */
/* Prompt ids against values that Python's uuid.uuid5 computed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#include "promptd/prompt_id.h"

#define INTERVIEW "5f0c2a9e-3b1d-4c8e-9f7a-1d2e3f4a5b6c"

static int make_maker(void **state)
{
    struct error error = {0};
    *state = prompt_id_maker_new(&error);
    return *state ? 0 : -1;
}

static int free_maker(void **state)
{
    prompt_id_maker_free(*state);
    return 0;
}

static void check_id(struct prompt_id_maker *maker, const char *interview, const char *source, const char *prompt,
                     size_t prompt_bytes, const char *expected)
{
    uint8_t interview_id[UUID_SIZE];
    uint8_t id[UUID_SIZE];
    char text[UUID_TEXT_SIZE];
    assert_true(uuid_parse(interview, strlen(interview), interview_id));
    assert_true(prompt_id_make(maker, interview_id, source, prompt, prompt_bytes, id));
    uuid_format(id, text);
    assert_string_equal(text, expected);
    assert_int_equal(id[6] >> 4, 5);
    assert_int_equal(id[8] >> 6, 2);
}

static void test_published_example(void **state)
{
    check_id(*state, INTERVIEW, "rag", "Tell me about yourself.", 23, "6ef83e27-1b7f-5d2c-b768-3de86b8e1ff9");
}

static void test_known_ids(void **state)
{
    static const struct {
        const char *interview;
        const char *source;
        const char *prompt;
        const char *id;
    } rows[] = {
        {INTERVIEW, "fallback", "Tell me about yourself.", "ac973f91-826b-50bc-8243-82234d562d4e"},
        {"00000000-0000-0000-0000-000000000000", "rag", "", "de560eed-9720-51b6-8ee4-facad78e987c"},
        {"ffffffff-ffff-ffff-ffff-ffffffffffff", "new_data", "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\n",
         "f616d172-8857-5986-a27c-439b33f3e282"},
        /* The id is hashed in lower case, whatever it was written in. */
        {"5F0C2A9E-3B1D-4C8E-9F7A-1D2E3F4A5B6C", "rag", "Tell me about yourself.",
         "6ef83e27-1b7f-5d2c-b768-3de86b8e1ff9"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check_id(*state, rows[i].interview, rows[i].source, rows[i].prompt, strlen(rows[i].prompt), rows[i].id);
}

/* A context that is used again must not remember: ids are the same in any order. */
static void test_long_prompts_and_reuse(void **state)
{
    enum { COUNT = 50000 };
    static const char grinning[] = "\xf0\x9f\x98\x80";
    char *letters = malloc(COUNT);
    char *faces = malloc((size_t)COUNT * 4);
    assert_non_null(letters);
    assert_non_null(faces);
    memset(letters, 'x', COUNT);
    for (size_t i = 0; i < COUNT; i++)
        memcpy(faces + i * 4, grinning, 4);
    for (int round = 0; round < 3; round++) {
        check_id(*state, INTERVIEW, "rag", letters, COUNT, "ff7657b6-c6a2-5a34-acfa-0132c1b7ca91");
        check_id(*state, INTERVIEW, "rag", faces, (size_t)COUNT * 4, "9711bbc9-bed2-5b53-9d23-d406196bbcca");
        check_id(*state, INTERVIEW, "rag", "Tell me about yourself.", 23, "6ef83e27-1b7f-5d2c-b768-3de86b8e1ff9");
    }
    free(letters);
    free(faces);
}

static void test_each_part_counts(void **state)
{
    static const char *const sources[] = {"rag", "rag\na"};
    static const char *const prompts[] = {"Tell me about yourself.", "Tell me about yourself. "};
    static const uint8_t interviews[2][UUID_SIZE] = {{0}, {[15] = 1}};
    uint8_t ids[8][UUID_SIZE];
    for (unsigned i = 0; i < 8; i++) {
        const char *prompt = prompts[i >> 2];
        assert_true(prompt_id_make(*state, interviews[i & 1], sources[i >> 1 & 1], prompt, strlen(prompt), ids[i]));
        for (unsigned j = 0; j < i; j++)
            assert_memory_not_equal(ids[i], ids[j], UUID_SIZE);
    }
}

static void test_refused_digest_is_reported(void **state)
{
    (void)state;
    struct error error = {0};
    assert_true(EVP_set_default_properties(NULL, "fips=yes")); /* and no FIPS provider is loaded */
    struct prompt_id_maker *maker = prompt_id_maker_new(&error);
    assert_true(EVP_set_default_properties(NULL, ""));
    assert_null(maker);
    assert_int_equal(error.code, ERROR_INTERNAL);
    assert_non_null(strstr(error.text, "SHA-1"));
    assert_int_equal(ERR_peek_error(), 0);
    prompt_id_maker_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_example),          cmocka_unit_test(test_known_ids),
        cmocka_unit_test(test_long_prompts_and_reuse),     cmocka_unit_test(test_each_part_counts),
        cmocka_unit_test(test_refused_digest_is_reported),
    };
    return cmocka_run_group_tests(tests, make_maker, free_maker);
}
