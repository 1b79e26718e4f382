#include "engine/check/verify.h"

#include <pthread.h>

#include "engine/base/log.h"
#include "engine/base/mono.h"
#include "engine/check/verify_impl.h"

#define CHUNK_ROWS  100000
#define REPORT_ROWS 100
#define ROUNDS      3
#define PROGRESS_MS 500

/* One table on one side, shared by the threads that read its chunks; under Run.lock. */
typedef struct Part {
    RowSum sum;
    size_t chunks_left;
    bool
        rewritten; /* truncated or rewritten since the snapshot, which then doesn't hold its rows */
    Err err;
} Part;

typedef struct Work {
    const Table *tables[SIDES];
    VerifyTable *out;
    bool portable;
    bool again; /* has to be looked at in a newer snapshot */
    Part parts[SIDES];
} Work;

typedef struct Job {
    Work *work;
    uint64_t from; /* pages */
    uint64_t to;   /* UINT64_MAX: to the end, and whatever was added meanwhile */
    uint64_t pages;
} Job;

typedef struct Jobs {
    Job *items;
    size_t count;
    size_t room;
    size_t next;
} Jobs;

typedef struct Run {
    const VerifyConf *conf;
    VerifyResult *result;
    Arena *arena;
    const Stop *stop;
    Snapshots snapshots;
    Work *works;
    size_t work_count;

    pthread_mutex_t lock;
    pthread_cond_t ended;
    Jobs jobs[SIDES];
    unsigned running;
    bool failed;
    Err err; /* the first that ends all */
    VerifyProgress progress;
    uint64_t started_us;
    uint64_t hashing_us; /* when hashing began */
    uint64_t told_us;
} Run;

const char *verify_verdict_name(VerifyVerdict verdict)
{
    static const char *const names[] = {
        [VERIFY_EQUAL] = "equal",          [VERIFY_DIFFERENT] = "different",
        [VERIFY_MISSING] = "missing",      [VERIFY_EXTRA] = "extra",
        [VERIFY_SCHEMA] = "other columns", [VERIFY_UNLOGGED] = "unlogged",
        [VERIFY_ERROR] = "unreadable",
    };

    return names[verdict];
}

bool verify_equal(const VerifyResult *result)
{
    return result->different == 0 && result->errors == 0 && result->drift.count == 0;
}

void verify_free(VerifyResult *result)
{
    arena_fini(&result->arena);
    memset(result, 0, sizeof(*result));
}

/* --- progress
 * ------------------------------------------------------------------------------------------------------
 */

static void tell(void *arg, VerifyPhase phase)
{
    Run *run = arg;
    VerifyProgress now;
    uint64_t us = mono_us();

    if (!run->conf->progress || us - run->told_us < PROGRESS_MS * 1000)
        return;
    run->told_us = us;
    pthread_mutex_lock(&run->lock);
    run->progress.phase = phase;
    run->progress.elapsed_us = us - run->started_us;
    run->progress.left_us = 0;
    if (phase == VERIFY_HASHING && run->progress.pages_done)
        run->progress.left_us =
            (uint64_t)((double)(us - run->hashing_us) *
                       (double)(run->progress.pages - run->progress.pages_done) /
                       (double)run->progress.pages_done);
    now = run->progress;
    pthread_mutex_unlock(&run->lock);
    run->conf->progress(run->conf->arg, &now);
}

/* --- one chunk
 * -----------------------------------------------------------------------------------------------------
 */

static void put_chunk_sql(Buf *sql, const Job *job, Side side)
{
    const Work *work = job->work;
    /* The columns in the source's order on both sides; only the name of the table is the side's
     * own, and that is the same. */
    const Table *shape = work->tables[SIDE_SOURCE];

    buf_puts(
        sql,
        "select count(*), coalesce(sum(hash_array_extended(x,0)),0), coalesce(sum(hash_array_extended(x,1)),0)"
        " from (select ");
    hash_put_row_array(sql, shape, work->portable);
    buf_puts(sql, " as x");
    hash_put_from(sql, work->tables[side]);
    if (job->from || job->to != UINT64_MAX)
        buf_printf(sql, " where t.ctid >= '(%" PRIu64 ",0)'", job->from);
    if (job->to != UINT64_MAX)
        buf_printf(sql, " and t.ctid < '(%" PRIu64 ",0)'", job->to);
    /* offset 0: or the subquery is flattened and x computed twice. */
    buf_puts(sql, " offset 0) v; " SNAPSHOT_GIVE_BACK);
}

