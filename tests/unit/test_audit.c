#include "engine/move/audit.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/move/sha256.h"

static char dir[64];
static char path[96];

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/kb-audit.XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/audit.jsonl", dir);
    return 0;
}

static int drop_dir(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

static void add_three(Err *err)
{
    Audit *audit = audit_open(dir, err);

    assert_non_null(audit);
    assert_true(audit_add(audit, err, "one", F_STR("name", "a \"b\""), F_U64("n", 1)));
    assert_true(audit_add(audit, err, "two", F_LSN("at", 0x1600000028ull), F_BOOL("yes", true),
                          F_MS("ms", 1.5)));
    assert_true(audit_add(audit, err, "three"));
    audit_close(audit);
}

static size_t read_all(char *out, size_t size)
{
    int fd = open(path, O_RDONLY);
    ssize_t got = read(fd, out, size - 1);

    close(fd);
    out[got] = '\0';
    return (size_t)got;
}

static void write_all(const char *text, size_t len)
{
    int fd = open(path, O_WRONLY | O_TRUNC);

    assert_int_equal(write(fd, text, len), (ssize_t)len);
    close(fd);
}

static void entries_are_chained(void **state)
{
    Err err = ERR_INIT;
    char text[8192];
    char hash[SHA256_TEXT];
    uint64_t entries;
    char *second;

    (void)state;
    add_three(&err);
    assert_true(audit_verify(dir, &entries, &err));
    assert_int_equal(entries, 3);
    read_all(text, sizeof(text));
    assert_non_null(
        strstr(text, "\"event\":\"one\",\"name\":\"a \\\"b\\\"\",\"n\":1,\"prev\":\"0000"));
    second = strchr(text, '\n') + 1;
    sha256_text(span_of(text, (size_t)(second - text - 1)), hash);
    assert_non_null(strstr(second, hash));
    assert_non_null(strstr(second, "\"at\":\"16/28\",\"yes\":true,\"ms\":1.500"));
}

static void it_goes_on_after_reopening(void **state)
{
    Err err = ERR_INIT;
    uint64_t entries;

    (void)state;
    add_three(&err);
    add_three(&err);
    assert_true(audit_verify(dir, &entries, &err));
    assert_int_equal(entries, 6);
}

static void every_changed_byte_is_found(void **state)
{
    Err err = ERR_INIT;
    char text[8192];
    size_t len;
    size_t last;
    uint64_t entries;

    (void)state;
    add_three(&err);
    len = read_all(text, sizeof(text));
    last = len - 1;
    while (text[last - 1] != '\n')
        last--;
    /* Nothing follows the last entry that could tell that its own content changed: its prev part
     * only. */
    for (size_t i = 0; i < last; i++) {
        char kept = text[i];

        text[i] = (char)(kept ^ 1);
        write_all(text, len);
        assert_false(audit_verify(dir, &entries, &err));
        err_clear(&err);
        assert_null(audit_open(dir, &err));
        assert_int_equal(err.kind, ERR_STATE);
        err_clear(&err);
        text[i] = kept;
    }
    write_all(text, len);
    assert_true(audit_verify(dir, &entries, &err));
}

static void a_missing_entry_is_found(void **state)
{
    Err err = ERR_INIT;
    char text[8192];
    size_t len;
    char *second;
    char *third;
    uint64_t entries;

    (void)state;
    add_three(&err);
    len = read_all(text, sizeof(text));
    second = strchr(text, '\n') + 1;
    third = strchr(second, '\n') + 1;
    memmove(second, third, len - (size_t)(third - text));
    write_all(text, len - (size_t)(third - second));
    assert_false(audit_verify(dir, &entries, &err));
    assert_non_null(strstr(err.text, "entry 2 doesn't follow from the one before"));
}

static void a_torn_entry_is_cut_and_noted(void **state)
{
    Err err = ERR_INIT;
    char text[8192];
    size_t len;
    uint64_t entries;
    Audit *audit;

    (void)state;
    add_three(&err);
    len = read_all(text, sizeof(text));
    write_all(text, len - 7);
    assert_false(audit_verify(dir, &entries, &err));
    assert_non_null(strstr(err.text, "the last entry is torn"));
    err_clear(&err);
    audit = audit_open(dir, &err);
    assert_non_null(audit);
    audit_close(audit);
    assert_true(audit_verify(dir, &entries, &err));
    assert_int_equal(entries, 3);
    read_all(text, sizeof(text));
    assert_non_null(strstr(text, "torn entry cut off after a kill"));
}

static void sha256_is_sha256(void **state)
{
    char hash[SHA256_TEXT];

    (void)state;
    assert_string_equal(sha256_text(span_str("abc"), hash),
                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_string_equal(sha256_text(SPAN_NONE, hash),
                        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(entries_are_chained, make_dir, drop_dir),
        cmocka_unit_test_setup_teardown(it_goes_on_after_reopening, make_dir, drop_dir),
        cmocka_unit_test_setup_teardown(every_changed_byte_is_found, make_dir, drop_dir),
        cmocka_unit_test_setup_teardown(a_missing_entry_is_found, make_dir, drop_dir),
        cmocka_unit_test_setup_teardown(a_torn_entry_is_cut_and_noted, make_dir, drop_dir),
        cmocka_unit_test(sha256_is_sha256),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
