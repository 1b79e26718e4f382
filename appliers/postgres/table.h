/* table.h - a PostgreSQL target table seen through a source relation, and the statements that write
 * it. */
#ifndef PG_TABLE_H
#define PG_TABLE_H

#include "appliers/applier.h"
#include "appliers/postgres/pg.h"

typedef struct PgColumn { /* one for each column of the relation */
    uint32_t type;        /* the target's pg_type.oid */
    uint32_t array;       /* its array type; 0: can't travel in one (arrays, composites) */
    char delimiter;       /* between elements of its arrays' text form */
    bool generated;       /* computed by the target: never written */
    bool always;          /* GENERATED ALWAYS AS IDENTITY: an update can't set it */
    bool has_equality;    /* an = in pg_catalog */
    const char *equal;    /* OPERATOR("pg_catalog".=), for keys */
    const char *cast;     /* ::base around it for a domain (enums' = takes none), else "" */
} PgColumn;

typedef struct PgTable {
    Table base;
    Arena arena;
    uint32_t oid;
    unsigned number; /* in this process: part of the names of prepared statements */
    bool partitioned;
    bool plain_with; /* before 12 a WITH is always materialized, and the word is unknown */
    PgColumn *columns;
    bool *in_key;
} PgTable;

bool pg_table_describe(Pg *pg, const Relation *rel, PgTable **table, Err *err);

/* What a statement does, and with which columns. */
typedef enum PgVerb {
    PG_INSERT,
    PG_UPDATE,
    PG_DELETE,
    PG_TOUCH,
    PG_MATCH_UPDATE,
    PG_MATCH_DELETE,
    PG_REKEY,
    PG_UPDATE_OR_REKEY /* of an identity column outside the key, which may have changed or not */
} PgVerb;
enum {                /* of each column */
       USE_VALUE = 1, /* written */
       USE_KEY = 2,   /* looked for */
};

typedef struct PgShape {
    const PgTable *table;
    PgVerb verb;
    bool many;           /* parameters are arrays, one element for each row */
    const uint8_t *uses; /* for each column */
} PgShape;

/* The statement; types gets one entry for each parameter: values in column order, then keys in
 * column order. */
void pg_shape_sql(const PgShape *shape, Buf *sql, uint32_t *types, int *count);
/* copy … from stdin, of the columns with USE_VALUE. */
void pg_copy_sql(const PgTable *table, const uint8_t *uses, bool binary, Buf *sql);
void pg_put_target(Buf *sql,
                   const PgTable *table); /* only "s"."t", or without only when it is partitioned */

/* "(id)=(5)", for messages: only the key, never other values. */
void pg_put_key(Buf *out, const Table *table, const Value *key);

#endif
