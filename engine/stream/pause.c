#include "engine/stream/pause.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "appliers/postgres/pg.h"
#include "engine/base/log.h"
#include "engine/base/mono.h"

/* When the target doesn't answer we can't know whether the lease was renewed. Verify trusts a row
 * for half the lease only, by the server's clock; we wait longer than the lease, by ours. */
#define LAPSE_US ((uint64_t)(PAUSE_LEASE_S + 5) * 1000000)
#define LOOK_MS  1000

typedef enum State { STATE_OFF, STATE_HOLD, STATE_LIMIT } State;

struct Pause {
    Pg pg;
    char *dsn; /* secret */
    char *stream;
    Stop stop;
    pthread_t thread;
    bool started;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    State state;
    Position limit;    /* STATE_LIMIT: what commits at or behind it waits */
    Position entered;  /* commit of the last transaction admitted */
    Position done;     /* of the last one committed on the target */
    Position waiting;  /* of the one that waits; NONE: none does */
    bool partial;      /* the target is between two states until the next pause_committed */
    uint64_t fresh_us; /* when the row was last seen with a valid lease */
    int wake;          /* thread: look again */
};

static Position position_of_text(const char *text)
{
    Err ignored = ERR_INIT;
    uint64_t lsn = 0;

    if (!text || !lsn_parse(span_str(text), &lsn, &ignored))
        return POSITION_NONE;
    return position_of_lsn(lsn);
}

static bool is_idle(const Pause *pause)
{
    return !pause->partial && position_compare(pause->entered, pause->done) == 0;
}

static void set_state(Pause *pause, State state, Position limit)
{
    pthread_mutex_lock(&pause->lock);
    if (pause->state != state || position_compare(pause->limit, limit) != 0) {
        pause->state = state;
        pause->limit = limit;
        pthread_cond_broadcast(&pause->changed);
    }
    pthread_mutex_unlock(&pause->lock);
}

/* The row's state that the appliers are in now: NULL when it is still on the way there. */
static const char *state_reached(Pause *pause, Position *applied)
{
    const char *reached = NULL;

    pthread_mutex_lock(&pause->lock);
    *applied = pause->done;
    if (pause->state == STATE_HOLD && is_idle(pause))
        reached = "held";
    else if (pause->state == STATE_LIMIT && is_idle(pause) &&
             position_compare(pause->waiting, pause->limit) >= 0)
        reached = "reached";
    pthread_mutex_unlock(&pause->lock);
    return reached;
}

static bool report(Pause *pause, const char *request, const char *at, const char *state,
                   Position applied, Err *err)
{
    char text[POSITION_TEXT];
    AUTO_RESULT res = NULL;

    position_text(applied, text);
    /* at is compared too: what was reached for an older wish must not pass for the newer one. */
    res = pg_rows(
        &pause->pg, err,
        "update keybridge.pause set state = $4, applied = $5"
        " where stream = $1 and request = $2 and at is not distinct from $3 and state <> $4",
        pause->stream, request, at, state, text);
    return res != NULL;
}

static bool look(Pause *pause, Err *err)
{
    AUTO_RESULT res = pg_rows(
        &pause->pg, err,
        "select request, at, state, renewed_at > clock_timestamp() - make_interval(secs => $2::text::int)"
        " from keybridge.pause where stream = $1",
        pause->stream, PAUSE_LEASE_TEXT);
    const char *at, *state;
    Position applied;

    if (!res)
        return false;
    if (PQntuples(res) == 0) {
        set_state(pause, STATE_OFF, POSITION_NONE);
        return true;
    }
    at = PQgetisnull(res, 0, 1) ? NULL : PQgetvalue(res, 0, 1);
    if (PQgetvalue(res, 0, 3)[0] != 't') {
        if (pause_is_on(pause))
            log_warn("a verification went away without ending its pause",
                     F_STR("stream", pause->stream));
        set_state(pause, STATE_OFF, POSITION_NONE);
        return strcmp(PQgetvalue(res, 0, 2), "lapsed") == 0 ||
               report(pause, PQgetvalue(res, 0, 0), at, "lapsed", POSITION_NONE, err);
    }
    if (strcmp(PQgetvalue(res, 0, 2), "lapsed") == 0) /* a lease that lapsed once stays so */
        return true;
    pause->fresh_us = mono_us();
    set_state(pause, at ? STATE_LIMIT : STATE_HOLD, position_of_text(at));
    state = state_reached(pause, &applied);
    return !state || strcmp(state, PQgetvalue(res, 0, 2)) == 0 ||
           report(pause, PQgetvalue(res, 0, 0), at, state, applied, err);
}

