/* keybridge's own tables on the target, the stream's lock, and what the target knows about its own
 * log.
 *
 *   keybridge.stream       one row for each stream: where it started
 *   keybridge.progress     one row for each stream and lane, written in the same transaction as the
 * lane's rows keybridge.dead_letter  transactions that were skipped by the operator's choice
 *
 * Positions are text, as operators know them (16/B374D848, or file:offset). */
#include "appliers/postgres/applier_impl.h"

#include "engine/base/mono.h"

#define LOCK_WAIT_MS 5000

static const char create_sql[] =
    "create schema if not exists keybridge;"
    "create table if not exists keybridge.stream (name text primary key, start_position text,"
    " created timestamptz not null default pg_catalog.now(), flushes bigint not null default 0);"
    "create table if not exists keybridge.progress (stream text not null, lane integer not null,"
    " first_commit text not null, last_commit text not null, last_end text not null,"
    " before_commit text not null, before_end text not null, lanes integer not null,"
    " fingerprint bigint not null, updated timestamptz not null, primary key (stream, lane)) with (fillfactor = 10);"
    "create table if not exists keybridge.dead_letter (id bigint generated always as identity primary key,"
    " stream text not null, failed timestamptz not null default pg_catalog.now(), xid bigint not null,"
    " commit_position text not null, end_position text not null, commit_time timestamptz not null,"
    " sqlstate text not null, error text not null, part integer not null, changes text not null)";

static const char exists_sql[] = "select pg_catalog.to_regclass('keybridge.stream') is not null"
                                 " and pg_catalog.to_regclass('keybridge.progress') is not null"
                                 " and pg_catalog.to_regclass('keybridge.dead_letter') is not null";

static bool create_tables(PgApplier *a, Err *err)
{
    Buf there ON_EXIT(buf_fini);

    buf_init(&there, 16);
    if (!pg_value(&a->pg, &there, err, exists_sql, 0, NULL))
        return false;
    if (span_is(buf_span(&there), "t"))
        return true;
    /* Several streams may start at once, and IF NOT EXISTS can still collide. */
    if (!pg_exec(&a->pg, "begin; select pg_catalog.pg_advisory_xact_lock(7166218912)", err))
        return false;
    if (pg_exec(&a->pg, create_sql, err) && pg_exec(&a->pg, "commit", err))
        return true;
    err_context(err, "creating keybridge's tables on the target");
    if (strcmp(err->code, "42501") == 0)
        err_hint(
            err,
            "the target's user must be allowed to create schema keybridge: GRANT CREATE ON DATABASE … TO …");
    PQclear(PQexec(a->pg.conn, "rollback"));
    return false;
}

static bool try_lock(PgApplier *a, bool *got, Err *err)
{
    PGresult *res ON_EXIT(pg_result_drop) = pg_rows(
        &a->pg, err,
        "select pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended('keybridge ' || $1, 0))",
        a->stream);

    if (!res)
        return false;
    *got = *PQgetvalue(res, 0, 0) == 't';
    return true;
}

static bool lock_is_taken(PgApplier *a, Err *err)
{
    PGresult *res ON_EXIT(pg_result_drop) = pg_rows(
        &a->pg, err,
        "select l.pid, coalesce(s.application_name, ''), coalesce(s.client_addr::text, 'local')"
        " from pg_catalog.pg_locks l left join pg_catalog.pg_stat_activity s on s.pid = l.pid"
        " where l.locktype = 'advisory' and l.granted and l.objsubid = 1"
        " and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())"
        " and (l.classid::bigint << 32 | l.objid::bigint) ="
        " pg_catalog.hashtextextended('keybridge ' || $1, 0)",
        a->stream);

    if (!res)
        return false;
    if (PQntuples(res) == 0)
        err_fail(err, ERR_STATE, "stream %s is taken on the target by another session", a->stream);
    else
        err_fail(err, ERR_STATE, "stream %s is taken on the target by session %s (%s, from %s)",
                 a->stream, PQgetvalue(res, 0, 0), PQgetvalue(res, 0, 1), PQgetvalue(res, 0, 2));
    err_code(err, "55006");
    return err_hint(
        err,
        "another keybridge applies this stream: stop it; if it is dead already, end its session with "
        "pg_terminate_backend");
}

