/* GTID sets of MySQL and MariaDB: texts by hand, and the operations against a plain set of numbers.
 */
#include "engine/model/gtid.h"

#include "tests/unit/kit.h"

#define A "3e11fa47-71ca-11e1-9e33-c80aa9429562"
#define B "ffffffff-0000-0000-0000-00000000000b"

static void is_text(const GtidSet *set, const char *want)
{
    AUTO_BUF out;

    buf_init(&out, MIB(1));
    gtid_set_put(set, &out);
    assert_string_equal(buf_str(&out), want);
}

static GtidSet *parsed(GtidFlavor flavor, const char *text)
{
    Err err = ERR_INIT;
    GtidSet *set = gtid_set_parse(flavor, span_str(text), &err);

    if (!set)
        fail_msg("%s: %s", text, err.text);
    return set;
}

/* The text that shows where: 20 bytes before and behind. */
static void is_near(const char *got, const char *want, const char *text)
{
    const char *byte = strstr(want, "at byte ");
    size_t at = byte ? strtoul(byte + 8, NULL, 10) : 0;
    char whole[300];

    if (byte)
        snprintf(whole, sizeof(whole), "%s, near \"%.40s\"", want, text + (at > 20 ? at - 20 : 0));
    else
        snprintf(whole, sizeof(whole), "%s", want);
    assert_string_equal(got, whole);
}

static void test_parse(void **state)
{
    static const struct {
        GtidFlavor flavor;
        const char *text, *canonical;
        uint64_t count;
    } good[] = {
        {GTID_MYSQL, "", "", 0},
        {GTID_MYSQL, " \n", "", 0},
        {GTID_MYSQL, A ":1", A ":1", 1},
        {GTID_MYSQL, A ":1-5:7", A ":1-5:7", 6},
        {GTID_MYSQL, "3E11FA47-71CA-11E1-9E33-C80AA9429562:1-5", A ":1-5", 5},
        {GTID_MYSQL, "3e11fa4771ca11e19e33c80aa9429562:1-5", A ":1-5", 5},
        {GTID_MYSQL, A ":7:1-5:6", A ":1-7", 7},
        {GTID_MYSQL, A ":3-9:1-4:2:20-20", A ":1-9:20", 10},
        {GTID_MYSQL, B ":1,\n" A ":2,", A ":2," B ":1", 2},
        {GTID_MYSQL, A ":1," B ":1," A ":2", A ":1-2," B ":1", 3},
        {GTID_MYSQL, A ": 1 - 5 : 7 , " B " : 1", A ":1-5:7," B ":1", 7},
        {GTID_MYSQL, A ":1-9223372036854775806", A ":1-9223372036854775806",
         (uint64_t)INT64_MAX - 1},
        {GTID_MYSQL, A ":backup:1-3", A ":backup:1-3", 3},
        {GTID_MYSQL, A ":1-5:backup:1-3", A ":1-5:backup:1-3", 8},
        {GTID_MYSQL, A ":1-5:Backup:1-3:5:a_1:7:9", A ":1-5:a_1:7:9:backup:1-3:5", 11},
        {GTID_MYSQL, A ":tag:2," A ":tag:1:1", A ":tag:1-2", 2},
        {GTID_MYSQL, A ":_:1," B ":_:1", A ":_:1," B ":_:1", 2},
        {GTID_MYSQL, A ":a1234567890123456789012345678901:1",
         A ":a1234567890123456789012345678901:1", 1},
        {GTID_MARIADB, "", "", 0},
        {GTID_MARIADB, "0-1-270", "0-1-270", 1},
        {GTID_MARIADB, "7-2-3,0-1-270, 1-1-3", "0-1-270,1-1-3,7-2-3", 3},
        {GTID_MARIADB, "4294967295-4294967295-18446744073709551615",
         "4294967295-4294967295-18446744073709551615", 1},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        GtidSet *set = parsed(good[i].flavor, good[i].text);
        GtidSet *again = parsed(good[i].flavor, good[i].canonical);
        GtidSet *copy = gtid_set_copy(set);

        is_text(set, good[i].canonical);
        is_text(copy, good[i].canonical);
        assert_true(gtid_set_equal(set, again));
        assert_int_equal(gtid_set_compare(set, again), GTID_EQUAL);
        assert_true(gtid_set_count(set) == good[i].count);
        assert_int_equal(gtid_set_is_empty(set), good[i].count == 0);
        assert_int_equal(gtid_set_flavor(set), good[i].flavor);
        gtid_set_free(set);
        gtid_set_free(again);
        gtid_set_free(copy);
    }
    gtid_set_free(NULL);
}