/* pg_class is read with our snapshot, pg_relation_filenode looks at what is there now. */
static bool read_rewritten(Pg *pg, const Table *table, const Stop *stop, bool *rewritten, Err *err)
{
    char sql[256];
    AUTO_RESULT res = NULL;

    snprintf(
        sql, sizeof(sql),
        "select relfilenode is distinct from pg_relation_filenode(oid) from pg_class where oid = %u;"
        " " SNAPSHOT_GIVE_BACK,
        table->oid);
    res = snapshot_ask(pg, sql, stop, err);
    if (!res)
        return false;
    *rewritten = PQntuples(res) != 1 || PQgetvalue(res, 0, 0)[0] == 't';
    return true;
}

/* A statement that failed costs its table; a connection that is lost, or stop, costs the run. */
static bool recover(Pg *pg, const Err *err)
{
    Err second = ERR_INIT;

    return err->kind != ERR_STOPPED && PQstatus(pg->conn) == CONNECTION_OK &&
           strncmp(err->code, "08", 2) != 0 && strncmp(err->code, "57P", 3) != 0 &&
           pg_exec(pg, SNAPSHOT_GIVE_BACK, &second);
}

static void finish_chunk(Run *run, Pg *pg, Side side, Job *job, const RowSum *sum, bool ok,
                         Err *err)
{
    Part *part = &job->work->parts[side];
    bool last;

    pthread_mutex_lock(&run->lock);
    if (ok) {
        part->sum.rows += sum->rows;
        part->sum.sum[0] += sum->sum[0];
        part->sum.sum[1] += sum->sum[1];
        run->progress.rows_done += sum->rows;
    } else if (!err_is_set(&part->err)) {
        part->err = *err;
    }
    run->progress.pages_done += job->pages;
    last = --part->chunks_left == 0;
    pthread_mutex_unlock(&run->lock);
    if (last) {
        bool rewritten = false;
        Err second = ERR_INIT;
        bool known = read_rewritten(pg, job->work->tables[side], run->stop, &rewritten, &second);

        pthread_mutex_lock(&run->lock);
        part->rewritten = rewritten;
        if (!known && !err_is_set(&part->err))
            part->err = second;
        if (job->work->parts[0].chunks_left == 0 && job->work->parts[1].chunks_left == 0)
            run->progress.tables_done++;
        pthread_mutex_unlock(&run->lock);
    }
}

static bool run_job(Run *run, Pg *pg, Side side, Job *job, Err *err)
{
    RowSum sum = {0};
    AUTO_RESULT res = NULL;
    AUTO_BUF sql;

    buf_init(&sql, VERIFY_SQL_MOST);
    put_chunk_sql(&sql, job, side);
    if (buf_ok(&sql, "a statement that hashes a table", err))
        res = snapshot_ask(pg, buf_str(&sql), run->stop, err);
    if (res && PQntuples(res) == 1)
        row_sum_add(&sum, res, 0, 0);
    else if (res)
        err_fail(err, pg->side, "hashing: %d rows where one was expected", PQntuples(res));
    if (err_is_set(err)) {
        err_context(err, "%s.%s", job->work->tables[side]->schema, job->work->tables[side]->name);
        if (!recover(pg, err))
            return false;
    }
    finish_chunk(run, pg, side, job, &sum, !err_is_set(err), err);
    err_clear(err);
    return true;
}

typedef struct Worker {
    Run *run;
    Pg *pg;
    Side side;
    pthread_t thread;
} Worker;

static Job *next_job(Run *run, Side side)
{
    Jobs *jobs = &run->jobs[side];
    Job *job = NULL;

    pthread_mutex_lock(&run->lock);
    if (!run->failed && jobs->next < jobs->count)
        job = &jobs->items[jobs->next++];
    pthread_mutex_unlock(&run->lock);
    return job;
}

static void *worker_thread(void *arg)
{
    Worker *worker = arg;
    Run *run = worker->run;
    Err err = ERR_INIT;
    Job *job;

    log_thread(worker->side == SIDE_SOURCE ? "verify source" : "verify target");
    while ((job = next_job(run, worker->side)) != NULL &&
           run_job(run, worker->pg, worker->side, job, &err))
        ;
    pthread_mutex_lock(&run->lock);
    if (err_is_set(&err) && !run->failed) {
        run->failed = true;
        run->err = err;
    }
    run->running--;
    pthread_cond_signal(&run->ended);
    pthread_mutex_unlock(&run->lock);
    return NULL;
}

