/* Runs a fuzzer's entry over files, or all files of folders: the corpus as a test, in builds
 * without libFuzzer. */
#include <dirent.h>
#include <sys/stat.h>

#include "engine/base/buf.h"
#include "tests/fuzz/fuzz.h"

static unsigned runs;

static bool run_file(const char *path)
{
    AUTO_BUF buf;
    FILE *file = fopen(path, "rb");
    uint8_t *block;

    buf_init(&buf, MIB(64));
    if (!file) {
        perror(path);
        return false;
    }
    for (size_t got = 1; got;) {
        uint8_t *to = buf_reserve(&buf, 65536);

        got = to ? fread(to, 1, 65536, file) : 0;
        buf.len += got;
    }
    fclose(file);
    block = fuzz_exact(buf_span(&buf));
    (void)LLVMFuzzerTestOneInput(block, buf.len);
    free(block);
    runs++;
    return true;
}

static bool run_path(const char *path)
{
    struct stat what;
    struct dirent *entry;
    bool ok = true;
    DIR *dir;

    if (stat(path, &what) < 0 || !S_ISDIR(what.st_mode))
        return run_file(path);
    dir = opendir(path);
    while (dir && (entry = readdir(dir))) {
        char inner[4096];

        if (entry->d_name[0] == '.')
            continue;
        snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name);
        ok = run_path(inner) && ok;
    }
    if (dir)
        closedir(dir);
    return ok && dir;
}

int main(int argc, char **argv)
{
    bool ok = true;

    for (int i = 1; i < argc; i++)
        ok = run_path(argv[i]) && ok;
    printf("%s: %u inputs\n", argv[0], runs);
    return ok && runs > 0 ? 0 : 1;
}
