/* The phases in which the new side follows the old one, and is proved equal. */
#include "engine/move/bridge.h"
#include "engine/base/crash.h"
#include "engine/base/mono.h"
#include "engine/check/sequences.h"
#include "engine/check/verify.h"
#include "engine/model/position.h"
#include "engine/move/phases.h"
#include "engine/stream/pause.h"

#define KEEP_MS 1000

/* For `keybridge status`, which looks at the journal only. A moment that can't be written down is
 * no reason to stop. */
static void keep_progress(Move *move)
{
    static uint64_t kept_ms;
    uint64_t now = mono_ms();

    if (now - kept_ms < KEEP_MS)
        return;
    kept_ms = now;
    for (size_t i = 0; i < follow_count(move->follow) && i < move->db_count; i++) {
        StreamStatus s = follow_status(move->follow, i);
        Err ignored = ERR_INIT;
        char at[LSN_TEXT];
        AUTO_BUF json;
        char when[WALL_TEXT];

        buf_init(&json, KIB(4));
        buf_printf(&json,
                   "{\"at\":\"%s\",\"applied_lsn\":\"%s\",\"lag_bytes\":%" PRIu64
                   ",\"lag_ms\":%" PRId64 ",\"transactions\":%" PRIu64
                   ",\"transactions_per_s\":%.0f,\"spool_bytes\":%" PRIu64 ",\"skipped\":%" PRIu64
                   ",\"slot_state\":",
                   wall_text(wall_us(), when), lsn_text(s.applied_end.at, at), s.lag_bytes,
                   s.lag_us / 1000, s.transactions, s.transactions_per_s, s.spool_bytes, s.skipped);
        slotstate_put_json(&json, &s.slot);
        buf_puts(&json, ",\"relay\":");
        stream_put_relay_json(&json, &s);
        buf_putc(&json, '}');
        if (!move_put(move, move->dbs[i].name, "progress", buf_str(&json), &ignored))
            log_debug("progress not kept", F_STR("error", ignored.text));
    }
}

void bridge_show(void *self)
{
    Move *move = self;
    char line[256];
    size_t len = 0;

    if (!move->follow)
        return;
    for (size_t i = 0; i < follow_count(move->follow) && len < 200; i++) {
        StreamStatus s = follow_status(move->follow, i);
        char at[LSN_TEXT];

        len += (size_t)snprintf(line + len, sizeof(line) - len, "%s%s %s lag %.1f s %.0f tx/s",
                                i ? " | " : "", move->dbs[i].name, lsn_text(s.applied_end.at, at),
                                (double)s.lag_us / 1e6, s.transactions_per_s);
        if (len >= sizeof(line))
            break;
    }
    log_progress(line);
    keep_progress(move);
}

StreamConf bridge_stream_conf(const Move *move, const MoveDb *db, const char *spool_dir)
{
    const Conf *conf = move->conf;
    Position applied = POSITION_NONE;
    Err ignored = ERR_INIT;

    if (conf->ddl_applied && !lsn_parse(span_str(conf->ddl_applied), &applied.at, &ignored))
        applied = POSITION_NONE; /* refused when the command began */
    return (StreamConf){
        .name = db->name,
        .source_dsn = db->source_dsn,
        .target_dsn = db->target_dsn,
        .slot = db->slot,
        .publication = move->publication,
        .start = db->start ? position_of_lsn(db->start) : POSITION_NONE,
        .lanes = (unsigned)conf->lanes,
        .batch_changes = conf->batch_changes,
        .batch_bytes = conf->batch_bytes,
        .txn_memory = conf->spool_memory,
        .spool_dir = spool_dir,
        .relay_after_ms = (unsigned)conf->relay_after,
        .relay_most = conf->relay_limit,
        .stop_at_ddl = strcmp(conf->ddl, "stop") == 0,
        .ddl_applied = applied,
        .skip_failed = conf->skip_failed,
        .source_disk_free = conf->source_disk_free,
        .skip_txns = conf->skip_txn,
        .retry_most_s = (unsigned)(conf->retry / 1000),
    };
}

