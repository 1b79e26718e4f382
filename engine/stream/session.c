/* The source thread. It never waits for anything but poll: a walsender that isn't answered within
 * wal_sender_timeout ends the connection, and a stalled target must not cause that.
 *
 * What may be confirmed to the source is exactly what is durable on the target, in its progress
 * row. When a publication is quiet while the source writes other WAL, an empty transaction takes
 * the source's position to the target (assembler_quiet); so there, too, the source is told nothing
 * that the target doesn't know, and a slot whose confirmed position is ahead of the target's
 * progress is surely not the one that this stream was on.
 */
#include "engine/stream/session_impl.h"

#include <poll.h>

#include "appliers/applier.h"
#include "engine/base/crash.h"
#include "engine/base/log.h"
#include "engine/base/mono.h"
#include "engine/stream/capture.h"
#include "engine/stream/published.h"
#include "engine/stream/relaying.h"
#include "engine/stream/types.h"
#include "engine/stream/walsender.h"

#define FLIGHT_BATCHES 4       /* bytes of batches under way: this times batch_bytes */
#define QUIET_MS       3000    /* between two empty transactions */
#define QUIET_BYTES    MIB(16) /* or so much WAL, */
#define QUIET_LEAST_MS 250     /* but no sooner */
#define ASK_MS         1000    /* between two looks at the source's end of WAL */
#define PING_MS        10      /* while an end position is waited for */
#define BEHIND_US      50000 /* a commit that is older when it arrives: the source has a backlog */
#define RATE_MS        20    /* window for the bytes that tell the same of long transactions */
#define RATE_BYTES     KIB(256)
#define LANE_WAITS     8 /* a batch that waits for more than this part of the time between two */
#define PUBLISH_MS     20
#define UNTIL_MS       2 /* a cut-over waits for the end with writers blocked */

static Position later(Position a, Position b)
{
    return position_compare(a, b) > 0 ? a : b;
}

/* Preparing */

static bool is_same_server(Pg *source, Pg *target, bool *same, Err *err)
{
    static const char sql[] =
        "select pg_catalog.pg_postmaster_start_time()::text || pg_catalog.current_database()"
        " || coalesce(pg_catalog.inet_server_port(), 0)";
    AUTO_RESULT a = pg_rows(source, err, sql);
    AUTO_RESULT b = a ? pg_rows(target, err, sql) : NULL;

    if (!b)
        return false;
    *same = span_equal(pg_cell(a, 0, 0), pg_cell(b, 0, 0));
    return true;
}

/* As the log has it. */
static bool take_format(Session *s, Err *err)
{
    RelayFormat format = relay_format(s->stream->relay);

    s->binary = format.binary;
    if (strcmp(format.encoding, s->encoding) == 0)
        return true;
    err_fail(err, ERR_FAITHFUL, "the relay log has texts in %s, the target database is in %s",
             format.encoding, s->encoding);
    return err_hint(err, "is this the target that the stream was on?");
}

static bool choose_format(Session *s, Pg *target, Err *err)
{
    AUTO_BUF why;
    AUTO_BUF encoding;

    buf_init(&why, 4096);
    buf_init(&encoding, sizeof(s->encoding) - 1);
    if (!pg_value(target, &encoding, err, "select pg_catalog.getdatabaseencoding()", 0, NULL))
        return false;
    snprintf(s->encoding, sizeof(s->encoding), "%s", buf_str(&encoding));
    if (!types_fit(&s->ask, target, s->stream->conf.publication, err))
        return false;
    if (s->stream->relay)
        return take_format(s, err);
    if (s->stream->text_only) {
        buf_puts(&why, "the target refused a value in its binary form");
    } else if (s->facts.version < 140000) {
        buf_puts(&why, "the source's version has no binary mode");
    } else if (!pg_exec(&s->ask, "set lock_timeout = '5s'", err) ||
               !types_compare(&s->ask, target, s->stream->conf.publication, &s->binary, &why,
                              err)) {
        /* Newer servers lock a published table to tell its columns. */
        return strcmp(err->code, "55P03") == 0
                   ? err_hint(err, "somebody holds an exclusive lock on a published table of the "
                                   "source: an ALTER TABLE under way, or a prepared transaction")
                   : false;
    }
    log_info(
        "value format chosen", F_STR("format", s->binary ? "binary" : "text"),
        F_STR("why", s->binary ? "all published types are the same on both sides" : buf_str(&why)));
    return true;
}

