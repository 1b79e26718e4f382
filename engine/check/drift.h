/* drift.h - everything that isn't a row or a sequence's value, compared on both sides: definitions,
 * owners, rights, extensions, large objects, and of the whole server roles and settings.
 *
 * A copy has all of it as it was at the snapshot; what changes later reaches the copy only as far
 * as the stream applies DDL, and roles and large objects never do. What keybridge itself has
 * changed on the copy (its schema and publication, triggers and jobs stilled, the database closed)
 * is no difference. Both connections come from pg_open; each list is read with one statement, in
 * the caller's transaction if there is one.
 */
#ifndef DRIFT_H
#define DRIFT_H

#include "appliers/postgres/pg.h"
#include "engine/base/arena.h"

typedef struct DriftItem {
    const char *kind;   /* "column" */
    const char *name;   /* "public.orders.total" */
    const char *source; /* its definition, or a digest of a long one; NULL: not there */
    const char *target;
} DriftItem;

typedef struct Drift {
    DriftItem *items;
    size_t count;
    size_t room;
} Drift;

/* Adds what differs in the databases that the two connections are in. */
MUST_USE bool drift_database(Pg *source, Pg *target, Arena *arena, Drift *drift, Err *err);
/* Adds what differs between the two servers: once, over connections to any database. */
MUST_USE bool drift_server(Pg *source, Pg *target, Arena *arena, Drift *drift, Err *err);

/* "column public.orders.total: numeric(10,2) on the source, not on the target" */
const char *drift_text(const DriftItem *item, Arena *arena);

/* How often large objects were written, as the server's statistics count it: another text later
 * means that some were. In the arena. */
MUST_USE bool drift_large_objects(Pg *pg, Arena *arena, const char **writes, Err *err);

#endif
