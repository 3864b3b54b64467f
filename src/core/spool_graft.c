/* SPDX-License-Identifier: MIT */
/*
 * A first page for a database that has lost its own.
 *
 * The first page holds the header and the schema, and where it is damaged nothing of the file can be read. But all our
 * databases are made in the same way, so it can be replaced by that of a new one: the tables begin at the same pages.
 */
#include <endian.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "spool_recover.h"

/* Of the file format, https://www.sqlite.org/fileformat2.html, section 1.3. */
enum {
    HEADER_VERSIONS = 18, /* two bytes: 2 where a write-ahead log may belong to it */
    HEADER_PAGES = 28,
    HEADER_FREE_LIST = 32, /* its first page and its length: forgotten */
    ROOT_PAGES = 4         /* three tables and sqlite_sequence */
};

static bool read_page(int fd, int number, unsigned char *page)
{
    return pread(fd, page, SPOOL_PAGE_SIZE, (off_t)(number - 1) * SPOOL_PAGE_SIZE) == SPOOL_PAGE_SIZE;
}

static bool write_page(int fd, const unsigned char *page)
{
    return pwrite(fd, page, SPOOL_PAGE_SIZE, 0) == SPOOL_PAGE_SIZE && fsync(fd) == 0;
}

/* The second page says what each of the next ones is: ours are the roots of the tables. */
static bool has_our_roots(int fd, unsigned char *page)
{
    static const unsigned char root[] = {1, 0, 0, 0, 0};
    bool ours = read_page(fd, 2, page);
    for (size_t i = 0; i < ROOT_PAGES && ours; i++)
        ours = memcmp(page + i * sizeof root, root, sizeof root) == 0;
    return ours;
}

static bool fit_template(int fd, unsigned char *page)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return false;
    uint32_t pages = htobe32((uint32_t)(status.st_size / SPOOL_PAGE_SIZE));
    memset(page + HEADER_VERSIONS, 2, 2);
    memcpy(page + HEADER_PAGES, &pages, sizeof pages);
    memset(page + HEADER_FREE_LIST, 0, 8);
    return true;
}

static bool keep_page(int to, int keep, unsigned char *page)
{
    return has_our_roots(to, page) && read_page(to, 1, page) && write_page(keep, page);
}

static void close_file(int fd)
{
    if (fd >= 0)
        close(fd);
}

bool spool_graft_first_page(const struct spool_folder *folder)
{
    unsigned char *page = malloc(SPOOL_PAGE_SIZE);
    int from = openat(folder->fd, SPOOL_FILE_BUILDING, O_RDONLY | O_CLOEXEC);
    int to = openat(folder->fd, SPOOL_FILE, O_RDWR | O_CLOEXEC);
    int keep = openat(folder->fd, SPOOL_FILE_PAGE1, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool kept = page && from >= 0 && to >= 0 && keep >= 0 && keep_page(to, keep, page);
    bool grafted = kept && read_page(from, 1, page) && fit_template(to, page) && write_page(to, page);
    close_file(from);
    close_file(to);
    close_file(keep);
    free(page);
    if (!kept)
        (void)unlinkat(folder->fd, SPOOL_FILE_PAGE1, 0);
    return grafted;
}
