#include "engine/move/fence.h"

#include <poll.h>
#include <time.h>

#include "engine/base/log.h"
#include "engine/base/mono.h"
#include "engine/model/position.h"
#include "engine/move/origin.h"

typedef struct Holder {
    FenceDb db;
    Pg lock;       /* holds the locks */
    Pg side;       /* works beside it */
    char **tables; /* quoted, in the order in which they are locked */
    size_t table_count;
    char *catalogue; /* what the list was made from, to see that it still holds */
} Holder;

struct Fence {
    FenceConf conf;
    Arena arena;
    Pg maintenance;
    Holder *holders;
    uint64_t deadlock_ms; /* the server's deadlock_timeout */
};

static void sleep_ms(uint64_t ms)
{
    struct timespec pause = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};

    nanosleep(&pause, NULL);
}

/* Tables that logical replication carries, ours on the target aside. */
#define CARRIED                                                                                                       \
    " from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind = 'r' and c.relpersistence = 'p'" \
    " and c.oid >= 16384 and n.nspname not in ('pg_catalog', 'information_schema') "

/* Oids and filenodes in one text: another table, or the same one rewritten, changes it. */
static const char catalogue_sql[] =
    "select coalesce(string_agg(c.oid || ':' || c.relfilenode, ',' order by c.oid), '')" CARRIED;

/* A table made after a publication that lists its tables is in no stream. */
static bool all_are_published(Holder *holder, Err *err)
{
    AUTO_RESULT res =
        pg_rows(&holder->side, err,
                "select quote_ident(n.nspname) || '.' || quote_ident(c.relname)" CARRIED
                " and not exists (select from pg_publication_tables p where p.pubname = $1 and"
                " p.schemaname = n.nspname and p.tablename = c.relname) and not" ORIGIN_NOT_OURS
                " order by 1",
                holder->db.publication);

    if (!res)
        return false;
    if (PQntuples(res) == 0)
        return origin_publishes_all(&holder->side, holder->db.publication, err);
    err_fail(err, ERR_FAITHFUL, "%d tables are not in publication %s, such as %s", PQntuples(res),
             holder->db.publication, PQgetvalue(res, 0, 0));
    return err_hint(
        err, "tables made after the migration began don't move with it: drop them, or begin again");
}

static bool read_catalogue(Fence *fence, Holder *holder, const char **text, Err *err)
{
    AUTO_RESULT res = pg_rows(&holder->side, err, catalogue_sql);

    if (!res)
        return false;
    *text = arena_str_of(&fence->arena, pg_cell(res, 0, 0));
    return true;
}

/* Big and busy tables first is no better than any other order; the order is learned from failed
 * attempts. */
static bool read_tables(Fence *fence, Holder *holder, Err *err)
{
    AUTO_RESULT res = pg_rows(
        &holder->side, err,
        /* Where all tables are published, somebody else's are too; what they get until the database
         * is closed is counted by the proof. */
        "select p.schemaname, p.tablename from pg_publication_tables p join pg_class c on c.oid ="
        " format('%I.%I', p.schemaname, p.tablename)::regclass where p.pubname = $1 and not" ORIGIN_NOT_OURS
        " order by 1, 2",
        holder->db.publication);
    const char *catalogue;

    if (!res || !all_are_published(holder, err) || !read_catalogue(fence, holder, &catalogue, err))
        return false;
    holder->table_count = (size_t)PQntuples(res);
    holder->tables = arena_array(&fence->arena, char *, holder->table_count + 1);
    holder->catalogue = arena_strdup(&fence->arena, catalogue);
    for (size_t i = 0; i < holder->table_count; i++) {
        AUTO_BUF name;

        buf_init(&name, 4096);
        pg_put_table(&name, PQgetvalue(res, (int)i, 0), PQgetvalue(res, (int)i, 1));
        holder->tables[i] = arena_str_of(&fence->arena, buf_span(&name));
    }
    return true;
}

static bool connect_holder(Fence *fence, Holder *holder, Err *err)
{
    PgOptions options = {.application = "keybridge fence", .stop = fence->conf.stop};

    /* local: a commit of ours must not wait for a synchronous standby while everybody waits for us.
     */
    if (!pg_open(&holder->lock, holder->db.dsn, ERR_SOURCE, &options, err) ||
        !pg_open(&holder->side, holder->db.dsn, ERR_SOURCE, &options, err) ||
        !pg_exec(&holder->side, "set synchronous_commit = local", err))
        return err_context(err, "fence of %s", holder->db.name);
    return read_tables(fence, holder, err) || err_context(err, "fence of %s", holder->db.name);
}

