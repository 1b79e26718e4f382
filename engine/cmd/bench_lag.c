/* From commit on the source to visible on the target. One session commits so many transactions a
 * second (an update and an insert of the next id); another asks the target for its highest id,
 * POLL_US after each answer. The time counts from the moment in which the source's answer to the
 * commit is here to the moment in which the target's answer is. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <time.h>

#include "engine/base/mono.h"
#include "engine/cmd/bench_impl.h"

#define POLL_US     150
#define WARM_US     2000000 /* the first two seconds don't count */
#define PATIENCE_US 60000000

typedef struct Run {
    Stage *stage;
    Lag *lag;
    Pg source, target;
    uint64_t *committed_us; /* [id - 1] */
    uint64_t count, rate, began_us;
    _Atomic uint64_t written;
    atomic_bool failed;
    Err error; /* the writer's */
} Run;

static void until_us(uint64_t when)
{
    uint64_t now = mono_us();
    struct timespec left;

    if (now >= when)
        return;
    left = (struct timespec){.tv_sec = (time_t)((when - now) / 1000000),
                             .tv_nsec = (long)((when - now) % 1000000) * 1000};
    nanosleep(&left, NULL);
}

static bool prepare(Pg *pg, const char *sql, Err *err)
{
    AUTO_RESULT res = PQprepare(pg->conn, "b", sql, 0, NULL);

    return PQresultStatus(res) == PGRES_COMMAND_OK || pg_fail(pg, res, err, "preparing");
}

static bool write_one(Run *run, uint64_t id)
{
    char text[24];
    const char *values[] = {text};

    snprintf(text, sizeof(text), "%" PRIu64, id);
    AUTO_RESULT res = PQexecPrepared(run->source.conn, "b", 1, values, NULL, NULL, 0);

    run->committed_us[id - 1] = mono_us();
    return PQresultStatus(res) == PGRES_COMMAND_OK ||
           pg_fail(&run->source, res, &run->error, "writing to the source");
}

static void *writer(void *self)
{
    Run *run = self;

    (void)prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
    for (uint64_t id = 1; id <= run->count && !run->failed; id++) {
        uint64_t due = run->began_us + (id - 1) * 1000000 / run->rate, now;

        until_us(due);
        now = mono_us();
        if (now > due && now - due > run->lag->writer_late_us)
            run->lag->writer_late_us = now - due;
        if (!write_one(run, id))
            run->failed = true;
        else
            run->written = id;
    }
    return NULL;
}

static bool highest(Run *run, uint64_t *id, Err *err)
{
    AUTO_RESULT res = PQexecPrepared(run->target.conn, "b", 0, NULL, NULL, NULL, 0);

    if (PQresultStatus(res) != PGRES_TUPLES_OK)
        return pg_fail(&run->target, res, err, "looking at the target");
    *id = strtoull(PQgetvalue(res, 0, 0), NULL, 10);
    return true;
}

/* What is here before the writer has its answer counts as nothing. */
static void count_up_to(Run *run, uint64_t *last, uint64_t id)
{
    uint64_t now = mono_us();

    for (; *last < id; ++*last) {
        uint64_t at;

        while (run->written <= *last && !run->failed)
            until_us(mono_us() + 5);
        at = run->committed_us[*last];
        if (at - run->began_us > WARM_US)
            histogram_add(&run->lag->seen, now > at ? now - at : 0);
    }
}

/* Ids are committed in order by one session, and both kinds of stream keep that order: the highest
 * says all. */
static bool look(Run *run, Err *err)
{
    uint64_t last = 0, id = 0, moved = mono_us();

    while (last < run->count && !run->failed) {
        if (stop_requested(run->stage->stop))
            return stop_fail(err, "measuring lag");
        if (!highest(run, &id, err))
            return false;
        if (id > last)
            moved = mono_us();
        count_up_to(run, &last, id);
        if (mono_us() - moved > PATIENCE_US)
            return err_fail(err, ERR_TIMEOUT, "nothing new on the target for a minute");
        until_us(mono_us() + POLL_US);
    }
    return true;
}

static bool open_sessions(Run *run, Err *err)
{
    PgOptions options = {.application = "keybridge bench", .stop = run->stage->stop};

    return pg_open(&run->source, run->stage->source_dsn, ERR_SOURCE, &options, err) &&
           pg_open(&run->target, run->stage->copy_dsn, ERR_TARGET, &options, err) &&
           pg_exec(&run->source, "set search_path = public", err) &&
           /* The plan is made while the table is empty. */
           pg_exec(&run->target, "set search_path = public; set enable_seqscan = off", err) &&
           prepare(&run->source,
                   "with a as (update accounts set balance = balance + 1"
                   " where id = $1::bigint % 1000 + 1)"
                   " insert into lag values ($1::bigint, 'some text that goes along')",
                   err) &&
           prepare(&run->target, "select coalesce(max(id), 0) from lag", err);
}

static bool run_both(Run *run, Err *err)
{
    pthread_t thread;
    bool ok;

    run->began_us = mono_us();
    if (pthread_create(&thread, NULL, writer, run) != 0)
        return err_fail(err, ERR_SYSTEM, "starting a thread");
    ok = look(run, err);
    if (!ok)
        run->failed = true;
    pthread_join(thread, NULL);
    if (ok && err_is_set(&run->error)) {
        *err = run->error;
        return false;
    }
    return ok;
}

bool lag_measure(Stage *stage, Lag *lag, Err *err)
{
    Run *run = calloc(1, sizeof(*run));
    bool ok;

    if (!run)
        abort();
    run->stage = stage;
    run->lag = lag;
    run->rate = stage->conf->bench_rate;
    run->count = run->rate * (stage->conf->bench_seconds + WARM_US / 1000000);
    run->committed_us = calloc(run->count + 1, sizeof(*run->committed_us));
    if (!run->committed_us)
        abort();
    lag->writer_late_us = 0;
    histogram_init(&lag->seen);
    (void)prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL); /* ns, not the usual 50 us */
    ok = open_sessions(run, err) && run_both(run, err);
    pg_close(&run->source);
    pg_close(&run->target);
    free(run->committed_us);
    free(run);
    return ok;
}
