#include "engine/check/snapshot.h"

#include <poll.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "engine/base/log.h"
#include "engine/base/mono.h"
#include "engine/stream/pause.h"

#define HOLD_MS      2000
#define HOLD_MOST_MS 60000
#define STEP_MS      5
#define RENEW_US     2000000
#define EMIT_US      1000000
#define LISTEN_US    30000000
#define SETTLE_US    2000000

/* --- statements with an ear for stop
 * ---------------------------------------------------------------------------- */

static void cancel(Pg *pg)
{
    char why[256];
    PGcancel *handle = PQgetCancel(pg->conn);

    if (handle)
        PQcancel(handle, why, sizeof(why));
    PQfreeCancel(handle);
}

static void drain(Pg *pg)
{
    PGresult *res;

    while ((res = PQgetResult(pg->conn)) != NULL)
        PQclear(res);
}

static bool has_failed(const PGresult *res)
{
    ExecStatusType status = PQresultStatus(res);

    return status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK;
}

/* The first result with rows, or the first failure; everything is read. */
static PGresult *collect(Pg *pg, Err *err)
{
    PGresult *kept = NULL, *res;
    bool failed = false;

    while ((res = PQgetResult(pg->conn)) != NULL) {
        if (!failed && has_failed(res)) {
            pg_fail(pg, res, err, "reading");
            failed = true;
        }
        if (!kept && PQresultStatus(res) == PGRES_TUPLES_OK)
            kept = res;
        else
            PQclear(res);
    }
    if (!failed && !kept)
        failed = !pg_fail(pg, NULL, err, "reading: no rows came back");
    if (!failed)
        return kept;
    PQclear(kept);
    return NULL;
}

static bool wait_answer(Pg *pg, const Stop *stop, Err *err)
{
    while (PQisBusy(pg->conn)) {
        if (stop_poll(stop, PQsocket(pg->conn), POLLIN, 1000) < 0) {
            cancel(pg);
            drain(pg);
            return stop_fail(err, "reading tables");
        }
        if (!PQconsumeInput(pg->conn))
            return pg_fail(pg, NULL, err, "reading");
    }
    return true;
}

PGresult *snapshot_ask(Pg *pg, const char *sql, const Stop *stop, Err *err)
{
    if (!PQsendQuery(pg->conn, sql)) {
        pg_fail(pg, NULL, err, "sending a query");
        return NULL;
    }
    return wait_answer(pg, stop, err) ? collect(pg, err) : NULL;
}

bool snapshot_ask_both(Pg *pgs[SIDES], const char *const sql[SIDES], PGresult *out[SIDES],
                       const Stop *stop, Err *err)
{
    bool sent[SIDES] = {false};
    bool ok = true;

    for (int side = 0; side < SIDES; side++) {
        out[side] = NULL;
        sent[side] = PQsendQuery(pgs[side]->conn, sql[side]) == 1;
        if (!sent[side] && ok)
            ok = pg_fail(pgs[side], NULL, err, "sending a query");
    }
    for (int side = 0; side < SIDES; side++) {
        Err second = ERR_INIT;

        if (!sent[side])
            continue;
        out[side] = wait_answer(pgs[side], stop, ok ? err : &second)
                        ? collect(pgs[side], ok ? err : &second)
                        : NULL;
        ok = ok && out[side];
    }
    for (int side = 0; !ok && side < SIDES; side++) {
        PQclear(out[side]);
        out[side] = NULL;
    }
    return ok;
}

/* --- the worker connections
 * ---------------------------------------------------------------------------------------- */

static const char *dsn_of(const VerifyConf *conf, Side side)
{
    return side == SIDE_SOURCE ? conf->source_dsn : conf->target_dsn;
}

static ErrKind kind_of(Side side)
{
    return side == SIDE_SOURCE ? ERR_SOURCE : ERR_TARGET;
}

static bool open_one(Pg *pg, const VerifyConf *conf, Side side, bool replication, const Stop *stop,
                     Err *err)
{
    return pg_open(pg, dsn_of(conf, side), kind_of(side),
                   &(PgOptions){.application = "keybridge verify",
                                .database = conf->database,
                                .replication = replication,
                                .stop = stop},
                   err);
}

/* Our own workers are the parallelism, so the servers' isn't wanted on top; compiling for one chunk
 * costs more than it gives. synchronous_commit doesn't matter to readers. */
