/* Drains a slot into nothing: what reading costs, on both sides.
 *
 *   pg_read SOURCE TARGET SLOT PUBLICATION UNTIL-LSN
 *
 * Its own apply half takes the batches and throws them away, so nothing is written anywhere. TARGET
 * is only asked for its types.
 */
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/base/mono.h"
#include "engine/stream/apply.h"
#include "engine/stream/stream.h"

struct Apply {
    Queue *queue;
    pthread_t thread;
    pthread_mutex_t lock;
    Position end;
    ApplyCounters counters;
};

static uint64_t read_big(ChangeReader *big)
{
    Arena arena;
    Change *change;
    Err err = ERR_INIT;
    uint64_t count = 0;

    arena_init(&arena, MIB(1));
    while (big->ops->next(big, &arena, &change, &err) && change) {
        count++;
        if (arena_bytes(&arena) > MIB(4))
            arena_reset(&arena);
    }
    if (err_is_set(&err))
        log_err(LOG_LEVEL_ERROR, "reading a big transaction", &err);
    arena_fini(&arena);
    return count;
}

static void *swallow(void *self)
{
    Apply *apply = self;
    Batch *batch;

    while ((batch = queue_pop(apply->queue))) {
        if (batch->first->big && read_big(batch->first->big) != batch->change_count)
            log_error("a big transaction has lost changes");
        pthread_mutex_lock(&apply->lock);
        apply->end = batch->last->end;
        apply->counters.batches++;
        apply->counters.transactions += batch->txn_count;
        apply->counters.changes += batch->change_count;
        pthread_mutex_unlock(&apply->lock);
        batch_free(batch);
    }
    return NULL;
}

Apply *apply_open(const ApplyConf *conf, const Stop *stop, Err *err)
{
    Apply *apply = calloc(1, sizeof(*apply));

    (void)stop, (void)err;
    if (!apply)
        abort();
    apply->queue = queue_new(conf->queue_batches);
    pthread_mutex_init(&apply->lock, NULL);
    pthread_create(&apply->thread, NULL, swallow, apply);
    return apply;
}

void apply_close(Apply *apply)
{
    if (!apply)
        return;
    queue_close(apply->queue);
    pthread_join(apply->thread, NULL);
    queue_free(apply->queue);
    free(apply);
}

bool apply_set_start(Apply *apply, Position start, Err *err)
{
    (void)apply, (void)start, (void)err;
    return true;
}

ApplyProgress apply_progress(const Apply *apply)
{
    (void)apply;
    return (ApplyProgress){0};
}

Queue *apply_queue(Apply *apply)
{
    return apply->queue;
}

bool apply_is_idle(const Apply *apply)
{
    return queue_count(apply->queue) == 0;
}

ApplyCounters apply_counters(const Apply *apply)
{
    return apply->counters;
}

Position apply_committed_end(const Apply *apply)
{
    return apply->end;
}

Position apply_durable_end(const Apply *apply)
{
    return apply->end; /* so the slot moves: give each run a copy of its own */
}

void apply_hurry(Apply *apply)
{
    (void)apply;
}

void apply_error(Apply *apply, Err *err)
{
    (void)apply;
    err_clear(err);
}

int main(int argc, char **argv)
{
    Err err = ERR_INIT;
    Stop stop;
    StreamConf conf = {.name = "bench",
                       .lanes = 1,
                       .batch_changes = 50000,
                       .batch_bytes = MIB(16),
                       .txn_memory = MIB(32)};
    char spool[] = "/tmp/keybridge-bench.XXXXXX";
    struct rusage used;
    uint64_t began = mono_us();
    StreamStatus status;
    Stream *stream;

    if (argc != 6) {
        fprintf(stderr, "usage: pg_read SOURCE TARGET SLOT PUBLICATION UNTIL-LSN\n");
        return 2;
    }
    if (!mkdtemp(spool))
        return 71;
    log_setup(LOG_LEVEL_WARN, LOG_FORMAT_AUTO);
    conf.source_dsn = argv[1];
    conf.target_dsn = argv[2];
    conf.slot = argv[3];
    conf.publication = argv[4];
    conf.spool_dir = spool;
    if (!lsn_parse(span_str(argv[5]), &conf.until.at, &err) || !stop_init(&stop, &err) ||
        !(stream = stream_new(&conf, &err)) || !stream_run(stream, &stop, &err)) {
        fprintf(stderr, "pg_read: %s\n", err.text);
        return err_exit_code(err.kind);
    }
    status = stream_status(stream);
    getrusage(RUSAGE_SELF, &used);
    printf("seconds=%.2f own_cpu=%.2f transactions=%" PRIu64 " changes=%" PRIu64
           " mib=%.1f rss_mib=%.0f\n",
           (double)(mono_us() - began) / 1e6,
           (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
               (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6,
           status.transactions, status.changes, (double)status.bytes / 1048576,
           (double)used.ru_maxrss / 1024);
    stream_free(stream);
    rmdir(spool);
    return 0;
}
