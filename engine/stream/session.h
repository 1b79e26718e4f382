/* session.h - one attempt of a stream: both sides connected, until the end is reached or something
 * fails.
 *
 * Internal to engine/stream. Runs in the thread that calls it, which owns the source's two
 * connections.
 */
#ifndef SESSION_H
#define SESSION_H

#include <pthread.h>

#include "engine/stream/receiver.h"
#include "engine/stream/source.h"
#include "engine/stream/spool.h"
#include "engine/stream/stream.h"

#define RATE_SECONDS 5

typedef struct RateSample {
    uint64_t at_ms;
    uint64_t transactions;
    uint64_t changes;
} RateSample;

struct Stream {
    StreamConf conf; /* our own copies */
    SpoolDir *spool;
    /* What other threads look at or set */
    pthread_mutex_t lock;
    StreamStatus status;
    Position until;
    /* The running thread's own */
    StreamStatus before; /* counters of earlier attempts */
    RateSample rates[RATE_SECONDS + 1];
    size_t rate_count;
    SlotWatch watch;
    bool limits_told;
    bool text_only; /* a value's binary form was refused: from then on text */
    bool told_ddl;  /* why DDL isn't applied was said */
    int sender_pid; /* of the newest walsender, on the source; 0: none yet */
    /* The relay log, see relaying.h */
    char *relay_dir;
    char *system; /* of the source, once known: system identifier, database */
    char *database;
    bool may_relay; /* a session has stood: what follows is known */
    RelayFormat format;
    char encoding[64];  /* the format's */
    Position durable;   /* on the target, as far as known */
    uint64_t moved_ms;  /* when that moved, or nothing waited */
    Relay *relay;       /* NULL: the source is read directly */
    bool relay_left;    /* a closed one's files stay, for the next session */
    Receiver *receiver; /* fills it; NULL: it has given its connection to the session */
};

typedef struct SessionEnd {
    bool streamed; /* the source had begun to send */
    bool advanced; /* something was committed on the target */
} SessionEnd;

/* True: the end position is durable on the target. */
MUST_USE bool session_run(Stream *stream, const Stop *stop, SessionEnd *end, Err *err);

Position stream_until(Stream *stream);
void stream_set_phase(Stream *stream, StreamPhase phase);

#endif