static void test_refused(void **state)
{
    static const struct {
        GtidFlavor flavor;
        const char *text, *why;
    } bad[] = {
        {GTID_MYSQL, "x", "not a GTID set at byte 0: a server UUID is 8-4-4-4-12 hex digits"},
        {GTID_MYSQL, ",", "not a GTID set at byte 0: a server UUID is 8-4-4-4-12 hex digits"},
        {GTID_MYSQL, "3e11fa47-71ca-11e19e33-c80aa9429562:1",
         "not a GTID set at byte 18: a server UUID is 8-4-4-4-12 hex digits"},
        {GTID_MYSQL, A, "not a GTID set at byte 36: a colon is missing"},
        {GTID_MYSQL, A ":", "not a GTID set at byte 37: a number is missing"},
        {GTID_MYSQL, A ":0", "not a GTID set at byte 38: a number is out of range"},
        {GTID_MYSQL, A ":1-", "not a GTID set at byte 39: a number is missing"},
        {GTID_MYSQL, A ":5-3", "not a GTID set at byte 40: a range ends before it begins"},
        {GTID_MYSQL, A ":1-9223372036854775807",
         "not a GTID set at byte 58: a number is out of range"},
        {GTID_MYSQL, A ":18446744073709551616", "not a GTID set at byte 56: a number is too large"},
        {GTID_MYSQL, A ":1;", "not a GTID set at byte 38: a comma is missing"},
        {GTID_MYSQL, A ":tag", "not a GTID set at byte 40: a tag has no range"},
        {GTID_MYSQL, A ":tag:", "not a GTID set at byte 41: a number is missing"},
        {GTID_MYSQL, A ":tag:tug:1", "not a GTID set at byte 41: a number is missing"},
        {GTID_MYSQL, A ":a12345678901234567890123456789012:1",
         "not a GTID set at byte 69: a tag has 32 characters at most"},
        {GTID_MARIADB, "0-1", "not a GTID position at byte 3: a dash is missing"},
        {GTID_MARIADB, "0-1-", "not a GTID position at byte 4: a number is missing"},
        {GTID_MARIADB, "4294967296-1-1",
         "not a GTID position at byte 10: a number is out of range"},
        {GTID_MARIADB, "0-4294967296-1",
         "not a GTID position at byte 12: a number is out of range"},
        {GTID_MARIADB, "0-1-18446744073709551616",
         "not a GTID position at byte 23: a number is too large"},
        {GTID_MARIADB, "0-1-1 0-2-2", "not a GTID position at byte 6: a comma is missing"},
        {GTID_MARIADB, "0-1-1,0-2-2", "not a GTID position: domain 0 is there twice"},
        {GTID_MARIADB, A ":1", "not a GTID position at byte 1: a dash is missing"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        Err err = ERR_INIT;

        assert_null(gtid_set_parse(bad[i].flavor, span_str(bad[i].text), &err));
        is_near(err.text, bad[i].why, bad[i].text);
        assert_int_equal(err.kind, ERR_USAGE);
        assert_true(err.hint[0] != '\0');
    }
}

/* Hostile texts: bounded in size, and no quadratic time for what is out of order. */
static void test_hostile(void **state)
{
    AUTO_BUF text;
    Err err = ERR_INIT;
    GtidSet *set;
    uint8_t *block;

    (void)state;
    buf_init(&text, GTID_TEXT_MOST + 1);
    buf_puts(&text, A);
    for (unsigned i = 200000; i > 0; i--)
        buf_printf(&text, ":%u", i * 2);
    for (unsigned i = 20000; i > 0; i--)
        buf_printf(&text, ",%032x:1", i);
    set = gtid_set_parse(GTID_MYSQL, buf_span(&text), &err);
    assert_non_null(set);
    assert_int_equal(gtid_set_count(set), 220000);
    gtid_set_free(set);
    memset(buf_reserve(&text, GTID_TEXT_MOST + 1 - text.len), '1', GTID_TEXT_MOST + 1 - text.len);
    block = malloc(GTID_TEXT_MOST + 1);
    assert_non_null(block);
    memset(block, '1', GTID_TEXT_MOST + 1);
    assert_null(gtid_set_parse(GTID_MYSQL, span_of(block, GTID_TEXT_MOST + 1), &err));
    assert_string_equal(err.text, "a GTID set of 16777217 bytes: 16777216 are the most");
    free(block);
}

static void test_count_is_bounded(void **state)
{
    GtidSet *set = parsed(GTID_MYSQL, A
                          ":1-9223372036854775806:a:1-9223372036854775806:b:1-9223372036854775806");

    (void)state;
    assert_true(gtid_set_count(set) == UINT64_MAX);
    gtid_set_free(set);
}

static void test_one(void **state)
{
    static const struct {
        GtidFlavor flavor;
        const char *text, *back;
    } good[] = {
        {GTID_MYSQL, A ":5", A ":5"},
        {GTID_MYSQL, A ":Tag:9223372036854775806", A ":tag:9223372036854775806"},
        {GTID_MARIADB, "0-1-270", "0-1-270"},
        {GTID_MARIADB, "4294967295-4294967295-18446744073709551615",
         "4294967295-4294967295-18446744073709551615"},
    };
    static const struct {
        GtidFlavor flavor;
        const char *text, *why;
    } bad[] = {
        {GTID_MYSQL, A ":5-6", "not a GTID at byte 38: more than one transaction"},
        {GTID_MYSQL, A ":5:6", "not a GTID at byte 38: more than one transaction"},
        {GTID_MYSQL, A, "not a GTID at byte 36: a colon is missing"},
        {GTID_MYSQL, A ":t", "not a GTID at byte 38: a tag has no number"},
        {GTID_MYSQL, "", "not a GTID at byte 0: a server UUID is 8-4-4-4-12 hex digits"},
        {GTID_MARIADB, "0-1-270,1-1-1", "not a GTID at byte 7: more than one transaction"},
        {GTID_MARIADB, "", "not a GTID at byte 0: a number is missing"},
    };
    char out[GTID_TEXT];
    Gtid gtid;
    Err err = ERR_INIT;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_true(gtid_parse(good[i].flavor, span_str(good[i].text), &gtid, &err));
        assert_string_equal(gtid_text(&gtid, out), good[i].back);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_false(gtid_parse(bad[i].flavor, span_str(bad[i].text), &gtid, &err));
        is_near(err.text, bad[i].why, bad[i].text);
    }
}