const char *bridge_spool_base(Move *move)
{
    return move->conf->spool_dir
               ? move->conf->spool_dir
               : arena_printf(&move->arena, "%s/spool", journal_dir(move->journal));
}

const char *bridge_spool_dir(Move *move, const MoveDb *db)
{
    return arena_printf(&move->arena, "%s-%s", bridge_spool_base(move), db->slot);
}

bool bridge_start(Move *move, Err *err)
{
    StreamConf *confs = arena_array(&move->arena, StreamConf, move->db_count + 1);

    for (size_t i = 0; i < move->db_count; i++) {
        confs[i] = bridge_stream_conf(move, &move->dbs[i], bridge_spool_dir(move, &move->dbs[i]));
    }
    follow_stop(move->follow);
    move->follow = follow_start(confs, move->db_count, err);
    return move->follow != NULL;
}

bool phase_stream(Move *move, Err *err)
{
    return bridge_start(move, err);
}

bool phase_catch_up(Move *move, Err *err)
{
    FollowWait wait = {
        .stop = move->stop, .what = "catching up", .tick = bridge_show, .self = move};
    uint64_t most_us = move->conf->cutover_max_lag * 1000;

    return follow_wait_lag(move->follow, most_us ? most_us : 1000, &wait, err);
}

/* verify
 * ---------------------------------------------------------------------------------------------------
 */

typedef struct Watch {
    Move *move;
    Stop stop; /* the global one, or a stream that failed */
    Err why;
} Watch;

static const char *const verify_phase_names[] = {
    [VERIFY_HOLDING] = "holding the stream",     [VERIFY_SNAPSHOT] = "snapshot of the source",
    [VERIFY_REACHING] = "reaching its position", [VERIFY_HASHING] = "hashing",
    [VERIFY_NARROWING] = "finding the rows",
};

static void watch_verify(void *self, const VerifyProgress *progress)
{
    Watch *watch = self;
    char line[256];

    snprintf(line, sizeof(line),
             "verify %s: %s, %zu of %zu tables, %" PRIu64 " rows, %" PRIu64 " s left",
             progress->database, verify_phase_names[progress->phase], progress->tables_done,
             progress->tables, progress->rows_done, progress->left_us / 1000000);
    log_progress(line);
    keep_progress(watch->move);
    if (stop_requested(watch->move->stop) || !follow_check(watch->move->follow, &watch->why))
        stop_request(&watch->stop);
}

static bool explain_difference(const VerifyResult *result, Err *err)
{
    char text[600] = "";
    size_t len = 0;

    for (size_t i = 0; i < result->table_count && len < 400; i++) {
        const VerifyTable *t = &result->tables[i];

        if (t->verdict == VERIFY_EQUAL || t->verdict == VERIFY_UNLOGGED)
            continue;
        len += (size_t)snprintf(text + len, sizeof(text) - len,
                                "%s%s.%s (%s, %" PRIu64 " missing, %" PRIu64 " extra, %" PRIu64
                                " changed)",
                                len ? ", " : "", t->schema, t->name,
                                verify_verdict_name(t->verdict), t->missing, t->extra, t->changed);
    }
    for (size_t i = 0; i < result->drift.count && len < 400; i++) {
        const TableDrift *d = &result->drift.items[i];

        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s %s.%s%s%s", len ? ", " : "",
                                table_drift_name(d->kind), d->schema, d->table,
                                d->column ? "." : "", d->column ? d->column : "");
    }
    err_fail(
        err, ERR_DIFFERENT,
        "database %s is not the same on both sides: %zu tables differ, %zu could not be read: %s",
        result->database, result->different, result->errors, text);
    return err_hint(err, "keybridge verify lists the rows; run again compares again");
}

static bool keep_verify(Move *move, const MoveDb *db, const VerifyResult *result, Err *err)
{
    AUTO_BUF json;
    char at[POSITION_TEXT];

    buf_init(&json, MIB(256));
    verify_json(result, &json);
    if (!buf_ok(&json, "the result of the verification", err) ||
        !move_put(move, db->name, "verify", buf_str(&json), err))
        return false;
    return audit_add(move->audit, err, "verified", F_STR("database", db->name),
                     F_BOOL("equal", verify_equal(result)), F_U64("tables", result->table_count),
                     F_U64("rows", result->rows), F_U64("different", result->different),
                     F_U64("errors", result->errors),
                     F_STR("position", position_text(result->position, at)),
                     F_MS("stream_held_ms", (double)result->pause_us / 1000));
}

