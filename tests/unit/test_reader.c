/* The reader that can't overread: values, sticky failure, and the exact texts. Spans too, which it
 * gives. */
#include "engine/base/reader.h"

#include "tests/unit/kit.h"

static void test_integers(void **state)
{
    static const uint8_t bytes[] = {1, 1, 2, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8,
                                    2, 1, 4, 3, 2, 1, 8, 7, 6, 5, 4, 3, 2, 1};
    Reader r = reader_of(span_of(bytes, sizeof(bytes)));
    Err err = ERR_INIT;

    (void)state;
    assert_int_equal(reader_left(&r), sizeof(bytes));
    assert_int_equal(reader_u8(&r, "a"), 1);
    assert_int_equal(reader_u16be(&r, "b"), 0x0102);
    assert_int_equal(reader_u32be(&r, "c"), 0x01020304);
    assert_true(reader_u64be(&r, "d") == 0x0102030405060708);
    assert_int_equal(reader_u16le(&r, "e"), 0x0102);
    assert_int_equal(reader_u32le(&r, "f"), 0x01020304);
    assert_true(reader_u64le(&r, "g") == 0x0102030405060708);
    assert_int_equal(reader_left(&r), 0);
    assert_true(reader_finish(&r, "m", &err));
}

/* One way to read more than is there, each. */
static void test_does_not_fit(void **state)
{
    (void)state;
    for (int what = 0; what < 10; what++) {
        static const size_t sizes[] = {0, 1, 3, 7, 1, 3, 7, 4, 4, 3};
        static const char *const texts[] = {
            "m: f does not fit at byte 0 of 0", "m: f does not fit at byte 0 of 1",
            "m: f does not fit at byte 0 of 3", "m: f does not fit at byte 0 of 7",
            "m: f does not fit at byte 0 of 1", "m: f does not fit at byte 0 of 3",
            "m: f does not fit at byte 0 of 7", "m: f does not fit at byte 0 of 4",
            "m: f does not fit at byte 0 of 4", "m: f does not fit at byte 0 of 3"};
        uint8_t *block = kit_exact(span_of("xxxxxxxxx", sizes[what]));
        Reader r = reader_of(span_of(block, sizes[what]));
        Err err = ERR_INIT;
        uint64_t got = 0;

        switch (what) {
        case 0:
            got = reader_u8(&r, "f");
            break;
        case 1:
            got = reader_u16be(&r, "f");
            break;
        case 2:
            got = reader_u32be(&r, "f");
            break;
        case 3:
            got = reader_u64be(&r, "f");
            break;
        case 4:
            got = reader_u16le(&r, "f");
            break;
        case 5:
            got = reader_u32le(&r, "f");
            break;
        case 6:
            got = reader_u64le(&r, "f");
            break;
        case 7:
            assert_null(reader_span(&r, 5, "f").at);
            break;
        case 8:
            assert_null(reader_span(&r, SIZE_MAX, "f").at);
            break;
        default:
            assert_null(reader_str(&r, "f").at); /* no NUL */
            break;
        }
        assert_true(got == 0);
        assert_false(reader_finish(&r, "m", &err));
        assert_string_equal(err.text, texts[what]);
        assert_int_equal(err.kind, ERR_PROTOCOL);
        free(block);
    }
}

static void test_failure_is_sticky(void **state)
{
    Reader r = reader_of(SPAN_LIT("\1\2\3"));
    Reader sub;
    Err err = ERR_INIT;

    (void)state;
    assert_int_equal(reader_u8(&r, "first"), 1);
    assert_int_equal(reader_u32be(&r, "second"), 0);
    assert_int_equal(reader_left(&r), 0);
    assert_int_equal(reader_u8(&r, "third"), 0); /* there, but behind what failed */
    assert_null(reader_str(&r, "fourth").at);
    assert_int_equal(reader_count(&r, 1, 1, "fifth"), 0);
    sub = reader_sub(&r, 0, "sixth");
    assert_int_equal(reader_u8(&sub, "inner"), 0);
    assert_false(reader_finish(&sub, "sub", &err));
    reader_break(&r, "seventh", "isn't asked any more");
    assert_false(reader_finish(&r, "BEGIN", &err));
    assert_string_equal(err.text, "BEGIN: second does not fit at byte 1 of 3");
}

static void test_break_with_a_reason(void **state)
{
    Reader r = reader_of(SPAN_LIT("\1\2\3"));
    Err err = ERR_INIT;

    (void)state;
    (void)reader_u8(&r, "kind");
    reader_break(&r, "kind", "is none of n, u, t, b");
    assert_false(reader_finish(&r, "INSERT", &err));
    assert_string_equal(err.text, "INSERT: kind at byte 1 of 3: is none of n, u, t, b");
}