/* The source tells its DDL where it can be made to. */
static bool make_source_tell(Session *s, Err *err)
{
    bool there = false;
    AUTO_BUF why;

    buf_init(&why, 4096);
    if (source_minor_trouble(s->facts.version) && !s->stream->told_ddl)
        log_warn("the source's minor version has a bug in logical decoding: update it first",
                 F_U64("version", s->facts.version),
                 F_STR("what", source_minor_trouble(s->facts.version)));
    if (s->stream->conf.stop_at_ddl)
        return true;
    if (!capture_install(&s->ask, &there, &why, err))
        return err_context(err, "making the source tell its DDL");
    if (!there && !s->stream->told_ddl)
        log_warn(
            "DDL of the source isn't seen: the stream stops at the first row that no longer fits",
            F_STR("why", buf_str(&why)));
    s->stream->told_ddl = true;
    return true;
}

/* The copy of a source that tells its DDL would tell what is applied to it. */
static void make_target_silent(Pg *target)
{
    Err why = ERR_INIT;

    if (!capture_remove(target, &why))
        log_warn("the target keeps event triggers of keybridge that came with the copy",
                 F_STR("why", why.text));
}

/* What has to be known of the target before its half is opened. */
static bool look_at_target(Session *s, Err *err)
{
    PgOptions options = {.stop = s->stop};
    AUTO_PG target = {0};
    bool same = false;

    if (!pg_open(&target, s->stream->conf.target_dsn, ERR_TARGET, &options, err) ||
        !is_same_server(&s->ask, &target, &same, err))
        return false;
    if (same) {
        err_fail(err, ERR_USAGE, "source and target are the same database");
        return err_hint(err, "check --source and --target");
    }
    make_target_silent(&target);
    return choose_format(s, &target, err);
}

static bool parse_skips(const char *text, ApplyConf *apply, Err *err)
{
    for (const char *at = text ? text : ""; *at;) {
        size_t len = strcspn(at, ",");
        uint64_t lsn;

        if (apply->skip_txn_count == SKIP_TXNS_MOST)
            return err_fail(err, ERR_USAGE, "--skip-txn names more than %d transactions",
                            SKIP_TXNS_MOST);
        if (!lsn_parse(span_of(at, len), &lsn, err))
            return err_context(err, "--skip-txn");
        apply->skip_txns[apply->skip_txn_count++] = position_of_lsn(lsn);
        at += len + (at[len] == ',');
    }
    return true;
}

static bool open_target(Session *s, Err *err)
{
    const StreamConf *conf = &s->stream->conf;
    ApplyConf apply = {
        .target_dsn = conf->target_dsn,
        .stream = conf->slot,
        .lanes = conf->lanes,
        .text_only = !s->binary,
        .queue_batches = QUEUE_BATCHES,
        .stop_at_ddl = conf->stop_at_ddl,
        .publishes_list = !s->facts.all_tables,
        .ddl_applied = conf->ddl_applied,
        .skip_failed = conf->skip_failed,
    };

    if (!parse_skips(conf->skip_txns, &apply, err))
        return false;

    s->apply = apply_open(&apply, s->stop, err);
    if (!s->apply)
        return false;
    s->queue = apply_queue(s->apply);
    return true;
}

static bool slot_is_ahead(const Session *s, Position start, bool known, Err *err)
{
    char at[POSITION_TEXT], confirmed[LSN_TEXT];

    position_text(start, at);
    lsn_text(s->facts.confirmed, confirmed);
    if (known) {
        err_fail(
            err, ERR_FAITHFUL,
            "replication slot \"%s\" is confirmed up to %s, the target has only what was before %s",
            s->stream->conf.slot, confirmed, at);
        return err_hint(
            err,
            "if there was a relay log, %s must be what it was (--state-dir, --spool-dir); else the slot "
            "was made again or moved, or the target was set back: what is between can't be streamed "
            "any more and the copy must be made again",
            s->stream->relay_dir);
    }
    err_fail(err, ERR_FAITHFUL,
             "the start position %s is before %s, from which on slot \"%s\" has changes", at,
             confirmed, s->stream->conf.slot);
    return err_hint(err,
                    "what is between would be missing: the slot must be made before the copy is");
}