/* A verification that was killed a moment ago still has its lease on the stream: it lapses. Nobody
 * else drives this migration. */
static bool run_verify(const VerifyConf *conf, VerifyResult *result, Err *err)
{
    uint64_t deadline = mono_ms() + (PAUSE_LEASE_S + 5) * 1000;

    while (!verify_run(conf, result, err)) {
        if (err->kind != ERR_STATE || mono_ms() > deadline)
            return false;
        log_info("waiting for the lease of an interrupted verification to lapse",
                 F_STR("database", conf->database));
        err_clear(err);
        if (stop_wait(conf->stop, 500))
            return stop_fail(err, "verifying");
    }
    return true;
}

static bool verify_one(Move *move, const MoveDb *db, Watch *watch, Err *err)
{
    VerifyConf conf = {
        .database = db->name,
        .source_dsn = db->source_dsn,
        .target_dsn = db->target_dsn,
        .stream = db->slot,
        .tables = move->conf->verify_tables,
        .workers = (unsigned)move->conf->verify_workers,
        .chunk_rows = move->conf->verify_chunk,
        .report_rows = (unsigned)move->conf->verify_report,
        .show_values = move->conf->verify_values,
        .progress = watch_verify,
        .arg = watch,
        .stop = &watch->stop,
    };
    VerifyResult result = {0};
    bool ok;

    if (!run_verify(&conf, &result, err)) {
        if (err_is_set(&watch->why))
            *err = watch->why;
        return err_context(err, "database %s", db->name);
    }
    ok = keep_verify(move, db, &result, err);
    if (ok && !verify_equal(&result))
        ok = explain_difference(&result, err);
    if (ok)
        log_info("both sides are equal", F_STR("database", db->name),
                 F_U64("tables", result.table_count), F_U64("rows", result.rows),
                 F_MS("took_ms", (double)result.total_us / 1000));
    verify_free(&result);
    return ok;
}

bool phase_verify(Move *move, Err *err)
{
    Watch watch = {.move = move, .why = ERR_INIT};
    bool ok = true;

    if (!stop_init(&watch.stop, err))
        return false;
    for (size_t i = 0; ok && i < move->db_count; i++)
        ok = verify_one(move, &move->dbs[i], &watch, err);
    stop_fini(&watch.stop);
    return ok;
}

/* sequences
 * -------------------------------------------------------------------------------------------------
 */

/* While writes flow the target's are behind; what counts here is that all can be read and are
 * there. */
static bool look_at_sequences(Move *move, const MoveDb *db, Err *err)
{
    SequencesResult result = {0};
    AUTO_PG source = {0};
    AUTO_PG target = {0};
    size_t missing = 0;
    const char *name = "";

    if (!move_source(move, db, &source, err) || !move_target(move, db, &target, err) ||
        !sequences_run(&source, &target, db->name, false, &result, err))
        return err_context(err, "sequences of %s", db->name);
    for (size_t i = 0; i < result.count; i++) {
        if (result.items[i].verdict != SEQUENCE_MISSING)
            continue;
        missing++;
        name = arena_printf(&move->arena, "%s.%s", result.items[i].schema, result.items[i].name);
    }
    if (result.nearly_full)
        log_warn("sequences are nearly used up", F_STR("database", db->name),
                 F_U64("count", result.nearly_full));
    log_info("sequences looked at", F_STR("database", db->name), F_U64("count", result.count),
             F_U64("missing", missing));
    sequences_free(&result);
    if (!missing)
        return true;
    err_fail(err, ERR_DIFFERENT, "%zu sequences of %s are missing on the target, such as %s",
             missing, db->name, name);
    return err_hint(err, "create them there, exactly as on the source, and run again");
}

bool phase_sequences(Move *move, Err *err)
{
    for (size_t i = 0; i < move->db_count; i++)
        if (!look_at_sequences(move, &move->dbs[i], err))
            return false;
    return true;
}
