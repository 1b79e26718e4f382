/* verify.h - compares every row of every table of one database on both sides, while writes flow, at
 * one exact position.
 *
 * The source's side is the snapshot that a temporary replication slot exports: it holds exactly the
 * transactions whose commit record lies before the slot's consistent point P (PostgreSQL:
 * snapbuild.c skips for the slot what it has put into the snapshot, and streams what commits at P
 * or behind it). The target's side is a snapshot taken while the stream's appliers stand still at P
 * (engine/stream/pause.h), which is a moment. Hashes are computed by the servers over the rows'
 * binary images and added up, so order, collation, chunk borders and physical layout don't matter,
 * and equal changes can't cancel. Only tables that differ are narrowed to rows.
 *
 * verify_run blocks in the calling thread and starts its own; it owns its connections. The result
 * lives until verify_free.
 */
#ifndef VERIFY_H
#define VERIFY_H

#include "engine/check/tables.h"
#include "engine/model/position.h"

typedef enum VerifyPhase {
    VERIFY_HOLDING,
    VERIFY_SNAPSHOT,
    VERIFY_REACHING,
    VERIFY_HASHING,
    VERIFY_NARROWING
} VerifyPhase;

typedef struct VerifyProgress {
    const char *database;
    VerifyPhase phase;
    size_t tables;      /* in all */
    size_t tables_done; /* read on both sides */
    uint64_t pages;     /* of both sides, in all (by size) */
    uint64_t pages_done;
    uint64_t rows_done; /* both sides */
    uint64_t elapsed_us;
    uint64_t left_us; /* estimated; 0: unknown */
} VerifyProgress;

typedef struct VerifyConf {
    const char *database;   /* on both sides; NULL: those of the connection strings */
    const char *source_dsn; /* secret */
    const char *target_dsn; /* secret */
    /* The stream to hold (StreamConf.slot). NULL: both sides as they are now, for when nothing
     * writes. */
    const char *stream;
    /* When that stream isn't running: hold the only one that runs in this database, else compare
     * both sides as they are. Otherwise it is waited for, 30 s at most. */
    bool or_as_is;
    const char *tables;    /* "schema.table,…"; NULL: all */
    unsigned workers;      /* connections per side that hash; 0: 2 */
    uint64_t chunk_rows;   /* 0: 100,000 */
    unsigned report_rows;  /* differing rows listed per table, at most; 0: 100 */
    bool show_values;      /* else values are left out and only the columns are named */
    unsigned hold_most_ms; /* how long the stream may be held for one try to get a snapshot of the
                              source; 0: 2,000, doubled each try */
    unsigned wait_most_ms; /* how long the stream may take to get to the position; 0: for as long as
                              it moves */
    void (*progress)(void *arg,
                     const VerifyProgress *progress); /* called in the calling thread, about twice a
                                                         second; NULL is fine */
    void *arg;
    const Stop *stop;
} VerifyConf;

typedef enum VerifyHow {
    VERIFY_AT_POSITION, /* both sides at exactly `position` */
    VERIFY_AS_IS, /* both sides as they were when looked at: exact only if nothing was writing */
} VerifyHow;

typedef enum VerifyVerdict {
    VERIFY_EQUAL,
    VERIFY_DIFFERENT,
    VERIFY_MISSING,  /* the table isn't on the target */
    VERIFY_EXTRA,    /* it is only on the target */
    VERIFY_SCHEMA,   /* its columns differ, so rows can't be compared */
    VERIFY_UNLOGGED, /* not compared: not replicated, empty after a restore; doesn't make the whole
                        different */
    VERIFY_ERROR,    /* couldn't be read: `error` says why */
} VerifyVerdict;

typedef enum VerifyRowKind { ROW_MISSING, ROW_EXTRA, ROW_CHANGED } VerifyRowKind;

typedef struct VerifyRow {
    VerifyRowKind kind;
    const char
        *key; /* id=7, a='x' b=2; keyless tables: the row itself with show_values, else its hash */
    const char *columns; /* the columns that differ, separated by ", "; NULL unless changed */
    const char *source;  /* values of those (changed) or of the row; NULL unless show_values */
    const char *target;
    uint64_t copies; /* keyless: by how many the counts differ; else 1 */
} VerifyRow;

typedef struct VerifyTable {
    const char *schema;
    const char *name;
    VerifyVerdict verdict;
    bool keyless;
    uint64_t source_rows, target_rows;     /* of the whole table */
    char source_hash[36], target_hash[36]; /* 32 hex digits; of the whole table, independent of row
                                              order; "" when not read */
    uint64_t missing, extra, changed;      /* rows; keyless tables know no changed ones */
    bool at_least;                         /* those three are lower bounds: too many to list */
    const VerifyRow *rows;
    size_t row_count;
    Err error;
} VerifyTable;

typedef struct VerifyResult {
    Arena arena; /* owns all of it */
    const char *database;
    VerifyHow how;
    Position position; /* P; NONE unless VERIFY_AT_POSITION */
    const char *note;  /* one sentence on what was looked at, for people */
    const VerifyTable *tables;
    size_t table_count;
    TableDriftList drift;
    const TableLeftOut *left_out;
    size_t left_out_count;
    size_t different;  /* tables that are different, missing, extra or of other columns */
    size_t errors;     /* tables that couldn't be read */
    uint64_t rows;     /* on the source */
    uint64_t pause_us; /* how long the stream was held or paused in all */
    uint64_t total_us;
} VerifyResult;

/* True when the comparison was made; ask verify_equal then (no table different, none unreadable, no
 * drift). False: it wasn't, and *result is empty. */
MUST_USE bool verify_run(const VerifyConf *conf, VerifyResult *result, Err *err);
bool verify_equal(const VerifyResult *result);
void verify_free(VerifyResult *result); /* fine on a zeroed one */
const char *verify_verdict_name(VerifyVerdict verdict);
/* The result as one JSON object: what --json prints and what goes into the receipt. */
void verify_json(const VerifyResult *result, Buf *out);

#endif
