#include "engine/move/quiet.h"

#include "engine/base/log.h"
#include "engine/stream/capture.h"

static bool each(Pg *pg, const char *query,
                 bool (*row)(Pg *pg, const PGresult *res, int at, void *self, Err *err), void *self,
                 unsigned *count, Err *err)
{
    AUTO_RESULT res = pg_rows(pg, err, query);

    if (!res)
        return false;
    for (int i = 0; i < PQntuples(res); i++) {
        if (!row(pg, res, i, self, err))
            return false;
        *count += 1;
    }
    return true;
}

static bool drop_slot(Pg *pg, const PGresult *res, int at, void *self, Err *err)
{
    AUTO_RESULT done =
        pg_rows(pg, err, "select pg_drop_replication_slot($1)", PQgetvalue(res, at, 0));

    (void)self;
    return done || err_context(err, "dropping the copied slot %s", PQgetvalue(res, at, 0));
}

bool quiet_slots(Pg *pg, QuietReport *report, Err *err)
{
    return each(
        pg,
        "select slot_name from pg_replication_slots where not active and not temporary order by 1",
        drop_slot, NULL, &report->slots, err);
}

/* Without its slot first, or dropping the subscription would drop the publisher's slot, which is
 * the source's. */
static bool drop_subscription(Pg *pg, const PGresult *res, int at, void *self, Err *err)
{
    static const char *const steps[][2] = {{"alter subscription ", " disable"},
                                           {"alter subscription ", " set (slot_name = none)"},
                                           {"drop subscription ", ""}};

    (void)self;
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        AUTO_BUF sql;

        buf_init(&sql, 4096);
        buf_puts(&sql, steps[i][0]);
        pg_put_name(&sql, PQgetvalue(res, at, 0));
        buf_puts(&sql, steps[i][1]);
        if (!pg_exec(pg, buf_str(&sql), err))
            return err_context(err, "removing the copied subscription %s", PQgetvalue(res, at, 0));
    }
    return true;
}

/* Its rows come down the stream when the source commits it: here it would only hold their locks. */
static bool rollback_prepared(Pg *pg, const PGresult *res, int at, void *self, Err *err)
{
    Buf *names = self;
    AUTO_BUF sql;

    buf_init(&sql, 4096);
    log_info("a prepared transaction of the copy is rolled back", F_STR("database", PQdb(pg->conn)),
             F_STR("gid", PQgetvalue(res, at, 0)), F_STR("owner", PQgetvalue(res, at, 1)),
             F_STR("prepared", PQgetvalue(res, at, 2)));
    if (names)
        buf_printf(names, "%s%s", names->len ? ", " : "", PQgetvalue(res, at, 3));
    buf_puts(&sql, "rollback prepared ");
    pg_put_literal(&sql, pg_cell(res, at, 0));
    return pg_exec(pg, buf_str(&sql), err) ||
           err_context(err, "rolling back a copied prepared transaction");
}

/* A trigger that fires ALWAYS or for REPLICA would fire for what the stream applies and write its
 * rows twice. */
static bool still_trigger(Pg *pg, const PGresult *res, int at, void *self, Err *err)
{
    const QuietNote *note = self;
    AUTO_BUF table;
    AUTO_BUF sql;

    buf_init(&table, 4096);
    buf_init(&sql, 8192);
    pg_put_table(&table, PQgetvalue(res, at, 0), PQgetvalue(res, at, 1));
    buf_printf(&sql, "alter table %s enable %s trigger ", buf_str(&table),
               PQgetvalue(res, at, 3)[0] == 'A' ? "always" : "replica");
    pg_put_name(&sql, PQgetvalue(res, at, 2));
    if (!note->keep(note->self, buf_str(&sql), err))
        return false;
    buf_clear(&sql);
    buf_printf(&sql, "alter table %s disable trigger ", buf_str(&table));
    pg_put_name(&sql, PQgetvalue(res, at, 2));
    return pg_exec(pg, buf_str(&sql), err);
}

/* pg_cron reads its table itself, whatever our session's role. Where it is the owner's alone, its
 * function is the way in; older versions have none. */
static void put_job_switch(char out[128], const char *job, bool by_function, const char *to)
{
    if (by_function)
        snprintf(out, 128, "select cron.alter_job(%s, active := %s)", job, to);
    else
        snprintf(out, 128, "update cron.job set active = %s where jobid = %s", to, job);
}

static bool still_job(Pg *pg, const PGresult *res, int at, void *self, Err *err)
{
    const QuietNote *note = self;
    bool by_function = PQgetvalue(res, at, 1)[0] == 't';
    char undo[128], sql[128];

    put_job_switch(undo, PQgetvalue(res, at, 0), by_function, "true");
    put_job_switch(sql, PQgetvalue(res, at, 0), by_function, "false");
    if (!note->keep(note->self, undo, err))
        return false;
    if (pg_exec(pg, sql, err))
        return true;
    err_context(err, "stilling the copied cron job %s", PQgetvalue(res, at, 0));
    return err_hint(err,
                    "grant the user what it takes to alter cron jobs (on RDS rds_superuser has "
                    "it), or take the jobs out before the copy is made");
}

