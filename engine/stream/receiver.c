#include "engine/stream/receiver.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include "engine/base/crash.h"
#include "engine/base/log.h"
#include "engine/base/mono.h"
#include "engine/stream/source.h"

#define SYNC_MS       500     /* between two requests to sync */
#define QUIET_MS      3000    /* between two notes that nothing has committed, */
#define QUIET_BYTES   MIB(16) /* unless so much WAL was skipped */
#define POLL_MS       20
#define FIRST_WAIT_MS 200
#define MOST_WAIT_MS  10000

struct Receiver {
    ReceiverConf conf;
    Relay *relay;
    pthread_t thread;
    Stop stop;
    atomic_bool leaving;
    atomic_bool ended;
    atomic_int pid;
    /* its thread */
    WalSender *sender;
    unsigned timeout_ms;
    uint64_t heard_ms;
    uint64_t replied_ms;
    uint64_t synced_ms;
    uint64_t quiet_ms;
    uint64_t good_ms;
    unsigned wait_ms;
    Position replied;
    bool answer_now;
    /* under lock */
    pthread_mutex_t lock;
    Position durable;
    Position committed;
    Position received;
    Err why; /* once ended */
};

static Position later(Position a, Position b)
{
    return position_compare(a, b) > 0 ? a : b;
}

/* What may be forgotten by the source. */
static Position safe(Receiver *r)
{
    Position durable;

    pthread_mutex_lock(&r->lock);
    durable = r->durable;
    pthread_mutex_unlock(&r->lock);
    return later(durable, relay_synced_end(r->relay));
}

/* Connecting */

static bool fits(const Receiver *r, const SourceFacts *facts, Err *err)
{
    uint64_t end = relay_end(r->relay).at;
    char here[LSN_TEXT], there[LSN_TEXT];

    if (facts->confirmed > end) {
        err_fail(err, ERR_FAITHFUL,
                 "replication slot \"%s\" is confirmed up to %s, the relay log ends at %s",
                 r->conf.sender.slot, lsn_text(facts->confirmed, there), lsn_text(end, here));
        return err_hint(err, "the slot was made again or moved: the copy must be made again");
    }
    if (end > facts->flushed) {
        err_fail(err, ERR_FAITHFUL, "the relay log ends at %s, behind the source's end of WAL, %s",
                 lsn_text(end, here), lsn_text(facts->flushed, there));
        return err_hint(err, "a source that was set back has lost what is here");
    }
    return true;
}

static bool connect_sender(Receiver *r, Err *err)
{
    WalSenderConf sender = r->conf.sender;
    PgOptions options = {.stop = &r->stop};
    SourceFacts facts;
    AUTO_PG ask = {0};

    if (!pg_open(&ask, sender.dsn, ERR_SOURCE, &options, err) ||
        !source_check(&ask, sender.slot, sender.publication, r->conf.own_pid, false, &facts, err) ||
        !fits(r, &facts, err))
        return false;
    sender.start = relay_end(r->relay);
    sender.stop = &r->stop;
    r->sender = walsender_start(&sender, err);
    if (!r->sender)
        return false;
    if (walsender_protocol(r->sender) != relay_format(r->relay).protocol)
        return err_fail(err, ERR_FAITHFUL,
                        "the source speaks protocol %u now, the relay log has %u",
                        walsender_protocol(r->sender), relay_format(r->relay).protocol);
    r->conf.own_pid = walsender_pid(r->sender);
    atomic_store(&r->pid, r->conf.own_pid);
    r->timeout_ms = facts.sender_timeout_ms;
    r->heard_ms = r->good_ms = mono_ms();
    r->replied = POSITION_NONE;
    relay_connected(r->relay);
    log_info("receiving into the relay log", F_STR("slot", sender.slot),
             F_LSN("from", sender.start.at));
    return true;
}

static void disconnect(Receiver *r)
{
    atomic_store(&r->pid, 0);
    walsender_free(r->sender);
    r->sender = NULL;
}

