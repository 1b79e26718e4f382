/* LSNs and binlog positions: parse, print, compare. */
#include "engine/model/binlogpos.h"

#include "tests/unit/kit.h"

static void test_lsn(void **state)
{
    static const struct {
        const char *text, *back;
        uint64_t lsn;
    } good[] = {
        {"0/0", "0/0", 0},
        {"16/B374D848", "16/B374D848", 0x16B374D848},
        {"16/b374d848", "16/B374D848", 0x16B374D848},
        {"00000016/0000000F", "16/F", 0x160000000F},
        {"FFFFFFFF/FFFFFFFF", "FFFFFFFF/FFFFFFFF", UINT64_MAX},
    };
    char out[LSN_TEXT];
    char long_out[POSITION_TEXT];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        uint64_t lsn = 1;
        Err err = ERR_INIT;

        assert_true(lsn_parse(span_str(good[i].text), &lsn, &err));
        assert_true(lsn == good[i].lsn);
        assert_string_equal(lsn_text(lsn, out), good[i].back);
        assert_string_equal(position_text(position_of_lsn(lsn), long_out), good[i].back);
    }
}

static void test_lsn_refused(void **state)
{
    static const char *const bad[] = {
        "",      "/",           "0",   "0/",          "/0",   "0/0 ", " 0/0", "0//0",       "0/0/0",
        "0x1/2", "000000000/1", "1/G", "1/000000000", "-1/2", "1/-2", "+1/2", "100000000/0"};
    uint64_t lsn;
    Err err = ERR_INIT;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char want[80];

        assert_false(lsn_parse(span_str(bad[i]), &lsn, &err));
        snprintf(want, sizeof(want), "\"%s\" is not an LSN", bad[i]);
        assert_string_equal(err.text, want);
        assert_string_equal(err.hint,
                            "an LSN looks like 16/B374D848, as printed by pg_current_wal_lsn()");
        assert_int_equal(err.kind, ERR_USAGE);
    }
    assert_false(lsn_parse(SPAN_NONE, &lsn, &err));
}

static void test_compare(void **state)
{
    static const Position rising[] = {{0, 0},
                                      {0, 1},
                                      {0, UINT64_MAX},
                                      {1, 0},
                                      {1, 1},
                                      {999999, 4},
                                      {1000000, 4},
                                      {1000000, (uint64_t)5 << 32},
                                      {UINT64_MAX, UINT64_MAX}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rising); i++)
        for (size_t k = 0; k < ARRAY_LEN(rising); k++)
            assert_int_equal(position_compare(rising[i], rising[k]), (i > k) - (i < k));
    assert_true(position_is_none(POSITION_NONE));
    assert_false(position_is_none(rising[1]));
    assert_false(position_is_none(rising[3]));
}

static void test_position_text(void **state)
{
    char out[POSITION_TEXT];

    (void)state;
    assert_string_equal(position_text((Position){42, 1234}, out), "42:1234");
    assert_string_equal(position_text((Position){UINT64_MAX, UINT64_MAX}, out),
                        "18446744073709551615:18446744073709551615");
}

static void test_binlog(void **state)
{
    static const struct {
        const char *text, *base, *back;
        uint64_t file, at;
    } good[] = {
        {"mysql-bin.000042:1234", "mysql-bin", "mysql-bin.000042:1234", 42, 1234},
        {"mysql-bin-changelog.999999:4", "mysql-bin-changelog", "mysql-bin-changelog.999999:4",
         999999, 4},
        {"mysql-bin-changelog.1000000:4", "mysql-bin-changelog", "mysql-bin-changelog.1000000:4",
         1000000, 4},
        {"a.b.c.000001:99", "a.b.c", "a.b.c.000001:99", 1, 99},
        {"b.1:4", "b", "b.000001:4", 1, 4},
        {"bin.000001:18446744073709551615", "bin", "bin.000001:18446744073709551615", 1,
         UINT64_MAX},
        {" bin.000001 : 77 ", "bin", "bin.000001:77", 1, 77},
        {"bin.000001 77", "bin", "bin.000001:77", 1, 77},
        {"bin.000001, 77", "bin", "bin.000001:77", 1, 77},
        {"./bin.000001:77", "bin", "bin.000001:77", 1, 77},
        {"/rdsdbdata/log/binlog/bin.000001:77", "bin", "bin.000001:77", 1, 77},
        {"we:ird.000001:77", "we:ird", "we:ird.000001:77", 1, 77},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        AUTO_BUF out;
        BinlogPos pos;
        Err err = ERR_INIT;

        buf_init(&out, 1024);
        if (!binlog_pos_parse(span_str(good[i].text), &pos, &err))
            fail_msg("%s", err.text);
        assert_true(span_is(pos.base, good[i].base));
        assert_true(pos.at.file == good[i].file && pos.at.at == good[i].at);
        binlog_pos_put(&pos, &out);
        assert_string_equal(buf_str(&out), good[i].back);
    }
}

