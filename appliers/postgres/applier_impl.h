/* applier_impl.h - what the parts of the PostgreSQL applier share. */
#ifndef APPLIER_IMPL_H
#define APPLIER_IMPL_H

#define HASH_FUNCTION(keyptr, keylen, hashv) ((hashv) = (unsigned)XXH3_64bits((keyptr), (keylen)))
#include <uthash.h>
#include <xxhash.h>

#include "appliers/applier.h"
#include "appliers/postgres/pg.h"
#include "appliers/postgres/table.h"

typedef struct Stmt Stmt;

/* What a statement that was sent must bring. */
typedef struct Expect {
    const char *doing;  /* "inserting into" */
    const Table *table; /* NULL: not about rows */
    const Txn *txn;
    const Value *key; /* of one row; NULL: of many */
    int64_t rows;     /* -1: any number */
    bool is_progress;
    bool is_commit;
    bool is_check; /* of rows of several tables */
} Expect;

typedef struct PgApplier {
    Applier base;
    Pg pg;
    char *stream;
    const Stop *closing;
    bool binary;     /* what comes */
    bool broken;     /* the connection's state is unknown: only closing helps */
    Expect *expects; /* sent and not yet settled, in order */
    size_t expect_count, expect_room;
    size_t unflushed; /* bytes handed to libpq since the last flush */
    Stmt *stmts;
    unsigned stmt_count, stmt_next;
    Buf scratch; /* array parameters, COPY blocks */
    uint64_t written;
    bool in_transaction;
    bool progress_ready; /* its statement is prepared */
} PgApplier;

static inline PgApplier *pg_applier_of(Applier *base)
{
    return (PgApplier *)base;
}

/* --- link.c: sending without waiting, and waiting for all of it --- */
MUST_USE bool link_pipeline(PgApplier *a, Err *err); /* in pipeline mode from here on */
MUST_USE bool link_plain(PgApplier *a, Err *err);    /* settled, and out of it: for COPY */
MUST_USE bool link_expect(PgApplier *a, const Expect *expect, Err *err); /* call after each send */
MUST_USE bool link_send(PgApplier *a, const char *sql, const Expect *expect, Err *err);
MUST_USE bool link_push(PgApplier *a, size_t bytes, Err *err); /* flush when enough has gathered */
MUST_USE bool link_settle(PgApplier *a, Err *err);
MUST_USE bool link_result(PgApplier *a, PGresult **res,
                          Err *err); /* waits; *res NULL: end of one statement's */
MUST_USE bool link_flush(PgApplier *a, Err *err);
MUST_USE bool link_judge(PgApplier *a, const PGresult *res, const Expect *expect, Err *err);
bool link_lost(PgApplier *a, Err *err,
               const char *doing); /* false; the connection can only be closed */
/* A prepared statement for this text of this shape, prepared in the pipeline when new. */
typedef struct StmtKey {
    uint32_t table;
    uint8_t verb;
    uint8_t many;
    uint16_t count;
} StmtKey;
struct Stmt {
    char name[16];
    int params;
    uint32_t *types;
    UT_hash_handle hh;
    size_t key_len;
    uint8_t key[];
};
MUST_USE Stmt *link_stmt(PgApplier *a, const PgShape *shape, Err *err);
void link_forget(PgApplier *a); /* prepared statements are gone */

/* --- write.c --- */
bool write_rows(Applier *self, const TableRows *rows, Err *err);
bool write_change(Applier *self, Table *table, const Change *change, const Txn *txn, Err *err);
bool write_truncate(Applier *self, Table *const *tables, size_t count, const Change *change,
                    const Txn *txn, Err *err);

/* --- schema.c --- */
bool schema_ddl(Applier *self, const Ddl *ddl, Err *err);

/* --- control.c --- */
bool control_take(Applier *self, Err *err);
bool control_read_progress(Applier *self, Arena *arena, Progress **rows, size_t *count, Err *err);
bool control_set_start(Applier *self, Position start, Err *err);
bool control_read_start(Applier *self, Position *start, Err *err);
bool control_log_positions(Applier *self, uint64_t *written, uint64_t *flushed, bool *known,
                           Err *err);
bool control_force_flush(Applier *self, Err *err);
bool control_break_tie(Applier *self, const int *sessions, size_t count, bool *broken, Err *err);
bool control_blocker(Applier *self, const int *sessions, size_t count, Buf *out, Err *err);
bool control_progress(Applier *self, const Progress *progress, Err *err);
bool control_dead_letter(Applier *self, const DeadLetter *letter, Err *err);

#endif