/* Talking */

static bool reply(Receiver *r, bool want_answer, Err *err)
{
    Position confirmed = safe(r), committed;

    crash_point("relay-before-ack");
    pthread_mutex_lock(&r->lock);
    r->received = relay_end(r->relay);
    committed = r->committed;
    pthread_mutex_unlock(&r->lock);
    if (!walsender_reply(r->sender, later(relay_end(r->relay), confirmed), confirmed,
                         later(committed, confirmed), want_answer, err))
        return false;
    r->replied = confirmed;
    r->replied_ms = mono_ms();
    r->answer_now = false;
    crash_point("relay-after-ack");
    return true;
}

static bool keep_in_touch(Receiver *r, bool reading, Err *err)
{
    uint64_t now = mono_ms(), since = now - r->replied_ms;

    if (!reading)
        r->heard_ms = now; /* nobody listens */
    if (!walsender_is_alive(r->timeout_ms, now - r->heard_ms, err))
        return false;
    if (r->answer_now || since >= walsender_status_ms(r->timeout_ms) ||
        (since >= WALSENDER_ACK_MS && position_compare(safe(r), r->replied) > 0))
        return reply(r, reading && now - r->heard_ms >= walsender_status_ms(r->timeout_ms), err);
    return true;
}

/* Reading */

static void on_keepalive(Receiver *r, const WalMessage *message)
{
    uint64_t now = mono_ms();

    r->answer_now |= message->reply_wanted;
    if (now - r->quiet_ms < QUIET_MS && message->at.at < relay_end(r->relay).at + QUIET_BYTES)
        return;
    r->quiet_ms = now;
    relay_quiet(r->relay, message->at);
}

static bool take_messages(Receiver *r, Err *err)
{
    WalMessage message;

    do {
        if (!walsender_next(r->sender, &message, err))
            return false;
        switch (message.kind) {
        case WAL_DATA:
            if (!relay_message(r->relay, message.data, err))
                return false;
            break;
        case WAL_KEEPALIVE:
            on_keepalive(r, &message);
            break;
        case WAL_END:
            err_fail(err, ERR_SOURCE, "the source has ended the stream");
            err_code(err, "57P01");
            return err_transient(err);
        case WAL_NONE:
        default:
            break;
        }
    } while (message.kind != WAL_NONE && relay_has_room(r->relay));
    return true;
}

static bool wait_and_read(Receiver *r, bool reading, Err *err)
{
    struct pollfd fds[] = {
        {.fd = walsender_fd(r->sender), .events = walsender_events(r->sender, reading)},
        {.fd = r->stop.fd, .events = POLLIN},
    };
    size_t got;

    if (poll(fds, stop_requested(&r->stop) ? 1 : 2, POLL_MS) < 0 || !reading)
        return true;
    if (fds[0].revents) {
        if (!walsender_read(r->sender, true, &got, err))
            return false;
        r->heard_ms = mono_ms();
    }
    return take_messages(r, err); /* of what libpq has, too */
}

/* Until the connection is lost, or given away, or we are to stop. */
static bool follow(Receiver *r, Err *err)
{
    for (;;) {
        bool ending = stop_requested(&r->stop) || atomic_load(&r->leaving);
        bool reading = !ending && relay_has_room(r->relay);

        if (ending)
            relay_stop_soon(r->relay, stop_requested(&r->stop));
        if (!relay_works(r->relay, err) || !keep_in_touch(r, reading, err))
            return false;
        if (ending && relay_is_stopped(r->relay))
            return true;
        if (!ending && mono_ms() - r->synced_ms >= SYNC_MS) {
            relay_flush(r->relay, true);
            r->synced_ms = mono_ms();
        }
        if (!wait_and_read(r, reading, err))
            return false;
    }
}