/* Progress wins, then what a run before recorded, then the option, then the slot. */
static bool choose_start(Session *s, Position *start, Err *err)
{
    ApplyProgress progress = apply_progress(s->apply);
    Position wanted = s->stream->conf.start;
    bool known = progress.any || !position_is_none(progress.start);
    char at[POSITION_TEXT], end[LSN_TEXT];

    /* Of a stream's very first batch, there in part, nothing was before. */
    *start = position_is_none(progress.applied_end) ? progress.start : progress.applied_end;
    if (!known)
        *start = position_is_none(wanted) ? position_of_lsn(s->facts.confirmed) : wanted;
    if (s->stream->relay && !known && position_is_none(wanted)) {
        err_fail(err, ERR_FAITHFUL,
                 "there is a relay log in %s, but the target has no progress of slot \"%s\"",
                 s->stream->relay_dir, s->stream->conf.slot);
        return err_hint(
            err, "is this the target that the stream was on? For a new one, remove the old log");
    }
    if (!relaying_accept(s->stream, &s->facts, *start, err))
        return false;
    if (!s->stream->relay && s->facts.confirmed > start->at)
        return slot_is_ahead(s, *start, known, err);
    if (start->at > s->facts.flushed) {
        err_fail(err, known ? ERR_FAITHFUL : ERR_STATE,
                 "the %s position %s is behind the source's end of WAL, %s",
                 known ? "target's" : "start", position_text(*start, at),
                 lsn_text(s->facts.flushed, end));
        return err_hint(
            err,
            "is this the right source? A position of the copy is none of the source's; a source that "
            "was set back has lost what the target has");
    }
    if (!position_is_none(wanted) || !known)
        return apply_set_start(s->apply, position_is_none(wanted) ? *start : wanted, err);
    return true;
}

static bool start_sender(Session *s, Position start, Err *err)
{
    const StreamConf *conf = &s->stream->conf;
    WalSenderConf sender = {
        .dsn = conf->source_dsn,
        .slot = conf->slot,
        .publication = conf->publication,
        .encoding = s->encoding,
        /* A slot with two_phase sends what was prepared before the start only from its confirmed
         * position on; what the target has is left out by the assembler. */
        .start = s->facts.two_phase ? position_of_lsn(s->facts.confirmed) : start,
        .binary = s->binary,
        .stop = s->stop,
    };

    s->sender = walsender_start(&sender, err);
    if (s->sender)
        s->stream->sender_pid = walsender_pid(s->sender);
    return s->sender != NULL;
}

static void start_assembler(Session *s, Position start)
{
    const StreamConf *conf = &s->stream->conf;

    s->conf = (AssemblerConf){
        .protocol =
            s->sender ? walsender_protocol(s->sender) : relay_format(s->stream->relay).protocol,
        .two_phase = s->facts.two_phase,
        .batch_changes = conf->batch_changes,
        .batch_bytes = conf->batch_bytes,
        .txn_memory = conf->txn_memory,
        .start = start,
        .progress = apply_progress(s->apply),
    };

    s->assembler = assembler_new(&s->conf, s->stream->spool);
    if (s->stream->relay)
        s->reader = relay_reader_new(s->stream->relay, s->conf.progress.applied);
    s->started_at = s->pushed = apply_progress(s->apply).applied_end;
    s->began_at = start;
    s->behind = true;
    s->lanes = 1;
    s->pushed_us = mono_us();
    s->heard_ms = s->quiet_ms = mono_ms();
}

/* What is published is carried; that it isn't all has to be known. */
static bool tell_limits(Session *s, Err *err)
{
    AUTO_BUF limits;

    buf_init(&limits, MIB(1));
    if (s->stream->limits_told)
        return true;
    if (!published_limits(&s->ask, s->stream->conf.publication, &limits, err))
        return false;
    s->stream->limits_told = true;
    if (limits.len)
        log_warn("the publication leaves something out",
                 F_STR("publication", s->stream->conf.publication),
                 F_STR("what", buf_str(&limits)));
    return true;
}

