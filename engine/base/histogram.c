#include "engine/base/histogram.h"

#include <math.h>

void histogram_init(Histogram *h)
{
    memset(h, 0, sizeof(*h));
}

/* Below 32 every value has its own bucket; above, the five bits behind the highest one choose the
 * part. */
static size_t bucket_of(uint64_t value)
{
    unsigned shift;

    if (value < HISTOGRAM_PARTS)
        return (size_t)value;
    shift = 63 - (unsigned)__builtin_clzll(value) - 5;
    return (size_t)(shift + 1) * HISTOGRAM_PARTS + (size_t)(value >> shift) % HISTOGRAM_PARTS;
}

static uint64_t largest_in(size_t bucket)
{
    size_t part = bucket % HISTOGRAM_PARTS;
    size_t shift;

    if (bucket < HISTOGRAM_PARTS)
        return bucket;
    shift = bucket / HISTOGRAM_PARTS - 1;
    return ((uint64_t)(HISTOGRAM_PARTS + part) << shift) + (((uint64_t)1 << shift) - 1);
}

void histogram_add(Histogram *h, uint64_t value)
{
    if (h->count == 0 || value < h->least)
        h->least = value;
    if (value > h->most)
        h->most = value;
    h->count++;
    h->sum += (double)value;
    h->buckets[bucket_of(value)]++;
}

void histogram_merge(Histogram *to, const Histogram *from)
{
    if (from->count == 0)
        return;
    if (to->count == 0 || from->least < to->least)
        to->least = from->least;
    if (from->most > to->most)
        to->most = from->most;
    to->count += from->count;
    to->sum += from->sum;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        to->buckets[i] += from->buckets[i];
}

uint64_t histogram_percentile(const Histogram *h, double percent)
{
    uint64_t rank, seen = 0;
    size_t i = 0;

    if (h->count == 0 || percent >= 100)
        return h->most;
    if (!(percent > 0))
        return h->least;
    rank = (uint64_t)ceil(percent / 100 * (double)h->count);
    rank = rank < 1 ? 1 : rank > h->count ? h->count : rank;
    while ((seen += h->buckets[i]) < rank)
        i++;
    return largest_in(i) > h->most ? h->most : largest_in(i);
}

double histogram_mean(const Histogram *h)
{
    return h->count ? h->sum / (double)h->count : 0;
}
