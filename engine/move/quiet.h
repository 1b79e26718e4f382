/* quiet.h - the restored copy made still, and opened again at the switch.
 *
 * A physical copy brings along what must not run twice: replication slots, subscriptions that would
 * pull from the same publisher, the publication, prepared transactions that hold locks, triggers
 * that fire even for a replica role, scheduled jobs. Quieting removes or disables them and makes
 * every new session of the database read-only (default_transaction_read_only; keybridge's own
 * sessions turn it off for themselves), so that nobody writes here before the source is durably
 * fenced. What opening has to put back is given to `note` before it is changed.
 *
 * Everything can be repeated. Errors are ERR_TARGET.
 */
#ifndef QUIET_H
#define QUIET_H

#include "appliers/postgres/pg.h"
#include "engine/base/arena.h"

typedef struct QuietNote {
    /* A statement that opening runs in this database, kept durably before the change is made. */
    bool (*keep)(void *self, const char *undo, Err *err);
    void *self;
} QuietNote;

typedef struct QuietReport {
    unsigned slots, subscriptions, prepared, triggers, jobs; /* dropped, disabled or rolled back */
    Buf *prepared_names; /* the caller's, or NULL: which were rolled back, and whose, is added */
} QuietReport;

/* Once for the server, in any database: slots that the copy brought along, except active ones. */
MUST_USE bool quiet_slots(Pg *pg, QuietReport *report, Err *err);
/* In each database. */
MUST_USE bool quiet_database(Pg *pg, const char *publication, const QuietNote *note,
                             QuietReport *report, Err *err);
/* Read-only for new sessions; by itself, so that it can be checked. */
MUST_USE bool quiet_is_closed(Pg *pg, const char *database, bool *closed, Err *err);
/* Opening: the kept statements, then read-only off. Statements that were run before do no harm. */
MUST_USE bool quiet_open(Pg *pg, const char *database, const char *const *undo, size_t count,
                         Err *err);

#endif