/* What a relay log would have to know, should the target go away. */
static void remember(Session *s)
{
    Stream *stream = s->stream;

    snprintf(stream->encoding, sizeof(stream->encoding), "%s", s->encoding);
    /* What is in a log can't be asked for again in another form, should the target refuse one. */
    stream->format = (RelayFormat){stream->encoding, s->conf.protocol, false};
    /* The log begins where the source was told to; with two_phase that must be before what is
     * prepared. */
    stream->may_relay = !s->facts.two_phase;
    if (!stream->relay)
        stream->durable = later(stream->durable, position_of_lsn(s->facts.confirmed));
    stream->moved_ms = mono_ms();
}

static bool prepare(Session *s, Err *err)
{
    PgOptions options = {.stop = s->stop};
    Position start = POSITION_NONE;

    if (!pg_open(&s->ask, s->stream->conf.source_dsn, ERR_SOURCE, &options, err) ||
        !source_check(&s->ask, s->stream->conf.slot, s->stream->conf.publication,
                      s->stream->sender_pid, s->stream->receiver != NULL, &s->facts, err) ||
        !make_source_tell(s, err) || !tell_limits(s, err) ||
        !relaying_find(s->stream, &s->ask, &s->facts, err) || !look_at_target(s, err) ||
        !open_target(s, err) || !choose_start(s, &start, err) ||
        (!s->stream->relay && !start_sender(s, start, err)))
        return false;
    start_assembler(s, start);
    remember(s);
    log_info("streaming", F_STR("slot", s->stream->conf.slot), F_LSN("from", start.at),
             F_U64("protocol", s->conf.protocol), F_BOOL("binary", s->binary),
             F_BOOL("relaying", s->reader != NULL),
             F_U64("source_version", s->facts.version / 10000));
    crash_point("stream-started");
    return true;
}

/* Handing over */

static void retire_flights(Session *s)
{
    Position committed = apply_committed_end(s->apply);
    size_t gone = 0;

    while (gone < s->flight_count && position_compare(s->flights[gone].end, committed) <= 0) {
        s->quiet_count += s->flights[gone].quiet;
        s->flight_bytes -= s->flights[gone++].bytes;
    }
    s->flight_count -= gone;
    if (gone)
        memmove(s->flights, s->flights + gone, s->flight_count * sizeof(*s->flights));
}

/* So that memory stays bounded even when every batch is one transaction of nearly the largest size.
 */
static bool may_fly(const Session *s, const Batch *batch)
{
    size_t most = FLIGHT_BATCHES * s->stream->conf.batch_bytes;

    return s->flight_count == 0 ||
           (s->flight_count < FLIGHTS_MOST && s->flight_bytes + batch_bytes(batch) <= most);
}

/* One lane less when the target has nothing left to do before the next batch comes: each costs both
 * machines time, which the source may need. One more when a batch has to wait. */
static void adapt_lanes(Session *s)
{
    uint64_t now = mono_us(), waited = s->held_us ? now - s->held_us : 0;

    if (s->flight_count == 0 && s->lanes > 1)
        s->lanes--;
    else if (waited > (now - s->pushed_us) / LANE_WAITS && s->lanes < s->stream->conf.lanes)
        s->lanes++;
    s->pushed_us = now;
    s->held_us = 0;
}

#ifdef KB_TEST_HOOKS
/* So that a test of what may be written side by side doesn't depend on how fast its target is. */
static bool all_lanes(void)
{
    return getenv("KB_ALL_LANES") != NULL;
}
#else
#define all_lanes() false
#endif

static bool push(Session *s)
{
    Flight flight = {
        .end = s->held->last->end,
        .oldest_us = s->held->first->commit_time_us,
        .bytes = batch_bytes(s->held),
        .quiet = s->held->first->xid == 0,
    };

    s->held->lanes_most = all_lanes() ? 0 : s->lanes;
    if (!may_fly(s, s->held) || !queue_try_push(s->queue, s->held)) {
        if (!s->held_us)
            s->held_us = mono_us();
        return false;
    }
    adapt_lanes(s);
    s->held = NULL;
    s->pushed = flight.end;
    s->flights[s->flight_count++] = flight;
    s->flight_bytes += flight.bytes;
    crash_point("batch-pushed");
    return true;
}

