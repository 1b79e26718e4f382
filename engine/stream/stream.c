/* The supervisor: tries again what may heal by itself, and is the only one here who logs errors. */
#include "engine/stream/stream.h"

#include <sys/random.h>

#include "engine/base/log.h"
#include "engine/base/mono.h"
#include "engine/stream/relaying.h"

#define FIRST_WAIT_MS    200
#define LONGEST_WAIT_MS  30000
#define FIRST_CONTACT_MS 5000 /* a host that was never reached is rather misspelt than down */
#define SPOOL_MEMORY     MIB(8)
#define RELAY_DIR_MOST   4096

static char *copy_of(const char *text)
{
    char *copy = strdup(text ? text : "");

    if (!copy)
        abort();
    return copy;
}

static void wipe(const char *secret)
{
    union {
        const char *given;
        void *ours;
    } at = {secret};

    if (!secret)
        return;
    explicit_bzero(at.ours, strlen(secret));
    free(at.ours);
}

void stream_put_relay_json(Buf *out, const StreamStatus *s)
{
    buf_printf(
        out, "{\"active\":%s,\"bytes\":%" PRIu64 ",\"segments\":%" PRIu64 ",\"oldest\":\"%X/%X\"}",
        s->relaying ? "true" : "false", s->relay_bytes, s->relay_segments,
        LSN_ARGS(s->relay_oldest.at));
}

void stream_relay_dir(const char *spool_dir, const char *slot, char *out, size_t size)
{
    snprintf(out, size, "%s/relay-%s", spool_dir, slot);
}

Stream *stream_new(const StreamConf *conf, Err *err)
{
    Stream *stream;

    if (!conf->source_dsn || !*conf->source_dsn || !conf->target_dsn || !*conf->target_dsn) {
        err_fail(err, ERR_USAGE, "%s isn't given",
                 conf->source_dsn && *conf->source_dsn ? "--target" : "--source");
        err_hint(
            err,
            "a connection string: postgres://user@host:5432/database; also KEYBRIDGE_SOURCE and KEYBRIDGE_TARGET");
        return NULL;
    }
    stream = calloc(1, sizeof(*stream));
    if (!stream)
        abort();
    stream->conf = *conf;
    stream->conf.name = copy_of(conf->name);
    stream->conf.source_dsn = copy_of(conf->source_dsn);
    stream->conf.target_dsn = copy_of(conf->target_dsn);
    stream->conf.slot = copy_of(conf->slot);
    stream->conf.publication = copy_of(conf->publication);
    stream->conf.skip_txns = copy_of(conf->skip_txns);
    stream->conf.spool_dir =
        copy_of(conf->spool_dir && *conf->spool_dir ? conf->spool_dir : "keybridge-state/spool");
    stream->relay_dir = malloc(RELAY_DIR_MOST);
    if (!stream->relay_dir)
        abort();
    stream_relay_dir(stream->conf.spool_dir, conf->slot, stream->relay_dir, RELAY_DIR_MOST);
    stream->until = conf->until;
    stream->watch.disk_free = conf->source_disk_free;
    pthread_mutex_init(&stream->lock, NULL);
    stream->spool = spool_dir_open(stream->conf.spool_dir, SPOOL_MEMORY, err);
    if (!stream->spool) {
        stream_free(stream);
        return NULL;
    }
    return stream;
}

void stream_free(Stream *stream)
{
    if (!stream)
        return;
    relaying_close(stream, POSITION_NONE);
    spool_dir_close(stream->spool);
    wipe(stream->conf.name);
    wipe(stream->conf.source_dsn);
    wipe(stream->conf.target_dsn);
    wipe(stream->conf.slot);
    wipe(stream->conf.publication);
    wipe(stream->conf.skip_txns);
    wipe(stream->conf.spool_dir);
    free(stream->relay_dir);
    free(stream->system);
    free(stream->database);
    pthread_mutex_destroy(&stream->lock);
    free(stream);
}

Position stream_until(Stream *stream)
{
    Position until;

    pthread_mutex_lock(&stream->lock);
    until = stream->until;
    pthread_mutex_unlock(&stream->lock);
    return until;
}

