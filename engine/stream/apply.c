#include "engine/stream/apply.h"

#include "appliers/postgres/applier_pg.h"
#include "engine/base/log.h"
#include "engine/base/mono.h"
#include "engine/stream/apply_impl.h"

#include <xxhash.h>
/* The default hash of uthash reads into a switch that clang warns of. */
#define HASH_FUNCTION(key, len, hash) ((hash) = (unsigned)XXH3_64bits((key), (len)))
#include <uthash.h>

struct KnownTable {
    uint64_t serial;
    Table *table;
    KnownTable *next; /* among the retired */
    UT_hash_handle hh;
};

/* --- tables -------------------------------------------------------------------------------------
 */

/* Once for each table, however often it is described. */
static void tell_unindexed(const Apply *apply, const Table *table)
{
    if (!table->unindexed)
        return;
    for (const KnownTable *known = apply->retired; known; known = known->next)
        if (strcmp(known->table->place, table->place) == 0)
            return;
    log_warn(
        "no index on the target finds the rows that an update or delete means: each batch reads "
        "the whole table",
        F_STR("table", table->place), F_STR("key", table->key_count ? "without an index" : "none"));
}

static bool find_table(void *self, const Relation *rel, Table **table, Err *err)
{
    Apply *apply = self;
    KnownTable *known;
    bool ok = true;

    pthread_mutex_lock(&apply->control_lock);
    HASH_FIND(hh, apply->tables, &rel->serial, sizeof(rel->serial), known);
    if (!known) {
        Table *described = NULL;

        ok = apply->control->ops->describe(apply->control, rel, &described, err);
        if (ok) {
            tell_unindexed(apply, described);
            known = calloc(1, sizeof(*known));
            if (!known)
                abort();
            known->serial = rel->serial;
            known->table = described;
            HASH_ADD(hh, apply->tables, serial, sizeof(known->serial), known);
        }
    }
    pthread_mutex_unlock(&apply->control_lock);
    if (ok)
        *table = known->table;
    return ok;
}

void apply_forget_tables(Apply *apply)
{
    KnownTable *known, *next;

    pthread_mutex_lock(&apply->control_lock);
    HASH_ITER(hh, apply->tables, known, next)
    {
        HASH_DEL(apply->tables, known);
        known->next = apply->retired;
        apply->retired = known;
    }
    pthread_mutex_unlock(&apply->control_lock);
}

static void free_tables(Apply *apply)
{
    apply_forget_tables(apply);
    while (apply->retired) {
        KnownTable *next = apply->retired->next;

        table_free(apply->retired->table);
        free(apply->retired);
        apply->retired = next;
    }
}

/* --- the router thread --------------------------------------------------------------------------
 */

void apply_fail(Apply *apply, const Err *err)
{
    pthread_mutex_lock(&apply->lock);
    if (!err_is_set(&apply->error))
        apply->error = *err;
    apply->quit = true;
    pthread_cond_broadcast(&apply->work);
    pthread_cond_broadcast(&apply->idle);
    pthread_mutex_unlock(&apply->lock);
    queue_close(apply->queue);
    stop_request(&apply->closing);
}

/* A batch that some lanes have already must come out of the router exactly as it did before the
 * crash. */
static bool check_partial(Apply *apply, const Plan *plan, Err *err)
{
    const Batch *batch = plan->batch;

    if (!apply->progress.partial)
        return true;
    if (batch->lanes_before != apply->progress.lanes ||
        position_compare(batch->first->commit, apply->progress.first) != 0 ||
        position_compare(batch->last->commit, apply->progress.last) != 0)
        return err_fail(err, ERR_BUG,
                        "the batch that is on the target in part was not formed again");
    if (plan->form != PLAN_PARTS || plan->lanes != apply->progress.lanes ||
        plan->fingerprint != apply->partial_print) {
        err_fail(
            err, ERR_FAITHFUL,
            "a batch is on the target in part, and its tables were altered since, so that the rest can't be told apart");
        return err_hint(
            err,
            "undo the change of keys, unique indexes or triggers on the target and start again, or make a new copy");
    }
    apply->progress.partial = false;
    return true;
}

static void publish(Apply *apply, Plan *plan)
{
    pthread_mutex_lock(&apply->lock);
    /* Even when everything ends: the lanes finish what they have, and a batch cut in two shares its
     * memory. */
    while (apply->plan)
        pthread_cond_wait(&apply->idle, &apply->lock);
    if (apply->quit) {
        pthread_mutex_unlock(&apply->lock);
        plan_free(plan);
        return;
    }
    apply->plan = plan;
    apply->generation++;
    apply->arrived = apply->left = apply->commits = 0;
    apply->any_failed = apply->commit_failed = apply->tie_broken = false;
    apply->failure = ERR_INIT;
    apply->executing_since = mono_ms();
    apply->router_busy = false;
    pthread_cond_broadcast(&apply->work);
    pthread_mutex_unlock(&apply->lock);
}

