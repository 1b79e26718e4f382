#include "engine/move/receipt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "engine/move/sha256.h"

static char base[64];
static char dir[96];

static int make_dir(void **state)
{
    (void)state;
    snprintf(base, sizeof(base), "/tmp/kb-receipt.XXXXXX");
    assert_non_null(mkdtemp(base));
    snprintf(dir, sizeof(dir), "%s/state", base);
    return 0;
}

static int drop_dir(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf %s", base);
    return system(command);
}

static const char verify[] =
    "{\"equal\":true,\"position\":\"0/30\",\"tables\":[{\"schema\":\"public\",\"table\":\"t\","
    "\"verdict\":\"equal\",\"source_rows\":3,\"target_rows\":3,\"source_hash\":\"aa\",\"target_hash\":\"aa\"}]}";
static const char sequences[] =
    "{\"sequences\":[{\"schema\":\"public\",\"name\":\"s\",\"verdict\":\"equal\",\"source\":{"
    "\"last_value\":7},\"before\":{\"last_value\":1},\"after\":{\"last_value\":7}}]}";

static Journal *filled(Err *err)
{
    static const char *const facts[][3] = {
        {"", "id", "12345678"},          {"", "source", "orders"},
        {"", "database.00000", "shop"},  {"", "databases", "1"},
        {"", "finding.000", "note: x"},  {"", "step.drain_us", "1500"},
        {"", "blocked_us", "250000"},    {"", "marker", "secret-ish"},
        {"shop", "slot", "kb_shop"},     {"shop", "end", "0/40"},
        {"shop", "undo.00000", "alter"}, {"shop", "finding.000", "warning: y"},
        {"", "blocked_from", "then"},    {"", "switched_at", "now"},
    };
    Journal *journal = journal_open(dir, err);

    assert_non_null(journal);
    for (size_t i = 0; i < ARRAY_LEN(facts); i++)
        assert_true(journal_put(journal, facts[i][0], facts[i][1], facts[i][2], err));
    assert_true(journal_put(journal, "shop", "verify", verify, err));
    assert_true(journal_put(journal, "shop", "sequences", sequences, err));
    assert_true(journal_phase_begin(journal, "slot", err));
    assert_true(journal_phase_end(journal, "slot", "done", "", err));
    return journal;
}

static void json_holds_what_was_done(void **state)
{
    Err err = ERR_INIT;
    Journal *journal = filled(&err);
    json_t *receipt;
    json_t *shop;
    AUTO_BUF out;

    (void)state;
    buf_init(&out, MIB(1));
    assert_true(receipt_json(journal, "abc", &out, &err));
    receipt = json_loads(buf_str(&out), 0, NULL);
    shop = json_object_get(json_object_get(receipt, "databases"), "shop");
    assert_string_equal(json_string_value(json_object_get(receipt, "id")), "12345678");
    assert_int_equal(json_integer_value(json_object_get(receipt, "blocked_us")), 250000);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(receipt, "steps"), "drain_us")), 1500);
    assert_int_equal(json_array_size(json_object_get(receipt, "findings")), 1);
    assert_int_equal(json_array_size(json_object_get(receipt, "phases")), 1);
    assert_true(json_is_true(json_object_get(json_object_get(shop, "verify"), "equal")));
    assert_null(json_object_get(receipt, "marker"));
    assert_null(json_object_get(shop, "undos"));
    json_decref(receipt);
    journal_close(journal);
}

static void text_is_for_people(void **state)
{
    static const char *const parts[] = {
        "migration              12345678",
        "database shop",
        "end position 0/40",
        "public.t                                      3            3  aa               aa               equal",
        "public.s                                      7            1 -> 7  equal",
        "warning: y",
        "note: x",
        "drain                         1.5",
        "writes were blocked for 250 ms, from then to now",
    };
    Err err = ERR_INIT;
    Journal *journal = filled(&err);
    AUTO_BUF json;
    AUTO_BUF text;

    (void)state;
    buf_init(&json, MIB(1));
    buf_init(&text, MIB(1));
    assert_true(receipt_json(journal, "abc", &json, &err));
    assert_true(receipt_text(buf_span(&json), &text, &err));
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        if (!strstr(buf_str(&text), parts[i]))
            fail_msg("\"%s\" isn't in\n%s", parts[i], buf_str(&text));
    journal_close(journal);
}

static void files_are_private_and_their_hashes_in_the_audit_log(void **state)
{
    static const char *const names[] = {"receipt.json", "receipt.txt"};
    Err err = ERR_INIT;
    Journal *journal = filled(&err);
    Audit *audit = audit_open(dir, &err);
    char path[160];
    char log[8192];
    AUTO_BUF text;
    FILE *file;

    (void)state;
    buf_init(&text, MIB(1));
    assert_true(receipt_write(journal, audit, &text, &err));
    snprintf(path, sizeof(path), "%s/audit.jsonl", dir);
    file = fopen(path, "r");
    log[fread(log, 1, sizeof(log) - 1, file)] = '\0';
    fclose(file);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char bytes[16384];
        char hash[SHA256_TEXT];
        struct stat st;
        size_t len;

        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        file = fopen(path, "r");
        len = fread(bytes, 1, sizeof(bytes), file);
        fclose(file);
        assert_non_null(strstr(log, sha256_text(span_of(bytes, len), hash)));
    }
    audit_close(audit);
    journal_close(journal);
}

static void nonsense_is_no_receipt(void **state)
{
    Err err = ERR_INIT;
    AUTO_BUF text;

    (void)state;
    buf_init(&text, MIB(1));
    assert_false(receipt_text(span_str("{\"torn\":"), &text, &err));
    assert_string_equal(err.text, "the receipt is not JSON");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(json_holds_what_was_done, make_dir, drop_dir),
        cmocka_unit_test_setup_teardown(text_is_for_people, make_dir, drop_dir),
        cmocka_unit_test_setup_teardown(files_are_private_and_their_hashes_in_the_audit_log,
                                        make_dir, drop_dir),
        cmocka_unit_test(nonsense_is_no_receipt),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
