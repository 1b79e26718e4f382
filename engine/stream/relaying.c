#include "engine/stream/relaying.h"

#include "engine/base/log.h"
#include "engine/base/mono.h"

static RelayConf relay_conf(const Stream *stream)
{
    return (RelayConf){
        .dir = stream->relay_dir,
        .system = stream->system,
        .slot = stream->conf.slot,
        .database = stream->database,
        .most = stream->conf.relay_most,
    };
}

static bool learn_identity(Stream *stream, Pg *source, Err *err)
{
    AUTO_RESULT res =
        pg_rows(source, err,
                "select (select system_identifier::text from pg_catalog.pg_control_system()),"
                " pg_catalog.current_database()");

    if (!res)
        return false;
    free(stream->system);
    free(stream->database);
    stream->system = strdup(PQgetvalue(res, 0, 0));
    stream->database = strdup(PQgetvalue(res, 0, 1));
    if (!stream->system || !stream->database)
        abort();
    return true;
}

static bool start_receiver(Stream *stream, Err *err)
{
    RelayFormat format = relay_format(stream->relay);
    ReceiverConf conf = {
        .sender = {.dsn = stream->conf.source_dsn,
                   .slot = stream->conf.slot,
                   .publication = stream->conf.publication,
                   .encoding = format.encoding,
                   .binary = format.binary},
        .name = stream->conf.name,
        .retry_most_s = stream->conf.retry_most_s,
        .durable = stream->durable,
        .own_pid = stream->sender_pid,
    };

    if (!relay_start(stream->relay, err))
        return false;
    stream->receiver = receiver_start(&conf, stream->relay, err);
    return stream->receiver != NULL;
}

bool relaying_find(Stream *stream, Pg *source, const SourceFacts *facts, Err *err)
{
    RelayConf conf;
    RelayStatus status;

    if (!learn_identity(stream, source, err))
        return false;
    if (stream->relay)
        return true;
    conf = relay_conf(stream);
    if (!relay_load(&conf, &stream->relay, err))
        return false;
    stream->relay_left = false;
    if (!stream->relay)
        return true;
    status = relay_status(stream->relay);
    log_info("a relay log is there", F_STR("folder", stream->relay_dir),
             F_U64("bytes", status.bytes), F_U64("segments", status.segments),
             F_LSN("from", relay_begin(stream->relay).at),
             F_LSN("to", relay_end(stream->relay).at));
    /* The slot stands inside the log: without the log nothing goes on anyhow, so that nothing is
     * lost by confirming more of it. */
    if (facts->confirmed < relay_begin(stream->relay).at ||
        facts->confirmed > relay_end(stream->relay).at)
        return true;
    return start_receiver(stream, err);
}

static bool fail_uncovered(const Stream *stream, const SourceFacts *facts, Position start, Err *err)
{
    char from[LSN_TEXT], to[LSN_TEXT], at[POSITION_TEXT], confirmed[LSN_TEXT];
    const char *broken = relay_broken(stream->relay);

    err_fail(
        err, ERR_FAITHFUL,
        "the relay log in %s has what committed from %s to %s%s%s; the target needs what committed from %s, and "
        "slot \"%s\" is confirmed up to %s",
        stream->relay_dir, lsn_text(relay_begin(stream->relay).at, from),
        lsn_text(relay_end(stream->relay).at, to), *broken ? ": " : "", broken,
        position_text(start, at), stream->conf.slot, lsn_text(facts->confirmed, confirmed));
    return err_hint(
        err,
        "what is between can't be had any more, unless the lost part of the log is found: the copy "
        "must be made again");
}

/* Drops a log that isn't needed: the source has everything from the target's position on. */
static bool drop_needless(Stream *stream, Position start, Err *err)
{
    log_info("the relay log isn't needed any more", F_LSN("target", start.at));
    return relaying_remove(stream, err);
}

bool relaying_accept(Stream *stream, const SourceFacts *facts, Position start, Err *err)
{
    Position begin, end;

    if (!stream->relay)
        return true;
    begin = relay_begin(stream->relay);
    if (position_compare(start, begin) < 0)
        return facts->confirmed > start.at ? fail_uncovered(stream, facts, start, err)
                                           : drop_needless(stream, start, err);
    if (stream->receiver)
        return relay_tidy(stream->relay, err);
    end = relay_end(stream->relay);
    if (facts->confirmed > end.at)
        return facts->confirmed > start.at ? fail_uncovered(stream, facts, start, err)
                                           : drop_needless(stream, start, err);
    return relay_tidy(stream->relay, err) && start_receiver(stream, err);
}

bool relaying_begin(Stream *stream, Position from, Err *err)
{
    RelayConf conf = relay_conf(stream);

    assert(!stream->relay);
    stream->relay = relay_create(&conf, &stream->format, from, err);
    if (!stream->relay)
        return false;
    log_warn("the target doesn't take what waits: the source is received into the relay log",
             F_STR("folder", stream->relay_dir), F_LSN("from", from.at));
    stream->durable = from;
    return start_receiver(stream, err);
}

bool relaying_is_due(const Stream *stream, const Err *why)
{
    return !stream->relay && !stream->relay_left && stream->conf.relay_after_ms &&
           why->kind == ERR_TARGET && stream->may_relay &&
           mono_ms() - stream->moved_ms >= stream->conf.relay_after_ms;
}

void relaying_close(Stream *stream, Position durable)
{
    Err ignored = ERR_INIT;
    Position end;

    if (!stream->relay)
        return;
    receiver_free(stream->receiver);
    stream->receiver = NULL;
    end = relay_end(stream->relay);
    relay_close(stream->relay);
    stream->relay = NULL;
    stream->relay_left = position_compare(durable, end) < 0;
    if (!stream->relay_left && !relay_remove(stream->relay_dir, &ignored))
        log_err(LOG_LEVEL_WARN, "the relay log is left behind", &ignored);
}

bool relaying_remove(Stream *stream, Err *err)
{
    receiver_free(stream->receiver);
    stream->receiver = NULL;
    relay_close(stream->relay);
    stream->relay = NULL;
    return relay_remove(stream->relay_dir, err);
}
