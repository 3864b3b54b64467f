/* SPDX-License-Identifier: MIT */
/* What message_parse says to payloads of every kind: one row a payload, by subject. */
#include "message_sample.h"

#define ID_UPPER "5F0C2A9E-3B1D-4C8E-9F7A-1D2E3F4A5B6C"
#define BOM "\xef\xbb\xbf"

static const uint8_t id_bytes[UUID_SIZE] = {0x5f, 0x0c, 0x2a, 0x9e, 0x3b, 0x1d, 0x4c, 0x8e,
                                            0x9f, 0x7a, 0x1d, 0x2e, 0x3f, 0x4a, 0x5b, 0x6c};

struct row {
    const char *payload;
    size_t length;
    enum reject_reason reason;
    bool has_interview_id;
};

/* sizeof, so that payloads may hold NUL. An accepted message always has its interview id. */
#define ACCEPTED(payload)                                                                                              \
    {                                                                                                                  \
        payload, sizeof(payload) - 1, REJECT_NONE, true                                                                \
    }
#define REJECTED(payload, reason)                                                                                      \
    {                                                                                                                  \
        payload, sizeof(payload) - 1, REJECT_##reason, false                                                           \
    }
#define REJECTED_WITH_ID(payload, reason)                                                                              \
    {                                                                                                                  \
        payload, sizeof(payload) - 1, REJECT_##reason, true                                                            \
    }

static void check_row(const struct row *row)
{
    struct message_content content;
    assert_true(parse(&rules, row->payload, row->length, &content));
    if (content.reject != row->reason || content.has_interview_id != row->has_interview_id)
        fail_msg("%.200s\n  is %s%s, should be %s%s", row->payload, reject_name(content.reject),
                 content.has_interview_id ? " with id" : "", reject_name(row->reason),
                 row->has_interview_id ? " with id" : "");
    if (content.has_interview_id)
        assert_memory_equal(content.interview_id, id_bytes, UUID_SIZE);
    if (row->reason == REJECT_NONE) {
        assert_non_null(content.prompt);
        assert_int_equal(strlen(content.prompt), content.prompt_bytes);
        assert_non_null(content.source);
    } else {
        assert_null(content.prompt);
    }
    message_content_free(&content);
    assert_null(content.prompt);
}

#define CHECK_ROWS(rows)                                                                                               \
    do {                                                                                                               \
        for (size_t i = 0; i < sizeof(rows) / sizeof((rows)[0]); i++)                                                  \
            check_row(&(rows)[i]);                                                                                     \
    } while (0)

static void test_framing(void **state)
{
    (void)state;
    static const struct row rows[] = {
        ACCEPTED(VALID),
        ACCEPTED("==" VALID "\n"), /* what n8n sends */
        ACCEPTED("=" VALID),
        ACCEPTED("===== " VALID " \t\r\n \n"),
        ACCEPTED(BOM VALID),
        ACCEPTED(BOM "==" VALID "\n"),
        ACCEPTED("==" BOM VALID "\n"),
        ACCEPTED("=" BOM "=" VALID),
        ACCEPTED(" \r\n=\t" BOM "\n = " VALID "\r\n"),
        REJECTED(BOM BOM VALID, NOT_JSON),
        REJECTED("==" BOM "=" BOM VALID, NOT_JSON),
        REJECTED("\xef\xbb" VALID, INVALID_UTF8),
        REJECTED_WITH_ID(VALID BOM, TRAILING_DATA),
        REJECTED_WITH_ID(VALID "=", TRAILING_DATA),
        REJECTED("", NOT_JSON),
        REJECTED("=", NOT_JSON),
        REJECTED("====================", NOT_JSON),
        REJECTED(BOM, NOT_JSON),
        REJECTED(" \n\t\r", NOT_JSON),
        REJECTED("==" BOM "\n", NOT_JSON),
        REJECTED("\xc2\xa0" VALID, NOT_JSON),     /* no-break space */
        REJECTED("\xe2\x80\xa8" VALID, NOT_JSON), /* line separator */
        REJECTED("\v" VALID, NOT_JSON),
        REJECTED("\f" VALID, NOT_JSON),
        REJECTED("\0" VALID, NOT_JSON),
        REJECTED("==[" VALID "]\n", NOT_OBJECT),
        REJECTED("-" VALID, NOT_JSON),
        REJECTED("{=" ID "," PROMPT "}", NOT_JSON),
        REJECTED("{" BOM ID "," PROMPT "}", NOT_JSON),
        REJECTED("={{ $json }}", NOT_JSON),
    };
    CHECK_ROWS(rows);
}

