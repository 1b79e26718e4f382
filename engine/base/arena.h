/* arena.h - memory with a named lifetime: many small pieces, freed together.
 *
 * The lifetimes are run (configuration), connection (relation cache), batch (rows and their values)
 * and message (scratch). An arena belongs to one thread at a time. What our own code sizes never
 * fails visibly (one line, abort); what a peer sizes is bounded by the caller before it asks.
 */
#ifndef ARENA_H
#define ARENA_H

#include "engine/base/span.h"

/* gcc says it one way, clang 14 the other. */
#if defined(__SANITIZE_ADDRESS__)
#define ARENA_POISONS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_POISONS 1
#endif
#endif

typedef struct ArenaChunk ArenaChunk;

typedef struct Arena {
    uint8_t *at;        /* next free byte */
    uint8_t *end;       /* of the current chunk */
    ArenaChunk *chunk;  /* the current one, linked to older ones */
    size_t chunk_bytes; /* of the next chunk */
    size_t bytes;       /* all chunks, for memory limits */
} Arena;

void arena_init(Arena *arena, size_t chunk_bytes); /* allocates nothing yet */
void arena_fini(Arena *arena);
void arena_reset(Arena *arena); /* frees the contents, keeps the newest chunk; poisons under ASan */

/* Aligned to 16, not zeroed. Never NULL. */
void *arena_grow(Arena *arena, size_t bytes);

static inline void *arena_alloc(Arena *arena, size_t bytes)
{
#if !defined(ARENA_POISONS)
    size_t want = (size_max(bytes, 1) + 15) & ~(size_t)15;

    if (LIKELY(want >= bytes && (size_t)(arena->end - arena->at) >= want)) {
        void *got = arena->at;

        arena->at += want;
        return got;
    }
#endif
    return arena_grow(arena, bytes);
}

void *arena_zalloc(Arena *arena, size_t bytes);
Span arena_dup(Arena *arena, Span bytes);
char *arena_strdup(Arena *arena, const char *text);
char *arena_str_of(Arena *arena, Span bytes); /* with a NUL behind */
char *arena_printf(Arena *arena, const char *fmt, ...) PRINTF_LIKE(2, 3);

static inline size_t arena_bytes(const Arena *arena)
{
    return arena->bytes;
}

#define arena_new(arena, type) ((type *)arena_zalloc((arena), sizeof(type)))
#define arena_array(arena, type, count) \
    ((type *)arena_zalloc((arena), (size_t)(count) * sizeof(type)))

#endif
