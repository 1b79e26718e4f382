#include "appliers/postgres/applier_pg.h"

#include "appliers/postgres/applier_impl.h"
#include "appliers/postgres/fit.h"

static void pg_applier_free(Applier *self)
{
    PgApplier *a = pg_applier_of(self);

    link_forget(a);
    pg_close(&a->pg);
    buf_fini(&a->scratch);
    free(a->expects);
    free(a->stream);
    free(a);
}

static bool on_begin(Applier *self, Err *err)
{
    static const Expect expect = {.doing = "beginning a transaction", .rows = -1};
    PgApplier *a = pg_applier_of(self);

    a->in_transaction = true;
    return link_send(a, "begin", &expect, err);
}

static bool on_settle(Applier *self, Err *err)
{
    return link_settle(pg_applier_of(self), err);
}

static bool on_check_deferred(Applier *self, Err *err)
{
    static const Expect expect = {
        .doing = "checking deferred constraints", .rows = -1, .is_check = true};

    return link_send(pg_applier_of(self), "set constraints all immediate", &expect, err);
}

static bool on_commit(Applier *self, Err *err)
{
    static const Expect expect = {.doing = "committing", .rows = -1, .is_commit = true};
    PgApplier *a = pg_applier_of(self);

    a->in_transaction = false;
    return link_send(a, "commit", &expect, err) && link_settle(a, err);
}

/* What was prepared in a failed transaction may or may not be there: all of it is dropped. */
static bool on_rollback(Applier *self, Err *err)
{
    static const Expect undo = {.doing = "rolling back", .rows = -1};
    static const Expect drop = {.doing = "deallocating statements", .rows = -1};
    PgApplier *a = pg_applier_of(self);
    Err ignored = ERR_INIT;

    if (a->broken)
        return link_lost(a, err, "rolling back");
    if (a->expect_count && !link_settle(a, &ignored) && a->broken)
        return link_lost(a, err, "rolling back");
    if (a->in_transaction && (!link_send(a, "rollback", &undo, err) || !link_settle(a, err)))
        return false;
    a->in_transaction = false;
    link_forget(a);
    return link_send(a, "deallocate all", &drop, err) && link_settle(a, err);
}

static uint64_t on_rows_written(const Applier *self)
{
    return ((const PgApplier *)self)->written;
}

static int on_session(const Applier *self)
{
    return PQbackendPID(((const PgApplier *)self)->pg.conn);
}

static bool on_describe(Applier *self, const Relation *rel, Table **table, Err *err)
{
    PgApplier *a = pg_applier_of(self);
    PgTable *t;

    if (!link_plain(a, err))
        return false;
    if (!pg_table_describe(&a->pg, rel, &t, err))
        return false;
    if (!pg_table_fits(&a->pg, t, a->binary, err)) {
        table_free(&t->base);
        return false;
    }
    *table = &t->base;
    return true;
}

static const ApplierOps pg_applier_ops = {
    .name = "postgres",
    .free = pg_applier_free,
    .begin = on_begin,
    .write = write_rows,
    .change = write_change,
    .truncate = write_truncate,
    .ddl = schema_ddl,
    .progress = control_progress,
    .dead_letter = control_dead_letter,
    .settle = on_settle,
    .check_deferred = on_check_deferred,
    .commit = on_commit,
    .rollback = on_rollback,
    .rows_written = on_rows_written,
    .session = on_session,
    .describe = on_describe,
    .take = control_take,
    .read_progress = control_read_progress,
    .set_start = control_set_start,
    .read_start = control_read_start,
    .log_positions = control_log_positions,
    .force_flush = control_force_flush,
    .break_tie = control_break_tie,
    .blocker = control_blocker,
};

/* So that a session whose client is gone ends soon and gives up its locks. Ignored on unix sockets.
 */
static const char keepalive_sql[] = "set tcp_keepalives_idle = 15; set tcp_keepalives_interval = 5;"
                                    "set tcp_keepalives_count = 3";

/* Plans: always the key's index, sorted keys, one row after the other. Statistics of a restored
 * table may be missing or wrong, and a sequential scan for each batch would be the end of keeping
 * up. One plan for each statement. */
static const char plan_sql[] =
    "set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off;"
    "set enable_bitmapscan = off; set enable_material = off;"
    "set max_parallel_workers_per_gather = 0; set jit = off";

/* What it writes before the first batch is behind it in the log: durable as soon as anything is
 * that is confirmed (see control_force_flush, which waits). JIT would compile the catalogue queries
 * for ten times as long as they run. */
static const char control_sql[] = "set synchronous_commit = off; set jit = off";

static bool be_replica(PgApplier *a, Err *err)
{
    if (pg_exec(&a->pg, "set session_replication_role = replica", err))
        return true;
    if (strcmp(err->code, "42501") == 0)
        err_hint(
            err,
            "triggers and foreign keys must not fire for replicated rows: connect as a superuser, on RDS as a "
            "member of rds_superuser, or GRANT SET ON PARAMETER session_replication_role TO the user (15+)");
    return err_context(err, "making the target's session a replica");
}

static bool set_up(PgApplier *a, const ApplierConf *conf, Err *err)
{
    bool is_12 = a->pg.version >= 120000;

    if (!pg_exec(&a->pg, keepalive_sql, err) ||
        (is_12 && !pg_exec(&a->pg, "set tcp_user_timeout = 30000", err)))
        return false;
    if (conf->control)
        return pg_exec(&a->pg, control_sql, err) &&
               (!is_12 || pg_exec(&a->pg, "set plan_cache_mode = force_generic_plan", err));
    /* Set, not inherited: what is confirmed to the source depends on it (trap 174). */
    return be_replica(a, err) && pg_exec(&a->pg, plan_sql, err) &&
           (!is_12 || pg_exec(&a->pg, "set plan_cache_mode = force_generic_plan", err)) &&
           pg_exec(&a->pg,
                   conf->synchronous ? "set synchronous_commit = on"
                                     : "set synchronous_commit = off",
                   err) &&
           (PQsetnonblocking(a->pg.conn, 1) == 0 || link_lost(a, err, "setting up the session"));
}

Applier *pg_applier_open(const ApplierConf *conf, Err *err)
{
    PgApplier *a = calloc(1, sizeof(*a));
    char application[64];
    PgOptions options = {.application = application, .stop = conf->connecting};

    if (!a)
        abort();
    a->base.ops = &pg_applier_ops;
    a->closing = conf->closing;
    a->binary = conf->binary;
    a->stream = strdup(conf->stream);
    if (!a->stream)
        abort();
    buf_init(&a->scratch, (size_t)1 << 30); /* a row can't be larger in PostgreSQL */
    if (conf->control)
        snprintf(application, sizeof(application), "keybridge %.40s control", conf->stream);
    else
        snprintf(application, sizeof(application), "keybridge %.40s lane %u", conf->stream,
                 conf->lane);
    if (!pg_open(&a->pg, conf->dsn, ERR_TARGET, &options, err) || !set_up(a, conf, err)) {
        pg_applier_free(&a->base);
        return NULL;
    }
    return &a->base;
}
