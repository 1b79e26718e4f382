/* Lanes: each writes its part of a plan, all commit or none, and whatever can't be written set-wise
 * is replayed exactly.
 *
 * The invariant that a restart relies on: a lane commits batch n only after every lane's commit of
 * batch n-1 has returned. Commits are asynchronous, but a crash of the target loses a suffix of its
 * log: what a commit of n survived, all commits of n-1 survived too. So at most the newest
 * surviving batch is there in part, and the lanes' progress rows, which are written in the same
 * transactions, say in which lanes.
 */
#include "engine/base/crash.h"
#include "engine/base/log.h"
#include "engine/base/mono.h"
#include "engine/stream/apply_impl.h"
#include "engine/stream/dead.h"

#define CHUNK_CHANGES    20000
#define CHUNK_BYTES      MIB(8)
#define CAUTIOUS_BATCHES 50
#define DEAD_PART_BYTES  MIB(4)

/* --- progress ----------------------------------------------------------------------------------
 */

static Progress progress_of(const Apply *apply, const Lane *lane, const Txn *first, const Txn *last,
                            const Plan *plan)
{
    return (Progress){
        .lane = lane->index,
        .first = first->commit,
        .last = last->commit,
        .end = last->end,
        .before = apply->committed,
        .before_end = apply->committed_end,
        .lanes = plan->form == PLAN_PARTS ? plan->lanes : 1,
        .fingerprint = plan->fingerprint,
        .expected = lane->last,
    };
}

static void note_committed(Apply *apply, const Txn *last, size_t txns, size_t changes)
{
    pthread_mutex_lock(&apply->lock);
    apply->committed = last->commit;
    apply->committed_end = last->end;
    if (apply->synchronous)
        apply->durable_end = last->end;
    apply->counters.transactions += txns;
    apply->counters.changes += changes;
    apply->counters.last_commit_time_us = last->commit_time_us;
    pthread_mutex_unlock(&apply->lock);
}

/* --- a serial plan: one lane, in order ----------------------------------------------------------
 */

typedef struct Walk {
    Lane *lane;
    TableSource tables;
    Gather *gather;
    Arena arena; /* changes read back from disk, until they are settled */
    size_t gathered;
    const Txn *txn;
    size_t changes;
} Walk;

static bool walk_flush(Walk *w, bool settle, Err *err)
{
    const ApplierOps *ops = w->lane->applier->ops;
    bool confused = false;
    TableRows *rows = gather_rows(w->gather, &confused);

    if (confused)
        return err_fail(err, ERR_FAITHFUL, "the changes of a row contradict each other");
    for (; rows; rows = rows->next)
        if (!ops->write(w->lane->applier, rows, err))
            return false;
    /* What was sent points into the gathered changes until it is settled. */
    if ((settle || w->gathered) && !ops->settle(w->lane->applier, err))
        return false;
    gather_reset(w->gather);
    w->gathered = 0;
    return true;
}

static bool walk_row(Walk *w, const Change *change, Err *err)
{
    GatherResult result = gather_add(w->gather, change, w->txn, err);

    if (result == GATHER_FLUSH_FIRST) {
        if (!walk_flush(w, true, err))
            return false;
        result = gather_add(w->gather, change, w->txn, err);
    }
    if (result == GATHER_ADDED) {
        w->gathered++;
        return true;
    }
    if (result != GATHER_FAILED && !err_is_set(err))
        err_fail(err, ERR_FAITHFUL, "a change of %s can't be compacted", change->rel->name);
    return false;
}

static bool truncate_tables(Lane *lane, const Change *change, const Txn *txn, Err *err)
{
    TableSource source = lane_tables(lane);
    Table **tables = calloc(change->truncated_count + 1, sizeof(*tables));
    bool ok = true;

    if (!tables)
        abort();
    for (uint32_t i = 0; ok && i < change->truncated_count; i++)
        ok = source.table(source.self, change->truncated[i], &tables[i], err);
    if (ok && change->truncated_count)
        ok = lane->applier->ops->truncate(lane->applier, tables, change->truncated_count, change,
                                          txn, err);
    free(tables);
    return ok;
}

