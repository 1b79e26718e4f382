#include "engine/base/crash.h"

#ifdef KB_TEST_HOOKS

#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "engine/base/base.h"

void crash_point(const char *name)
{
    static atomic_ulong passed;
    const char *at = getenv("KB_CRASH_AT"); /* NOLINT(concurrency-mt-unsafe): nobody sets it */
    size_t len = strlen(name);
    unsigned long nth = 1;

    if (!at || strncmp(at, name, len) != 0 || (at[len] && at[len] != ':'))
        return;
    if (at[len] == ':')
        nth = strtoul(at + len + 1, NULL, 10);
    if (atomic_fetch_add(&passed, 1) + 1 < nth)
        return;
    fprintf(stderr, "crash point %s\n", name);
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

#endif