static bool open_workers(Snapshots *s, const VerifyConf *conf, const Stop *stop, Err *err)
{
    for (int side = 0; side < SIDES; side++)
        for (unsigned i = 0; i < s->workers; i++)
            if (!open_one(&s->conns[side][i], conf, (Side)side, false, stop, err) ||
                !pg_exec(
                    &s->conns[side][i],
                    "set max_parallel_workers_per_gather = 0; set jit = off; set work_mem = '32MB'",
                    err))
                return false;
    return true;
}

static bool begin(Pg *pg, const char *snapshot, Err *err)
{
    AUTO_BUF sql;

    buf_init(&sql, 4096);
    buf_puts(&sql, "begin isolation level repeatable read read only; set transaction snapshot ");
    pg_put_literal(&sql, span_str(snapshot));
    buf_puts(&sql, "; savepoint keybridge");
    return pg_exec(pg, buf_str(&sql), err) || err_context(err, "importing the snapshot");
}

static bool import(Snapshots *s, Side side, unsigned from, const char *snapshot, Err *err)
{
    for (unsigned i = from; i < s->workers; i++)
        if (!begin(&s->conns[side][i], snapshot, err))
            return false;
    return true;
}

/* The first worker's own snapshot for all of that side. With a check, it is made in that snapshot.
 */
static bool share(Snapshots *s, Side side, bool (*check)(Pg *pg, void *arg, Err *err), void *arg,
                  Err *err)
{
    Pg *first = &s->conns[side][0];
    AUTO_BUF name;

    buf_init(&name, 1024);
    return pg_exec(first, "begin isolation level repeatable read read only", err) &&
           (!check || check(first, arg, err)) &&
           pg_value(first, &name, err, "select pg_export_snapshot()", 0, NULL) &&
           pg_exec(first, "savepoint keybridge", err) && import(s, side, 1, buf_str(&name), err);
}

/* --- holding the stream
 * ---------------------------------------------------------------------------------------------- */

typedef struct Hold {
    const VerifyConf *conf;
    char stream[256]; /* conf's, or the only one that runs */
    const SnapshotWait *wait;
    Snapshots *s;
    Pg source;    /* ordinary statements */
    Pg target;    /* the row */
    Pg walsender; /* the slot and its snapshot */
    char request[UUID_STR_LEN];
    bool asked;
    uint64_t renewed_us;
    uint64_t standing_since_us; /* 0: the stream moves */
    char snapshot[128];
} Hold;

static bool release(Hold *hold, Err *err)
{
    AUTO_RESULT res = NULL;

    if (!hold->asked)
        return true;
    hold->asked = false;
    if (hold->standing_since_us)
        hold->s->pause_us += mono_us() - hold->standing_since_us;
    hold->standing_since_us = 0;
    res = pg_rows(
        &hold->target, err,
        "with gone as (delete from keybridge.pause where stream = $1 and request = $2 returning 1)"
        " select pg_notify('" PAUSE_CHANNEL "', '') from gone",
        hold->stream, hold->request);
    return res != NULL;
}

static bool renew(Hold *hold, Err *err)
{
    AUTO_RESULT res = NULL;

    if (mono_us() - hold->renewed_us < RENEW_US)
        return true;
    res = pg_rows(&hold->target, err,
                  "update keybridge.pause set renewed_at = clock_timestamp()"
                  " where stream = $1 and request = $2 returning 1",
                  hold->stream, hold->request);
    hold->renewed_us = mono_us();
    if (!res)
        return false;
    if (PQntuples(res) == 1)
        return true;
    err_fail(err, ERR_STATE, "somebody removed this verification's row from keybridge.pause");
    return err_transient(err);
}

/* One step of any wait. */
static bool step(Hold *hold, VerifyPhase phase, int fd, Err *err)
{
    if (hold->wait->tell)
        hold->wait->tell(hold->wait->arg, phase);
    if (stop_poll(hold->wait->stop, fd, POLLIN, STEP_MS) < 0)
        return stop_fail(err, "waiting for a snapshot");
    return !hold->asked || renew(hold, err);
}

static bool stream_listens(Hold *hold, bool *listens, Err *err)
{
    AUTO_RESULT res = pg_rows(
        &hold->target, err,
        "select 1 from pg_locks where locktype = 'advisory' and granted and objsubid = 2"
        " and database = (select oid from pg_database where datname = current_database())"
        " and classid = $1::text::oid and objid = (hashtext($2 collate \"C\")::int8 & 4294967295)::oid limit 1",
        PAUSE_LOCK_TEXT, hold->stream);

    *listens = res && PQntuples(res) == 1;
    return res != NULL;
}

