/* SPDX-License-Identifier: MIT */
/* What was taken from a list or a stream: its states, and how it is compared with what Redis holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "queue_entries.h"

static struct queue_entry *take(struct queue_entries *entries, const char *id, const char *bytes, size_t length)
{
    const struct queue_item item = {.id = id, .bytes = bytes, .length = length};
    struct queue_entry *entry = queue_entry_new(entries, &item);
    assert_non_null(entry);
    return entry;
}

static struct queue_entry *take_text(struct queue_entries *entries, const char *text)
{
    return take(entries, "", text, strlen(text));
}

static bool compare(struct queue_entries *entries, const char *id, const char *bytes, size_t length)
{
    return queue_entries_compare(entries, &(struct queue_item){.id = id, .bytes = bytes, .length = length});
}

static size_t count(const struct queue_entries *entries, enum queue_entry_state state)
{
    size_t found = 0;
    const struct queue_entry *entry;
    TAILQ_FOREACH(entry, &entries->lists[state], link)
    found++;
    return found;
}

static void assert_empty(struct queue_entries *entries)
{
    queue_entries_free(entries);
    assert_int_equal(entries->count, 0);
    assert_int_equal(entries->bytes, 0);
    assert_null(queue_entries_next(entries, NULL));
}

static void test_states(void **state)
{
    (void)state;
    struct queue_entries entries = {0};
    queue_entries_init(&entries);
    struct queue_entry *first = take_text(&entries, "one");
    struct queue_entry *second = take_text(&entries, "two");
    struct queue_entry *third = take_text(&entries, "three");
    assert_int_equal(entries.count, 3);
    queue_entry_move(&entries, second, QUEUE_ENTRY_DONE);
    queue_entry_move(&entries, first, QUEUE_ENTRY_REFUSED);
    assert_ptr_equal(queue_entries_next(&entries, NULL), third);
    assert_ptr_equal(queue_entries_next(&entries, third), second);
    assert_ptr_equal(queue_entries_next(&entries, second), first);
    assert_null(queue_entries_next(&entries, first));
    queue_entry_move(&entries, second, QUEUE_ENTRY_REFUSED);
    queue_entries_redo(&entries, QUEUE_ENTRY_REFUSED, 1);
    assert_ptr_equal(queue_entries_first(&entries, QUEUE_ENTRY_DONE), first);
    assert_int_equal(count(&entries, QUEUE_ENTRY_REFUSED), 1);
    assert_int_equal(queue_entries_longest(&entries), 5);
    assert_empty(&entries);
}

/* Each one in Redis stands for one here, also where several have the same bytes. */
static void test_compared_by_bytes(void **state)
{
    (void)state;
    struct queue_entries entries = {0};
    queue_entries_init(&entries);
    struct queue_entry *held = take_text(&entries, "same");
    queue_entry_move(&entries, take_text(&entries, "same"), QUEUE_ENTRY_DONE);
    queue_entry_move(&entries, take_text(&entries, "gone"), QUEUE_ENTRY_DONE);
    queue_entry_move(&entries, take_text(&entries, "gone too"), QUEUE_ENTRY_REFUSED);
    struct queue_entry *foreign = take_text(&entries, "another's");
    queue_entries_begin_verifying(&entries);
    assert_true(compare(&entries, "", "same", 4));
    assert_true(compare(&entries, "", "same", 4));
    assert_false(compare(&entries, "", "same", 4));
    assert_false(compare(&entries, "", "lost", 4));
    queue_entries_end_verifying(&entries);
    assert_false(held->is_foreign);
    assert_true(foreign->is_foreign);
    assert_int_equal(count(&entries, QUEUE_ENTRY_HELD), 2);
    assert_int_equal(count(&entries, QUEUE_ENTRY_DONE), 1);
    assert_int_equal(count(&entries, QUEUE_ENTRY_REFUSED), 0);
    assert_empty(&entries);
}

/* What was not read is known by its length, whether it could be read now or not. What was read is not. */
static void test_compared_by_length(void **state)
{
    (void)state;
    struct queue_entries entries = {0};
    queue_entries_init(&entries);
    (void)take(&entries, "", NULL, 4);
    (void)take_text(&entries, "read");
    assert_int_equal(queue_entries_longest(&entries), 4);
    queue_entries_begin_verifying(&entries);
    assert_false(compare(&entries, "", NULL, 5));
    assert_true(compare(&entries, "", "long", 4));
    assert_false(compare(&entries, "", NULL, 4));
    assert_true(compare(&entries, "", "read", 4));
    assert_empty(&entries);
}

static void test_compared_by_id(void **state)
{
    (void)state;
    struct queue_entries entries = {0};
    queue_entries_init(&entries);
    (void)take(&entries, "1-0", "same", 4);
    (void)take(&entries, "2-0", "same", 4);
    queue_entries_begin_verifying(&entries);
    (void)take(&entries, "2-5", "same", 4); /* taken over since */
    assert_true(compare(&entries, "2-0", NULL, 0));
    assert_true(compare(&entries, "2-5", NULL, 0));
    assert_false(compare(&entries, "3-0", "same", 4));
    assert_true(queue_entries_has(&entries, &(struct queue_item){.id = "2-0"}));
    assert_false(queue_entries_has(&entries, &(struct queue_item){.id = "3-0"}));
    assert_empty(&entries);
}

static void test_dead_letter(void **state)
{
    (void)state;
    static const char *const words[] = {"message",      "a\nb",     "outcome",   "rejected", "reason",
                                        "not_json",     "sqlstate", "",          "error",    "",
                                        "interview_id", "",         "prompt_id", "",         "at"};
    struct queue_entries entries = {0};
    struct queue_command command;
    const struct disposition disposition = {.outcome = "rejected", .reason = "not_json"};
    queue_entries_init(&entries);
    struct queue_entry *entry = take_text(&entries, "a\nb");
    struct queue_entry *skipped = take(&entries, "", NULL, 100);
    assert_true(queue_entry_set_dead(entry, &disposition) && queue_entry_set_dead(skipped, &disposition));
    queue_command_begin(&command, "XADD");
    queue_entry_add_letter(entry, &command);
    assert_int_equal(command.argc, 17);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        assert_memory_equal(command.argv[i + 1], words[i], command.lengths[i + 1]);
    queue_command_begin(&command, "XADD");
    queue_entry_add_letter(skipped, &command);
    assert_int_equal(command.argc, 15);
    assert_string_equal(command.argv[1], "outcome");
    assert_empty(&entries);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_compared_by_bytes),
        cmocka_unit_test(test_compared_by_length),
        cmocka_unit_test(test_compared_by_id),
        cmocka_unit_test(test_dead_letter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
