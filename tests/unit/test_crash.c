/* The crash hook: kills at the named place, the nth time, and nowhere else. */
#include "engine/base/crash.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/kit.h"

#ifdef KB_TEST_HOOKS
/* How often "there" is passed before a process started with this KB_CRASH_AT is killed; 9 when it
 * isn't. */
static int passes_until_killed(const char *at)
{
    int status, pipe_ends[2];
    char passed[16];
    ssize_t count;
    pid_t child;

    assert_int_equal(pipe(pipe_ends), 0);
    child = fork();
    if (child == 0) {
        setenv("KB_CRASH_AT", at, 1);
        if (dup2(pipe_ends[1], STDERR_FILENO) < 0)
            _exit(1);
        close(STDERR_FILENO);
        for (int i = 0; i < 9; i++) {
            crash_point("there");
            if (write(pipe_ends[1], "x", 1) != 1)
                _exit(1);
        }
        _exit(0);
    }
    close(pipe_ends[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    count = read(pipe_ends[0], passed, sizeof(passed));
    close(pipe_ends[0]);
    assert_true(count == 9 ? WIFEXITED(status)
                           : WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    return (int)count;
}
#endif

static void test_crash_point(void **state)
{
#ifdef KB_TEST_HOOKS
    (void)state;
    assert_int_equal(passes_until_killed("there"), 0);
    assert_int_equal(passes_until_killed("there:1"), 0);
    assert_int_equal(passes_until_killed("there:7"), 6);
    assert_int_equal(passes_until_killed("elsewhere"), 9);
    assert_int_equal(passes_until_killed("there-not"), 9);
    assert_int_equal(passes_until_killed("the"), 9);
    assert_int_equal(passes_until_killed(""), 9);
#else
    (void)state;
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_crash_point)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