static void take_batch(Session *s)
{
    s->held = assembler_take(s->assembler, s->dry && queue_count(s->queue) == 0);
    if (!s->held)
        return;
    s->last_commit = s->held->last->commit;
    s->last_end = s->held->last->end;
}

/* A batch that could still grow goes only when nothing more is here and the target has nothing
 * waiting: so it is as large as the backlog makes worthwhile, and a single transaction when there
 * is none. */
static bool hand_over(Session *s, Err *err)
{
    queue_room_seen(s->queue);
    retire_flights(s);
    for (;;) {
        if (!s->held)
            take_batch(s);
        if (!s->held || !push(s))
            break;
    }
    if (!queue_is_closed(s->queue))
        return true;
    apply_error(s->apply, err);
    return err_is_set(err) ? false
                           : err_fail(err, ERR_BUG, "the applying half ended without saying why");
}

/* The end position */

static Position received(const Session *s)
{
    return later(assembler_seen(s->assembler), s->quiet);
}

#define WAL_PAGE        8192
#define WAL_PAGE_HEADER 40 /* 24 but for the first page of a segment */

/* pg_current_wal_insert_lsn() at the end of a page is behind the header of the next one; records
 * end before it. */
static Position before_page_header(Position p)
{
    uint64_t offset = p.at % WAL_PAGE;

    return (Position){p.file, offset <= WAL_PAGE_HEADER ? p.at - offset : p.at};
}

/* All that committed up to the end position was received. When the source stands exactly there, a
 * commit could still begin at that very byte: only a look at the end of its WAL tells. */
static bool is_passed(const Session *s)
{
    Position at = received(s);

    if (position_compare(at, s->until) > 0)
        return true;
    return position_compare(at, before_page_header(s->until)) >= 0 &&
           position_compare(at, s->empty_at) == 0;
}

static bool nothing_waits(const Session *s)
{
    return !s->held && s->flight_count == 0 && assembler_is_empty(s->assembler);
}

void session_look_for_end(Session *s)
{
    if (s->passed || position_is_none(s->until) || !is_passed(s))
        return;
    s->passed = true;
    assembler_drop_open(s->assembler);
    s->dry = true;
}

static bool is_done(Session *s)
{
    Position all = received(s);

    if (!s->passed || !nothing_waits(s))
        return false;
    /* The target is told how far it is, so that the next run begins there. */
    if (position_compare(s->pushed, all) < 0 && assembler_quiet(s->assembler, all))
        return false;
    apply_hurry(s->apply);
    return position_compare(apply_durable_end(s->apply), s->pushed) >= 0;
}

/* Talking to the source */

bool session_wants_input(const Session *s)
{
    return !s->held && !s->passed && !assembler_has_full(s->assembler);
}

/* Whether what the source's connection has is to be read. */
static bool reads_source(const Session *s)
{
    return s->sender && !s->reader && session_wants_input(s);
}

static Position confirmable(Session *s)
{
    Position durable = assembler_confirmable(s->assembler, apply_durable_end(s->apply), s->quiet);

    return s->stream->relay ? later(durable, relay_synced_end(s->stream->relay)) : durable;
}

bool session_reply(Session *s, bool want_answer, Err *err)
{
    Position durable = confirmable(s);

    crash_point("before-ack");
    if (!walsender_reply(s->sender, received(s), durable, apply_committed_end(s->apply),
                         want_answer, err))
        return false;
    s->replied = durable;
    s->replied_ms = mono_ms();
    s->answer_now = false;
    crash_point("after-ack");
    return true;
}

static bool keep_in_touch(Session *s, Err *err)
{
    uint64_t now = mono_ms();
    uint64_t since = now - s->replied_ms;
    bool waits = !position_is_none(s->until) && !s->passed && s->dry && reads_source(s);
    bool silent =
        reads_source(s) && now - s->heard_ms >= walsender_status_ms(s->facts.sender_timeout_ms);

    if (!s->sender)
        return true; /* the receiver does */
    if (!reads_source(s))
        s->heard_ms = now; /* nobody listens */
    if (!walsender_is_alive(s->facts.sender_timeout_ms, now - s->heard_ms, err))
        return false;
    if (waits && since >= PING_MS)
        return session_reply(s, true, err);
    if (s->answer_now || since >= walsender_status_ms(s->facts.sender_timeout_ms) ||
        (since >= WALSENDER_ACK_MS && position_compare(confirmable(s), s->replied) > 0))
        return session_reply(s, silent, err);
    return true;
}

