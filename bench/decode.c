/* decode - how fast pgoutput is decoded from memory, on one core.
 *
 *   decode                 generated streams, narrow to wide rows
 *   decode FILE...         captured ones: messages with a big-endian 32-bit length in front of each
 *
 * Columns: bytes and changes per second of decoding alone, then with the one copy of each message
 * into the batch's arena that a live stream makes.
 */
#include <time.h>

#include "decoders/pgoutput/pgoutput.h"
#include "engine/base/buf.h"
#include "engine/base/reader.h"

#define STREAM_MOST MIB(1024)
#define RUN_US      1000000

/* A sink that only counts. */
static bool on_begin(void *self, uint32_t xid, Position commit, int64_t time_us, Err *err)
{
    (void)self, (void)xid, (void)commit, (void)time_us, (void)err;
    return true;
}

static bool on_commit(void *self, Position commit, Position end, int64_t time_us, Err *err)
{
    (void)self, (void)commit, (void)end, (void)time_us, (void)err;
    return true;
}

static bool on_change(void *self, Change *change, Err *err)
{
    (void)change, (void)err;
    ++*(uint64_t *)self;
    return true;
}

static bool on_relation(void *self, const Relation *relation, Err *err)
{
    (void)self, (void)relation, (void)err;
    return true;
}

static bool on_message(void *self, Position at, Span prefix, Span content, Err *err)
{
    (void)self, (void)at, (void)prefix, (void)content, (void)err;
    return true;
}

static bool on_origin(void *self, Span name, Err *err)
{
    (void)self, (void)name, (void)err;
    return true;
}

static bool on_stream_start(void *self, uint32_t xid, bool first, Err *err)
{
    (void)self, (void)xid, (void)first, (void)err;
    return true;
}

static bool on_stream_stop(void *self, Err *err)
{
    (void)self, (void)err;
    return true;
}

static bool on_stream_commit(void *self, uint32_t xid, Position commit, Position end,
                             int64_t time_us, Err *err)
{
    (void)self, (void)xid, (void)commit, (void)end, (void)time_us, (void)err;
    return true;
}

static bool on_stream_abort(void *self, uint32_t xid, uint32_t subxid, Err *err)
{
    (void)self, (void)xid, (void)subxid, (void)err;
    return true;
}

static const SinkOps count_ops = {
    .begin = on_begin,
    .commit = on_commit,
    .change = on_change,
    .relation = on_relation,
    .message = on_message,
    .origin = on_origin,
    .stream_start = on_stream_start,
    .stream_stop = on_stream_stop,
    .stream_commit = on_stream_commit,
    .stream_abort = on_stream_abort,
};

/* Generated streams */

typedef struct Shape {
    const char *name;
    char kind; /* I, U (with new row only) or u (with a full old row) */
    uint16_t columns;
    uint32_t value_bytes;
    unsigned rows; /* in a transaction */
} Shape;

static void put_message(Buf *out, const Buf *message)
{
    buf_put_u32be(out, (uint32_t)message->len);
    buf_put_span(out, buf_span(message));
}

static void put_row(Buf *m, const Shape *shape)
{
    buf_put_u16be(m, shape->columns);
    for (uint16_t i = 0; i < shape->columns; i++) {
        buf_putc(m, 't');
        buf_put_u32be(m, shape->value_bytes);
        memset(buf_reserve(m, shape->value_bytes), '7', shape->value_bytes);
        m->len += shape->value_bytes;
    }
}

static void put_change(Buf *m, const Shape *shape)
{
    buf_clear(m);
    buf_putc(m, shape->kind == 'I' ? 'I' : 'U');
    buf_put_u32be(m, 16384);
    if (shape->kind == 'u') {
        buf_putc(m, 'O');
        put_row(m, shape);
    }
    buf_putc(m, 'N');
    put_row(m, shape);
}

static void put_relation(Buf *m, const Shape *shape)
{
    buf_clear(m);
    buf_putc(m, 'R');
    buf_put_u32be(m, 16384);
    buf_put(m, "public\0t\0f", 10);
    buf_put_u16be(m, shape->columns);
    for (uint16_t i = 0; i < shape->columns; i++) {
        buf_put_u8(m, 1);
        buf_printf(m, "column_%u", i);
        buf_put_u8(m, 0);
        buf_put_u32be(m, 25);
        buf_put_u32be(m, UINT32_MAX);
    }
}

static void put_begin(Buf *m, uint64_t lsn)
{
    buf_clear(m);
    buf_putc(m, 'B');
    buf_put_u64be(m, lsn);
    buf_put_u64be(m, 1);
    buf_put_u32be(m, 700);
}

static void put_commit(Buf *m, uint64_t lsn)
{
    buf_clear(m);
    buf_put(m, "C", 2);
    buf_put_u64be(m, lsn);
    buf_put_u64be(m, lsn + 1);
    buf_put_u64be(m, 1);
}

