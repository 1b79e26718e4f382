/* queue.h - a bounded queue of pointers between threads: what is in it belongs to the queue.
 *
 * Any number of threads may push and pop. Closing wakes everybody: pushes fail, pops drain what is
 * left and then give NULL.
 */
#ifndef QUEUE_H
#define QUEUE_H

#include "engine/base/base.h"

typedef struct Queue Queue;

MUST_USE Queue *queue_new(size_t most);
void queue_free(Queue *queue); /* NULL is fine; must be empty or hold only borrowed things */

MUST_USE bool queue_push(Queue *queue, void *item);     /* waits for room; false: closed */
MUST_USE bool queue_try_push(Queue *queue, void *item); /* false: full or closed */
void *queue_pop(Queue *queue);                          /* waits; NULL: closed and empty */
MUST_USE bool queue_wait(
    Queue *queue);                 /* until there is something to pop; false: closed and empty */
void *queue_try_pop(Queue *queue); /* NULL: empty */
void queue_close(Queue *queue);
size_t queue_count(Queue *queue);
bool queue_is_closed(Queue *queue);
/* Readable (poll) while there is room; for a producer that must not wait in push. It is the
 * queue's own eventfd, written by pop: call queue_room_seen before a try_push that may fail. */
int queue_room_fd(const Queue *queue);
void queue_room_seen(Queue *queue);

#endif