static void wait_workers(Run *run)
{
    pthread_mutex_lock(&run->lock);
    while (run->running) {
        struct timespec until;

        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 100 * 1000 * 1000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        pthread_cond_timedwait(&run->ended, &run->lock, &until);
        pthread_mutex_unlock(&run->lock);
        tell(run, VERIFY_HASHING);
        pthread_mutex_lock(&run->lock);
    }
    pthread_mutex_unlock(&run->lock);
}

static bool hash_all(Run *run, Err *err)
{
    Worker workers[SIDES * SNAPSHOT_MOST];
    unsigned count = 0;

    run->hashing_us = mono_us();
    run->failed = false;
    for (unsigned i = 0; i < run->snapshots.workers * SIDES; i++) {
        Worker *worker = &workers[count];
        Side side = (Side)(i % SIDES);

        *worker = (Worker){.run = run, .pg = &run->snapshots.conns[side][i / SIDES], .side = side};
        pthread_mutex_lock(&run->lock);
        run->running++;
        pthread_mutex_unlock(&run->lock);
        if (pthread_create(&worker->thread, NULL, worker_thread, worker) != 0) {
            pthread_mutex_lock(&run->lock);
            run->running--;
            run->failed = true;
            err_fail(&run->err, ERR_SYSTEM, "starting a thread that reads tables failed");
            pthread_mutex_unlock(&run->lock);
            break;
        }
        count++;
    }
    wait_workers(run);
    for (unsigned i = 0; i < count; i++)
        pthread_join(workers[i].thread, NULL);
    if (run->failed)
        *err = run->err;
    return !run->failed;
}

/* --- what there is to do
 * ------------------------------------------------------------------------------------------------
 */

static void add_job(Run *run, Side side, Job job)
{
    Jobs *jobs = &run->jobs[side];

    if (jobs->count == jobs->room) {
        size_t room = jobs->room ? jobs->room * 2 : 64;
        Job *items = arena_array(run->arena, Job, room);

        if (jobs->count)
            memcpy(items, jobs->items, jobs->count * sizeof(*items));
        jobs->items = items;
        jobs->room = room;
    }
    jobs->items[jobs->count++] = job;
}

/* Chunks are ranges of pages, each side's own: they needn't hold the same rows, because only the
 * sums of all of them are compared. Reading in the order of the disk is the cheapest there is, and
 * needs no key, no index and no order that both sides agree on. Servers before 14 can't scan a
 * range of pages, so there a table is one chunk. */
static void add_jobs(Run *run, Work *work, Side side, int version)
{
    const Table *table = work->tables[side];
    uint64_t chunk_rows = run->conf->chunk_rows ? run->conf->chunk_rows : CHUNK_ROWS;
    uint64_t per_page =
        table->rows_estimate && table->pages ? table->rows_estimate / table->pages + 1 : 64;
    uint64_t step = chunk_rows / per_page + 1;
    uint64_t from = 0;

    if (version < 140000 || !table->heap)
        step = table->pages + 1;
    do {
        bool last = table->pages - from <= step;
        Job job = {.work = work,
                   .from = from,
                   .to = last ? UINT64_MAX : from + step,
                   .pages = last ? table->pages - from : step};

        work->parts[side].chunks_left++;
        run->progress.pages += job.pages;
        add_job(run, side, job);
        from += step;
    } while (from < table->pages);
}

static bool same_bytes(const Table *s, const Table *t, bool portable)
{
    for (uint32_t i = 0; i < s->column_count; i++) {
        const TableColumn *mine = &s->columns[i], *other = NULL;

        for (uint32_t k = 0; k < t->column_count && !other; k++)
            if (strcmp(t->columns[k].name, mine->name) == 0)
                other = &t->columns[k];
        if (!other ||
            (!(portable && mine->carries_oids) &&
             (strcmp(mine->open, other->open) != 0 || strcmp(mine->close, other->close) != 0)))
            return false;
    }
    return s->column_count == t->column_count;
}

