/* pause.h - lets a verification stop the appliers of a stream at precisely one position, for a
 * moment.
 *
 * The two sides meet in one row of keybridge.pause on the target (so they may be two processes):
 *
 *   verify inserts the row without a position    "hold": stand still as soon as what is being
 * applied is committed stream sets state = 'held'                    nothing is being applied, and
 * nothing is begun verify takes the source's snapshot at P, sets at = P stream applies what
 * committed before P, sees a transaction that committed at or behind P and sets state = 'reached'
 *   verify opens its snapshot of the target, checks the row in it, deletes it
 *   stream goes on
 *
 * Changes of the row are told by NOTIFY keybridge_pause, with a look every second besides. The row
 * is a lease: verify renews it, and when it is not renewed for PAUSE_LEASE_S the stream goes on as
 * if there was none (verify finds out, because the row in its snapshot then isn't 'reached').
 *
 * A Pause has a thread and a connection of its own. pause_admit and pause_committed are for the
 * apply half:
 *
 *   for each batch taken from the queue:
 *       for (rest = NULL; batch; batch = rest) {
 *           pause_admit(pause, &batch, &rest, stop, err)   waits while nothing of it may be
 * applied; then splits off what may not: … route, execute, commit, free batch …          that is
 * rest, or NULL. Free rest after batch: it has the memory of both pause_committed(pause, commit of
 * the batch's last transaction)
 *       }
 *
 * What is in flight when pause_admit waits must be able to get committed without the waiting
 * thread, or be committed before (pause_is_on tells when it is worth it). One thread admits, one
 * (the same or another) tells what is committed, in the same order. A batch that is formed again
 * after a crash (lanes_before) is never cut or held: it has to be completed before the target is in
 * a state to look at.
 */
#ifndef PAUSE_H
#define PAUSE_H

#include "engine/base/stop.h"
#include "engine/model/txn.h"

#define PAUSE_CHANNEL    "keybridge_pause"
#define PAUSE_LEASE_S    10
#define PAUSE_LEASE_TEXT "10"
/* First key of the advisory lock (two int4) that a listening Pause holds; the second is
 * hashtext(stream). */
#define PAUSE_LOCK_TEXT "1801614451"
/* Creates schema and table where missing; both sides run it. */
#define PAUSE_TABLE_SQL                                                                     \
    "create schema if not exists keybridge;"                                                \
    "create table if not exists keybridge.pause("                                           \
    " stream text primary key, request text not null, state text not null default 'asked'," \
    " at text, applied text, requested_at timestamptz not null default clock_timestamp(),"  \
    " renewed_at timestamptz not null default clock_timestamp())"

typedef struct Pause Pause;

/* partial: a batch has to be formed again first (ApplyProgress.partial). */
MUST_USE Pause *pause_open(const char *target_dsn, const char *stream, bool partial, Err *err);
void pause_close(Pause *pause); /* NULL is fine */

/* See above. False only when stop came; the batch is as it was then. */
MUST_USE bool pause_admit(Pause *pause, Batch **batch, Batch **rest, const Stop *stop, Err *err);
void pause_committed(Pause *pause, Position commit);
/* True while a verification holds or limits the stream: for status. */
bool pause_is_on(Pause *pause);

#endif
