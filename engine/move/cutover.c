#include "engine/move/cutover.h"

#include "engine/base/crash.h"
#include "engine/base/mono.h"
#include "engine/check/sequences.h"
#include "engine/model/position.h"
#include "engine/move/bridge.h"
#include "engine/move/definitions.h"
#include "engine/move/fence.h"
#include "engine/move/quiet.h"
#include "engine/move/refused.h"

#define READY_MS 60000 /* for getting close enough to begin */

typedef enum Step {
    FENCE,
    DRAIN,
    SEQUENCES,
    CLOSE,
    PROVE,
    OPEN,
    SWITCH,
    SETTLE,
    WATCH,
    STEPS
} Step;

static const char *const step_names[STEPS] = {"fence", "drain",  "sequences", "close", "prove",
                                              "open",  "switch", "settle",    "watch"};

/* The fact "cutover": nothing or "undone", "closing", "opening", "switched", "done". */
typedef struct Cutover {
    Move *move;
    Fence *fence;
    Pg *targets; /* opened before anybody waits */
    FenceLocks locks;
    uint64_t *ends;        /* first markers, one a database */
    uint64_t *ends_proved; /* second */
    uint64_t deadline_ms;  /* writes are blocked for no longer */
    uint64_t changes;      /* that all streams had applied between the two */
    bool closed;
    char since[WALL_TEXT]; /* it was */
    unsigned ended;        /* sessions */
    Buf who;               /* they were */
    uint64_t took_us[STEPS];
    uint64_t step_us;
} Cutover;

static bool put_state(Move *move, const char *state, Err *err)
{
    return move_put(move, "", "cutover", state, err) &&
           audit_add(move->audit, err, "cutover", F_STR("state", state));
}

static void free_who(Cutover *cut)
{
    buf_fini(&cut->who);
}

bool cutover_state(Move *move, bool *open, bool *done, Err *err)
{
    const char *state;

    if (!move_get(move, "", "cutover", &state, err))
        return false;
    *done = state && strcmp(state, "done") == 0;
    *open = *done || (state && (strcmp(state, "opening") == 0 || strcmp(state, "switched") == 0));
    return true;
}

static void step(Cutover *cut, Step which)
{
    uint64_t now = mono_us();

    cut->took_us[which] = now - cut->step_us;
    cut->step_us = now;
}

/* Written once writes flow again: a disk that flushes slowly must not make the window longer. */
static bool keep_steps(Cutover *cut, Step first, Step last, Err *err)
{
    char key[64];

    for (Step i = first; i <= last; i++) {
        snprintf(key, sizeof(key), "step.%s_us", step_names[i]);
        log_info("cutover step", F_STR("step", step_names[i]),
                 F_MS("took_ms", (double)cut->took_us[i] / 1000));
        if (!move_put_u64(cut->move, "", key, cut->took_us[i], err) ||
            !audit_add(cut->move->audit, err, "cutover step", F_STR("step", step_names[i]),
                       F_MS("took_ms", (double)cut->took_us[i] / 1000)))
            return false;
    }
    return true;
}

static bool in_time(Cutover *cut, const char *doing, Err *err)
{
    if (mono_ms() < cut->deadline_ms)
        return true;
    err_fail(err, ERR_TIMEOUT,
             "cutover: %s: writes were blocked for %" PRIu64 " ms, no longer is allowed", doing,
             cut->move->conf->cutover_timeout);
    return err_hint(err, "a longer --timeout, or a quieter time");
}

static FollowWait waiting(Cutover *cut, const char *what)
{
    return (FollowWait){.stop = cut->move->stop, .deadline_ms = cut->deadline_ms, .what = what};
}

/* ready
 * -----------------------------------------------------------------------------------------------------
 */