static void tell_quiet(Session *s)
{
    uint64_t since = mono_ms() - s->quiet_ms;

    if (s->passed || since < QUIET_LEAST_MS || !nothing_waits(s) ||
        position_compare(s->quiet, s->pushed) <= 0 ||
        (since < QUIET_MS && s->quiet.at - s->pushed.at < QUIET_BYTES))
        return;
    s->quiet_ms = mono_ms();
    (void)assembler_quiet(s->assembler, s->quiet);
}

/* The slot's state comes with it, now and then. */
static bool send_question(Session *s, uint64_t now)
{
    const char *slot = s->stream->conf.slot;

    if (s->slot_asked_ms && now - s->slot_asked_ms < SLOTWATCH_MS)
        return PQsendQuery(s->ask.conn, source_end_sql(s->facts.is_standby)) == 1;
    s->slot_asked_ms = now;
    return PQsendQueryParams(s->ask.conn, slotwatch_sql(s->facts.version, s->facts.is_standby), 1,
                             NULL, &slot, NULL, NULL, 0) == 1;
}

static const char *text_or_null(const PGresult *res, int column)
{
    return PQgetisnull(res, 0, column) ? NULL : PQgetvalue(res, 0, column);
}

static void take_answer(Session *s, const PGresult *res)
{
    Err ignored = ERR_INIT;
    uint64_t end;

    if (PQresultStatus(res) != PGRES_TUPLES_OK || PQntuples(res) != 1)
        return;
    if (lsn_parse(pg_cell(res, 0, 0), &end, &ignored)) {
        s->empty_at = position_of_lsn(end);
        s->source_end = later(s->source_end, s->empty_at);
    }
    if (PQnfields(res) == 4) {
        SlotAnswer answer = {text_or_null(res, 1), text_or_null(res, 2), text_or_null(res, 3)};

        slotwatch_take(&s->stream->watch, s->stream->conf.slot, &answer, mono_ms());
    }
}

/* Asked without waiting; a source that doesn't answer here is noticed on the other connection. */
static void ask_source_end(Session *s)
{
    uint64_t now = mono_ms();
    bool at_until = !position_is_none(s->until) &&
                    position_compare(received(s), before_page_header(s->until)) >= 0;

    if (s->asking || !s->ask.conn || now - s->asked_ms < (at_until ? PING_MS / 2 : ASK_MS))
        return;
    s->asking = send_question(s, now);
    s->asked_ms = now;
    if (!s->asking)
        pg_close(&s->ask);
}

static void hear_source_end(Session *s)
{
    PGresult *res;

    if (!s->asking)
        return;
    if (!PQconsumeInput(s->ask.conn)) {
        s->asking = false;
        pg_close(&s->ask);
        return;
    }
    while (!PQisBusy(s->ask.conn)) {
        res = PQgetResult(s->ask.conn);
        if (!res) {
            s->asking = false;
            return;
        }
        take_answer(s, res);
        PQclear(res);
    }
}

/* Input */

static void tell_clock(Session *s, int64_t sent_us)
{
    int64_t ahead = (int64_t)wall_us() - sent_us;

    s->sent_us = sent_us;
    if (!s->clock_known || ahead < s->clock_us)
        s->clock_us = ahead;
    s->clock_known = true;
}

static bool take_message(Session *s, const WalMessage *message, Err *err)
{
    switch (message->kind) {
    case WAL_DATA:
        s->bytes += message->data.len;
        s->rate_bytes += message->data.len;
        s->sent_us = message->sent_us;
        return assembler_message(s->assembler, message->data, err);
    case WAL_KEEPALIVE:
        tell_clock(s, message->sent_us);
        s->quiet = later(s->quiet, message->at);
        s->answer_now |= message->reply_wanted;
        return true;
    case WAL_END:
        err_fail(err, ERR_SOURCE, "the source has ended the stream");
        err_code(err, "57P01");
        return err_transient(err);
    case WAL_NONE:
    default:
        return true;
    }
}

