/* The source is read directly until the target has taken nothing of what waits for a while; then
 * into the relay log, and what is in the log is read from there, until that is empty. */
#include "engine/base/crash.h"
#include "engine/base/log.h"
#include "engine/base/mono.h"
#include "engine/stream/relaying.h"
#include "engine/stream/session_impl.h"

#define MOVING_MS     2000 /* the target takes what waits, if something was durable so lately */
#define SHORT_MINUTES 5

static Position later(Position a, Position b)
{
    return position_compare(a, b) > 0 ? a : b;
}

bool session_take_relayed(Session *s, Err *err)
{
    RelayRecord record = {.kind = RELAY_NONE};
    bool done = true;

    s->dry = s->passed; /* past the end position nothing else would make it true */
    while (done && session_wants_input(s) && !s->dry) {
        if (!relay_reader_next(s->reader, &record, err))
            return false;
        switch (record.kind) {
        case RELAY_MESSAGE:
            s->bytes += record.message.len;
            done = assembler_message(s->assembler, record.message, err);
            break;
        case RELAY_RELATION:
            done = assembler_relation(s->assembler, record.message, err);
            break;
        case RELAY_CONNECTED:
            assembler_restart(s->assembler);
            break;
        case RELAY_QUIET:
            s->quiet = later(s->quiet, record.at);
            break;
        case RELAY_NONE:
        default:
            s->dry = true;
            break;
        }
        session_look_for_end(s);
    }
    return done;
}

static bool data_waits(const Session *s)
{
    return s->flight_count || s->held || assembler_has_full(s->assembler);
}

void session_note_progress(Session *s)
{
    Position durable = apply_durable_end(s->apply);

    if (!data_waits(s) || position_compare(durable, s->stream->durable) > 0)
        s->stream->moved_ms = mono_ms();
    s->stream->durable = later(s->stream->durable, durable);
}

/* The source may soon give the slot up, or have no disk left. */
static bool is_short(const SlotState *slot)
{
    return slot->known && (strcmp(slot->wal_status, "unreserved") == 0 ||
                           (slot->ends && slot->minutes_left < SHORT_MINUTES));
}

static bool has_stalled(const Session *s)
{
    const Stream *stream = s->stream;

    return stream->conf.relay_after_ms && !s->passed &&
           mono_ms() - stream->moved_ms >= stream->conf.relay_after_ms;
}

static bool must_relay(const Session *s)
{
    const Stream *stream = s->stream;

    if (stream->relay || !stream->may_relay || !stream->conf.relay_after_ms || s->passed ||
        s->retired_count == RETIRED_MOST)
        return false;
    return has_stalled(s) || (data_waits(s) && is_short(&stream->watch.now));
}

/* What was taken from the assembler is on its way; all else comes again, through the log. */
static void replace_assembler(Session *s)
{
    if (!position_is_none(s->last_commit)) {
        s->conf.progress.any = true;
        s->conf.progress.partial = false;
        s->conf.progress.applied = s->last_commit;
        s->conf.progress.applied_end = s->last_end;
    }
    assembler_retire(s->assembler);
    s->retired[s->retired_count++] = s->assembler;
    s->assembler = assembler_new(&s->conf, s->stream->spool);
    s->quiet = POSITION_NONE; /* it was of what is forgotten */
    s->dry = false;
}

static bool enter_relay(Session *s, Err *err)
{
    Err ignored = ERR_INIT;

    if (session_reply(s, false, &ignored))
        walsender_end(s->sender, 2000);
    walsender_free(s->sender);
    s->sender = NULL;
    crash_point("relay-entered");
    if (!relaying_begin(s->stream, s->stream->durable, err))
        return false;
    replace_assembler(s);
    s->reader = relay_reader_new(s->stream->relay, s->conf.progress.applied);
    return true;
}

/* Everything that was received is read, and the target takes it as it comes. */
static bool is_drained(const Session *s)
{
    return s->dry && !s->held && !s->passed &&
           (s->flight_count == 0 || (s->flight_count <= QUEUE_BATCHES &&
                                     mono_ms() - s->stream->moved_ms <
                                         size_min(MOVING_MS, s->stream->conf.relay_after_ms / 2)));
}

static bool take_over(Session *s, Err *err)
{
    s->sender = receiver_take_sender(s->stream->receiver);
    s->stream->receiver = NULL;
    relay_stop(s->stream->relay, false);
    if (s->sender) {
        s->stream->sender_pid = walsender_pid(s->sender);
        s->binary = relay_format(s->stream->relay).binary;
        s->heard_ms = mono_ms();
        s->replied = relay_synced_end(s->stream->relay);
        return true;
    }
    err_fail(err, ERR_SOURCE, "the connection to the source was lost");
    return err_transient(err);
}

static bool keep_relaying(Session *s, Err *err)
{
    Stream *stream = s->stream;

    if (stream->receiver) {
        receiver_tell(stream->receiver, apply_durable_end(s->apply), apply_committed_end(s->apply));
        if (!receiver_check(stream->receiver, err))
            return err_context(err, "receiving into the relay log");
        if (!s->leaving && is_drained(s) && receiver_pid(stream->receiver)) {
            receiver_leave(stream->receiver);
            s->leaving = true;
        }
        if (s->leaving && receiver_has_left(stream->receiver) && !take_over(s, err))
            return false;
    }
    relay_forget(stream->relay, apply_durable_end(s->apply));
    if (!s->sender || !relay_reader_is_done(s->reader))
        return true;
    log_info("the relay log is drained: the source is read directly again");
    relay_reader_free(s->reader);
    s->reader = NULL;
    s->leaving = false;
    crash_point("relay-drained");
    return true;
}

/* The next attempt finds the log as one that was left behind, and goes on receiving into it. */
static bool relay_again(Err *err)
{
    err_fail(err, ERR_TARGET, "the target stalls again, with the relay log not yet durable on it");
    return err_transient(err);
}

bool session_relay_turn(Session *s, Err *err)
{
    Stream *stream = s->stream;

    session_note_progress(s);
    if (must_relay(s))
        return enter_relay(s, err);
    if (!stream->relay)
        return true;
    /* The log is needed until the target has everything for good. */
    if (!s->reader && position_compare(apply_durable_end(s->apply), relay_end(stream->relay)) >= 0)
        return relaying_remove(stream, err);
    if (s->sender && has_stalled(s))
        return relay_again(err);
    return !s->reader || keep_relaying(s, err);
}

void session_fill_relay(Session *s, StreamStatus *status)
{
    Stream *stream = s->stream;
    RelayStatus relay = {0};

    status->relaying = stream->receiver != NULL;
    if (stream->receiver)
        status->received = later(status->received, receiver_received(stream->receiver));
    if (stream->relay)
        relay = relay_status(stream->relay);
    status->relay_bytes = relay.bytes;
    status->relay_segments = relay.segments;
    status->relay_oldest = relay.oldest;
}
