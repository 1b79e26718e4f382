/* Buffers: growing to their maximum and no further, integers, JSON strings. */
#include "engine/base/buf.h"

#include "tests/unit/kit.h"

static void test_grow(void **state)
{
    AUTO_BUF buf;
    Err err = ERR_INIT;

    (void)state;
    buf_init(&buf, 100000);
    assert_string_equal(buf_str(&buf), "");
    assert_int_equal(buf_span(&buf).len, 0);
    assert_non_null(buf_span(&buf).at);
    for (unsigned i = 0; i < 100000; i++)
        buf_putc(&buf, (char)('a' + i % 26));
    assert_true(buf_ok(&buf, "it", &err));
    assert_int_equal(buf.len, 100000);
    for (unsigned i = 0; i < 100000; i++)
        assert_int_equal(buf.at[i], 'a' + i % 26);
    assert_int_equal(strlen(buf_str(&buf)), 100000);
    assert_true(buf.room <= 100001);
}

static void test_overflow_is_sticky(void **state)
{
    AUTO_BUF buf;
    Err err = ERR_INIT;

    (void)state;
    buf_init(&buf, 5);
    buf_puts(&buf, "abc");
    buf_puts(&buf, "def"); /* nothing of it */
    assert_string_equal(buf_str(&buf), "abc");
    buf_putc(&buf, 'd'); /* would fit, but what is before is missing */
    assert_string_equal(buf_str(&buf), "abc");
    assert_null(buf_reserve(&buf, 0));
    assert_false(buf_ok(&buf, "the insert statement", &err));
    assert_string_equal(err.text, "the insert statement is larger than 5 bytes");
    assert_int_equal(err.kind, ERR_STATE);
    buf_clear(&buf);
    buf_puts(&buf, "abcde");
    assert_true(buf_ok(&buf, "it", &err));
    assert_string_equal(buf_str(&buf), "abcde");
    buf_printf(&buf, "%d", 1);
    assert_false(buf_ok(&buf, "it", &err));
    assert_null(buf_reserve(&buf, SIZE_MAX));
}

static void test_empty_maximum(void **state)
{
    AUTO_BUF buf;
    Err err = ERR_INIT;

    (void)state;
    buf_init(&buf, 0);
    buf_puts(&buf, "");
    assert_true(buf_ok(&buf, "it", &err));
    buf_putc(&buf, 'x');
    assert_false(buf_ok(&buf, "it", &err));
}

static void test_reserve(void **state)
{
    AUTO_BUF buf;
    uint8_t *to;

    (void)state;
    buf_init(&buf, 1000);
    to = buf_reserve(&buf, 1000);
    assert_non_null(to);
    memset(to, 'x', 1000);
    buf.len += 1000;
    assert_int_equal(strlen(buf_str(&buf)), 1000); /* the NUL has its own room */
}

static void test_integers(void **state)
{
    static const uint8_t want[] = {1, 1, 2, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8,
                                   2, 1, 4, 3, 2, 1, 8, 7, 6, 5, 4, 3, 2, 1};
    AUTO_BUF buf;

    (void)state;
    buf_init(&buf, 1000);
    buf_put_u8(&buf, 1);
    buf_put_u16be(&buf, 0x0102);
    buf_put_u32be(&buf, 0x01020304);
    buf_put_u64be(&buf, 0x0102030405060708);
    buf_put_u16le(&buf, 0x0102);
    buf_put_u32le(&buf, 0x01020304);
    buf_put_u64le(&buf, 0x0102030405060708);
    assert_int_equal(buf.len, sizeof(want));
    assert_memory_equal(buf.at, want, sizeof(want));
}

static void test_printf(void **state)
{
    AUTO_BUF buf;

    (void)state;
    buf_init(&buf, 100000);
    for (int i = 0; i < 1000; i++)
        buf_printf(&buf, "%d,", i);
    buf_put(&buf, NULL, 0);
    buf_put_span(&buf, SPAN_NONE);
    assert_memory_equal(buf_str(&buf), "0,1,2,3,4,5,6,7,8,9,10,", 23);
    assert_string_equal(buf_str(&buf) + buf.len - 8, "998,999,");
}

static void test_wipe(void **state)
{
    Buf buf;

    (void)state;
    buf_init(&buf, 100);
    buf_wipe(&buf);
    buf_puts(&buf, "secret");
    buf_wipe(&buf);
    assert_null(buf.at);
    assert_int_equal(buf.len, 0);
    buf_puts(&buf, "usable");
    assert_string_equal(buf_str(&buf), "usable");
    buf_fini(&buf);
    buf_fini(&buf);
}

static void test_json(void **state)
{
    static const struct {
        Span text;
        const char *json;
    } cases[] = {
        {SPAN_LIT(""), "\"\""},
        {{NULL, 0}, "\"\""},
        {SPAN_LIT("plain"), "\"plain\""},
        {SPAN_LIT("a\"b\\c"), "\"a\\\"b\\\\c\""},
        {SPAN_LIT("\b\f\n\r\t"), "\"\\b\\f\\n\\r\\t\""},
        {SPAN_LIT("\0\x01\x1f\x7f"), "\"\\u0000\\u0001\\u001f\\u007f\""},
        {SPAN_LIT("\x1b[31m"), "\"\\u001b[31m\""},
        {SPAN_LIT("gr\xC3\xBC\xC3\x9F"), "\"gr\xC3\xBC\xC3\x9F\""},
        {SPAN_LIT("\xE2\x82\xAC \xF0\x9F\x94\x91"), "\"\xE2\x82\xAC \xF0\x9F\x94\x91\""},
        {SPAN_LIT("\xF4\x8F\xBF\xBF"), "\"\xF4\x8F\xBF\xBF\""}, /* the last one */
        {SPAN_LIT("\xF4\x90\x80\x80"),
         "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""}, /* beyond it */
        {SPAN_LIT("a\xFFz"), "\"a\xEF\xBF\xBDz\""},
        {SPAN_LIT("\xC3"), "\"\xEF\xBF\xBD\""}, /* cut */
        {SPAN_LIT("\xE2\x82"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\""},
        {SPAN_LIT("\xC0\xAF"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\""}, /* overlong */
        {SPAN_LIT("\xE0\x80\xAF"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""},
        {SPAN_LIT("\xED\xA0\x80"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""}, /* surrogate */
        {SPAN_LIT("\xE2\x28\xA1"), "\"\xEF\xBF\xBD(\xEF\xBF\xBD\""},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint8_t *exact = kit_exact(cases[i].text);
        AUTO_BUF buf;

        buf_init(&buf, 1000);
        buf_put_json(&buf, span_of(exact, cases[i].text.len));
        assert_string_equal(buf_str(&buf), cases[i].json);
        free(exact);
    }
}

static void a_member_is_text_or_null(void **state)
{
    AUTO_BUF buf;

    (void)state;
    buf_init(&buf, 100);
    buf_put_member(&buf, "a", "x\"y");
    buf_putc(&buf, ',');
    buf_put_member(&buf, "b", NULL);
    assert_string_equal(buf_str(&buf), "\"a\":\"x\\\"y\",\"b\":null");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_member_is_text_or_null),
        cmocka_unit_test(test_grow),
        cmocka_unit_test(test_overflow_is_sticky),
        cmocka_unit_test(test_empty_maximum),
        cmocka_unit_test(test_reserve),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_printf),
        cmocka_unit_test(test_wipe),
        cmocka_unit_test(test_json),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
