/* Time: durations never go back, and wall time prints as RFC 3339. */
#include "engine/base/mono.h"

#include <time.h>

#include "tests/unit/kit.h"

static void test_mono(void **state)
{
    uint64_t before = mono_us();

    (void)state;
    for (int i = 0; i < 1000; i++) {
        uint64_t now = mono_us();

        assert_true(now >= before);
        before = now;
    }
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    assert_true(mono_us() - before >= 5000);
    assert_true(mono_ms() <= mono_us() / 1000);
}

static void test_wall(void **state)
{
    uint64_t now = wall_us() / 1000000;

    (void)state;
    assert_true(now >= (uint64_t)time(NULL) - 2 && now <= (uint64_t)time(NULL) + 2);
}

static void test_text(void **state)
{
    static const struct {
        uint64_t us;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {999, "1970-01-01T00:00:00.000Z"},
        {1000, "1970-01-01T00:00:00.001Z"},
        {1795522671042999, "2026-11-24T12:17:51.042Z"},
        {951782400000000, "2000-02-29T00:00:00.000Z"},
        {253402300799999999, "9999-12-31T23:59:59.999Z"},
    };
    char out[WALL_TEXT];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_string_equal(wall_text(cases[i].us, out), cases[i].text);
    assert_true(strlen(wall_text(UINT64_MAX, out)) < WALL_TEXT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mono),
        cmocka_unit_test(test_wall),
        cmocka_unit_test(test_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
