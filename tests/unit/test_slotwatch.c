/* Answers about a slot go in; what is left of the source's room, and for how long, comes out. */
#include "engine/stream/slotwatch.h"

#include "engine/base/log.h"
#include "tests/unit/kit.h"

static void take(SlotWatch *w, const char *status, const char *retained, const char *safe,
                 uint64_t at_ms)
{
    SlotAnswer answer = {status, retained, safe};

    slotwatch_take(w, "kb", &answer, at_ms);
}

static void nothing_is_known_at_first(void **state)
{
    SlotWatch w = {0};
    AUTO_BUF json;

    (void)state;
    buf_init(&json, KIB(4));
    slotstate_put_json(&json, &w.now);
    assert_string_equal(buf_str(&json), "null");
    take(&w, NULL, NULL, NULL, 1000); /* the slot is gone */
    assert_false(w.now.known);
}

static void without_limits_nothing_ends(void **state)
{
    SlotWatch w = {0};
    AUTO_BUF json;

    (void)state;
    buf_init(&json, KIB(4));
    take(&w, "reserved", "1000000", NULL, 1000);
    take(&w, "reserved", "3000000", NULL, 21000);
    assert_true(w.now.known && !w.now.ends);
    assert_int_equal((int)w.now.retained_rate, 100000);
    slotstate_put_json(&json, &w.now);
    assert_string_equal(
        buf_str(&json),
        "{\"wal_status\":\"reserved\",\"retained_bytes\":3000000,\"safe_wal_bytes\":null,"
        "\"disk_free_bytes\":null,\"retained_bytes_per_s\":100000,\"minutes_left\":null}");
}

/* 100 kB a second with 60 MB to go: ten minutes. */
static void the_slots_limit(void **state)
{
    SlotWatch w = {0};

    (void)state;
    take(&w, "extended", "1000000", "62000000", 1000);
    assert_false(w.now.ends); /* no rate yet */
    take(&w, "extended", "1500000", "61500000", 6000);
    assert_false(w.now.ends); /* too short a time to tell */
    take(&w, "extended", "3000000", "60000000", 21000);
    assert_true(w.now.ends);
    assert_int_equal((int)w.now.minutes_left, 10);
    take(&w, "unreserved", "70000000", "-5", 26000);
    assert_int_equal(w.now.safe_left, 0);
    assert_true(w.now.ends && w.now.minutes_left == 0);
}

/* The disk counts from what the operator said at the start; the nearer limit decides. */
static void the_disk(void **state)
{
    SlotWatch w = {.disk_free = 32000000};

    (void)state;
    take(&w, "reserved", "1000000", NULL, 1000);
    assert_int_equal(w.now.disk_left, 32000000);
    take(&w, "reserved", "3000000", "600000000", 21000);
    assert_int_equal(w.now.disk_left, 30000000);
    assert_int_equal((int)w.now.minutes_left, 5);
    take(&w, "reserved", "500000", "600000000", 41000); /* confirmed meanwhile */
    assert_int_equal(w.now.disk_left, 32000000);
    assert_false(w.now.ends);
}

static void the_rate_is_of_the_last_minutes(void **state)
{
    SlotWatch w = {0};
    uint64_t at_ms = 1000;

    (void)state;
    take(&w, "reserved", "0", NULL, at_ms);
    for (int i = 0; i < 2 * SLOTWATCH_SAMPLES; i++)
        take(&w, "reserved", "900000000", NULL, at_ms += SLOTWATCH_MS);
    assert_int_equal((int)w.now.retained_rate, 0);
    assert_int_equal(w.count, SLOTWATCH_SAMPLES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_known_at_first),
        cmocka_unit_test(without_limits_nothing_ends),
        cmocka_unit_test(the_slots_limit),
        cmocka_unit_test(the_disk),
        cmocka_unit_test(the_rate_is_of_the_last_minutes),
    };

    log_setup(LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
