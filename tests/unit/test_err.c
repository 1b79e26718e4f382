/* Errors: the exact texts, because they are the interface to operators. */
#include "engine/base/err.h"

#include <errno.h>

#include "tests/unit/kit.h"

static void test_fail(void **state)
{
    Err err = ERR_INIT;

    (void)state;
    assert_false(err_is_set(&err));
    assert_false(err_fail(&err, ERR_SOURCE, "slot %s is gone", "s"));
    assert_true(err_is_set(&err));
    assert_string_equal(err.text, "slot s is gone");
    assert_int_equal(err.kind, ERR_SOURCE);
    assert_false(err.transient);
    assert_string_equal(err.code, "");
    assert_string_equal(err.hint, "");
    assert_non_null(strstr(err.file, "test_err.c"));
    assert_true(err.line > 0);
}

static void test_enrich(void **state)
{
    Err err = ERR_INIT;

    (void)state;
    (void)err_fail(&err, ERR_TARGET, "duplicate key");
    assert_false(err_code(&err, "23505"));
    assert_false(err_transient(&err));
    assert_false(err_hint(&err, "look at %s", "the table"));
    assert_false(err_context(&err, "public.%s", "orders"));
    assert_false(err_context(&err, "transaction %u", 7u));
    assert_string_equal(err.text, "transaction 7: public.orders: duplicate key");
    assert_string_equal(err.code, "23505");
    assert_string_equal(err.hint, "look at the table");
    assert_true(err.transient);
    (void)err_fail(&err, ERR_SYSTEM, "another"); /* nothing of the first stays */
    assert_string_equal(err.code, "");
    assert_string_equal(err.hint, "");
    assert_false(err.transient);
    err_clear(&err);
    assert_false(err_is_set(&err));
    assert_string_equal(err.text, "");
}

/* A new error that says the old one. */
static void test_own_text(void **state)
{
    Err err = ERR_INIT;

    (void)state;
    (void)err_fail(&err, ERR_SOURCE, "first");
    (void)err_fail(&err, ERR_STATE, "second after %s", err.text);
    assert_string_equal(err.text, "second after first");
}

static void test_errno(void **state)
{
    Err err = ERR_INIT;

    (void)state;
    errno = ENOSPC;
    assert_false(err_errno(&err, ERR_SYSTEM, "writing %s", "/spool/1"));
    assert_string_equal(err.text, "writing /spool/1: No space left on device");
    assert_string_equal(err.code, "ENOSPC");
    errno = 9999;
    (void)err_errno(&err, ERR_SYSTEM, "writing");
    assert_string_equal(err.text, "writing: Unknown error 9999");
    assert_string_equal(err.code, "");
}

/* What doesn't fit is cut where one can see it, and the cause wins over the context. */
static void test_long(void **state)
{
    char text[2000];
    Err err = ERR_INIT;

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    (void)err_fail(&err, ERR_SOURCE, "%s", text);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_string_equal(err.text + sizeof(err.text) - 5, "x...");
    (void)err_hint(&err, "%s", text);
    assert_int_equal(strlen(err.hint), sizeof(err.hint) - 1);
    assert_string_equal(err.hint + sizeof(err.hint) - 5, "x...");
    (void)err_code(&err, text);
    assert_int_equal(strlen(err.code), sizeof(err.code) - 1);
    (void)err_context(&err, "reading");
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_memory_equal(err.text, "reading: xxx", 12);
    assert_string_equal(err.text + sizeof(err.text) - 5, "x...");
    (void)err_fail(&err, ERR_SOURCE, "the cause");
    (void)err_context(&err, "%s", text);
    assert_string_equal(err.text, "the cause");
}

/* Just fits, fits not by one. */
static void test_edges(void **state)
{
    char text[sizeof(((Err *)0)->text) + 1];
    Err err = ERR_INIT;

    (void)state;
    memset(text, 'x', sizeof(text));
    text[sizeof(err.text) - 1] = '\0';
    (void)err_fail(&err, ERR_SOURCE, "%s", text);
    assert_string_equal(err.text, text);
    text[sizeof(err.text) - 1] = 'x';
    text[sizeof(err.text)] = '\0';
    (void)err_fail(&err, ERR_SOURCE, "%s", text);
    assert_string_equal(err.text + sizeof(err.text) - 5, "x...");
    text[sizeof(err.text) - 1 - 3] = '\0';
    (void)err_fail(&err, ERR_SOURCE, "%s", text);
    (void)err_context(&err, "a");
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_string_equal(err.text + sizeof(err.text) - 5, "xxxx");
}

static void test_kinds(void **state)
{
    static const struct {
        ErrKind kind;
        const char *name;
        int exit_code;
    } kinds[] = {
        {ERR_NONE, "none", 0},           {ERR_USAGE, "usage", 2},     {ERR_CONFIG, "config", 2},
        {ERR_DIFFERENT, "different", 1}, {ERR_TIMEOUT, "timeout", 3}, {ERR_SOURCE, "source", 4},
        {ERR_TARGET, "target", 5},       {ERR_AWS, "aws", 6},         {ERR_PROTOCOL, "protocol", 7},
        {ERR_FAITHFUL, "faithful", 7},   {ERR_STATE, "state", 7},     {ERR_SYSTEM, "system", 71},
        {ERR_STOPPED, "stopped", 130},   {ERR_BUG, "bug", 70},
    };

    (void)state;
    assert_int_equal(ARRAY_LEN(kinds), ERR_KINDS);
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        assert_int_equal(kinds[i].kind, i);
        assert_string_equal(err_kind_name(kinds[i].kind), kinds[i].name);
        assert_int_equal(err_exit_code(kinds[i].kind), kinds[i].exit_code);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fail),     cmocka_unit_test(test_enrich),
        cmocka_unit_test(test_own_text), cmocka_unit_test(test_errno),
        cmocka_unit_test(test_long),     cmocka_unit_test(test_edges),
        cmocka_unit_test(test_kinds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
