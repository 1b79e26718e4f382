#include "engine/move/origin.h"

#include <ctype.h>
#include <poll.h>
#include <time.h>

#include "engine/base/log.h"
#include "engine/base/mono.h"
#include "engine/model/position.h"
#include "engine/move/sha256.h"
#include "engine/stream/published.h"

static bool publication_exists(Pg *pg, const char *publication, bool *exists, Err *err)
{
    AUTO_RESULT res =
        pg_rows(pg, err, "select 1 from pg_publication where pubname = $1", publication);

    *exists = res && PQntuples(res) > 0;
    return res != NULL;
}

/* What a user without FOR ALL TABLES can have: every table that is there now. One made later isn't
 * in it. */
static bool publish_list(Pg *pg, const char *publication, Err *err)
{
    AUTO_RESULT res = pg_rows(
        pg, err,
        "select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where c.relkind = 'r' and c.relpersistence = 'p' and c.oid >= 16384"
        " and n.nspname not in ('pg_catalog', 'information_schema') and not " ORIGIN_NOT_OURS
        " order by 1, 2");
    AUTO_BUF sql;

    buf_init(&sql, MIB(64));
    if (!res)
        return false;
    buf_puts(&sql, "create publication ");
    pg_put_name(&sql, publication);
    for (int i = 0; i < PQntuples(res); i++) {
        buf_puts(&sql, i ? ", " : " for table ");
        pg_put_table(&sql, PQgetvalue(res, i, 0), PQgetvalue(res, i, 1));
    }
    if (!buf_ok(&sql, "the list of tables", err))
        return false;
    if (pg_exec(pg, buf_str(&sql), err))
        return true;
    return strcmp(err->code, "42501") == 0
               ? err_hint(
                     err,
                     "make the user a member of the tables' owner and let it create in the database: GRANT the owner's role"
                     " TO it, GRANT CREATE ON DATABASE … TO it")
               : false;
}

/* Somebody may have altered it since. Rows that aren't published would be missing on the new side.
 */
bool origin_publishes_all(Pg *pg, const char *publication, Err *err)
{
    AUTO_BUF limits;

    buf_init(&limits, MIB(1));
    if (!published_limits(pg, publication, &limits, err))
        return false;
    if (limits.len == 0)
        return true;
    err_fail(err, ERR_FAITHFUL, "publication %s leaves something out: %s", publication,
             buf_str(&limits));
    return err_hint(
        err, "what it left out can't be had any more: drop it, keybridge cleanup, and start again");
}

bool origin_publish(Pg *pg, const char *publication, bool ours, bool *all_tables, Err *err)
{
    bool exists;
    AUTO_BUF sql;

    buf_init(&sql, 4096);
    *all_tables = true;
    if (!publication_exists(pg, publication, &exists, err))
        return false;
    if (exists && !ours) {
        err_fail(err, ERR_STATE, "publication %s exists already and this migration didn't make it",
                 publication);
        return err_hint(err,
                        "choose another name with --publication, or drop it if nobody uses it");
    }
    if (exists) {
        if (!origin_publishes_all(pg, publication, err))
            return false;
        AUTO_RESULT res = pg_rows(
            pg, err, "select puballtables from pg_publication where pubname = $1", publication);

        *all_tables = res && PQntuples(res) == 1 && PQgetvalue(res, 0, 0)[0] == 't';
        return res != NULL;
    }
    buf_puts(&sql, "create publication ");
    pg_put_name(&sql, publication);
    buf_puts(&sql, " for all tables");
    if (pg_exec(pg, buf_str(&sql), err))
        return true;
    if (strcmp(err->code, "42501") != 0)
        return false;
    err_clear(err);
    *all_tables = false;
    return publish_list(pg, publication, err);
}

static bool lsn_cell(const PGresult *res, int column, uint64_t *lsn, Err *err)
{
    *lsn = 0;
    return PQgetisnull(res, 0, column) || lsn_parse(pg_cell(res, 0, column), lsn, err);
}

bool origin_slot(Pg *pg, const char *slot, Arena *arena, OriginSlot *out, Err *err)
{
    AUTO_RESULT res =
        pg_rows(pg, err,
                "select active, coalesce(database, ''), coalesce(plugin, ''), confirmed_flush_lsn,"
                " restart_lsn, pg_current_wal_flush_lsn(),"
                " coalesce(wal_status, '') from pg_replication_slots where slot_name = $1",
                slot);

    *out = (OriginSlot){0};
    if (!res)
        return false;
    if (PQntuples(res) == 0)
        return true;
    out->exists = true;
    out->active = PQgetvalue(res, 0, 0)[0] == 't';
    out->database = arena_strdup(arena, PQgetvalue(res, 0, 1));
    out->plugin = arena_strdup(arena, PQgetvalue(res, 0, 2));
    out->wal_status = arena_strdup(arena, PQgetvalue(res, 0, 6));
    return lsn_cell(res, 3, &out->confirmed_flush, err) && lsn_cell(res, 4, &out->restart, err) &&
           lsn_cell(res, 5, &out->source_flush, err);
}