static bool listen_on(Pause *pause, Err *err)
{
    if (!pg_open(&pause->pg, pause->dsn, ERR_TARGET,
                 &(PgOptions){.application = "keybridge pause", .stop = &pause->stop}, err))
        return false;
    /* What is written here means nothing to anybody after a crash: no waiting for the disk. */
    if (!pg_exec(&pause->pg, "set synchronous_commit = off", err))
        return false;
    if (!pg_exec(&pause->pg, PAUSE_TABLE_SQL, err)) {
        /* Two sessions that create the same at once: one is told that it exists. */
        err_clear(err);
        if (!pg_exec(&pause->pg, PAUSE_TABLE_SQL, err))
            return false;
    }
    AUTO_RESULT res = NULL;

    if (!pg_exec(&pause->pg, "listen " PAUSE_CHANNEL, err))
        return false;
    res = pg_rows(&pause->pg, err,
                  "select pg_advisory_lock_shared($1::text::int, hashtext($2 collate \"C\"))",
                  PAUSE_LOCK_TEXT, pause->stream);
    return res != NULL;
}

static void drain_notifies(Pause *pause)
{
    PGnotify *note;

    while ((note = PQnotifies(pause->pg.conn)) != NULL)
        PQfreemem(note);
}

static void drain_wake(Pause *pause)
{
    uint64_t count;

    while (read(pause->wake, &count, sizeof(count)) > 0)
        ;
}

static void wait_for_news(Pause *pause)
{
    struct pollfd fds[3] = {{.fd = PQsocket(pause->pg.conn), .events = POLLIN},
                            {.fd = pause->wake, .events = POLLIN},
                            {.fd = pause->stop.fd, .events = POLLIN}};

    poll(fds, 3, LOOK_MS);
    if (fds[0].revents)
        PQconsumeInput(pause->pg.conn);
    drain_wake(pause);
    drain_notifies(pause);
}

/* While the target can't be asked, a pause stands until its lease must have run out. */
static void lapse(Pause *pause)
{
    if (pause_is_on(pause) && mono_us() - pause->fresh_us > LAPSE_US)
        set_state(pause, STATE_OFF, POSITION_NONE);
}

static void *pause_thread(void *arg)
{
    Pause *pause = arg;

    log_thread("pause");
    while (!stop_requested(&pause->stop)) {
        Err err = ERR_INIT;
        bool up = pause->pg.conn || listen_on(pause, &err);

        if (up && look(pause, &err)) {
            drain_notifies(pause); /* those that came with the answer: look saw what they are about,
                                      or later */
            wait_for_news(pause);
            continue;
        }
        if (!stop_requested(&pause->stop))
            log_debug("the pause's connection to the target failed", F_STR("why", err.text));
        pg_close(&pause->pg);
        lapse(pause);
        stop_wait(&pause->stop, LOOK_MS);
    }
    return NULL;
}

static Pause *pause_new(const char *dsn, const char *stream, bool partial)
{
    Pause *pause = calloc(1, sizeof(*pause));

    if (!pause)
        abort();
    pause->dsn = strdup(dsn);
    pause->stream = strdup(stream);
    if (!pause->dsn || !pause->stream)
        abort();
    pause->partial = partial;
    pause->wake = -1;
    pause->stop.fd = -1;
    pthread_mutex_init(&pause->lock, NULL);
    pthread_cond_init(&pause->changed, NULL);
    return pause;
}

