/* dsn.h - connection strings made from others: the same server, another database.
 *
 * What comes out holds whatever password went in, so it is a secret: it lives in the arena and goes
 * nowhere else.
 */
#ifndef DSN_H
#define DSN_H

#include "engine/base/arena.h"
#include "engine/base/err.h"

/* The same connection to another database; NULL: see err. */
MUST_USE const char *dsn_with_database(Arena *arena, const char *dsn, const char *database,
                                       Err *err);
/* From parts; NULL parts are left to libpq's own defaults (PGPASSFILE, PGSSLMODE, …). */
const char *dsn_of_parts(Arena *arena, const char *host, unsigned port, const char *user,
                         const char *password, const char *database);
/* One keyword of it ("host", "dbname", "user"), with libpq's defaults filled in; NULL: not there.
 */
const char *dsn_part(Arena *arena, const char *dsn, const char *keyword);

#endif
