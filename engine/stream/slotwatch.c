#include "engine/stream/slotwatch.h"

#include "engine/base/log.h"

#define WARN_MS       60000
#define SHORT_MIN     60    /* so many minutes left are worth a warning */
#define RATE_LEAST_MS 15000 /* restart_lsn moves in steps: a shorter time tells nothing */

#define KEPT(end) "pg_catalog.pg_wal_lsn_diff(" end ", restart_lsn)"
#define END       "pg_catalog.pg_current_wal_flush_lsn()"
#define REPLAYED  "coalesce(pg_catalog.pg_last_wal_replay_lsn(), '0/0')"
#define FROM      " from (select 1) x left join pg_catalog.pg_replication_slots on slot_name = $1"

const char *slotwatch_sql(int version, bool is_standby)
{
    if (is_standby)
        return "select " REPLAYED ", wal_status, " KEPT(REPLAYED) ", safe_wal_size" FROM;
    if (version < 130000)
        return "select " END ", null, " KEPT(END) ", null" FROM;
    return "select " END ", wal_status, " KEPT(END) ", safe_wal_size" FROM;
}

/* Negative ones are 0. */
static uint64_t bytes_of(const char *text, uint64_t otherwise)
{
    if (!text)
        return otherwise;
    return *text == '-' ? 0 : strtoull(text, NULL, 10);
}

static uint64_t lower(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void add_sample(SlotWatch *w, uint64_t now_ms)
{
    if (w->count == 0)
        w->first_retained = w->now.retained;
    if (w->count == SLOTWATCH_SAMPLES)
        memmove(w->samples, w->samples + 1, --w->count * sizeof(*w->samples));
    w->samples[w->count].at_ms = now_ms;
    w->samples[w->count++].retained = w->now.retained;
}

static void estimate(SlotWatch *w, uint64_t now_ms)
{
    SlotState *s = &w->now;
    uint64_t since = now_ms - w->samples[0].at_ms;
    uint64_t left, grown = s->retained > w->first_retained ? s->retained - w->first_retained : 0;

    s->disk_left = SLOT_UNLIMITED;
    if (w->disk_free)
        s->disk_left = w->disk_free > grown ? w->disk_free - grown : 0;
    left = lower(s->safe_left, s->disk_left);
    s->retained_rate = 0;
    if (since >= RATE_LEAST_MS && s->retained > w->samples[0].retained)
        s->retained_rate = (double)(s->retained - w->samples[0].retained) * 1000 / (double)since;
    s->ends = left != SLOT_UNLIMITED && (s->retained_rate > 0 || left == 0);
    s->minutes_left = s->ends && left ? (double)left / s->retained_rate / 60 : 0;
}

static bool is_at(const SlotState *s, const char *wal_status)
{
    return strcmp(s->wal_status, wal_status) == 0;
}

/* A new status at once, and what is getting short once a minute. */
static void warn(SlotWatch *w, const char *slot, uint64_t now_ms)
{
    const SlotState *s = &w->now;
    bool is_new = !is_at(s, w->warned_status);
    bool is_short =
        is_at(s, "unreserved") || is_at(s, "lost") || (s->ends && s->minutes_left < SHORT_MIN);

    memcpy(w->warned_status, s->wal_status, sizeof(w->warned_status));
    if (is_new && !is_short && is_at(s, "extended"))
        log_warn("the source keeps more WAL for the slot than max_wal_size", F_STR("slot", slot),
                 F_U64("retained_bytes", s->retained),
                 F_I64("safe_bytes", s->safe_left == SLOT_UNLIMITED ? -1 : (int64_t)s->safe_left));
    if (!is_short || (!is_new && now_ms - w->warned_ms < WARN_MS))
        return;
    w->warned_ms = now_ms;
    log_warn(is_at(s, "unreserved") || is_at(s, "lost")
                 ? "the source is about to give the slot up: the next checkpoint removes its WAL"
                 : "WAL kept for the slot will soon be too much for the source",
             F_STR("slot", slot), F_STR("wal_status", s->wal_status),
             F_U64("retained_bytes", s->retained),
             F_I64("safe_bytes", s->safe_left == SLOT_UNLIMITED ? -1 : (int64_t)s->safe_left),
             F_I64("disk_bytes", s->disk_left == SLOT_UNLIMITED ? -1 : (int64_t)s->disk_left),
             F_U64("bytes_per_s", s->retained_rate),
             F_I64("minutes_left", s->ends ? (int64_t)s->minutes_left : -1));
}

void slotwatch_take(SlotWatch *w, const char *slot, const SlotAnswer *answer, uint64_t now_ms)
{
    if (!answer->retained) /* gone, or without WAL: the stream is about to hear it */
        return;
    snprintf(w->now.wal_status, sizeof(w->now.wal_status), "%s",
             answer->wal_status ? answer->wal_status : "");
    w->now.retained = bytes_of(answer->retained, 0);
    w->now.safe_left = bytes_of(answer->safe_left, SLOT_UNLIMITED);
    w->now.known = true;
    add_sample(w, now_ms);
    estimate(w, now_ms);
    warn(w, slot, now_ms);
}

static void put_limit(Buf *out, const char *name, uint64_t left)
{
    if (left == SLOT_UNLIMITED)
        buf_printf(out, ",\"%s\":null", name);
    else
        buf_printf(out, ",\"%s\":%" PRIu64, name, left);
}

void slotstate_put_json(Buf *out, const SlotState *s)
{
    if (!s->known) {
        buf_puts(out, "null");
        return;
    }
    buf_puts(out, "{\"wal_status\":");
    buf_put_json(out, span_str(s->wal_status));
    buf_printf(out, ",\"retained_bytes\":%" PRIu64, s->retained);
    put_limit(out, "safe_wal_bytes", s->safe_left);
    put_limit(out, "disk_free_bytes", s->disk_left);
    buf_printf(out, ",\"retained_bytes_per_s\":%.0f", s->retained_rate);
    if (s->ends)
        buf_printf(out, ",\"minutes_left\":%.0f}", s->minutes_left);
    else
        buf_puts(out, ",\"minutes_left\":null}");
}