const char *origin_slot_name(Arena *arena, const char *prefix, const char *database)
{
    char hash[SHA256_TEXT];
    char name[64];
    size_t len = 0;
    bool changed = strlen(prefix) + 1 + strlen(database) >= sizeof(name);

    for (const char *at = prefix; *at && len < 31; at++)
        name[len++] = *at;
    name[len++] = '_';
    for (const char *at = database; *at && len < 63; at++) {
        bool fits = islower((unsigned char)*at) || isdigit((unsigned char)*at) || *at == '_';

        changed |= !fits;
        name[len++] = fits ? *at : '_';
    }
    name[len] = '\0';
    if (!changed)
        return arena_strdup(arena, name);
    sha256_text(span_str(database), hash);
    name[size_min(len, 54)] = '\0';
    return arena_printf(arena, "%s_%.8s", name, hash);
}

bool origin_open_transactions(Pg *pg, uint64_t older_than_ms, Buf *out, Err *err)
{
    char age[32];
    AUTO_RESULT res = NULL;

    snprintf(age, sizeof(age), "%" PRIu64, older_than_ms);
    res = pg_rows(
        pg, err,
        "select * from (select 'pid ' || pid || ' ' || coalesce(usename, '?') || coalesce(' from ' || host(client_addr), '')"
        " || coalesce(' (' || nullif(application_name, '') || ')', '') || ', open '"
        " || round(extract(epoch from clock_timestamp() - xact_start)) || ' s, ' || coalesce(state, '?'), xact_start"
        " from pg_stat_activity where pid <> pg_backend_pid() and backend_xid is not null"
        " and xact_start < clock_timestamp() - $1::float8 * interval '1 ms'"
        " union all"
        " select 'prepared transaction ' || quote_literal(gid) || ' of ' || owner || ', open '"
        " || round(extract(epoch from clock_timestamp() - prepared)) || ' s', prepared from pg_prepared_xacts) o"
        " order by 2 limit 5",
        age);
    if (!res)
        return false;
    for (int i = 0; i < PQntuples(res); i++)
        buf_printf(out, "%s%s", out->len ? "; " : "", PQgetvalue(res, i, 0));
    return buf_ok(out, "the list of open transactions", err);
}

static bool send_make_slot(Pg *pg, const char *slot, bool failover, Err *err)
{
    const char *sql =
        failover
            ? "select lsn from pg_create_logical_replication_slot($1, 'pgoutput', failover => true)"
            : "select lsn from pg_create_logical_replication_slot($1, 'pgoutput')";

    if (failover && pg->version < 170000) {
        err_fail(
            err, ERR_USAGE,
            "--slot-failover: the source is PostgreSQL %d, slots that survive a failover came with 17",
            pg->version / 10000);
        return err_hint(
            err, "leave it out; after a failover of the source the copy must then be made again");
    }
    return PQsendQueryParams(pg->conn, sql, 1, NULL, &slot, NULL, NULL, 0) ||
           pg_fail(pg, NULL, err, "making the replication slot");
}

/* A second connection asks who blocks, because the first one is blocked. */
static bool name_blockers(Pg *pg, const char *slot, bool final, uint64_t waited_ms, Err *err)
{
    AUTO_PG other = {0};
    AUTO_BUF who;
    Err ignored = ERR_INIT;
    PQconninfoOption *options = PQconninfo(pg->conn);
    const char *keys[64];
    const char *values[64];
    size_t count = 0;

    buf_init(&who, 4096);
    for (PQconninfoOption *o = options; o && o->keyword && count < 63; o++)
        if (o->val && *o->val) {
            keys[count] = o->keyword;
            values[count++] = o->val;
        }
    keys[count] = values[count] = NULL;
    other =
        (Pg){.conn = PQconnectdbParams(keys, values, 0), .side = pg->side, .version = pg->version};
    PQconninfoFree(options);
    if (PQstatus(other.conn) != CONNECTION_OK ||
        !origin_open_transactions(&other, 1000, &who, &ignored))
        buf_puts(&who, "unknown");
    if (final) {
        err_fail(err, ERR_SOURCE, "making slot %s: waited %" PRIu64 " s for open transactions: %s",
                 slot, waited_ms / 1000, buf_str(&who));
        return err_hint(err,
                        "end them, or wait for them with a longer --apply-retry, and run again");
    }
    log_warn("the slot waits for open transactions", F_STR("slot", slot),
             F_U64("waited_s", waited_ms / 1000), F_STR("by", buf_str(&who)));
    return true;
}

static void cancel(Pg *pg)
{
    PGcancel *handle = PQgetCancel(pg->conn);
    char why[256];

    if (handle && !PQcancel(handle, why, sizeof(why)))
        log_debug("cancelling failed", F_STR("error", why));
    PQfreeCancel(handle);
}

