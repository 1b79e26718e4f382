/* Commits are asynchronous: what is committed isn't on the target's disk yet. The watcher asks the
 * target, beside the lanes: once everything that was written when a batch had committed is flushed,
 * the batch is durable. */
#include "engine/base/log.h"
#include "engine/base/mono.h"
#include "engine/stream/apply_impl.h"

#define POLL_MS       10
#define HURRY_MS      1
#define FORCE_IDLE_MS 30   /* nothing else to do: don't wait for the target's own rhythm (200 ms) */
#define FORCE_BUSY_MS 1000 /* the target's WAL writer should have done it long ago */
#define HEALTH_MS     5000
#define TIE_MS        1000
#define LONG_MS       10000
#define LONG_EVERY_MS 60000

typedef struct Watch {
    Apply *apply;
    Position marked; /* end of a committed batch… */
    uint64_t mark;   /* … and the log position behind it */
    uint64_t marked_ms;
    bool is_marked;
    uint64_t asked_ms;
    uint64_t tie_ms;
    uint64_t told_ms;
} Watch;

static void set_durable(Apply *apply, Position end)
{
    pthread_mutex_lock(&apply->lock);
    if (position_compare(end, apply->durable_end) > 0)
        apply->durable_end = end;
    pthread_mutex_unlock(&apply->lock);
}

/* The order matters: first what is committed, then what is written; so the written position covers
 * it. */
static bool watch_flushed(Watch *w, Position committed, unsigned force_ms, Err *err)
{
    Apply *apply = w->apply;
    uint64_t written, flushed;
    bool known, ok;

    pthread_mutex_lock(&apply->control_lock);
    ok = apply->control->ops->log_positions(apply->control, &written, &flushed, &known, err);
    if (ok && w->is_marked && flushed < w->mark && mono_ms() - w->marked_ms >= force_ms) {
        ok = apply->control->ops->force_flush(apply->control, err);
        flushed = w->mark;
    }
    pthread_mutex_unlock(&apply->control_lock);
    w->asked_ms = mono_ms();
    if (!ok)
        return false;
    if (w->is_marked && flushed >= w->mark) {
        set_durable(apply, w->marked);
        w->is_marked = false;
    }
    if (!w->is_marked) {
        w->marked = committed;
        w->mark = written;
        w->marked_ms = mono_ms();
        w->is_marked = true;
    }
    if (flushed >= w->mark) {
        set_durable(apply, w->marked);
        w->is_marked = false;
    }
    return true;
}

/* Two lanes can only wait for each other through something that routing doesn't know about (a
 * trigger, an index whose equality is wider than the key's). The server sees no deadlock, because
 * the one that holds the lock waits here. */
static bool watch_tie(Watch *w, Err *err)
{
    Apply *apply = w->apply;
    int sessions[64];
    bool broken = false, ok = true, tied;
    unsigned count = (unsigned)size_min(apply->lane_count, ARRAY_LEN(sessions));

    pthread_mutex_lock(&apply->lock);
    tied = apply->plan && apply->arrived > 0 && apply->arrived < apply->plan->lanes &&
           mono_ms() - apply->executing_since > TIE_MS;
    pthread_mutex_unlock(&apply->lock);
    if (!tied || mono_ms() - w->tie_ms < TIE_MS)
        return true;
    w->tie_ms = mono_ms();
    for (unsigned i = 0; i < count; i++)
        sessions[i] = apply->lanes[i].applier->ops->session(apply->lanes[i].applier);
    pthread_mutex_lock(&apply->lock);
    apply->tie_broken = true; /* before the lane hears of it */
    pthread_mutex_unlock(&apply->lock);
    pthread_mutex_lock(&apply->control_lock);
    ok = apply->control->ops->break_tie(apply->control, sessions, count, &broken, err);
    pthread_mutex_unlock(&apply->control_lock);
    if (broken) {
        log_warn("lanes waited for each other; the batch is replayed in exact order");
        return ok;
    }
    pthread_mutex_lock(&apply->lock);
    apply->tie_broken = false;
    pthread_mutex_unlock(&apply->lock);
    return ok;
}

/* Somebody at the target may hold a lock that a lane needs: the operator hears who. */
static bool watch_long(Watch *w, Err *err)
{
    Apply *apply = w->apply;
    int sessions[64];
    unsigned count = (unsigned)size_min(apply->lane_count, ARRAY_LEN(sessions));
    uint64_t ms = 0;
    AUTO_BUF who;
    bool ok;

    buf_init(&who, 4096);
    pthread_mutex_lock(&apply->lock);
    if (apply->plan)
        ms = mono_ms() - apply->executing_since;
    pthread_mutex_unlock(&apply->lock);
    if (ms < LONG_MS || mono_ms() - w->told_ms < LONG_EVERY_MS)
        return true;
    w->told_ms = mono_ms();
    for (unsigned i = 0; i < count; i++)
        sessions[i] = apply->lanes[i].applier->ops->session(apply->lanes[i].applier);
    pthread_mutex_lock(&apply->control_lock);
    ok = apply->control->ops->blocker(apply->control, sessions, count, &who, err);
    pthread_mutex_unlock(&apply->control_lock);
    if (ok && who.len)
        log_warn("the target makes us wait for a lock", F_MS("for_ms", (double)ms),
                 F_STR("held_by", buf_str(&who)));
    else if (ok)
        log_info("the target is busy with one batch", F_MS("for_ms", (double)ms));
    return ok;
}

static bool watch_once(Watch *w, Err *err)
{
    Apply *apply = w->apply;
    Position committed, durable;
    bool idle, hurry;

    pthread_mutex_lock(&apply->lock);
    committed = apply->committed_end;
    hurry = apply->hurry;
    durable = apply->durable_end;
    idle = !apply->plan && !apply->router_busy;
    pthread_mutex_unlock(&apply->lock);
    if (!watch_tie(w, err) || !watch_long(w, err))
        return false;
    if (!apply->synchronous && position_compare(durable, committed) < 0)
        return watch_flushed(w, committed, idle ? (hurry ? 0 : FORCE_IDLE_MS) : FORCE_BUSY_MS, err);
    if (mono_ms() - w->asked_ms > HEALTH_MS) {
        uint64_t written, flushed;
        bool known, ok;

        w->asked_ms = mono_ms();
        pthread_mutex_lock(&apply->control_lock);
        ok = apply->control->ops->log_positions(apply->control, &written, &flushed, &known, err);
        pthread_mutex_unlock(&apply->control_lock);
        return ok;
    }
    return true;
}

static bool is_hurried(Apply *apply)
{
    bool hurry;

    pthread_mutex_lock(&apply->lock);
    hurry = apply->hurry;
    pthread_mutex_unlock(&apply->lock);
    return hurry;
}

void *watch_main(void *arg)
{
    Watch watch = {.apply = arg, .asked_ms = mono_ms()};
    Err err = ERR_INIT;

    log_thread("watch");
    while (!stop_wait(&watch.apply->closing, is_hurried(arg) ? HURRY_MS : POLL_MS))
        if (!watch_once(&watch, &err)) {
            err_context(&err, "watching the target");
            apply_fail(watch.apply, &err);
            break;
        }
    return NULL;
}