/* A killed run's session is noticed by the server within moments: worth a short wait. */
static bool take_lock(PgApplier *a, Err *err)
{
    uint64_t until = mono_ms() + LOCK_WAIT_MS;
    bool got = false;

    while (!got) {
        if (!try_lock(a, &got, err))
            return false;
        if (got)
            break;
        if (mono_ms() > until)
            return lock_is_taken(a, err);
        if (a->closing && stop_wait(a->closing, 50))
            return stop_fail(err, "waiting for the stream's lock");
    }
    return true;
}

bool control_take(Applier *self, Err *err)
{
    PgApplier *a = pg_applier_of(self);
    PGresult *res ON_EXIT(pg_result_drop) = NULL;

    if (!create_tables(a, err) || !take_lock(a, err))
        return false;
    res = pg_rows(&a->pg, err,
                  "insert into keybridge.stream (name) values ($1) on conflict (name) do nothing",
                  a->stream);
    return res != NULL;
}

static bool parse_u64(Span text, uint64_t *value)
{
    *value = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.at[i] < '0' || text.at[i] > '9')
            return false;
        *value = *value * 10 + (uint64_t)(text.at[i] - '0');
    }
    return text.len > 0 && text.len < 20;
}

static bool parse_position(Span text, Position *position, Err *err)
{
    const uint8_t *colon = memchr(text.at, ':', text.len);

    if (!colon) {
        position->file = 0;
        if (lsn_parse(text, &position->at, err))
            return true;
    } else if (parse_u64(span_of(text.at, (size_t)(colon - text.at)), &position->file) &&
               parse_u64(span_of(colon + 1, text.len - (size_t)(colon - text.at) - 1),
                         &position->at)) {
        return true;
    }
    err_clear(err);
    return err_fail(err, ERR_STATE,
                    "a position in the target's keybridge schema can't be understood: \"%.*s\"",
                    SPAN_FMT(text));
}

static bool progress_row(const PGresult *res, int row, Progress *p, Err *err)
{
    p->lane = (unsigned)strtoul(PQgetvalue(res, row, 0), NULL, 10);
    p->lanes = (unsigned)strtoul(PQgetvalue(res, row, 6), NULL, 10);
    p->fingerprint = (uint64_t)strtoll(PQgetvalue(res, row, 7), NULL, 10);
    return parse_position(pg_cell(res, row, 1), &p->first, err) &&
           parse_position(pg_cell(res, row, 2), &p->last, err) &&
           parse_position(pg_cell(res, row, 3), &p->end, err) &&
           parse_position(pg_cell(res, row, 4), &p->before, err) &&
           parse_position(pg_cell(res, row, 5), &p->before_end, err);
}

bool control_read_progress(Applier *self, Arena *arena, Progress **rows, size_t *count, Err *err)
{
    PgApplier *a = pg_applier_of(self);
    PGresult *res ON_EXIT(pg_result_drop) = pg_rows(
        &a->pg, err,
        "select lane, first_commit, last_commit, last_end, before_commit, before_end, lanes, fingerprint"
        " from keybridge.progress where stream = $1 order by lane",
        a->stream);

    if (!res)
        return false;
    *count = (size_t)PQntuples(res);
    *rows = arena_array(arena, Progress, *count + 1);
    for (int row = 0; row < PQntuples(res); row++)
        if (!progress_row(res, row, &(*rows)[row], err))
            return false;
    return true;
}

bool control_set_start(Applier *self, Position start, Err *err)
{
    PgApplier *a = pg_applier_of(self);
    char text[POSITION_TEXT];
    PGresult *set ON_EXIT(pg_result_drop) = NULL;
    PGresult *got ON_EXIT(pg_result_drop) = NULL;

    position_text(start, text);
    set = pg_rows(
        &a->pg, err,
        "update keybridge.stream set start_position = $2 where name = $1 and start_position is null",
        a->stream, text);
    if (!set)
        return false;
    got = pg_rows(&a->pg, err, "select start_position from keybridge.stream where name = $1",
                  a->stream);
    if (!got)
        return false;
    if (PQntuples(got) == 1 && strcmp(PQgetvalue(got, 0, 0), text) == 0)
        return true;
    err_fail(err, ERR_STATE, "stream %s started at %s and can't start at %s now", a->stream,
             PQntuples(got) ? PQgetvalue(got, 0, 0) : "nowhere", text);
    return err_hint(
        err,
        "leave the start position out to go on where it was; for a new copy, drop schema keybridge on it first");
}