static bool walk_change(Walk *w, const Change *change, Err *err)
{
    w->changes++;
    if (change->kind == CHANGE_MESSAGE)
        return !ddl_is(change) ||
               (walk_flush(w, true, err) && lane_ddl(w->lane, change, w->txn, false, err));
    if (change->kind == CHANGE_TRUNCATE)
        return walk_flush(w, true, err) && truncate_tables(w->lane, change, w->txn, err) &&
               w->lane->applier->ops->settle(w->lane->applier, err);
    return walk_row(w, change, err);
}

static bool walk_big(Walk *w, ChangeReader *reader, Err *err)
{
    if (!walk_flush(w, true, err) || !reader->ops->rewind(reader, err))
        return false;
    for (;;) {
        Change *change = NULL;

        if (!reader->ops->next(reader, &w->arena, &change, err))
            return false;
        if (change && !walk_change(w, change, err))
            return false;
        if (change && w->gathered < CHUNK_CHANGES && arena_bytes(&w->arena) < CHUNK_BYTES)
            continue;
        if (!walk_flush(w, true, err))
            return false;
        arena_reset(&w->arena);
        if (!change)
            return true;
        if (stop_requested(&w->lane->apply->closing))
            return stop_fail(err, "applying a transaction");
    }
}

static bool walk_batch(Walk *w, const Batch *batch, Err *err)
{
    for (const Txn *txn = batch->first; txn; txn = txn->next) {
        w->txn = txn;
        if (txn->big && !walk_big(w, txn->big, err))
            return false;
        for (const Change *change = txn->first; change; change = change->next)
            if (!walk_change(w, change, err) ||
                (w->gathered >= CHUNK_CHANGES && !walk_flush(w, true, err)))
                return false;
    }
    return walk_flush(w, true, err);
}

static void walk_init(Walk *w, Lane *lane)
{
    *w = (Walk){.lane = lane, .tables = lane_tables(lane)};
    w->gather = gather_new(&w->tables);
    arena_init(&w->arena, KIB(64));
}

static void walk_fini(Walk *w)
{
    gather_free(w->gather);
    arena_fini(&w->arena);
}

static bool write_serial(Lane *lane, const Plan *plan, Err *err)
{
    Walk walk ON_EXIT(walk_fini);

    walk_init(&walk, lane);
    return walk_batch(&walk, plan->batch, err);
}

/* --- executing ----------------------------------------------------------------------------------
 */

static bool write_part(Lane *lane, const Plan *plan, Err *err)
{
    for (const TableRows *rows = plan->parts[lane->index]; rows; rows = rows->next)
        if (!lane->applier->ops->write(lane->applier, rows, err))
            return false;
    return true;
}

static bool lane_execute(Lane *lane, const Plan *plan, Err *err)
{
    const ApplierOps *ops = lane->applier->ops;
    Progress progress = progress_of(lane->apply, lane, plan->batch->first, plan->batch->last, plan);

    if (plan->form == PLAN_EXACT)
        return err_fail(err, ERR_FAITHFUL, "this batch can only be applied in exact order");
    if (lane->has_it)
        return true;
    lane_ddl_begin(lane);
    if (!ops->begin(lane->applier, err))
        return false;
    if (!(plan->form == PLAN_SERIAL ? write_serial(lane, plan, err) : write_part(lane, plan, err)))
        return false;
    if (plan->deferrable && !ops->check_deferred(lane->applier, err))
        return false;
    return ops->progress(lane->applier, &progress, err) && ops->settle(lane->applier, err);
}

/* --- the exact replay ---------------------------------------------------------------------------
 */

static bool exact_change(Lane *lane, const Change *change, const Txn *txn, Err *err)
{
    TableSource source = lane_tables(lane);
    Table *table;

    if (change->kind == CHANGE_MESSAGE)
        return !ddl_is(change) || (lane->applier->ops->settle(lane->applier, err) &&
                                   lane_ddl(lane, change, txn, true, err));
    if (change->kind == CHANGE_TRUNCATE)
        return truncate_tables(lane, change, txn, err);
    return source.table(source.self, change->rel, &table, err) &&
           lane->applier->ops->change(lane->applier, table, change, txn, err);
}