static bool open_fence(Cutover *cut, Err *err)
{
    Move *move = cut->move;
    FenceDb *dbs = arena_array(&move->arena, FenceDb, move->db_count + 1);
    FenceConf conf = {.dbs = dbs,
                      .count = move->db_count,
                      .maintenance_dsn = move->source_maintenance,
                      .lock_timeout_ms = move->conf->cutover_lock_timeout,
                      .give_up_ms = move->conf->cutover_timeout,
                      .stop = move->stop};

    for (size_t i = 0; i < move->db_count; i++)
        dbs[i] = (FenceDb){move->dbs[i].name, move->dbs[i].source_dsn, move->publication,
                           move->dbs[i].slot};
    cut->fence = fence_open(&conf, err);
    return cut->fence != NULL;
}

static bool open_targets(Cutover *cut, Err *err)
{
    Move *move = cut->move;

    cut->targets = arena_array(&move->arena, Pg, move->db_count + 1);
    for (size_t i = 0; i < move->db_count; i++) {
        bool closed;

        if (!move_target(move, &move->dbs[i], &cut->targets[i], err) ||
            !quiet_is_closed(&cut->targets[i], move->dbs[i].name, &closed, err))
            return false;
        if (!closed && !move->conf->dry_run) {
            err_fail(err, ERR_STATE,
                     "database %s on the target takes writes: it was opened by hand",
                     move->dbs[i].name);
            return err_hint(
                err,
                "ALTER DATABASE … SET default_transaction_read_only = on, end the sessions, verify again");
        }
    }
    return true;
}

static bool look_at_sequences(Cutover *cut, size_t *count, Err *err)
{
    *count = 0;
    for (size_t i = 0; i < cut->move->db_count; i++) {
        SequencesResult result = {0};

        if (!sequences_run(fence_side(cut->fence, i), &cut->targets[i], cut->move->dbs[i].name,
                           false, &result, err))
            return err_context(err, "sequences of %s", cut->move->dbs[i].name);
        *count += result.count;
        sequences_free(&result);
    }
    return true;
}

/* A marker without a fence: how long the way from the source's WAL to the target takes now.
 * Repeated until it would fit into the window with room to spare: an age of the lag says nothing
 * about one big transaction that is still on its way. */
static bool rehearse_drain(Cutover *cut, uint64_t *took_us, Err *err)
{
    Move *move = cut->move;
    FollowWait wait = {
        .stop = move->stop, .what = "rehearsing the drain", .tick = bridge_show, .self = move};
    uint64_t enough_us = move->conf->cutover_timeout * 1000 / 4;

    wait.deadline_ms = mono_ms() + READY_MS + move->conf->cutover_timeout;
    do {
        uint64_t begun = mono_us();

        if (!fence_mark(cut->fence, "rehearsal", cut->ends, err) ||
            !follow_wait_applied(move->follow, cut->ends, &wait, err))
            return false;
        *took_us = mono_us() - begun;
    } while (*took_us > enough_us && mono_ms() < wait.deadline_ms);
    return true;
}

static bool ready(Cutover *cut, Err *err)
{
    Move *move = cut->move;
    FollowWait wait = {
        .stop = move->stop, .what = "waiting for the lag limit", .tick = bridge_show, .self = move};
    uint64_t most_us = move->conf->cutover_max_lag * 1000;
    uint64_t drain_us;
    uint64_t sequences_us;
    uint64_t predicted_us;
    size_t sequences;
    size_t tables;
    const char *about;

    wait.deadline_ms = mono_ms() + READY_MS + move->conf->cutover_timeout;
    if (!follow_wait_lag(move->follow, most_us ? most_us : 1000, &wait, err) ||
        !switch_check(move->mover, &move->ends, &about, err) || !open_fence(cut, err) ||
        !fence_check(cut->fence, &tables, err) || !open_targets(cut, err) ||
        !definitions_check(move, err))
        return false;
    sequences_us = mono_us();
    if (!look_at_sequences(cut, &sequences, err))
        return false;
    sequences_us = mono_us() - sequences_us;
    if (!rehearse_drain(cut, &drain_us, err))
        return false;
    /* Two drains, each with a flush behind it, sequences twice, and what closing, opening and
     * switching take. */
    predicted_us = 3 * drain_us + 2 * sequences_us + 150000;
    log_info("ready for the cut-over", F_U64("tables", tables), F_U64("sequences", sequences),
             F_STR("switch", about), F_MS("drain_ms", (double)drain_us / 1000),
             F_MS("sequences_ms", (double)sequences_us / 1000),
             F_MS("predicted_ms", (double)predicted_us / 1000));
    return move_put_u64(move, "", "predicted_us", predicted_us, err);
}

