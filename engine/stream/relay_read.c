/* The reading side: a log found in its folder, and the reader that feeds the stream. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/stream/ids.h"
#include "engine/stream/relay_impl.h"

static bool read_fail(const Relay *r, uint64_t segment, const char *what, Err *err)
{
    err_fail(err, ERR_SYSTEM, "reading segment %" PRIu64 " of the relay log in %s: %s", segment,
             r->dir, what);
    return err_hint(err, "the disk gave back something else than was written");
}

static RelayGot read_at(const Relay *r, int fd, RelayPlace *p, uint8_t *to, size_t len, Err *err)
{
    uint64_t at = p->at;

    while (len) {
        ssize_t got = pread(fd, to, len, (off_t)at);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            read_fail(r, p->segment, strerrordesc_np(errno), err);
            return RELAY_GOT_ERROR;
        }
        if (got == 0)
            return RELAY_GOT_NO_BLOCK;
        to += got;
        at += (uint64_t)got;
        len -= (size_t)got;
    }
    p->at = at;
    return RELAY_GOT_BLOCK;
}

static RelayGot read_body(const Relay *r, int fd, RelayPlace *p, Span head, Err *err)
{
    RelayBlock block;
    RelayGot got;
    uint8_t *to;

    if (!relay_block_open(head, p->number, &block) || block.packed > p->size - p->at)
        return RELAY_GOT_NO_BLOCK;
    buf_clear(&p->packed);
    to = buf_reserve(&p->packed, block.packed);
    if (!to)
        return RELAY_GOT_NO_BLOCK;
    got = read_at(r, fd, p, to, block.packed, err);
    if (got != RELAY_GOT_BLOCK)
        return got;
    p->packed.len = block.packed;
    return relay_block_unpack(head, buf_span(&p->packed), p->segment, &p->plain)
               ? RELAY_GOT_BLOCK
               : RELAY_GOT_NO_BLOCK;
}

RelayGot relay_read_block(const Relay *r, int fd, RelayPlace *p, Err *err)
{
    uint8_t head[RELAY_BLOCK_HEAD] = {0};
    uint64_t from = p->at;
    RelayGot got = RELAY_GOT_NO_BLOCK;

    if (p->size - p->at >= sizeof(head))
        got = read_at(r, fd, p, head, sizeof(head), err);
    if (got == RELAY_GOT_BLOCK)
        got = read_body(r, fd, p, span_of(head, sizeof(head)), err);
    if (got == RELAY_GOT_BLOCK)
        p->number++;
    else
        p->at = from;
    return got;
}

static int open_segment(const Relay *r, uint64_t number, Err *err)
{
    char name[RELAY_NAME_MOST];
    int fd;

    relay_name(r, number, name);
    fd = open(name, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        err_errno(err, ERR_SYSTEM, "opening %s of the relay log", name);
    return fd;
}

static void place_init(RelayPlace *p, uint64_t segment, uint64_t size)
{
    *p = (RelayPlace){.segment = segment, .size = size};
    buf_init(&p->packed, SIZE_MAX / 4);
    buf_init(&p->plain, SIZE_MAX / 4);
}

static void place_fini(RelayPlace *p)
{
    buf_fini(&p->packed);
    buf_fini(&p->plain);
}

/* Loading */

typedef struct Load {
    Relay *relay;
    const RelayConf *conf;
    bool last;       /* segment of the folder */
    uint32_t blocks; /* of the one before */
    uint64_t before;
} Load;

/* What came before isn't part of the log any more. */
static void start_anew(Load *load, const RelayHead *head)
{
    Relay *r = load->relay;

    relay_track_connected(&r->track);
    r->track.end = head->end;
    r->count = 0;
    r->bytes = 0;
}

static void PRINTF_LIKE(2, 3) breaks(Load *load, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vsnprintf(load->relay->broken, sizeof(load->relay->broken), fmt, args);
    va_end(args);
    load->before = 0;
}

static bool is_ours(const Load *load, const RelayHead *head, Err *err)
{
    const RelayConf *want = load->conf;

    if (strcmp(head->system, want->system) == 0 && strcmp(head->slot, want->slot) == 0 &&
        strcmp(head->database, want->database) == 0)
        return true;
    err_fail(
        err, ERR_FAITHFUL,
        "the relay log in %s is of slot \"%s\" in database \"%s\" of system %s, the source is slot "
        "\"%s\" in database \"%s\" of system %s",
        want->dir, head->slot, head->database, head->system, want->slot, want->database,
        want->system);
    return err_hint(
        err,
        "is this the right source, and the right --state-dir? A log that isn't needed any more "
        "can be removed");
}

