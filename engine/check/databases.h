/* databases.h - which databases of two servers belong together: one that is named, or all of the
 * source's. */
#ifndef DATABASES_H
#define DATABASES_H

#include "appliers/postgres/pg.h"
#include "engine/base/arena.h"

typedef struct DatabaseList {
    const char *const *names; /* NULL: the one that each connection string names */
    size_t count;
} DatabaseList;

/* `only` when given; else what the connection strings name (one of them for both, or each its own);
 * else all that can be connected to, but for templates and rdsadmin, by name. */
MUST_USE bool databases_of(const char *source_dsn, const char *target_dsn, const char *only,
                           const Stop *stop, Arena *arena, DatabaseList *out, Err *err);

#endif
