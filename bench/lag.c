/* lag - from commit on the source to visible on the target.
 *
 *   lag SOURCE TARGET RATE SECONDS
 *
 * Wants table lag (id bigint primary key, …) and accounts (id, balance) on both sides, with a
 * stream between them that somebody else runs. One session commits RATE transactions a second (an
 * update and an insert of the next id); another asks the target for its highest id, POLL_US after
 * each answer. The time counts from the moment in which the source's answer to the commit is here
 * to the moment in which the target's answer is. Prints one line of JSON, times in microseconds.
 */
#include "engine/base/base.h"

#include <libpq-fe.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <time.h>

#include "engine/base/histogram.h"
#include "engine/base/mono.h"

#define POLL_US     150
#define WARM_US     2000000 /* the first two seconds don't count */
#define PATIENCE_US 60000000

typedef struct Lag {
    PGconn *source, *target;
    uint64_t *committed_us; /* [id - 1] */
    uint64_t count;
    unsigned rate;
    uint64_t began_us;
    uint64_t late_us; /* by how much the writer has missed its times, at most */
    _Atomic uint64_t written;
    atomic_bool failed;
} Lag;

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

static bool answered(PGconn *conn, PGresult *res)
{
    ExecStatusType status = PQresultStatus(res);

    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
        return true;
    fprintf(stderr, "lag: %s", PQerrorMessage(conn));
    return false;
}

static bool write_one(Lag *lag, uint64_t id)
{
    char text[24];
    const char *values[] = {text};

    snprintf(text, sizeof(text), "%" PRIu64, id);
    PGresult *res = PQexecPrepared(lag->source, "w", 1, values, NULL, NULL, 0);
    bool ok = answered(lag->source, res);

    lag->committed_us[id - 1] = mono_us();
    PQclear(res);
    return ok;
}

static void *writer(void *self)
{
    Lag *lag = self;

    for (uint64_t id = 1; id <= lag->count && !lag->failed; id++) {
        uint64_t due = lag->began_us + (id - 1) * 1000000 / lag->rate, now;

        until_us(due);
        now = mono_us();
        if (now > due && now - due > lag->late_us)
            lag->late_us = now - due;
        if (!write_one(lag, id))
            lag->failed = true;
        else
            lag->written = id;
    }
    return NULL;
}

static bool highest(Lag *lag, uint64_t *id)
{
    PGresult *res = PQexecPrepared(lag->target, "r", 0, NULL, NULL, NULL, 0);
    bool ok = answered(lag->target, res);

    *id = ok ? strtoull(PQgetvalue(res, 0, 0), NULL, 10) : 0;
    PQclear(res);
    return ok;
}

/* Ids are committed in order by one session, and both kinds of stream keep that order: the highest
 * says all. */
static bool watch(Lag *lag, Histogram *seen)
{
    uint64_t last = 0, id, moved = mono_us();

    while (last < lag->count && !lag->failed) {
        uint64_t now;

        if (!highest(lag, &id))
            return false;
        now = mono_us();
        if (id > last)
            moved = now;
        /* What is here before the writer has its answer counts as nothing. */
        for (; last < id; last++) {
            while (lag->written <= last && !lag->failed)
                until_us(mono_us() + 5);
            if (lag->committed_us[last] - lag->began_us > WARM_US)
                histogram_add(seen,
                              now > lag->committed_us[last] ? now - lag->committed_us[last] : 0);
        }
        if (now - moved > PATIENCE_US) {
            fprintf(stderr, "lag: nothing new on the target for a minute, after id %" PRIu64 "\n",
                    last);
            return false;
        }
        until_us(now + POLL_US);
    }
    return !lag->failed;
}

static PGconn *session(const char *dsn, const char *name, const char *sql, int params)
{
    PGconn *conn = PQconnectdb(dsn);

    if (PQstatus(conn) != CONNECTION_OK) {
        fprintf(stderr, "lag: %s", PQerrorMessage(conn));
        return NULL;
    }
    PGresult *res = PQprepare(conn, name, sql, params, NULL);
    bool ok = answered(conn, res);

    PQclear(res);
    return ok ? conn : NULL;
}

static bool run(Lag *lag, Histogram *seen)
{
    pthread_t thread;
    bool ok;

    lag->began_us = mono_us();
    if (pthread_create(&thread, NULL, writer, lag))
        abort();
    ok = watch(lag, seen);
    if (!ok)
        lag->failed = true;
    pthread_join(thread, NULL);
    return ok;
}

static void print(const Lag *lag, const Histogram *seen)
{
    printf("{\"rate\": %u, \"count\": %" PRIu64 ", \"p50\": %" PRIu64 ", \"p90\": %" PRIu64
           ", \"p99\": %" PRIu64 ", \"p999\": %" PRIu64 ", \"max\": %" PRIu64
           ", \"writer_late\": %" PRIu64 "}\n",
           lag->rate, seen->count, histogram_percentile(seen, 50), histogram_percentile(seen, 90),
           histogram_percentile(seen, 99), histogram_percentile(seen, 99.9), seen->most,
           lag->late_us);
}

int main(int argc, char **argv)
{
    Lag lag = {0};
    Histogram seen;

    if (argc != 5) {
        fprintf(stderr, "usage: lag SOURCE TARGET RATE SECONDS\n");
        return 2;
    }
    lag.rate = (unsigned)strtoul(argv[3], NULL, 10);
    lag.count = lag.rate * strtoull(argv[4], NULL, 10);
    lag.committed_us = calloc(lag.count + 1, sizeof(*lag.committed_us));
    if (!lag.committed_us || !lag.rate)
        abort();
    histogram_init(&seen);
    (void)prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL,
                0UL); /* nanoseconds, not the usual 50 microseconds */
    lag.source = session(
        argv[1], "w",
        "with a as (update accounts set balance = balance + 1 where id = $1::bigint % 1000 + 1) "
        "insert into lag values ($1::bigint, 'some text that goes along')",
        1);
    lag.target =
        lag.source ? session(argv[2], "r", "select coalesce(max(id), 0) from lag", 0) : NULL;
    if (!lag.target || !run(&lag, &seen))
        return 1;
    print(&lag, &seen);
    PQfinish(lag.source);
    PQfinish(lag.target);
    free(lag.committed_us);
    return 0;
}
