/* stop.h - one request to stop that every wait includes.
 *
 * An atomic for loops and an eventfd for poll. Any thread may request or ask; it is never taken
 * back.
 */
#ifndef STOP_H
#define STOP_H

#include <stdatomic.h>

#include "engine/base/err.h"

typedef struct Stop {
    atomic_bool requested;
    int fd; /* readable once requested; for poll, never read it */
} Stop;

MUST_USE bool stop_init(Stop *stop, Err *err);
void stop_fini(Stop *stop);
void stop_request(Stop *stop); /* async-signal-safe */

static inline bool stop_requested(const Stop *stop)
{
    return atomic_load_explicit(&stop->requested, memory_order_relaxed);
}

/* Wait up to timeout_ms; true when stopped. */
bool stop_wait(const Stop *stop, unsigned timeout_ms);
/* Wait until fd has the poll events, the time is over or stop comes: >0 ready, 0 time, <0 stop. */
int stop_poll(const Stop *stop, int fd, short events, int timeout_ms);
/* ERR_STOPPED, "stopped while <what>". */
bool stop_fail(Err *err, const char *what);

#endif
