/* follow.h - the streams of all databases, one thread each, and where they are.
 *
 * Either in this process (follow_start) or elsewhere: a `keybridge replicate` that runs already,
 * whose progress is read from its slot and from the target (follow_elsewhere). The cut-over needs
 * no more than this of either.
 *
 * Owned by one thread, which alone calls these functions; the streams' threads are inside.
 */
#ifndef FOLLOW_H
#define FOLLOW_H

#include "engine/stream/stream.h"

typedef struct Follow Follow;

/* conf is copied, as stream_new does. */
MUST_USE Follow *follow_start(const StreamConf *confs, size_t count, Err *err);
/* A stream of another process. What it confirms to its slot is durable on the target, or in its
 * relay log: so what counts is that and the progress on the target, the earlier of both. source_dsn
 * may lead to any database of the server. */
MUST_USE Follow *follow_elsewhere(const char *source_dsn, const char *target_dsn, const char *slot,
                                  Err *err);
void follow_stop(Follow *follow); /* stops, joins and frees; NULL is fine */

size_t follow_count(const Follow *follow);
bool follow_is_elsewhere(const Follow *follow);
StreamStatus follow_status(Follow *follow, size_t at);

/* False when a stream has failed: why. Ask it in every wait. */
MUST_USE bool follow_check(Follow *follow, Err *err);

typedef struct FollowWait {
    const Stop *stop;
    uint64_t deadline_ms;     /* mono_ms; 0: none */
    const char *what;         /* "draining to the end position" */
    void (*tick)(void *self); /* about every 100 ms; may be NULL */
    void *self;
} FollowWait;

/* Until stream i has committed everything up to ends[i] on the target. What was committed there
 * asynchronously is on disk once any synchronous commit follows. ERR_TIMEOUT past the deadline. */
MUST_USE bool follow_wait_applied(Follow *follow, const uint64_t *ends, const FollowWait *wait,
                                  Err *err);
/* Until all are closer to the source's end than max_lag_us, in age. */
MUST_USE bool follow_wait_lag(Follow *follow, uint64_t max_lag_us, const FollowWait *wait,
                              Err *err);
/* The largest lag of all, in microseconds. */
int64_t follow_lag_us(Follow *follow);

#endif
