/* stream.h - one database's stream, from slot to target, supervised.
 *
 * stream_run blocks in the calling thread until the end position is durable on the target, stop is
 * requested or something fails that reconnecting can't cure. Any thread may ask for the status
 * meanwhile. Several streams may run in one process.
 */
#ifndef STREAM_H
#define STREAM_H

#include "engine/base/stop.h"
#include "engine/model/position.h"
#include "engine/stream/slotwatch.h"

typedef struct Stream Stream;

typedef struct StreamConf {
    const char *name;       /* for logs and status: the database */
    const char *source_dsn; /* secret */
    const char *target_dsn; /* secret */
    const char *slot;
    const char *publication;
    Position start; /* NONE: the progress on the target, else the slot's confirmed position */
    Position until; /* NONE: for ever */
    unsigned lanes;
    size_t batch_changes; /* changes in one batch, at most */
    size_t batch_bytes;
    size_t
        txn_memory; /* bytes of one transaction kept in memory; beyond that it goes to the spool */
    const char *spool_dir; /* made when missing; one file per big transaction, removed afterwards */
    bool stop_at_ddl;      /* never apply the source's DDL, nor make it tell */
    Position ddl_applied;  /* commit of a transaction whose DDL was applied by hand */
    bool skip_failed;      /* transactions that can't be applied go to keybridge.dead_letter */
    const char *skip_txns; /* … only these: commit positions joined by commas; NULL: none */
    unsigned
        relay_after_ms;  /* through the relay log once the target has stalled so long; 0: never */
    uint64_t relay_most; /* bytes of it; 0: as the disk has room */
    uint64_t source_disk_free; /* bytes, as the operator knows; 0: unknown */
    unsigned retry_most_s;     /* give up reconnecting after so long without success; 0: never */
} StreamConf;

typedef enum StreamPhase {
    STREAM_CONNECTING,
    STREAM_CATCHING_UP,
    STREAM_FOLLOWING,
    STREAM_WAITING,
    STREAM_ENDED
} StreamPhase;

typedef struct StreamStatus {
    StreamPhase phase;
    Position began;      /* where the first connection of this run began to stream; NONE: not yet */
    bool binary;         /* values travel in their binary form */
    Position received;   /* WAL position up to which the source has sent */
    Position source_end; /* the source's own end of WAL, as of its last message */
    Position applied_end; /* committed on the target; with nothing pending, everything received */
    Position durable_end; /* flushed on the target */
    uint64_t lag_bytes;   /* source_end - applied_end */
    int64_t lag_us;       /* age of the oldest thing not applied; 0 when caught up */
    uint64_t transactions, changes, bytes; /* since start */
    uint64_t spool_bytes;
    SlotState slot;
    bool relaying; /* the source is received into the relay log, which is told durable */
    uint64_t relay_bytes;
    uint64_t relay_segments;
    Position relay_oldest; /* what committed before isn't in the log any more */
    uint64_t reconnects;
    uint64_t skipped; /* transactions in keybridge.dead_letter, by this run */
    double transactions_per_s, changes_per_s; /* over the last seconds */
} StreamStatus;

MUST_USE Stream *stream_new(const StreamConf *conf, Err *err); /* copies conf */
void stream_free(Stream *stream);
MUST_USE bool stream_run(Stream *stream, const Stop *stop, Err *err);
StreamStatus stream_status(const Stream *stream);
/* The relay log's part as a JSON object. */
void stream_put_relay_json(Buf *out, const StreamStatus *status);
/* Where the stream of this slot has its relay log. */
void stream_relay_dir(const char *spool_dir, const char *slot, char *out, size_t size);
/* Move the end while it runs: stream_run returns true once everything committed up to here is
 * durable on the target. */
void stream_set_until(Stream *stream, Position until);

#endif
