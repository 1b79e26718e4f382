/* A segment on disk, all integers little-endian:
 *
 *   u32 magic, u32 packed bytes, u32 plain bytes, u32 number, u64 hash, packed bytes (zstd)
 *
 * Plain: records one behind the other, each u32 length, u32 tag and bytes. The hash (XXH3 of the
 * packed bytes, seeded with the two numbers before it) tells a damaged disk before zstd sees the
 * bytes.
 */
#include "engine/stream/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include "engine/base/buf.h"
#include "engine/base/reader.h"

#define SEGMENT_BYTES  KIB(256)
#define SEGMENT_MAGIC  0x3153424Bu /* "KBS1" */
#define SEGMENT_HEADER 24
#define RECORD_HEADER  8
#define LARGEST_RECORD (UINT32_MAX - 64) /* PostgreSQL's messages end at 1 GiB */
#define ZSTD_LEVEL     1                 /* level 1 keeps up with a walsender; higher ones don't */

struct SpoolDir {
    char *path;
    size_t memory_most;
    size_t memory; /* in the buffers of spools that are being written */
    Spool *open;   /* those */
    ZSTD_CCtx *zstd;
    Buf packed;
    atomic_uint_fast64_t bytes; /* the only thing that reading threads touch */
};

struct Spool {
    SpoolDir *dir;
    Spool *next; /* in dir->open */
    int fd;      /* -1: nothing on disk */
    bool sealed;
    uint32_t segments;
    uint64_t size; /* of the file */
    uint64_t records;
    Buf plain; /* writing: what is not on disk yet. Reading: the segment at hand */
    /* reading */
    ZSTD_DCtx *unzstd;
    Buf packed;
    Buf memory; /* a small spool that was never written */
    uint64_t read_at;
    uint32_t read_segment;
    Reader left;
};

/* The folder */

static bool make_dirs(char *path, Err *err)
{
    for (char *at = path + 1;; at++) {
        bool end = *at == '\0';

        if (!end && *at != '/')
            continue;
        *at = '\0';
        if (mkdir(path, 0700) != 0 && errno != EEXIST)
            return err_errno(err, ERR_SYSTEM, "making the spool folder %s", path);
        if (end)
            return true;
        *at = '/';
    }
}

/* O_TMPFILE where the file system has it; else a name for the moment between open and unlink. */
static int open_nameless(const char *dir)
{
    char name[4200];
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
        return fd;
    snprintf(name, sizeof(name), "%s/spool.XXXXXX", dir);
    fd = mkostemp(name, O_CLOEXEC);
    if (fd >= 0)
        unlink(name);
    return fd;
}

static bool disk_fail(const SpoolDir *dir, const char *doing, Err *err)
{
    int why = errno;

    err_errno(err, ERR_SYSTEM, "%s in the spool folder %s", doing, dir->path);
    if (why == ENOSPC || why == EDQUOT || why == EFBIG)
        err_hint(err, "make room there or give a folder on a bigger disk with --spool-dir; "
                      "nothing was lost: start again and the stream goes on where it stopped");
    else
        err_hint(err, "give a folder that can be written with --spool-dir");
    return false;
}

