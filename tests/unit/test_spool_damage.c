/* SPDX-License-Identifier: MIT */
/*
 * Whatever bytes are in the folder, a working spool comes of it: it opens, gives back only what was put, takes new
 * messages, and finds nothing wrong at the next start.
 *
 * PROMPTD_SPOOL_ROUNDS and PROMPTD_SPOOL_SEED in the environment make the random part longer, or another one.
 */
#include "spool_fixture.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MESSAGES = 300, BACKLOG = 400, DEAD_EVERY = 10, PAGE = 8192 };

/* A folder as a killed process left it: some in the database, the rest in its log. */
static struct {
    char *db;
    size_t db_size;
    char *wal;
    size_t wal_size;
} image;

/* The database of one that ended well, with BACKLOG messages. */
static struct {
    char *db;
    size_t size;
} backlog;

static uint64_t random_state;

static uint32_t random_below(size_t limit)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((random_state >> 33) % limit);
}

static char *read_file(const char *path, size_t *size)
{
    struct stat status;
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fstat(fileno(file), &status), 0);
    *size = (size_t)status.st_size;
    char *bytes = malloc(*size + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *size, file), *size);
    (void)fclose(file);
    return bytes;
}

static void write_file(const char *path, const char *bytes, size_t size)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void put_range(struct spool_fixture *fixture, uint32_t from, uint32_t to)
{
    char payload[FIXTURE_PAYLOAD_MAX];
    for (uint32_t i = from; i < to; i++) {
        struct fixture_put put = fixture_put(fixture, payload, fixture_payload(i, payload));
        assert_int_equal(put.result, SPOOL_PUT_OK);
        if (i % DEAD_EVERY == 0)
            spool_set_dead(fixture->spool, put.sequence,
                           &(struct disposition){.outcome = "rolled back", .error = "why"});
    }
    fixture_settle(fixture);
}

/* By another process: closing the file in this one would drop SQLite's locks. */
static char *copy_file(const struct spool_fixture *fixture, const char *name, size_t *size)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/copy", fixture->root);
    fixture_shell("cp '%s' '%s'", fixture_path(fixture, name), path);
    return read_file(path, size);
}

static int make_images(void **state)
{
    spool_fixture_setup(state);
    struct spool_fixture *fixture = *state;
    fixture_open(fixture);
    put_range(fixture, 0, MESSAGES / 2);
    fixture_close(fixture);
    fixture_open(fixture);
    put_range(fixture, MESSAGES / 2, MESSAGES);
    image.db = copy_file(fixture, "spool.db", &image.db_size);
    image.wal = copy_file(fixture, "spool.db-wal", &image.wal_size);
    assert_true(image.wal_size > 100000);
    put_range(fixture, MESSAGES, BACKLOG);
    fixture_close(fixture);
    backlog.db = copy_file(fixture, "spool.db", &backlog.size);
    return spool_fixture_teardown(state);
}

static int free_images(void **state)
{
    (void)state;
    free(image.db);
    free(image.wal);
    free(backlog.db);
    return 0;
}

static void lay_out(const struct spool_fixture *fixture, const char *db, size_t db_size, const char *wal,
                    size_t wal_size)
{
    fixture_shell("rm -rf '%s' && mkdir '%s'", fixture->directory, fixture->directory);
    if (db)
        write_file(fixture_path(fixture, "spool.db"), db, db_size);
    if (wal)
        write_file(fixture_path(fixture, "spool.db-wal"), wal, wal_size);
}

/* All that the open spool has; returns how many. Only what was put, each once, in order. */
static size_t read_all(struct spool_fixture *fixture)
{
    int64_t after = 0;
    size_t rows = 0;
    bool seen[BACKLOG + 1] = {false};
    do {
        fixture_fetch(fixture, after, 64, 1000000);
        for (size_t i = 0; i < fixture->entry_count; i++, rows++) {
            uint32_t number;
            assert_true(fixture->entries[i].sequence > after);
            after = fixture->entries[i].sequence;
            assert_true(fixture_payload_is_sound(fixture->entries[i].payload, fixture->entries[i].length, &number));
            assert_true(number <= BACKLOG);
            assert_false(seen[number]);
            seen[number] = true;
        }
    } while (!fixture->end);
    return rows;
}