static void test_invalid_utf8(void **state)
{
    (void)state;
    static const struct row rows[] = {
        REJECTED("{" ID ",\"enhanced_prompt\":\"not valid: \xff\"}", INVALID_UTF8),
        REJECTED("{" ID ",\"enhanced_prompt\":\"overlong: \xc0\x80 and so on\"}", INVALID_UTF8),
        REJECTED("{" ID ",\"enhanced_prompt\":\"surrogate: \xed\xa0\x80 and so on\"}", INVALID_UTF8),
        REJECTED("{" ID ",\"enhanced_prompt\":\"too high: \xf4\x90\x80\x80 and so on\"}", INVALID_UTF8),
        REJECTED("{" ID ",\"enhanced_prompt\":\"cut short: \xe2\x82\"}", INVALID_UTF8),
        REJECTED("{" ID "," PROMPT ",\"x\":\"\x80\"}", INVALID_UTF8),
        REJECTED("{" ID "," PROMPT ",\"\xfe\":0}", INVALID_UTF8),
        REJECTED(VALID "\xff", INVALID_UTF8),
        REJECTED("\xff" VALID, INVALID_UTF8),
        REJECTED("not json \xff", INVALID_UTF8),
        REJECTED("\xff\xfe{\0}\0", INVALID_UTF8), /* UTF-16 */
    };
    CHECK_ROWS(rows);
}

static void test_not_json(void **state)
{
    (void)state;
    static const struct row rows[] = {
        REJECTED("hello", NOT_JSON),
        REJECTED("{", NOT_JSON),
        REJECTED("}", NOT_JSON),
        REJECTED("{]", NOT_JSON),
        REJECTED("[}", NOT_JSON),
        REJECTED(",", NOT_JSON),
        REJECTED(":", NOT_JSON),
        REJECTED("\"", NOT_JSON),
        REJECTED("\"\\", NOT_JSON),
        REJECTED("\"\\u00", NOT_JSON),
        REJECTED("\"\\\"", NOT_JSON),
        REJECTED("nul", NOT_JSON),
        REJECTED("NULL", NOT_JSON),
        REJECTED("NaN", NOT_JSON),
        REJECTED("Infinity", NOT_JSON),
        REJECTED("{" ID "," PROMPT, NOT_JSON),
        REJECTED("{" ID "," PROMPT ",}", NOT_JSON),
        REJECTED("{," ID "," PROMPT "}", NOT_JSON),
        REJECTED("{" ID " " PROMPT "}", NOT_JSON),
        REJECTED("{" ID ",," PROMPT "}", NOT_JSON),
        REJECTED("{" ID "," PROMPT "]", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\"}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\"::1}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":[1,]}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":[1 2]}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",1:2}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",x:2}", NOT_JSON),
        REJECTED("{'interview_id':'" ID_TEXT "'}", NOT_JSON),
        REJECTED("{" ID "," PROMPT "/* comment */}", NOT_JSON),
        REJECTED("{" ID "," PROMPT "// comment\n}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":tru}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":True}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":truefalse}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":NaN}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":undefined}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":\"\\x41\"}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":\"\\a\"}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":\"\\U0041\"}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":\"\\u004g\"}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":\"\\uZZZZ\"}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":\"\\u41\"}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":\"\\u+041\"}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":\"\\", NOT_JSON),
        REJECTED("{]} and more", NOT_JSON),
        REJECTED("{\"a\" 1} and more", NOT_JSON),
    };
    CHECK_ROWS(rows);
}