bool control_read_start(Applier *self, Position *start, Err *err)
{
    PgApplier *a = pg_applier_of(self);
    PGresult *res ON_EXIT(pg_result_drop) = pg_rows(
        &a->pg, err, "select start_position from keybridge.stream where name = $1", a->stream);

    *start = POSITION_NONE;
    if (!res)
        return false;
    return PQntuples(res) != 1 || PQgetisnull(res, 0, 0) ||
           parse_position(pg_cell(res, 0, 0), start, err);
}

bool control_log_positions(Applier *self, uint64_t *written, uint64_t *flushed, bool *known,
                           Err *err)
{
    PgApplier *a = pg_applier_of(self);
    PGresult *res ON_EXIT(pg_result_drop) = pg_rows(
        &a->pg, err,
        "select pg_catalog.pg_current_wal_insert_lsn(), pg_catalog.pg_current_wal_flush_lsn()");

    *known = false;
    if (!res) {
        /* Not there, or not allowed: then commits have to wait for the disk themselves. */
        if (strncmp(err->code, "42", 2) != 0 && strncmp(err->code, "0A", 2) != 0)
            return false;
        err_clear(err);
        return true;
    }
    *known = true;
    return lsn_parse(pg_cell(res, 0, 0), written, err) &&
           lsn_parse(pg_cell(res, 0, 1), flushed, err);
}

/* Any commit that waits for the disk takes the ones before it along. The setting lasts for this
 * transaction, its commit included. */
bool control_force_flush(Applier *self, Err *err)
{
    PgApplier *a = pg_applier_of(self);
    PGresult *res ON_EXIT(pg_result_drop) =
        pg_rows(&a->pg, err,
                "update keybridge.stream set flushes = flushes + 1 where name = $1 and"
                " pg_catalog.set_config('synchronous_commit', 'local', true) is not null",
                a->stream);

    if (!res)
        return false;
    if (strcmp(PQcmdTuples(res), "1") == 0)
        return true;
    err_fail(err, ERR_STATE, "keybridge.stream on the target has no row of stream %s any more",
             a->stream);
    return err_hint(err, "somebody has emptied schema keybridge: where the stream stood is lost");
}

static void put_sessions(Buf *list, const int *sessions, size_t count)
{
    for (size_t i = 0; i < count; i++)
        buf_printf(list, "%s%d", i ? "," : "{", sessions[i]);
    buf_puts(list, count ? "}" : "{}");
}

bool control_break_tie(Applier *self, const int *sessions, size_t count, bool *broken, Err *err)
{
    PgApplier *a = pg_applier_of(self);
    Buf list ON_EXIT(buf_fini);
    PGresult *res ON_EXIT(pg_result_drop) = NULL;

    buf_init(&list, KIB(64));
    put_sessions(&list, sessions, count);
    res = pg_rows(
        &a->pg, err,
        "select pg_catalog.pg_cancel_backend(pid) from pg_catalog.unnest($1::int[]) as u (pid)"
        " where pg_catalog.pg_blocking_pids(pid) && $1::int[] limit 1",
        buf_str(&list));
    if (!res)
        return false;
    *broken = PQntuples(res) > 0;
    return true;
}

bool control_blocker(Applier *self, const int *sessions, size_t count, Buf *out, Err *err)
{
    PgApplier *a = pg_applier_of(self);
    Buf list ON_EXIT(buf_fini);
    PGresult *res ON_EXIT(pg_result_drop) = NULL;

    buf_init(&list, KIB(64));
    put_sessions(&list, sessions, count);
    res = pg_rows(
        &a->pg, err,
        "select b.pid, coalesce(s.usename, ''), coalesce(s.application_name, ''), coalesce(s.state, '')"
        " from pg_catalog.unnest($1::int[]) as u (pid), pg_catalog.unnest(pg_catalog.pg_blocking_pids(u.pid)) as b (pid)"
        " left join pg_catalog.pg_stat_activity s on s.pid = b.pid where b.pid <> all ($1::int[]) limit 1",
        buf_str(&list));
    if (!res)
        return false;
    if (PQntuples(res))
        buf_printf(out, "session %s of user %s (%s, %s)", PQgetvalue(res, 0, 0),
                   PQgetvalue(res, 0, 1), PQgetvalue(res, 0, 2), PQgetvalue(res, 0, 3));
    return true;
}