/* A backlog shows in old commits or, within long transactions, in the rate. */
static void judge_backlog(Session *s)
{
    uint64_t now = mono_ms();
    int64_t newest_us = assembler_newest_us(s->assembler);

    s->behind = s->rate_bytes > RATE_BYTES || (newest_us && s->sent_us - newest_us > BEHIND_US);
    if (now - s->rate_ms >= RATE_MS) {
        s->rate_bytes = 0;
        s->rate_ms = now;
    }
}

/* Everything that is in libpq's buffer, until a batch is complete. */
static bool take_messages(Session *s, Err *err)
{
    WalMessage message = {.kind = WAL_NONE};

    s->dry = false;
    while (session_wants_input(s)) {
        if (!walsender_next(s->sender, &message, err))
            return false;
        if (message.kind == WAL_NONE) {
            s->dry = true;
            break;
        }
        if (!take_message(s, &message, err))
            return false;
        session_look_for_end(s);
    }
    if (message.kind != WAL_NONE && message.kind != WAL_KEEPALIVE)
        tell_clock(s, s->sent_us);
    judge_backlog(s);
    return true;
}

static int wait_ms(const Session *s)
{
    if (session_wants_input(s) && !s->dry) /* messages are left in libpq's buffer */
        return 0;
    return position_is_none(s->until) ? PUBLISH_MS : UNTIL_MS;
}

static bool wait_and_read(Session *s, Err *err)
{
    bool want = reads_source(s);
    struct pollfd fds[] = {
        {.fd = s->sender ? walsender_fd(s->sender) : -1,
         .events = s->sender ? walsender_events(s->sender, want) : 0},
        {.fd = queue_room_fd(s->queue), .events = POLLIN},
        {.fd = s->stop->fd, .events = POLLIN},
        {.fd = s->asking ? PQsocket(s->ask.conn) : -1, .events = POLLIN},
    };
    size_t got;

    if (poll(fds, ARRAY_LEN(fds), wait_ms(s)) < 0)
        return true; /* a signal */
    if (want && fds[0].revents) {
        if (!walsender_read(s->sender, s->behind, &got, err))
            return false;
        s->heard_ms = mono_ms();
        return take_messages(s, err);
    }
    if (s->reader)
        return session_take_relayed(s, err);
    return !want || s->dry || take_messages(s, err);
}

/* Status */

static void add_rates(Session *s, StreamStatus *status)
{
    Stream *stream = s->stream;
    uint64_t now = mono_ms();
    const RateSample *oldest = &stream->rates[0];
    RateSample sample = {now, status->transactions, status->changes};

    if (stream->rate_count == 0 || now - stream->rates[stream->rate_count - 1].at_ms >= 1000) {
        if (stream->rate_count == ARRAY_LEN(stream->rates)) {
            memmove(stream->rates, stream->rates + 1,
                    (stream->rate_count - 1) * sizeof(*stream->rates));
            stream->rate_count--;
        }
        stream->rates[stream->rate_count++] = sample;
    }
    if (now > oldest->at_ms + 200) {
        double seconds = (double)(now - oldest->at_ms) / 1000;

        status->transactions_per_s =
            (double)(status->transactions - oldest->transactions) / seconds;
        status->changes_per_s = (double)(status->changes - oldest->changes) / seconds;
    }
}

static int64_t lag_us(const Session *s)
{
    int64_t oldest = s->flight_count ? s->flights[0].oldest_us
                     : s->held       ? s->held->first->commit_time_us
                                     : assembler_oldest_us(s->assembler);
    int64_t now = (int64_t)wall_us() - s->clock_us;

    return oldest && now > oldest ? now - oldest : 0;
}

static uint64_t own_transactions(const Session *s, const ApplyCounters *counters)
{
    return counters->transactions > s->quiet_count ? counters->transactions - s->quiet_count : 0;
}