static bool exact_list(Lane *lane, const Txn *txn, Err *err)
{
    size_t sent = 0;

    for (const Change *change = txn->first; change; change = change->next) {
        if (!exact_change(lane, change, txn, err))
            return false;
        if (++sent % CHUNK_CHANGES == 0 && !lane->applier->ops->settle(lane->applier, err))
            return false;
    }
    return true;
}

static bool exact_big(Lane *lane, const Txn *txn, Arena *arena, size_t *count, Err *err)
{
    size_t sent = 0;

    *count = 0;
    if (!txn->big->ops->rewind(txn->big, err))
        return false;
    for (;;) {
        Change *change = NULL;

        if (!txn->big->ops->next(txn->big, arena, &change, err))
            return false;
        if (!change)
            return lane->applier->ops->settle(lane->applier, err);
        ++*count;
        if (!exact_change(lane, change, txn, err))
            return false;
        if (++sent < CHUNK_CHANGES && arena_bytes(arena) < CHUNK_BYTES)
            continue;
        if (!lane->applier->ops->settle(lane->applier, err))
            return false;
        arena_reset(arena);
        sent = 0;
        if (stop_requested(&lane->apply->closing))
            return stop_fail(err, "applying a transaction");
    }
}

static bool exact_rows(Lane *lane, const Txn *txn, size_t *count, Err *err)
{
    Arena arena ON_EXIT(arena_fini);

    arena_init(&arena, KIB(64));
    *count = txn->change_count;
    return txn->big ? exact_big(lane, txn, &arena, count, err) : exact_list(lane, txn, err);
}

/* The replay's progress: each transaction is a batch of its own, over one lane. */
static bool exact_end(Lane *lane, const Plan *plan, const Txn *txn, size_t count, Err *err)
{
    const ApplierOps *ops = lane->applier->ops;
    Plan alone = {.batch = plan->batch, .form = PLAN_EXACT, .lanes = 1};
    Progress progress = progress_of(lane->apply, &lane->apply->lanes[0], txn, txn, &alone);

    if (!ops->progress(lane->applier, &progress, err) || !ops->settle(lane->applier, err))
        return false;
    crash_point("before-replay-commit");
    if (!ops->commit(lane->applier, err)) {
        err_transient(err);
        return false;
    }
    lane->apply->lanes[0].last = txn->commit;
    lane_ddl_end(lane);
    note_committed(lane->apply, txn, 1, count);
    return true;
}

typedef struct Grave {
    Lane *lane;
    DeadLetter letter;
    Buf changes; /* of this part */
    uint64_t count;
} Grave;

static void grave_fini(Grave *g)
{
    buf_fini(&g->changes);
}

static bool grave_flush(Grave *g, Err *err)
{
    const ApplierOps *ops = g->lane->applier->ops;

    buf_puts(&g->changes, g->changes.len ? "]" : "[]");
    if (!buf_ok(&g->changes, "a dead letter", err))
        return false;
    g->letter.part++;
    g->letter.changes = buf_span(&g->changes);
    if (!ops->dead_letter(g->lane->applier, &g->letter, err) || !ops->settle(g->lane->applier, err))
        return false;
    buf_clear(&g->changes);
    return true;
}

static bool grave_add(Grave *g, const Change *change, Err *err)
{
    buf_puts(&g->changes, g->changes.len ? ",\n " : "[");
    dead_put_change(&g->changes, change);
    g->count++;
    return g->changes.len < DEAD_PART_BYTES || grave_flush(g, err);
}

static bool grave_add_big(Grave *g, ChangeReader *reader, Err *err)
{
    Arena arena ON_EXIT(arena_fini);

    arena_init(&arena, KIB(64));
    if (!reader->ops->rewind(reader, err))
        return false;
    for (;;) {
        Change *change = NULL;

        arena_reset(&arena);
        if (!reader->ops->next(reader, &arena, &change, err))
            return false;
        if (!change)
            return true;
        if (!grave_add(g, change, err))
            return false;
        if (stop_requested(&g->lane->apply->closing))
            return stop_fail(err, "writing a dead letter");
    }
}

