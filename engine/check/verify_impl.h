/* verify_impl.h - what the files of the verification share; nobody else includes it. */
#ifndef VERIFY_IMPL_H
#define VERIFY_IMPL_H

#include "engine/check/snapshot.h"

#define VERIFY_SQL_MOST MIB(16)

/* An order-independent digest of a set of rows that doesn't cancel: two sums of differently seeded
 * 64-bit hashes. */
typedef struct RowSum {
    uint64_t rows;
    uint64_t sum[2];
} RowSum;

static inline bool row_sum_equal(RowSum a, RowSum b)
{
    return a.rows == b.rows && a.sum[0] == b.sum[0] && a.sum[1] == b.sum[1];
}

void row_sum_add(RowSum *sum, const PGresult *res, int row, int column); /* count, sum, sum */

/* The pieces of SQL; names are resolved in pg_catalog only, the table's alias is t. */
void hash_put_columns(Buf *sql, const Table *table,
                      bool portable); /* bytea[] of all columns' exact bytes */
void hash_put_key(Buf *sql, const Table *table, bool portable); /* bigint; keyed tables */
void hash_put_row_array(
    Buf *sql, const Table *table,
    bool portable); /* bytea[] of one element: what is hashed with seeds 0 and 1 */
void hash_put_from(Buf *sql, const Table *table);                          /* from only "s"."t" t */
void column_put_bytes(Buf *sql, const TableColumn *column, bool portable); /* bytea */

/* One table on both sides. `shape` is the source's; the target's has the same columns by name. */
typedef struct TableCheck {
    const Table *shape;
    bool portable; /* types have other OIDs on the two sides */
    RowSum sum[SIDES];
    VerifyTable *out;
} TableCheck;

typedef struct NarrowConf {
    unsigned report_rows;
    bool show_values;
    const Stop *stop;
} NarrowConf;

/* Which rows make a table different; fills out->missing … rows. */
MUST_USE bool narrow(Pg *pgs[SIDES], TableCheck *check, const NarrowConf *conf, Arena *arena,
                     Err *err);

#endif
