/* fit.h - can a target's columns hold what the source's send, unchanged?
 *
 * Looked at whenever the source describes a table, so a type that was altered while the stream runs
 * is seen before its first value is written.
 */
#ifndef PG_FIT_H
#define PG_FIT_H

#include "appliers/postgres/table.h"

/* Fails as ERR_FAITHFUL when a value would be rounded, cut or otherwise changed by the target's
 * column (one that would be refused passes: that is loud enough). With binary, fails as transient
 * with code VALUE_FORM when a column has another type than on the source: its values can only be
 * sent as text. */
MUST_USE bool pg_table_fits(Pg *pg, const PgTable *table, bool binary, Err *err);

#endif
