/* The histogram against the sorted array that it stands for. */
#include "engine/base/histogram.h"

#include <math.h>

#include "tests/unit/kit.h"

static uint64_t random_state = 88172645463325252u;

static uint64_t random_u64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static const double percents[] = {0, 0.001, 1, 5, 10, 25, 50, 75, 90, 99, 99.9, 99.999, 100};

/* What histogram_percentile promises. */
static void is_like(const Histogram *h, const uint64_t *sorted, size_t count)
{
    for (size_t i = 0; i < ARRAY_LEN(percents); i++) {
        uint64_t got = histogram_percentile(h, percents[i]);
        double exact_rank = percents[i] / 100 * (double)count;
        size_t rank = (size_t)exact_rank + ((double)(size_t)exact_rank < exact_rank ? 1 : 0);
        uint64_t exact = sorted[rank < 1 ? 0 : rank - 1];

        assert_true(got >= exact);
        assert_true(got - exact <= exact / HISTOGRAM_PARTS);
    }
    assert_true(histogram_percentile(h, 0) == sorted[0]);
    assert_true(histogram_percentile(h, 100) == sorted[count - 1]);
    assert_true(h->count == count);
}

static void test_empty(void **state)
{
    Histogram h;

    (void)state;
    histogram_init(&h);
    for (size_t i = 0; i < ARRAY_LEN(percents); i++)
        assert_true(histogram_percentile(&h, percents[i]) == 0);
    assert_true(histogram_mean(&h) <= 0);
}

static void test_small_values_are_exact(void **state)
{
    Histogram h;

    (void)state;
    for (uint64_t v = 0; v < 2 * HISTOGRAM_PARTS; v++) {
        histogram_init(&h);
        histogram_add(&h, v);
        histogram_add(&h, v + 1000);
        assert_true(histogram_percentile(&h, 50) == v);
    }
}

static void test_edges(void **state)
{
    static const uint64_t values[] = {0,
                                      1,
                                      31,
                                      32,
                                      33,
                                      63,
                                      64,
                                      65,
                                      1023,
                                      1024,
                                      UINT64_MAX / 2,
                                      UINT64_MAX / 2 + 1,
                                      UINT64_MAX - 1,
                                      UINT64_MAX};
    Histogram h;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        histogram_init(&h);
        for (int k = 0; k < 3; k++)
            histogram_add(&h, values[i]);
        is_like(&h, (const uint64_t[]){values[i], values[i], values[i]}, 3);
    }
    histogram_init(&h);
    for (size_t i = 0; i < ARRAY_LEN(values); i++)
        histogram_add(&h, values[i]);
    is_like(&h, values, ARRAY_LEN(values));
    assert_true(histogram_percentile(&h, -1) == 0);
    assert_true(histogram_percentile(&h, 1e9) == UINT64_MAX);
    assert_true(histogram_percentile(&h, (double)NAN) == 0);
}

/* Every bucket holds what lies between the one before and itself. */
static void test_every_power(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < 64; bit++)
        for (int delta = -1; delta <= 1; delta++) {
            uint64_t v = ((uint64_t)1 << bit) + (uint64_t)(int64_t)delta;
            Histogram h;

            histogram_init(&h);
            histogram_add(&h, v);
            histogram_add(&h, UINT64_MAX);
            if (v < UINT64_MAX / 2) {
                assert_true(histogram_percentile(&h, 50) >= v);
                assert_true(histogram_percentile(&h, 50) - v <= v / HISTOGRAM_PARTS);
            }
        }
}

static void test_random(void **state)
{
    enum { MOST = 3000 };
    static uint64_t values[MOST];
    static Histogram whole, part, merged;

    (void)state;
    for (unsigned round = 0; round < 300; round++) {
        size_t count = 1 + random_u64() % MOST;
        unsigned shift = (unsigned)(random_u64() % 64);
        double sum = 0;

        histogram_init(&whole);
        histogram_init(&merged);
        for (size_t i = 0; i < count;) {
            size_t stop = size_min(count, i + 1 + random_u64() % 500);

            histogram_init(&part);
            for (; i < stop; i++) {
                values[i] = random_u64() >> (round % 2 ? shift : random_u64() % 64);
                sum += (double)values[i];
                histogram_add(&whole, values[i]);
                histogram_add(&part, values[i]);
            }
            histogram_merge(&merged, &part);
        }
        qsort(values, count, sizeof(values[0]), by_value);
        is_like(&whole, values, count);
        is_like(&merged, values, count);
        assert_memory_equal(whole.buckets, merged.buckets, sizeof(whole.buckets));
        assert_true(histogram_mean(&whole) <= sum / (double)count * 1.000001);
        assert_true(histogram_mean(&whole) >= sum / (double)count * 0.999999);
    }
}

static void test_merge_of_nothing(void **state)
{
    Histogram a, empty;

    (void)state;
    histogram_init(&a);
    histogram_init(&empty);
    histogram_add(&a, 7);
    histogram_merge(&a, &empty);
    assert_true(a.least == 7 && a.count == 1);
    histogram_merge(&empty, &a);
    assert_true(empty.least == 7 && empty.most == 7 && empty.count == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),  cmocka_unit_test(test_small_values_are_exact),
        cmocka_unit_test(test_edges),  cmocka_unit_test(test_every_power),
        cmocka_unit_test(test_random), cmocka_unit_test(test_merge_of_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