static void wait_for_lanes(Apply *apply)
{
    pthread_mutex_lock(&apply->lock);
    while (apply->plan)
        pthread_cond_wait(&apply->idle, &apply->lock);
    pthread_mutex_unlock(&apply->lock);
}

/* The choice isn't recorded: of the two, the one that was made before the crash gives the
 * fingerprint that was. */
static Plan *plan_partial(Apply *apply, Batch *batch, Err *err)
{
    Plan *plan = plan_new(batch, apply->conf.lanes, false, &apply->table_source, err);

    if (!plan || plan->fingerprint == apply->partial_print ||
        plan_again(plan, apply->conf.lanes, true, &apply->table_source, err))
        return plan;
    plan_free(plan);
    return NULL;
}

static Plan *plan_for(Apply *apply, Batch *batch, Err *err)
{
    unsigned together = atomic_load(&apply->together);

    if (apply->progress.partial)
        return plan_partial(apply, batch, err);
    if (together)
        atomic_store(&apply->together, together - 1);
    return plan_new(batch, apply->conf.lanes, together > 0, &apply->table_source, err);
}

static bool route_part(Apply *apply, Batch *batch)
{
    Err err = ERR_INIT;
    Plan *plan = plan_for(apply, batch, &err);
    bool alters = plan && plan->may_alter;

    if (plan && check_partial(apply, plan, &err)) {
        publish(apply, plan);
        if (alters)
            wait_for_lanes(apply); /* what comes next is routed by the tables as they are then */
        return true;
    }
    wait_for_lanes(apply); /* batches before this one are applied all the same */
    plan_free(plan);
    apply_fail(apply, &err);
    return false;
}

/* A verification may want the target as it is between two transactions of the batch: then it goes
 * in two parts. */
static bool route_one(Apply *apply, Batch *batch)
{
    Batch *rest = NULL;

    for (; batch && batch->first; batch = rest) {
        Err err = ERR_INIT;

        rest = NULL;
        if (!pause_admit(apply->pause, &batch, &rest, &apply->closing, &err)) {
            wait_for_lanes(apply);
            batch_free(batch);
            return false;
        }
        pthread_mutex_lock(&apply->lock);
        apply->router_busy = true; /* the first part is published, the rest isn't */
        pthread_mutex_unlock(&apply->lock);
        if (!route_part(apply, batch)) {
            batch_free(rest);
            return false;
        }
    }
    if (batch) {
        batch_free(batch);
        pthread_mutex_lock(&apply->lock);
        apply->router_busy = false;
        pthread_mutex_unlock(&apply->lock);
    }
    return true;
}

static void *router_main(void *arg)
{
    Apply *apply = arg;
    Batch *batch;

    log_thread("router");
    while (queue_wait(apply->queue)) {
        pthread_mutex_lock(&apply->lock);
        apply->router_busy = true; /* before the queue looks empty */
        pthread_mutex_unlock(&apply->lock);
        batch = queue_pop(apply->queue);
        if (!batch || !route_one(apply, batch))
            break;
    }
    while ((batch = queue_try_pop(apply->queue)))
        batch_free(batch);
    return NULL;
}

/* --- opening and closing ------------------------------------------------------------------------
 */

static char *copied(const char *text)
{
    char *copy = text ? strdup(text) : NULL;

    if (text && !copy)
        abort();
    return copy;
}

static Apply *apply_new(const ApplyConf *conf, Err *err)
{
    Apply *apply = calloc(1, sizeof(*apply));

    if (!apply)
        abort();
    if (!stop_init(&apply->closing, err)) {
        free(apply);
        return NULL;
    }
    apply->conf = *conf;
    apply->conf.target_dsn = copied(conf->target_dsn);
    apply->conf.stream = copied(conf->stream);
    apply->conf.lanes = conf->lanes ? conf->lanes : 1;
    apply->queue = queue_new(conf->queue_batches ? conf->queue_batches : 1);
    apply->table_source = (TableSource){apply, find_table};
    pthread_mutex_init(&apply->lock, NULL);
    pthread_mutex_init(&apply->control_lock, NULL);
    pthread_cond_init(&apply->work, NULL);
    pthread_cond_init(&apply->idle, NULL);
    pthread_cond_init(&apply->agreed, NULL);
    return apply;
}