/* the window
 * --------------------------------------------------------------------------------------------------
 */

static uint64_t count_changes(Cutover *cut)
{
    uint64_t changes = 0;

    for (size_t i = 0; i < follow_count(cut->move->follow); i++)
        changes += follow_status(cut->move->follow, i).changes;
    return changes;
}

static bool block(Cutover *cut, Err *err)
{
    crash_point("cutover-fence");
    if (!fence_lock(cut->fence, &cut->locks, err))
        return false;
    cut->step_us = cut->locks.asked_us;
    cut->deadline_ms = cut->locks.asked_us / 1000 + cut->move->conf->cutover_timeout;
    log_info("writes are blocked", F_U64("tables", cut->locks.tables),
             F_U64("attempts", cut->locks.attempts));
    step(cut, FENCE);
    return true;
}

/* The streams commit asynchronously; one synchronous commit behind them puts all of that on the
 * target's disk. */
static bool flush_target(Cutover *cut, Err *err)
{
    return pg_exec(&cut->targets[0], "set synchronous_commit = on", err) &&
           pg_exec(&cut->targets[0], "select txid_current()", err);
}

static bool drain(Cutover *cut, Err *err)
{
    FollowWait wait = waiting(cut, "draining to the end position");

    crash_point("cutover-drain");
    if (!fence_mark(cut->fence, cut->move->id, cut->ends, err) ||
        !follow_wait_applied(cut->move->follow, cut->ends, &wait, err) || !flush_target(cut, err))
        return false;
    step(cut, DRAIN);
    return true;
}

static bool keep_sequences(Move *move, const MoveDb *db, const char *key, SequencesResult *result,
                           Err *err)
{
    AUTO_BUF json;

    buf_init(&json, MIB(64));
    sequences_json(result, &json);
    return buf_ok(&json, "the list of sequences", err) &&
           move_put(move, db->name, key, buf_str(&json), err);
}

static bool sync_sequences(Cutover *cut, const char *key, Err *err)
{
    Move *move = cut->move;

    for (size_t i = 0; i < move->db_count; i++) {
        SequencesResult result = {0};
        bool ok = sequences_run(fence_side(cut->fence, i), &cut->targets[i], move->dbs[i].name,
                                true, &result, err);

        if (ok && result.different)
            ok = err_fail(err, ERR_DIFFERENT, "%zu sequences differ after they were set",
                          result.different);
        ok = ok && keep_sequences(move, &move->dbs[i], key, &result, err);
        sequences_free(&result);
        if (!ok)
            return err_context(err, "sequences of %s", move->dbs[i].name);
    }
    return in_time(cut, "sequences", err);
}

/* The intent comes first: after a kill the next run knows that it has to open the databases again.
 */
static bool close_source(Cutover *cut, Err *err)
{
    uint64_t now = mono_ms();

    if (!move_put(cut->move, "", "cutover", "closing", err))
        return false;
    cut->closed = true;
    wall_text(wall_us(), cut->since);
    cut->since[10] = ' '; /* as the server's log writes it */
    crash_point("cutover-close");
    if (!fence_shut(cut->fence, err))
        return false;
    crash_point("cutover-closed");
    if (!fence_evict(cut->fence, cut->deadline_ms > now ? cut->deadline_ms - now : 0, &cut->ended,
                     &cut->who, err) ||
        !fence_no_prepared(cut->fence, err))
        return false;
    step(cut, CLOSE);
    return true;
}

/* Under locks nothing could commit; that nothing did is seen in the streams themselves, up to a
 * second marker. What they had applied was counted a step after the first, when their figures had
 * come in. */
