/* tables.h - the user tables of a database, in an order that is the same on both sides, and what
 * differs between two lists.
 *
 * Read from the catalogue in the caller's transaction, so under an imported snapshot the list is of
 * that moment. Left out: pg_*, information_schema, keybridge's and RDS's own schemas, members of
 * extensions that hold no user data, foreign and temporary tables (named in `left_out`). Everything
 * lives in the caller's arena.
 */
#ifndef TABLES_H
#define TABLES_H

#include "appliers/postgres/pg.h"
#include "engine/base/arena.h"

typedef enum TableKind {
    TABLE_ORDINARY, /* also the leaves of partitioned tables: each is a table of its own here */
    TABLE_UNLOGGED, /* reported and not compared: empty after a restore, not in the stream */
} TableKind;

typedef struct TableColumn {
    const char *name;
    const char *type; /* as format_type prints it: numeric(10,2), "s"."enum" */
    uint32_t type_oid;
    /* Around the column: its exact bytes as bytea, for hashing. carries_oids: those bytes name
     * types by OID (composites, arrays of user-defined types), so they compare only between copies
     * that have the same ones. */
    const char *open;
    const char *close;
    bool carries_oids;
    bool not_null;
    bool generated;
} TableColumn;

typedef struct Table {
    uint32_t oid;
    const char *schema;
    const char *name;
    TableKind kind;
    const TableColumn *columns;
    uint32_t column_count;
    const uint32_t *key; /* indexes into columns: primary key, else replica identity index, else a
                            unique not-null index */
    uint32_t key_count;  /* 0: keyless */
    bool heap;           /* rows have addresses (ctid) that chunks can be cut by */
    uint64_t rows_estimate;
    uint64_t pages;
} Table;

typedef struct TableLeftOut {
    const char *schema;
    const char *name;
    const char *why; /* "foreign table", "materialized view", … */
} TableLeftOut;

typedef struct TableList {
    const Table *tables;
    size_t count;
    const TableLeftOut *left_out;
    size_t left_out_count;
    const char *encoding; /* the database's */
    const char
        *type_oids; /* digest of user-defined types' names and OIDs: equal on physical copies */
} TableList;

/* By schema, then name, as bytes. Connections opened with pg_open (search_path pg_catalog). */
MUST_USE bool tables_read(Pg *pg, Arena *arena, TableList *out, Err *err);
/* NULL: not there. */
const Table *tables_find(const TableList *list, const char *schema, const char *name);

typedef enum TableDriftKind {
    DRIFT_TABLE_MISSING, /* on the target */
    DRIFT_TABLE_EXTRA,   /* only on the target */
    DRIFT_COLUMN_MISSING,
    DRIFT_COLUMN_EXTRA,
    DRIFT_COLUMN_TYPE,
    DRIFT_TABLE_KIND,
    DRIFT_ENCODING, /* of the whole database */
} TableDriftKind;

typedef struct TableDrift {
    TableDriftKind kind;
    const char *schema;
    const char *table;
    const char *column; /* NULL where it is about the table */
    const char *source; /* type, kind, encoding; NULL where missing */
    const char *target;
} TableDrift;

typedef struct TableDriftList {
    const TableDrift *items;
    size_t count;
} TableDriftList;

const char *table_drift_name(TableDriftKind kind); /* "missing table", … */
void tables_compare(const TableList *source, const TableList *target, Arena *arena,
                    TableDriftList *out);

#endif
