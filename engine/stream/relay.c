#include "engine/stream/relay.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/crash.h"
#include "engine/base/log.h"
#include "engine/stream/relay_impl.h"

#define BLOCK_BYTES   KIB(256)
#define QUEUE_BLOCKS  8
#define SEGMENT_BYTES MIB(64)
#define SEGMENT_LEAST KIB(256)
#define SUFFIX        ".kbr"

void relay_name(const Relay *r, uint64_t segment, char name[RELAY_NAME_MOST])
{
    snprintf(name, RELAY_NAME_MOST, "%s/%08" PRIu64 SUFFIX, r->dir, segment);
}

/* Segments; under lock */

RelaySegment *relay_segment_find(Relay *r, uint64_t number)
{
    for (size_t i = r->count; i-- > 0;)
        if (r->segments[i].number == number)
            return &r->segments[i];
    return NULL;
}

RelaySegment *relay_segment_add(Relay *r, uint64_t number, Position first)
{
    if (r->count == r->room) {
        r->room = r->room ? r->room * 2 : 16;
        r->segments = realloc(r->segments, r->room * sizeof(*r->segments));
        if (!r->segments)
            abort();
    }
    r->segments[r->count] = (RelaySegment){.number = number, .first = first};
    return &r->segments[r->count++];
}

/* Life */

Relay *relay_new(const RelayConf *conf)
{
    Relay *r = calloc(1, sizeof(*r));

    if (!r || !(r->dir = strdup(conf->dir)))
        abort();
    r->dir_fd = r->fd = -1;
    r->most = conf->most;
    r->segment_most = SEGMENT_BYTES;
    if (r->most && r->most / 8 < SEGMENT_BYTES)
        r->segment_most = size_max(r->most / 8, SEGMENT_LEAST);
    arena_init(&r->names, KIB(1));
    r->head.system = arena_strdup(&r->names, conf->system);
    r->head.slot = arena_strdup(&r->names, conf->slot);
    r->head.database = arena_strdup(&r->names, conf->database);
    buf_init(&r->block, SIZE_MAX / 4);
    buf_init(&r->packed, SIZE_MAX / 4);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    r->open_since = UINT64_MAX;
    r->queue = queue_new(QUEUE_BLOCKS);
    return r;
}

static void item_free(RelayItem *item)
{
    buf_fini(&item->plain);
    free(item);
}

void relay_free(Relay *r)
{
    while (r->left) {
        RelayItem *item = r->left;

        r->left = item->next;
        item_free(item);
    }
    if (r->fd >= 0)
        close(r->fd);
    if (r->dir_fd >= 0)
        close(r->dir_fd);
    queue_free(r->queue);
    relay_track_fini(&r->track);
    buf_fini(&r->block);
    buf_fini(&r->packed);
    free(r->segments);
    arena_fini(&r->names);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->changed);
    free(r->dir);
    free(r);
}

static bool folder_fail(const char *dir, const char *doing, Err *err)
{
    err_errno(err, ERR_SYSTEM, "%s the relay log's folder %s", doing, dir);
    return err_hint(err, "give a folder that can be written with --spool-dir");
}

/* So that a new name outlives a power cut. */
static bool sync_folder(const char *dir, Err *err)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool done = fd >= 0 && fsync(fd) == 0;

    if (!done)
        folder_fail(dir, "syncing", err);
    if (fd >= 0)
        close(fd);
    return done;
}

/* The one above is the spool's folder, which exists; its own name may be as new. */
static bool make_folder(Relay *r, Err *err)
{
    char above[RELAY_NAME_MOST];

    if (mkdir(r->dir, 0700) != 0 && errno != EEXIST)
        return folder_fail(r->dir, "making", err);
    snprintf(above, sizeof(above), "%s/..", r->dir);
    if (!sync_folder(above, err))
        return false;
    snprintf(above, sizeof(above), "%s/../..", r->dir);
    return sync_folder(above, err);
}