static bool prove(Cutover *cut, Err *err)
{
    FollowWait wait = waiting(cut, "proving the end position");
    uint64_t changes;

    crash_point("cutover-prove");
    if (!fence_mark(cut->fence, cut->move->id, cut->ends_proved, err) ||
        !follow_wait_applied(cut->move->follow, cut->ends_proved, &wait, err) ||
        !flush_target(cut, err))
        return false;
    changes = count_changes(cut) - cut->changes; /* the markers themselves are one each */
    if (changes > cut->move->db_count)
        return err_fail(err, ERR_STATE,
                        "%" PRIu64
                        " changes were committed behind the end position, in spite of the fence",
                        changes - cut->move->db_count);
    if (!sync_sequences(cut, "sequences_again", err))
        return false;
    step(cut, PROVE);
    return true;
}

/* What the window was made of, once nobody waits any more. */
static bool keep_window(Cutover *cut, Err *err)
{
    Move *move = cut->move;

    for (size_t i = 0; i < move->db_count; i++)
        if (!move_put_lsn(move, move->dbs[i].name, "end", cut->ends[i], err) ||
            !move_put_lsn(move, move->dbs[i].name, "end_proved", cut->ends_proved[i], err) ||
            !audit_add(move->audit, err, "end position", F_STR("database", move->dbs[i].name),
                       F_LSN("end", cut->ends[i]), F_LSN("proved_to", cut->ends_proved[i])))
            return false;
    return move_put(move, "", "old_address",
                    arena_printf(&move->arena, "%s:%u",
                                 move->ends.old_host ? move->ends.old_host : "local",
                                 move->ends.old_port),
                    err) &&
           move_put(move, "", "new_address",
                    arena_printf(&move->arena, "%s:%u",
                                 move->ends.new_host ? move->ends.new_host : "local",
                                 move->ends.new_port),
                    err) &&
           move_put_u64(move, "", "fence_attempts", cut->locks.attempts, err) &&
           move_put_u64(move, "", "fence_tables", cut->locks.tables, err) &&
           move_put_u64(move, "", "sessions_ended", cut->ended, err) &&
           move_put(move, "", "fenced", cut->who.len ? buf_str(&cut->who) : "nobody was connected",
                    err) &&
           audit_add(move->audit, err, "source closed", F_U64("sessions_ended", cut->ended),
                     F_SPAN("who", buf_span(&cut->who))) &&
           keep_steps(cut, FENCE, SWITCH, err);
}

/* open, switch
 * ------------------------------------------------------------------------------------------------
 */

static bool undos_of(Move *move, const MoveDb *db, const char ***undos, size_t *count, Err *err)
{
    uint64_t all;
    char key[32];

    if (!move_get_u64(move, db->name, "undos", &all, err))
        return false;
    *count = all;
    *undos = arena_array(&move->arena, const char *, all + 1);
    for (size_t i = 0; i < all; i++) {
        snprintf(key, sizeof(key), "undo.%05zu", i);
        if (!move_get(move, db->name, key, &(*undos)[i], err))
            return false;
        if (!(*undos)[i])
            return err_fail(err, ERR_STATE, "the journal lacks %s of %s", key, db->name);
    }
    return true;
}

static bool open_target(Move *move, Pg *targets, Err *err)
{
    for (size_t i = 0; i < move->db_count; i++) {
        const char **undos;
        size_t count;

        if (!undos_of(move, &move->dbs[i], &undos, &count, err) ||
            !quiet_open(&targets[i], move->dbs[i].name, undos, count, err))
            return false;
        crash_point("cutover-opened-one");
    }
    return true;
}

static bool move_clients(Move *move, Err *err)
{
    crash_point("cutover-switch");
    return switch_move(move->mover, &move->ends, err);
}