static bool read_deadlock_timeout(Fence *fence, Err *err)
{
    AUTO_BUF text;

    buf_init(&text, 64);
    if (!pg_value(&fence->maintenance, &text, err,
                  "select setting from pg_settings where name = 'deadlock_timeout'", 0, NULL))
        return false;
    fence->deadlock_ms = strtoull(buf_str(&text), NULL, 10);
    return true;
}

static bool connect_all(Fence *fence, Err *err)
{
    PgOptions options = {.application = "keybridge fence", .stop = fence->conf.stop};

    if (!pg_open(&fence->maintenance, fence->conf.maintenance_dsn, ERR_SOURCE, &options, err))
        return err_context(err, "the maintenance database");
    if (!read_deadlock_timeout(fence, err))
        return false;
    for (size_t i = 0; i < fence->conf.count; i++) {
        fence->holders[i].db = fence->conf.dbs[i];
        if (!connect_holder(fence, &fence->holders[i], err))
            return false;
    }
    return true;
}

Fence *fence_open(const FenceConf *conf, Err *err)
{
    Fence *fence = calloc(1, sizeof(*fence));

    if (!fence)
        abort();
    fence->conf = *conf;
    arena_init(&fence->arena, 65536);
    fence->holders = arena_array(&fence->arena, Holder, conf->count + 1);
    if (connect_all(fence, err))
        return fence;
    fence_close(fence);
    return NULL;
}

void fence_close(Fence *fence)
{
    if (!fence)
        return;
    for (size_t i = 0; i < fence->conf.count; i++) {
        pg_close(&fence->holders[i].lock);
        pg_close(&fence->holders[i].side);
    }
    pg_close(&fence->maintenance);
    arena_fini(&fence->arena);
    free(fence);
}

Pg *fence_side(Fence *fence, size_t db)
{
    return &fence->holders[db].side;
}

static bool may_end_sessions(Fence *fence, Err *err)
{
    AUTO_RESULT res = pg_rows(
        &fence->maintenance, err,
        "select quote_ident(current_user) from pg_roles where rolname = current_user and not rolsuper"
        " and not pg_has_role(current_user, 'pg_signal_backend', 'USAGE')");

    if (!res)
        return false;
    if (PQntuples(res) == 0)
        return true;
    err_fail(err, ERR_SOURCE, "%s may not end other users' sessions, so it can't close the source",
             PQgetvalue(res, 0, 0));
    return err_hint(err, "GRANT pg_signal_backend TO %s", PQgetvalue(res, 0, 0));
}

bool fence_check(Fence *fence, size_t *tables, Err *err)
{
    *tables = 0;
    if (!may_end_sessions(fence, err))
        return false;
    for (size_t i = 0; i < fence->conf.count; i++) {
        Holder *holder = &fence->holders[i];
        AUTO_RESULT res = pg_rows(
            &holder->side, err,
            "select pg_has_role(current_user, datdba, 'USAGE'), pg_get_userbyid(datdba), current_user,"
            " (select current_database()) = $1 from pg_database where datname = current_database()",
            PQdb(fence->maintenance.conn));

        if (!res)
            return false;
        if (PQgetvalue(res, 0, 0)[0] != 't') {
            err_fail(err, ERR_SOURCE,
                     "database %s belongs to %s, so %s can't close it for the application",
                     holder->db.name, PQgetvalue(res, 0, 1), PQgetvalue(res, 0, 2));
            return err_hint(err, "GRANT %s TO %s", PQgetvalue(res, 0, 1), PQgetvalue(res, 0, 2));
        }
        if (PQgetvalue(res, 0, 3)[0] == 't')
            return err_fail(err, ERR_BUG,
                            "the maintenance connection is in %s, which is to be fenced",
                            holder->db.name);
        *tables += holder->table_count;
    }
    return true;
}

/* Short at first: whoever locks in another order than we do is found out cheaply, and goes first
 * from then on. */
static uint64_t patience_ms(const Fence *fence, unsigned attempts)
{
    uint64_t ms = (uint64_t)25 << (attempts < 6 ? attempts : 6);

    ms = ms < fence->conf.lock_timeout_ms ? ms : fence->conf.lock_timeout_ms;
    return ms < fence->deadlock_ms / 2 || fence->deadlock_ms < 20 ? ms : fence->deadlock_ms / 2;
}

