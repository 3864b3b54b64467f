/* SPDX-License-Identifier: MIT */
/* Hands each file of the folders that are named to a fuzz target once: the corpus as a test, with any compiler. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FILE_BYTES_MAX = 8 * 1024 * 1024 };

static int run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(FILE_BYTES_MAX);
    int result = -1;
    if (file && data) {
        size_t size = fread(data, 1, FILE_BYTES_MAX, file);
        if (!ferror(file) && size < FILE_BYTES_MAX)
            result = LLVMFuzzerTestOneInput(data, size);
    }
    if (result != 0)
        fprintf(stderr, "%s: cannot be run\n", path);
    free(data);
    if (file)
        fclose(file);
    return result;
}

/* How many files were run; -1 when one could not be. */
static int run_folder(const char *folder)
{
    DIR *directory = opendir(folder);
    if (!directory) {
        perror(folder);
        return -1;
    }
    int count = 0;
    const struct dirent *entry;
    while (count >= 0 && (entry = readdir(directory)) != NULL) {
        char path[4096];
        if (entry->d_name[0] == '.')
            continue;
        int length = snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        count = length > 0 && (size_t)length < sizeof path && run_file(path) == 0 ? count + 1 : -1;
    }
    closedir(directory);
    return count;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        int count = run_folder(argv[i]);
        if (count <= 0) {
            fprintf(stderr, "%s: %s\n", argv[i], count == 0 ? "is empty" : "failed");
            return 1;
        }
        printf("%s: %d inputs\n", argv[i], count);
    }
    return argc > 1 ? 0 : 64;
}
