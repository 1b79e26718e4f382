/* The writing thread: takes blocks from the queue, waits for room, writes, syncs. */
#include <errno.h>
#include <fcntl.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/crash.h"
#include "engine/base/log.h"
#include "engine/base/mono.h"
#include "engine/stream/relay_impl.h"

#define SYNC_BYTES MIB(8)
#define WAIT_MS    300
#define FLOOR_MOST MIB(256) /* stays free on the disk, or a twentieth of it */

static bool disk_fail(const Relay *r, const char *doing, Err *err)
{
    err_errno(err, ERR_SYSTEM, "%s the relay log in %s", doing, r->dir);
    return err_hint(err,
                    "nothing was lost: once the disk is well, start again and the stream goes on; "
                    "another disk can be given with --spool-dir, with the folder moved there");
}

static bool is_for_want_of_room(int why)
{
    return why == ENOSPC || why == EDQUOT || why == EFBIG;
}

static bool has_disk_floor(const Relay *r, size_t len, uint64_t *left)
{
    struct statvfs fs;
    uint64_t floor;

    if (fstatvfs(r->dir_fd, &fs) != 0)
        return true; /* a write will tell */
    *left = (uint64_t)fs.f_bavail * fs.f_frsize;
    floor = (uint64_t)fs.f_blocks * fs.f_frsize / 20;
    return *left > (floor < FLOOR_MOST ? floor : FLOOR_MOST) + len;
}

static void set_full(Relay *r, bool full)
{
    pthread_mutex_lock(&r->lock);
    r->full = full;
    pthread_mutex_unlock(&r->lock);
}

/* False: stopping. */
static bool wait_a_moment(Relay *r)
{
    struct timespec until;
    bool goes_on;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += WAIT_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_mutex_lock(&r->lock);
    if (!r->stopping)
        pthread_cond_timedwait(&r->changed, &r->lock, &until);
    goes_on = !r->stopping;
    pthread_mutex_unlock(&r->lock);
    return goes_on;
}

static void tell_room(Relay *r)
{
    RelayStatus s = relay_status(r);

    if (!s.full)
        return;
    set_full(r, false);
    log_info("the relay log has room again", F_U64("bytes", s.bytes));
}

static void tell_full(Relay *r, uint64_t left)
{
    RelayStatus s = relay_status(r);

    if (s.full)
        return;
    set_full(r, true);
    log_warn("the relay log is full: the source keeps its WAL until there is room again",
             F_STR("folder", r->dir), F_U64("bytes", s.bytes), F_U64("limit", r->most),
             F_U64("free", left));
}

/* Waits for room for so many bytes. False: stopping without. */
static bool have_room(Relay *r, size_t len)
{
    for (;;) {
        uint64_t left = 0;
        RelayStatus s = relay_status(r);

        if ((!r->most || s.bytes + len <= r->most) && has_disk_floor(r, len, &left))
            return true;
        tell_full(r, left);
        if (!wait_a_moment(r))
            return false;
    }
}

/* All or nothing: what was written of it is cut off again. *room false: the disk is full. */
static bool put_at(const Relay *r, int fd, uint64_t at, Span bytes, bool *room, Err *err)
{
    uint64_t from = at;

    *room = true;
    while (bytes.len) {
        ssize_t put = pwrite(fd, bytes.at, bytes.len, (off_t)at);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0) {
            *room = !is_for_want_of_room(errno);
            if (*room || ftruncate(fd, (off_t)from) != 0)
                return disk_fail(r, "writing to", err);
            return true;
        }
        bytes = span_of(bytes.at + put, bytes.len - (size_t)put);
        at += (uint64_t)put;
    }
    return true;
}

static bool sync_file(Relay *r, Err *err)
{
    if (r->dirty == 0 && !r->dir_dirty)
        return true;
    crash_point("relay-before-sync");
    if (fdatasync(r->fd) != 0 || (r->dir_dirty && fsync(r->dir_fd) != 0))
        return disk_fail(r, "syncing", err);
    crash_point("relay-synced");
    r->dirty = 0;
    r->dir_dirty = false;
    pthread_mutex_lock(&r->lock);
    r->synced_end = r->written_end;
    pthread_mutex_unlock(&r->lock);
    return true;
}