static void test_operations(void **state)
{
    static const struct {
        GtidFlavor flavor;
        const char *a, *b, *together, *less;
        GtidOrder order;
        bool overlaps;
    } cases[] = {
        {GTID_MYSQL, "", "", "", "", GTID_EQUAL, false},
        {GTID_MYSQL, A ":1-5", "", A ":1-5", A ":1-5", GTID_AFTER, false},
        {GTID_MYSQL, "", A ":1-5", A ":1-5", "", GTID_BEFORE, false},
        {GTID_MYSQL, A ":1-5", A ":2-3", A ":1-5", A ":1:4-5", GTID_AFTER, true},
        {GTID_MYSQL, A ":1-5", A ":6-9", A ":1-9", A ":1-5", GTID_APART, false},
        {GTID_MYSQL, A ":1-5:9", A ":5-9", A ":1-9", A ":1-4", GTID_APART, true},
        {GTID_MYSQL, A ":1-5", B ":1-5", A ":1-5," B ":1-5", A ":1-5", GTID_APART, false},
        {GTID_MYSQL, A ":1-5", A ":t:1-5", A ":1-5:t:1-5", A ":1-5", GTID_APART, false},
        {GTID_MYSQL, A ":1-5:t:1-9," B ":1", A ":t:2:4:6", A ":1-5:t:1-9," B ":1",
         A ":1-5:t:1:3:5:7-9," B ":1", GTID_AFTER, true},
        {GTID_MYSQL, A ":1-3:7-9", A ":1-9", A ":1-9", "", GTID_BEFORE, true},
        {GTID_MARIADB, "0-1-5", "0-1-5", "0-1-5", "", GTID_EQUAL, true},
        {GTID_MARIADB, "0-1-5", "0-2-7", "0-2-7", "", GTID_BEFORE, true},
        {GTID_MARIADB, "0-1-5,1-1-1", "0-2-4", "0-1-5,1-1-1", "0-1-5,1-1-1", GTID_AFTER, true},
        {GTID_MARIADB, "0-1-5,1-1-1", "0-1-5,2-1-1", "0-1-5,1-1-1,2-1-1", "1-1-1", GTID_APART,
         true},
        {GTID_MARIADB, "3-1-5", "1-1-5", "1-1-5,3-1-5", "3-1-5", GTID_APART, false},
        {GTID_MARIADB, "", "1-1-5", "1-1-5", "", GTID_BEFORE, false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        GtidSet *a = parsed(cases[i].flavor, cases[i].a);
        GtidSet *b = parsed(cases[i].flavor, cases[i].b);
        GtidSet *together = gtid_set_copy(a);
        GtidSet *less = gtid_set_copy(a);

        assert_int_equal(gtid_set_compare(a, b), cases[i].order);
        assert_int_equal(gtid_set_overlaps(a, b), cases[i].overlaps);
        assert_int_equal(gtid_set_overlaps(b, a), cases[i].overlaps);
        gtid_set_union(together, b);
        is_text(together, cases[i].together);
        gtid_set_union(together, together);
        is_text(together, cases[i].together);
        gtid_set_subtract(less, b);
        is_text(less, cases[i].less);
        gtid_set_subtract(less, less);
        is_text(less, "");
        gtid_set_free(a);
        gtid_set_free(b);
        gtid_set_free(together);
        gtid_set_free(less);
    }
}

static void test_mariadb_add(void **state)
{
    GtidSet *set = gtid_set_new(GTID_MARIADB);
    Gtid gtid = {.flavor = GTID_MARIADB, .domain = 3, .server = 1, .number = 10};

    (void)state;
    assert_false(gtid_set_has(set, &gtid));
    gtid_set_add(set, &gtid);
    assert_true(gtid_set_has(set, &gtid));
    gtid.number = 9;
    assert_true(gtid_set_has(set, &gtid)); /* before the last of its domain */
    gtid_set_add(set, &gtid);
    is_text(set, "3-1-10");
    gtid.number = 11;
    gtid.server = 2;
    assert_false(gtid_set_has(set, &gtid));
    gtid_set_add(set, &gtid);
    gtid.domain = 1;
    gtid_set_add(set, &gtid);
    is_text(set, "1-2-11,3-2-11");
    gtid_set_free(set);
}

/* Against a model: 6 sources (3 servers, with and without tag) of 64 numbers each, a bit each. */

enum { SOURCES = 6, NUMBERS = 64 };
typedef struct Model {
    uint64_t bits[SOURCES];
} Model;

static uint64_t random_state = 0x9E3779B97F4A7C15u;

static uint64_t random_u64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static Gtid model_gtid(unsigned source, unsigned number)
{
    Gtid gtid = {.flavor = GTID_MYSQL, .number = number + 1};

    memset(gtid.uuid, (int)(source / 2 * 7), sizeof(gtid.uuid));
    if (source % 2)
        memcpy(gtid.tag, "tag", 4);
    return gtid;
}

static Model model_random(void)
{
    Model m;

    for (unsigned i = 0; i < SOURCES; i++) {
        m.bits[i] = random_u64();
        for (uint64_t k = random_u64() % 4; k; k--)
            m.bits[i] &= random_u64();
        if (random_u64() % 4 == 0)
            m.bits[i] |= ((uint64_t)1 << random_u64() % 60) - 1;
        if (random_u64() % 4 == 0)
            m.bits[i] = 0;
    }
    return m;
}

static Model model_of(const GtidSet *set)
{
    Model m = {0};

    for (unsigned i = 0; i < SOURCES; i++)
        for (unsigned n = 0; n < NUMBERS; n++) {
            Gtid gtid = model_gtid(i, n);

            m.bits[i] |= (uint64_t)gtid_set_has(set, &gtid) << n;
        }
    return m;
}

/* Added one by one, in some order. */
static GtidSet *set_of(const Model *m)
{
    GtidSet *set = gtid_set_new(GTID_MYSQL);
    unsigned step = (unsigned)(random_u64() % (SOURCES * NUMBERS)) | 1;

    while (step % 3 == 0)
        step += 2;
    for (unsigned k = 0; k < SOURCES * NUMBERS; k++) {
        unsigned at = k * step % (SOURCES * NUMBERS);
        Gtid gtid = model_gtid(at / NUMBERS, at % NUMBERS);

        if (m->bits[at / NUMBERS] >> (at % NUMBERS) & 1)
            gtid_set_add(set, &gtid);
    }
    return set;
}

/* As scrambled text, with numbers twice and ranges that overlap. */
static GtidSet *set_from_text(const Model *m)
{
    AUTO_BUF text;
    GtidSet *set;
    Err err = ERR_INIT;

    buf_init(&text, MIB(1));
    for (unsigned k = 0; k < SOURCES * NUMBERS; k++) {
        unsigned at = k * 151 % (SOURCES * NUMBERS);
        unsigned source = at / NUMBERS, n = at % NUMBERS, last = n;
        Gtid gtid = model_gtid(source, n);
        char one[GTID_TEXT];

        if (!(m->bits[source] >> n & 1))
            continue;
        while (last + 1 < NUMBERS && m->bits[source] >> (last + 1) & 1 && random_u64() % 3)
            last++;
        buf_printf(&text, "%s-%u, ", gtid_text(&gtid, one), last + 1);
    }
    set = gtid_set_parse(GTID_MYSQL, buf_span(&text), &err);
    if (!set)
        fail_msg("%s", err.text);
    return set;
}

static void same_text(const GtidSet *a, const GtidSet *b)
{
    AUTO_BUF x;

    buf_init(&x, MIB(1));
    gtid_set_put(a, &x);
    is_text(b, buf_str(&x));
}

static void is_model(const GtidSet *set, const Model *m)
{
    Model got = model_of(set);
    GtidSet *by_adding = set_of(m);

    assert_memory_equal(&got, m, sizeof(got));
    same_text(set, by_adding);
    gtid_set_free(by_adding);
}

static GtidOrder model_compare(const Model *a, const Model *b)
{
    uint64_t more = 0, less = 0;

    for (unsigned i = 0; i < SOURCES; i++) {
        more |= a->bits[i] & ~b->bits[i];
        less |= b->bits[i] & ~a->bits[i];
    }
    return more ? less ? GTID_APART : GTID_AFTER : less ? GTID_BEFORE : GTID_EQUAL;
}

static void check_pair(const Model *a, const Model *b)
{
    Model both = *a, rest = *a;
    bool overlaps = false;
    GtidSet *x = set_from_text(a), *y = set_from_text(b), *u = gtid_set_copy(x),
            *s = gtid_set_copy(x);

    for (unsigned i = 0; i < SOURCES; i++) {
        overlaps |= (a->bits[i] & b->bits[i]) != 0;
        both.bits[i] |= b->bits[i];
        rest.bits[i] &= ~b->bits[i];
    }
    is_model(x, a);
    assert_int_equal(gtid_set_compare(x, y), model_compare(a, b));
    assert_int_equal(gtid_set_overlaps(x, y), overlaps);
    gtid_set_union(u, y);
    is_model(u, &both);
    assert_true(gtid_set_contains(u, x) && gtid_set_contains(u, y));
    gtid_set_subtract(s, y);
    is_model(s, &rest);
    gtid_set_free(x);
    gtid_set_free(y);
    gtid_set_free(u);
    gtid_set_free(s);
}

static void test_model(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 300; round++) {
        Model a = model_random(), b = model_random();

        if (round % 3 == 1) /* make containment likely */
            for (unsigned i = 0; i < SOURCES; i++)
                b.bits[i] &= a.bits[i];
        if (round % 3 == 2)
            b = a;
        check_pair(&a, &b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_one),
        cmocka_unit_test(test_count_is_bounded),
        cmocka_unit_test(test_operations),
        cmocka_unit_test(test_mariadb_add),
        cmocka_unit_test(test_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