static Applier *open_applier(Apply *apply, const Stop *connecting, unsigned lane, bool control,
                             Err *err)
{
    ApplierConf conf = {
        .dsn = apply->conf.target_dsn,
        .stream = apply->conf.stream,
        .lane = lane,
        .control = control,
        .synchronous = apply->synchronous,
        .binary = !apply->conf.text_only,
        .connecting = connecting,
        .closing = &apply->closing,
    };

    return pg_applier_open(&conf, err);
}

/* The row with the greatest position names the newest batch; it is complete when all its lanes have
 * it. */
static const Progress *newest(const Progress *rows, size_t count)
{
    const Progress *best = NULL;

    for (size_t i = 0; i < count; i++)
        if (!best || position_compare(rows[i].last, best->last) > 0)
            best = &rows[i];
    return best;
}

static bool has_batch(const Progress *rows, size_t count, unsigned lane, const Progress *batch)
{
    for (size_t i = 0; i < count; i++)
        if (rows[i].lane == lane)
            return position_compare(rows[i].last, batch->last) == 0;
    return false;
}

static void take_progress(Apply *apply, const Progress *rows, size_t count)
{
    const Progress *batch = newest(rows, count);
    ApplyProgress *p = &apply->progress;

    if (!batch)
        return;
    *p = (ApplyProgress){.any = true,
                         .applied = batch->last,
                         .applied_end = batch->end,
                         .first = batch->first,
                         .last = batch->last,
                         .lanes = batch->lanes};
    for (unsigned lane = 0; lane < batch->lanes; lane++)
        p->partial |= !has_batch(rows, count, lane, batch);
    if (p->partial) {
        p->applied = batch->before;
        p->applied_end = batch->before_end;
        apply->partial_print = batch->fingerprint;
    }
    apply->opened_with = *p;
    apply->committed = p->applied;
    apply->committed_end = p->applied_end;
}

static bool open_control(Apply *apply, const Stop *stop, Err *err)
{
    Arena arena ON_EXIT(arena_fini);
    Progress *rows;
    size_t count;
    uint64_t written, flushed;
    bool known;

    arena_init(&arena, KIB(4));
    apply->control = open_applier(apply, stop, 0, true, err);
    if (!apply->control || !apply->control->ops->take(apply->control, err) ||
        !apply->control->ops->read_progress(apply->control, &arena, &rows, &count, err) ||
        !apply->control->ops->log_positions(apply->control, &written, &flushed, &known, err))
        return false;
    apply->synchronous = !known;
    take_progress(apply, rows, count);
    if (!apply->control->ops->read_start(apply->control, &apply->opened_with.start, err))
        return false;
    apply->lane_count = apply->conf.lanes;
    if (apply->progress.partial && apply->progress.lanes > apply->lane_count)
        apply->lane_count = apply->progress.lanes;
    apply->lanes = calloc(apply->lane_count, sizeof(*apply->lanes));
    if (!apply->lanes)
        abort();
    for (size_t i = 0; i < count; i++) {
        Lane *lane = rows[i].lane < apply->lane_count ? &apply->lanes[rows[i].lane] : NULL;

        if (!lane)
            continue;
        lane->last = rows[i].last;
        lane->has_it =
            apply->progress.partial && position_compare(rows[i].last, apply->progress.last) == 0;
    }
    return true;
}

static bool open_lanes(Apply *apply, const Stop *stop, Err *err)
{
    for (unsigned i = 0; i < apply->lane_count; i++) {
        Lane *lane = &apply->lanes[i];

        lane->apply = apply;
        lane->index = i;
        lane->applier = open_applier(apply, stop, i, false, err);
        if (!lane->applier)
            return false;
    }
    return true;
}

static bool start_thread(pthread_t *thread, bool *running, void *(*main)(void *), void *arg,
                         Err *err)
{
    int failed = pthread_create(thread, NULL, main, arg);

    if (failed)
        return err_fail(err, ERR_SYSTEM, "starting a thread: error %d", failed);
    *running = true;
    return true;
}

static bool start_threads(Apply *apply, Err *err)
{
    for (unsigned i = 0; i < apply->lane_count; i++)
        if (!start_thread(&apply->lanes[i].thread, &apply->lanes[i].running, lane_main,
                          &apply->lanes[i], err))
            return false;
    return start_thread(&apply->watcher, &apply->watcher_running, watch_main, apply, err) &&
           start_thread(&apply->router, &apply->router_running, router_main, apply, err);
}