bool relay_open_folder(Relay *r, Err *err)
{
    r->dir_fd = open(r->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return r->dir_fd >= 0 || folder_fail(r->dir, "opening", err);
}

Relay *relay_create(const RelayConf *conf, const RelayFormat *format, Position begin, Err *err)
{
    Relay *r = relay_new(conf);

    r->head.encoding = arena_strdup(&r->names, format->encoding);
    r->head.protocol = format->protocol;
    r->head.binary = format->binary;
    r->head.begin = r->track.end = r->synced_end = r->written_end = begin;
    if (make_folder(r, err) && relay_open_folder(r, err))
        return r;
    relay_free(r);
    return NULL;
}

/* What a damaged or missing segment cut off. */
bool relay_tidy(const Relay *r, Err *err)
{
    uint64_t *numbers;
    size_t count;
    bool done = relay_list(r->dir, &numbers, &count, err);

    for (size_t i = 0; done && i < count; i++) {
        char name[RELAY_NAME_MOST];

        relay_name(r, numbers[i], name);
        if (r->count && numbers[i] < r->segments[0].number && unlink(name) != 0)
            done = folder_fail(r->dir, "tidying", err);
    }
    free(numbers);
    return done;
}

bool relay_start(Relay *r, Err *err)
{
    int failed;

    failed = pthread_create(&r->thread, NULL, relay_write_main, r);
    if (failed)
        return err_fail(err, ERR_SYSTEM, "starting a thread: %s", strerrordesc_np(failed));
    r->started = true;
    return true;
}

void relay_close(Relay *r)
{
    if (!r)
        return;
    relay_stop(r, true);
    relay_free(r);
}

/* Numbers of the segment files, sorted. */
static int by_number(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

bool relay_list(const char *dir, uint64_t **numbers, size_t *count, Err *err)
{
    DIR *folder = opendir(dir);
    size_t room = 0;

    *numbers = NULL;
    *count = 0;
    if (!folder)
        return errno == ENOENT || folder_fail(dir, "opening", err);
    for (struct dirent *e; (e = readdir(folder)) != NULL;) { /* NOLINT(concurrency-mt-unsafe) */
        char *end;
        uint64_t number = strtoull(e->d_name, &end, 10);

        if (end == e->d_name || strcmp(end, SUFFIX) != 0 || number == 0)
            continue;
        if (*count == room) {
            room = room ? room * 2 : 64;
            *numbers = realloc(*numbers, room * sizeof(**numbers));
            if (!*numbers)
                abort();
        }
        (*numbers)[(*count)++] = number;
    }
    closedir(folder);
    if (*count)
        qsort(*numbers, *count, sizeof(**numbers), by_number);
    return true;
}

/* Newest first: what is left after a kill is always a beginning, which no end is missing from that
 * anybody was told of after this. */
bool relay_remove(const char *dir, Err *err)
{
    uint64_t *numbers;
    size_t count;
    bool done = relay_list(dir, &numbers, &count, err);

    for (size_t i = count; done && i-- > 0;) {
        char name[RELAY_NAME_MOST];

        snprintf(name, sizeof(name), "%s/%08" PRIu64 SUFFIX, dir, numbers[i]);
        if (unlink(name) != 0 && errno != ENOENT)
            done = folder_fail(dir, "emptying", err);
        crash_point("relay-removed");
    }
    free(numbers);
    if (done && rmdir(dir) != 0 && errno != ENOENT && errno != ENOTEMPTY)
        done = folder_fail(dir, "removing", err);
    return done;
}

/* What is known */

RelayFormat relay_format(const Relay *r)
{
    return (RelayFormat){r->head.encoding, r->head.protocol, r->head.binary};
}

Position relay_begin(Relay *r)
{
    Position begin;

    pthread_mutex_lock(&r->lock);
    begin = r->count ? r->segments[0].first : r->head.begin;
    pthread_mutex_unlock(&r->lock);
    return begin;
}

Position relay_end(const Relay *r)
{
    return r->track.end;
}

const char *relay_broken(const Relay *r)
{
    return r->broken;
}

Position relay_synced_end(Relay *r)
{
    Position end;

    pthread_mutex_lock(&r->lock);
    end = r->synced_end;
    pthread_mutex_unlock(&r->lock);
    return end;
}

bool relay_works(Relay *r, Err *err)
{
    bool failed;

    pthread_mutex_lock(&r->lock);
    failed = r->failed;
    if (failed)
        *err = r->why;
    pthread_mutex_unlock(&r->lock);
    return !failed;
}

RelayStatus relay_status(Relay *r)
{
    RelayStatus status;

    pthread_mutex_lock(&r->lock);
    status = (RelayStatus){
        .bytes = r->bytes,
        .segments = r->count,
        .oldest = r->count ? r->segments[0].first : r->head.begin,
        .full = r->full,
    };
    pthread_mutex_unlock(&r->lock);
    return status;
}

/* Appending */

static void push(Relay *r, bool rotate, bool sync, Buf *plain)
{
    RelayItem *item = calloc(1, sizeof(*item));

    if (!item)
        abort();
    item->rotate = rotate;
    item->sync = sync;
    item->segment = r->segment;
    item->end = r->track.end;
    item->plain = *plain;
    buf_init(plain, SIZE_MAX / 4);
    pthread_mutex_lock(&r->lock);
    r->open_since = relay_track_oldest(&r->track);
    pthread_mutex_unlock(&r->lock);
    if (!queue_push(r->queue, item))
        item_free(item); /* stopped: nobody confirms what isn't written */
}

static void rotate(Relay *r)
{
    RelayHead head = r->head;
    AUTO_BUF transactions;
    AUTO_BUF relations;
    Buf plain;

    buf_init(&transactions, SIZE_MAX / 4);
    buf_init(&relations, SIZE_MAX / 4);
    buf_init(&plain, SIZE_MAX / 4);
    relay_track_put_open(&r->track, &transactions);
    relay_track_put_relations(&r->track, &relations);
    r->segment++;
    r->appended = 0;
    head.segment = r->segment;
    head.end = r->track.end;
    head.blocks = 0; /* only the writing thread knows */
    head.transactions = buf_span(&transactions);
    head.relations = buf_span(&relations);
    relay_head_put(&plain, &head);
    pthread_mutex_lock(&r->lock);
    (void)relay_segment_add(r, r->segment, head.end);
    pthread_mutex_unlock(&r->lock);
    push(r, true, false, &plain);
}

bool relay_has_room(Relay *r)
{
    return queue_count(r->queue) + 4 <= QUEUE_BLOCKS; /* one message may need three */
}

void relay_flush(Relay *r, bool sync)
{
    if (r->block.len == 0 && !(sync && r->unsynced))
        return;
    r->unsynced = !sync;
    push(r, false, sync, &r->block);
}

static void put(Relay *r, const RelayRecord *record)
{
    relay_record_put(&r->block, record);
    r->appended += record->message.len + 16;
    if (r->block.len >= BLOCK_BYTES)
        relay_flush(r, false);
}

/* A segment begins where no transaction is being sent in one piece. */
static void rotate_when_due(Relay *r)
{
    if (r->segment && (r->appended < r->segment_most || !relay_track_is_between(&r->track)))
        return;
    relay_flush(r, false);
    rotate(r);
}

bool relay_message(Relay *r, Span message, Err *err)
{
    RelayRecord record = {.kind = RELAY_MESSAGE, .message = message};
    RelayEnded ended;

    rotate_when_due(r);
    if (!relay_track_message(&r->track, message, r->segment, &ended, err))
        return false;
    if (ended.segment) {
        RelaySegment *s;

        pthread_mutex_lock(&r->lock);
        s = relay_segment_find(r, ended.segment);
        if (s && position_compare(ended.end, s->until) > 0)
            s->until = ended.end;
        pthread_mutex_unlock(&r->lock);
    }
    put(r, &record);
    return true;
}

void relay_quiet(Relay *r, Position at)
{
    if (r->track.txn || position_compare(at, r->track.end) <= 0)
        return;
    rotate_when_due(r);
    relay_track_quiet(&r->track, at);
    put(r, &(RelayRecord){.kind = RELAY_QUIET, .at = at});
}

void relay_connected(Relay *r)
{
    relay_track_connected(&r->track);
    rotate_when_due(r);
    put(r, &(RelayRecord){.kind = RELAY_CONNECTED, .at = r->track.end});
}

/* Stopping */

void relay_stop_soon(Relay *r, bool finish)
{
    bool first;

    pthread_mutex_lock(&r->lock);
    first = !r->stopping;
    r->stopping = true;
    r->stopping_now |= !finish;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    if (!first)
        return;
    if (r->started)
        relay_flush(r, false);
    queue_close(r->queue);
}

bool relay_is_stopped(Relay *r)
{
    return !r->started || atomic_load(&r->ended);
}

void relay_stop(Relay *r, bool finish)
{
    relay_stop_soon(r, finish);
    if (r->started)
        pthread_join(r->thread, NULL);
    r->started = false;
}

/* Forgetting */

static bool may_forget(const Relay *r, Position durable)
{
    const RelaySegment *s = &r->segments[0];

    /* The next one has begun: nothing is appended to it any more, and it is whole. */
    return r->count > 1 && r->segments[1].blocks && s->number < r->open_since &&
           s->number < r->reading && position_compare(s->until, durable) <= 0 &&
           position_compare(r->segments[1].first, durable) <= 0;
}

void relay_forget(Relay *r, Position durable)
{
    char name[RELAY_NAME_MOST];

    pthread_mutex_lock(&r->lock);
    while (may_forget(r, durable)) {
        relay_name(r, r->segments[0].number, name);
        if (unlink(name) != 0 && errno != ENOENT)
            break; /* it is tried again */
        r->bytes -= r->segments[0].size;
        memmove(r->segments, r->segments + 1, --r->count * sizeof(*r->segments));
        pthread_cond_broadcast(&r->changed);
    }
    pthread_mutex_unlock(&r->lock);
}