/* Opens what lies there; returns the messages that came back, dead ones included. */
static size_t recover(struct spool_fixture *fixture)
{
    char payload[FIXTURE_PAYLOAD_MAX];
    fixture_forget_log(fixture);
    fixture_open(fixture);
    size_t rows = read_all(fixture);
    struct spool_counts counts = spool_counts(fixture->spool);
    assert_int_equal(counts.waiting, rows);
    struct fixture_put put = fixture_put(fixture, payload, fixture_payload(BACKLOG, payload));
    assert_int_equal(put.result, SPOOL_PUT_OK);
    assert_true(put.sequence > counts.last_sequence);
    fixture_close(fixture);

    fixture_forget_log(fixture);
    fixture_open(fixture);
    assert_int_equal(fixture_logged(fixture, "CRITICAL"), 0);
    assert_int_equal(read_all(fixture), rows + 1);
    assert_int_equal(spool_counts(fixture->spool).dead, counts.dead);
    fixture_close(fixture);
    return rows + (size_t)counts.dead;
}

static void test_untouched(void **state)
{
    struct spool_fixture *fixture = *state;
    lay_out(fixture, image.db, image.db_size, image.wal, image.wal_size);
    assert_int_equal(recover(fixture), MESSAGES);
    assert_int_equal(fixture_files(fixture, "spool.db.damaged"), 0);
}

/* The end of the log is missing, as after a crash: that is no damage. */
static void test_log_cut_anywhere(void **state)
{
    struct spool_fixture *fixture = *state;
    size_t last = 0;
    for (size_t cut = 0; cut <= image.wal_size; cut += image.wal_size / 25 + 7) {
        lay_out(fixture, image.db, image.db_size, image.wal, cut);
        size_t rows = recover(fixture);
        assert_true(rows >= MESSAGES / 2 && rows >= last);
        assert_int_equal(fixture_files(fixture, "spool.db.damaged"), 0);
        last = rows;
    }
}

/* The end of the database is missing: what is left of it and what the log has come back. */
static void test_database_cut_anywhere(void **state)
{
    struct spool_fixture *fixture = *state;
    size_t step = image.db_size / 20;
    size_t total = 0;
    for (size_t cut = 0; cut < image.db_size; cut += step) {
        size_t odd = cut + (cut / step % 3 == 1 ? 1 : cut / step % 3 == 2 ? 100 : 0);
        if (odd > image.db_size)
            break;
        lay_out(fixture, image.db, odd, image.wal, image.wal_size);
        total += recover(fixture);
        lay_out(fixture, image.db, odd, NULL, 0);
        total += recover(fixture);
    }
    assert_true(total > 20 * MESSAGES / 4); /* cut in the middle, half of a half is left */
}

static size_t recover_without_page(struct spool_fixture *fixture, size_t page, int filler)
{
    char *copy = malloc(backlog.size);
    assert_non_null(copy);
    memcpy(copy, backlog.db, backlog.size);
    memset(copy + page * PAGE, filler, PAGE);
    lay_out(fixture, copy, backlog.size, NULL, 0);
    free(copy);
    return recover(fixture);
}

/* Any one page is lost, whether a root, a leaf, or the middle of a large message: hardly more goes than stood on it.
 * Only without the first page, which says what the file is, nothing can be read, and the log says so. */
static void test_any_page_lost(void **state)
{
    struct spool_fixture *fixture = *state;
    size_t least = BACKLOG;
    fixture_forget_log(fixture);
    assert_int_equal(recover_without_page(fixture, 0, 0), 0);
    assert_int_equal(fixture_files(fixture, "spool.db.damaged-"), 1);
    for (size_t page = 1; page < backlog.size / PAGE; page++) {
        size_t rows = recover_without_page(fixture, page, page % 8 == 0 ? 0xa5 : 0);
        if (rows < least)
            least = rows;
    }
    print_message("at least %zu of %d messages came back\n", least, BACKLOG);
    assert_true(least >= 380);
}