/* About 64 MiB: beyond the caches, as a live stream is. */
static void generate(Buf *out, const Shape *shape)
{
    AUTO_BUF m;

    buf_init(&m, MIB(64));
    buf_clear(out);
    for (uint64_t lsn = 1; out->len < MIB(64); lsn++) {
        put_begin(&m, lsn);
        put_message(out, &m);
        if (lsn == 1) {
            put_relation(&m, shape);
            put_message(out, &m);
        }
        put_change(&m, shape);
        for (unsigned i = 0; i < shape->rows; i++)
            put_message(out, &m);
        put_commit(&m, lsn);
        put_message(out, &m);
    }
}

/* Running them */

typedef struct Run {
    double seconds;
    uint64_t bytes;
    uint64_t changes;
} Run;

static bool run_once(Span stream, bool copy, Run *run, Err *err)
{
    Decoder *decoder = pgoutput_new(2);
    Sink sink = {&count_ops, &run->changes};
    Arena arena;
    Reader r = reader_of(stream);
    bool ok = true;

    arena_init(&arena, KIB(16));
    while (ok && reader_left(&r)) {
        Span message = reader_span(&r, reader_u32be(&r, "length"), "message");

        if (r.broken)
            break;
        if (copy)
            message = arena_dup(&arena, message);
        ok = decoder_decode(decoder, message, &arena, &sink, err);
        if (arena_bytes(&arena) > MIB(4))
            arena_reset(&arena);
    }
    arena_fini(&arena);
    decoder_free(decoder);
    run->bytes += stream.len;
    return ok && reader_finish(&r, "stream", err);
}

/* CPU time, so that what else runs on the machine doesn't count. */
static uint64_t cpu_us(void)
{
    struct timespec used;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000 + (uint64_t)used.tv_nsec / 1000;
}

static bool run_for(Span stream, bool copy, Run *run, Err *err)
{
    uint64_t start = cpu_us();

    *run = (Run){0};
    do {
        if (!run_once(stream, copy, run, err))
            return false;
    } while (cpu_us() - start < RUN_US);
    run->seconds = (double)(cpu_us() - start) / 1e6;
    return true;
}

static bool measure(const char *name, Span stream, Err *err)
{
    Run plain, copied;

    if (!run_for(stream, false, &plain, err) || !run_for(stream, true, &copied, err))
        return err_context(err, "%s", name);
    printf("%-44s %8.0f MB/s %8.2f M changes/s   %8.0f MB/s %8.2f M changes/s\n", name,
           (double)plain.bytes / 1e6 / plain.seconds, (double)plain.changes / 1e6 / plain.seconds,
           (double)copied.bytes / 1e6 / copied.seconds,
           (double)copied.changes / 1e6 / copied.seconds);
    return true;
}

static bool read_all(const char *path, Buf *out, Err *err)
{
    FILE *file = fopen(path, "rb");
    size_t got;

    if (!file)
        return err_errno(err, ERR_SYSTEM, "opening %s", path);
    buf_clear(out);
    do {
        uint8_t *to = buf_reserve(out, 65536);

        got = to ? fread(to, 1, 65536, file) : 0;
        out->len += got;
    } while (got);
    fclose(file);
    return buf_ok(out, path, err);
}

int main(int argc, char **argv)
{
    static const Shape shapes[] = {
        {"insert, 2 columns of 4 bytes, 1 a transaction", 'I', 2, 4, 1},
        {"insert, 2 columns of 4 bytes", 'I', 2, 4, 1000},
        {"insert, 8 columns of 12 bytes", 'I', 8, 12, 1000},
        {"update, 4 columns of 24 bytes", 'U', 4, 24, 1000},
        {"update, 8 columns of 12 bytes, identity full", 'u', 8, 12, 1000},
        {"insert, 20 columns of 50 bytes", 'I', 20, 50, 1000},
        {"insert, 10 columns of 1000 bytes", 'I', 10, 1000, 100},
    };
    AUTO_BUF stream;
    Err err = ERR_INIT;
    bool ok = true;

    buf_init(&stream, STREAM_MOST);
    printf("%-44s %-33s   %s\n", "", "decoding", "with one copy of each message");
    for (int i = 1; ok && i < argc; i++)
        ok = read_all(argv[i], &stream, &err) && measure(argv[i], buf_span(&stream), &err);
    for (size_t i = 0; ok && argc < 2 && i < ARRAY_LEN(shapes); i++) {
        generate(&stream, &shapes[i]);
        ok = buf_ok(&stream, "generated stream", &err) &&
             measure(shapes[i].name, buf_span(&stream), &err);
    }
    if (!ok)
        fprintf(stderr, "decode: %s\n", err.text);
    return ok ? 0 : err_exit_code(err.kind);
}
