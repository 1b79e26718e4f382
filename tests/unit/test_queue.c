/* The bounded queue: order, bounds, closing, and many threads at once (run under TSan too). */
#include "engine/base/queue.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "tests/unit/kit.h"

static bool has_room(const Queue *queue)
{
    struct pollfd fd = {.fd = queue_room_fd(queue), .events = POLLIN};

    return poll(&fd, 1, 0) == 1;
}

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

static void test_order(void **state)
{
    int items[10];
    Queue *queue = queue_new(3);

    (void)state;
    assert_null(queue_try_pop(queue));
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 3; i++)
            assert_true(queue_try_push(queue, &items[round + i]));
        assert_false(queue_try_push(queue, &items[9]));
        assert_int_equal(queue_count(queue), 3);
        for (int i = 0; i < 3; i++)
            assert_ptr_equal(queue_pop(queue), &items[round + i]);
        assert_int_equal(queue_count(queue), 0);
    }
    queue_free(queue);
    queue_free(NULL);
}

static void test_close(void **state)
{
    int item;
    Queue *queue = queue_new(3);

    (void)state;
    assert_true(queue_push(queue, &item));
    assert_true(queue_push(queue, &item));
    assert_false(queue_is_closed(queue));
    queue_close(queue);
    queue_close(queue);
    assert_true(queue_is_closed(queue));
    assert_false(queue_push(queue, &item));
    assert_false(queue_try_push(queue, &item));
    assert_ptr_equal(queue_pop(queue), &item); /* what is left comes out */
    assert_ptr_equal(queue_try_pop(queue), &item);
    assert_null(queue_pop(queue));
    assert_null(queue_try_pop(queue));
    queue_free(queue);
}

static void test_room_fd(void **state)
{
    int item;
    Queue *queue = queue_new(1);

    (void)state;
    queue_room_seen(queue);
    assert_true(queue_try_push(queue, &item));
    assert_false(has_room(queue));
    assert_ptr_equal(queue_pop(queue), &item);
    assert_true(has_room(queue));
    assert_true(has_room(queue)); /* until it is seen */
    queue_room_seen(queue);
    assert_false(has_room(queue));
    queue_room_seen(queue);
    queue_close(queue);
    assert_true(has_room(queue)); /* so that a waiting producer learns of it */
    queue_free(queue);
}

typedef struct Shared {
    Queue *queue;
    atomic_ullong pushed;
    atomic_ullong popped;
    atomic_uint refused;
    bool by_poll;
} Shared;

enum { PRODUCERS = 4, CONSUMERS = 3, EACH = 20000 };
static unsigned long long numbers[PRODUCERS * EACH];
static atomic_uint next_number;

/* As the source thread does: never waits in push. */
static bool push_by_poll(Queue *queue, void *item)
{
    for (;;) {
        struct pollfd fd = {.fd = queue_room_fd(queue), .events = POLLIN};

        queue_room_seen(queue);
        if (queue_try_push(queue, item))
            return true;
        if (queue_is_closed(queue))
            return false;
        (void)poll(&fd, 1,
                   100); /* several producers share the one signal, so it may be somebody else's */
    }
}

static void *produce(void *of)
{
    Shared *shared = of;

    for (int i = 0; i < EACH; i++) {
        unsigned at = atomic_fetch_add(&next_number, 1);

        numbers[at] = at + 1;
        if (!(shared->by_poll ? push_by_poll : queue_push)(shared->queue, &numbers[at]))
            atomic_fetch_add(&shared->refused, 1);
        else
            atomic_fetch_add(&shared->pushed, at + 1);
    }
    return NULL;
}

static void *consume(void *of)
{
    Shared *shared = of;
    unsigned long long *number;

    while ((number = queue_pop(shared->queue)))
        atomic_fetch_add(&shared->popped, *number);
    return NULL;
}

static void run_threads(bool by_poll, unsigned producers)
{
    pthread_t threads[PRODUCERS + CONSUMERS];
    Shared shared = {.queue = queue_new(7), .by_poll = by_poll};

    atomic_store(&next_number, 0);
    for (unsigned i = 0; i < producers + CONSUMERS; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, i < producers ? produce : consume, &shared), 0);
    for (unsigned i = 0; i < producers; i++)
        pthread_join(threads[i], NULL);
    queue_close(shared.queue);
    for (unsigned i = producers; i < producers + CONSUMERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&shared.refused), 0);
    assert_true(atomic_load(&shared.pushed) ==
                (unsigned long long)producers * EACH * (producers * EACH + 1) / 2);
    assert_true(atomic_load(&shared.pushed) == atomic_load(&shared.popped));
    queue_free(shared.queue);
}

static void test_threads(void **state)
{
    (void)state;
    run_threads(false, PRODUCERS);
    run_threads(false, 1);
}

static void test_threads_by_poll(void **state)
{
    (void)state;
    run_threads(true, 1);
}

static void *pop_one(void *queue)
{
    return queue_pop(queue);
}

static void *push_two(void *queue)
{
    static int item;
    bool first = queue_push(queue, &item);

    return first && !queue_push(queue, &item) ? &item : NULL;
}

/* Everybody who waits is woken. */
static void test_close_wakes(void **state)
{
    pthread_t threads[4];
    Queue *queue = queue_new(1);
    void *result;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, pop_one, queue), 0);
    pause_ms(20);
    queue_close(queue);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        pthread_join(threads[i], &result);
        assert_null(result);
    }
    queue_free(queue);
    queue = queue_new(1);
    assert_int_equal(pthread_create(&threads[0], NULL, push_two, queue), 0);
    while (queue_count(queue) == 0)
        pause_ms(1);
    pause_ms(20);
    queue_close(queue);
    pthread_join(threads[0], &result);
    assert_non_null(result); /* the second was refused */
    assert_non_null(queue_pop(queue));
    queue_free(queue);
}

static void *push_soon(void *queue)
{
    static int item;

    pause_ms(20);
    return queue_push(queue, &item) ? &item : NULL;
}

static void test_wait(void **state)
{
    pthread_t thread;
    Queue *queue = queue_new(1);

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, push_soon, queue), 0);
    assert_true(queue_wait(queue));
    assert_int_equal(queue_count(queue), 1); /* only looked */
    pthread_join(thread, NULL);
    queue_close(queue);
    assert_true(queue_wait(queue));
    assert_non_null(queue_pop(queue));
    assert_false(queue_wait(queue));
    queue_free(queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_close),
        cmocka_unit_test(test_room_fd),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_threads_by_poll),
        cmocka_unit_test(test_close_wakes),
        cmocka_unit_test(test_wait),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