/* True: try again. */
static bool may_heal(Receiver *r, Err *err)
{
    unsigned wait = r->wait_ms;

    if (stop_requested(&r->stop) || atomic_load(&r->leaving) || !err->transient)
        return false;
    if (r->conf.retry_most_s && mono_ms() - r->good_ms > r->conf.retry_most_s * UINT64_C(1000)) {
        err_context(err, "given up after %" PRIu64 " s without success",
                    (mono_ms() - r->good_ms) / 1000);
        return false;
    }
    log_err(LOG_LEVEL_WARN, "receiving interrupted", err);
    relay_flush(r->relay, true);
    r->wait_ms = wait * 2 > MOST_WAIT_MS ? MOST_WAIT_MS : wait * 2;
    err_clear(err);
    return !stop_wait(&r->stop, wait);
}

static void *receiver_main(void *arg)
{
    Receiver *r = arg;
    Err err = ERR_INIT;
    bool done = false;

    log_thread(r->conf.name);
    while (!done) {
        if (connect_sender(r, &err)) {
            r->wait_ms = FIRST_WAIT_MS;
            done = follow(r, &err);
            r->good_ms = mono_ms();
        }
        if (done)
            break;
        disconnect(r);
        if (!may_heal(r, &err))
            break;
    }
    if (done && stop_requested(&r->stop)) {
        Err ignored = ERR_INIT;

        if (reply(r, false, &ignored))
            walsender_end(r->sender, 1000);
        disconnect(r);
    }
    pthread_mutex_lock(&r->lock);
    r->why = err;
    pthread_mutex_unlock(&r->lock);
    atomic_store(&r->ended, true);
    return NULL;
}

/* Life */

Receiver *receiver_start(const ReceiverConf *conf, Relay *relay, Err *err)
{
    Receiver *r = calloc(1, sizeof(*r));
    int failed;

    if (!r)
        abort();
    r->conf = *conf;
    r->relay = relay;
    r->durable = r->committed = conf->durable;
    r->received = relay_end(relay);
    r->wait_ms = FIRST_WAIT_MS;
    r->good_ms = mono_ms();
    r->why = ERR_INIT;
    pthread_mutex_init(&r->lock, NULL);
    if (!stop_init(&r->stop, err)) {
        free(r);
        return NULL;
    }
    failed = pthread_create(&r->thread, NULL, receiver_main, r);
    if (!failed)
        return r;
    stop_fini(&r->stop);
    free(r);
    err_fail(err, ERR_SYSTEM, "starting a thread: %s", strerrordesc_np(failed));
    return NULL;
}

static void join(Receiver *r)
{
    pthread_join(r->thread, NULL);
    stop_fini(&r->stop);
    pthread_mutex_destroy(&r->lock);
}

void receiver_free(Receiver *r)
{
    if (!r)
        return;
    stop_request(&r->stop);
    join(r);
    walsender_free(r->sender);
    free(r);
}

void receiver_tell(Receiver *r, Position durable, Position committed)
{
    pthread_mutex_lock(&r->lock);
    r->durable = later(r->durable, durable);
    r->committed = later(r->committed, committed);
    pthread_mutex_unlock(&r->lock);
}

bool receiver_check(Receiver *r, Err *err)
{
    if (!atomic_load(&r->ended) || atomic_load(&r->leaving))
        return true;
    pthread_mutex_lock(&r->lock);
    *err = r->why;
    pthread_mutex_unlock(&r->lock);
    return !err_is_set(err);
}

int receiver_pid(Receiver *r)
{
    return atomic_load(&r->pid);
}

Position receiver_received(Receiver *r)
{
    Position received;

    pthread_mutex_lock(&r->lock);
    received = r->received;
    pthread_mutex_unlock(&r->lock);
    return received;
}

void receiver_leave(Receiver *r)
{
    atomic_store(&r->leaving, true);
}

bool receiver_has_left(Receiver *r)
{
    return atomic_load(&r->ended);
}

WalSender *receiver_take_sender(Receiver *r)
{
    WalSender *sender;

    join(r);
    sender = r->sender;
    free(r);
    return sender;
}