/* Each big transaction that is streamed at the same time has one open. */
static void allow_many_files(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 65536) {
        limit.rlim_cur = limit.rlim_max < 65536 ? limit.rlim_max : 65536;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

SpoolDir *spool_dir_open(const char *path, size_t memory, Err *err)
{
    SpoolDir *dir = calloc(1, sizeof(*dir));
    int fd;

    if (!dir || !(dir->path = strdup(path)))
        abort();
    dir->memory_most = memory;
    buf_init(&dir->packed, SIZE_MAX / 4);
    dir->zstd = ZSTD_createCCtx();
    if (!dir->zstd)
        abort();
    ZSTD_CCtx_setParameter(dir->zstd, ZSTD_c_compressionLevel, ZSTD_LEVEL);
    ZSTD_CCtx_setParameter(dir->zstd, ZSTD_c_checksumFlag, 1);
    if (!make_dirs(dir->path, err)) {
        err_hint(err, "give a folder that can be made with --spool-dir");
        spool_dir_close(dir);
        return NULL;
    }
    allow_many_files();
    /* A limit on file sizes is an error of write, not the end of the process. */
    signal(SIGXFSZ, SIG_IGN);
    fd = open_nameless(dir->path);
    if (fd < 0) {
        disk_fail(dir, "making a file", err);
        spool_dir_close(dir);
        return NULL;
    }
    close(fd);
    return dir;
}

void spool_dir_close(SpoolDir *dir)
{
    if (!dir)
        return;
    assert(!dir->open);
    ZSTD_freeCCtx(dir->zstd);
    buf_fini(&dir->packed);
    free(dir->path);
    free(dir);
}

uint64_t spool_dir_bytes(const SpoolDir *dir)
{
    return atomic_load_explicit(&dir->bytes, memory_order_relaxed);
}

/* One spool, written */

Spool *spool_new(SpoolDir *dir)
{
    Spool *spool = calloc(1, sizeof(*spool));

    if (!spool)
        abort();
    spool->dir = dir;
    spool->fd = -1;
    buf_init(&spool->plain, SIZE_MAX / 4);
    buf_init(&spool->packed, SIZE_MAX / 4);
    buf_init(&spool->memory, 0);
    spool->next = dir->open;
    dir->open = spool;
    return spool;
}

static void leave_open_list(Spool *spool)
{
    Spool **at = &spool->dir->open;

    while (*at != spool)
        at = &(*at)->next;
    *at = spool->next;
    spool->dir->memory -= spool->plain.len;
    spool->sealed = true;
}

void spool_free(Spool *spool)
{
    if (!spool)
        return;
    if (!spool->sealed)
        leave_open_list(spool);
    if (spool->fd >= 0)
        close(spool->fd);
    atomic_fetch_sub(&spool->dir->bytes, spool->size);
    ZSTD_freeDCtx(spool->unzstd);
    buf_fini(&spool->plain);
    buf_fini(&spool->packed);
    buf_fini(&spool->memory);
    free(spool);
}

static bool write_all(Spool *spool, Span bytes, Err *err)
{
    while (bytes.len) {
        ssize_t put = pwrite(spool->fd, bytes.at, bytes.len, (off_t)spool->size);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return disk_fail(spool->dir, "writing a transaction", err);
        bytes = span_of(bytes.at + put, bytes.len - (size_t)put);
        spool->size += (uint64_t)put;
        atomic_fetch_add(&spool->dir->bytes, (uint64_t)put);
    }
    return true;
}

static uint64_t segment_hash(Span packed, uint32_t plain_len, uint32_t number)
{
    return XXH3_64bits_withSeed(packed.at, packed.len, (uint64_t)plain_len << 32 | number);
}

static void put_header(Buf *out, const Spool *spool, Span plain, Span packed)
{
    buf_put_u32le(out, SEGMENT_MAGIC);
    buf_put_u32le(out, (uint32_t)packed.len);
    buf_put_u32le(out, (uint32_t)plain.len);
    buf_put_u32le(out, spool->segments);
    buf_put_u64le(out, segment_hash(packed, (uint32_t)plain.len, spool->segments));
}

/* What is in memory goes to disk as one segment. */
static bool write_segment(Spool *spool, Err *err)
{
    SpoolDir *dir = spool->dir;
    size_t bound = ZSTD_compressBound(spool->plain.len);
    uint8_t *to;
    size_t packed;
    Buf header;

    if (spool->plain.len == 0)
        return true;
    if (spool->fd < 0 && (spool->fd = open_nameless(dir->path)) < 0)
        return disk_fail(dir, "making a file", err);
    buf_clear(&dir->packed);
    to = buf_reserve(&dir->packed, SEGMENT_HEADER + bound);
    if (!to)
        return err_fail(err, ERR_BUG, "a spool segment of %zu bytes", spool->plain.len);
    packed =
        ZSTD_compress2(dir->zstd, to + SEGMENT_HEADER, bound, spool->plain.at, spool->plain.len);
    if (ZSTD_isError(packed))
        return err_fail(err, ERR_BUG, "compressing for the spool: %s", ZSTD_getErrorName(packed));
    buf_init(&header, SEGMENT_HEADER);
    put_header(&header, spool, buf_span(&spool->plain), span_of(to + SEGMENT_HEADER, packed));
    memcpy(to, header.at, SEGMENT_HEADER);
    buf_fini(&header);
    if (!write_all(spool, span_of(to, SEGMENT_HEADER + packed), err))
        return false;
    spool->segments++;
    dir->memory -= spool->plain.len;
    buf_clear(&spool->plain);
    if (dir->packed.room > 4 * SEGMENT_BYTES)
        buf_fini(&dir->packed);
    if (spool->plain.room > 4 * SEGMENT_BYTES)
        buf_fini(&spool->plain);
    return true;
}

/* Many open transactions that each hold a little are memory too. */
static bool keep_budget(SpoolDir *dir, Err *err)
{
    while (dir->memory > dir->memory_most) {
        Spool *biggest = dir->open;

        if (!biggest)
            break;
        for (Spool *s = dir->open; s; s = s->next)
            if (s->plain.len > biggest->plain.len)
                biggest = s;
        if (!write_segment(biggest, err))
            return false;
        buf_fini(&biggest->plain); /* it may wait long for its next record */
    }
    return true;
}

bool spool_append(Spool *spool, uint32_t tag, Span record, Err *err)
{
    assert(!spool->sealed);
    if (record.len > LARGEST_RECORD)
        return err_fail(err, ERR_PROTOCOL, "a message of %zu bytes is too long for the spool",
                        record.len);
    if (spool->plain.len && spool->plain.len + record.len + RECORD_HEADER > SEGMENT_BYTES &&
        !write_segment(spool, err))
        return false;
    buf_put_u32le(&spool->plain, (uint32_t)record.len);
    buf_put_u32le(&spool->plain, tag);
    buf_put_span(&spool->plain, record);
    spool->records++;
    spool->dir->memory += record.len + RECORD_HEADER;
    return spool->dir->memory <= spool->dir->memory_most || keep_budget(spool->dir, err);
}

uint64_t spool_records(const Spool *spool)
{
    return spool->records;
}

/* Read back */

bool spool_seal(Spool *spool, Err *err)
{
    if (spool->fd >= 0 && !write_segment(spool, err))
        return false;
    leave_open_list(spool);
    if (spool->fd < 0) {
        spool->memory = spool->plain;
        buf_init(&spool->plain, SIZE_MAX / 4);
    }
    return spool_rewind(spool, err);
}

bool spool_rewind(Spool *spool, Err *err)
{
    (void)err;
    assert(spool->sealed);
    spool->read_at = 0;
    spool->read_segment = 0;
    spool->left = reader_of(spool->fd < 0 ? buf_span(&spool->memory) : SPAN_LIT(""));
    return true;
}

static bool damaged(const Spool *spool, const char *what, Err *err)
{
    err_fail(err, ERR_SYSTEM, "reading the spool in %s back: segment %u at byte %" PRIu64 " %s",
             spool->dir->path, spool->read_segment, spool->read_at, what);
    return err_hint(
        err, "the disk gave back something else than was written; give another with --spool-dir "
             "and start again, nothing was lost");
}

static bool read_all(Spool *spool, uint8_t *to, size_t len, Err *err)
{
    while (len) {
        ssize_t got = pread(spool->fd, to, len, (off_t)spool->read_at);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return disk_fail(spool->dir, "reading a transaction", err);
        if (got == 0)
            return damaged(spool, "ends too early", err);
        to += got;
        len -= (size_t)got;
        spool->read_at += (uint64_t)got;
    }
    return true;
}

static bool unpack(Spool *spool, uint32_t plain_len, Err *err)
{
    uint8_t *to;
    size_t got;

    buf_clear(&spool->plain);
    to = buf_reserve(&spool->plain, plain_len);
    if (!to)
        return damaged(spool, "has an impossible size", err);
    if (!spool->unzstd && !(spool->unzstd = ZSTD_createDCtx()))
        abort();
    got = ZSTD_decompressDCtx(spool->unzstd, to, plain_len, spool->packed.at, spool->packed.len);
    if (ZSTD_isError(got))
        return damaged(spool, ZSTD_getErrorName(got), err);
    if (got != plain_len)
        return damaged(spool, "has another length than it claims", err);
    spool->plain.len = plain_len;
    spool->left = reader_of(buf_span(&spool->plain));
    return true;
}

static bool read_segment(Spool *spool, Err *err)
{
    uint8_t head[SEGMENT_HEADER] = {0};
    Reader r = reader_of(span_of(head, sizeof(head)));
    uint32_t magic, packed_len, plain_len, number;
    uint64_t hash;
    uint8_t *to;

    if (!read_all(spool, head, sizeof(head), err))
        return false;
    magic = reader_u32le(&r, "magic");
    packed_len = reader_u32le(&r, "packed length");
    plain_len = reader_u32le(&r, "plain length");
    number = reader_u32le(&r, "number");
    hash = reader_u64le(&r, "hash");
    if (magic != SEGMENT_MAGIC || number != spool->read_segment ||
        packed_len > spool->size - spool->read_at)
        return damaged(spool, "has a wrong head", err);
    buf_clear(&spool->packed);
    to = buf_reserve(&spool->packed, packed_len);
    if (!to || !read_all(spool, to, packed_len, err))
        return to ? false : damaged(spool, "has an impossible size", err);
    spool->packed.len = packed_len;
    if (segment_hash(buf_span(&spool->packed), plain_len, number) != hash)
        return damaged(spool, "doesn't have the checksum that it was written with", err);
    if (!unpack(spool, plain_len, err))
        return false;
    spool->read_segment++;
    return true;
}

bool spool_next(Spool *spool, uint32_t *tag, Span *record, Err *err)
{
    uint32_t len;

    *record = SPAN_NONE;
    *tag = 0;
    if (reader_left(&spool->left) == 0) {
        if (spool->fd < 0 || spool->read_segment == spool->segments)
            return true;
        if (!read_segment(spool, err))
            return false;
    }
    len = reader_u32le(&spool->left, "length");
    *tag = reader_u32le(&spool->left, "tag");
    *record = reader_span(&spool->left, len, "record");
    if (spool->left.broken)
        return damaged(spool, "holds a record that doesn't fit", err);
    return true;
}
