/* relay_block.h - the bytes of a relay log: blocks, what the first block of a segment says,
 * records.
 *
 * A segment is a file of blocks, all integers little-endian:
 *
 *   u32 magic, u32 packed bytes, u32 plain bytes, u32 number, u64 hash, packed bytes (zstd)
 *
 * The hash is XXH3 of the packed bytes, seeded with segment, number and plain length: a block that
 * was cut short, changed or belongs elsewhere is told before zstd sees it. Block 0 holds the head,
 * all others hold records. Pure: no files, no clock, any thread. What doesn't fit is false, and
 * nothing of it is used.
 */
#ifndef RELAY_BLOCK_H
#define RELAY_BLOCK_H

#include "engine/base/arena.h"
#include "engine/base/buf.h"
#include "engine/base/reader.h"
#include "engine/model/position.h"

#define RELAY_BLOCK_HEAD 24

typedef struct RelayBlock {
    uint32_t packed; /* bytes behind the block's head */
    uint32_t plain;
} RelayBlock;

/* Appends the whole block to `out`. */
MUST_USE bool relay_block_pack(uint64_t segment, uint32_t number, Span plain, Buf *out, Err *err);
/* head: RELAY_BLOCK_HEAD bytes. False: no block with this number begins here. */
MUST_USE bool relay_block_open(Span head, uint32_t number, RelayBlock *block);
/* plain is replaced. False: these aren't the bytes that were written. */
MUST_USE bool relay_block_unpack(Span head, Span packed, uint64_t segment, Buf *plain);

/* What must be known to read a segment when those before it are gone. */
typedef struct RelayHead {
    uint64_t segment;
    const char *system; /* of the source: system identifier, slot, database */
    const char *slot;
    const char *database;
    const char *encoding; /* in which texts are */
    unsigned protocol;    /* of pgoutput */
    bool binary;
    Position begin;  /* where the log's first connection began: what committed before isn't in it */
    Position end;    /* everything that committed before this is in earlier segments */
    uint32_t blocks; /* in the segment before */
    Span transactions; /* u32 each: have parts in segments before this one */
    Span relations;    /* u32 length and a Relation message each */
} RelayHead;

void relay_head_put(Buf *out, const RelayHead *head);
void relay_head_set_blocks(Buf *plain, uint32_t blocks); /* in what relay_head_put made */
/* Texts point into arena, spans into `plain`. */
MUST_USE bool relay_head_parse(Span plain, Arena *arena, RelayHead *head);

typedef struct RelayRecord {
    enum {
        RELAY_NONE,
        RELAY_MESSAGE,   /* of the source, as it came */
        RELAY_QUIET,     /* everything that committed before `at` was received */
        RELAY_CONNECTED, /* a connection begins that sends what commits at or behind `at` */
        RELAY_RELATION,  /* a Relation message that an earlier segment had */
    } kind;
    Span message;
    Position at;
} RelayRecord;

void relay_record_put(Buf *out, const RelayRecord *record);
/* False: nothing is left, or (r->broken) what is there can't be a record. */
MUST_USE bool relay_record_next(Reader *r, RelayRecord *record);

#endif