/* Everybody who is still there or came back, until it has been quiet for a while. */
static bool watch_old_side(Cutover *cut, Err *err)
{
    uint64_t until = mono_ms() + cut->move->conf->cutover_watch;
    AUTO_BUF who;
    unsigned late = 0;

    buf_init(&who, 8192);
    while (mono_ms() < until && !stop_wait(cut->move->stop, 100)) {
        unsigned found;

        if (!fence_watch(cut->fence, &found, &who, err))
            return false;
        late += found;
    }
    if (late)
        log_warn("late sessions on the old side were ended", F_U64("sessions", late),
                 F_STR("who", buf_str(&who)));
    return move_put_u64(cut->move, "", "late_sessions", late, err) &&
           move_put(cut->move, "", "late_who", who.len ? buf_str(&who) : "", err);
}

/* Who still knocks at the old door. The log is AWS's to give; when it doesn't, that is no reason to
 * fail. */
static bool count_refused(Cutover *cut, Err *err)
{
    Move *move = cut->move;
    RdsLogFiles logs;
    AUTO_BUF text;
    AUTO_BUF who;
    uint64_t count = 0;
    Err ignored = ERR_INIT;

    buf_init(&text, MIB(256));
    buf_init(&who, 8192);
    if (!move->aws || !move->source)
        return true;
    if (!rds_list_logs(move->aws, move->source->name, "postgres", &move->arena, &logs, &ignored) ||
        logs.count == 0)
        return true;
    for (size_t i = 1; i < logs.count; i++)
        if (logs.at[i].last_written > logs.at[0].last_written)
            logs.at[0] = logs.at[i];
    if (!rds_download_log(move->aws, move->source->name, logs.at[0].name, &text, &ignored)) {
        log_err(LOG_LEVEL_WARN, "the old side's log can't be read", &ignored);
        return true;
    }
    refused_of_log(buf_span(&text), cut->since, &count, &who);
    log_info("logins refused by the old side since it was closed", F_U64("logins", count),
             F_SPAN("who", buf_span(&who)));
    return move_put_u64(move, "", "refused_logins", count, err) &&
           move_put(move, "", "refused_who", who.len ? buf_str(&who) : "", err);
}

static bool undo(Cutover *cut, Err *err)
{
    const char **names = arena_array(&cut->move->arena, const char *, cut->move->db_count + 1);
    Err why = ERR_INIT;

    for (size_t i = 0; i < cut->move->db_count; i++)
        names[i] = cut->move->dbs[i].name;
    if (cut->closed &&
        !fence_reopen(cut->move->source_maintenance, names, cut->move->db_count, &why)) {
        log_err(LOG_LEVEL_ERROR, "the source could not be opened again: run keybridge cleanup",
                &why);
        return err_context(err, "the source is still closed (%s)", why.text);
    }
    if (cut->fence)
        fence_unlock(cut->fence);
    if (cut->locks.asked_us)
        log_warn("cutover undone: the source takes writes again",
                 F_MS("blocked_ms", (double)(mono_us() - cut->locks.asked_us) / 1000));
    if (cut->closed && !put_state(cut->move, "undone", &why))
        log_err(LOG_LEVEL_WARN, "the journal can't be written", &why);
    return false;
}

static bool window(Cutover *cut, Err *err)
{
    if (!block(cut, err) || !drain(cut, err) || !sync_sequences(cut, "sequences", err))
        return false;
    cut->changes = count_changes(cut);
    step(cut, SEQUENCES);
    return close_source(cut, err) && prove(cut, err) && in_time(cut, "opening", err);
}