static void test_control_characters(void **state)
{
    (void)state;
    static const struct row rows[] = {
        ACCEPTED("{ \t\r\n" ID "\n,\t" PROMPT "\r\n}\r\n"),
        ACCEPTED("{" ID ",\"enhanced_prompt\":\"\\b\\f\\n\\r\\t\\u0001\\u001f and DEL \x7f\"}"),
        REJECTED("{" ID "\x01," PROMPT "}", NOT_JSON),
        REJECTED("{" ID "\v," PROMPT "}", NOT_JSON),
        REJECTED("{" ID ",\f" PROMPT "}", NOT_JSON),
        REJECTED("{" ID ",\x1f" PROMPT "}", NOT_JSON),
        REJECTED("{" ID "\0," PROMPT "}", NOT_JSON),
        REJECTED("{" ID ",\"enhanced_prompt\":\"a raw\nnewline\"}", NOT_JSON),
        REJECTED("{" ID ",\"enhanced_prompt\":\"a raw\ttab in it\"}", NOT_JSON),
        REJECTED("{" ID ",\"enhanced_prompt\":\"a raw \x1f byte\"}", NOT_JSON),
        REJECTED("{" ID ",\"enhanced_prompt\":\"a raw \0 byte\"}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"\n\":1}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":\"\0\"}", NOT_JSON),
        REJECTED_WITH_ID(VALID "\0", TRAILING_DATA),
        REJECTED_WITH_ID(VALID "\v", TRAILING_DATA),
        REJECTED_WITH_ID(VALID "\n\x01", TRAILING_DATA),
    };
    CHECK_ROWS(rows);
}

static void test_numbers(void **state)
{
    (void)state;
    static const struct row rows[] = {
        ACCEPTED("{" ID "," PROMPT ",\"x\":[0,-0,1,-1,10,0.5,-0.5,1.25e3,1E+2,1e-2,0e0,-0.0E-0]}"),
        ACCEPTED("{" ID "," PROMPT ",\"x\":1e400,\"y\":-1e999999,\"z\":9007199254740993}"),
        ACCEPTED("{\"x\":123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890,"
                 "\"y\":0.000000000000000000000000000000000000000000000000000000000000000000000000000000000001," ID
                 "," PROMPT "}"),
        ACCEPTED("{\"1.\":\"01\"," ID "," PROMPT "}"),
        REJECTED("{" ID "," PROMPT ",\"x\":01}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":-01}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":00}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":1.}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":1.e5}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":.5}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":-.5}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":1e}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":1e+}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":1e5.0}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":1.2.3}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":1-2}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":--1}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":+1}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":-}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":0x10}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":-Infinity}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":-nan}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":1,5}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":1 2}", NOT_JSON),
        REJECTED("1", NOT_OBJECT),
        REJECTED("-1.5e+3", NOT_OBJECT),
        REJECTED("1.", NOT_JSON),
        REJECTED("-", NOT_JSON),
        REJECTED("1 2", TRAILING_DATA),
        REJECTED("1true", TRAILING_DATA),
    };
    CHECK_ROWS(rows);
}

static void test_trailing_data_and_other_values(void **state)
{
    (void)state;
    static const struct row rows[] = {
        REJECTED_WITH_ID(VALID "x", TRAILING_DATA),
        REJECTED_WITH_ID(VALID VALID, TRAILING_DATA),
        REJECTED_WITH_ID(VALID "\n" VALID, TRAILING_DATA),
        REJECTED_WITH_ID(VALID "}", TRAILING_DATA),
        REJECTED_WITH_ID(VALID " \n,", TRAILING_DATA),
        REJECTED_WITH_ID(VALID ";", TRAILING_DATA),
        REJECTED("{}{", TRAILING_DATA),
        REJECTED("[] {", TRAILING_DATA), /* before not_object */
        REJECTED("null null", TRAILING_DATA),
        REJECTED("\"a\"\"", TRAILING_DATA),
        REJECTED("[" VALID "]", NOT_OBJECT),
        REJECTED("[]", NOT_OBJECT),
        REJECTED("null", NOT_OBJECT),
        REJECTED("true\n", NOT_OBJECT),
        REJECTED("==false", NOT_OBJECT),
        REJECTED("\"\"", NOT_OBJECT),
        REJECTED("\"" ID_TEXT "\"", NOT_OBJECT),
        REJECTED("\"{\\\"interview_id\\\":1}\"", NOT_OBJECT), /* JSON in a JSON string */
        REJECTED("\"\\ud83d{}\"", NOT_JSON),
    };
    CHECK_ROWS(rows);
}

