#include "tests/unit/kit.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/stream/spool.h"

static char folder[64];

static SpoolDir *dir_new(size_t memory)
{
    Err err = ERR_INIT;
    SpoolDir *dir = spool_dir_open(folder, memory, &err);

    if (!dir)
        fail_msg("%s", err.text);
    return dir;
}

static size_t fill(uint8_t *to, unsigned n, size_t most)
{
    size_t len = (size_t)n * 7919 % most;

    for (size_t i = 0; i < len; i++)
        to[i] = (uint8_t)(n + i / 3);
    return len;
}

static void put_many(Spool *spool, unsigned from, unsigned count, size_t most)
{
    uint8_t *record = malloc(most);
    Err err = ERR_INIT;

    for (unsigned n = from; n < from + count; n++)
        if (!spool_append(spool, n, span_of(record, fill(record, n, most)), &err))
            fail_msg("%s", err.text);
    free(record);
}

static void check_many(Spool *spool, unsigned from, unsigned count, size_t most)
{
    uint8_t *expected = malloc(most);
    Err err = ERR_INIT;
    uint32_t tag;
    Span record;

    for (unsigned n = from; n < from + count; n++) {
        if (!spool_next(spool, &tag, &record, &err))
            fail_msg("%s", err.text);
        assert_int_equal(tag, n);
        assert_true(span_equal(record, span_of(expected, fill(expected, n, most))));
    }
    assert_true(spool_next(spool, &tag, &record, &err));
    assert_null(record.at);
    free(expected);
}

static void write_and_read(unsigned count, size_t most, size_t memory, bool on_disk)
{
    Err err = ERR_INIT;
    SpoolDir *dir = dir_new(memory);
    Spool *spool = spool_new(dir);

    put_many(spool, 0, count, most);
    assert_true(spool_seal(spool, &err));
    assert_int_equal(spool_dir_bytes(dir) > 0, on_disk);
    assert_int_equal(spool_records(spool), count);
    check_many(spool, 0, count, most);
    assert_true(spool_rewind(spool, &err));
    check_many(spool, 0, count, most);
    spool_free(spool);
    assert_int_equal(spool_dir_bytes(dir), 0);
    spool_dir_close(dir);
}

static void gives_back_what_was_put(void **state)
{
    (void)state;
    write_and_read(0, 10, MIB(1), false);
    write_and_read(1, 10, MIB(1), false);
    write_and_read(100, 1000, MIB(1), false);
    write_and_read(5000, 2000, MIB(1), true);
    write_and_read(20, MIB(2), MIB(8), true);
    write_and_read(300, 100, 0, true); /* no memory at all: every record is a segment */
}

static void many_at_once_keep_the_budget(void **state)
{
    enum { SPOOLS = 40, RECORDS = 200 };
    Err err = ERR_INIT;
    SpoolDir *dir = dir_new(KIB(100));
    Spool *spools[SPOOLS];

    (void)state;
    for (unsigned i = 0; i < SPOOLS; i++)
        spools[i] = spool_new(dir);
    for (unsigned n = 0; n < RECORDS; n++)
        for (unsigned i = 0; i < SPOOLS; i++)
            put_many(spools[i], i * RECORDS + n, 1, 900);
    spool_free(spools[3]); /* rolled back while it is written */
    for (unsigned i = 0; i < SPOOLS; i++) {
        if (i == 3)
            continue;
        assert_true(spool_seal(spools[i], &err));
        check_many(spools[i], i * RECORDS, RECORDS, 900);
        spool_free(spools[i]);
    }
    assert_int_equal(spool_dir_bytes(dir), 0);
    spool_dir_close(dir);
}

static unsigned entries_in_folder(void)
{
    DIR *dir = opendir(folder);
    unsigned count = 0;

    assert_non_null(dir);
    while (readdir(dir)) /* NOLINT(concurrency-mt-unsafe) */
        count++;
    closedir(dir);
    return count - 2;
}

static void leaves_no_name_behind(void **state)
{
    SpoolDir *dir = dir_new(0);
    Spool *spool = spool_new(dir);

    (void)state;
    put_many(spool, 0, 100, 1000);
    assert_true(spool_dir_bytes(dir) > 0);
    assert_int_equal(entries_in_folder(), 0);
    spool_free(spool);
    spool_dir_close(dir);
}