Pause *pause_open(const char *target_dsn, const char *stream, bool partial, Err *err)
{
    Pause *pause = pause_new(target_dsn, stream, partial);
    int failed;

    /* The first look is made here, so that nothing is applied past a position that is asked for
     * already. */
    if (!stop_init(&pause->stop, err) || !listen_on(pause, err) || !look(pause, err)) {
        err_context(err, "listening for verifications");
        pause_close(pause);
        return NULL;
    }
    pause->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    failed = pause->wake < 0 ? errno : pthread_create(&pause->thread, NULL, pause_thread, pause);
    if (failed) {
        err_fail(err, ERR_SYSTEM, "starting the thread that listens for verifications: %s",
                 strerrordesc_np(failed));
        pause_close(pause);
        return NULL;
    }
    pause->started = true;
    return pause;
}

void pause_close(Pause *pause)
{
    if (!pause)
        return;
    if (pause->started) {
        stop_request(&pause->stop);
        pthread_join(pause->thread, NULL);
    }
    pg_close(&pause->pg);
    stop_fini(&pause->stop);
    if (pause->wake >= 0)
        close(pause->wake);
    pthread_cond_destroy(&pause->changed);
    pthread_mutex_destroy(&pause->lock);
    explicit_bzero(pause->dsn, strlen(pause->dsn));
    free(pause->dsn);
    free(pause->stream);
    free(pause);
}

static void wake_thread(Pause *pause)
{
    uint64_t one = 1;

    if (write(pause->wake, &one, sizeof(one)) < 0)
        return; /* full, so it is awake */
}

static bool must_wait(const Pause *pause, const Batch *batch)
{
    if (pause->state == STATE_OFF || batch->lanes_before || !batch->first)
        return false;
    return pause->state == STATE_HOLD || position_compare(batch->first->commit, pause->limit) >= 0;
}

static void timed_wait(Pause *pause)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 50 * 1000 * 1000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&pause->changed, &pause->lock, &until);
}

/* The first part, up to `last`, as a batch of its own. Its transactions are copies, so that freeing
 * it touches nothing of the rest; their changes stay in the arena, which stays with the rest: it
 * lives longer. */
static Batch *split(Batch *rest, const Txn *last)
{
    Batch *part = batch_new();

    part->read_us = rest->read_us;
    for (const Txn *txn = rest->first; txn != last->next; txn = txn->next) {
        Txn *copy = batch_add(part);

        *copy = *txn;
        copy->next = NULL;
        part->change_count += txn->change_count;
    }
    rest->first = last->next;
    rest->txn_count -= part->txn_count;
    rest->change_count -= part->change_count;
    return part;
}

static const Txn *last_before(const Batch *batch, Position limit)
{
    const Txn *last = batch->first;

    while (last->next && position_compare(last->next->commit, limit) < 0)
        last = last->next;
    return last;
}

bool pause_admit(Pause *pause, Batch **batch, Batch **rest, const Stop *stop, Err *err)
{
    Position first;
    bool waited = false;

    *rest = NULL;
    if (!(*batch)->first)
        return true;
    first = (*batch)->first->commit;
    pthread_mutex_lock(&pause->lock);
    while (must_wait(pause, *batch)) {
        if (position_compare(pause->waiting, first) != 0) {
            pause->waiting = first;
            wake_thread(pause);
        }
        waited = true;
        if (stop_requested(stop)) {
            pause->waiting = POSITION_NONE;
            pthread_mutex_unlock(&pause->lock);
            return stop_fail(err, "a verification holds the stream");
        }
        timed_wait(pause);
    }
    pause->waiting = POSITION_NONE;
    if (pause->state == STATE_LIMIT && !(*batch)->lanes_before) {
        const Txn *last = last_before(*batch, pause->limit);

        if (last->next) {
            *rest = *batch;
            *batch = split(*batch, last);
        }
    }
    pause->entered = (*batch)->last->commit;
    pthread_mutex_unlock(&pause->lock);
    if (waited)
        log_debug("a verification's pause is over", F_STR("stream", pause->stream));
    return true;
}

void pause_committed(Pause *pause, Position commit)
{
    pthread_mutex_lock(&pause->lock);
    pause->done = commit;
    pause->partial = false;
    if (pause->state != STATE_OFF)
        wake_thread(pause);
    pthread_mutex_unlock(&pause->lock);
}

bool pause_is_on(Pause *pause)
{
    bool on;

    pthread_mutex_lock(&pause->lock);
    on = pause->state != STATE_OFF;
    pthread_mutex_unlock(&pause->lock);
    return on;
}
