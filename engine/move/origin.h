/* origin.h - what a migration makes on the source: publication, slot, marker; and their removal.
 *
 * The order is publication, slot, marker, snapshot: a slot made before the publication can't decode
 * from its start, and a snapshot taken before the slot leaves a gap. The marker is the
 * publication's comment: it needs no table, no right beyond owning the publication, is part of
 * every copy taken afterwards, and goes when the publication goes.
 *
 * Every function can be repeated. Errors are ERR_SOURCE, and ERR_STATE for things of that name that
 * somebody else made. `pg` is a connection to the database in question.
 */
#ifndef ORIGIN_H
#define ORIGIN_H

#include "appliers/postgres/pg.h"
#include "engine/base/arena.h"

/* FOR ALL TABLES when allowed, else the list of the tables that there are (*all_tables false).
 * `ours`: one that exists already may be taken, because an earlier run intended to make it. */
MUST_USE bool origin_publish(Pg *pg, const char *publication, bool ours, bool *all_tables,
                             Err *err);
/* False, too, when the publication has row filters, column lists or not all operations. */
MUST_USE bool origin_publishes_all(Pg *pg, const char *publication, Err *err);

typedef struct OriginSlot {
    bool exists;
    bool active;
    const char *database;
    const char *plugin;
    const char *wal_status;   /* reserved, extended, unreserved, lost */
    uint64_t confirmed_flush; /* until it is used: its consistent point */
    uint64_t restart;
    uint64_t source_flush; /* the server's own flush position, for comparison */
} OriginSlot;
MUST_USE bool origin_slot(Pg *pg, const char *slot, Arena *arena, OriginSlot *out, Err *err);

/* Makes it, or takes the one that is there when `ours`. Making waits for all transactions that are
 * open: after a while it names them in the log, after wait_ms it gives up and names them in the
 * error. */
typedef struct OriginNeed {
    uint64_t wait_ms;
    bool failover; /* standbys keep it in step: from version 17 on, refused before */
} OriginNeed;
MUST_USE bool origin_make_slot(Pg *pg, const char *slot, bool ours, const OriginNeed *need,
                               const Stop *stop, Arena *arena, uint64_t *consistent_point,
                               Err *err);
/* The name for a database's slot: the prefix, and what of the database's name is allowed in a
 * slot's. */
const char *origin_slot_name(Arena *arena, const char *prefix, const char *database);

MUST_USE bool origin_mark(Pg *pg, const char *publication, const char *marker, Err *err);
/* *found is NULL when the publication or its comment isn't there. Also for the copy. */
MUST_USE bool origin_marker(Pg *pg, const char *publication, Arena *arena, const char **found,
                            Err *err);

/* SQL, of pg_class c: an extension's table that belongs to somebody else, as RDS's own do. It can
 * neither be listed in a publication nor locked, and is in the copy as it was. */
#define ORIGIN_NOT_OURS                                                                          \
    " (not pg_has_role(c.relowner, 'USAGE') and exists (select from pg_depend d where d.classid" \
    " = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')) "

/* Both succeed when there is nothing to drop. A slot in use is waited for up to wait_ms. */
MUST_USE bool origin_drop_slot(Pg *pg, const char *slot, uint64_t wait_ms, Err *err);
MUST_USE bool origin_drop_publication(Pg *pg, const char *publication, Err *err);

/* Who has transactions open that a slot or a lock waits for: "pid 12 app from 10.0.0.1 (psql), open
 * 35 s, idle in transaction", joined by "; ", at most five; "" when there are none. */
MUST_USE bool origin_open_transactions(Pg *pg, uint64_t older_than_ms, Buf *out, Err *err);

#endif
