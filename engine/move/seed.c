#include "engine/move/seed.h"

#include "engine/model/position.h"

static const char *const rule_names[] = {
    [SEED_NONE] = "none",
    [SEED_REDO_DONE] = "redo done",
    [SEED_REDO_NOT_REQUIRED] = "redo is not required",
    [SEED_RDS_TOOLS] = "rds_tools.logical_seed_lsn",
};

const char *seed_rule_name(SeedRule rule)
{
    return rule_names[rule];
}

/* The rest of a line behind a phrase; at NULL: the phrase isn't there. */
static Span after(Span line, const char *phrase)
{
    const uint8_t *at = line.len ? memmem(line.at, line.len, phrase, strlen(phrase)) : NULL;

    if (!at)
        return SPAN_NONE;
    at += strlen(phrase);
    return span_of(at, (size_t)(line.at + line.len - at));
}

/* "0/2A889F08 system usage: …": an LSN ends where neither hex digit nor slash goes on. */
static bool leading_lsn(Span text, uint64_t *lsn, Err *err)
{
    size_t len = 0;

    while (len < text.len && memchr("0123456789abcdefABCDEF/", text.at[len], 23))
        len++;
    if (lsn_parse(span_of(text.at, len), lsn, err))
        return true;
    err->kind = ERR_TARGET;
    return err_context(err, "reading the restored server's log");
}

/* A word of a log line counts only in a line that the server itself wrote at LOG level, not in a
 * logged statement or in an error about a user's text. */
static Span message_of(Span line)
{
    return after(line, "LOG:  ");
}

/* The phrase must begin the message: a logged statement ("LOG:  statement: select 'redo done at
 * …'") has it further on. */
static Span begins(Span message, const char *phrase)
{
    return message.at && span_starts(message, phrase)
               ? span_of(message.at + strlen(phrase), message.len - strlen(phrase))
               : SPAN_NONE;
}

bool seed_of_log(Span text, Seed *seed, Err *err)
{
    uint64_t end_of_wal = 0;

    *seed = (Seed){SEED_NONE, 0, 0};
    while (text.len) {
        const uint8_t *newline = memchr(text.at, '\n', text.len);
        Span line = span_of(text.at, newline ? (size_t)(newline - text.at) : text.len);
        Span message = message_of(line);
        Span got;

        if (!newline)
            return true; /* still being written */
        text = span_of(newline + 1, text.len - line.len - 1);
        got = begins(message, "invalid record length at ");
        if (got.at && !leading_lsn(got, &end_of_wal, err))
            return false;
        got = begins(message, "redo done at ");
        if (got.at) {
            if (!leading_lsn(got, &seed->logged, err))
                return false;
            seed->rule = SEED_REDO_DONE;
            seed->start = seed->logged + 1;
            return true;
        }
        if (begins(message, "redo is not required").at && end_of_wal) {
            *seed = (Seed){SEED_REDO_NOT_REQUIRED, end_of_wal, end_of_wal};
            return true;
        }
    }
    return true;
}

bool seed_check(const Seed *seed, const SeedBounds *bounds, Err *err)
{
    char a[LSN_TEXT];
    char b[LSN_TEXT];

    if (bounds->wal_status && strcmp(bounds->wal_status, "lost") == 0) {
        err_fail(err, ERR_STATE, "the slot lost the WAL it needs");
        return err_hint(err, "raise max_slot_wal_keep_size, keybridge cleanup, and start again");
    }
    if (seed->start < bounds->consistent_point) {
        err_fail(
            err, ERR_STATE,
            "the copy ends at %s, before the slot's consistent point %s: what lies between is lost",
            lsn_text(seed->start, a), lsn_text(bounds->consistent_point, b));
        return err_hint(err,
                        "the snapshot is older than the slot; keybridge cleanup, and start again");
    }
    if (seed->start > bounds->source_flush) {
        err_fail(
            err, ERR_STATE,
            "the copy ends at %s, beyond the source's flush position %s: it isn't this source's copy",
            lsn_text(seed->start, a), lsn_text(bounds->source_flush, b));
        return err_hint(err, "check that the snapshot was taken from this instance");
    }
    if (bounds->confirmed_flush > seed->start) {
        err_fail(err, ERR_STATE, "the slot was used: it is confirmed up to %s, the copy ends at %s",
                 lsn_text(bounds->confirmed_flush, a), lsn_text(seed->start, b));
        return err_hint(err,
                        "somebody streamed from this slot; keybridge cleanup, and start again");
    }
    return true;
}