static bool read_xids(Hold *hold, uint64_t *oldest, uint64_t *next, Err *err)
{
    AUTO_RESULT res = pg_rows(
        &hold->source, err,
        "select txid_snapshot_xmin(s), txid_snapshot_xmax(s) from txid_current_snapshot() s");

    if (!res)
        return false;
    *oldest = strtoull(PQgetvalue(res, 0, 0), NULL, 10);
    *next = strtoull(PQgetvalue(res, 0, 1), NULL, 10);
    return true;
}

/* A slot waits, more than once, for the transactions that run: with a long one about, the stream
 * would be held for as long. So first wait (with the stream moving) until none that writes is older
 * than what we may hold for. */
#define TELL_US 10000000

/* Who must end before the source can give a snapshot; a prepared transaction may be forgotten. */
static void tell_open(Hold *hold)
{
    Err ignored = ERR_INIT;
    AUTO_RESULT res = pg_rows(
        &hold->source, &ignored,
        "select string_agg(who, '; ') from (select 'pid ' || pid || ' ' || coalesce(usename, '?') || ', open '"
        " || round(extract(epoch from clock_timestamp() - xact_start)) || ' s' as who, xact_start as since"
        " from pg_stat_activity where pid <> pg_backend_pid() and backend_xid is not null"
        " union all select 'prepared transaction ' || quote_literal(gid) || ' of ' || owner || ', open '"
        " || round(extract(epoch from clock_timestamp() - prepared)) || ' s', prepared from pg_prepared_xacts"
        " order by since limit 5) o");

    log_warn("comparing waits for open transactions of the source",
             F_STR("who", res && !PQgetisnull(res, 0, 0) ? PQgetvalue(res, 0, 0) : "unknown"));
}

static bool wait_young(Hold *hold, uint64_t most_us, Err *err)
{
    uint64_t told_us = mono_us();

    for (;;) {
        uint64_t from = mono_us(), oldest, next, ignored;

        if (!read_xids(hold, &ignored, &next, err))
            return false;
        do {
            if (mono_us() - told_us > TELL_US) {
                told_us = mono_us();
                tell_open(hold);
            }
            /* Often at first, and then not so: it may take hours. */
            if (mono_us() - from > 1000000 && stop_wait(hold->wait->stop, 100))
                return stop_fail(err, "waiting for long transactions on the source");
            if (!step(hold, VERIFY_SNAPSHOT, -1, err) || !read_xids(hold, &oldest, &ignored, err))
                return false;
        } while (oldest < next);
        if (mono_us() - from <= most_us)
            return true;
        log_info("waiting for long transactions on the source",
                 F_U64("longest_ms", (mono_us() - from) / 1000));
    }
}

static bool ask_hold(Hold *hold, Err *err)
{
    AUTO_RESULT res = NULL;
    uuid_t id;

    uuid_generate_random(id);
    uuid_unparse_lower(id, hold->request);
    res = pg_rows(
        &hold->target, err,
        "with asked as (insert into keybridge.pause as p (stream, request) values ($1, $2)"
        " on conflict (stream) do update set request = excluded.request, state = 'asked', at = null,"
        " applied = null, requested_at = clock_timestamp(), renewed_at = clock_timestamp()"
        " where p.state = 'lapsed' or p.renewed_at < clock_timestamp() - make_interval(secs => $3::text::int)"
        " returning 1) select pg_notify('" PAUSE_CHANNEL "', '') from asked",
        hold->stream, hold->request, PAUSE_LEASE_TEXT);
    hold->renewed_us = mono_us();
    if (!res)
        return err_context(err, "asking the stream to hold");
    if (PQntuples(res) == 1)
        return hold->asked = true;
    err_fail(err, ERR_STATE, "another verification holds the stream \"%s\"", hold->stream);
    return err_hint(err, "wait for it to end; what it left behind lapses after %d s",
                    PAUSE_LEASE_S);
}

static bool state_is(Hold *hold, const char *state, bool *is, char applied[POSITION_TEXT], Err *err)
{
    AUTO_RESULT res = pg_rows(
        &hold->target, err,
        "select state = $3, applied from keybridge.pause where stream = $1 and request = $2",
        hold->stream, hold->request, state);

    if (!res)
        return false;
    *is = PQntuples(res) == 1 && PQgetvalue(res, 0, 0)[0] == 't';
    if (applied)
        snprintf(applied, POSITION_TEXT, "%s", PQntuples(res) ? PQgetvalue(res, 0, 1) : "");
    return true;
}

