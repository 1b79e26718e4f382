/* Segments of a relay log: whatever the bytes, nothing is overread, and records that are read are
 * those that were written. The input is a byte that chooses and what a file or the plain part of a
 * block holds. */
#include "engine/stream/relay_block.h"
#include "engine/stream/relay_track.h"
#include "tests/fuzz/fuzz.h"

static void try_head(Span plain)
{
    AUTO_BUF again;
    Arena arena;
    RelayHead head;

    buf_init(&again, MIB(4));
    arena_init(&arena, KIB(4));
    if (relay_head_parse(plain, &arena, &head)) {
        relay_head_put(&again, &head);
        /* `binary` may have been any byte. */
        FUZZ_CLAIM(again.len == plain.len);
        FUZZ_CLAIM(relay_head_parse(buf_span(&again), &arena, &head));
    }
    arena_fini(&arena);
}

static void try_records(Span plain)
{
    AUTO_BUF again;
    Reader r = reader_of(plain);
    RelayRecord record;
    RelayTrack track = {0};
    Position end = POSITION_NONE;

    buf_init(&again, MIB(4));
    while (relay_record_next(&r, &record)) {
        RelayEnded ended;
        Err err = ERR_INIT;
        bool tracked = true;

        relay_record_put(&again, &record);
        if (record.kind == RELAY_QUIET)
            relay_track_quiet(&track, record.at);
        else if (record.kind == RELAY_CONNECTED)
            relay_track_connected(&track);
        else
            tracked = relay_track_message(&track, record.message, 1, &ended, &err);
        FUZZ_CLAIM(tracked || err.kind == ERR_PROTOCOL);
        FUZZ_CLAIM(position_compare(track.end, end) >= 0);
        end = track.end;
    }
    FUZZ_CLAIM(span_equal(buf_span(&again), span_of(plain.at, again.len)));
    buf_clear(&again);
    relay_track_put_open(&track, &again);
    relay_track_put_relations(&track, &again);
    relay_track_fini(&track);
}

/* As a file: blocks one behind the other, until one isn't as it was written. */
static void try_file(Span file)
{
    AUTO_BUF plain;

    buf_init(&plain, MIB(4));
    for (uint32_t number = 0; file.len >= RELAY_BLOCK_HEAD; number++) {
        Span head = span_of(file.at, RELAY_BLOCK_HEAD);
        RelayBlock block;

        if (!relay_block_open(head, number, &block) || block.packed > file.len - RELAY_BLOCK_HEAD ||
            !relay_block_unpack(head, span_of(file.at + RELAY_BLOCK_HEAD, block.packed), 1, &plain))
            break;
        FUZZ_CLAIM(plain.len == block.plain);
        if (number)
            try_records(buf_span(&plain));
        else
            try_head(buf_span(&plain));
        file = span_of(file.at + RELAY_BLOCK_HEAD + block.packed,
                       file.len - RELAY_BLOCK_HEAD - block.packed);
    }
}

/* What is packed is unpacked, and not as another segment's. */
static void try_round(Span plain)
{
    AUTO_BUF file;
    AUTO_BUF out;
    Err err = ERR_INIT;
    Span head, packed;

    buf_init(&file, MIB(8));
    buf_init(&out, MIB(4));
    FUZZ_CLAIM(relay_block_pack(7, 3, plain, &file, &err));
    head = span_of(file.at, RELAY_BLOCK_HEAD);
    packed = span_of(file.at + RELAY_BLOCK_HEAD, file.len - RELAY_BLOCK_HEAD);
    FUZZ_CLAIM(relay_block_unpack(head, packed, 7, &out));
    FUZZ_CLAIM(span_equal(buf_span(&out), plain));
    FUZZ_CLAIM(!relay_block_unpack(head, packed, 8, &out));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *block;
    Span rest;

    if (size == 0)
        return 0;
    block = fuzz_exact(span_of(data + 1, size - 1));
    rest = span_of(block, size - 1);
    switch (data[0] & 3) {
    case 0:
        try_file(rest);
        break;
    case 1:
        try_head(rest);
        break;
    case 2:
        try_records(rest);
        break;
    default:
        try_round(rest);
        break;
    }
    free(block);
    return 0;
}
