/* bench_impl.h - what the parts of keybridge bench share.
 *
 * Two servers of the user's are borrowed: a database keybridge_bench on both, its copy on the
 * target (made anew for each drain), slots whose names begin so. Whatever has such a name already
 * is somebody's and refused; all of it goes away at the end, also after an error.
 */
#ifndef BENCH_IMPL_H
#define BENCH_IMPL_H

#include "appliers/postgres/pg.h"
#include "engine/base/arena.h"
#include "engine/base/histogram.h"
#include "engine/base/stop.h"
#include "engine/conf/conf.h"

#define BENCH_NAME "keybridge_bench"

typedef struct Backlog {
    const char *name, *what;
    unsigned full;     /* transactions */
    double must;       /* of native's time, at most (docs/speed.md) */
    bool alone;        /* one transaction, of so many times 100,000 rows; only when asked for */
    const char *setup; /* on both sides; has a procedure load(n), which is called on the source */
} Backlog;

extern const Backlog bench_backlogs[];
extern const size_t bench_backlog_count;
/* Tables of the measurement of lag: lag (id bigint primary key, note), accounts (id, balance). */
extern const char bench_lag_setup[];

typedef struct Stage {
    const Conf *conf;
    const Stop *stop;
    Arena arena;
    Pg source, target;          /* as the user connects */
    const char *source_dsn;     /* of the databases that are made; secret */
    const char *target_dsn;     /* secret */
    const char *copy_dsn;       /* secret */
    int source_pid, target_pid; /* postmasters on this host, 0: elsewhere */
    char folder[64];
    bool ours; /* nothing of that name was there */
    unsigned slots;
} Stage;

typedef struct Figures {
    double seconds, source_cpu, target_cpu, own_cpu; /* CPU: seconds, negative when not known */
    double rss_mib;
} Figures;

MUST_USE bool stage_open(Stage *stage, const Conf *conf, const Stop *stop, Err *err);
/* Takes everything away again, as far as that is possible. */
void stage_close(Stage *stage);

/* The databases of one measurement. */
MUST_USE bool stage_make(Stage *stage, const char *setup, Err *err);
MUST_USE bool stage_drop(Stage *stage, Err *err);
MUST_USE bool stage_fresh_copy(Stage *stage, Err *err);
/* The slot's name is written to `slot`. */
MUST_USE bool stage_slot(Stage *stage, char slot[64], Err *err);
MUST_USE bool stage_drop_slot(Stage *stage, const char *slot, Err *err);
/* Are all tables of the source equal to those of the copy? ERR_DIFFERENT otherwise. */
MUST_USE bool stage_compare(Stage *stage, Err *err);

/* What the servers have used so far. */
void meter_start(Stage *stage, Figures *at);
/* `at` becomes what was used since. */
void meter_stop(Stage *stage, Figures *at);

/* PostgreSQL's own subscription in the copy. */
typedef struct Native {
    Pg pg;
} Native;
MUST_USE bool native_make(Native *native, Stage *stage, const char *slot, Err *err);
MUST_USE bool native_start(Native *native, Err *err);
MUST_USE bool native_end(Native *native, Err *err);

/* keybridge replicate, a process of its own. */
typedef struct Child {
    int pid, fd;
} Child;
MUST_USE bool child_start(Child *child, Stage *stage, const char *slot, const char *until,
                          Err *err);
/* Its CPU time and memory go into `used`. asked: it was told to end, and isn't failed for that. */
MUST_USE bool child_wait(Child *child, Stage *stage, bool asked, Figures *used, Err *err);
void child_end(Child *child); /* asks it to end */

typedef struct Lag {
    Histogram seen; /* microseconds */
    uint64_t writer_late_us;
} Lag;
/* From commit on the source to visible in the copy, over a stream that runs. */
MUST_USE bool lag_measure(Stage *stage, Lag *lag, Err *err);

#endif
