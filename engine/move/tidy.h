/* tidy.h - takes away what a migration left behind, and says what still hangs on the old key.
 *
 * Before the point of no return: everything that was made goes, the source is as it was (fences
 * open, no slot, no publication), the new instance is deleted; the journal starts anew. After it:
 * slots, intermediate snapshots and keybridge's own schema on the new side go; the old instance
 * stays, closed, for its owner to delete.
 *
 * Only things that this migration made are touched. Repeatable. With dry_run it only tells.
 */
#ifndef TIDY_H
#define TIDY_H

#include "engine/move/move.h"

typedef struct TidyReport {
    unsigned done;   /* actions taken, or that would be taken */
    unsigned failed; /* each logged; the first one's error is in `err` of tidy_run */
} TidyReport;

/* Lines for people on stdout, one per action. False when something could not be removed. */
MUST_USE bool tidy_run(Move *move, bool dry_run, TidyReport *report, Err *err);

#endif