#define BEFORE_LOCKS 2 /* statements that come before the first lock */

static bool send_locks(Holder *holder, const char *begin, uint64_t timeout_ms, const char *mode,
                       Err *err)
{
    AUTO_BUF sql;

    buf_init(&sql, MIB(64));
    buf_printf(&sql, "%s; set local lock_timeout = '%" PRIu64 "ms';", begin, timeout_ms);
    for (size_t i = 0; i < holder->table_count; i++)
        buf_printf(&sql, "lock table only %s in %s mode;", holder->tables[i], mode);
    if (!buf_ok(&sql, "the list of tables to lock", err))
        return false;
    return PQsendQuery(holder->lock.conn, buf_str(&sql)) ||
           pg_fail(&holder->lock, NULL, err, "locking the tables");
}

static void cancel(Pg *pg)
{
    PGcancel *handle = PQgetCancel(pg->conn);
    char why[256];

    if (handle && !PQcancel(handle, why, sizeof(why)))
        log_debug("cancelling failed", F_STR("error", why));
    PQfreeCancel(handle);
}

/* Whoever it was that didn't get out of the way goes first the next time: while we wait for that
 * one, nothing else is locked yet. */
static void move_to_front(Holder *holder, size_t at)
{
    char *table;

    if (at >= holder->table_count)
        return;
    table = holder->tables[at];
    memmove(&holder->tables[1], &holder->tables[0], at * sizeof(char *));
    holder->tables[0] = table;
}

/* Takes the answers to begin, set and the locks. *busy: in the way is somebody, not something
 * broken. */
static bool take_locks(Holder *holder, uint64_t deadline, bool *busy, Err *err)
{
    size_t answers = 0;
    bool ok = true;
    bool cancelled = false;

    for (;;) {
        PGresult *res;

        while (PQisBusy(holder->lock.conn)) {
            uint64_t now = mono_ms();
            struct pollfd fd = {.fd = PQsocket(holder->lock.conn), .events = POLLIN};

            if (now >= deadline && !cancelled) {
                cancel(&holder->lock);
                cancelled = true;
            }
            poll(&fd, 1, cancelled ? 1000 : (int)(deadline - now));
            if (!PQconsumeInput(holder->lock.conn))
                return pg_fail(&holder->lock, NULL, err, "locking the tables");
        }
        res = PQgetResult(holder->lock.conn);
        if (!res)
            return ok;
        if (PQresultStatus(res) != PGRES_COMMAND_OK && ok) {
            const char *table =
                answers >= BEFORE_LOCKS && answers - BEFORE_LOCKS < holder->table_count
                    ? holder->tables[answers - BEFORE_LOCKS]
                    : "?";

            ok = pg_fail(&holder->lock, res, err, "locking");
            *busy = strcmp(err->code, "55P03") == 0 || strcmp(err->code, "57014") == 0 ||
                    strcmp(err->code, "40P01") == 0;
            err_context(err, "table %s in %s", table, holder->db.name);
            if (answers >= BEFORE_LOCKS)
                move_to_front(holder, answers - BEFORE_LOCKS);
        }
        answers++;
        PQclear(res);
    }
}

/* A table made, dropped or rewritten between the list and the locks: the list is read again. */
static bool still_the_same(Fence *fence, bool *same, Err *err)
{
    *same = true;
    for (size_t i = 0; i < fence->conf.count; i++) {
        Holder *holder = &fence->holders[i];
        const char *now;

        if (!read_catalogue(fence, holder, &now, err))
            return false;
        if (strcmp(now, holder->catalogue) != 0) {
            *same = false;
            if (!read_tables(fence, holder, err))
                return false;
        }
    }
    return true;
}

void fence_unlock(Fence *fence)
{
    for (size_t i = 0; i < fence->conf.count; i++) {
        Pg *pg = &fence->holders[i].lock;
        Err ignored = ERR_INIT;

        if (pg->conn && PQtransactionStatus(pg->conn) != PQTRANS_IDLE &&
            !pg_exec(pg, "rollback", &ignored))
            log_err(LOG_LEVEL_WARN,
                    "releasing the locks failed, so the server does it when the connection ends",
                    &ignored);
    }
}

