/* histogram.h - how values are spread, for latencies: fixed size, no allocation, mergeable.
 *
 * Log-linear: every power of two is cut into 32 parts, so that a percentile is at most 1/32 (3.2 %)
 * above the value it stands for, over the whole range of 64 bits. Values are whatever the caller
 * counts, usually microseconds. A Histogram belongs to one thread; merge copies to look at several.
 */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include "engine/base/base.h"

#define HISTOGRAM_PARTS   32
#define HISTOGRAM_BUCKETS ((size_t)(64 - 5 + 1) * HISTOGRAM_PARTS)

typedef struct Histogram {
    uint64_t count;
    uint64_t least; /* 0 while count is */
    uint64_t most;
    double sum;
    uint64_t buckets[HISTOGRAM_BUCKETS];
} Histogram;

void histogram_init(Histogram *h);
void histogram_add(Histogram *h, uint64_t value);
void histogram_merge(Histogram *to, const Histogram *from);
/* The value that `percent` of all are at or below: never less than the true one, at most 1/32 more,
 * and exact at 0 and 100. 0 when nothing was counted. */
uint64_t histogram_percentile(const Histogram *h, double percent);
double histogram_mean(const Histogram *h);

#endif