static void test_duplicate_field(void **state)
{
    (void)state;
    static const struct row rows[] = {
        REJECTED("{" ID "," ID "," PROMPT "}", DUPLICATE_FIELD),
        REJECTED("{" ID "," PROMPT ",\"interview_id\":null}", DUPLICATE_FIELD),
        REJECTED("{\"interview_id\":1," PROMPT "," ID "}", DUPLICATE_FIELD),
        REJECTED("{\"interview\\u005fid\":\"" ID_TEXT "\"," PROMPT "," ID "}", DUPLICATE_FIELD),
        REJECTED("{" ID "," PROMPT ",\"\\u0069nterview_id\":1}", DUPLICATE_FIELD),
        REJECTED("{" ID "," ID "," ID "}", DUPLICATE_FIELD),
        REJECTED_WITH_ID("{" ID "," PROMPT "," PROMPT "}", DUPLICATE_FIELD),
        REJECTED_WITH_ID("{" ID "," PROMPT ",\"enhanced\\u005Fprompt\":0}", DUPLICATE_FIELD),
        REJECTED_WITH_ID("{" ID "," PROMPT "," SOURCE "," SOURCE "}", DUPLICATE_FIELD),
        REJECTED_WITH_ID("{" SOURCE "," SOURCE "," ID "}", DUPLICATE_FIELD), /* before missing_… */
        REJECTED("{\"interview_id\":7," SOURCE "," SOURCE "}", DUPLICATE_FIELD),
        REJECTED("{" PROMPT "," PROMPT "}", DUPLICATE_FIELD),
        ACCEPTED("{" ID "," PROMPT ",\"x\":1,\"x\":2,\"\":1,\"\":2}"),
        ACCEPTED("{" ID "," PROMPT ",\"x\":{" ID "," ID "," PROMPT "}}"),
        ACCEPTED("{" ID "," PROMPT ",\"Interview_id\":1,\"INTERVIEW_ID\":2,\"interview_id \":3,\"interview_i\":4}"),
        ACCEPTED("{" ID "," PROMPT ",\"Source\":\"nowhere\",\"enhanced_Prompt\":null}"),
    };
    CHECK_ROWS(rows);
}

static void test_interview_id(void **state)
{
    (void)state;
    static const struct row rows[] = {
        ACCEPTED("{\"interview_id\":\"" ID_UPPER "\"," PROMPT "}"),
        ACCEPTED("{\"interview_id\":\"5f0C2a9e-3B1d-4c8E-9f7a-1d2E3f4a5b6c\"," PROMPT "}"),
        ACCEPTED("{\"interview\\u005fid\":\"\\u0035f0c2a9e\\u002d3b1d-4c8e-9f7a-1d2e3f4a5b6c\"," PROMPT "}"),
        REJECTED("{}", MISSING_INTERVIEW_ID),
        REJECTED("== {\n} \n", MISSING_INTERVIEW_ID),
        REJECTED("{" PROMPT "}", MISSING_INTERVIEW_ID),
        REJECTED("{\"Interview_id\":\"" ID_TEXT "\"," PROMPT "}", MISSING_INTERVIEW_ID),
        REJECTED("{\"interviewId\":\"" ID_TEXT "\"," PROMPT "}", MISSING_INTERVIEW_ID),
        REJECTED("{\"x\":{" ID "}," PROMPT "}", MISSING_INTERVIEW_ID),
        REJECTED("{\"interview_id\":null," PROMPT "}", INVALID_INTERVIEW_ID),
        REJECTED("{\"interview_id\":42," PROMPT "}", INVALID_INTERVIEW_ID),
        REJECTED("{\"interview_id\":true," PROMPT "}", INVALID_INTERVIEW_ID),
        REJECTED("{\"interview_id\":[\"" ID_TEXT "\"]," PROMPT "}", INVALID_INTERVIEW_ID),
        REJECTED("{\"interview_id\":{}," PROMPT "}", INVALID_INTERVIEW_ID),
        REJECTED("{\"interview_id\":\"\"," PROMPT "}", INVALID_INTERVIEW_ID),
        REJECTED("{\"interview_id\":\"42\"," PROMPT "}", INVALID_INTERVIEW_ID),
        REJECTED("{\"interview_id\":\" " ID_TEXT "\"," PROMPT "}", INVALID_INTERVIEW_ID),
        REJECTED("{\"interview_id\":\"" ID_TEXT "\\n\"," PROMPT "}", INVALID_INTERVIEW_ID),
        REJECTED("{\"interview_id\":\"{" ID_TEXT "}\"," PROMPT "}", INVALID_INTERVIEW_ID),
        REJECTED("{\"interview_id\":\"urn:uuid:" ID_TEXT "\"," PROMPT "}", INVALID_INTERVIEW_ID),
        REJECTED("{\"interview_id\":\"5f0c2a9e3b1d4c8e9f7a1d2e3f4a5b6c\"," PROMPT "}", INVALID_INTERVIEW_ID),
        REJECTED("{\"interview_id\":\"5f0c2a9e-3b1d-4c8e-9f7a-1d2e3f4a5b6\"," PROMPT "}", INVALID_INTERVIEW_ID),
        REJECTED("{\"interview_id\":\"5f0c2a9e-3b1d-4c8e-9f7a-1d2e3f4a5b6cc\"," PROMPT "}", INVALID_INTERVIEW_ID),
        REJECTED("{\"interview_id\":\"5g0c2a9e-3b1d-4c8e-9f7a-1d2e3f4a5b6c\"," PROMPT "}", INVALID_INTERVIEW_ID),
        REJECTED("{\"interview_id\":\"5f0c2a9e-3b1d4-c8e-9f7a-1d2e3f4a5b6c\"," PROMPT "}", INVALID_INTERVIEW_ID),
        REJECTED("{\"interview_id\":\"' OR 1=1; DROP TABLE interviews; --\"," PROMPT "}", INVALID_INTERVIEW_ID),
    };
    CHECK_ROWS(rows);
}

