/* fence.h - keeps writers out of the source: first by locks, which one ROLLBACK undoes, then for
 * good.
 *
 * Locks: one transaction per database holds SHARE ROW EXCLUSIVE on every published table. Writers
 * wait (an application sees a pause, not an error), readers go on. A lock that isn't granted within
 * lock_timeout_ms ends the attempt: the locks are released, so that no queue builds up behind us
 * and nothing deadlocks (the timeout is kept below deadlock_timeout), and the table that was in the
 * way is asked for first the next time.
 *
 * Before that, without hurry, SHARE UPDATE EXCLUSIVE: writers don't notice it, but an autovacuum,
 * which would otherwise keep us out for as long as it takes, is cancelled by the server after
 * deadlock_timeout, and no new one begins.
 *
 * For good: ALTER DATABASE … ALLOW_CONNECTIONS false, which no session can override and which needs
 * no more than owning the database; then all other sessions are ended. It is undone from another
 * database (template1). The locks are held meanwhile, so a session that slips in can't write
 * either.
 *
 * A Fence belongs to one thread. Errors are ERR_SOURCE; ERR_TIMEOUT when somebody stayed in the
 * way, with who.
 */
#ifndef FENCE_H
#define FENCE_H

#include "appliers/postgres/pg.h"
#include "engine/base/arena.h"

typedef struct FenceDb {
    const char *name;
    const char *dsn;         /* secret */
    const char *publication; /* whose tables are locked */
    const char *slot;        /* whose walsender is left alone */
} FenceDb;

typedef struct FenceConf {
    const FenceDb *dbs;
    size_t count;
    const char *maintenance_dsn; /* secret; a database that isn't fenced: template1 */
    uint64_t lock_timeout_ms;
    uint64_t give_up_ms; /* for getting the locks */
    const Stop *stop;
} FenceConf;

typedef struct Fence Fence;

/* Connects: per database one connection that holds the locks and one that works beside it. */
MUST_USE Fence *fence_open(const FenceConf *conf, Err *err);
/* Releases the locks. What is durable stays. NULL is fine. */
void fence_close(Fence *fence);

/* Tables that will be locked, and what keeps the durable fence from working: not the owner,
 * template1 closed. */
MUST_USE bool fence_check(Fence *fence, size_t *tables, Err *err);

typedef struct FenceLocks {
    unsigned attempts;
    size_t tables;
    uint64_t asked_us;   /* mono_us at which the attempt that worked began: from here writers were
                            blocked */
    uint64_t granted_us; /* all locks */
} FenceLocks;
MUST_USE bool fence_lock(Fence *fence, FenceLocks *locks, Err *err);
/* Whether no prepared transaction is left in the databases. fence_lock asks, too; after the
 * sessions are ended nobody can prepare one any more. ERR_TIMEOUT names them. */
MUST_USE bool fence_no_prepared(Fence *fence, Err *err);
void fence_unlock(Fence *fence);

/* A transactional message in each database; ends[i] is its position in database i's stream. With
 * the locks held, every change of a locked table was committed before it, asynchronously or not. */
MUST_USE bool fence_mark(Fence *fence, const char *content, uint64_t *ends, Err *err);

/* ALLOW_CONNECTIONS false on each database. */
MUST_USE bool fence_shut(Fence *fence, Err *err);
/* Ends all other sessions and waits until they are gone. `who` gets "3 x app from 10.0.0.5 (psql)"
 * joined by "; ". */
MUST_USE bool fence_evict(Fence *fence, uint64_t wait_ms, unsigned *ended, Buf *who, Err *err);
/* Sessions that are there although nobody may; ended again. */
MUST_USE bool fence_watch(Fence *fence, unsigned *found, Buf *who, Err *err);

/* The connection beside the locks, for reading sequences. Borrowed. */
Pg *fence_side(Fence *fence, size_t db);

/* Takes the durable fence away: from any process, with nothing but the maintenance connection.
 * Repeatable. */
MUST_USE bool fence_reopen(const char *maintenance_dsn, const char *const *databases, size_t count,
                           Err *err);

#endif