static bool load_head(Load *load, RelayPlace *p, bool *good, Err *err)
{
    Relay *r = load->relay;
    RelayHead head = {0};

    *good = relay_head_parse(buf_span(&p->plain), &r->names, &head) && head.segment == p->segment;
    if (!*good)
        return true;
    if (!is_ours(load, &head, err))
        return false;
    if (load->before && (load->before + 1 != p->segment || load->blocks != head.blocks ||
                         position_compare(head.end, r->track.end) != 0))
        breaks(load, "segment %" PRIu64 " doesn't follow on %" PRIu64, p->segment, load->before);
    if (!load->before)
        start_anew(load, &head);
    r->head = head;
    r->head.transactions = r->head.relations = SPAN_NONE;
    (void)relay_segment_add(r, p->segment, head.end);
    return true;
}

static bool load_records(Relay *r, const RelayPlace *p, bool *good, Err *err)
{
    Reader left = reader_of(buf_span(&p->plain));
    RelayRecord record;

    while (relay_record_next(&left, &record)) {
        RelayEnded ended = {0};

        switch (record.kind) {
        case RELAY_MESSAGE:
            if (!relay_track_message(&r->track, record.message, p->segment, &ended, err))
                return false;
            break;
        case RELAY_QUIET:
            relay_track_quiet(&r->track, record.at);
            break;
        case RELAY_CONNECTED:
            relay_track_connected(&r->track);
            break;
        case RELAY_NONE:
        case RELAY_RELATION:
        default:
            break;
        }
        if (ended.segment) {
            RelaySegment *s = relay_segment_find(r, ended.segment);

            if (s && position_compare(ended.end, s->until) > 0)
                s->until = ended.end;
        }
    }
    *good = !left.broken;
    return true;
}

static bool load_blocks(Load *load, int fd, RelayPlace *p, Err *err)
{
    Relay *r = load->relay;
    bool good = true;

    while (good) {
        uint64_t from = p->at;
        uint32_t number = p->number;
        RelayGot got = relay_read_block(r, fd, p, err);

        if (got == RELAY_GOT_ERROR)
            return false;
        if (got == RELAY_GOT_NO_BLOCK)
            break;
        if (number == 0 ? !load_head(load, p, &good, err) : !load_records(r, p, &good, err))
            return false;
        if (!good) {
            p->at = from;
            p->number = number;
        }
    }
    return true;
}

/* What isn't whole at the end of the last segment was never confirmed: if it was, the slot is ahead
 * of what is left, and that is refused. */
static bool cut_tail(Load *load, int fd, const RelayPlace *p, Err *err)
{
    char name[RELAY_NAME_MOST];

    if (p->at == p->size && p->number)
        return true;
    log_warn("the relay log ends in a torn write, which is cut off",
             F_STR("folder", load->relay->dir), F_U64("segment", p->segment),
             F_U64("bytes", p->size - p->at));
    relay_name(load->relay, p->segment, name);
    if (p->at ? ftruncate(fd, (off_t)p->at) != 0 || fsync(fd) != 0 : unlink(name) != 0)
        return err_errno(err, ERR_SYSTEM, "cutting the end of %s off", name);
    return true;
}

static bool load_segment(Load *load, uint64_t number, Err *err)
{
    Relay *r = load->relay;
    struct stat stat = {0};
    RelayPlace place;
    bool done;
    int fd = open_segment(r, number, err);

    if (fd < 0)
        return false;
    if (load->before && load->before + 1 != number)
        breaks(load, "segment %" PRIu64 " is missing", load->before + 1);
    if (fstat(fd, &stat) != 0) {
        close(fd);
        return err_errno(err, ERR_SYSTEM, "looking at segment %" PRIu64 " of the relay log",
                         number);
    }
    place_init(&place, number, (uint64_t)stat.st_size);
    done = load_blocks(load, fd, &place, err);
    if (done && place.at < place.size && !load->last)
        breaks(load, "segment %" PRIu64 " is damaged at byte %" PRIu64, number, place.at);
    else if (done && place.number)
        load->before = number;
    if (done && load->last)
        done = cut_tail(load, fd, &place, err);
    if (done && place.number) {
        RelaySegment *s = relay_segment_find(r, number);

        load->blocks = place.number;
        s->size = place.at;
        s->blocks = place.number;
        r->bytes += place.at;
    }
    place_fini(&place);
    close(fd);
    return done;
}