/* The spool's file among our open ones: it has no name elsewhere. */
static int spool_fd(void)
{
    for (int fd = 3; fd < 100; fd++) {
        char link[64], at[256];
        ssize_t len;

        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        len = readlink(link, at, sizeof(at) - 1);
        if (len > 0 && (size_t)len > strlen(folder) && memcmp(at, folder, strlen(folder)) == 0)
            return fd;
    }
    fail_msg("no open file in %s", folder);
    return -1;
}

/* Whatever byte a disk turns over, no record comes back changed. */
static void damage_is_seen(void **state)
{
    (void)state;
    for (off_t at = 0; at < 400; at += 7) {
        Err err = ERR_INIT;
        SpoolDir *dir = dir_new(0);
        Spool *spool = spool_new(dir);
        uint8_t byte;
        uint32_t tag;
        Span record;
        bool ok = true;

        put_many(spool, 1, 20, 100);
        assert_true(spool_seal(spool, &err));
        assert_int_equal(pread(spool_fd(), &byte, 1, at), 1);
        byte ^= 0x10;
        assert_int_equal(pwrite(spool_fd(), &byte, 1, at), 1);
        do
            ok = spool_next(spool, &tag, &record, &err);
        while (ok && record.at);
        assert_false(ok);
        assert_int_equal(err.kind, ERR_SYSTEM);
        assert_false(err.transient);
        spool_free(spool);
        spool_dir_close(dir);
    }
}

static void a_short_file_is_seen(void **state)
{
    Err err = ERR_INIT;
    SpoolDir *dir = dir_new(0);
    Spool *spool = spool_new(dir);
    char expected[200];
    uint32_t tag;
    Span record;

    (void)state;
    put_many(spool, 1, 1, 100);
    assert_true(spool_seal(spool, &err));
    assert_int_equal(ftruncate(spool_fd(), 30), 0);
    assert_false(spool_next(spool, &tag, &record, &err));
    snprintf(expected, sizeof(expected),
             "reading the spool in %s back: segment 0 at byte 30 ends too early", folder);
    assert_string_equal(err.text, expected);
    spool_free(spool);
    spool_dir_close(dir);
}

static void a_full_disk_is_an_error(void **state)
{
    struct rlimit before, small = {1000, RLIM_INFINITY};
    Err err = ERR_INIT;
    SpoolDir *dir = dir_new(0);
    Spool *spool = spool_new(dir);
    uint8_t record[900];
    bool ok = true;

    (void)state;
    for (size_t i = 0; i < sizeof(record); i++)
        record[i] = (uint8_t)(i * i * 31 >> 3);
    getrlimit(RLIMIT_FSIZE, &before);
    small.rlim_max = before.rlim_max;
    setrlimit(RLIMIT_FSIZE, &small);
    for (unsigned n = 0; ok && n < 20; n++)
        ok = spool_append(spool, n, span_of(record, sizeof(record)), &err);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_false(ok);
    assert_int_equal(err.kind, ERR_SYSTEM);
    assert_string_equal(err.code, "EFBIG");
    assert_non_null(strstr(err.text, folder));
    assert_non_null(strstr(err.hint, "--spool-dir"));
    spool_free(spool);
    assert_int_equal(spool_dir_bytes(dir), 0);
    spool_dir_close(dir);
}

static void a_folder_that_cannot_be_made(void **state)
{
    Err err = ERR_INIT;

    (void)state;
    assert_null(spool_dir_open("/proc/nowhere/at/all", MIB(1), &err));
    assert_string_equal(err.text,
                        "making the spool folder /proc/nowhere: No such file or directory");
    assert_int_equal(err.kind, ERR_SYSTEM);
}

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/keybridge-spool.XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder); /* fails unless it is empty */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_back_what_was_put),
        cmocka_unit_test(many_at_once_keep_the_budget),
        cmocka_unit_test(leaves_no_name_behind),
        cmocka_unit_test(damage_is_seen),
        cmocka_unit_test(a_short_file_is_seen),
        cmocka_unit_test(a_full_disk_is_an_error),
        cmocka_unit_test(a_folder_that_cannot_be_made),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