static void test_prompt(void **state)
{
    (void)state;
    static const struct row rows[] = {
        REJECTED_WITH_ID("{" ID "}", MISSING_ENHANCED_PROMPT),
        REJECTED_WITH_ID("{" ID ",\"enhancedPrompt\":\"" PROMPT_TEXT "\"}", MISSING_ENHANCED_PROMPT),
        REJECTED_WITH_ID("{" ID ",\"Enhanced_prompt\":\"" PROMPT_TEXT "\"}", MISSING_ENHANCED_PROMPT),
        REJECTED_WITH_ID("{" ID ",\"enhanced_prompt\":null}", INVALID_ENHANCED_PROMPT),
        REJECTED_WITH_ID("{" ID ",\"enhanced_prompt\":12345678901}", INVALID_ENHANCED_PROMPT),
        REJECTED_WITH_ID("{" ID ",\"enhanced_prompt\":false}", INVALID_ENHANCED_PROMPT),
        REJECTED_WITH_ID("{" ID ",\"enhanced_prompt\":[\"" PROMPT_TEXT "\"]}", INVALID_ENHANCED_PROMPT),
        REJECTED_WITH_ID("{" ID ",\"enhanced_prompt\":{\"text\":\"" PROMPT_TEXT "\"}}", INVALID_ENHANCED_PROMPT),
        REJECTED_WITH_ID("{" ID ",\"enhanced_prompt\":\"\"}", PROMPT_TOO_SHORT),
        REJECTED_WITH_ID("{" ID ",\"enhanced_prompt\":\"123456789\"}", PROMPT_TOO_SHORT),
        ACCEPTED("{" ID ",\"enhanced_prompt\":\"1234567890\"}"),
        ACCEPTED("{" ID ",\"enhanced_prompt\":\"          \"}"), /* nothing is trimmed */
        ACCEPTED("{" ID ",\"enhanced_prompt\":\"\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\"}"),
        ACCEPTED("{\"enhanced\\u005fprompt\":\"" PROMPT_TEXT "\"," ID "}"),
    };
    CHECK_ROWS(rows);
}