/* Something to commit behind the position, so that the stream sees that it has got there although
 * nobody writes. */
static bool emit(Hold *hold, uint64_t *last_us, Err *err)
{
    if (mono_us() - *last_us < EMIT_US)
        return true;
    *last_us = mono_us();
    return pg_exec(&hold->source, "select pg_logical_emit_message(true, 'keybridge.verify', '')",
                   err);
}

/* Waits for the stream to get into a state, for as long as it runs. Held, emitting wakes nobody: it
 * stands still at once unless it is in the middle of a batch. */
static bool wait_state(Hold *hold, const char *state, VerifyPhase phase, Err *err)
{
    uint64_t since = mono_us(), emitted_us = 0, looked_us = since;
    bool is = false, listens = true;

    while (!is) {
        if ((phase == VERIFY_REACHING && !emit(hold, &emitted_us, err)) ||
            !step(hold, phase, -1, err) || !state_is(hold, state, &is, NULL, err))
            return false;
        if (!is && mono_us() - looked_us > 2000000) {
            looked_us = mono_us();
            if (!stream_listens(hold, &listens, err))
                return false;
        }
        if (!listens) {
            err_fail(err, ERR_STATE,
                     "the stream \"%s\" stopped while a verification was waiting for it",
                     hold->stream);
            return err_transient(err);
        }
        if (!is && hold->conf->wait_most_ms &&
            mono_us() - since > (uint64_t)hold->conf->wait_most_ms * 1000)
            return err_fail(err, ERR_TIMEOUT,
                            "the stream \"%s\" didn't get to the position within %u ms",
                            hold->stream, hold->conf->wait_most_ms);
    }
    return true;
}

static bool send_slot(Hold *hold, Err *err)
{
    char sql[256];

    if (!hold->walsender.conn) {
        if (!open_one(&hold->walsender, hold->conf, SIDE_SOURCE, true, hold->wait->stop, err))
            return false;
        /* The exporting session sits in a transaction until we have imported. */
        if (!pg_exec(&hold->walsender, "set statement_timeout = 0", err) ||
            !pg_exec(&hold->walsender, "set idle_in_transaction_session_timeout = 0", err))
            return false;
    }
    snprintf(sql, sizeof(sql),
             "CREATE_REPLICATION_SLOT keybridge_verify_%d_%.8s TEMPORARY LOGICAL pgoutput %s",
             (int)getpid(), hold->request,
             hold->walsender.version >= 150000 ? "(SNAPSHOT 'export')" : "EXPORT_SNAPSHOT");
    return PQsendQuery(hold->walsender.conn, sql) ||
           pg_fail(&hold->walsender, NULL, err, "creating a slot");
}

static bool take_slot(Hold *hold, Err *err)
{
    AUTO_RESULT res = collect(&hold->walsender, err);
    uint64_t lsn;

    if (!res) {
        err_context(err, "creating a temporary replication slot for the snapshot");
        if (strcmp(err->code, "53400") == 0)
            err_hint(
                err,
                "raise max_replication_slots on the source: a verification needs a free one for a moment");
        return false;
    }
    if (PQntuples(res) != 1 || PQnfields(res) < 3 || PQgetisnull(res, 0, 2))
        return err_fail(err, ERR_SOURCE,
                        "creating a temporary replication slot: no snapshot came back");
    if (!lsn_parse(pg_cell(res, 0, 1), &lsn, err))
        return false;
    hold->s->position = position_of_lsn(lsn);
    snprintf(hold->snapshot, sizeof(hold->snapshot), "%s", PQgetvalue(res, 0, 2));
    return true;
}

/* *in_time false: given up, nothing is left behind. */
static bool create_slot(Hold *hold, unsigned most_ms, bool *in_time, Err *err)
{
    uint64_t from = mono_us();

    *in_time = true;
    if (!send_slot(hold, err))
        return false;
    while (PQisBusy(hold->walsender.conn)) {
        bool stopped = !step(hold, VERIFY_SNAPSHOT, PQsocket(hold->walsender.conn), err);

        *in_time = mono_us() - from < (uint64_t)most_ms * 1000;
        if (stopped || !*in_time) {
            cancel(&hold->walsender);
            pg_close(&hold->walsender);
            return !stopped;
        }
        if (!PQconsumeInput(hold->walsender.conn))
            return pg_fail(&hold->walsender, NULL, err, "creating a slot");
    }
    return take_slot(hold, err);
}