static void set_verdict(VerifyTable *out, const Table *s, const Table *t, bool portable)
{
    const Table *any = s ? s : t;

    *out = (VerifyTable){.schema = any->schema, .name = any->name, .keyless = any->key_count == 0};
    if (!t)
        out->verdict = any->kind == TABLE_UNLOGGED ? VERIFY_UNLOGGED : VERIFY_MISSING;
    else if (!s)
        out->verdict = VERIFY_EXTRA;
    else if (s->kind == TABLE_UNLOGGED)
        out->verdict = VERIFY_UNLOGGED;
    else if (!same_bytes(s, t, portable))
        out->verdict = VERIFY_SCHEMA;
    else
        out->verdict = VERIFY_EQUAL;
}

static bool is_wanted(const char *filter, const Table *table)
{
    size_t schema = strlen(table->schema), name = strlen(table->name);

    while (filter && *filter) {
        size_t len = strcspn(filter, ",");
        const char *at = filter;

        while (len && *at == ' ')
            at++, len--;
        while (len && at[len - 1] == ' ')
            len--;
        if (len == schema + 1 + name && memcmp(at, table->schema, schema) == 0 &&
            at[schema] == '.' && memcmp(at + schema + 1, table->name, name) == 0)
            return true;
        if (len == name && memcmp(at, table->name, name) == 0 &&
            strcmp(table->schema, "public") == 0)
            return true;
        filter += strcspn(filter, ",");
        filter += *filter == ',';
    }
    return filter == NULL;
}

static void keep_wanted(const char *filter, TableList *list, Arena *arena)
{
    Table *kept = arena_array(arena, Table, list->count + 1);
    size_t count = 0;

    for (size_t i = 0; i < list->count; i++)
        if (is_wanted(filter, &list->tables[i]))
            kept[count++] = list->tables[i];
    list->tables = kept;
    list->count = count;
}

/* A name that matches nothing would pass as equal. */
static bool check_filter(const char *filter, const TableList *source, const TableList *target,
                         Err *err)
{
    while (filter && *filter) {
        size_t len = strcspn(filter, ",");
        char one[256];
        bool found = false;

        snprintf(one, sizeof(one), "%.*s", (int)size_min(len, sizeof(one) - 1), filter);
        for (size_t i = 0; i < source->count && !found; i++)
            found = is_wanted(one, &source->tables[i]);
        for (size_t i = 0; i < target->count && !found; i++)
            found = is_wanted(one, &target->tables[i]);
        if (!found) {
            err_fail(err, ERR_USAGE, "no table is called %s on either side", one);
            return err_hint(
                err,
                "write --tables schema.table,schema.table as they are spelled in the catalogue");
        }
        filter += len;
        filter += *filter == ',';
    }
    return true;
}

static void plan(Run *run, const TableList *source, const TableList *target)
{
    VerifyTable *outs = arena_array(run->arena, VerifyTable, source->count + target->count + 1);
    bool portable = strcmp(source->type_oids, target->type_oids) != 0;
    size_t s = 0, t = 0, count = 0;

    run->works = arena_array(run->arena, Work, source->count + 1);
    while (s < source->count || t < target->count) {
        const Table *a = s < source->count ? &source->tables[s] : NULL;
        const Table *b = t < target->count ? &target->tables[t] : NULL;
        int order = !a ? 1 : !b ? -1 : strcmp(a->schema, b->schema);

        if (order == 0)
            order = strcmp(a->name, b->name);
        set_verdict(&outs[count], order <= 0 ? a : NULL, order >= 0 ? b : NULL, portable);
        if (outs[count].verdict == VERIFY_EQUAL)
            run->works[run->work_count++] =
                (Work){.tables = {a, b}, .out = &outs[count], .portable = portable};
        count++;
        s += order <= 0;
        t += order >= 0;
    }
    run->result->tables = outs;
    run->result->table_count = count;
}

static bool read_lists(Run *run, Err *err)
{
    TableList source, target;

    if (!tables_read(&run->snapshots.conns[SIDE_SOURCE][0], run->arena, &source, err) ||
        !tables_read(&run->snapshots.conns[SIDE_TARGET][0], run->arena, &target, err) ||
        !check_filter(run->conf->tables, &source, &target, err))
        return false;
    keep_wanted(run->conf->tables, &source, run->arena);
    keep_wanted(run->conf->tables, &target, run->arena);
    tables_compare(&source, &target, run->arena, &run->result->drift);
    run->result->left_out = source.left_out;
    run->result->left_out_count = run->conf->tables ? 0 : source.left_out_count;
    plan(run, &source, &target);
    return true;
}

