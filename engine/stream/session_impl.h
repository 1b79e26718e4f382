/* session_impl.h - a session's state, shared by what reads the source directly (session.c) and what
 * goes through the relay log (session_relay.c).
 */
#ifndef SESSION_IMPL_H
#define SESSION_IMPL_H

#include "engine/stream/apply.h"
#include "engine/stream/assembler.h"
#include "engine/stream/session.h"

#define QUEUE_BATCHES 2
#define FLIGHTS_MOST  64
#define RETIRED_MOST  64

/* A batch on its way through the target. */
typedef struct Flight {
    Position end;
    int64_t oldest_us;
    size_t bytes;
    bool quiet; /* no transaction of the source, only its position */
} Flight;

typedef struct Session {
    Stream *stream;
    const Stop *stop;
    SourceFacts facts;
    Pg ask; /* an ordinary connection to the source */
    bool asking;
    uint64_t asked_ms;
    uint64_t slot_asked_ms;
    char encoding[64]; /* of the target */
    bool binary;
    Apply *apply;
    Queue *queue;
    Position started_at; /* the target's progress when we came */
    Position began_at;   /* where the stream was asked to begin */
    WalSender *sender;   /* NULL: the receiver has it */
    RelayReader *reader; /* NULL: what the source sends comes directly */
    bool leaving;        /* the receiver is to give its connection away */
    AssemblerConf conf;
    Assembler *assembler;
    Assembler *retired[RETIRED_MOST]; /* batches of theirs may be under way */
    size_t retired_count;
    Position last_commit; /* of the last batch taken from the assembler; NONE: none yet */
    Position last_end;
    Batch *held;      /* on its way to a queue that was full */
    unsigned lanes;   /* that the next batch is spread over, at most */
    uint64_t held_us; /* since when it waits; 0: it doesn't */
    uint64_t pushed_us;
    Flight flights[FLIGHTS_MOST];
    size_t flight_count;
    size_t flight_bytes;
    Position pushed; /* end of the last batch in the queue, or what the target had */
    Position quiet;  /* everything that committed before was received */
    Position source_end;
    Position empty_at; /* the source's end of WAL is known to have been here */
    int64_t clock_us;  /* our clock minus the source's, the smallest seen */
    bool clock_known;
    int64_t sent_us;
    bool behind;
    bool dry; /* nothing is left of what the source has sent */
    bool answer_now;
    Position applied; /* as last shown: it doesn't go back while the session lasts */
    Position until;
    bool passed; /* it */
    uint64_t bytes;
    uint64_t rate_bytes;
    uint64_t rate_ms;
    uint64_t heard_ms;
    uint64_t replied_ms;
    Position replied;
    uint64_t quiet_ms;
    uint64_t quiet_count; /* empty transactions among those that the target counts */
    uint64_t published_ms;
} Session;

/* session.c */

/* Whether more of what the source has sent is to be taken now. */
bool session_wants_input(const Session *s);
/* Sees that the end position was passed. */
void session_look_for_end(Session *s);
MUST_USE bool session_reply(Session *s, bool want_answer, Err *err);

/* session_relay.c */

/* What is in the log, until a batch is complete. */
MUST_USE bool session_take_relayed(Session *s, Err *err);
/* Notes how far the target is, and when it last moved. */
void session_note_progress(Session *s);
/* Goes over to the log, or back, when it is time. */
MUST_USE bool session_relay_turn(Session *s, Err *err);
void session_fill_relay(Session *s, StreamStatus *status);

#endif