static bool still_jobs(Pg *pg, const QuietNote *note, unsigned *count, Err *err)
{
    static const char jobs[] =
        "select jobid, exists (select from pg_proc where proname = 'alter_job' and pronamespace ="
        " 'cron'::regnamespace) from cron.job where active order by 1";
    AUTO_RESULT there = pg_rows(pg, err, "select to_regclass('cron.job') is not null");

    if (!there || PQgetvalue(there, 0, 0)[0] != 't')
        return there != NULL;
    /* Its policy shows everybody their own jobs, and RDS's master all. */
    return pg_exec(pg, "set row_security = on", err) &&
           each(pg, jobs, still_job, (void *)(uintptr_t)note, count, err) &&
           pg_exec(pg, "set row_security = off", err);
}

static bool drop_publication(Pg *pg, const char *publication, Err *err)
{
    AUTO_BUF sql;

    buf_init(&sql, 4096);
    buf_puts(&sql, "drop publication if exists ");
    pg_put_name(&sql, publication);
    return pg_exec(pg, buf_str(&sql), err);
}

static bool set_read_only(Pg *pg, const char *database, const char *how, Err *err)
{
    AUTO_BUF sql;

    buf_init(&sql, 4096);
    buf_puts(&sql, "alter database ");
    pg_put_name(&sql, database);
    buf_puts(&sql, how);
    return pg_exec(pg, buf_str(&sql), err);
}

/* What the source's database says about read-only, so that opening puts exactly that back. */
static bool keep_read_only(Pg *pg, const char *database, const QuietNote *note, Err *err)
{
    AUTO_RESULT res = pg_rows(
        pg, err,
        "select substr(c, 31) from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase,"
        " unnest(s.setconfig) c where s.setrole = 0 and d.datname = $1"
        " and c like 'default\\_transaction\\_read\\_only=%'",
        database);
    AUTO_BUF undo;

    buf_init(&undo, 4096);
    if (!res)
        return false;
    buf_puts(&undo, "alter database ");
    pg_put_name(&undo, database);
    if (PQntuples(res) == 0) {
        buf_puts(&undo, " reset default_transaction_read_only");
    } else {
        buf_puts(&undo, " set default_transaction_read_only = ");
        pg_put_literal(&undo, pg_cell(res, 0, 0));
    }
    return note->keep(note->self, buf_str(&undo), err);
}

bool quiet_is_closed(Pg *pg, const char *database, bool *closed, Err *err)
{
    AUTO_RESULT res =
        pg_rows(pg, err,
                "select 1 from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase,"
                " unnest(s.setconfig) c where s.setrole = 0 and d.datname = $1"
                " and c = 'default_transaction_read_only=on'",
                database);

    *closed = res && PQntuples(res) > 0;
    return res != NULL;
}

/* Sessions that were there before the setting keep their old one. */
static bool end_other_sessions(Pg *pg, const char *database, Err *err)
{
    AUTO_RESULT res =
        pg_rows(pg, err,
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1"
                " and backend_type = 'client backend' and pid <> pg_backend_pid()"
                " and application_name not like 'keybridge%'",
                database);

    return res != NULL;
}

bool quiet_database(Pg *pg, const char *publication, const QuietNote *note, QuietReport *report,
                    Err *err)
{
    const char *database = PQdb(pg->conn);
    bool closed;
    void *self = (void *)(uintptr_t)note;

    if (!quiet_is_closed(pg, database, &closed, err))
        return false;
    if (!closed && (!keep_read_only(pg, database, note, err) ||
                    !set_read_only(pg, database, " set default_transaction_read_only = on", err) ||
                    !end_other_sessions(pg, database, err)))
        return false;
    /* What makes the source tell its DDL came with the copy. */
    if (!capture_remove(pg, err))
        return false;
    return each(
               pg,
               "select subname from pg_subscription where subdbid = (select oid from pg_database where datname ="
               " current_database()) order by 1",
               drop_subscription, NULL, &report->subscriptions, err) &&
           each(
               pg,
               "select gid, owner, prepared, quote_literal(gid) || ' of ' || owner from pg_prepared_xacts"
               " where database = current_database() order by 1",
               rollback_prepared, report->prepared_names, &report->prepared, err) &&
           each(
               pg,
               "select n.nspname, c.relname, t.tgname, t.tgenabled from pg_trigger t join pg_class c on c.oid = t.tgrelid"
               " join pg_namespace n on n.oid = c.relnamespace where t.tgenabled in ('A', 'R') and not t.tgisinternal"
               " and n.nspname <> 'keybridge' and t.tgparentid = 0 order by 1, 2, 3",
               still_trigger, self, &report->triggers, err) &&
           still_jobs(pg, note, &report->jobs, err) && drop_publication(pg, publication, err);
}

bool quiet_open(Pg *pg, const char *database, const char *const *undo, size_t count, Err *err)
{
    bool closed;

    for (size_t i = 0; i < count; i++)
        if (!pg_exec(pg, undo[i], err))
            return err_context(err, "opening database %s", database);
    /* Nothing kept says how it was: then it was as PostgreSQL makes it. */
    if (!quiet_is_closed(pg, database, &closed, err))
        return false;
    return !closed || count ||
           set_read_only(pg, database, " reset default_transaction_read_only", err);
}