/* One mode on all tables of all databases, at the same time. */
static bool lock_all(Fence *fence, const char *begin, uint64_t timeout_ms, const char *mode,
                     bool *busy, Err *err)
{
    uint64_t deadline = mono_ms() + 2 * timeout_ms;
    bool ok = true;
    size_t sent = 0;

    for (; ok && sent < fence->conf.count; sent++)
        ok = send_locks(&fence->holders[sent], begin, timeout_ms, mode, err);
    for (size_t i = 0; i < sent; i++) {
        Err one = ERR_INIT;

        if (take_locks(&fence->holders[i], ok ? deadline : mono_ms(), busy, &one))
            continue;
        if (ok)
            *err = one;
        ok = false;
    }
    return ok;
}

static bool in_all(Fence *fence, const char *sql, Err *err)
{
    for (size_t i = 0; i < fence->conf.count; i++)
        if (!pg_exec(&fence->holders[i].lock, sql, err))
            return err_context(err, "database %s", fence->holders[i].db.name);
    return true;
}

/* Nobody who writes waits for this. When it isn't granted the locks proper are tried all the same:
 * what is in the way may be gone by then. */
static bool keep_vacuum_out(Fence *fence, Err *err)
{
    bool busy = false;

    if (lock_all(fence, "begin", fence->deadlock_ms + 500, "share update exclusive", &busy, err))
        return in_all(fence, "savepoint vacuum_is_out", err);
    if (!busy)
        return false;
    log_info("something else than a writer holds a table", F_STR("because", err->text));
    err_clear(err);
    fence_unlock(fence);
    return in_all(fence, "begin", err) && in_all(fence, "savepoint vacuum_is_out", err);
}

/* Locks that are granted at once cost next to nothing; what waits does so with writers queueing
 * behind it. */
static bool attempt(Fence *fence, unsigned attempts, bool *busy, Err *err)
{
    return lock_all(fence, "rollback to savepoint vacuum_is_out", patience_ms(fence, attempts),
                    "share row exclusive", busy, err);
}

/* Who holds what we want, longest first: a transaction that stays open, a vacuum, a DDL. */
static void put_holders(Fence *fence, Buf *who)
{
    for (size_t i = 0; i < fence->conf.count; i++) {
        Err ignored = ERR_INIT;
        AUTO_RESULT res = pg_rows(
            &fence->holders[i].side, &ignored,
            "select 'pid ' || a.pid || ' ' || coalesce(a.usename, a.backend_type) || coalesce(' from ' || host(client_addr), '')"
            " || coalesce(' (' || nullif(application_name, '') || ')', '') || ', open '"
            " || round(extract(epoch from clock_timestamp() - min(xact_start))) || ' s, ' || coalesce(state, '?')"
            " || ', holds ' || string_agg(distinct l.relation::regclass::text, ' ') from pg_locks l join pg_stat_activity a"
            " using (pid) where l.locktype = 'relation' and l.granted and l.database = (select oid from pg_database where"
            " datname = current_database()) and l.relation >= 16384 and l.mode in ('RowExclusiveLock',"
            " 'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') and"
            " l.pid <> $1::int and xact_start < clock_timestamp() - interval '200 ms' and exists (select from pg_class c where"
            " c.oid = l.relation and c.relkind = 'r')"
            " group by a.pid, a.usename, a.backend_type, client_addr, application_name, state order by min(xact_start) limit 5",
            arena_printf(&fence->arena, "%d", PQbackendPID(fence->holders[i].lock.conn)));

        for (int row = 0; res && row < PQntuples(res) && who->len < 600; row++)
            buf_printf(who, "%s%s", who->len ? "; " : "", PQgetvalue(res, row, 0));
    }
}

static bool give_up(Fence *fence, unsigned attempts, Err *err)
{
    AUTO_BUF who;
    Err last = *err;
    Err ignored = ERR_INIT;

    buf_init(&who, 8192);
    put_holders(fence, &who);
    if (!who.len && !origin_open_transactions(&fence->maintenance, 200, &who, &ignored))
        buf_clear(&who);
    err_fail(err, ERR_TIMEOUT, "the tables could not be locked in %u attempts: %s; in the way: %s",
             attempts, last.text, who.len ? buf_str(&who) : "nobody now");
    return err_hint(
        err,
        "end the transactions that stay open, or come back at a quieter time; nothing was changed");
}

static void put_array(Buf *buf, const Fence *fence);

/* One that wrote a published table holds a lock on it and is in the way anyhow. Any other would
 * stay behind, too, and on the new side nobody could commit it. */