/* Not undone any more: the journal says "opening" before the first database is opened. */
static bool go_over(Cutover *cut, Err *err)
{
    Move *move = cut->move;
    uint64_t blocked;
    char now[WALL_TEXT];

    if (!move_put(move, "", "cutover", "opening", err))
        return undo(cut, err);
    crash_point("cutover-opening");
    if (!open_target(move, cut->targets, err)) {
        err_hint(err,
                 "the old side is fenced and the new side is being opened: run again to finish");
        return false;
    }
    step(cut, OPEN);
    if (!move_clients(move, err))
        return err_hint(err,
                        "the old side is fenced and the new side is open: run again to finish");
    step(cut, SWITCH);
    blocked = mono_us() - cut->locks.asked_us;
    log_info("writes flow again, on the new side", F_MS("blocked_ms", (double)blocked / 1000));
    if (!move_put_u64(move, "", "blocked_us", blocked, err) ||
        !move_put(move, "", "blocked_from", wall_text(wall_us() - blocked, now), err) ||
        !move_put(move, "", "switched_at", wall_text(wall_us(), now), err) ||
        !put_state(move, "switched", err) || !keep_window(cut, err) ||
        !switch_settle(move->mover, err))
        return false;
    follow_stop(move->follow); /* or its connections would be taken for late writers */
    move->follow = NULL;
    step(cut, SETTLE);
    if (!watch_old_side(cut, err) || !count_refused(cut, err))
        return false;
    step(cut, WATCH);
    return keep_steps(cut, SETTLE, WATCH, err) && put_state(move, "done", err);
}

static void close_all(Cutover *cut)
{
    fence_close(cut->fence);
    for (size_t i = 0; cut->targets && i < cut->move->db_count; i++)
        pg_close(&cut->targets[i]);
}

bool cutover_run(Move *move, Err *err)
{
    Cutover cut ON_EXIT(free_who) = {.move = move, .step_us = mono_us()};
    bool ok;

    cut.ends = arena_array(&move->arena, uint64_t, move->db_count + 1);
    cut.ends_proved = arena_array(&move->arena, uint64_t, move->db_count + 1);
    buf_init(&cut.who, 8192);

    move->phase = "cutover";
    ok = ready(&cut, err);
    if (ok && !move->conf->dry_run)
        ok = window(&cut, err) ? go_over(&cut, err) : undo(&cut, err);
    close_all(&cut);
    return ok || err_context(err, "cutover");
}

/* after a kill
 * -------------------------------------------------------------------------------------------------
 */

static bool source_is_closed(Move *move, Err *err)
{
    AUTO_PG pg = {0};

    if (!move_source(move, NULL, &pg, err))
        return false;
    for (size_t i = 0; i < move->db_count; i++) {
        AUTO_RESULT res = pg_rows(
            &pg, err, "select datallowconn from pg_database where datname = $1", move->dbs[i].name);

        if (!res)
            return false;
        if (PQntuples(res) == 1 && PQgetvalue(res, 0, 0)[0] == 't') {
            err_fail(
                err, ERR_STATE,
                "database %s of the source takes connections again although the cut-over was past its end",
                move->dbs[i].name);
            return err_hint(err,
                            "somebody opened it: find out what was written there before going on");
        }
    }
    return true;
}

bool cutover_forward(Move *move, Err *err)
{
    Pg *targets = arena_array(&move->arena, Pg, move->db_count + 1);
    bool ok = true;

    move->phase = "cutover";
    log_info("finishing a cut-over that was interrupted");
    ok = source_is_closed(move, err);
    for (size_t i = 0; ok && i < move->db_count; i++)
        ok = move_target(move, &move->dbs[i], &targets[i], err);
    ok = ok && open_target(move, targets, err) && move_clients(move, err) &&
         put_state(move, "switched", err) && switch_settle(move->mover, err) &&
         put_state(move, "done", err);
    for (size_t i = 0; i < move->db_count; i++)
        pg_close(&targets[i]);
    return ok || err_context(err, "cutover");
}

bool cutover_undo(Move *move, Err *err)
{
    const char **names = arena_array(&move->arena, const char *, move->db_count + 1);
    const char *state;

    if (!move_get(move, "", "cutover", &state, err))
        return false;
    if (!state || strcmp(state, "closing") != 0)
        return true;
    log_info("taking back an interrupted cut-over: the source takes connections again");
    for (size_t i = 0; i < move->db_count; i++)
        names[i] = move->dbs[i].name;
    return fence_reopen(move->source_maintenance, names, move->db_count, err) &&
           put_state(move, "undone", err);
}