static bool grave_fill(Grave *g, const Txn *txn, Err *err)
{
    for (const Change *change = txn->first; change; change = change->next)
        if (!grave_add(g, change, err))
            return false;
    if (txn->big && !grave_add_big(g, txn->big, err))
        return false;
    return (g->letter.part && !g->changes.len) || grave_flush(g, err);
}

static bool bury(Lane *lane, const Plan *plan, const Txn *txn, const Err *why, Err *err)
{
    Grave grave ON_EXIT(grave_fini) = {.lane = lane, .letter = {.txn = txn, .why = why}};

    buf_init(&grave.changes, (size_t)1 << 30);
    if (!lane->applier->ops->begin(lane->applier, err) || !grave_fill(&grave, txn, err) ||
        !exact_end(lane, plan, txn, 0, err))
        return err_context(err, "writing a skipped transaction to keybridge.dead_letter");
    pthread_mutex_lock(&lane->apply->lock);
    lane->apply->counters.skipped++;
    pthread_mutex_unlock(&lane->apply->lock);
    log_warn("transaction skipped, see keybridge.dead_letter", F_U64("xid", txn->xid),
             F_LSN("commit", txn->commit.at), F_U64("changes", grave.count),
             F_STR("why", why->text));
    return true;
}

static bool may_be_skipped(const Apply *apply, const Txn *txn)
{
    if (apply->conf.skip_failed)
        return true;
    for (size_t i = 0; i < apply->conf.skip_txn_count; i++)
        if (position_compare(apply->conf.skip_txns[i], txn->commit) == 0)
            return true;
    return false;
}

static bool exact_txn(Lane *lane, const Plan *plan, const Txn *txn, Err *err)
{
    const ApplierOps *ops = lane->applier->ops;
    char commit[POSITION_TEXT];
    Err why = ERR_INIT;
    size_t count = 0;

    lane_ddl_begin(lane);
    if (ops->begin(lane->applier, &why) && exact_rows(lane, txn, &count, &why) &&
        (!plan->deferrable || ops->check_deferred(lane->applier, &why)) &&
        ops->settle(lane->applier, &why))
        return exact_end(lane, plan, txn, count, err);
    *err = why;
    err_context(err, "transaction %u committed at %s", txn->xid,
                position_text(txn->commit, commit));
    if (lane_ddl_heals(lane, err) || err->transient || err->kind != ERR_FAITHFUL)
        return false;
    why = *err;
    err_clear(err);
    if (!ops->rollback(lane->applier, err))
        return false;
    if (!lane->ddl_failed && may_be_skipped(lane->apply, txn))
        return bury(lane, plan, txn, &why, err);
    *err = why;
    return false;
}

/* Other lanes have this batch: the ones that don't write their part in one transaction each, row by
 * row. */
static bool replay_missing(Lane *lane, Plan *plan, Err *err)
{
    Apply *apply = lane->apply;
    const ApplierOps *ops = lane->applier->ops;

    for (unsigned i = 0; i < plan->lanes; i++) {
        Progress progress =
            progress_of(apply, &apply->lanes[i], plan->batch->first, plan->batch->last, plan);
        TableRows *rows;

        if (apply->lanes[i].has_it)
            continue;
        if (!plan_steps(plan, i, &apply->table_source, &rows, err) ||
            !ops->begin(lane->applier, err))
            return false;
        for (; rows; rows = rows->next)
            if (!ops->write(lane->applier, rows, err))
                return err_context(err, "lane %u of a batch that others have", i);
        if (!ops->progress(lane->applier, &progress, err) || !ops->settle(lane->applier, err) ||
            !ops->commit(lane->applier, err))
            return err_context(err, "lane %u of a batch that others have", i);
        apply->lanes[i].has_it = true;
        apply->lanes[i].last = plan->batch->last->commit;
    }
    for (unsigned i = 0; i < plan->lanes; i++)
        apply->lanes[i].has_it = false;
    note_committed(apply, plan->batch->last, plan->batch->txn_count, plan->batch->change_count);
    return true;
}

