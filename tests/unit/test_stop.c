/* The request to stop, and the waits that include it. */
#include "engine/base/stop.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/mono.h"
#include "tests/unit/kit.h"

static Stop *signal_stop;

static void on_signal(int number)
{
    (void)number;
    stop_request(signal_stop);
}

static void *request_soon(void *stop)
{
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    stop_request(stop);
    return NULL;
}

static void begin(Stop *stop)
{
    Err err = ERR_INIT;

    if (!stop_init(stop, &err))
        fail_msg("%s", err.text);
}

static void test_not_requested(void **state)
{
    Stop stop;
    uint64_t start = mono_ms();

    (void)state;
    begin(&stop);
    assert_false(stop_requested(&stop));
    assert_false(stop_wait(&stop, 0));
    assert_false(stop_wait(&stop, 30));
    assert_true(mono_ms() - start >= 29);
    stop_fini(&stop);
    stop_fini(&stop);
}

static void test_requested(void **state)
{
    Stop stop;
    uint64_t start = mono_ms();

    (void)state;
    begin(&stop);
    stop_request(&stop);
    stop_request(&stop); /* again is fine */
    assert_true(stop_requested(&stop));
    assert_true(stop_wait(&stop, 60000));
    assert_true(stop_wait(&stop, 60000)); /* it is never taken back */
    assert_true(stop_poll(&stop, -1, 0, -1) < 0);
    assert_true(mono_ms() - start < 10000);
    stop_fini(&stop);
}

static void test_from_another_thread(void **state)
{
    Stop stop;
    pthread_t thread;

    (void)state;
    begin(&stop);
    assert_int_equal(pthread_create(&thread, NULL, request_soon, &stop), 0);
    assert_true(stop_wait(&stop, 60000));
    pthread_join(thread, NULL);
    stop_fini(&stop);
}

static void test_from_a_signal(void **state)
{
    Stop stop;

    (void)state;
    begin(&stop);
    signal_stop = &stop;
    signal(SIGUSR1, on_signal);
    raise(SIGUSR1);
    signal(SIGUSR1, SIG_DFL);
    assert_true(stop_wait(&stop, 60000));
    stop_fini(&stop);
}

static void test_poll(void **state)
{
    Stop stop;
    int ends[2];

    (void)state;
    begin(&stop);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(stop_poll(&stop, ends[0], POLLIN, 0), 0);
    assert_int_equal(stop_poll(&stop, ends[0], POLLIN, 20), 0);
    assert_true(stop_poll(&stop, ends[1], POLLOUT, 60000) > 0);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_true(stop_poll(&stop, ends[0], POLLIN, -1) > 0);
    stop_request(&stop);
    assert_true(stop_poll(&stop, ends[0], POLLIN, -1) < 0); /* stop goes first */
    close(ends[0]);
    close(ends[1]);
    stop_fini(&stop);
}

/* A descriptor that hangs up is ready, not silent. */
static void test_poll_hangup(void **state)
{
    Stop stop;
    int ends[2];

    (void)state;
    begin(&stop);
    assert_int_equal(pipe(ends), 0);
    close(ends[1]);
    assert_true(stop_poll(&stop, ends[0], POLLIN, 60000) > 0);
    close(ends[0]);
    stop_fini(&stop);
}

static void test_fail(void **state)
{
    Err err = ERR_INIT;

    (void)state;
    assert_false(stop_fail(&err, "waiting for the target"));
    assert_string_equal(err.text, "stopped while waiting for the target");
    assert_int_equal(err.kind, ERR_STOPPED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_requested),
        cmocka_unit_test(test_requested),
        cmocka_unit_test(test_from_another_thread),
        cmocka_unit_test(test_from_a_signal),
        cmocka_unit_test(test_poll),
        cmocka_unit_test(test_poll_hangup),
        cmocka_unit_test(test_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