bool fence_no_prepared(Fence *fence, Err *err)
{
    AUTO_RESULT res = NULL;
    AUTO_BUF names;

    buf_init(&names, MIB(4));
    put_array(&names, fence);
    res = pg_rows(
        &fence->maintenance, err,
        "select string_agg('prepared transaction ' || quote_literal(gid) || ' of ' || owner || ' in '"
        " || database || ', open ' || round(extract(epoch from clock_timestamp() - prepared)) || ' s', '; '"
        " order by prepared) from pg_prepared_xacts where database = any($1::text[])",
        buf_str(&names));
    if (!res || PQgetisnull(res, 0, 0))
        return res != NULL;
    err_fail(err, ERR_TIMEOUT, "%s", PQgetvalue(res, 0, 0));
    return err_hint(err, "COMMIT PREPARED or ROLLBACK PREPARED it; the cut-over was undone");
}

static bool try_once(Fence *fence, FenceLocks *locks, bool *busy, Err *err)
{
    bool same = false;

    *busy = false;
    locks->attempts++;
    locks->asked_us = mono_us();
    if (!attempt(fence, locks->attempts, busy, err))
        return false;
    locks->granted_us = mono_us();
    if (!fence_no_prepared(fence, err)) {
        *busy = err->kind == ERR_TIMEOUT;
        return false;
    }
    if (!still_the_same(fence, &same, err))
        return false;
    if (same)
        return true;
    *busy = true;
    return err_fail(err, ERR_SOURCE, "tables were made or rewritten meanwhile");
}

bool fence_lock(Fence *fence, FenceLocks *locks, Err *err)
{
    uint64_t deadline = mono_ms() + fence->conf.give_up_ms;

    *locks = (FenceLocks){0};
    if (!keep_vacuum_out(fence, err))
        return false;
    for (;;) {
        bool busy;
        Err ignored = ERR_INIT;

        if (try_once(fence, locks, &busy, err)) {
            for (size_t i = 0; i < fence->conf.count; i++)
                locks->tables += fence->holders[i].table_count;
            return true;
        }
        /* Writers first: what we hold of the locks proper goes back at once. */
        if (busy && !in_all(fence, "rollback to savepoint vacuum_is_out", &ignored))
            busy = false;
        if (busy && mono_ms() < deadline) {
            log_info("fence gave way", F_U64("attempt", locks->attempts),
                     F_STR("because", err->text));
            err_clear(err);
            if (!stop_wait(fence->conf.stop,
                           30 + 40 * (locks->attempts < 10 ? locks->attempts : 10)))
                continue;
            busy = false;
            stop_fail(err, "locking the tables");
        }
        if (busy)
            give_up(fence, locks->attempts, err);
        fence_unlock(fence);
        return false;
    }
}

bool fence_mark(Fence *fence, const char *content, uint64_t *ends, Err *err)
{
    for (size_t i = 0; i < fence->conf.count; i++) {
        AUTO_RESULT res = pg_rows(&fence->holders[i].side, err,
                                  "select pg_logical_emit_message(true, 'keybridge', $1)", content);

        if (!res || !lsn_parse(pg_cell(res, 0, 0), &ends[i], err))
            return err_context(err, "marking the end in %s", fence->holders[i].db.name);
    }
    return true;
}

static bool allow(Pg *maintenance, const char *database, const char *how, Err *err)
{
    AUTO_BUF sql;

    buf_init(&sql, 4096);
    buf_puts(&sql, "alter database ");
    pg_put_name(&sql, database);
    buf_printf(&sql, " allow_connections %s", how);
    return pg_exec(maintenance, buf_str(&sql), err) || err_context(err, "database %s", database);
}

bool fence_shut(Fence *fence, Err *err)
{
    for (size_t i = 0; i < fence->conf.count; i++)
        if (!allow(&fence->maintenance, fence->holders[i].db.name, "false", err))
            return false;
    return true;
}

/* {"a","b"}: an array literal of the databases' names. */
static void put_array(Buf *buf, const Fence *fence)
{
    buf_putc(buf, '{');
    for (size_t i = 0; i < fence->conf.count; i++) {
        buf_puts(buf, i ? ",\"" : "\"");
        for (const char *c = fence->holders[i].db.name; *c; c++) {
            if (*c == '"' || *c == '\\')
                buf_putc(buf, '\\');
            buf_putc(buf, *c);
        }
        buf_putc(buf, '"');
    }
    buf_putc(buf, '}');
}