static bool hold_and_snapshot(Hold *hold, Err *err)
{
    unsigned most_ms = hold->conf->hold_most_ms ? hold->conf->hold_most_ms : HOLD_MS;

    for (;; most_ms = most_ms * 2 < HOLD_MOST_MS ? most_ms * 2 : HOLD_MOST_MS) {
        bool in_time;

        if (!wait_young(hold, (uint64_t)most_ms * 1000 / 3, err) || !ask_hold(hold, err) ||
            !wait_state(hold, "held", VERIFY_HOLDING, err))
            return false;
        hold->standing_since_us = mono_us();
        if (!create_slot(hold, most_ms, &in_time, err))
            return false;
        if (in_time)
            return true;
        log_info("the source gave no snapshot in time; the stream goes on meanwhile",
                 F_U64("held_ms", most_ms));
        tell_open(hold);
        if (!release(hold, err))
            return false;
    }
}

static bool set_position(Hold *hold, Err *err)
{
    char at[POSITION_TEXT];
    AUTO_RESULT res = NULL;

    position_text(hold->s->position, at);
    res = pg_rows(
        &hold->target, err,
        "with moved as (update keybridge.pause set at = $3, state = 'asked', renewed_at = clock_timestamp()"
        " where stream = $1 and request = $2 and state = 'held' returning 1)"
        " select pg_notify('" PAUSE_CHANNEL "', '') from moved",
        hold->stream, hold->request, at);
    hold->renewed_us = mono_us();
    if (!res)
        return false;
    hold->s->pause_us += mono_us() - hold->standing_since_us;
    hold->standing_since_us = 0;
    if (PQntuples(res) == 1)
        return true;
    err_fail(err, ERR_STATE, "the stream's hold lapsed before the source's snapshot was there");
    return err_transient(err);
}

/* In the target's snapshot itself: the stream stood at the position, and its lease was so fresh
 * that it can't have moved. */
static bool check_reached(Pg *pg, void *arg, Err *err)
{
    Hold *hold = arg;
    char at[POSITION_TEXT];
    AUTO_RESULT res = NULL;

    position_text(hold->s->position, at);
    res = pg_rows(
        pg, err,
        "select 1 from keybridge.pause where stream = $1 and request = $2 and at = $3 and state = 'reached'"
        " and renewed_at > clock_timestamp() - make_interval(secs => $4::text::int / 2)",
        hold->stream, hold->request, at, PAUSE_LEASE_TEXT);
    if (!res)
        return false;
    if (PQntuples(res) == 1)
        return true;
    err_fail(err, ERR_STATE, "the stream went on before the target's snapshot was taken");
    return err_transient(err);
}

/* A transaction whose commit record is flushed is in the slot's snapshot, but its session may not
 * yet have noted in the commit log that it committed: for that moment its rows would look aborted
 * to us. So wait until none that the snapshot counts as over is still running. (One that waits for
 * a synchronous standby has noted it already; hence the limit.) */
static bool settle(Hold *hold, Err *err)
{
    static const char over_sql[] =
        "with w as (select split_part($1, ':', 2)::int8 as most, string_to_array(nullif(split_part($1, ':', 3), ''), ',')::int8[] as open)"
        " select 1 from w, txid_snapshot_xip(txid_current_snapshot()) r"
        " where r < w.most and not r = any (coalesce(w.open, '{}')) limit 1";
    uint64_t from = mono_us();
    AUTO_BUF seen;

    buf_init(&seen, MIB(64));
    if (!pg_value(&hold->s->conns[SIDE_SOURCE][0], &seen, err, "select txid_current_snapshot()", 0,
                  NULL))
        return false;
    for (;;) {
        AUTO_RESULT res = pg_rows(&hold->source, err, over_sql, buf_str(&seen));

        if (!res)
            return false;
        if (PQntuples(res) == 0 || mono_us() - from > SETTLE_US)
            return true;
        if (!step(hold, VERIFY_SNAPSHOT, -1, err))
            return false;
    }
}

static bool at_position(Hold *hold, Err *err)
{
    if (!hold_and_snapshot(hold, err) || !import(hold->s, SIDE_SOURCE, 0, hold->snapshot, err) ||
        !set_position(hold, err) || !settle(hold, err))
        return false;
    /* The slot keeps WAL and catalogue rows on the source: away with it as soon as the workers have
     * its snapshot. */
    pg_close(&hold->walsender);
    if (!wait_state(hold, "reached", VERIFY_REACHING, err))
        return false;
    hold->standing_since_us = mono_us();
    if (!renew(hold, err) || !share(hold->s, SIDE_TARGET, check_reached, hold, err))
        return false;
    hold->s->how = VERIFY_AT_POSITION;
    hold->s->note =
        "both sides at exactly this position: every transaction that committed before it, none behind it";
    return release(hold, err);
}

