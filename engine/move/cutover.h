/* cutover.h - the moment in which the application changes sides, with at most one of them writable
 * throughout.
 *
 *   ready       lag, switch, privileges, sequences: everything that can be known before writers
 * notice anything fence       locks on every table of every database: writers wait drain       a
 * marker under the locks is the end; everything up to it is durable on the target sequences   read,
 * raised on the target, read back close       ALLOW_CONNECTIONS false, sessions ended: from here
 * the application sees errors until it has moved prove       a second marker: nothing but markers
 * was committed behind the first; sequences once more open        the target takes writes switch
 * clients are moved; the window ends settle      the move is visible everywhere watch       late
 * comers on the old side, the locks still held
 *
 * Up to "open" every failure, the timeout and a kill are undone: the source takes writes again, by
 * itself or by the next run, and the target stays read-only. From "open" on there is only forward:
 * the journal says so before it is done.
 */
#ifndef CUTOVER_H
#define CUTOVER_H

#include "engine/move/move.h"

/* The streams run (move->follow), the target is quiet, verified. With conf->dry_run only "ready"
 * and a rehearsal of the drain; ERR_TIMEOUT when undone for time. */
MUST_USE bool cutover_run(Move *move, Err *err);

/* What the journal says: *open: the target was opened, or is being opened: nothing but
 * cutover_forward may follow. */
MUST_USE bool cutover_state(Move *move, bool *open, bool *done, Err *err);
/* After a kill: finishes a cut-over that is past its point of no return. No streams are needed. */
MUST_USE bool cutover_forward(Move *move, Err *err);
/* After a kill: takes back what a cut-over before that point left: the closed databases. */
MUST_USE bool cutover_undo(Move *move, Err *err);

#endif
