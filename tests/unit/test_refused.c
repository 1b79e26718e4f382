#include "engine/move/refused.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define LINE(time, who) \
    time " UTC:" who ":[77]:FATAL:  database \"shop\" is not currently accepting connections\n"

static void lines_are_counted_by_who(void **state)
{
    static const char text[] = LINE("2026-11-24 14:02:35", "10.0.0.1(1):app@shop") LINE(
        "2026-11-24 14:02:36", "10.0.0.1(1):app@shop")
        LINE("2026-11-24 14:02:37", "10.0.0.2(2):job@shop") "2026-11-24 14:02:37 UTC:10.0.0.1(3):app@shop:[78]:LOG:  something else\n" LINE(
            "2026-11-24 14:02:38", "10.0.0.1(9):app@shop") "torn line without an end";
    uint64_t count;
    AUTO_BUF who;

    (void)state;
    buf_init(&who, 4096);
    refused_of_log(span_str(text), "2026-11-24 14:02:36", &count, &who);
    assert_int_equal(count, 3);
    assert_string_equal(buf_str(&who), "2 x app@shop from 10.0.0.1; 1 x job@shop from 10.0.0.2");
}

static void odd_lines_do_no_harm(void **state)
{
    static const char *const texts[] = {
        "",
        "\n\n",
        "is not currently accepting connections",
        "2026-11-24 14:02:37 UTC is not currently accepting connections",
        "2026-11-24 14:02:37 UTC:host:is not currently accepting connections",
        "2026-11-24 14:02:37 UTC:10.0.0.1(1):app is not currently accepting connections",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        size_t len = strlen(texts[i]);
        char *copy = malloc(len + 1);
        uint64_t count;
        AUTO_BUF who;

        memcpy(copy, texts[i], len);
        buf_init(&who, 4096);
        refused_of_log(span_of(copy, len), "2026-11-24 14:02:36", &count, &who);
        assert_true(count <= 1);
        assert_int_equal(who.len, 0);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_counted_by_who),
        cmocka_unit_test(odd_lines_do_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