/* Everybody but us, the walsenders (they only read), autovacuum (it changes no data) and, unless we
 * are a superuser, superusers: on RDS that is the service itself, which nobody can end. Our own
 * streams are spared as long as they drain ($2); the connections that hold the fence always ($3).
 */
static const char others_sql[] =
    "select pid, coalesce(usename, '?') || coalesce(' from ' || host(client_addr), '')"
    " || coalesce(' (' || nullif(application_name, '') || ')', '') from pg_stat_activity"
    " where datname = any($1::text[]) and backend_type not in ('walsender', 'autovacuum worker')"
    " and ((select rolsuper from pg_roles where rolname = current_user)"
    "  or not coalesce((select rolsuper from pg_roles r where r.oid = usesysid), false))"
    " and not ($2::bool and application_name like 'keybridge%' and usename = current_user)"
    " and pid <> all($3::int[]) order by 2";

static PGresult *others(Fence *fence, bool spare_streams, Err *err)
{
    AUTO_BUF names;
    AUTO_BUF ours;

    buf_init(&names, MIB(1));
    buf_init(&ours, MIB(1));
    put_array(&names, fence);
    buf_putc(&ours, '{');
    for (size_t i = 0; i < fence->conf.count; i++)
        buf_printf(&ours, "%s%d,%d", i ? "," : "", PQbackendPID(fence->holders[i].lock.conn),
                   PQbackendPID(fence->holders[i].side.conn));
    buf_putc(&ours, '}');
    return pg_rows(&fence->maintenance, err, others_sql, buf_str(&names), spare_streams ? "t" : "f",
                   buf_str(&ours));
}

static bool end_them(Fence *fence, const PGresult *res, Err *err)
{
    for (int i = 0; i < PQntuples(res); i++) {
        AUTO_RESULT done = pg_rows(&fence->maintenance, err, "select pg_terminate_backend($1::int)",
                                   PQgetvalue(res, i, 0));

        if (!done)
            return err_context(err, "ending the session of %s", PQgetvalue(res, i, 1));
    }
    return true;
}

/* "2 x app (psql); …" from rows sorted by that text. */
static void put_who(Buf *who, const PGresult *res)
{
    for (int i = 0; i < PQntuples(res);) {
        int next = i + 1;

        while (next < PQntuples(res) &&
               strcmp(PQgetvalue(res, i, 1), PQgetvalue(res, next, 1)) == 0)
            next++;
        if (who->len < 4000)
            buf_printf(who, "%s%d x %s", who->len ? "; " : "", next - i, PQgetvalue(res, i, 1));
        i = next;
    }
}

bool fence_evict(Fence *fence, uint64_t wait_ms, unsigned *ended, Buf *who, Err *err)
{
    uint64_t deadline = mono_ms() + wait_ms;

    *ended = 0;
    for (unsigned round = 0;; round++) {
        AUTO_RESULT res = others(fence, true, err);

        if (!res)
            return false;
        /* A backend that was let in just before shows up a moment later: one empty look is not
         * enough. */
        if (PQntuples(res) == 0 && round > 0)
            return true;
        if (round == 0) {
            *ended = (unsigned)PQntuples(res);
            put_who(who, res);
        }
        if (!end_them(fence, res, err))
            return false;
        if (mono_ms() > deadline) {
            err_fail(err, ERR_TIMEOUT, "%d sessions did not end within %" PRIu64 " ms: %s",
                     PQntuples(res), wait_ms, PQntuples(res) ? PQgetvalue(res, 0, 1) : "?");
            return err_hint(err, "end them by hand and run again; nothing was lost");
        }
        sleep_ms(round < 3 ? 2 : 10);
    }
}

bool fence_watch(Fence *fence, unsigned *found, Buf *who, Err *err)
{
    AUTO_RESULT res = others(fence, false, err);

    *found = 0;
    if (!res)
        return false;
    *found = (unsigned)PQntuples(res);
    put_who(who, res);
    return end_them(fence, res, err);
}

bool fence_reopen(const char *maintenance_dsn, const char *const *databases, size_t count, Err *err)
{
    AUTO_PG pg = {0};
    PgOptions options = {.application = "keybridge fence"};

    if (!pg_open(&pg, maintenance_dsn, ERR_SOURCE, &options, err))
        return err_context(err, "the maintenance database");
    for (size_t i = 0; i < count; i++)
        if (!allow(&pg, databases[i], "true", err))
            return false;
    return true;
}