static void test_first_page_lost_is_said(void **state)
{
    struct spool_fixture *fixture = *state;
    lay_out(fixture, backlog.db, backlog.size, NULL, 0);
    fixture_shell("dd if=/dev/zero of='%s' bs=%d count=1 conv=notrunc 2>/dev/null", fixture_path(fixture, "spool.db"),
                  PAGE);
    fixture_open(fixture);
    assert_int_equal(fixture_logged(fixture, "no message in it could be read, and a new one is begun"), 1);
    assert_int_equal(fixture_logged(fixture, "lost=unknown"), 1);
}

static void test_half_of_the_file_lost(void **state)
{
    struct spool_fixture *fixture = *state;
    lay_out(fixture, backlog.db, backlog.size / 2, NULL, 0);
    size_t rows = recover(fixture);
    print_message("%zu of %d messages came back\n", rows, BACKLOG);
    assert_true(rows >= 150);
}

/* What is set aside is what was found, and the line has the numbers. */
static void test_set_aside_unchanged(void **state)
{
    struct spool_fixture *fixture = *state;
    lay_out(fixture, backlog.db, backlog.size, NULL, 0);
    fixture_shell("dd if=/dev/zero of='%s' bs=%d seek=2 count=1 conv=notrunc 2>/dev/null", /* the payloads' root */
                  fixture_path(fixture, "spool.db"), PAGE);
    fixture_shell("cp '%s' '%s/before'", fixture_path(fixture, "spool.db"), fixture->root);
    fixture_open(fixture);
    fixture_shell("cmp '%s/before' '%s'/spool.db.damaged-*Z", fixture->root, fixture->directory);
    assert_int_equal(fixture_files(fixture, "spool.db.damaged-"), 1);
    assert_int_equal(fixture_logged(fixture, "what could be read was taken over into a new one"), 1);
    assert_int_equal(fixture_logged(fixture, "waiting=360 dead=40 lost=0"), 1);
    assert_int_equal(spool_counts(fixture->spool).waiting, 360);
    assert_int_equal(spool_counts(fixture->spool).dead, 40);
}

static void test_files_of_others(void **state)
{
    struct spool_fixture *fixture = *state;
    char noise[50000];
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (char)random_below(256);
    lay_out(fixture, noise, sizeof noise, NULL, 0);
    assert_int_equal(recover(fixture), 0);
    assert_int_equal(fixture_files(fixture, "spool.db.damaged-"), 1);
    lay_out(fixture, noise, sizeof noise, noise, sizeof noise);
    assert_int_equal(recover(fixture), 0);
    lay_out(fixture, "x", 1, NULL, 0);
    assert_int_equal(recover(fixture), 0);
    lay_out(fixture, NULL, 0, image.wal, image.wal_size);
    assert_int_equal(recover(fixture), 0);
    lay_out(fixture, "", 0, image.wal, image.wal_size);
    assert_int_equal(recover(fixture), 0);
    assert_int_equal(fixture_files(fixture, "spool.db.damaged-"), 1); /* the log is kept, for people */
    lay_out(fixture, "", 0, NULL, 0);
    assert_int_equal(recover(fixture), 0);
    assert_int_equal(fixture_files(fixture, "spool.db.damaged-"), 0);
}