static void test_nul_escapes(void **state)
{
    (void)state;
    static const struct row rows[] = {
        REJECTED_WITH_ID("{" ID ",\"enhanced_prompt\":\"0123456789\\u0000\"}", PROMPT_HAS_NUL),
        REJECTED_WITH_ID("{" ID ",\"enhanced_prompt\":\"\\u00000123456789\"}", PROMPT_HAS_NUL),
        REJECTED_WITH_ID("{" ID ",\"enhanced_prompt\":\"01234\\u000056789\\u0000\\u0000\"}", PROMPT_HAS_NUL),
        REJECTED_WITH_ID("{" ID ",\"enhanced_prompt\":\"\\\\\\u0000123456789\"}", PROMPT_HAS_NUL),
        REJECTED_WITH_ID("{" ID ",\"enhanced_prompt\":\"12345678\\u0000\"}", PROMPT_TOO_SHORT), /* 9 characters */
        REJECTED_WITH_ID("{" ID ",\"enhanced_prompt\":\"123456789\\u0000\"}", PROMPT_HAS_NUL),  /* 10 */
        REJECTED_WITH_ID("{" ID ",\"enhanced_prompt\":\"\\u0000\"}", PROMPT_TOO_SHORT),
        REJECTED_WITH_ID("{" ID ",\"enhanced_prompt\":\"0123456789\\u0000\",\"source\":1}", PROMPT_HAS_NUL),
        ACCEPTED("{" ID ",\"enhanced_prompt\":\"a backslash: \\\\u0000\"}"),
        ACCEPTED("{" ID ",\"enhanced_prompt\":\"two of them: \\\\\\\\u0000\"}"),
        ACCEPTED("{" ID ",\"enhanced_prompt\":\"not zero: \\u0001 \\u1000 u0000\"}"),
        REJECTED("{\"interview_id\":\"" ID_TEXT "\\u0000\"," PROMPT "}", INVALID_INTERVIEW_ID),
        REJECTED("{\"interview_id\":\"\\u0000" ID_TEXT "\"," PROMPT "}", INVALID_INTERVIEW_ID),
        REJECTED_WITH_ID("{" ID "," PROMPT ",\"source\":\"rag\\u0000\"}", INVALID_SOURCE),
        REJECTED_WITH_ID("{" ID "," PROMPT ",\"source\":\"\\u0000\"}", INVALID_SOURCE),
        REJECTED("{\"interview_id\\u0000x\":\"" ID_TEXT "\"," PROMPT "}", MISSING_INTERVIEW_ID),
        REJECTED("{\"interview_id\\u0000\":\"" ID_TEXT "\"," PROMPT "}", MISSING_INTERVIEW_ID),
        REJECTED_WITH_ID("{" ID ",\"enhanced_prompt\\u0000\":\"" PROMPT_TEXT "\"}", MISSING_ENHANCED_PROMPT),
        ACCEPTED("{" ID "," PROMPT ",\"interview_id\\u0000\":1,\"source\\u0000\":2,\"\\u0000\":3}"),
        ACCEPTED("{" ID "," PROMPT ",\"x\":\"\\u0000\",\"y\":[\"a\\u0000b\",{\"\\u0000\":0}]}"),
        REJECTED("{" ID "," PROMPT ",\"x\":\"\\ud800\\u0000\"}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":\\u0000}", NOT_JSON),
        REJECTED("\\u0000", NOT_JSON),
    };
    CHECK_ROWS(rows);
}

static void test_surrogates(void **state)
{
    (void)state;
    static const struct row rows[] = {
        ACCEPTED("{" ID ",\"enhanced_prompt\":\"0123456789\\ud83d\\ude00\"}"),
        ACCEPTED("{" ID "," PROMPT ",\"\\uD83D\\uDE00\":\"\\udbff\\udfff\"}"),
        ACCEPTED("{" ID ",\"enhanced_prompt\":\"only text: \\\\ud800\"}"),
        REJECTED("{" ID ",\"enhanced_prompt\":\"0123456789\\ud800\"}", NOT_JSON),
        REJECTED("{" ID ",\"enhanced_prompt\":\"0123456789\\udc00\"}", NOT_JSON),
        REJECTED("{" ID ",\"enhanced_prompt\":\"\\ud83d 0123456789\"}", NOT_JSON),
        REJECTED("{" ID ",\"enhanced_prompt\":\"\\ud83d\\ud83d\\ude00 and so on\"}", NOT_JSON),
        REJECTED("{" ID ",\"enhanced_prompt\":\"\\ude00\\ud83d 0123456789\"}", NOT_JSON),
        REJECTED("{" ID ",\"enhanced_prompt\":\"\\ud83d\\n 0123456789\"}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":\"\\ud800\"}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"x\":[\"\\udfff\"]}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"\\ud800\":1}", NOT_JSON),
        REJECTED("{" ID "," PROMPT ",\"\\udc00x\":1}", NOT_JSON),
    };
    CHECK_ROWS(rows);
}

