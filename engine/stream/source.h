/* source.h - questions to a PostgreSQL source before and beside its stream, on an ordinary
 * connection. */
#ifndef SOURCE_H
#define SOURCE_H

#include "appliers/postgres/pg.h"

typedef struct SourceFacts {
    int version;
    bool is_standby;
    bool all_tables;            /* the publication's */
    unsigned sender_timeout_ms; /* wal_sender_timeout; 0: off */
    uint64_t confirmed;         /* the slot's confirmed_flush_lsn */
    bool two_phase;             /* the slot sends PREPARE and COMMIT PREPARED apart */
    uint64_t flushed;           /* the source's end of WAL */
} SourceFacts;

/* Whether this slot of this publication can be streamed from by this user; each reason against it
 * is an error of its own with what to do. A slot in use by another process is transient. When that
 * is own_pid (not 0), our own walsender of before, which hasn't noticed that the connection is
 * gone, it is ended. relaying: somebody else here reads the slot, and it is no matter that it is in
 * use. */
MUST_USE bool source_check(Pg *source, const char *slot, const char *publication, int own_pid,
                           bool relaying, SourceFacts *facts, Err *err);

/* What is wrong with decoding in this minor version (PQserverVersion) when schemas change beside
 * open transactions; NULL: nothing. Source: PostgreSQL release notes of May and August 2025. */
const char *source_minor_trouble(int version);

/* The statement whose only value is the source's end of WAL. */
const char *source_end_sql(bool is_standby);

#endif
