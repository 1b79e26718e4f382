/* apply_impl.h - what the parts of the writing half share.
 *
 * Threads: the router (forms plans), the lanes (write them, one connection each), the watcher (asks
 * the target what is flushed). One plan is with the lanes while the router prepares the next one.
 *
 *   router   pop ─ route, compact ─ wait until the lanes are free ─ publish
 *   lane     execute its part ─ wait for the others ─ commit (or roll back) ─ the last one to leave
 * finishes the plan
 */
#ifndef APPLY_IMPL_H
#define APPLY_IMPL_H

#include <pthread.h>

#include "engine/stream/apply.h"
#include "engine/stream/ddl.h"
#include "engine/stream/pause.h"
#include "engine/stream/router.h"

typedef struct Lane {
    Apply *apply;
    unsigned index;
    pthread_t thread;
    bool running;
    Applier *applier;
    Position last; /* what its progress row on the target says; NONE: no row */
    bool has_it;   /* the batch that is formed again: this lane committed it before the crash */
    uint64_t seen; /* generation of the last plan it took part in */
    /* The transaction on the target, see lane_ddl.c */
    DdlState *ddl;
    const Txn *ddl_txn;      /* whose messages it has seen */
    struct OwnTable *tables; /* as they are inside it */
    bool altered;            /* it has changed the schema */
    bool new_types;          /* it has made types, */
    bool new_names;          /* renamed a schema */
    bool ddl_failed;
} Lane;

typedef struct KnownTable KnownTable;

struct Apply {
    ApplyConf conf; /* its strings are ours */
    Stop closing;
    Queue *queue;
    bool synchronous; /* the target can't say what it has flushed: commits wait */

    pthread_mutex_t lock;  /* for everything up to the next line */
    pthread_cond_t work;   /* for lanes: a plan, an end */
    pthread_cond_t idle;   /* for the router: the lanes are free */
    pthread_cond_t agreed; /* for lanes: all have arrived, or it is their turn */
    Plan *plan;            /* with the lanes */
    uint64_t generation;
    unsigned arrived, left, commits;
    bool any_failed;          /* before the commits */
    bool tie_broken;          /* by us: a lane waited for another one's lock */
    uint64_t executing_since; /* mono_ms */
    Err failure;              /* of the plan: the first one */
    bool commit_failed;
    bool router_busy;
    bool anew;  /* DDL made what only a new session of the stream sees right */
    bool quit;  /* closed, or failed */
    bool hurry; /* somebody waits for all of it to be durable */
    Err error;
    Position committed, committed_end, durable_end;
    ApplyCounters counters;
    /* -- */

    Lane *lanes;
    unsigned lane_count;
    atomic_uint together; /* batches left in which tables with unique indexes aren't cut */
    pthread_t router, watcher;
    bool router_running, watcher_running;

    ApplyProgress progress;    /* partial is the router's: false once the batch was formed again */
    ApplyProgress opened_with; /* as read; never changes */
    uint64_t partial_print;    /* fingerprint of the batch that must be formed again */

    Pause *pause; /* verifications stop us there */

    pthread_mutex_t control_lock; /* for control and tables */
    Applier *control;
    KnownTable *tables;  /* by relation serial */
    KnownTable *retired; /* described again since; plans may still point at them */
    TableSource table_source;
};

/* --- apply.c --- */
void apply_fail(Apply *apply, const Err *err); /* the first one counts; ends everything */
/* Tables are described again when next asked for. */
void apply_forget_tables(Apply *apply);

/* --- lane.c --- */
void *lane_main(void *lane);

/* --- lane_ddl.c --- */
TableSource lane_tables(Lane *lane); /* as this lane's transaction sees them */
void lane_ddl_begin(Lane *lane);     /* a transaction begins on the target, */
void lane_ddl_end(Lane *lane);       /* has committed */
void lane_ddl_free(Lane *lane);
bool lane_ddl_heals(Lane *lane, Err *err);     /* makes the error one that a new session cures */
bool lane_ddl_goes_on(Apply *apply, Err *err); /* false: a new session is needed */
/* Everything before is settled. tell: log what stops the stream. */
MUST_USE bool lane_ddl(Lane *lane, const Change *change, const Txn *txn, bool tell, Err *err);

/* --- watch.c --- */
void *watch_main(void *apply);

#endif