static bool as_is(Snapshots *s, const char *note, Err *err)
{
    s->how = VERIFY_AS_IS;
    s->position = POSITION_NONE;
    s->note = note;
    return share(s, SIDE_SOURCE, NULL, NULL, err) && share(s, SIDE_TARGET, NULL, NULL, err);
}

/* Every database of an instance has a stream of its own, and the name given may be another one's.
 * What one database has in its list and is running is meant. */
static bool find_other(Hold *hold, bool *found, Err *err)
{
    AUTO_RESULT there =
        pg_rows(&hold->target, err, "select 1 where to_regclass('keybridge.stream') is not null");
    AUTO_RESULT res = NULL;

    *found = false;
    if (!there)
        return false;
    if (PQntuples(there) == 0)
        return true;
    res = pg_rows(
        &hold->target, err,
        "select s.name from keybridge.stream s join pg_locks l on l.objid = (hashtext(s.name collate \"C\")::int8 & 4294967295)::oid"
        " where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.classid = $1::text::oid"
        " and l.database = (select oid from pg_database where datname = current_database())",
        PAUSE_LOCK_TEXT);
    if (!res)
        return false;
    *found = PQntuples(res) == 1 && (size_t)PQgetlength(res, 0, 0) < sizeof(hold->stream);
    if (*found) {
        snprintf(hold->stream, sizeof(hold->stream), "%s", PQgetvalue(res, 0, 0));
        log_info("verifying with the stream that runs here", F_STR("stream", hold->stream));
    }
    return true;
}

/* A stream that has just been started, or is connecting again, takes a moment to listen. */
static bool wait_listening(Hold *hold, bool *listens, Err *err)
{
    uint64_t from = mono_us();

    for (;;) {
        if (!stream_listens(hold, listens, err))
            return false;
        if (*listens)
            return true;
        if (hold->conf->or_as_is)
            return find_other(hold, listens, err);
        if (mono_us() - from > LISTEN_US) {
            err_fail(err, ERR_STATE, "no stream \"%s\" is applying in this database of the target",
                     hold->stream);
            return err_hint(err, "start it with keybridge replicate, and name it with --slot");
        }
        if (!step(hold, VERIFY_HOLDING, -1, err))
            return false;
    }
}

static bool with_stream(Hold *hold, Err *err)
{
    bool listens;

    if (!open_one(&hold->source, hold->conf, SIDE_SOURCE, false, hold->wait->stop, err) ||
        !open_one(&hold->target, hold->conf, SIDE_TARGET, false, hold->wait->stop, err) ||
        !wait_listening(hold, &listens, err))
        return false;
    if (!listens)
        return as_is(hold->s,
                     "no stream is applying here, so both sides as they are now: "
                     "what was written on the source meanwhile shows up as different",
                     err);
    return at_position(hold, err);
}

bool snapshots_open(Snapshots *s, const VerifyConf *conf, const SnapshotWait *wait, Err *err)
{
    Hold hold = {.conf = conf, .wait = wait, .s = s};
    bool ok;

    memset(s, 0, sizeof(*s));
    snprintf(hold.stream, sizeof(hold.stream), "%s", conf->stream ? conf->stream : "");
    s->workers = conf->workers ? (unsigned)size_min(conf->workers, SNAPSHOT_MOST) : 2;
    ok = open_workers(s, conf, wait->stop, err) &&
         (conf->stream ? with_stream(&hold, err)
                       : as_is(s, "without a stream: both sides as they are now", err));
    if (!ok && hold.asked) {
        Err second = ERR_INIT;

        if (!release(&hold, &second))
            log_warn("the stream stays held until the lease runs out", F_STR("why", second.text));
    }
    pg_close(&hold.walsender);
    pg_close(&hold.source);
    pg_close(&hold.target);
    if (!ok)
        snapshots_close(s);
    return ok;
}

void snapshots_close(Snapshots *s)
{
    for (int side = 0; side < SIDES; side++)
        for (unsigned i = 0; i < SNAPSHOT_MOST; i++)
            pg_close(&s->conns[side][i]);
}
