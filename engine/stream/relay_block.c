#include "engine/stream/relay_block.h"

#include <xxhash.h>
#include <zstd.h>

#define BLOCK_MAGIC 0x3152424Bu /* "KBR1" */
#define FORMAT      1
#define ZSTD_LEVEL  1 /* level 1 keeps up with a walsender; higher ones don't */
#define TEXT_MOST   4096

static uint64_t block_hash(Span packed, uint64_t segment, uint32_t number, uint32_t plain)
{
    uint64_t place[2] = {segment, (uint64_t)plain << 32 | number};

    return XXH3_64bits_withSeed(packed.at, packed.len, XXH3_64bits(place, sizeof(place)));
}

bool relay_block_pack(uint64_t segment, uint32_t number, Span plain, Buf *out, Err *err)
{
    size_t bound = ZSTD_compressBound(plain.len);
    uint8_t *to = buf_reserve(out, RELAY_BLOCK_HEAD + bound);
    size_t packed, at = out->len;
    Buf head;

    if (!to || plain.len > UINT32_MAX || bound > UINT32_MAX)
        return err_fail(err, ERR_PROTOCOL, "a block of %zu bytes is too long for the relay log",
                        plain.len);
    packed = ZSTD_compress(to + RELAY_BLOCK_HEAD, bound, plain.at, plain.len, ZSTD_LEVEL);
    if (ZSTD_isError(packed))
        return err_fail(err, ERR_BUG, "compressing for the relay log: %s",
                        ZSTD_getErrorName(packed));
    buf_init(&head, RELAY_BLOCK_HEAD);
    buf_put_u32le(&head, BLOCK_MAGIC);
    buf_put_u32le(&head, (uint32_t)packed);
    buf_put_u32le(&head, (uint32_t)plain.len);
    buf_put_u32le(&head, number);
    buf_put_u64le(&head, block_hash(span_of(to + RELAY_BLOCK_HEAD, packed), segment, number,
                                    (uint32_t)plain.len));
    memcpy(to, head.at, RELAY_BLOCK_HEAD);
    buf_fini(&head);
    out->len = at + RELAY_BLOCK_HEAD + packed;
    return true;
}

bool relay_block_open(Span head, uint32_t number, RelayBlock *block)
{
    Reader r = reader_of(head);
    bool magic = reader_u32le(&r, "magic") == BLOCK_MAGIC;

    block->packed = reader_u32le(&r, "packed length");
    block->plain = reader_u32le(&r, "plain length");
    return reader_u32le(&r, "number") == number && magic && !r.broken;
}

bool relay_block_unpack(Span head, Span packed, uint64_t segment, Buf *plain)
{
    Reader r = reader_of(head);
    uint32_t plain_len, number;
    uint8_t *to;
    size_t got;

    (void)reader_u32le(&r, "magic");
    (void)reader_u32le(&r, "packed length");
    plain_len = reader_u32le(&r, "plain length");
    number = reader_u32le(&r, "number");
    if (reader_u64le(&r, "hash") != block_hash(packed, segment, number, plain_len) || r.broken ||
        ZSTD_getFrameContentSize(packed.at, packed.len) != plain_len)
        return false;
    buf_clear(plain);
    to = buf_reserve(plain, plain_len);
    if (!to)
        return false;
    got = ZSTD_decompress(to, plain_len, packed.at, packed.len);
    if (ZSTD_isError(got) || got != plain_len)
        return false;
    plain->len = plain_len;
    return true;
}

/* The head */

static void put_text(Buf *out, const char *text)
{
    buf_put_u32le(out, (uint32_t)strlen(text));
    buf_puts(out, text);
}

static void put_position(Buf *out, Position at)
{
    buf_put_u64le(out, at.file);
    buf_put_u64le(out, at.at);
}

static void put_span(Buf *out, Span span)
{
    buf_put_u32le(out, (uint32_t)span.len);
    buf_put_span(out, span);
}

void relay_head_put(Buf *out, const RelayHead *head)
{
    buf_put_u32le(out, FORMAT);
    buf_put_u32le(out, head->blocks);
    buf_put_u64le(out, head->segment);
    put_text(out, head->system);
    put_text(out, head->slot);
    put_text(out, head->database);
    put_text(out, head->encoding);
    buf_put_u8(out, (uint8_t)head->protocol);
    buf_put_u8(out, head->binary);
    put_position(out, head->begin);
    put_position(out, head->end);
    put_span(out, head->transactions);
    put_span(out, head->relations);
}

void relay_head_set_blocks(Buf *plain, uint32_t blocks)
{
    for (size_t i = 0; i < 4; i++)
        plain->at[4 + i] = (uint8_t)(blocks >> 8 * i);
}

static const char *read_text(Reader *r, Arena *arena, const char *field)
{
    uint32_t len = reader_u32le(r, field);
    Span text = reader_span(r, len, field);

    if (len > TEXT_MOST || (text.at && memchr(text.at, '\0', text.len)))
        reader_break(r, field, "is no name");
    return r->broken ? "" : arena_str_of(arena, text);
}

static Position read_position(Reader *r, const char *field)
{
    Position at;

    at.file = reader_u64le(r, field);
    at.at = reader_u64le(r, field);
    return at;
}

static Span read_span(Reader *r, const char *field)
{
    uint32_t len = reader_u32le(r, field);

    return reader_span(r, len, field);
}

bool relay_head_parse(Span plain, Arena *arena, RelayHead *head)
{
    Reader r = reader_of(plain);
    uint32_t format = reader_u32le(&r, "format");

    head->blocks = reader_u32le(&r, "blocks");
    head->segment = reader_u64le(&r, "segment");
    head->system = read_text(&r, arena, "system");
    head->slot = read_text(&r, arena, "slot");
    head->database = read_text(&r, arena, "database");
    head->encoding = read_text(&r, arena, "encoding");
    head->protocol = reader_u8(&r, "protocol");
    head->binary = reader_u8(&r, "binary") != 0;
    head->begin = read_position(&r, "begin");
    head->end = read_position(&r, "end");
    head->transactions = read_span(&r, "transactions");
    head->relations = read_span(&r, "relations");
    return !r.broken && reader_left(&r) == 0 && format == FORMAT && head->transactions.len % 4 == 0;
}

/* Records */

void relay_record_put(Buf *out, const RelayRecord *record)
{
    buf_put_u8(out, (uint8_t)record->kind);
    if (record->kind == RELAY_MESSAGE)
        put_span(out, record->message);
    else
        put_position(out, record->at);
}

bool relay_record_next(Reader *r, RelayRecord *record)
{
    uint8_t kind;

    *record = (RelayRecord){.kind = RELAY_NONE};
    if (reader_left(r) == 0)
        return false;
    kind = reader_u8(r, "kind");
    switch (kind) {
    case RELAY_MESSAGE:
        record->message = read_span(r, "message");
        break;
    case RELAY_QUIET:
    case RELAY_CONNECTED:
        record->at = read_position(r, "position");
        break;
    default:
        reader_break(r, "kind", "is unknown");
        break;
    }
    if (r->broken)
        return false;
    record->kind = kind == RELAY_MESSAGE ? RELAY_MESSAGE
                   : kind == RELAY_QUIET ? RELAY_QUIET
                                         : RELAY_CONNECTED;
    return true;
}