/* The tables that are left for another round, as they are in its snapshots. One that was dropped on
 * both sides has nothing left to differ in. */
static bool read_lists_again(Run *run, Err *err)
{
    TableList source, target;
    size_t kept = 0;

    if (!tables_read(&run->snapshots.conns[SIDE_SOURCE][0], run->arena, &source, err) ||
        !tables_read(&run->snapshots.conns[SIDE_TARGET][0], run->arena, &target, err))
        return false;
    for (size_t i = 0; i < run->work_count; i++) {
        Work *work = &run->works[i];
        const Table *a = tables_find(&source, work->out->schema, work->out->name);
        const Table *b = tables_find(&target, work->out->schema, work->out->name);
        bool portable = strcmp(source.type_oids, target.type_oids) != 0;

        if (!a && !b)
            continue;
        set_verdict(work->out, a, b, portable);
        if (work->out->verdict == VERIFY_EQUAL)
            run->works[kept++] = (Work){.tables = {a, b}, .out = work->out, .portable = portable};
    }
    run->work_count = kept;
    return true;
}

static void add_all_jobs(Run *run)
{
    run->jobs[0] = run->jobs[1] = (Jobs){0};
    run->progress.pages = run->progress.pages_done = run->progress.tables_done =
        run->progress.tables = 0;
    for (size_t i = 0; i < run->work_count; i++) {
        Work *work = &run->works[i];

        for (int side = 0; side < SIDES; side++)
            work->parts[side] = (Part){0};
        work->again = false;
        for (int side = 0; side < SIDES; side++)
            add_jobs(run, work, (Side)side, run->snapshots.conns[side][0].version);
        run->progress.tables++;
    }
}

/* --- the verdicts
 * ----------------------------------------------------------------------------------------------------
 */

static void put_hash(char out[36], RowSum sum)
{
    snprintf(out, 36, "%016" PRIx64 "%016" PRIx64, sum.sum[0], sum.sum[1]);
}

/* Tables that changed under us in ways that a snapshot doesn't cover (TRUNCATE, rewriting DDL), or
 * that went away. */
static bool must_look_again(const Work *work)
{
    for (int side = 0; side < SIDES; side++)
        if (work->parts[side].rewritten || strcmp(work->parts[side].err.code, "42P01") == 0 ||
            strcmp(work->parts[side].err.code, "42703") == 0)
            return true;
    return false;
}

static void judge_error(Work *work)
{
    const Err *err = err_is_set(&work->parts[0].err) ? &work->parts[0].err : &work->parts[1].err;

    work->out->verdict = VERIFY_ERROR;
    work->out->error = *err;
    if (!err_is_set(err)) {
        err_fail(&work->out->error, ERR_STATE,
                 "%s.%s: truncated or rewritten again and again while it was being read",
                 work->out->schema, work->out->name);
        err_hint(&work->out->error, "verify again when no DDL or TRUNCATE runs on it");
    }
}

static bool judge(Run *run, Work *work, bool last_round, Err *err)
{
    VerifyTable *out = work->out;
    TableCheck check = {.shape = work->tables[SIDE_SOURCE], .portable = work->portable, .out = out};
    Pg *pgs[SIDES] = {&run->snapshots.conns[SIDE_SOURCE][0], &run->snapshots.conns[SIDE_TARGET][0]};
    NarrowConf conf = {.report_rows = run->conf->report_rows ? run->conf->report_rows : REPORT_ROWS,
                       .show_values = run->conf->show_values,
                       .stop = run->stop};

    if (must_look_again(work) && !last_round) {
        work->again = true;
        return true;
    }
    if (must_look_again(work) || err_is_set(&work->parts[0].err) ||
        err_is_set(&work->parts[1].err)) {
        judge_error(work);
        return true;
    }
    for (int side = 0; side < SIDES; side++)
        check.sum[side] = work->parts[side].sum;
    out->source_rows = check.sum[SIDE_SOURCE].rows;
    out->target_rows = check.sum[SIDE_TARGET].rows;
    put_hash(out->source_hash, check.sum[SIDE_SOURCE]);
    put_hash(out->target_hash, check.sum[SIDE_TARGET]);
    out->verdict = row_sum_equal(check.sum[0], check.sum[1]) ? VERIFY_EQUAL : VERIFY_DIFFERENT;
    if (out->verdict == VERIFY_EQUAL)
        return true;
    tell(run, VERIFY_NARROWING);
    if (narrow(pgs, &check, &conf, run->arena, err))
        return true;
    err_context(err, "%s.%s", out->schema, out->name);
    if (!recover(pgs[SIDE_SOURCE], err) || !recover(pgs[SIDE_TARGET], err))
        return false;
    /* That it differs is known, only not where; and narrowing may have met a TRUNCATE. */
    out->error = *err;
    out->at_least = true;
    err_clear(err);
    return true;
}

