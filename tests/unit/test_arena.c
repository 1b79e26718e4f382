/* Arenas: what is handed out doesn't overlap, is aligned, and is poisoned once it is gone. */
#include "engine/base/arena.h"

#include "tests/unit/kit.h"

#ifdef ARENA_POISONS
#include <sanitizer/asan_interface.h>
#endif

static void test_pieces(void **state)
{
    enum { COUNT = 2000 };
    static uint8_t *pieces[COUNT];
    static size_t sizes[COUNT];
    Arena arena;

    (void)state;
    arena_init(&arena, 1);
    assert_int_equal(arena_bytes(&arena), 0);
    for (size_t i = 0; i < COUNT; i++) {
        sizes[i] = i * 7919 % 700 * (i % 100 == 0 ? 50 : 1);
        pieces[i] = arena_alloc(&arena, sizes[i]);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % 16, 0);
        memset(pieces[i], (int)i & 255, sizes[i]);
    }
    for (size_t i = 0; i < COUNT; i++)
        for (size_t k = 0; k < sizes[i]; k++)
            assert_int_equal(pieces[i][k], i & 255);
    assert_true(arena_bytes(&arena) > 0);
    arena_fini(&arena);
    assert_int_equal(arena_bytes(&arena), 0);
}

static void test_nothing_is_something(void **state)
{
    Arena arena;
    const void *a, *b;

    (void)state;
    arena_init(&arena, 256);
    a = arena_alloc(&arena, 0);
    b = arena_alloc(&arena, 0);
    assert_non_null(a);
    assert_ptr_not_equal(a, b);
    arena_fini(&arena);
    arena_fini(&arena); /* again is fine */
    arena_reset(&arena);
}

static void test_reset_keeps_a_chunk(void **state)
{
    Arena arena;
    size_t bytes;

    (void)state;
    arena_init(&arena, 256);
    for (int i = 0; i < 1000; i++)
        (void)arena_alloc(&arena, 100);
    bytes = arena_bytes(&arena);
    arena_reset(&arena);
    assert_true(arena_bytes(&arena) > 0 && arena_bytes(&arena) < bytes);
    bytes = arena_bytes(&arena);
    for (int round = 0; round < 100; round++) {
        (void)arena_alloc(&arena, bytes / 2);
        arena_reset(&arena);
    }
    assert_int_equal(arena_bytes(&arena), bytes); /* used again, not grown */
    arena_fini(&arena);
}

static void test_large(void **state)
{
    Arena arena;
    uint8_t *large;

    (void)state;
    arena_init(&arena, 256);
    large = arena_alloc(&arena, MIB(8));
    memset(large, 1, MIB(8));
    assert_true(arena_bytes(&arena) >= MIB(8));
    arena_fini(&arena);
}

static void test_helpers(void **state)
{
    Arena arena;
    Span copy;
    const int *numbers;

    (void)state;
    arena_init(&arena, 256);
    copy = arena_dup(&arena, SPAN_LIT("abc"));
    assert_true(span_is(copy, "abc"));
    assert_null(arena_dup(&arena, SPAN_NONE).at);
    copy = arena_dup(&arena, span_of("", 0));
    assert_non_null(copy.at);
    assert_int_equal(copy.len, 0);
    assert_string_equal(arena_strdup(&arena, "text"), "text");
    assert_null(arena_strdup(&arena, NULL));
    assert_string_equal(arena_str_of(&arena, span_of("abcdef", 3)), "abc");
    assert_string_equal(arena_str_of(&arena, SPAN_NONE), "");
    assert_string_equal(arena_printf(&arena, "%s-%d", "x", 42), "x-42");
    numbers = arena_array(&arena, int, 100);
    for (int i = 0; i < 100; i++)
        assert_int_equal(numbers[i], 0);
    assert_int_equal(*arena_new(&arena, int), 0);
    arena_fini(&arena);
}

/* What one arena gives back is the next one's. */
static void test_large_chunks_are_kept(void **state)
{
    Arena arena;
    void *first;

    (void)state;
    arena_init(&arena, MIB(1));
    first = arena_alloc(&arena, 100);
    arena_fini(&arena);
    arena_init(&arena, MIB(1));
    assert_ptr_equal(arena_alloc(&arena, 100), first);
    arena_fini(&arena);
}

/* Under ASan only: reading what was reset, or one byte beyond a piece, is reported. */
static void test_poison(void **state)
{
#ifdef ARENA_POISONS
    Arena arena;
    uint8_t *a, *b;

    (void)state;
    arena_init(&arena, 256);
    a = arena_alloc(&arena, 10);
    b = arena_alloc(&arena, 16);
    assert_null(__asan_region_is_poisoned(a, 10));
    assert_null(__asan_region_is_poisoned(b, 16));
    assert_ptr_equal(__asan_region_is_poisoned(a, 11), a + 10);
    assert_ptr_equal(__asan_region_is_poisoned(b, 17), b + 16);
    arena_reset(&arena);
    assert_true(__asan_address_is_poisoned(a));
    assert_true(__asan_address_is_poisoned(b));
    assert_ptr_equal(arena_alloc(&arena, 4), a);
    assert_false(__asan_address_is_poisoned(a));
    assert_true(__asan_address_is_poisoned(a + 4));
    arena_fini(&arena);
#else
    (void)state;
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_nothing_is_something),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_reset_keeps_a_chunk),
        cmocka_unit_test(test_helpers),
        cmocka_unit_test(test_poison),
        cmocka_unit_test(test_large_chunks_are_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