static bool load_all(Load *load, const uint64_t *numbers, size_t count, Err *err)
{
    Relay *r = load->relay;

    for (size_t i = 0; i < count; i++) {
        load->last = i + 1 == count;
        if (!load_segment(load, numbers[i], err))
            return false;
    }
    r->segment = r->count ? r->segments[r->count - 1].number : 0;
    r->number = load->blocks;
    r->written_end = r->synced_end = r->track.end;
    r->appended = r->segment_most; /* goes on in a new one */
    return true;
}

bool relay_load(const RelayConf *conf, Relay **relay, Err *err)
{
    Load load = {.conf = conf};
    uint64_t *numbers;
    size_t count;
    bool done;

    *relay = NULL;
    if (!relay_list(conf->dir, &numbers, &count, err))
        return false;
    if (count == 0) {
        free(numbers);
        return true;
    }
    load.relay = relay_new(conf);
    done = relay_open_folder(load.relay, err) && load_all(&load, numbers, count, err);
    free(numbers);
    if (done && load.relay->count) {
        *relay = load.relay;
        return true;
    }
    relay_free(load.relay); /* nothing but a torn beginning */
    return done;
}

/* The reader */

struct RelayReader {
    Relay *relay;
    Position applied;
    int fd;
    RelayPlace place;
    Reader left;      /* of the block at hand */
    Reader relations; /* of the head at hand */
    Buf head;
    Ids foreign; /* transactions that began in segments that are gone; marked: ended */
    bool skipping;
    RelayItem *item; /* the last one read of what was never written */
    bool done;
};

RelayReader *relay_reader_new(Relay *relay, Position applied)
{
    RelayReader *reader = calloc(1, sizeof(*reader));

    if (!reader)
        abort();
    reader->relay = relay;
    reader->applied = applied;
    reader->fd = -1;
    place_init(&reader->place, 0, 0);
    buf_init(&reader->head, SIZE_MAX / 4);
    reader->left = reader->relations = reader_of(SPAN_LIT(""));
    return reader;
}

void relay_reader_free(RelayReader *reader)
{
    if (!reader)
        return;
    pthread_mutex_lock(&reader->relay->lock);
    reader->relay->reading = 0;
    pthread_mutex_unlock(&reader->relay->lock);
    if (reader->fd >= 0)
        close(reader->fd);
    place_fini(&reader->place);
    buf_fini(&reader->head);
    ids_fini(&reader->foreign);
    free(reader);
}

bool relay_reader_is_done(RelayReader *reader)
{
    return reader->done;
}

static bool begin_segment(RelayReader *reader, bool first, Err *err)
{
    RelayPlace *p = &reader->place;
    Arena names;
    RelayHead head;
    bool good;

    if (!first)
        return true;
    /* Spans of the head must outlive its block. */
    buf_clear(&reader->head);
    buf_put_span(&reader->head, buf_span(&p->plain));
    arena_init(&names, KIB(1));
    good = relay_head_parse(buf_span(&reader->head), &names, &head);
    arena_fini(&names);
    if (!good)
        return read_fail(reader->relay, p->segment, "its head can't be read", err);
    reader->relations = reader_of(head.relations);
    for (Reader open = reader_of(head.transactions); reader_left(&open);)
        (void)ids_put(&reader->foreign, reader_u32le(&open, "transaction"));
    return true;
}

typedef enum Step { STEP_BLOCK, STEP_END, STEP_FAILED } Step;

/* The segment to read next, and how much of it is there. */
static bool find_place(RelayReader *reader, uint64_t *number, uint64_t *size)
{
    Relay *r = reader->relay;
    RelayPlace *p = &reader->place;
    bool found = false;

    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < r->count && !found; i++) {
        const RelaySegment *s = &r->segments[i];

        if (s->blocks == 0 || s->number < p->segment ||
            (s->number == p->segment && s->size <= p->at))
            continue;
        *number = s->number;
        *size = s->size;
        r->reading = s->number;
        found = true;
    }
    pthread_mutex_unlock(&r->lock);
    return found;
}

/* What the writing thread had no room for, once it has ended. */
static Step next_unwritten(RelayReader *reader)
{
    Relay *r = reader->relay;

    if (r->started || !relay_is_stopped(r))
        return STEP_END;
    do {
        reader->item = reader->item ? reader->item->next : r->left;
    } while (reader->item && (reader->item->rotate || reader->item->plain.len == 0));
    if (!reader->item) {
        reader->done = true;
        return STEP_END;
    }
    reader->left = reader_of(buf_span(&reader->item->plain));
    return STEP_BLOCK;
}

