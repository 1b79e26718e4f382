#include "engine/base/stop.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "engine/base/mono.h"

bool stop_init(Stop *stop, Err *err)
{
    atomic_init(&stop->requested, false);
    stop->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return stop->fd >= 0 || err_errno(err, ERR_SYSTEM, "creating an eventfd");
}

void stop_fini(Stop *stop)
{
    if (stop->fd >= 0)
        close(stop->fd);
    stop->fd = -1;
}

void stop_request(Stop *stop)
{
    uint64_t one = 1;

    atomic_store(&stop->requested, true);
    if (write(stop->fd, &one, sizeof(one)) < 0)
        return; /* the counter is full, so the fd is readable already */
}

int stop_poll(const Stop *stop, int fd, short events, int timeout_ms)
{
    uint64_t deadline = mono_ms() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms);

    for (;;) {
        struct pollfd fds[2] = {{.fd = stop->fd, .events = POLLIN}, {.fd = fd, .events = events}};
        int left = timeout_ms;
        int got;

        if (timeout_ms >= 0) {
            uint64_t now = mono_ms();

            left = now >= deadline ? 0 : (int)(deadline - now);
        }
        got = poll(fds, 2, left);
        if (got < 0 && errno == EINTR)
            continue;
        if (stop_requested(stop))
            return -1;
        return got > 0 && fds[1].revents ? 1 : 0;
    }
}

bool stop_wait(const Stop *stop, unsigned timeout_ms)
{
    return stop_poll(stop, -1, 0, (int)timeout_ms) < 0;
}

bool stop_fail(Err *err, const char *what)
{
    return err_fail(err, ERR_STOPPED, "stopped while %s", what);
}