static void test_binlog_refused(void **state)
{
    static const char *const bad[] = {"",
                                      ":",
                                      "bin",
                                      "bin.000001",
                                      "bin:4",
                                      ".000001:4",
                                      "bin.:4",
                                      "bin.x:4",
                                      "bin.1x:4",
                                      "bin.000001:",
                                      "bin.000001:x",
                                      "bin.000001:-4",
                                      "bin.0:4",
                                      "bin.000000:4",
                                      "bin.000001:18446744073709551616",
                                      "bin.18446744073709551616:4",
                                      "bi n.000001:4",
                                      "bin/.1:4",
                                      "bin.000001:4:5"};
    BinlogPos pos;
    Err err = ERR_INIT;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char want[128];

        if (binlog_pos_parse(span_str(bad[i]), &pos, &err))
            fail_msg("taken: %s", bad[i]);
        snprintf(want, sizeof(want), "\"%s\" is not a binlog position", bad[i]);
        assert_string_equal(err.text, want);
        assert_int_equal(err.kind, ERR_USAGE);
        assert_string_equal(
            err.hint,
            "a binlog position looks like mysql-bin.000042:1234, as printed by SHOW MASTER STATUS");
    }
    assert_false(binlog_pos_parse(SPAN_NONE, &pos, &err));
    assert_false(binlog_pos_parse(SPAN_LIT("bin.000001:3"), &pos, &err));
    assert_string_equal(err.text, "\"bin.000001:3\" is before the first event of a binlog");
    assert_string_equal(err.hint, "the first event of every binlog file is at 4");
}

static void test_binlog_base_is_bounded(void **state)
{
    char text[400];
    BinlogPos pos;
    Err err = ERR_INIT;

    (void)state;
    memset(text, 'x', sizeof(text));
    memcpy(text + BINLOG_BASE_MOST, ".000001:4", 9);
    assert_true(binlog_pos_parse(span_of(text, BINLOG_BASE_MOST + 9), &pos, &err));
    memset(text, 'x', sizeof(text));
    memcpy(text + BINLOG_BASE_MOST + 1, ".000001:4", 9);
    assert_false(binlog_pos_parse(span_of(text, BINLOG_BASE_MOST + 10), &pos, &err));
}

static void test_binlog_file(void **state)
{
    AUTO_BUF out;
    Span base;
    uint64_t number;
    Err err = ERR_INIT;

    (void)state;
    buf_init(&out, 1024);
    assert_true(binlog_file_parse(SPAN_LIT("mysql-bin.000009"), &base, &number, &err));
    assert_int_equal(number, 9);
    binlog_file_put(base, number + 1, &out);
    assert_string_equal(buf_str(&out), "mysql-bin.000010");
    assert_false(binlog_file_parse(SPAN_LIT("mysql-bin.index"), &base, &number, &err));
    assert_string_equal(err.text, "\"mysql-bin.index\" is not the name of a binlog file");
}

/* By number, because as text 999999 is behind 1000000. */
static void test_binlog_compare(void **state)
{
    static const char *const rising[] = {"b.000001:4",
                                         "b.000001:5",
                                         "b.000002:4",
                                         "b.999999:4",
                                         "b.999999:99",
                                         "b.1000000:4",
                                         "b.1000000:18446744073709551615",
                                         "b.10000000:4"};
    BinlogPos x, y;
    Err err = ERR_INIT;
    int order;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rising); i++)
        for (size_t k = 0; k < ARRAY_LEN(rising); k++) {
            assert_true(binlog_pos_parse(span_str(rising[i]), &x, &err));
            assert_true(binlog_pos_parse(span_str(rising[k]), &y, &err));
            assert_true(binlog_pos_compare(&x, &y, &order, &err));
            assert_int_equal(order, (i > k) - (i < k));
        }
    assert_true(binlog_pos_parse(SPAN_LIT("a.000001:4"), &x, &err));
    assert_true(binlog_pos_parse(SPAN_LIT("b.000001:4"), &y, &err));
    assert_false(binlog_pos_compare(&x, &y, &order, &err));
    assert_string_equal(
        err.text, "binlog files a and b are of different series: their positions have no order");
    assert_int_equal(err.kind, ERR_FAITHFUL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lsn),
        cmocka_unit_test(test_lsn_refused),
        cmocka_unit_test(test_compare),
        cmocka_unit_test(test_position_text),
        cmocka_unit_test(test_binlog),
        cmocka_unit_test(test_binlog_refused),
        cmocka_unit_test(test_binlog_base_is_bounded),
        cmocka_unit_test(test_binlog_file),
        cmocka_unit_test(test_binlog_compare),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
