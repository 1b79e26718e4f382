/* Transactions and batches: lists in order, counts, and who frees what. */
#include "engine/model/txn.h"

#include "tests/unit/kit.h"

static void test_lists(void **state)
{
    Batch *batch = batch_new();
    Txn *first = batch_add(batch), *second = batch_add(batch), *third = batch_add(batch);
    Change *changes[3];

    (void)state;
    assert_ptr_equal(batch->first, first);
    assert_ptr_equal(first->next, second);
    assert_ptr_equal(second->next, third);
    assert_null(third->next);
    assert_ptr_equal(batch->last, third);
    assert_int_equal(batch->txn_count, 3);
    for (size_t i = 0; i < 3; i++) {
        changes[i] = arena_new(&batch->arena, Change);
        changes[i]->next = changes[0]; /* whatever it was before */
        txn_add(second, changes[i]);
    }
    assert_ptr_equal(second->first, changes[0]);
    assert_ptr_equal(changes[0]->next, changes[1]);
    assert_ptr_equal(changes[1]->next, changes[2]);
    assert_null(changes[2]->next);
    assert_ptr_equal(second->last, changes[2]);
    assert_int_equal(second->change_count, 3);
    assert_null(first->first);
    assert_true(batch_bytes(batch) > 0);
    batch_free(batch);
    batch_free(NULL);
}

typedef struct FakeReader {
    ChangeReader base;
    int *freed;
} FakeReader;

static void fake_free(ChangeReader *self)
{
    ++*((FakeReader *)self)->freed;
}

static void test_big_is_freed(void **state)
{
    static const ChangeReaderOps ops = {.free = fake_free};
    int freed = 0;
    FakeReader reader = {{&ops}, &freed};
    Batch *batch = batch_new();

    (void)state;
    batch_add(batch)->big = &reader.base;
    (void)batch_add(batch);
    batch_add(batch)->big = &reader.base;
    batch_free(batch);
    assert_int_equal(freed, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_big_is_freed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
