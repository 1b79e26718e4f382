#include "engine/base/arena.h"

#include <pthread.h>

#if defined(ARENA_POISONS)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, len)   ((void)(at), (void)(len))
#define ASAN_UNPOISON_MEMORY_REGION(at, len) ((void)(at), (void)(len))
#endif

struct ArenaChunk {
    ArenaChunk *older;
    size_t bytes; /* behind this header */
    uint8_t data[] __attribute__((aligned(16)));
};

#define LARGEST_CHUNK MIB(1)
#define SPARE_CHUNKS  64

/* Chunks of the largest size are kept for the next arena: a batch's memory is as large as the last
 * one's, and the kernel takes longer to hand out fresh pages than we take to fill them. */
static pthread_mutex_t spare_lock = PTHREAD_MUTEX_INITIALIZER;
static ArenaChunk *spare;
static unsigned spare_count;

static bool spare_put(ArenaChunk *chunk)
{
    bool taken;

    if (chunk->bytes != LARGEST_CHUNK)
        return false;
    pthread_mutex_lock(&spare_lock);
    taken = spare_count < SPARE_CHUNKS;
    if (taken) {
        chunk->older = spare;
        spare = chunk;
        spare_count++;
    }
    pthread_mutex_unlock(&spare_lock);
    return taken;
}

static ArenaChunk *spare_take(size_t bytes)
{
    ArenaChunk *chunk;

    if (bytes != LARGEST_CHUNK)
        return NULL;
    pthread_mutex_lock(&spare_lock);
    chunk = spare;
    if (chunk) {
        spare = chunk->older;
        spare_count--;
    }
    pthread_mutex_unlock(&spare_lock);
    return chunk;
}

void arena_init(Arena *arena, size_t chunk_bytes)
{
    *arena = (Arena){.chunk_bytes = size_max(chunk_bytes, 256)};
}

static void chunk_free(ArenaChunk *chunk)
{
    ASAN_UNPOISON_MEMORY_REGION(chunk->data, chunk->bytes);
    if (!spare_put(chunk))
        free(chunk);
}

static void chunks_free(ArenaChunk *chunk)
{
    while (chunk) {
        ArenaChunk *older = chunk->older;

        chunk_free(chunk);
        chunk = older;
    }
}

void arena_fini(Arena *arena)
{
    chunks_free(arena->chunk);
    arena_init(arena, arena->chunk_bytes);
}

void arena_reset(Arena *arena)
{
    ArenaChunk *chunk = arena->chunk;

    if (!chunk)
        return;
    chunks_free(chunk->older);
    chunk->older = NULL;
    arena->bytes = chunk->bytes;
    arena->at = chunk->data;
    arena->end = chunk->data + chunk->bytes;
    ASAN_POISON_MEMORY_REGION(chunk->data, chunk->bytes);
}

static void chunk_add(Arena *arena, size_t least)
{
    size_t bytes = size_max(arena->chunk_bytes, least);
    ArenaChunk *chunk = spare_take(bytes);

    if (!chunk)
        chunk = malloc(sizeof(*chunk) + bytes);
    if (!chunk) {
        fprintf(stderr, "keybridge: out of memory for an arena chunk of %zu bytes\n", bytes);
        abort();
    }
    chunk->older = arena->chunk;
    chunk->bytes = bytes;
    arena->chunk = chunk;
    arena->at = chunk->data;
    arena->end = chunk->data + bytes;
    arena->bytes += bytes;
    ASAN_POISON_MEMORY_REGION(chunk->data, chunk->bytes);
    if (arena->chunk_bytes < LARGEST_CHUNK)
        arena->chunk_bytes *= 2;
}

void *arena_grow(Arena *arena, size_t bytes)
{
    size_t want = (size_max(bytes, 1) + 15) & ~(size_t)15;
    void *got;

#if defined(ARENA_POISONS)
    want += 16; /* a poisoned gap, so that an overrun by one is seen */
#endif
    if (want < bytes)
        abort();
    if (!arena->at || (size_t)(arena->end - arena->at) < want)
        chunk_add(arena, want);
    got = arena->at;
    arena->at += want;
    ASAN_UNPOISON_MEMORY_REGION(got, bytes);
    return got;
}

void *arena_zalloc(Arena *arena, size_t bytes)
{
    void *got = arena_alloc(arena, bytes);

    memset(got, 0, bytes);
    return got;
}

Span arena_dup(Arena *arena, Span bytes)
{
    uint8_t *copy;

    if (!bytes.at)
        return SPAN_NONE;
    copy = arena_alloc(arena, bytes.len);
    if (bytes.len)
        memcpy(copy, bytes.at, bytes.len);
    return span_of(copy, bytes.len);
}

char *arena_str_of(Arena *arena, Span bytes)
{
    char *copy = arena_alloc(arena, bytes.len + 1);

    if (bytes.len)
        memcpy(copy, bytes.at, bytes.len);
    copy[bytes.len] = '\0';
    return copy;
}

char *arena_strdup(Arena *arena, const char *text)
{
    return text ? arena_str_of(arena, span_str(text)) : NULL;
}

char *arena_printf(Arena *arena, const char *fmt, ...)
{
    va_list args;
    int len;
    char *text;

    va_start(args, fmt);
    len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (len < 0)
        abort();
    text = arena_alloc(arena, (size_t)len + 1);
    va_start(args, fmt);
    vsnprintf(text, (size_t)len + 1, fmt, args);
    va_end(args);
    return text;
}