/* Waits for the answer while staying able to stop and to say who is in the way. */
static bool await_slot(Pg *pg, const char *slot, uint64_t wait_ms, const Stop *stop, Err *err)
{
    uint64_t begun = mono_ms();
    uint64_t named = begun;

    while (PQisBusy(pg->conn)) {
        int got = stop_poll(stop, PQsocket(pg->conn), POLLIN, 250);
        uint64_t now = mono_ms();

        if (got > 0 && !PQconsumeInput(pg->conn))
            return pg_fail(pg, NULL, err, "making the replication slot");
        if (got < 0) {
            cancel(pg);
            return stop_fail(err, "making the replication slot");
        }
        if (got == 0 && wait_ms && now - begun >= wait_ms) {
            name_blockers(pg, slot, true, now - begun, err);
            cancel(pg);
            return false;
        }
        if (got == 0 && now - named >= 3000 && name_blockers(pg, slot, false, now - begun, err))
            named = now + 7000;
    }
    return true;
}

static bool take_slot_lsn(Pg *pg, const char *slot, bool waited, uint64_t *lsn, Err *err)
{
    AUTO_RESULT res = PQgetResult(pg->conn);
    PGresult *more;
    bool ok = waited && PQresultStatus(res) == PGRES_TUPLES_OK;

    while ((more = PQgetResult(pg->conn)) != NULL)
        PQclear(more);
    if (!waited)
        return false;
    if (ok)
        return lsn_parse(pg_cell(res, 0, 0), lsn, err);
    pg_fail(pg, res, err, "making the replication slot");
    return err_context(err, "slot %s", slot);
}

bool origin_make_slot(Pg *pg, const char *slot, bool ours, const OriginNeed *need, const Stop *stop,
                      Arena *arena, uint64_t *consistent_point, Err *err)
{
    OriginSlot there;
    uint64_t deadline = mono_ms() + need->wait_ms;

    for (;;) {
        if (!origin_slot(pg, slot, arena, &there, err))
            return false;
        if (!there.exists)
            break;
        if (!ours) {
            err_fail(err, ERR_STATE,
                     "replication slot %s exists already and this migration didn't make it", slot);
            return err_hint(err, "choose another name with --slot, or drop it if nobody uses it");
        }
        if (!there.active) {
            /* Its confirmed position is the consistent point: nobody has streamed from it yet. */
            *consistent_point = there.confirmed_flush;
            return true;
        }
        /* A killed run's backend may still be making it: it notices nothing before it is done. */
        if (mono_ms() > deadline)
            return err_fail(err, ERR_SOURCE, "replication slot %s is in use by another connection",
                            slot);
        if (stop_wait(stop, 200))
            return stop_fail(err, "waiting for the slot");
    }
    return send_make_slot(pg, slot, need->failover, err) &&
           take_slot_lsn(pg, slot, await_slot(pg, slot, need->wait_ms, stop, err), consistent_point,
                         err);
}

bool origin_mark(Pg *pg, const char *publication, const char *marker, Err *err)
{
    AUTO_BUF sql;

    buf_init(&sql, 4096);
    buf_puts(&sql, "comment on publication ");
    pg_put_name(&sql, publication);
    buf_puts(&sql, " is ");
    pg_put_literal(&sql, span_str(marker));
    return pg_exec(pg, buf_str(&sql), err);
}

bool origin_marker(Pg *pg, const char *publication, Arena *arena, const char **found, Err *err)
{
    AUTO_RESULT res = pg_rows(
        pg, err,
        "select obj_description(oid, 'pg_publication') from pg_publication where pubname = $1",
        publication);

    *found = NULL;
    if (res && PQntuples(res) == 1 && !PQgetisnull(res, 0, 0))
        *found = arena_strdup(arena, PQgetvalue(res, 0, 0));
    return res != NULL;
}

bool origin_drop_slot(Pg *pg, const char *slot, uint64_t wait_ms, Err *err)
{
    uint64_t deadline = mono_ms() + wait_ms;

    for (;;) {
        AUTO_RESULT res = pg_rows(
            pg, err,
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1",
            slot);

        if (res || strcmp(err->code, "42704") == 0) {
            err_clear(err);
            return true;
        }
        if (strcmp(err->code, "55006") != 0 || mono_ms() > deadline)
            return err_context(err, "dropping slot %s", slot);
        err_clear(err);
        nanosleep(&(struct timespec){.tv_nsec = 50 * 1000 * 1000}, NULL);
    }
}

bool origin_drop_publication(Pg *pg, const char *publication, Err *err)
{
    AUTO_BUF sql;

    buf_init(&sql, 4096);
    buf_puts(&sql, "drop publication if exists ");
    pg_put_name(&sql, publication);
    return pg_exec(pg, buf_str(&sql), err);
}