static void fill_status(Session *s, StreamStatus *status)
{
    ApplyCounters counters = apply_counters(s->apply);
    const StreamStatus *before = &s->stream->before;

    if (position_is_none(status->began))
        status->began = s->began_at;
    status->binary = s->binary;
    status->received = received(s);
    session_fill_relay(s, status);
    status->source_end = later(s->source_end, status->received);
    s->applied = later(s->applied, apply_committed_end(s->apply));
    if (nothing_waits(s))
        s->applied = later(s->applied, received(s));
    status->applied_end = s->applied;
    status->durable_end = apply_durable_end(s->apply);
    status->lag_bytes = status->source_end.at > status->applied_end.at
                            ? status->source_end.at - status->applied_end.at
                            : 0;
    status->lag_us = lag_us(s);
    status->transactions = before->transactions + own_transactions(s, &counters);
    status->changes = before->changes + counters.changes;
    status->skipped = before->skipped + counters.skipped;
    status->bytes = before->bytes + s->bytes;
    status->spool_bytes = spool_dir_bytes(s->stream->spool);
    status->slot = s->stream->watch.now;
    status->phase = s->behind || status->lag_us > 1000000 ? STREAM_CATCHING_UP : STREAM_FOLLOWING;
    add_rates(s, status);
}

static void publish(Session *s, bool now)
{
    StreamStatus status;

    if (!now && mono_ms() - s->published_ms < PUBLISH_MS)
        return;
    s->published_ms = mono_ms();
    pthread_mutex_lock(&s->stream->lock);
    status = s->stream->status;
    pthread_mutex_unlock(&s->stream->lock);
    fill_status(s, &status);
    pthread_mutex_lock(&s->stream->lock);
    s->stream->status = status;
    pthread_mutex_unlock(&s->stream->lock);
}

/* The loop */

static bool follow(Session *s, Err *err)
{
    for (;;) {
        if (stop_requested(s->stop))
            return stop_fail(err, "streaming");
        s->until = stream_until(s->stream);
        hear_source_end(s);
        session_look_for_end(s);
        if (!hand_over(s, err))
            return false;
        if (is_done(s))
            return true;
        if (!session_relay_turn(s, err) || !keep_in_touch(s, err))
            return false;
        tell_quiet(s);
        ask_source_end(s);
        publish(s, false);
        if (!wait_and_read(s, err))
            return false;
    }
}

/* The last confirmation, whatever ended the stream: what is durable need not be sent again. */
static void part(Session *s, bool done)
{
    Err ignored = ERR_INIT;

    if (s->sender && session_reply(s, false, &ignored))
        walsender_end(s->sender, done ? 2000 : 500);
    publish(s, true);
}

/* The target's refusal of a binary form, or the source's (no binary output function). */
static bool is_about_form(const Err *err)
{
    return strcmp(err->code, VALUE_FORM) == 0 ||
           (err->kind == ERR_SOURCE && strcmp(err->code, "42883") == 0);
}

/* A type that was made or changed since the stream began: the binary form is given up for good, and
 * the next session tries the same changes as text. */
static void give_up_binary(Session *s, Err *err)
{
    if (!s->binary || s->stream->text_only || !is_about_form(err))
        return;
    s->stream->text_only = true;
    log_warn("binary form given up: values travel as text from here on", F_STR("why", err->text));
    err_transient(err);
}

static void fini(Session *s)
{
    if (s->assembler)
        session_note_progress(s);
    if (s->apply) {
        ApplyCounters counters = apply_counters(s->apply);

        s->stream->before.transactions += own_transactions(s, &counters);
        s->stream->before.changes += counters.changes;
        s->stream->before.skipped += counters.skipped;
    }
    s->stream->before.bytes += s->bytes;
    /* The target's half first: its batches read the spool and point at the decoder's relations. */
    apply_close(s->apply);
    batch_free(s->held);
    assembler_free(s->assembler);
    for (size_t i = 0; i < s->retired_count; i++)
        assembler_free(s->retired[i]);
    relay_reader_free(s->reader);
    /* The receiver outlives us, unless it has given its connection away. */
    if (s->leaving || !s->stream->receiver)
        relaying_close(s->stream, s->stream->durable);
    walsender_free(s->sender);
    pg_close(&s->ask);
}

bool session_run(Stream *stream, const Stop *stop, SessionEnd *end, Err *err)
{
    Session *s = calloc(1, sizeof(*s));
    bool done = false;

    if (!s)
        abort();
    s->stream = stream;
    s->stop = stop;
    *end = (SessionEnd){0};
    if (prepare(s, err)) {
        end->streamed = true;
        done = follow(s, err);
        end->advanced = position_compare(apply_committed_end(s->apply), s->started_at) > 0;
        part(s, done);
        if (!done)
            give_up_binary(s, err);
    }
    fini(s);
    free(s);
    return done;
}