static void test_left_over(void **state)
{
    Reader r = reader_of(SPAN_LIT("\1\2\3"));
    Err err = ERR_INIT;

    (void)state;
    (void)reader_u8(&r, "kind");
    assert_false(reader_finish(&r, "INSERT", &err));
    assert_string_equal(err.text, "INSERT: 2 bytes left over at byte 1 of 3");
}

static void test_nothing(void **state)
{
    Reader r = reader_of(SPAN_NONE);
    Err err = ERR_INIT;

    (void)state;
    assert_int_equal(reader_left(&r), 0);
    assert_true(reader_finish(&r, "m", &err));
    assert_int_equal(reader_span(&r, 0, "empty").len, 0);
    assert_true(reader_finish(&r, "m", &err));
    assert_null(reader_str(&r, "s").at);
    assert_false(reader_finish(&r, "m", &err));
}

static void test_str(void **state)
{
    Reader r = reader_of(span_of("ab\0\0c\0", 6));
    Err err = ERR_INIT;
    Span empty;

    (void)state;
    assert_true(span_is(reader_str(&r, "a"), "ab"));
    empty = reader_str(&r, "b");
    assert_non_null(empty.at);
    assert_int_equal(empty.len, 0);
    assert_true(span_is(reader_str(&r, "c"), "c"));
    assert_true(reader_finish(&r, "m", &err));
}

static void test_count(void **state)
{
    static const struct {
        size_t claimed, least, got;
    } cases[] = {{0, 4, 0},
                 {2, 4, 2},
                 {3, 3, 0},
                 {2, 3, 2},
                 {3, 4, 0},
                 {9, 1, 0},
                 {8, 1, 8},
                 {8, 0, 8},
                 {9, 0, 0},
                 {SIZE_MAX, 8, 0},
                 {SIZE_MAX, SIZE_MAX, 0},
                 {1, SIZE_MAX, 0},
                 {0xFFFFFFFF, 1, 0}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        Reader r = reader_of(SPAN_LIT("12345678"));
        Err err = ERR_INIT;

        assert_true(reader_count(&r, cases[i].claimed, cases[i].least, "count") == cases[i].got);
        if (cases[i].got == 0 && cases[i].claimed) {
            assert_false(reader_finish(&r, "m", &err));
            assert_string_equal(err.text,
                                "m: count at byte 0 of 8: more than the message can hold");
        }
    }
}

static void test_sub(void **state)
{
    Reader r = reader_of(SPAN_LIT("abcdef"));
    Reader sub = reader_sub(&r, 2, "body");
    Err err = ERR_INIT;

    (void)state;
    assert_int_equal(reader_u8(&sub, "x"), 'a');
    assert_int_equal(reader_u16be(&sub, "y"), 0); /* stops at its own end */
    assert_false(reader_finish(&sub, "sub", &err));
    assert_string_equal(err.text, "sub: y does not fit at byte 1 of 2");
    assert_int_equal(reader_left(&r), 4);
    sub = reader_sub(&r, 5, "next");
    assert_false(reader_finish(&sub, "sub", &err));
    assert_string_equal(err.text, "sub: next does not fit at byte 0 of 0");
    assert_false(reader_finish(&r, "m", &err));
    assert_string_equal(err.text, "m: next does not fit at byte 2 of 6");
}

static void test_spans(void **state)
{
    static const char *const rising[] = {"", "A", "AA", "AB", "B", "a", "\xFF"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rising); i++)
        for (size_t k = 0; k < ARRAY_LEN(rising); k++) {
            int order = span_compare(span_str(rising[i]), span_str(rising[k]));

            assert_int_equal((order > 0) - (order < 0), (i > k) - (i < k));
            assert_int_equal(span_equal(span_str(rising[i]), span_str(rising[k])), i == k);
        }
    assert_true(span_equal(SPAN_NONE, span_of("", 0)));
    assert_null(span_str(NULL).at);
    assert_true(span_starts(SPAN_LIT("abc"), "ab"));
    assert_true(span_starts(SPAN_LIT("abc"), ""));
    assert_false(span_starts(SPAN_LIT("a"), "ab"));
    assert_true(span_is(SPAN_LIT("abc"), "abc"));
    assert_false(span_is(SPAN_LIT("abc"), "ab"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers),  cmocka_unit_test(test_does_not_fit),
        cmocka_unit_test(test_left_over), cmocka_unit_test(test_failure_is_sticky),
        cmocka_unit_test(test_nothing),   cmocka_unit_test(test_break_with_a_reason),
        cmocka_unit_test(test_str),       cmocka_unit_test(test_count),
        cmocka_unit_test(test_sub),       cmocka_unit_test(test_spans),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