/* --- in a lane's transaction -------------------------------------------------------------------
 */

/* The row is only overwritten when it says what we believe (see Progress.expected); none found
 * fails the count. */
static const char progress_sql[] =
    "insert into keybridge.progress as p (stream, lane, first_commit, last_commit, last_end, before_commit, before_end,"
    " lanes, fingerprint, updated) values ($1::text, $2::int, $3::text, $4::text, $5::text, $6::text, $7::text, $8::int,"
    " $9::bigint, pg_catalog.clock_timestamp()) on conflict (stream, lane) do update set first_commit = excluded.first_commit,"
    " last_commit = excluded.last_commit, last_end = excluded.last_end, before_commit = excluded.before_commit,"
    " before_end = excluded.before_end, lanes = excluded.lanes, fingerprint = excluded.fingerprint,"
    " updated = excluded.updated where p.last_commit operator(pg_catalog.=) $10::text";

static bool prepare_progress(PgApplier *a, Err *err)
{
    static const Expect expect = {.doing = "preparing the progress statement", .rows = -1};

    if (a->progress_ready)
        return true;
    a->progress_ready = true;
    return (PQsendPrepare(a->pg.conn, "progress", progress_sql, 0, NULL) ||
            link_lost(a, err, expect.doing)) &&
           link_expect(a, &expect, err);
}

bool control_progress(Applier *self, const Progress *p, Err *err)
{
    static const Expect expect = {.doing = "writing progress", .rows = 1, .is_progress = true};
    PgApplier *a = pg_applier_of(self);
    char lane[16], lanes[16], print[24], positions[6][POSITION_TEXT];
    const char *params[10] = {a->stream,    lane,         positions[0], positions[1], positions[2],
                              positions[3], positions[4], lanes,        print,        positions[5]};

    snprintf(lane, sizeof(lane), "%u", p->lane);
    snprintf(lanes, sizeof(lanes), "%u", p->lanes);
    snprintf(print, sizeof(print), "%" PRId64, (int64_t)p->fingerprint);
    position_text(p->first, positions[0]);
    position_text(p->last, positions[1]);
    position_text(p->end, positions[2]);
    position_text(p->before, positions[3]);
    position_text(p->before_end, positions[4]);
    position_text(p->expected, positions[5]);
    if (position_is_none(p->expected))
        params[9] = NULL;
    if (!link_pipeline(a, err) || !prepare_progress(a, err))
        return false;
    return (PQsendQueryPrepared(a->pg.conn, "progress", 10, params, NULL, NULL, 0) ||
            link_lost(a, err, expect.doing)) &&
           link_expect(a, &expect, err);
}

bool control_dead_letter(Applier *self, const DeadLetter *letter, Err *err)
{
    static const char sql[] =
        "insert into keybridge.dead_letter (stream, xid, commit_position, end_position, commit_time, sqlstate, error, part, changes)"
        " values ($1::text, $2::bigint, $3::text, $4::text, timestamptz 'epoch' operator(pg_catalog.+)"
        " ($5::bigint operator(pg_catalog.*) interval '1 microsecond'), $6::text, $7::text, $8::int, $9::text)";
    static const Expect expect = {.doing = "writing keybridge.dead_letter", .rows = 1};
    PgApplier *a = pg_applier_of(self);
    Buf changes ON_EXIT(buf_fini);
    char xid[16], time[24], part[16], commit[POSITION_TEXT], end[POSITION_TEXT];
    const char *params[9] = {a->stream,         xid,  commit, end, time, letter->why->code,
                             letter->why->text, part, NULL};

    buf_init(&changes, (size_t)1 << 30);
    buf_put_span(&changes, letter->changes);
    if (!buf_ok(&changes, "a dead letter", err))
        return false;
    params[8] = buf_str(&changes);
    snprintf(part, sizeof(part), "%u", letter->part);
    snprintf(xid, sizeof(xid), "%u", letter->txn->xid);
    snprintf(time, sizeof(time), "%" PRId64, letter->txn->commit_time_us);
    position_text(letter->txn->commit, commit);
    position_text(letter->txn->end, end);
    if (!link_pipeline(a, err))
        return false;
    return (PQsendQueryParams(a->pg.conn, sql, 9, NULL, params, NULL, NULL, 0) ||
            link_lost(a, err, expect.doing)) &&
           link_expect(a, &expect, err);
}
