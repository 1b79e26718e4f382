/* apply.h - the target's half of a stream: router, lanes and their appliers behind one queue.
 *
 * The reading half pushes batches, in commit order; this half applies each completely before it
 * commits the next, with its progress in the same target transactions (DESIGN section 3.3 to 3.7).
 * It owns its threads and target connections. When it fails it closes the queue; ask apply_error
 * then.
 */
#ifndef APPLY_H
#define APPLY_H

#include "engine/base/queue.h"
#include "engine/base/stop.h"
#include "engine/model/txn.h"

typedef struct Apply Apply;

#define SKIP_TXNS_MOST 32

typedef struct ApplyConf {
    const char *target_dsn; /* secret: never logged */
    const char
        *stream;    /* the name under which progress is kept on the target, usually the slot's */
    unsigned lanes; /* connections that write */
    bool text_only; /* the source sends text values (types differ on the two sides) */
    size_t queue_batches; /* batches that may wait */
    bool stop_at_ddl;     /* never apply the source's DDL */
    bool publishes_list;  /* the publication isn't for all tables */
    Position ddl_applied; /* commit of a transaction whose DDL was applied by hand; NONE: none */
    bool skip_failed;     /* operator's choice: a transaction that can't be applied goes to
                             keybridge.dead_letter */
    Position skip_txns[SKIP_TXNS_MOST]; /* … only these, by their commits */
    size_t skip_txn_count;
} ApplyConf;

/* What the target holds already, read before anything is streamed. */
typedef struct ApplyProgress {
    Position
        start; /* what apply_set_start recorded, in this run or an earlier one; NONE: nothing yet */
    bool any;  /* false: this stream never applied anything here */
    Position applied;     /* commit of the last transaction in the last complete batch */
    Position applied_end; /* its end: where to restart, and what may be confirmed */
    bool partial;         /* a batch is there in some lanes only and must be formed again: */
    Position first;       /* commit of its first transaction */
    Position last;        /* commit of its last */
    unsigned lanes;       /* over which it was routed */
} ApplyProgress;

/* Creates schema keybridge and its tables when missing, takes the advisory lock of this stream
 * (another process that has it: ERR_STATE), pins the session settings, reads progress, starts the
 * threads. */
MUST_USE Apply *apply_open(const ApplyConf *conf, const Stop *stop, Err *err);
void apply_close(Apply *apply); /* stops, joins, frees; what was not committed is rolled back */

/* Records the position the stream starts from, when nothing is recorded yet (so that a restart
 * can't start elsewhere). A recorded start that differs is ERR_STATE. */
MUST_USE bool apply_set_start(Apply *apply, Position start, Err *err);

ApplyProgress apply_progress(const Apply *apply);
/* Push Batch * here (ownership moves). Closed by apply when it failed. */
Queue *apply_queue(Apply *apply);
/* True when nothing is queued or being applied: a small batch would go straight through. */
bool apply_is_idle(const Apply *apply);
/* Ends of the last transaction committed on the target, and of the last one known to be flushed
 * there. Any thread. */
Position apply_committed_end(const Apply *apply);
Position apply_durable_end(const Apply *apply);
/* Somebody waits for what was handed over to be durable: from now on the target's disk is asked for
 * it at once, instead of when it suits the target. */
void apply_hurry(Apply *apply);
/* Why it failed; kind ERR_NONE while it works. */
void apply_error(Apply *apply, Err *err);

typedef struct ApplyCounters {
    uint64_t batches, transactions, changes, rows_written; /* since apply_open */
    uint64_t replays;            /* batches that went through the exact-order fallback */
    uint64_t skipped;            /* transactions in the dead-letter table */
    int64_t last_commit_time_us; /* source's clock, of the last committed transaction; 0 none */
} ApplyCounters;
ApplyCounters apply_counters(const Apply *apply);

#endif