static void test_source(void **state)
{
    (void)state;
    static const struct row rows[] = {
        ACCEPTED("{" ID "," PROMPT "}"),
        ACCEPTED("{" ID "," PROMPT ",\"source\":\"r\\u0061g\"}"),
        REJECTED_WITH_ID("{" ID "," PROMPT ",\"source\":null}", INVALID_SOURCE),
        REJECTED_WITH_ID("{" ID "," PROMPT ",\"source\":0}", INVALID_SOURCE),
        REJECTED_WITH_ID("{" ID "," PROMPT ",\"source\":[]}", INVALID_SOURCE),
        REJECTED_WITH_ID("{" ID "," PROMPT ",\"source\":[\"rag\"]}", INVALID_SOURCE),
        REJECTED_WITH_ID("{" ID "," PROMPT ",\"source\":\"\"}", INVALID_SOURCE),
        REJECTED_WITH_ID("{" ID "," PROMPT ",\"source\":\"RAG\"}", INVALID_SOURCE),
        REJECTED_WITH_ID("{" ID "," PROMPT ",\"source\":\"rag \"}", INVALID_SOURCE),
        REJECTED_WITH_ID("{" ID "," PROMPT ",\"source\":\"ra\"}", INVALID_SOURCE),
        REJECTED_WITH_ID("{" ID "," PROMPT ",\"source\":\"elsewhere\"}", INVALID_SOURCE),
    };
    CHECK_ROWS(rows);
    static const char *const texts[] = {"{" ID "," PROMPT "}", "{" ID "," PROMPT ",\"source\":\"existing_data\"}",
                                        "{" ID "," PROMPT ",\"source\":\"new_data\"}",
                                        "{\"source\":\"fallback\"," ID "," PROMPT "}"};
    for (size_t i = 0; i < 4; i++) {
        struct message_content content;
        assert_true(parse(&rules, texts[i], strlen(texts[i]), &content));
        assert_int_equal(content.reject, REJECT_NONE);
        assert_ptr_equal(content.source, sources[i]);
        message_content_free(&content);
    }
}

/* Each row has every fault from its own on. */
static void test_first_fault_is_given(void **state)
{
    (void)state;
    static const struct row rows[] = {
        REJECTED("{\"interview_id\":1," SOURCE "," SOURCE ",} x \xff", INVALID_UTF8),
        REJECTED("{\"interview_id\":1," SOURCE "," SOURCE ",} x", NOT_JSON),
        REJECTED("[{\"interview_id\":1," SOURCE "," SOURCE "}] x", TRAILING_DATA),
        REJECTED("[{\"interview_id\":1," SOURCE "," SOURCE "}]", NOT_OBJECT),
        REJECTED("{\"source\":1,\"source\":2}", DUPLICATE_FIELD),
        REJECTED("{\"source\":1}", MISSING_INTERVIEW_ID),
        REJECTED("{\"interview_id\":1,\"source\":1}", INVALID_INTERVIEW_ID),
        REJECTED_WITH_ID("{" ID ",\"source\":1}", MISSING_ENHANCED_PROMPT),
        REJECTED_WITH_ID("{" ID ",\"enhanced_prompt\":1,\"source\":1}", INVALID_ENHANCED_PROMPT),
        REJECTED_WITH_ID("{" ID ",\"enhanced_prompt\":\"\\u0000\",\"source\":1}", PROMPT_TOO_SHORT),
        REJECTED_WITH_ID("{" ID ",\"enhanced_prompt\":\"0123456789\\u0000\",\"source\":1}", PROMPT_HAS_NUL),
        REJECTED_WITH_ID("{" ID "," PROMPT ",\"source\":1}", INVALID_SOURCE),
    };
    CHECK_ROWS(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_framing),
        cmocka_unit_test(test_invalid_utf8),
        cmocka_unit_test(test_not_json),
        cmocka_unit_test(test_control_characters),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_trailing_data_and_other_values),
        cmocka_unit_test(test_duplicate_field),
        cmocka_unit_test(test_interview_id),
        cmocka_unit_test(test_prompt),
        cmocka_unit_test(test_nul_escapes),
        cmocka_unit_test(test_surrogates),
        cmocka_unit_test(test_source),
        cmocka_unit_test(test_first_fault_is_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
