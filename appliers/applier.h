/* applier.h - what the stream needs of a target: describe tables, write rows, keep progress.
 *
 * An Applier is one connection to the target and belongs to one thread at a time. Writes may be
 * sent without waiting; `settle` waits for all of them and reports the first that failed. Which
 * rows go to which applier, and in which form, is decided above (engine/stream); how they become
 * statements, below.
 */
#ifndef APPLIER_H
#define APPLIER_H

#include <stdatomic.h>

#include "engine/base/buf.h"
#include "engine/base/stop.h"
#include "engine/model/txn.h"

/* A unique index of the target besides the key: columns of rel. */
typedef struct Unique {
    const uint16_t *columns;
    uint16_t count;
    bool nulls_equal; /* NULLS NOT DISTINCT */
} Unique;

/* A target table as seen through one source relation. Immutable but for `cautious`; made by
 * describe, freed by table_free. */
typedef struct Table Table;
struct Table {
    const Relation *rel;
    const char *place; /* schema.name, for messages */
    const uint16_t
        *key; /* columns of rel by which a row is found; key_count 0: only by the whole row */
    uint16_t key_count;
    const Unique *uniques; /* what could make rows with different keys depend on each other */
    uint16_t unique_count;
    bool spread;          /* rows whose keys and unique values have different bytes can't depend on
                             each other: they may go to different lanes */
    bool ordered;         /* rows are written one by one in their order, never set-wise */
    bool bag;             /* no key, but whole old rows: equal ones are interchangeable; set-wise */
    bool inserts_only;    /* identity NOTHING: an update or delete can't be found */
    bool triggers;        /* ALWAYS or REPLICA triggers fire for what we write */
    bool deferrable;      /* constraints that are checked at the end */
    bool unindexed;       /* rows to be changed are found by reading the whole table */
    uint64_t fingerprint; /* of everything that routing depends on */
    /* Batches left in which it is written in order, because set-wise failed lately: unique values
     * that move between rows. */
    atomic_uint cautious;
    void (*free)(Table *table);
};

/* What a batch does to one row in the end. */
typedef struct Row {
    uint64_t hash;
    const Value *key;   /* rel->column_count values, the key's are known: where the row was (or, if
                           new, is). Of a bag: the whole row that was */
    const Value *image; /* rel->column_count values after; NULL when gone */
    const Txn *txn;     /* of the last change, for messages */
    uint64_t order;     /* the key's first bytes, for sorting */
    uint32_t unknown;   /* hash of the set of columns that image doesn't know; 0: none */
    bool was;           /* the target has it before the batch */
    bool is;            /* and afterwards */
    bool reborn;        /* deleted in between */
    bool own;           /* image is a merged copy */
} Row;

/* One change in its place. */
typedef struct Step {
    const Change *change;
    const Txn *txn;
} Step;

/* The part of one lane in one table: net effects, to be written deletes, updates, inserts; and
 * steps in order, which don't depend on them. */
typedef struct TableRows TableRows;
struct TableRows {
    TableRows *next;
    Table *table;
    Row **deletes, **updates,
        **inserts; /* deletes and updates sorted: by unknown columns, then key */
    size_t delete_count, update_count, insert_count;
    Step *steps;
    size_t step_count;
};

/* One lane's row in keybridge.progress. A batch is a run of source transactions; `before` is the
 * batch before. */
typedef struct Progress {
    unsigned lane;
    Position first;  /* commit of its first transaction */
    Position last;   /* of its last */
    Position end;    /* end of its last */
    Position before; /* last and end of the batch before, NONE when there was none */
    Position before_end;
    unsigned lanes; /* over which it was routed */
    uint64_t fingerprint;
    /* The lane's row must still say this (NONE: there is no row), else another session has written:
     * exactly-once holds even when a lost connection's COMMIT arrives after we have read progress.
     */
    Position expected;
} Progress;

typedef struct DeadLetter {
    const Txn *txn;
    const Err *why;
    unsigned part; /* from 1: a long one is several rows */
    Span changes;  /* JSON */
} DeadLetter;

/* Code of the transient error by which describe says that a table's values must come as text. */
#define VALUE_FORM "value-form"