static bool is_partial(const Apply *apply, const Plan *plan)
{
    for (unsigned i = 0; i < plan->lanes; i++)
        if (apply->lanes[i].has_it)
            return true;
    return false;
}

static bool replay(Lane *lane, Plan *plan, Err *err)
{
    pthread_mutex_lock(&lane->apply->lock);
    lane->apply->counters.replays++;
    pthread_mutex_unlock(&lane->apply->lock);
    if (is_partial(lane->apply, plan))
        return replay_missing(lane, plan, err);
    for (const Txn *txn = plan->batch->first; txn; txn = txn->next) {
        if (stop_requested(&lane->apply->closing))
            return stop_fail(err, "replaying a batch");
        if (!exact_txn(lane, plan, txn, err))
            return false;
    }
    return true;
}

/* --- together -----------------------------------------------------------------------------------
 */

/* A published plan is taken even while everything ends: the other lanes wait for this one. */
static Plan *plan_for(Lane *lane)
{
    Apply *apply = lane->apply;

    if (!apply->plan || apply->generation == lane->seen || lane->index >= apply->plan->lanes)
        return NULL;
    lane->seen = apply->generation;
    return apply->plan;
}

static Plan *lane_wait(Lane *lane)
{
    Apply *apply = lane->apply;
    Plan *plan;

    pthread_mutex_lock(&apply->lock);
    while (!(plan = plan_for(lane)) && !apply->quit)
        pthread_cond_wait(&apply->work, &apply->lock);
    pthread_mutex_unlock(&apply->lock);
    return plan;
}

/* Waits for the other lanes; true when all have succeeded. */
static bool lanes_agree(Lane *lane, const Plan *plan, bool ok, const Err *err)
{
    Apply *apply = lane->apply;
    uint64_t generation = lane->seen;

    pthread_mutex_lock(&apply->lock);
    if (!ok && (!apply->any_failed || apply->failure.kind == ERR_STOPPED))
        apply->failure = *err;
    apply->any_failed |= !ok;
    apply->arrived++;
    if (apply->arrived == plan->lanes)
        pthread_cond_broadcast(&apply->agreed);
    while (apply->arrived < plan->lanes && apply->generation == generation)
        pthread_cond_wait(&apply->agreed, &apply->lock);
    ok = !apply->any_failed;
    pthread_mutex_unlock(&apply->lock);
    return ok;
}

#ifdef KB_TEST_HOOKS
/* So that a test can end the process between two lanes' commits, they come one after the other when
 * it asks. */
static void take_turns(Lane *lane)
{
    Apply *apply = lane->apply;

    if (!getenv("KB_CRASH_AT"))
        return;
    pthread_mutex_lock(&apply->lock);
    while (apply->commits < lane->index && !apply->commit_failed)
        pthread_cond_wait(&apply->agreed, &apply->lock);
    pthread_mutex_unlock(&apply->lock);
}
#else
#define take_turns(lane) ((void)0)
#endif

static void lane_commit(Lane *lane, const Plan *plan)
{
    Apply *apply = lane->apply;
    Err err = ERR_INIT;
    bool ok = true;

    take_turns(lane);
    crash_point("before-lane-commit");
    if (!lane->has_it)
        ok = lane->applier->ops->commit(lane->applier, &err);
    if (plan->lanes > 1)
        crash_point("between-lane-commits");
    if (ok)
        lane_ddl_end(lane);
    pthread_mutex_lock(&apply->lock);
    apply->commits++;
    if (ok) {
        lane->last = plan->batch->last->commit;
    } else {
        if (!apply->commit_failed)
            apply->failure = err;
        apply->commit_failed = true;
    }
    pthread_cond_broadcast(&apply->agreed);
    pthread_mutex_unlock(&apply->lock);
}

static void lane_undo(Lane *lane)
{
    Apply *apply = lane->apply;
    Err err = ERR_INIT;

    if (lane->has_it || lane->applier->ops->rollback(lane->applier, &err))
        return;
    pthread_mutex_lock(&apply->lock);
    /* A connection that can't roll back is lost: nothing can be replayed over it. */
    if (!apply->failure.transient && apply->failure.kind != ERR_STOPPED)
        apply->failure = err;
    pthread_mutex_unlock(&apply->lock);
}

