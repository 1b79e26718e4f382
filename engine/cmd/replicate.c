/* keybridge replicate: engine/stream for people and scripts. */
#include <pthread.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/base/mono.h"
#include "engine/cmd/cmd.h"
#include "engine/move/preflight.h"
#include "engine/stream/stream.h"

#define LIVE_MS 250
#define LOG_MS  5000

static const char *phase_text(StreamPhase phase)
{
    static const char *const texts[] = {
        [STREAM_CONNECTING] = "connecting", [STREAM_CATCHING_UP] = "catching up",
        [STREAM_FOLLOWING] = "following",   [STREAM_WAITING] = "waiting to connect again",
        [STREAM_ENDED] = "ended",
    };

    return texts[phase];
}

static void put_bytes(char out[32], uint64_t bytes)
{
    if (bytes < MIB(1))
        snprintf(out, 32, "%.0f KiB", (double)bytes / 1024);
    else if (bytes < MIB(1024))
        snprintf(out, 32, "%.1f MiB", (double)bytes / 1048576);
    else
        snprintf(out, 32, "%.1f GiB", (double)bytes / 1073741824);
}

static void show_live(const StreamStatus *s)
{
    char line[400], behind[32], spool[32], relay[32];

    put_bytes(behind, s->lag_bytes);
    put_bytes(spool, s->spool_bytes);
    put_bytes(relay, s->relay_bytes);
    snprintf(line, sizeof(line),
             "%s at %X/%X, %s and %.1f s behind, %.0f transactions/s, %.0f changes/s%s%s%s%s",
             phase_text(s->phase), LSN_ARGS(s->applied_end.at), behind, (double)s->lag_us / 1e6,
             s->transactions_per_s, s->changes_per_s, s->spool_bytes ? ", spool " : "",
             s->spool_bytes ? spool : "", s->relay_bytes ? ", relay log " : "",
             s->relay_bytes ? relay : "");
    log_progress(line);
}

static void show_logged(const StreamStatus *s)
{
    log_info("progress", F_STR("phase", phase_text(s->phase)), F_LSN("applied", s->applied_end.at),
             F_LSN("durable", s->durable_end.at), F_U64("lag_bytes", s->lag_bytes),
             F_U64("lag_ms", s->lag_us / 1000), F_U64("transactions", s->transactions),
             F_U64("changes", s->changes), F_U64("per_s", (uint64_t)s->transactions_per_s),
             F_U64("spool_bytes", s->spool_bytes), F_BOOL("relaying", s->relaying),
             F_U64("relay_bytes", s->relay_bytes), F_U64("reconnects", s->reconnects),
             F_STR("wal_status", s->slot.wal_status), F_U64("retained_bytes", s->slot.retained));
}

typedef struct Watcher {
    Stream *stream;
    Stop ended;
    const char *source_dsn; /* secret */
    pthread_t thread;
} Watcher;

/* Told once, and no reason to stop: the stream itself says what is wrong with the source. */
static void tell_uncarried(const Watcher *w)
{
    PgOptions options = {.stop = &w->ended};
    AUTO_PG pg = {0};
    Arena arena ON_EXIT(arena_fini);
    Findings findings = {.arena = &arena};
    Err err = ERR_INIT;

    arena_init(&arena, KIB(16));
    if (!pg_open(&pg, w->source_dsn, ERR_SOURCE, &options, &err) ||
        !preflight_uncarried(&pg, &findings, &err))
        log_debug("what the stream doesn't carry isn't known", F_STR("error", err.text));
    for (const Finding *f = findings.first; f; f = f->next)
        log_info("not carried by the stream", F_STR("what", f->check), F_STR("finding", f->text));
}

static void *watch(void *self)
{
    Watcher *w = self;
    bool live = isatty(STDERR_FILENO);

    tell_uncarried(w);
    while (!stop_wait(&w->ended, live ? LIVE_MS : LOG_MS)) {
        StreamStatus status = stream_status(w->stream);

        if (live)
            show_live(&status);
        else
            show_logged(&status);
    }
    log_progress(NULL);
    return NULL;
}

static bool run_watched(Stream *stream, const char *source_dsn, const Stop *stop, Err *err)
{
    Watcher w = {.stream = stream, .source_dsn = source_dsn};
    bool done;
    int failed;

    if (!stop_init(&w.ended, err))
        return false;
    failed = pthread_create(&w.thread, NULL, watch, &w);
    if (failed) {
        stop_fini(&w.ended);
        return err_fail(err, ERR_SYSTEM, "starting a thread: %s", strerrordesc_np(failed));
    }
    done = stream_run(stream, stop, err);
    stop_request(&w.ended);
    pthread_join(w.thread, NULL);
    stop_fini(&w.ended);
    return done;
}

static void print_text(const StreamConf *conf, const StreamStatus *s, double seconds)
{
    printf("slot          %s\n", conf->slot);
    printf("start         %X/%X\n", LSN_ARGS(s->began.at));
    printf("end           %X/%X, durable on the target\n", LSN_ARGS(s->durable_end.at));
    printf("transactions  %" PRIu64 "\n", s->transactions);
    printf("changes       %" PRIu64 "\n", s->changes);
    if (s->skipped)
        printf("skipped       %" PRIu64 ", see keybridge.dead_letter on the target\n", s->skipped);
    printf("seconds       %.1f\n", seconds);
    printf("format        %s\n", s->binary ? "binary" : "text");
}

