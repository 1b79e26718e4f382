#include "engine/move/follow.h"

#include <pthread.h>

#include "appliers/postgres/pg.h"
#include "engine/base/log.h"
#include "engine/base/mono.h"

typedef struct Runner {
    Stream *stream;
    char *name;
    pthread_t thread;
    bool started;
    Stop *stop;
    _Atomic bool ended; /* then ok and err may be read */
    bool ok;
    Err err;
} Runner;

struct Follow {
    Stop stop;
    bool stop_is_open;
    Runner *runners;
    size_t count;
    /* elsewhere: */
    Pg source;
    Pg target;
    char *slot;
    StreamStatus seen;
    Err why; /* the slot couldn't be read */
};

static void *run(void *arg)
{
    Runner *runner = arg;

    log_thread(runner->name);
    runner->ok = stream_run(runner->stream, runner->stop, &runner->err);
    atomic_store(&runner->ended, true);
    return NULL;
}

static bool start_one(Runner *runner, const StreamConf *conf, Stop *stop, Err *err)
{
    int failed;

    runner->err = ERR_INIT;
    runner->stop = stop;
    runner->name = strdup(conf->name);
    runner->stream = stream_new(conf, err);
    if (!runner->stream)
        return err_context(err, "stream of %s", conf->name);
    failed = pthread_create(&runner->thread, NULL, run, runner);
    if (failed)
        return err_fail(err, ERR_SYSTEM, "starting the stream of %s: %s", conf->name,
                        strerrordesc_np(failed));
    runner->started = true;
    return true;
}

static Follow *follow_new(size_t count)
{
    Follow *follow = calloc(1, sizeof(*follow));

    if (!follow)
        abort();
    follow->count = count;
    follow->why = ERR_INIT;
    return follow;
}

Follow *follow_start(const StreamConf *confs, size_t count, Err *err)
{
    Follow *follow = follow_new(count);

    follow->runners = calloc(count ? count : 1, sizeof(Runner));
    if (!follow->runners)
        abort();
    follow->stop_is_open = stop_init(&follow->stop, err);
    for (size_t i = 0; follow->stop_is_open && i < count; i++)
        if (!start_one(&follow->runners[i], &confs[i], &follow->stop, err)) {
            follow_stop(follow);
            return NULL;
        }
    if (follow->stop_is_open)
        return follow;
    follow_stop(follow);
    return NULL;
}

static void join(Runner *runner)
{
    if (runner->started)
        pthread_join(runner->thread, NULL);
    runner->started = false;
}

void follow_stop(Follow *follow)
{
    if (!follow)
        return;
    if (follow->stop_is_open)
        stop_request(&follow->stop);
    for (size_t i = 0; follow->runners && i < follow->count; i++) {
        join(&follow->runners[i]);
        stream_free(follow->runners[i].stream);
        free(follow->runners[i].name);
    }
    if (follow->stop_is_open)
        stop_fini(&follow->stop);
    free(follow->runners);
    free(follow->slot);
    pg_close(&follow->source);
    pg_close(&follow->target);
    free(follow);
}

Follow *follow_elsewhere(const char *source_dsn, const char *target_dsn, const char *slot, Err *err)
{
    Follow *follow = follow_new(1);
    PgOptions options = {.application = "keybridge cutover"};

    follow->slot = strdup(slot);
    if (pg_open(&follow->source, source_dsn, ERR_SOURCE, &options, err) &&
        pg_open(&follow->target, target_dsn, ERR_TARGET, &options, err))
        return follow;
    follow_stop(follow);
    return NULL;
}

size_t follow_count(const Follow *follow)
{
    return follow->count;
}

bool follow_is_elsewhere(const Follow *follow)
{
    return follow->slot != NULL;
}

/* With a relay log the slot is ahead of the target, without one the target's progress may not be
 * flushed there: the earlier one counts. */
static bool limit_to_progress(Follow *follow, uint64_t *at, Err *err)
{
    static const char sql[] =
        "select case when (select count(*) from keybridge.progress b where b.stream = a.stream"
        "  and b.last_commit = a.last_commit and b.lane < a.lanes) = a.lanes then last_end else before_end end"
        " from keybridge.progress a where stream = $1 order by last_commit::pg_lsn desc limit 1";
    AUTO_RESULT res = pg_rows(&follow->target, err, sql, follow->slot);
    uint64_t applied = 0;

    if (!res || (PQntuples(res) > 0 && !lsn_parse(pg_cell(res, 0, 0), &applied, err)))
        return false;
    if (applied < *at)
        *at = applied;
    return true;
}