void stream_set_until(Stream *stream, Position until)
{
    pthread_mutex_lock(&stream->lock);
    stream->until = until;
    pthread_mutex_unlock(&stream->lock);
}

void stream_set_phase(Stream *stream, StreamPhase phase)
{
    pthread_mutex_lock(&stream->lock);
    stream->status.phase = phase;
    pthread_mutex_unlock(&stream->lock);
}

StreamStatus stream_status(const Stream *stream)
{
    union {
        const Stream *given;
        Stream *locked;
    } at = {stream};
    StreamStatus status;

    pthread_mutex_lock(&at.locked->lock);
    status = stream->status;
    pthread_mutex_unlock(&at.locked->lock);
    return status;
}

/* Full jitter on the upper half: many streams of one instance must not come back all at once. */
static unsigned next_wait(unsigned *wait_ms)
{
    unsigned now = *wait_ms;
    uint32_t dice = 0;

    if (getrandom(&dice, sizeof(dice), 0) < 0)
        dice = (uint32_t)mono_us();
    *wait_ms = now * 2 > LONGEST_WAIT_MS ? LONGEST_WAIT_MS : now * 2;
    return now / 2 + dice % (now / 2 + 1);
}

typedef struct Supervisor {
    unsigned wait_ms;
    uint64_t good_ms; /* when it last worked, or began */
    bool ever;
} Supervisor;

static bool is_hopeless(const Supervisor *self, const Stream *stream, const Err *err)
{
    uint64_t since = mono_ms() - self->good_ms;

    if (!err->transient)
        return true;
    if (!self->ever && strncmp(err->code, "08", 2) == 0 && since > FIRST_CONTACT_MS)
        return true;
    return stream->conf.retry_most_s && since > stream->conf.retry_most_s * UINT64_C(1000);
}

static void count_reconnect(Stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    stream->status.reconnects++;
    stream->status.phase = STREAM_WAITING;
    pthread_mutex_unlock(&stream->lock);
}

/* True: try again. */
static bool after_failure(Supervisor *self, Stream *stream, const Stop *stop, const SessionEnd *end,
                          Err *err)
{
    unsigned wait;

    if (end->advanced || (end->streamed && !self->ever)) {
        self->good_ms = mono_ms();
        self->wait_ms = FIRST_WAIT_MS;
    }
    self->ever |= end->streamed || stream->receiver;
    if (err->kind == ERR_STOPPED)
        return false;
    if (is_hopeless(self, stream, err)) {
        if (err->transient && self->ever)
            err_context(err, "given up after %" PRIu64 " s without success",
                        (mono_ms() - self->good_ms) / 1000);
        return false;
    }
    wait = next_wait(&self->wait_ms);
    log_err(LOG_LEVEL_WARN, "stream interrupted", err);
    if (relaying_is_due(stream, err)) {
        err_clear(err);
        if (!relaying_begin(stream, stream->durable, err))
            return false;
    }
    log_info("trying again", F_MS("in_ms", wait));
    count_reconnect(stream);
    if (stop_wait(stop, wait))
        return stop_fail(err, "waiting to connect again");
    err_clear(err);
    return true;
}

bool stream_run(Stream *stream, const Stop *stop, Err *err)
{
    Supervisor self = {.wait_ms = FIRST_WAIT_MS, .good_ms = mono_ms()};
    bool done;

    log_thread(stream->conf.name);
    for (;;) {
        SessionEnd end;
        uint64_t began_ms = mono_ms();

        stream_set_phase(stream, STREAM_CONNECTING);
        done = session_run(stream, stop, &end, err);
        if (done)
            break;
        /* A stream that stood for a while was good until a moment ago, even if there was nothing to
         * do. */
        if (end.streamed && mono_ms() - began_ms > LONGEST_WAIT_MS)
            end.advanced = true;
        if (!after_failure(&self, stream, stop, &end, err))
            break;
    }
    relaying_close(stream, stream->durable);
    stream_set_phase(stream, STREAM_ENDED);
    log_thread(NULL);
    return done;
}