/* One command that changes the schema, as the source ran it. Texts are UTF-8; JSON as the capture
 * (engine/stream/capture.h) writes it. */
typedef struct Ddl {
    const char *text;
    const char *role;     /* who ran it; NULL or unknown to the target: ourselves */
    const char *settings; /* JSON object: what it depends on, search_path and others */
    const char *tables;   /* ALTER TABLE: JSON, of all tables that it touched; else NULL */
    const char
        *missing;      /* JSON: what rows hold in columns that were added without rewriting them */
    const char *calls; /* JSON: functions by which it computes new values; NULL: it doesn't */
} Ddl;

typedef struct Applier Applier;
typedef struct ApplierOps {
    const char *name;
    void (*free)(Applier *self);

    /* Lanes. */
    bool (*begin)(Applier *self, Err *err);
    bool (*write)(Applier *self, const TableRows *rows, Err *err);
    /* One change in its place; found exactly once, or settle fails. */
    bool (*change)(Applier *self, Table *table, const Change *change, const Txn *txn, Err *err);
    bool (*truncate)(Applier *self, Table *const *tables, size_t count, const Change *change,
                     const Txn *txn, Err *err);
    /* Everything before is settled; the command runs inside the transaction, and is done. */
    bool (*ddl)(Applier *self, const Ddl *ddl, Err *err);
    bool (*progress)(Applier *self, const Progress *progress, Err *err);
    bool (*dead_letter)(Applier *self, const DeadLetter *letter, Err *err);
    bool (*settle)(Applier *self, Err *err); /* everything sent has succeeded, row counts and all */
    bool (*check_deferred)(Applier *self,
                           Err *err); /* sent, not waited for: constraints that wait for COMMIT */
    bool (*commit)(Applier *self, Err *err);   /* waits */
    bool (*rollback)(Applier *self, Err *err); /* waits; fine without a transaction */
    uint64_t (*rows_written)(const Applier *self);
    int (*session)(const Applier *self); /* the server's number for this connection */

    /* Control: the connection that holds the stream's lock and answers questions. */
    bool (*describe)(Applier *self, const Relation *rel, Table **table, Err *err);
    /* Makes keybridge's own tables when missing; takes the stream's lock. */
    bool (*take)(Applier *self, Err *err);
    /* rows: arena array. */
    bool (*read_progress)(Applier *self, Arena *arena, Progress **rows, size_t *count, Err *err);
    bool (*set_start)(Applier *self, Position start, Err *err);
    /* What set_start recorded, now or in an earlier run; NONE: nothing. */
    bool (*read_start)(Applier *self, Position *start, Err *err);
    /* Log positions of the target itself: what is written, what is flushed. *known false: it can't
     * say. */
    bool (*log_positions)(Applier *self, uint64_t *written, uint64_t *flushed, bool *known,
                          Err *err);
    bool (*force_flush)(Applier *self, Err *err);
    /* Ends a statement of one of these sessions that waits for a lock of another of them; *broken
     * says it did. */
    bool (*break_tie)(Applier *self, const int *sessions, size_t count, bool *broken, Err *err);
    /* Which other session one of these waits for, in words; empty: none. */
    bool (*blocker)(Applier *self, const int *sessions, size_t count, Buf *out, Err *err);
} ApplierOps;

struct Applier {
    const ApplierOps *ops;
};

typedef struct ApplierConf {
    const char *dsn;    /* secret */
    const char *stream; /* name under which progress is kept */
    unsigned lane;      /* for application_name */
    bool control;
    bool binary;            /* the source sends values in their types' binary form */
    bool synchronous;       /* commits wait for the disk */
    const Stop *connecting; /* ends waits while connecting */
    const Stop *closing;    /* ends every wait; may be NULL */
} ApplierConf;

static inline void applier_free(Applier *a)
{
    if (a)
        a->ops->free(a);
}

static inline void table_free(Table *table)
{
    if (table)
        table->free(table);
}

/* The values that say which row an update or delete means; an insert's are its own. */
static inline const Value *change_key(const Change *change)
{
    return change->old ? change->old : change->new;
}

#endif