static void publish(Relay *r, uint64_t segment, size_t len)
{
    RelaySegment *s;

    pthread_mutex_lock(&r->lock);
    s = relay_segment_find(r, segment);
    s->size += len;
    s->blocks++;
    r->bytes += len;
    pthread_mutex_unlock(&r->lock);
}

/* The segment before is synced first: only the last one of a log may have a torn tail. */
static bool open_segment(Relay *r, const RelayItem *item, Span head, bool *room, Err *err)
{
    char name[RELAY_NAME_MOST];
    int fd;

    if (r->fd >= 0 && !sync_file(r, err))
        return false;
    relay_name(r, item->segment, name);
    fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        *room = !is_for_want_of_room(errno);
        return *room ? disk_fail(r, "making a file for", err) : true;
    }
    if (!put_at(r, fd, 0, head, room, err) || !*room) {
        close(fd);
        (void)unlink(name);
        return *room ? false : true;
    }
    if (r->fd >= 0)
        close(r->fd);
    r->fd = fd;
    r->size = 0;
    r->number = 0;
    r->dir_dirty = true;
    crash_point("relay-rotated");
    return true;
}

static bool try_write(Relay *r, const RelayItem *item, bool *room, Err *err)
{
    Span block = buf_span(&r->packed);

    if (item->rotate ? !open_segment(r, item, block, room, err)
                     : !put_at(r, r->fd, r->size, block, room, err))
        return false;
    if (!*room)
        return true;
    tell_room(r);
    r->size += block.len;
    r->number++;
    r->dirty += block.len;
    r->written_end = item->end;
    publish(r, item->segment, block.len);
    crash_point("relay-written");
    return true;
}

/* *written false: there was no room, and we are to stop. */
static bool write_item(Relay *r, RelayItem *item, bool *written, Err *err)
{
    *written = true;
    if (item->plain.len) {
        if (item->rotate)
            relay_head_set_blocks(&item->plain, r->number);
        buf_clear(&r->packed);
        if (!relay_block_pack(item->segment, item->rotate ? 0 : r->number, buf_span(&item->plain),
                              &r->packed, err))
            return false;
        for (bool room = false; !room;) {
            if (!have_room(r, r->packed.len)) {
                *written = false;
                return true;
            }
            if (!try_write(r, item, &room, err))
                return false;
            if (!room) {
                tell_full(r, 0);
                if (!wait_a_moment(r)) {
                    *written = false;
                    return true;
                }
            }
        }
    }
    return (!item->sync && r->dirty < SYNC_BYTES) || sync_file(r, err);
}

static void fail(Relay *r, const Err *err)
{
    pthread_mutex_lock(&r->lock);
    r->failed = true;
    r->why = *err;
    pthread_mutex_unlock(&r->lock);
}

/* For the reader, in order. */
static void leave(Relay *r, RelayItem *item)
{
    RelayItem **at = &r->left;

    pthread_mutex_lock(&r->lock);
    while (*at)
        at = &(*at)->next;
    *at = item;
    pthread_mutex_unlock(&r->lock);
}

static bool should_write(Relay *r)
{
    bool should;

    pthread_mutex_lock(&r->lock);
    should = !r->failed && !r->stopping_now && !r->left;
    pthread_mutex_unlock(&r->lock);
    return should;
}

void *relay_write_main(void *arg)
{
    Relay *r = arg;
    RelayItem *item;
    Err err = ERR_INIT;

    log_thread("relay");
    while ((item = queue_pop(r->queue)) != NULL) {
        bool written = false;

        if (should_write(r) && !write_item(r, item, &written, &err)) {
            fail(r, &err);
            written = false;
        }
        if (!written) {
            leave(r, item);
            continue;
        }
        buf_fini(&item->plain);
        free(item);
    }
    if (should_write(r) && r->fd >= 0 && !sync_file(r, &err))
        fail(r, &err);
    atomic_store(&r->ended, true);
    return NULL;
}