/* True for the lane that leaves last. */
static bool lane_leave(Lane *lane, const Plan *plan)
{
    Apply *apply = lane->apply;
    bool last;

    pthread_mutex_lock(&apply->lock);
    last = ++apply->left == plan->lanes;
    pthread_mutex_unlock(&apply->lock);
    return last;
}

static bool is_replayable(Apply *apply, const Err *err)
{
    bool tie_broken;

    pthread_mutex_lock(&apply->lock);
    tie_broken = apply->tie_broken;
    pthread_mutex_unlock(&apply->lock);
    if (apply->commit_failed || err->kind == ERR_STOPPED || err->kind == ERR_SYSTEM ||
        err->kind == ERR_BUG)
        return false;
    if (stop_requested(&apply->closing))
        return false;
    return !err->transient || tie_broken;
}

/* Unique values that move between rows, unseen, will do so again: for a while such tables aren't
 * cut, and when that doesn't help are written in order. What failed for their definition may have
 * been altered. */
static void learn(Apply *apply, const Plan *plan, const Err *err)
{
    bool miscounted = strcmp(err->code, "row-count") == 0;
    bool unique = strcmp(err->code, "23505") == 0 || strcmp(err->code, "23P01") == 0;

    if (!unique && strncmp(err->code, "23", 2) != 0 && !miscounted && !apply->tie_broken &&
        plan->form != PLAN_EXACT)
        apply_forget_tables(apply);
    if ((!unique && !apply->tie_broken && !miscounted) || plan->form != PLAN_PARTS)
        return;
    if (!miscounted && plan->could_split && !plan->together) {
        atomic_store(&apply->together, CAUTIOUS_BATCHES);
        return;
    }
    for (unsigned lane = 0; lane < plan->lanes; lane++)
        for (TableRows *rows = plan->parts[lane]; rows; rows = rows->next)
            if (miscounted ? rows->table->bag : !rows->table->spread || rows->table->unique_count)
                atomic_store(&rows->table->cautious, CAUTIOUS_BATCHES);
}

/* All lanes have left and none touches the plan or its connection until the router publishes the
 * next one. */
static void finish_plan(Lane *lane, Plan *plan)
{
    Apply *apply = lane->apply;
    bool ok = !apply->any_failed && !apply->commit_failed;
    Err err = apply->failure;
    uint64_t written = 0;

    if (ok) {
        for (unsigned i = 0; i < plan->lanes; i++)
            apply->lanes[i].has_it = false;
        note_committed(apply, plan->batch->last, plan->batch->txn_count, plan->batch->change_count);
    } else if (is_replayable(apply, &err)) {
        log_debug("batch is replayed in exact order", F_STR("why", err.text),
                  F_STR("code", err.code));
        learn(apply, plan, &err);
        err_clear(&err);
        ok = replay(lane, plan, &err);
    } else if (apply->commit_failed && err.kind != ERR_STOPPED) {
        err_transient(&err); /* other lanes may have committed: progress decides, after reopening */
    }
    for (unsigned i = 0; i < apply->lane_count; i++)
        written += apply->lanes[i].applier->ops->rows_written(apply->lanes[i].applier);
    if (ok)
        pause_committed(apply->pause, plan->batch->last->commit);
    if (!ok || !lane_ddl_goes_on(apply, &err))
        apply_fail(apply, &err);
    pthread_mutex_lock(&apply->lock);
    apply->counters.batches++;
    apply->counters.rows_written = written;
    apply->plan = NULL;
    pthread_cond_signal(&apply->idle);
    pthread_mutex_unlock(&apply->lock);
    plan_free(plan);
}

void *lane_main(void *arg)
{
    Lane *lane = arg;
    Plan *plan;

    log_thread("lane");
    while ((plan = lane_wait(lane))) {
        Err err = ERR_INIT;
        bool ok = lane_execute(lane, plan, &err);

        if (lanes_agree(lane, plan, ok, &err))
            lane_commit(lane, plan);
        else
            lane_undo(lane);
        if (lane_leave(lane, plan))
            finish_plan(lane, plan);
    }
    return NULL;
}
