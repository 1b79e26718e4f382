/* snapshot.h - two sets of connections, one per side, that all see one moment each; with a stream
 * both the same.
 *
 * See verify.h for the rule and engine/stream/pause.h for how the stream is stopped. Every
 * connection is in a read-only transaction with a savepoint behind the import, so that a failed
 * statement costs that statement only, and the locks of each statement can be given back at once.
 */
#ifndef SNAPSHOT_H
#define SNAPSHOT_H

#include "engine/check/verify.h"

#define SNAPSHOT_MOST      64
#define SNAPSHOT_GIVE_BACK "rollback to savepoint keybridge"

typedef enum Side { SIDE_SOURCE, SIDE_TARGET, SIDES } Side;

typedef struct Snapshots {
    Pg conns[SIDES][SNAPSHOT_MOST];
    unsigned workers;
    VerifyHow how;
    Position position;
    uint64_t pause_us;
    const char *note;
} Snapshots;

/* tell: called while waiting, at least every 200 ms; may be NULL. */
typedef struct SnapshotWait {
    void (*tell)(void *arg, VerifyPhase phase);
    void *arg;
    const Stop *stop;
} SnapshotWait;

MUST_USE bool snapshots_open(Snapshots *snapshots, const VerifyConf *conf, const SnapshotWait *wait,
                             Err *err);
void snapshots_close(Snapshots *snapshots);

/* Sends `sql` (one statement or several), waits with an ear for stop, gives the first result that
 * has rows. NULL: see err; the connection is usable afterwards unless it is lost. */
MUST_USE PGresult *snapshot_ask(Pg *pg, const char *sql, const Stop *stop, Err *err);
/* The same on both sides at once. */
MUST_USE bool snapshot_ask_both(Pg *pgs[SIDES], const char *const sql[SIDES], PGresult *out[SIDES],
                                const Stop *stop, Err *err);

#endif