static void make_foreign(struct spool_fixture *fixture, const char *sql)
{
    sqlite3 *other = NULL;
    lay_out(fixture, NULL, 0, NULL, 0);
    assert_int_equal(sqlite3_open(fixture_path(fixture, "spool.db"), &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(other), SQLITE_OK);
}

static void test_database_of_another_program(void **state)
{
    struct spool_fixture *fixture = *state;
    make_foreign(fixture, "pragma application_id = 42; create table message(x); insert into message values(1)");
    assert_int_equal(recover(fixture), 0);
    assert_int_equal(fixture_files(fixture, "spool.db.foreign-"), 1);
    /* Ours by its mark, but not by its tables. */
    make_foreign(fixture, "pragma application_id = 1347572530; pragma user_version = 2;"
                          "create table payload(x); create view waiting as select 1");
    assert_int_equal(recover(fixture), 0);
    assert_int_equal(fixture_files(fixture, "spool.db.damaged-"), 1);
}

/* A crash between the steps of an exchange: it is finished at the next start. */
static void test_interrupted_exchange(void **state)
{
    struct spool_fixture *fixture = *state;
    lay_out(fixture, "damaged", 7, NULL, 0);
    write_file(fixture_path(fixture, "spool.db.new"), image.db, image.db_size);
    assert_int_equal(recover(fixture), MESSAGES / 2);
    assert_int_equal(fixture_files(fixture, "spool.db.damaged-"), 1);
    assert_int_equal(fixture_files(fixture, "spool.db.new"), 0);

    /* The log of the old one must not be taken for that of the new one. */
    lay_out(fixture, NULL, 0, image.wal, image.wal_size);
    write_file(fixture_path(fixture, "spool.db.new"), image.db, image.db_size);
    write_file(fixture_path(fixture, "spool.db.building"), "half", 4);
    assert_int_equal(recover(fixture), MESSAGES / 2);
    assert_int_equal(fixture_files(fixture, "spool.db.building"), 0);
}

static void damage_at_random(char *bytes, size_t size)
{
    unsigned changes = 1 + random_below(4);
    while (size > 0 && changes-- > 0) {
        size_t at = random_below(size);
        size_t length = 1 + random_below(size - at < 3000 ? size - at : 3000);
        switch (random_below(6)) {
        case 0:
            memset(bytes + at, 0, length);
            break;
        case 1:
            for (size_t i = 0; i < length; i++)
                bytes[at + i] = (char)random_below(256);
            break;
        case 2: /* a page in the place of another */
            if (size >= 2 * PAGE)
                memmove(bytes + random_below(size / PAGE) * PAGE, bytes + random_below(size / PAGE) * PAGE, PAGE);
            break;
        case 3: /* in the head of a page, where its structure is */
            at = at / PAGE * PAGE + random_below(12);
            if (at < size)
                bytes[at] = (char)random_below(256);
            break;
        default:
            bytes[at] = (char)(bytes[at] ^ 1 << random_below(8));
        }
    }
}

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

static void test_random_damage(void **state)
{
    struct spool_fixture *fixture = *state;
    uint64_t rounds = from_environment("PROMPTD_SPOOL_ROUNDS", 100);
    uint64_t seed = from_environment("PROMPTD_SPOOL_SEED", 1);
    char *db = malloc(image.db_size);
    char *wal = malloc(image.wal_size);
    assert_true(db && wal);
    size_t total = 0;
    for (uint64_t round = 0; round < rounds; round++) {
        random_state = seed * 1000003 + round;
        memcpy(db, image.db, image.db_size);
        memcpy(wal, image.wal, image.wal_size);
        size_t db_size = random_below(8) == 0 ? random_below(image.db_size + 1) : image.db_size;
        size_t wal_size = random_below(8) == 0 ? random_below(image.wal_size + 1) : image.wal_size;
        if (random_below(3) > 0)
            damage_at_random(db, db_size);
        if (random_below(3) == 0)
            damage_at_random(wal, wal_size);
        lay_out(fixture, db, db_size, random_below(3) == 0 ? NULL : wal, wal_size);
        (void)snprintf(fixture->error.text, sizeof fixture->error.text, "round %llu", (unsigned long long)round);
        total += recover(fixture);
    }
    print_message("%llu rounds from seed %llu: %zu of 100 messages came back\n", (unsigned long long)rounds,
                  (unsigned long long)seed,
                  total * 100 / (rounds * MESSAGES)); /* NOLINT(clang-analyzer-core.DivideZero) */
    free(db);
    free(wal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define SPOOL_TEST(function) cmocka_unit_test_setup_teardown(function, spool_fixture_setup, spool_fixture_teardown)
        SPOOL_TEST(test_untouched),
        SPOOL_TEST(test_log_cut_anywhere),
        SPOOL_TEST(test_database_cut_anywhere),
        SPOOL_TEST(test_any_page_lost),
        SPOOL_TEST(test_first_page_lost_is_said),
        SPOOL_TEST(test_half_of_the_file_lost),
        SPOOL_TEST(test_set_aside_unchanged),
        SPOOL_TEST(test_files_of_others),
        SPOOL_TEST(test_database_of_another_program),
        SPOOL_TEST(test_interrupted_exchange),
        SPOOL_TEST(test_random_damage),
    };
    return cmocka_run_group_tests(tests, make_images, free_images);
}