static void look_elsewhere(Follow *follow)
{
    AUTO_RESULT res = NULL;
    StreamStatus *seen = &follow->seen;

    err_clear(&follow->why);
    res = pg_rows(
        &follow->source, &follow->why,
        "select confirmed_flush_lsn, pg_current_wal_flush_lsn(), active from pg_replication_slots where"
        " slot_name = $1",
        follow->slot);
    if (!res)
        return;
    if (PQntuples(res) == 0 || PQgetvalue(res, 0, 2)[0] != 't') {
        err_fail(&follow->why, ERR_STATE, "the replicate that used slot %s has ended",
                 follow->slot);
        err_hint(&follow->why, "start it again, or leave the stream to this command");
        return;
    }
    if (!lsn_parse(pg_cell(res, 0, 0), &seen->durable_end.at, &follow->why) ||
        !lsn_parse(pg_cell(res, 0, 1), &seen->source_end.at, &follow->why) ||
        !limit_to_progress(follow, &seen->durable_end.at, &follow->why))
        return;
    seen->applied_end = seen->received = seen->durable_end;
    seen->lag_bytes =
        seen->source_end.at > seen->durable_end.at ? seen->source_end.at - seen->durable_end.at : 0;
    seen->phase = STREAM_FOLLOWING;
}

StreamStatus follow_status(Follow *follow, size_t at)
{
    if (!follow_is_elsewhere(follow))
        return stream_status(follow->runners[at].stream);
    look_elsewhere(follow);
    return follow->seen;
}

bool follow_check(Follow *follow, Err *err)
{
    if (follow_is_elsewhere(follow)) {
        *err = follow->why;
        return !err_is_set(err);
    }
    for (size_t i = 0; i < follow->count; i++) {
        Runner *runner = &follow->runners[i];

        if (!atomic_load(&runner->ended) || runner->ok)
            continue;
        *err = runner->err;
        return err_context(err, "stream of %s", runner->name);
    }
    return true;
}

int64_t follow_lag_us(Follow *follow)
{
    int64_t most = 0;

    for (size_t i = 0; i < follow->count; i++) {
        int64_t lag = follow_status(follow, i).lag_us;

        most = lag > most ? lag : most;
    }
    return most;
}

static bool too_late(Follow *follow, const FollowWait *wait, Err *err)
{
    char text[700] = "";
    size_t len = 0;

    for (size_t i = 0; i < follow->count && len < 600; i++) {
        StreamStatus s = follow_status(follow, i);
        char at[LSN_TEXT];

        len += (size_t)snprintf(
            text + len, sizeof(text) - len, "%s%s at %s, %" PRIu64 " bytes and %.1f s behind",
            i ? "; " : "", follow->runners ? follow->runners[i].name : follow->slot,
            lsn_text(s.applied_end.at, at), s.lag_bytes, (double)s.lag_us / 1e6);
    }
    err_fail(err, ERR_TIMEOUT, "%s: not done in time: %s", wait->what, text);
    return err_hint(err, "a longer --timeout, or a quieter time");
}

/* Shared by all waits: failed streams, the stop, the deadline, the tick. */
static bool pause_a_moment(Follow *follow, const FollowWait *wait, uint64_t *ticked, unsigned ms,
                           Err *err)
{
    uint64_t now = mono_ms();

    if (!follow_check(follow, err))
        return err_context(err, "%s", wait->what);
    if (wait->deadline_ms && now >= wait->deadline_ms)
        return too_late(follow, wait, err);
    if (wait->tick && now - *ticked >= 100) {
        wait->tick(wait->self);
        *ticked = now;
    }
    return !stop_wait(wait->stop, ms) || stop_fail(err, wait->what);
}

static bool all_applied(Follow *follow, const uint64_t *ends)
{
    for (size_t i = 0; i < follow->count; i++)
        if (follow_status(follow, i).applied_end.at < ends[i])
            return false;
    return true;
}

bool follow_wait_applied(Follow *follow, const uint64_t *ends, const FollowWait *wait, Err *err)
{
    uint64_t ticked = 0;

    while (!all_applied(follow, ends))
        if (!pause_a_moment(follow, wait, &ticked, 2, err))
            return false;
    return true;
}

/* An age of 0 also means that nothing has come yet, so it counts only near the end of the source's
 * WAL. */
static bool is_near(StreamStatus status, uint64_t max_lag_us)
{
    bool there = status.phase == STREAM_FOLLOWING || status.phase == STREAM_WAITING ||
                 (status.phase == STREAM_CATCHING_UP && status.lag_bytes < MIB(1));

    return there && status.lag_us <= (int64_t)max_lag_us;
}

static bool all_near(Follow *follow, uint64_t max_lag_us)
{
    for (size_t i = 0; i < follow->count; i++)
        if (!is_near(follow_status(follow, i), max_lag_us))
            return false;
    return true;
}

bool follow_wait_lag(Follow *follow, uint64_t max_lag_us, const FollowWait *wait, Err *err)
{
    uint64_t ticked = 0;

    while (!all_near(follow, max_lag_us))
        if (!pause_a_moment(follow, wait, &ticked, 20, err))
            return false;
    return true;
}
