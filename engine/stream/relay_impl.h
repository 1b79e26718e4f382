/* relay_impl.h - the relay log, shared by its writing (relay_write.c) and its reading side
 * (relay_read.c). */
#ifndef RELAY_IMPL_H
#define RELAY_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine/base/queue.h"
#include "engine/stream/relay.h"
#include "engine/stream/relay_track.h"

#define RELAY_NAME_MOST 4200

typedef struct RelaySegment {
    uint64_t number;
    uint64_t size; /* of the blocks that are written */
    uint32_t blocks;
    Position first; /* what committed before is in earlier ones */
    Position until; /* durable on the target up to here: of the transactions that began in it none
                       is needed */
} RelaySegment;

/* On its way to the writing thread. */
typedef struct RelayItem {
    struct RelayItem *next; /* in `left` */
    bool rotate;            /* plain is the head of a new segment */
    bool sync;
    uint64_t segment;
    Position end;
    Buf plain;
} RelayItem;

/* Where in a segment one reads. */
typedef struct RelayPlace {
    uint64_t segment;
    uint64_t at;
    uint64_t size;   /* bytes that may be read */
    uint32_t number; /* of the next block */
    Buf packed;
    Buf plain;
} RelayPlace;

struct Relay {
    char *dir;
    int dir_fd;
    uint64_t most;
    uint64_t segment_most;
    Arena names; /* of the head */
    RelayHead head;
    char broken[256];
    Queue *queue;
    pthread_t thread;
    bool started;
    atomic_bool ended; /* the thread has */
    /* appending thread */
    RelayTrack track;
    Buf block;
    uint64_t segment;  /* the number of the one that is appended to; 0: none yet */
    uint64_t appended; /* bytes to it, about */
    bool unsynced;
    /* writing thread */
    int fd;
    uint64_t size;
    uint32_t number; /* of the next block */
    uint64_t dirty;  /* bytes since the last sync */
    bool dir_dirty;
    Position written_end;
    Buf packed;
    /* under lock */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    RelaySegment *segments;
    size_t count;
    size_t room;
    uint64_t bytes;
    uint64_t open_since; /* segment of the oldest open transaction */
    uint64_t reading;    /* segment that the reader is in */
    Position synced_end;
    bool full;
    bool stopping; /* write what is queued, but don't wait for room */
    bool stopping_now;
    bool failed;
    Err why;
    RelayItem *left; /* never written */
};

void relay_name(const Relay *relay, uint64_t segment, char name[RELAY_NAME_MOST]);
RelaySegment *relay_segment_add(Relay *relay, uint64_t number, Position first); /* under lock */
RelaySegment *relay_segment_find(Relay *relay, uint64_t number); /* under lock; or NULL */
void *relay_write_main(void *relay);
/* Numbers of the folder's segments, sorted; free them. */
MUST_USE bool relay_list(const char *dir, uint64_t **numbers, size_t *count, Err *err);
Relay *relay_new(const RelayConf *conf);
void relay_free(Relay *relay);
MUST_USE bool relay_open_folder(Relay *relay, Err *err);

/* The next block into place->plain. NO_BLOCK: there is none that is whole and as it was written. */
typedef enum RelayGot { RELAY_GOT_BLOCK, RELAY_GOT_NO_BLOCK, RELAY_GOT_ERROR } RelayGot;
RelayGot relay_read_block(const Relay *relay, int fd, RelayPlace *place, Err *err);

#endif