static bool open_pause(Apply *apply, Err *err)
{
    apply->pause =
        pause_open(apply->conf.target_dsn, apply->conf.stream, apply->progress.partial, err);
    return apply->pause != NULL;
}

Apply *apply_open(const ApplyConf *conf, const Stop *stop, Err *err)
{
    Apply *apply = apply_new(conf, err);

    if (!apply)
        return NULL;
    if (open_control(apply, stop, err) && open_lanes(apply, stop, err) && open_pause(apply, err) &&
        start_threads(apply, err))
        return apply;
    apply_close(apply);
    return NULL;
}

static void join_threads(Apply *apply)
{
    if (apply->router_running)
        pthread_join(apply->router, NULL);
    for (unsigned i = 0; apply->lanes && i < apply->lane_count; i++)
        if (apply->lanes[i].running)
            pthread_join(apply->lanes[i].thread, NULL);
    if (apply->watcher_running)
        pthread_join(apply->watcher, NULL);
}

void apply_close(Apply *apply)
{
    Batch *batch;

    if (!apply)
        return;
    pthread_mutex_lock(&apply->lock);
    apply->quit = true;
    pthread_cond_broadcast(&apply->work);
    pthread_cond_broadcast(&apply->idle);
    pthread_mutex_unlock(&apply->lock);
    stop_request(&apply->closing);
    queue_close(apply->queue);
    join_threads(apply);
    while ((batch = queue_try_pop(apply->queue)))
        batch_free(batch);
    for (unsigned i = 0; apply->lanes && i < apply->lane_count; i++)
        lane_ddl_free(&apply->lanes[i]), applier_free(apply->lanes[i].applier);
    free(apply->lanes);
    pause_close(apply->pause);
    plan_free(apply->plan);
    free_tables(apply);
    applier_free(apply->control);
    queue_free(apply->queue);
    pthread_cond_destroy(&apply->work);
    pthread_cond_destroy(&apply->idle);
    pthread_cond_destroy(&apply->agreed);
    pthread_mutex_destroy(&apply->lock);
    pthread_mutex_destroy(&apply->control_lock);
    stop_fini(&apply->closing);
    if (apply->conf.target_dsn) {
        char *dsn = (char *)(uintptr_t)apply->conf.target_dsn;

        explicit_bzero(dsn, strlen(dsn));
        free(dsn);
    }
    free((char *)(uintptr_t)apply->conf.stream);
    free(apply);
}

/* --- asking -------------------------------------------------------------------------------------
 */

bool apply_set_start(Apply *apply, Position start, Err *err)
{
    bool ok;

    pthread_mutex_lock(&apply->control_lock);
    ok = apply->control->ops->set_start(apply->control, start, err);
    pthread_mutex_unlock(&apply->control_lock);
    return ok;
}

ApplyProgress apply_progress(const Apply *apply)
{
    return apply->opened_with;
}

Queue *apply_queue(Apply *apply)
{
    return apply->queue;
}

static pthread_mutex_t *lock_of(const Apply *apply)
{
    return (pthread_mutex_t *)(uintptr_t)&apply->lock;
}

bool apply_is_idle(const Apply *apply)
{
    bool idle;

    pthread_mutex_lock(lock_of(apply));
    /* The router is busy before it takes a batch out, so an empty queue hides nothing. */
    idle = queue_count(apply->queue) == 0 && !apply->router_busy && !apply->plan;
    pthread_mutex_unlock(lock_of(apply));
    return idle;
}

Position apply_committed_end(const Apply *apply)
{
    Position end;

    pthread_mutex_lock(lock_of(apply));
    end = apply->committed_end;
    pthread_mutex_unlock(lock_of(apply));
    return end;
}

void apply_hurry(Apply *apply)
{
    pthread_mutex_lock(&apply->lock);
    apply->hurry = true;
    pthread_mutex_unlock(&apply->lock);
}

Position apply_durable_end(const Apply *apply)
{
    Position end;

    pthread_mutex_lock(lock_of(apply));
    end = apply->durable_end;
    pthread_mutex_unlock(lock_of(apply));
    return end;
}

void apply_error(Apply *apply, Err *err)
{
    pthread_mutex_lock(&apply->lock);
    *err = apply->error;
    pthread_mutex_unlock(&apply->lock);
}

ApplyCounters apply_counters(const Apply *apply)
{
    ApplyCounters counters;

    pthread_mutex_lock(lock_of(apply));
    counters = apply->counters;
    pthread_mutex_unlock(lock_of(apply));
    return counters;
}
