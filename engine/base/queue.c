#include "engine/base/queue.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct Queue {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    pthread_cond_t drained;
    size_t most;
    size_t head;
    size_t count;
    bool closed;
    int room_fd;
    void *items[];
};

Queue *queue_new(size_t most)
{
    Queue *queue = calloc(1, sizeof(*queue) + most * sizeof(void *));

    if (!queue)
        abort();
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->filled, NULL);
    pthread_cond_init(&queue->drained, NULL);
    queue->most = most;
    queue->room_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return queue;
}

void queue_free(Queue *queue)
{
    if (!queue)
        return;
    pthread_mutex_destroy(&queue->lock);
    pthread_cond_destroy(&queue->filled);
    pthread_cond_destroy(&queue->drained);
    if (queue->room_fd >= 0)
        close(queue->room_fd);
    free(queue);
}

/* Under the lock, with room. */
static void put(Queue *queue, void *item)
{
    queue->items[(queue->head + queue->count) % queue->most] = item;
    queue->count++;
    pthread_cond_signal(&queue->filled);
}

/* Under the lock, not empty. */
static void *take(Queue *queue)
{
    void *item = queue->items[queue->head];
    uint64_t one = 1;

    queue->head = (queue->head + 1) % queue->most;
    queue->count--;
    pthread_cond_signal(&queue->drained);
    if (write(queue->room_fd, &one, sizeof(one)) < 0)
        return item; /* full counter: readable already */
    return item;
}

bool queue_push(Queue *queue, void *item)
{
    bool open;

    pthread_mutex_lock(&queue->lock);
    while (!queue->closed && queue->count == queue->most)
        pthread_cond_wait(&queue->drained, &queue->lock);
    open = !queue->closed;
    if (open)
        put(queue, item);
    pthread_mutex_unlock(&queue->lock);
    return open;
}

bool queue_try_push(Queue *queue, void *item)
{
    bool fits;

    pthread_mutex_lock(&queue->lock);
    fits = !queue->closed && queue->count < queue->most;
    if (fits)
        put(queue, item);
    pthread_mutex_unlock(&queue->lock);
    return fits;
}

void *queue_pop(Queue *queue)
{
    void *item;

    pthread_mutex_lock(&queue->lock);
    while (!queue->closed && queue->count == 0)
        pthread_cond_wait(&queue->filled, &queue->lock);
    item = queue->count ? take(queue) : NULL;
    pthread_mutex_unlock(&queue->lock);
    return item;
}

bool queue_wait(Queue *queue)
{
    bool any;

    pthread_mutex_lock(&queue->lock);
    while (!queue->closed && queue->count == 0)
        pthread_cond_wait(&queue->filled, &queue->lock);
    any = queue->count > 0;
    pthread_mutex_unlock(&queue->lock);
    return any;
}

void *queue_try_pop(Queue *queue)
{
    void *item;

    pthread_mutex_lock(&queue->lock);
    item = queue->count ? take(queue) : NULL;
    pthread_mutex_unlock(&queue->lock);
    return item;
}

void queue_close(Queue *queue)
{
    uint64_t one = 1;

    pthread_mutex_lock(&queue->lock);
    queue->closed = true;
    pthread_cond_broadcast(&queue->filled);
    pthread_cond_broadcast(&queue->drained);
    if (write(queue->room_fd, &one, sizeof(one)) < 0)
        queue->closed = true; /* full counter: readable already */
    pthread_mutex_unlock(&queue->lock);
}

size_t queue_count(Queue *queue)
{
    size_t count;

    pthread_mutex_lock(&queue->lock);
    count = queue->count;
    pthread_mutex_unlock(&queue->lock);
    return count;
}

bool queue_is_closed(Queue *queue)
{
    bool closed;

    pthread_mutex_lock(&queue->lock);
    closed = queue->closed;
    pthread_mutex_unlock(&queue->lock);
    return closed;
}

int queue_room_fd(const Queue *queue)
{
    return queue->room_fd;
}

void queue_room_seen(Queue *queue)
{
    uint64_t count;

    if (read(queue->room_fd, &count, sizeof(count)) < 0)
        return; /* nothing to forget */
}
