#include "tests/unit/kit.h"

#include "engine/stream/ids.h"

static void finds_what_was_put(void **state)
{
    Ids ids = {0};

    (void)state;
    assert_null(ids_find(&ids, 7));
    ids_put(&ids, 7)->value = 70;
    ids_put(&ids, 7)->count++;
    assert_int_equal(ids_find(&ids, 7)->value, 70);
    assert_int_equal(ids_find(&ids, 7)->count, 1);
    assert_null(ids_find(&ids, 8));
    assert_int_equal(ids.count, 1);
    ids_fini(&ids);
    assert_null(ids_find(&ids, 7));
}

static void grows(void **state)
{
    enum { COUNT = 100000 };
    Ids ids = {0};

    (void)state;
    for (uint32_t i = 1; i <= COUNT; i++)
        ids_put(&ids, i * 8)->value = i;
    assert_int_equal(ids.count, COUNT);
    for (uint32_t i = 1; i <= COUNT; i++)
        assert_int_equal(ids_find(&ids, i * 8)->value, i);
    assert_null(ids_find(&ids, 4));
    assert_non_null(ids_put(&ids, UINT32_MAX));
    ids_fini(&ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(finds_what_was_put),
                                       cmocka_unit_test(grows)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