static bool judge_all(Run *run, bool last_round, Err *err)
{
    size_t again = 0;

    for (size_t i = 0; i < run->work_count; i++)
        if (!judge(run, &run->works[i], last_round, err))
            return false;
    for (size_t i = 0; i < run->work_count; i++)
        if (run->works[i].again)
            run->works[again++] = run->works[i];
    run->work_count = again;
    return true;
}

static void count_up(VerifyResult *result)
{
    for (size_t i = 0; i < result->table_count; i++) {
        const VerifyTable *table = &result->tables[i];

        result->rows += table->source_rows;
        if (table->verdict == VERIFY_ERROR)
            result->errors++;
        else if (table->verdict != VERIFY_EQUAL && table->verdict != VERIFY_UNLOGGED)
            result->different++;
    }
}

/* --- the run
 * ----------------------------------------------------------------------------------------------------------
 */

/* A pause that lapsed (a slow network, a stopped stream) is worth another try; a lost server isn't
 * ours to wait for. */
static bool open_snapshots(Run *run, Err *err)
{
    SnapshotWait wait = {.tell = tell, .arg = run, .stop = run->stop};

    for (int left = 3;; left--) {
        uint64_t paused_us;

        if (snapshots_open(&run->snapshots, run->conf, &wait, err)) {
            run->result->pause_us += run->snapshots.pause_us;
            if (run->result->how == VERIFY_AS_IS) /* an earlier round's tables weren't held */
                return true;
            run->result->how = run->snapshots.how;
            run->result->position = run->snapshots.position;
            run->result->note = run->snapshots.note;
            return true;
        }
        paused_us = run->snapshots.pause_us;
        run->result->pause_us += paused_us;
        if (left == 0 || err->kind != ERR_STATE || !err->transient)
            return false;
        log_info("trying for a snapshot again", F_STR("why", err->text));
        err_clear(err);
    }
}

static bool run_rounds(Run *run, Err *err)
{
    for (int round = 1; round <= ROUNDS; round++) {
        bool ok;

        if (!open_snapshots(run, err))
            return false;
        if (!run->conf->database)
            run->result->database =
                arena_strdup(run->arena, PQdb(run->snapshots.conns[SIDE_SOURCE][0].conn));
        ok = round == 1 ? read_lists(run, err) : read_lists_again(run, err);
        if (ok) {
            add_all_jobs(run);
            ok = hash_all(run, err) && judge_all(run, round == ROUNDS, err);
        }
        snapshots_close(&run->snapshots);
        if (!ok || run->work_count == 0)
            return ok;
        log_info("tables were truncated or rewritten meanwhile: looking at them again",
                 F_U64("tables", run->work_count));
    }
    return true;
}

bool verify_run(const VerifyConf *conf, VerifyResult *result, Err *err)
{
    Stop never;
    Run run = {.conf = conf, .result = result, .stop = conf->stop, .started_us = mono_us()};
    bool ok;

    memset(result, 0, sizeof(*result));
    arena_init(&result->arena, 64 * 1024);
    run.arena = &result->arena;
    if (!run.stop) {
        if (!stop_init(&never, err))
            return false;
        run.stop = &never;
    }
    result->database = run.progress.database =
        arena_strdup(run.arena, conf->database ? conf->database : "");
    pthread_mutex_init(&run.lock, NULL);
    pthread_cond_init(&run.ended, NULL);
    ok = run_rounds(&run, err);
    pthread_cond_destroy(&run.ended);
    pthread_mutex_destroy(&run.lock);
    if (!conf->stop)
        stop_fini(&never);
    if (!ok) {
        verify_free(result);
        return false;
    }
    count_up(result);
    result->total_us = mono_us() - run.started_us;
    return true;
}