static void print_json(const StreamConf *conf, const StreamStatus *s, double seconds)
{
    AUTO_BUF out;

    buf_init(&out, KIB(16));
    buf_puts(&out, "{\"slot\":");
    buf_put_json(&out, span_str(conf->slot));
    buf_printf(&out, ",\"start\":\"%X/%X\",\"end\":\"%X/%X\"", LSN_ARGS(s->began.at),
               LSN_ARGS(s->durable_end.at));
    buf_printf(&out, ",\"transactions\":%" PRIu64 ",\"changes\":%" PRIu64 ",\"bytes\":%" PRIu64,
               s->transactions, s->changes, s->bytes);
    buf_printf(&out,
               ",\"seconds\":%.3f,\"format\":\"%s\",\"reconnects\":%" PRIu64 ",\"skipped\":%" PRIu64
               ",\"slot_state\":",
               seconds, s->binary ? "binary" : "text", s->reconnects, s->skipped);
    slotstate_put_json(&out, &s->slot);
    buf_puts(&out, ",\"relay\":");
    stream_put_relay_json(&out, s);
    buf_puts(&out, "}\n");
    fputs(buf_str(&out), stdout);
}

static bool parse_option(const char *name, const char *text, Position *position, Err *err)
{
    if (!text)
        return true;
    if (!lsn_parse(span_str(text), &position->at, err))
        return err_context(err, "--%s", name);
    /* PostgreSQL's own sign for "none": a script that passes it has lost its position. */
    return position->at != 0 || err_fail(err, ERR_USAGE, "--%s: %s is no position", name, text);
}

/* False: a value can't be right. */
static bool fill(StreamConf *stream, const Conf *conf, const char *spool_dir, Err *err)
{
    *stream = (StreamConf){
        .name = conf->slot,
        .source_dsn = conf->source,
        .target_dsn = conf->target,
        .slot = conf->slot,
        .publication = conf->publication,
        .lanes = (unsigned)conf->lanes,
        .batch_changes = conf->batch_changes,
        .batch_bytes = conf->batch_bytes,
        .txn_memory = conf->spool_memory,
        .spool_dir = spool_dir,
        .relay_after_ms = (unsigned)conf->relay_after,
        .relay_most = conf->relay_limit,
        .stop_at_ddl = strcmp(conf->ddl, "stop") == 0,
        .skip_failed = conf->skip_failed,
        .source_disk_free = conf->source_disk_free,
        .skip_txns = conf->skip_txn,
        .retry_most_s = (unsigned)((conf->retry + 999) / 1000),
    };
    return parse_option("ddl-applied", conf->ddl_applied, &stream->ddl_applied, err) &&
           parse_option("start-lsn", conf->start_lsn, &stream->start, err) &&
           parse_option("until-lsn", conf->until_lsn, &stream->until, err);
}

static bool tell_skipped(uint64_t count, Err *err)
{
    err_fail(err, ERR_DIFFERENT, "%" PRIu64 " transaction%s couldn't be applied and %s skipped",
             count, count == 1 ? "" : "s", count == 1 ? "was" : "were");
    return err_hint(
        err, "the target lacks what they changed: see keybridge.dead_letter there, repair the "
             "rows by hand, then run keybridge verify");
}

static bool run(const Conf *conf, const Stop *stop, int argc, char **argv, Err *err)
{
    char spool_dir[4096];
    StreamConf stream_conf;
    uint64_t began_us = mono_us();
    Stream *stream;
    StreamStatus status;
    double seconds;

    (void)argv;
    if (argc > 1)
        return command_misused(&cmd_replicate, err);
    if (conf->spool_dir)
        snprintf(spool_dir, sizeof(spool_dir), "%s", conf->spool_dir);
    else
        snprintf(spool_dir, sizeof(spool_dir), "%s/spool", conf->state_dir);
    if (!fill(&stream_conf, conf, spool_dir, err))
        return false;
    stream = stream_new(&stream_conf, err);
    if (!stream)
        return false;
    if (!run_watched(stream, conf->source, stop, err)) {
        stream_free(stream);
        return false;
    }
    status = stream_status(stream);
    seconds = (double)(mono_us() - began_us) / 1e6;
    if (conf->json)
        print_json(&stream_conf, &status, seconds);
    else
        print_text(&stream_conf, &status, seconds);
    stream_free(stream);
    return status.skipped == 0 || tell_skipped(status.skipped, err);
}

const Command cmd_replicate = {
    .name = "replicate",
    .summary = "only the stream: apply what the source commits, from a slot to the target",
    .about =
        "Reads a logical replication slot of the source and applies every committed transaction to the target once, "
        "whatever is killed and restarted meanwhile. Slot and publication must exist; the target holds a copy of the "
        "source as of the slot's position or --start-lsn. Progress is kept on the target in the schema keybridge, so "
        "that a later run goes on where this one was.\n"
        "With --until-lsn it ends with 0 once everything committed up to that position is durable on the target; "
        "otherwise it runs until SIGINT or SIGTERM, which end it with 130 and lose nothing. It ends with 1 when "
        "transactions were skipped (--apply-skip-failed, --skip-txn).",
    .sections =
        "source target tls stream.slot stream.publication stream.start-lsn stream.until-lsn stream.ddl stream.ddl-applied "
        "apply spool relay state",
    .examples =
        "keybridge replicate --source postgres://old/app --target postgres://new/app --slot kb --publication kb\n"
        "keybridge replicate --source service=old --target service=new --until-lsn 16/B374D848 --json",
    .run = run,
};