static Step next_block(RelayReader *reader, Err *err)
{
    RelayPlace *p = &reader->place;
    uint64_t number, size;
    bool first = p->segment == 0;

    if (reader->item || !find_place(reader, &number, &size))
        return next_unwritten(reader);
    if (number != p->segment) {
        if (reader->fd >= 0)
            close(reader->fd);
        reader->fd = open_segment(reader->relay, number, err);
        if (reader->fd < 0)
            return STEP_FAILED;
        p->segment = number;
        p->at = 0;
        p->number = 0;
    }
    p->size = size;
    switch (relay_read_block(reader->relay, reader->fd, p, err)) {
    case RELAY_GOT_BLOCK:
        break;
    case RELAY_GOT_NO_BLOCK:
        read_fail(reader->relay, p->segment, "a block isn't what was written", err);
        return STEP_FAILED;
    case RELAY_GOT_ERROR:
    default:
        return STEP_FAILED;
    }
    if (p->number > 1)
        reader->left = reader_of(buf_span(&p->plain));
    else if (!begin_segment(reader, first, err))
        return STEP_FAILED;
    return STEP_BLOCK;
}

/* Parts of transactions that began in segments that were removed, so the target has them. */

static Id *foreign_of(RelayReader *reader, Span message, size_t at)
{
    Reader r = reader_of(message);
    Id *id;
    uint32_t xid;

    (void)reader_span(&r, at, "before");
    xid = reader_u32be(&r, "transaction");
    id = xid && !r.broken ? ids_find(&reader->foreign, xid) : NULL;
    return id && !id->marked ? id : NULL;
}

static bool end_foreign(RelayReader *reader, Id *id, Span message, bool *skip, Err *err)
{
    Reader r = reader_of(message);
    Position commit;

    if (!id)
        return true;
    id->marked = *skip = true;
    (void)reader_span(&r, message.at[0] == 'c' ? 6 : 2, "before");
    commit = position_of_lsn(reader_u64be(&r, "commit"));
    if (position_compare(commit, reader->applied) <= 0)
        return true;
    err_fail(
        err, ERR_FAITHFUL,
        "the relay log in %s has only the end of transaction %u, which the target doesn't have",
        reader->relay->dir, id->id);
    return err_hint(err, "the target was set back: the copy must be made again");
}

static bool is_foreign(RelayReader *reader, Span message, bool *skip, Err *err)
{
    uint8_t type = message.len ? message.at[0] : 0;
    Id *id;

    *skip = reader->skipping;
    if (reader->foreign.count == 0 || type == 0)
        return true;
    if (reader->skipping) {
        reader->skipping = type != 'E';
        return true;
    }
    switch (type) {
    case 'S':
        *skip = reader->skipping = foreign_of(reader, message, 1) != NULL;
        return true;
    case 'c':
        return end_foreign(reader, foreign_of(reader, message, 1), message, skip, err);
    case 'K':
        return end_foreign(reader, foreign_of(reader, message, 26), message, skip, err);
    case 'A':
    case 'r':
    case 'p':
        id = foreign_of(reader, message, type == 'A' ? 1 : type == 'r' ? 34 : 26);
        *skip = id != NULL;
        if (id && (type == 'r' || (type == 'A' && message.len >= 9 &&
                                   memcmp(message.at + 1, message.at + 5, 4) == 0)))
            id->marked = true;
        return true;
    default:
        return true;
    }
}

static bool next_relation(RelayReader *reader, RelayRecord *record)
{
    uint32_t len;

    if (reader_left(&reader->relations) == 0)
        return false;
    len = reader_u32le(&reader->relations, "length");
    *record = (RelayRecord){.kind = RELAY_RELATION,
                            .message = reader_span(&reader->relations, len, "relation")};
    return !reader->relations.broken;
}

bool relay_reader_next(RelayReader *reader, RelayRecord *record, Err *err)
{
    for (;;) {
        bool skip = false;

        if (next_relation(reader, record))
            return true;
        if (relay_record_next(&reader->left, record)) {
            if (record->kind == RELAY_CONNECTED) {
                ids_fini(&reader->foreign);
                reader->foreign = (Ids){0};
                reader->skipping = false;
            }
            if (record->kind == RELAY_MESSAGE && !is_foreign(reader, record->message, &skip, err))
                return false;
            if (skip)
                continue;
            return true;
        }
        if (reader->left.broken)
            return read_fail(reader->relay, reader->place.segment, "a record can't be read", err);
        switch (next_block(reader, err)) {
        case STEP_BLOCK:
            break;
        case STEP_FAILED:
            return false;
        case STEP_END:
        default:
            *record = (RelayRecord){.kind = RELAY_NONE};
            return true;
        }
    }
}
